"""Commands that run models keep freed memory and use it again, unless the environment sets the allocator."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

BLOCK = 64 << 20
PAGES = BLOCK // os.sysconf("SC_PAGE_SIZE")
# A block of 64 MiB is filled and freed ten times; how many pages does the system give for the last nine?
FILL = f"""
import resource
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
import numpy as np
np.ones({BLOCK}, dtype=np.uint8)
before = faults()
for _ in range(9):
    np.ones({BLOCK}, dtype=np.uint8)
print(kept, faults() - before)
"""
KEEP = "from wds_real.cli.memory import keep_freed_memory\nkept = keep_freed_memory()"

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def filled(first: str, **environment: str) -> tuple[str, int]:
    """Run code in another process, fill blocks there; return whether memory is kept, and the number of new pages."""
    own = {name: value for name, value in os.environ.items() if "MALLOC" not in name and name != "GLIBC_TUNABLES"}
    script = subprocess.run(
        [sys.executable, "-c", first + FILL], env=own | environment, capture_output=True, text=True, check=True
    )
    kept, pages = script.stdout.split()
    return kept, int(pages)


@glibc
def test_freed_memory_is_used_again() -> None:
    """Without it, each of nine blocks is new memory; with it, none is."""
    huge_pages = 512  # of 4 KiB pages, where the system gives those
    assert filled("kept = None")[1] > 8 * PAGES // huge_pages
    kept, pages = filled(KEEP)
    assert kept == "True"
    assert pages <= PAGES // huge_pages


@glibc
@pytest.mark.parametrize(
    "environment", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_the_environment_decides(environment: dict[str, str]) -> None:
    """Who sets the allocator keeps what they set."""
    assert filled(KEEP, **environment)[0] == "False"


def test_another_c_library_is_left_alone() -> None:
    """The call is of glibc: macOS and others have no such call."""
    code = "import sys; sys.platform = 'darwin'\n" + KEEP
    assert filled(code)[0] == "False"


@glibc
@pytest.mark.parametrize("command", ["eval", "diagnose"])
def test_commands_that_run_models_keep_it(command: str) -> None:
    """The command sets it for its process, also if it fails afterwards."""
    code = f"""
import contextlib
from wds_real.cli.main import main
with contextlib.suppress(SystemExit):
    main(["{command}", "/nowhere", "-m", "efficientnet_lite0"])
kept = None"""
    assert filled(code)[1] <= PAGES // 512
