"""Runs that are killed at any moment end with the bytes of a run that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from support.trials import check_trials, evaluate_slowly, run_trials, trial_environment

if TYPE_CHECKING:
    from pathlib import Path

NUM_BATCHES = 12


@pytest.fixture(scope="module")
def undisturbed(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The prediction file of a run that nothing happened to."""
    return evaluate_slowly(packed, tmp_path_factory.mktemp("undisturbed"))


def test_killed_run_resumes_to_the_same_bytes(packed: Path, tmp_path: Path, undisturbed: str) -> None:
    """SIGKILL of a random rank at a random moment, 20 times: the same predictions, at most one batch a rank redone."""
    trials = run_trials(packed, tmp_path, seed=1, count=20, most_ranks=4, signals=["SIGKILL"])
    check_trials(trials, predictions=undisturbed, num_batches=NUM_BATCHES)


@pytest.mark.parametrize("kill_after_batches", [1, 4, pytest.param(8, marks=pytest.mark.slow)])
def test_torchrun_restarts_a_killed_rank(
    packed: Path, tmp_path: Path, undisturbed: str, kill_after_batches: int
) -> None:
    """With --max-restarts torchrun itself brings the run to its end after a rank was killed."""
    log = tmp_path / "log"
    log.touch()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "--max-restarts", "2", "-m", "wds_real", "eval", str(packed), "-m", "slow_model:slow_model",
               "-b", "10", "-o", str(tmp_path / "run")]  # fmt: skip
    run = subprocess.Popen(
        command,
        env=trial_environment(SLOW_MODEL_LOG=str(log), SLOW_MODEL_HOLDS_AT=str(-(-kill_after_batches // 2))),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with run:
        deadline = time.monotonic() + 120
        while len(lines := log.read_text().splitlines()) < kill_after_batches and run.poll() is None:
            assert time.monotonic() < deadline, "the run did not come as far as the kill"
            time.sleep(0.01)
        os.kill(int(lines[-1].split()[1]), signal.SIGKILL)
        log.with_suffix(".go").touch()
        try:
            shown, _ = run.communicate(timeout=120)
        finally:
            run.terminate()  # torchrun's agent then stops its workers; nothing to do where it has ended
    assert run.returncode == 0, shown
    assert (tmp_path / "run" / "predictions.csv").read_text() == undisturbed
    assert NUM_BATCHES < len(log.read_text().splitlines()) <= NUM_BATCHES + 2
    assert "120 expected, 120 seen once, 0 missing, 0 twice" in shown
