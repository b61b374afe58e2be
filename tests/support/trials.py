"""Trials of `support/agent.py`: runs that are ended by signals, and what must be true of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from support import SUPPORT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_trials", "evaluate_slowly", "run_trials", "trial_environment"]

# 0: it was done before; 1: the connection to another rank was lost first.
_ENDS = {"SIGKILL": {0, 1, -9}, "SIGINT": {0, 1, 130}, "SIGTERM": {0, 1, 143}}


def trial_environment(**more: str) -> dict[str, str]:
    """Return the environment of processes that find the models of `support`."""
    return {**os.environ, "PYTHONPATH": f"{SUPPORT}:{SUPPORT.parent}", "OMP_NUM_THREADS": "1", **more}


def evaluate_slowly(root: Path, folder: Path) -> str:
    """Return the predictions of a run of the slow model that nothing happened to."""
    command = [sys.executable, "-m", "wds_real", "eval", str(root), "-m", "slow_model:slow_model", "-b", "10",
               "-o", str(folder / "run")]  # fmt: skip
    log = str(folder / "log")
    subprocess.run(command, check=True, env=trial_environment(SLOW_MODEL_LOG=log), capture_output=True)
    return (folder / "run" / "predictions.csv").read_text()


def run_trials(
    root: Path, folder: Path, *, seed: int, count: int, most_ranks: int, signals: list[str]
) -> list[dict[str, Any]]:
    """Run so many trials, with the signals in turn; return what the agent says of each."""
    agent = [sys.executable, str(SUPPORT / "agent.py")]
    command = [*agent, str(root), str(folder), str(seed), str(count), str(most_ranks), *signals]
    done = subprocess.run(
        command, check=False, env=trial_environment(), capture_output=True, text=True, timeout=60 * count
    )
    assert done.returncode == 0, done.stderr
    # Where a signal comes while Python finalizes an object, Python itself prints the exception, and goes on.
    told = re.sub(r"Exception ignored in.*\n(Traceback.*\n(?: .*\n)*\S.*\n)?", "", done.stderr)
    assert "Traceback" not in told, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(trials) == count
    return trials


def check_trials(trials: list[dict[str, Any]], *, predictions: str, num_batches: int) -> int:
    """Assert that each trial ended with these predictions, and no batch but those in work was done twice.

    Returns:
        How many of the runs were ended while batches were being done.
    """
    interrupted = 0
    for trial in trials:
        found = trial.pop("predictions")
        assert set(trial["codes"]) == {0}, trial
        assert set(trial["codes_of_ended"]) <= _ENDS[trial["signal"]], trial
        assert found == predictions, trial
        assert num_batches <= trial["batches_in_all"] <= num_batches + trial["lost_ranks"], trial
        assert trial["seconds"] < 240
        interrupted += 0 < trial["batches_before"] < trial["batches_in_all"]
    assert interrupted > len(trials) / 5, "too few of the signals came while batches were being done to mean anything"
    return interrupted
