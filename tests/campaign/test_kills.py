"""Runs that are ended by signals at random moments, and run again: the predictions are those of an undisturbed run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from support.trials import check_trials, evaluate_slowly, run_trials

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_BATCHES = 12
NUM_TRIALS = 200
SEED = 11


def test_200_ends_by_signals(packed: Path, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """SIGINT, SIGTERM and SIGKILL in turn, under one and two ranks: the same bytes after a resume."""
    undisturbed = evaluate_slowly(packed, tmp_path)
    signals = ["SIGINT", "SIGTERM", "SIGKILL"]
    trials = run_trials(packed, tmp_path, seed=SEED, count=NUM_TRIALS, most_ranks=2, signals=signals)
    interrupted = check_trials(trials, predictions=undisturbed, num_batches=NUM_BATCHES)
    sent = Counter(trial["signal"] for trial in trials)
    codes = Counter(code for trial in trials for code in trial["codes_of_ended"])
    slowest = max(trial["seconds"] for trial in trials)
    record_property(
        "counts",
        f"{NUM_TRIALS} ends by signals, seed {SEED}: {dict(sent)}, {interrupted} while batches were being done, exit "
        f"codes {dict(codes)}, {NUM_TRIALS} with the bytes of an undisturbed run, 0 silent; slowest {slowest:.2f} s",
    )
