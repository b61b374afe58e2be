"""--output: one run at a time, refused before the model is loaded where it cannot be written to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import SUPPORT
from support.commands import MODEL, Ended, expect_one_line, messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_S = 240.0
EVAL = ["eval", "shards", "-b", "10", "-o", "run", "-m"]
HELD = """
import pathlib, time
from wds_real.synthetic import KnownAnswerModel, known_answer_model

class Held(KnownAnswerModel):
    def forward(self, image):
        pathlib.Path("running").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        return super().forward(image)

def model():
    return Held(), known_answer_model()[1]
"""  # does a batch once the file "go" is there
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(*arguments: str, launcher: tuple[str, ...] = (), seconds: str = "0.2") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "wds_real", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={
            **os.environ, "PYTHONPATH": f"{SUPPORT}:{SUPPORT.parent}", "OMP_NUM_THREADS": "1",
            "SLOW_MODEL_LOG": "log", "SLOW_MODEL_SECONDS": seconds,
        },
    )  # fmt: skip


def wait_for_batches(number: int) -> list[int]:
    """Wait until so many batches are done; return the numbers of the processes that did them."""
    deadline = time.monotonic() + DEADLINE_S
    while not Path("log").exists() or len(lines := Path("log").read_text().splitlines()) < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return sorted({int(line.split()[1]) for line in lines})


@pytest.fixture
def running(here: Path) -> Iterator[subprocess.Popen[str]]:
    """An evaluation that writes to ``run``, and goes on once the file ``go`` is there."""
    del here
    Path("held.py").write_text(HELD)
    with start(*EVAL, "held:model") as process:
        while not Path("running").exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield process
        process.kill()


def test_a_second_run_is_refused(running: subprocess.Popen[str], run: Callable[..., Ended]) -> None:
    """A second eval, and a merge, name the process that writes to the folder; the first run ends as if alone."""
    for arguments in ([*EVAL, MODEL], ["merge", "run", "--root", "shards"]):
        expect_one_line(run(*arguments), 1, "run: eval (process", str(running.pid), "writes there", "--output")
    Path("go").touch()
    out, _ = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 0
    assert "120 seen once" in out
    assert {path.name for path in Path("run").iterdir()} == {"run.json", "records", "predictions.csv", "result.json"}


@pytest.mark.usefixtures("running")
def test_a_second_run_of_several_ranks_is_refused() -> None:
    """All ranks end at once with exit code 1: rank 0 says who writes there, the other at most that rank 0 says why."""
    with start(*EVAL, MODEL, launcher=TORCHRUN) as second:
        out, err = second.communicate(timeout=DEADLINE_S)
    assert (second.returncode, out) == (1, "")
    assert "rank 0: error: run: eval (process" in err
    others = [line for line in err.splitlines() if line.startswith("rank 1: ")]
    assert set(others) <= {"rank 1: error: run: rank 0 cannot use this --output; it says why.", "rank 1: terminated"}


@pytest.mark.usefixtures("here")
def test_ranks_that_outlive_torchrun_are_named_and_harmless(run: Callable[..., Ended]) -> None:
    """After kill -9 of torchrun its ranks go on: the next start names them, and once they are gone, it resumes."""
    with start(*EVAL, "slow_model:slow_model", launcher=TORCHRUN, seconds="20") as torchrun:
        ranks = wait_for_batches(2)
        torchrun.kill()
        torchrun.wait(DEADLINE_S)
        try:
            expect_one_line(run(*EVAL, MODEL), 1, "run: eval on 2 ranks (process", "writes there")
        finally:
            for rank in ranks:
                os.kill(rank, signal.SIGKILL)
    with start(*EVAL, "slow_model:slow_model", seconds="0") as again:
        out, _ = again.communicate(timeout=DEADLINE_S)
    assert again.returncode == 0
    assert "120 seen once, 0 missing, 0 twice, 1 rank" in out


@pytest.mark.usefixtures("here")
def test_merging_a_run_of_two_ranks_says_two_ranks(run: Callable[..., Ended]) -> None:
    """Also if there is a batch for one of them only."""
    arguments = ["eval", "shards", "-b", "200", "-o", "run", "-m", "slow_model:slow_model"]
    with start(*arguments, launcher=TORCHRUN, seconds="0") as torchrun:
        out, _ = torchrun.communicate(timeout=DEADLINE_S)
    assert "0 twice, 2 ranks" in out
    assert "0 twice, 2 ranks" in run("merge", "run", "--root", "shards").out
    assert json.loads(Path("run/result.json").read_bytes())["run"]["world_size"] == 2


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("output", ["val.tar", "val.tar/run", "s3://bucket/run", "shards\x1b"])
def test_an_impossible_output_is_refused_before_the_model_is_loaded(run: Callable[..., Ended], output: str) -> None:
    """A file, a bucket without credentials and an impossible folder are refused before the model is imported."""
    Path("loud.py").write_text("raise RuntimeError('the model was imported')\n")
    if output.startswith("shards"):
        os.symlink("nothing", output)  # noqa: PTH211
    ended = run("eval", "shards", "-m", "loud:model", "-o", output)
    assert ended.code == 1
    assert len(messages(ended.err)) == 1
    assert "the model was imported" not in ended.err
    assert "--output" in ended.err
    assert "shards, " not in ended.err
