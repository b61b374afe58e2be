"""Counts and what follows from them: an accuracy with its interval, and the coverage of a run.

All counts are integers; a division happens only where a number is shown.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Z_95", "Accuracy", "Coverage"]

Z_95 = 1.959963984540054  # the 97.5 % point of the normal distribution: two-sided 95 %


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A count of correct samples.

    Attributes:
        correct: Samples predicted right.
        total: Samples counted, failed ones included.
        failed: Samples of `total` that could not be read; they are not in `correct`.
    """

    correct: int
    total: int
    failed: int = 0

    @property
    def value(self) -> float:
        """Share of correct samples in 0..1; NaN where there is no sample. With failures, the worst case."""
        return self.correct / self.total if self.total else math.nan

    @property
    def percent(self) -> float:
        """`value` in percent."""
        return 100 * self.value

    def __float__(self) -> float:
        """Return `value`, the share of correct samples.

        >>> float(Accuracy(1, 4)), Accuracy(1, 4).percent
        (0.25, 25.0)
        """
        return self.value

    @property
    def best_case(self) -> float:
        """The share if every failed sample had been right."""
        return (self.correct + self.failed) / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % score interval (Wilson 1927), in 0..1.

        >>> [round(100 * bound, 2) for bound in Accuracy(38_860, 46_837).interval]
        [82.63, 83.31]
        """
        if not self.total:
            return (math.nan, math.nan)
        n, p, z2 = self.total, self.value, Z_95 * Z_95
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z_95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return (max(0.0, centre - half), min(1.0, centre + half))

    def as_dict(self) -> dict[str, Any]:
        """Return counts, share in percent and interval in percent, JSON-ready."""
        if not self.total:
            return {"correct": 0, "total": 0, "failed": 0, "percent": None, "interval_95_percent": None}
        interval = [round(100 * bound, 4) for bound in self.interval]
        percents: dict[str, Any] = {"percent": round(100 * self.value, 4), "interval_95_percent": interval}
        if self.failed:
            percents["best_case_percent"] = round(100 * self.best_case, 4)
        return {**asdict(self), **percents}


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often the samples were seen, counted sample by sample.

    Attributes:
        expected: Samples that must be seen.
        seen_once: Expected samples that were predicted exactly once.
        missing: Expected samples that were never seen.
        doubled: Samples that were seen more than once.
        failed: Keys of the samples that could not be read (``on_error="record"``).
    """

    expected: int
    seen_once: int
    missing: int
    doubled: int
    failed: tuple[str, ...] = ()
