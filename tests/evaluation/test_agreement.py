"""A failure on one rank is raised on all of them, in the same place."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from wds_real.errors import ModelError, ModelRunError
from wds_real.evaluation.agreement import agreed
from wds_real.evaluation.failures import ran_out_of_memory

if TYPE_CHECKING:
    from pathlib import Path

RANKS = """
    import json, os, sys
    from pathlib import Path
    import torch
    from wds_real.data.distributed import process_group
    from wds_real.errors import ModelError, ModelRunError
    from wds_real.evaluation.agreement import agreed
    from wds_real.evaluation.failures import memory_errors, ran_out_of_memory

    def work(kind):
        if kind == "memory":
            with memory_errors(8):
                raise MemoryError
        if kind == "error":
            raise ModelError("this rank's own")

    CASES = [("", ""), ("", "error"), ("memory", ""), ("memory", "error"), ("memory", "memory"), ("", "")]
    found, rank = [], int(os.environ["RANK"])
    with process_group(torch.device("cpu"), timeout_s=60):
        for case in CASES:
            try:
                with agreed(ModelError("another rank's")):
                    work(case[rank])
            except ModelError as error:
                found.append([str(error), ran_out_of_memory(error)])
            else:
                found.append(None)
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(found))
"""


def test_all_ranks_fail_in_the_same_places(tmp_path: Path) -> None:
    """Each rank raises its own error, or says that another has one; memory ran out only if no rank refused."""
    (tmp_path / "ranks.py").write_text(textwrap.dedent(RANKS))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "ranks.py"), str(tmp_path)], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    memory, other = ["out of memory at batch 8: try -b 4.", True], ["another rank's", False]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [
        [None, other, memory, other, memory, None],
        [None, ["this rank's own", False], ["another rank's", True], ["this rank's own", False], memory, None],
    ]


def test_a_process_alone_raises_its_own_error() -> None:
    """Without a process group the block's error passes as it is."""
    with pytest.raises(ModelRunError, match="mine") as caught, agreed(ModelError("another rank's")):
        raise ModelRunError("mine") from MemoryError()
    assert ran_out_of_memory(caught.value)
    with agreed(ModelError("another rank's")):
        pass


def test_other_exceptions_pass_at_once() -> None:
    """A signal does not wait for the other ranks."""
    with pytest.raises(KeyboardInterrupt), agreed(ModelError("another rank's")):
        raise KeyboardInterrupt
