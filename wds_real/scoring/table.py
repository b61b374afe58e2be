"""The table of predictions from which the metric, `merge` and `score` count a result.

All totals are integers. Runs without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import CoverageError, first_few
from wds_real.scoring.breakdown import break_down
from wds_real.scoring.counts import Accuracy, Coverage
from wds_real.scoring.predictions import TOP, Predictions
from wds_real.scoring.result import Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wds_real.scoring.targets import Targets

__all__ = ["PredictionTable"]

_NO_LABEL = -2  # equals no prediction: -1 stands for no class
_MAX_KEYS_SHOWN = 5
_SEEN, _FAILED = 0, 1  # columns
_CLASSES = slice(2, 2 + TOP)
_PROBABILITIES = slice(2 + TOP, 2 + 2 * TOP)
_WARNED = 2 + 2 * TOP
_NUM_COLUMNS = 3 + 2 * TOP


class PredictionTable:
    """A row for each sample: how often it was seen, its five best classes and their probabilities.

    Attributes:
        targets: The samples and their labels.
        array: int64 (N, 13): times seen, times failed, the classes plus one, the bits of the probabilities, and times
            the decoder warned. All are 0 where nothing was added, so the arrays of several processes can be summed.
    """

    def __init__(self, targets: Targets, array: NDArray[np.int64] | None = None) -> None:
        self.targets = targets
        self.array = np.zeros((len(targets.keys), _NUM_COLUMNS), dtype=np.int64) if array is None else array

    def add(
        self,
        positions: NDArray[np.int64],
        classes: NDArray[np.int64],
        probabilities: NDArray[np.float32] | None = None,
        *,
        warned: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count predictions by the position of their samples.

        Args:
            positions: int64 (n,), in the data set.
            classes: int64 (n, 5), best first, -1 for none; a row of only -1 is a sample that could not be read.
            probabilities: float32 (n, 5) of these classes; None where unknown.
            warned: bool (n,), True where the decoder warned about the file; None means nowhere.
        """
        failed = classes[:, 0] < 0
        np.add.at(self.array[:, _SEEN], positions[~failed], 1)
        np.add.at(self.array[:, _FAILED], positions[failed], 1)
        np.add.at(self.array[:, _CLASSES], positions, classes + 1)
        if probabilities is not None:
            bits = np.ascontiguousarray(probabilities, dtype=np.float32).view(np.int32)
            np.add.at(self.array[:, _PROBABILITIES], positions, bits)
        if warned is not None:
            np.add.at(self.array[:, _WARNED], positions[warned], 1)

    @property
    def num_counted(self) -> int:
        """Samples that were seen, or failed, at least once."""
        return int((self.array[:, _SEEN] + self.array[:, _FAILED] > 0).sum())

    def result(self, *, world_size: int) -> Result:
        """Return the result.

        Args:
            world_size: Processes whose predictions are in the table, for the receipt.

        Raises:
            CoverageError: an expected sample is missing, a sample was seen more than once, or one is not expected.
        """
        targets, top5, read = self.targets, self.array[:, _CLASSES] - 1, self.array[:, _SEEN] == 1
        coverage = self._coverage(world_size)
        labelled = targets.expected & (targets.real_label[:, 0] >= 0)
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
            original_top1=accuracy(original1, targets.expected),
            original_top5=accuracy(original5, targets.expected) if has_top5 else None,
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
            warned=tuple(self._keys(self.array[:, _WARNED] > 0)),
        )

    def predictions(self) -> Predictions:
        """Return the predictions of the samples that were read, in key order."""
        read = self.array[:, _SEEN] > 0
        probabilities = self.array[read, _PROBABILITIES].astype(np.int32).view(np.float32)
        return Predictions(tuple(self._keys(read)), self.array[read, _CLASSES] - 1, probabilities)

    def _coverage(self, world_size: int) -> Coverage:
        """Count how often each sample was seen; raise unless each expected one was seen once, and no other."""
        targets, seen, failed = self.targets, self.array[:, _SEEN], self.array[:, _FAILED]
        times = seen + failed
        missing = self._keys(targets.expected & (times == 0))
        doubled = self._keys(times > 1)
        others = self._keys(~targets.expected & (times > 0))
        coverage = Coverage(
            expected=int(targets.expected.sum()),
            seen_once=int((targets.expected & (times == 1) & (seen == 1)).sum()),
            missing=len(missing),
            doubled=len(doubled),
            failed=tuple(self._keys(failed > 0)),
        )
        if missing or doubled or others:
            titles = {"Missing": missing, "Seen twice or more": doubled, "Not expected": others}
            named = [f" {title}: {first_few(keys, count=_MAX_KEYS_SHOWN)}." for title, keys in titles.items() if keys]
            ranks = f"{world_size} {'rank' if world_size == 1 else 'ranks'}"
            raise CoverageError(
                f"saw {coverage.expected - len(missing):,} of {coverage.expected:,} samples ({len(missing):,} missing, "
                f"{len(doubled):,} doubled) over {ranks}. Accuracy was not computed.{''.join(named)}",
                missing=missing,
                doubled=doubled,
            )
        return coverage

    def _keys(self, chosen: NDArray[np.bool_]) -> list[str]:
        return [self.targets.keys[position] for position in np.flatnonzero(chosen)]
