"""Models by ReaL top-1, and which of them cannot be told apart on these images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import PredictionsError
from wds_real.scoring.ranking.pairs import pair_differences

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wds_real.scoring.ranking.pairs import PairDifference
    from wds_real.scoring.ranking.rows import ModelRow

__all__ = ["RankedModel", "Ranking", "rank_models"]


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
        pairs: The difference of every two of them.
    """

    models: tuple[RankedModel, ...]
    pairs: tuple[PairDifference, ...]

    @property
    def close(self) -> tuple[tuple[str, str], ...]:
        """Names of the pairs that cannot be told apart."""
        return tuple((pair.a, pair.b) for pair in self.pairs if not pair.told_apart)

    @property
    def paired(self) -> bool:
        """Whether every pair was compared image by image; else some are compared by their intervals alone."""
        return all(pair.paired for pair in self.pairs)


def rank_models(rows: Sequence[ModelRow]) -> Ranking:
    """Order models by ReaL top-1, and find the pairs whose difference may be chance.

    Pairs with predictions are compared image by image (McNemar's exact test), others as two independent samples; the
    p-values are corrected for the number of pairs (Holm).

    Raises:
        PredictionsError: two results are of different data, splits or labels, or none is given.
    """
    if not rows:
        raise PredictionsError("no results to report. Give --output folders, result.json files or prediction files.")
    _refuse_mixed(rows)
    ordered = sorted(_with_different_names(rows), key=lambda row: (-row.accuracies["real_top1"].correct, row.name))
    accuracies = [row.accuracies["real_top1"] for row in ordered]
    pairs = pair_differences([row.name for row in ordered], accuracies, [row.right for row in ordered])
    better = np.zeros((len(ordered), len(ordered)), dtype=np.bool_)  # [a, b]: a is better than b beyond chance
    better[np.triu_indices(len(ordered), 1)] = [pair.told_apart for pair in pairs]
    models = tuple(
        RankedModel(row, 1 + sum(one.correct > accuracies[at].correct for one in accuracies),
                    1 + int(better[:, at].sum()), len(ordered) - int(better[at].sum()))
        for at, row in enumerate(ordered)
    )  # fmt: skip
    return Ranking(models, tuple(pairs))


def _with_different_names(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """Add the place of the result to names that several models have, such as those of one checkpoint each."""
    times = Counter(row.name for row in rows)
    return [row if times[row.name] == 1 else replace(row, name=f"{row.name} ({row.place})") for row in rows]


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
