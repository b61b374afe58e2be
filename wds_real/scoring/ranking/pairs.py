"""Every pair of several models: the difference, its interval, and whether it is beyond chance. Runs without torch."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from wds_real.scoring.comparison import mcnemar_exact, paired_interval
from wds_real.scoring.counts import Z_95

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from wds_real.scoring.counts import Accuracy

__all__ = ["SIGNIFICANCE", "PairDifference", "holm", "pair_differences"]

SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PairDifference:
    """Two of several models, the better one first.

    Attributes:
        a: Name of the model that is right more often.
        b: Name of the other.
        difference: A minus B, in percentage points.
        interval: 95 % interval of the difference, of this pair alone, in percentage points.
        p_value: Of McNemar's exact test; of a test of two independent samples where not `paired`.
        p_holm: The same, corrected for the number of pairs by Holm's method.
        only_a: Images that only A gets right; None where not `paired`.
        only_b: Images that only B gets right; None where not `paired`.
    """

    a: str
    b: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_holm: float
    only_a: int | None
    only_b: int | None

    @property
    def paired(self) -> bool:
        """Whether the two were compared image by image."""
        return self.only_a is not None

    @property
    def told_apart(self) -> bool:
        """Whether the difference is beyond chance, at 0.05 for all pairs together."""
        return self.p_holm < SIGNIFICANCE

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return {
            "a": self.a,
            "b": self.b,
            "difference_points": round(self.difference, 4),
            "interval_95_points": [round(bound, 4) for bound in self.interval],
            "p": self.p_value,
            "p_holm": self.p_holm,
            "right_only_in_a": self.only_a,
            "right_only_in_b": self.only_b,
            "told_apart": self.told_apart,
        }


def pair_differences(
    names: Sequence[str], accuracies: Sequence[Accuracy], right: Sequence[NDArray[np.bool_] | None]
) -> list[PairDifference]:
    """Return the difference of every pair (a, b) with a before b, in the order of (a, b).

    Args:
        names: Of the models, the best first.
        accuracies: Of the models, on the same images.
        right: For each model which images it gets right, bool (N,); None where only its count is known.
    """
    pairs = [(a, b) for a in range(len(names)) for b in range(a + 1, len(names))]
    found = list[tuple[int | None, int | None, float, tuple[float, float], float]]()
    for a, b in pairs:
        first, second = right[a], right[b]
        if first is None or second is None:
            difference = 100 * (accuracies[a].value - accuracies[b].value)
            found.append((None, None, difference, *_independent(accuracies[a], accuracies[b])))
        else:
            only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
            total = accuracies[a].total
            interval = paired_interval(only_b, only_a, total)
            found.append((only_a, only_b, 100 * (only_a - only_b) / total, interval, mcnemar_exact(only_a, only_b)))
    corrected = holm([p_value for *_, p_value in found])
    return [
        PairDifference(
            a=names[a],
            b=names[b],
            difference=difference,
            interval=interval,
            p_value=p_value,
            p_holm=p_holm,
            only_a=only_a,
            only_b=only_b,
        )
        for (a, b), (only_a, only_b, difference, interval, p_value), p_holm in zip(pairs, found, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, so that one below 0.05 by chance alone is rare among all of them.

    Holm (1979): the smallest of m is multiplied by m, the next by m - 1, and so on; none is smaller than one before it.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[at]))
        corrected[at] = largest
    return corrected


def _independent(a: Accuracy, b: Accuracy) -> tuple[tuple[float, float], float]:
    """Return interval and p-value of A minus B as of two independent samples (Wald)."""
    difference = a.value - b.value
    error = sum(one.value * (1 - one.value) / one.total for one in (a, b)) ** 0.5
    interval = (100 * (difference - Z_95 * error), 100 * (difference + Z_95 * error))
    return interval, 2 * NormalDist().cdf(-abs(difference) / error) if error else float(difference == 0)
