"""Runs that are killed at any moment end with the bytes of a run that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from support import SUPPORT

if TYPE_CHECKING:
    from pathlib import Path

NUM_BATCHES = 12


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{SUPPORT}:{SUPPORT.parent}", "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def undisturbed(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The prediction file of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "wds_real", "eval", str(packed), "-m", "slow_model:slow_model", "-b", "10",
               "-o", str(folder / "run")]  # fmt: skip
    subprocess.run(command, check=True, env=environment(SLOW_MODEL_LOG=str(folder / "log")), capture_output=True)
    return (folder / "run" / "predictions.csv").read_text()


def check_trials(root: Path, folder: Path, *, seed: int, count: int, predictions: str) -> None:
    command = [sys.executable, str(SUPPORT / "agent.py"), str(root), str(folder), str(seed), str(count)]
    done = subprocess.run(command, check=False, env=environment(), capture_output=True, text=True, timeout=60 * count)
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(trials) == count
    interrupted = 0
    for trial in trials:
        assert set(trial["codes"]) == {0}, (trial, done.stderr)
        assert trial["predictions"] == predictions, trial["world_sizes"]
        assert NUM_BATCHES <= trial["batches_in_all"] <= NUM_BATCHES + trial["lost_ranks"], trial
        assert trial["seconds"] < 60
        interrupted += 0 < trial["batches_before"] < trial["batches_in_all"]
    assert interrupted > count / 5, "too few of the kills came while batches were being done to mean anything"


def test_killed_run_resumes_to_the_same_bytes(packed: Path, tmp_path: Path, undisturbed: str) -> None:
    """SIGKILL of a random rank at a random moment, 50 times: the same predictions, at most one batch a rank redone."""
    check_trials(packed, tmp_path, seed=1, count=50, predictions=undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_run_resumes_to_the_same_bytes_many_times(packed: Path, tmp_path: Path, undisturbed: str) -> None:
    """The same, three hundred times."""
    check_trials(packed, tmp_path, seed=2, count=300, predictions=undisturbed)


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
        env=environment(SLOW_MODEL_LOG=str(log), SLOW_MODEL_SECONDS="0.2"),
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
        try:
            shown, _ = run.communicate(timeout=120)
        finally:
            run.terminate()  # torchrun's agent then stops its workers; nothing to do where it has ended
    assert run.returncode == 0, shown
    assert (tmp_path / "run" / "predictions.csv").read_text() == undisturbed
    assert NUM_BATCHES < len(log.read_text().splitlines()) <= NUM_BATCHES + 2
    assert "120 expected, 120 seen once, 0 missing, 0 twice" in shown
