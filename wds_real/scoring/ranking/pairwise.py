"""More than two models on the same images: the difference of every pair. Runs without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wds_real.errors import PredictionsError, printable
from wds_real.scoring.comparison import right_answers
from wds_real.scoring.counts import Accuracy
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.predictions import Predictions
from wds_real.scoring.ranking.pairs import SIGNIFICANCE, PairDifference, pair_differences

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wds_real.labels import Labels

__all__ = ["PairwiseComparison", "compare_many"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseComparison:
    """Every pair of several models. Print it for the tables.

    Attributes:
        against: ``real`` or ``original``: the labels used.
        accuracies: Of each model on the images that all of them scored, the best first.
        pairs: The difference of every two models, with McNemar's exact test, corrected for the number of pairs (Holm).
    """

    against: Literal["real", "original"]
    accuracies: dict[str, Accuracy]
    pairs: tuple[PairDifference, ...]

    @property
    def total(self) -> int:
        """Images compared."""
        return next(iter(self.accuracies.values())).total

    @property
    def close(self) -> tuple[tuple[str, str], ...]:
        """Names of the pairs that cannot be told apart on these images."""
        return tuple((pair.a, pair.b) for pair in self.pairs if not pair.told_apart)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return {
            "format": {"name": "wds_real.comparisons", "version": 1},
            "against": self.against,
            "total": self.total,
            "models": [{"name": name, **accuracy.as_dict()} for name, accuracy in self.accuracies.items()],
            "pairs": [pair.as_dict() for pair in self.pairs],
        }

    def __str__(self) -> str:
        title = "ReaL" if self.against == "real" else "original"
        width = max(map(len, self.accuracies))
        lines = [f" {title} top-1 on the {self.total:,} images that all {len(self.accuracies)} scored"]
        lines += [
            f"   {name:<{width}}{one.correct:>10,}  {100 * one.value:>8.3f}" for name, one in self.accuracies.items()
        ]
        lines.append(f" {'A':<{width + 2}}  {'B':<{width}}    A - B   95 % interval    only A  only B    p (Holm)")
        for pair in self.pairs:
            low, high = pair.interval
            lines.append(
                f"   {pair.a:<{width}}  {pair.b:<{width}}  {pair.difference:+7.3f}  {low:+7.3f} to {high:+7.3f}"
                f"{pair.only_a:>8,}{pair.only_b:>8,}   {_p(pair.p_holm)}"
            )
        close = "; ".join(f"{a} and {b}" for a, b in self.close) or "none"
        corrected = f"p of McNemar's exact test, corrected for {len(self.pairs)} pairs, is {SIGNIFICANCE} or more"
        lines.append(f" cannot be told apart ({corrected}): {close}")
        return "\n".join(map(printable, lines))


def compare_many(
    models: Mapping[str, Predictions | str | Path],
    *,
    against: Literal["real", "original"] = "real",
    labels: Labels | None = None,
    threshold: float | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> PairwiseComparison:
    """Compare the top-1 classes of several models, each with each, on the images that all of them scored.

    Args:
        models: By name: a prediction file or an output folder, its path or URL, or what `wds_real.read_predictions`
            returned.
        against: ``real``: right if among the ReaL labels, on the images that have one; ``original``: on all.
        labels: Labels to use in place of the released ones.
        threshold: Make the ReaL labels from the published rater scores above this threshold (released: 0.8).
        storage_options: For URLs, as for `wds_real.open_store`; a path takes none.

    Raises:
        ValueError: both `labels` and `threshold` are given.
        PredictionsError: there are fewer than two models, they have no labelled image in common, or a name is not that
            of a validation image.
        StoreError: a file at a URL is missing, too large or cannot be read.
    """
    if len(models) < 2:
        raise PredictionsError("one model is no comparison: give two or more.")
    read = [
        model if isinstance(model, Predictions) else read_predictions(model, storage_options=storage_options)
        for model in models.values()
    ]
    answers = right_answers(read, against=against, labels=labels, threshold=threshold)
    total = int(answers.scope.sum())
    correct = dict(zip(models, answers.right.sum(axis=1).tolist(), strict=True))
    right = dict(zip(models, answers.right, strict=True))
    names = sorted(models, key=lambda name: (-correct[name], name))
    accuracies = {name: Accuracy(correct[name], total) for name in names}
    pairs = pair_differences(names, list(accuracies.values()), [right[name] for name in names])
    return PairwiseComparison(against=against, accuracies=accuracies, pairs=tuple(pairs))


def _p(value: float) -> str:
    return f"{value:.3g}" if value else "< 1e-300"
