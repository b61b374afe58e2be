"""Models by ReaL top-1, and which of them cannot be told apart on these images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import PredictionsError
from wds_real.scoring.comparison import mcnemar_exact
from wds_real.scoring.counts import Z_95

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wds_real.scoring.ranking.rows import ModelRow

__all__ = ["RankedModel", "Ranking", "rank_models"]

_SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class RankedModel:
    """A row of the table.

    Attributes:
        row: What was read.
        rank: 1 for the highest ReaL top-1; equal counts have equal ranks.
        first: The best rank that the differences allow: models that are better beyond chance come before it.
        last: The worst such rank.
    """

    row: ModelRow
    rank: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """Models by ReaL top-1, the best first.

    Attributes:
        models: The rows.
        close: Names of the pairs that cannot be told apart: p of the difference is 0.05 or more.
        paired: Whether every pair was compared image by image; else some are compared by their intervals alone.
    """

    models: tuple[RankedModel, ...]
    close: tuple[tuple[str, str], ...]
    paired: bool


def rank_models(rows: Sequence[ModelRow]) -> Ranking:
    """Order models by ReaL top-1, and find the pairs whose difference may be chance.

    Pairs with predictions are compared image by image (McNemar's exact test), others as two independent samples.

    Raises:
        PredictionsError: two results are of different data, splits or labels, or none is given.
    """
    if not rows:
        raise PredictionsError("no results to report. Give --output folders, result.json files or prediction files.")
    _refuse_mixed(rows)
    ordered = sorted(rows, key=lambda row: (-row.accuracies["real_top1"].correct, row.name))
    correct = [row.accuracies["real_top1"].correct for row in ordered]
    better = np.zeros((len(ordered), len(ordered)), dtype=np.bool_)  # [a, b]: a is better than b beyond chance
    close, paired = [], True
    for a, first in enumerate(ordered):
        for b in range(a + 1, len(ordered)):
            p, by_image = _p_value(first, ordered[b])
            paired &= by_image
            better[a, b] = p < _SIGNIFICANCE
            if not better[a, b]:
                close.append((first.name, ordered[b].name))
    models = tuple(
        RankedModel(row, 1 + sum(count > correct[at] for count in correct), 1 + int(better[:, at].sum()),
                    len(ordered) - int(better[at].sum()))
        for at, row in enumerate(ordered)
    )  # fmt: skip
    return Ranking(models, tuple(close), paired)


def _p_value(a: ModelRow, b: ModelRow) -> tuple[float, bool]:
    """Return the p-value of the difference in ReaL top-1, and whether it is of pairs of answers."""
    if a.right is not None and b.right is not None:
        return mcnemar_exact(int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())), True
    first, second = a.accuracies["real_top1"], b.accuracies["real_top1"]
    variance = sum(one.value * (1 - one.value) / one.total for one in (first, second))
    apart = abs(first.value - second.value) > Z_95 * variance**0.5
    return (0.0 if apart else 1.0), False


def _refuse_mixed(rows: Iterable[ModelRow]) -> None:
    first, *others = rows
    for row in others:
        differing = [name for name in first.data if row.data.get(name) != first.data[name]]
        if differing:
            name = differing[0]
            raise PredictionsError(
                f"{row.source}: {name} is {row.data.get(name)}, that of {first.source} is {first.data[name]}. "
                "Results of different data cannot be compared: report them separately."
            )
