"""Standard streams that are closed, full or broken: the exit code is what the work deserves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WDS_REAL = f"'{sys.executable}' -m wds_real"


def shell(command: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], check=False, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_does_not_matter(closed: str) -> None:
    """`verify` of a whole set ends with 0 and of a missing one with 1; `pack` writes the same bytes as ever."""
    assert shell(f"{WDS_REAL} verify shards {closed}")[0] == 0
    assert shell(f"{WDS_REAL} verify nope {closed}")[0] == 1
    assert shell(f"{WDS_REAL} pack val.tar new --allow-partial --samples-per-shard 50 {closed}")[0] == 0
    for path in Path("shards").iterdir():
        assert Path("new", path.name).read_bytes() == path.read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.usefixtures("here")
def test_a_full_stdout_is_an_error() -> None:
    """A result that cannot be printed ends the command with one line and exit code 1; a full stderr is no error."""
    for command in ("verify shards", "info shards --json", "--help"):
        code, _, err = shell(f"{WDS_REAL} {command} >/dev/full")
        assert code == 1
        assert [line for line in err.splitlines() if "No space left on device" in line and line.startswith("error: ")]
        assert "Traceback" not in err
        assert "Exception" not in err
    assert shell(f"{WDS_REAL} verify shards 2>/dev/full")[0] == 0
    assert shell(f"{WDS_REAL} verify nope 2>/dev/full")[0] == 1


def after(name: str) -> str:
    """Return a command that waits for a file."""
    return f"(until [ -e {name} ]; do sleep 0.05; done)"


@pytest.mark.usefixtures("here")
def test_a_broken_pipe_is_silent() -> None:
    """Under ``| head -1`` a command ends without a word, with the exit code of SIGPIPE."""
    code, out, err = shell(f"({WDS_REAL} info shards; code=$?; touch ended; exit $code) | {after('ended')}")
    assert (code, out, err) == (0, "", "")  # all fits into the pipe's buffer
    code, out, err = shell(f"{WDS_REAL} info shards | true")
    assert (out, err) == ("", "")
    assert code in (0, 141)
    code, out, err = shell(f"({after('gone')}; sleep 0.5; {WDS_REAL} info shards) | touch gone")
    assert (code, out, err) == (141, "", "")
