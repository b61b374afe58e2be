"""Predictions of a data set's samples, and the counts they give: behind the metric, `merge` and `score`.

All totals are integers. Runs without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import CoverageError
from wds_real.scoring.breakdown import break_down
from wds_real.scoring.predictions import TOP, Predictions
from wds_real.scoring.result import Accuracy, Coverage, Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wds_real.scoring.targets import Targets

__all__ = ["PredictionTable", "count_coverage", "tally"]

_NO_LABEL = -2  # equal to no prediction, not even to the -1 of none
_MAX_KEYS_SHOWN = 5
_SEEN, _FAILED = 0, 1  # columns
_CLASSES = slice(2, 2 + TOP)
_PROBABILITIES = slice(2 + TOP, 2 + 2 * TOP)


class PredictionTable:
    """One row a sample: how often it was seen, its five best classes and their probabilities.

    Attributes:
        targets: The samples and their labels.
        array: int64 (N, 12): times seen, times failed, the classes plus one, and the bits of the probabilities. All
            are 0 where nothing was added, so the arrays of several processes can be summed.
    """

    def __init__(self, targets: Targets, array: NDArray[np.int64] | None = None) -> None:
        self.targets = targets
        self.array = np.zeros((len(targets.keys), 2 + 2 * TOP), dtype=np.int64) if array is None else array

    def add(
        self, positions: NDArray[np.int64], classes: NDArray[np.int64], probabilities: NDArray[np.float32] | None = None
    ) -> None:
        """Count predictions by the position of their samples.

        Args:
            positions: int64 (n,), in the data set.
            classes: int64 (n, 5), best first, -1 for none; a row of only -1 is a sample that could not be read.
            probabilities: float32 (n, 5) of these classes; None where unknown.
        """
        failed = classes[:, 0] < 0
        np.add.at(self.array[:, _SEEN], positions[~failed], 1)
        np.add.at(self.array[:, _FAILED], positions[failed], 1)
        np.add.at(self.array[:, _CLASSES], positions, classes + 1)
        if probabilities is not None:
            bits = np.ascontiguousarray(probabilities, dtype=np.float32).view(np.int32)
            np.add.at(self.array[:, _PROBABILITIES], positions, bits)

    def result(self, *, world_size: int) -> Result:
        """Count the table.

        Args:
            world_size: Processes whose predictions are in the table, for the receipt.

        Raises:
            CoverageError: an expected sample is missing, or a sample was counted more than once.
        """
        return tally(
            self.targets,
            top5=self.array[:, _CLASSES] - 1,
            seen=self.array[:, _SEEN],
            failed=self.array[:, _FAILED],
            world_size=world_size,
        )

    def predictions(self) -> Predictions:
        """Return the predictions of the samples that were read, in key order."""
        read = np.flatnonzero(self.array[:, _SEEN])
        probabilities = self.array[read, _PROBABILITIES].astype(np.int32).view(np.float32)
        keys = tuple(self.targets.keys[position] for position in read)
        return Predictions(keys, self.array[read, _CLASSES] - 1, probabilities)


def tally(
    targets: Targets,
    *,
    top5: NDArray[np.int64],
    seen: NDArray[np.int64],
    failed: NDArray[np.int64] | None = None,
    world_size: int = 1,
) -> Result:
    """Count a table of predictions.

    Args:
        targets: The labels.
        top5: int64 (N, 5), class indices, best first; -1 where the model gave fewer.
        seen: int64 (N,), how often each sample was predicted.
        failed: int64 (N,), how often each sample could not be read.
        world_size: Processes that took part, for the receipt.

    Raises:
        CoverageError: a sample is missing, or was seen more than once.
    """
    failed = np.zeros_like(seen) if failed is None else failed
    coverage = count_coverage(targets, seen, failed, world_size)
    in_scope = targets.expected
    labelled = in_scope & (targets.real_label[:, 0] >= 0)
    read = seen == 1
    original1 = read & (top5[:, 0] == targets.original_label)
    original5 = read & (top5 == targets.original_label[:, None]).any(axis=1)
    accepted = np.where(targets.real_label >= 0, targets.real_label, _NO_LABEL)
    real1 = read & (accepted == top5[:, :1]).any(axis=1)
    real5 = read & (accepted[:, :, None] == top5[:, None, :]).any(axis=(1, 2))
    has_top5 = bool((top5[read] >= 0).all())

    def accuracy(correct: NDArray[np.bool_], scope: NDArray[np.bool_]) -> Accuracy:
        unread = scope & ~read
        return Accuracy(int((correct & scope).sum()), int(scope.sum()), int(unread.sum()))

    return Result(
        original_top1=accuracy(original1, in_scope),
        original_top5=accuracy(original5, in_scope) if has_top5 else None,
        original_top1_labelled=accuracy(original1, labelled),
        real_top1=accuracy(real1, labelled),
        real_top5=accuracy(real5, labelled) if has_top5 else None,
        forgiven=int((labelled & read & ~original1 & real1).sum()),
        newly_wrong=int((labelled & original1 & ~real1).sum()),
        coverage=coverage,
        breakdown=break_down(
            np.where(read, top5[:, 0], -1),
            real1,
            original_label=targets.original_label,
            real_label=targets.real_label,
            scope=labelled,
        ),
        world_size=world_size,
        dataset={**targets.identity, "num_samples": coverage.expected},
    )


def count_coverage(targets: Targets, seen: NDArray[np.int64], failed: NDArray[np.int64], world_size: int) -> Coverage:
    """Count how often each sample was seen.

    Args:
        targets: Says which samples are expected.
        seen: int64 (N,), how often each sample was predicted.
        failed: int64 (N,), how often each sample could not be read.
        world_size: Processes that took part, for the message.

    Raises:
        CoverageError: an expected sample is missing, a sample occurs more than once, or one is not expected.
    """
    times = seen + failed
    missing = [targets.keys[position] for position in np.flatnonzero(targets.expected & (times == 0))]
    doubled = [targets.keys[position] for position in np.flatnonzero(times > 1)]
    others = [targets.keys[position] for position in np.flatnonzero(~targets.expected & (times > 0))]
    coverage = Coverage(
        expected=int(targets.expected.sum()),
        seen_once=int((targets.expected & (times == 1) & (seen == 1)).sum()),
        missing=len(missing),
        doubled=len(doubled),
        failed=tuple(targets.keys[position] for position in np.flatnonzero(failed)),
    )
    if missing or doubled or others:
        titles = {"Missing": missing, "Seen twice or more": doubled, "Not expected": others}
        named = [f" {title}: {_some(keys)}." for title, keys in titles.items() if keys]
        ranks = f"{world_size} {'rank' if world_size == 1 else 'ranks'}"
        raise CoverageError(
            f"saw {coverage.expected - len(missing):,} of {coverage.expected:,} samples ({len(missing):,} missing, "
            f"{len(doubled):,} doubled) over {ranks}. Accuracy was not computed.{''.join(named)}",
            missing=missing,
            doubled=doubled,
        )
    return coverage


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_MAX_KEYS_SHOWN]) + (f" ... ({len(keys):,})" if len(keys) > _MAX_KEYS_SHOWN else "")
