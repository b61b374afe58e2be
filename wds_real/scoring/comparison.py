"""Two models on the same images: the paired difference, its interval and significance, and the classes that differ."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wds_real.data.notebook import facts_table
from wds_real.errors import PredictionsError
from wds_real.labels import NUM_CLASSES, bundled, classes
from wds_real.scoring.counts import Z_95, Accuracy
from wds_real.scoring.export import class_titles
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.predictions import Predictions, dataframe
from wds_real.scoring.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from wds_real.labels import Labels

__all__ = [
    "ClassChange",
    "Comparison",
    "Flip",
    "RightAnswers",
    "classes_compared",
    "compare",
    "flip_columns",
    "mcnemar_exact",
    "paired_interval",
    "right_answers",
]

_SHOWN_CLASSES = 10


@dataclass(frozen=True, slots=True)
class ClassChange:
    """The images of one class: all, those right in A, and those right in B."""

    label: int
    total: int
    correct_a: int
    correct_b: int


@dataclass(frozen=True, slots=True)
class Flip:
    """An image that only one of A and B, ``a`` or ``b``, gets right, and the class that each gives it."""

    key: str
    right_only_in: Literal["a", "b"]
    class_a: int
    class_b: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison:
    """A paired comparison. Print it for the table.

    Attributes:
        against: ``real`` or ``original``: the labels used.
        both: Images right in A and in B.
        only_a: Images right only in A.
        only_b: Images right only in B.
        neither: Images wrong in both.
        p_value: Of McNemar's exact two-sided test; the hypothesis is that a change from right to wrong is as likely as
            one from wrong to right.
        lost: Keys of the `only_a` images.
        gained: Keys of the `only_b` images.
        per_class: Every class that has a compared image, by index.
        flips: The images of `lost` and `gained`, in the order of the names, with both predictions.
    """

    against: Literal["real", "original"]
    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    per_class: tuple[ClassChange, ...]
    flips: tuple[Flip, ...] = ()

    @property
    def total(self) -> int:
        """Images compared."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def accuracy_a(self) -> Accuracy:
        """A on the images compared."""
        return Accuracy(self.both + self.only_a, self.total)

    @property
    def accuracy_b(self) -> Accuracy:
        """B on the images compared."""
        return Accuracy(self.both + self.only_b, self.total)

    @property
    def difference(self) -> float:
        """B minus A, in percentage points."""
        return 100 * (self.only_b - self.only_a) / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference, in percentage points; see `paired_interval`."""
        return paired_interval(self.only_a, self.only_b, self.total)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return {
            "format": {"name": "wds_real.comparison", "version": 1},
            "against": self.against,
            "total": self.total,
            "a": self.accuracy_a.as_dict(),
            "b": self.accuracy_b.as_dict(),
            "difference_points": round(self.difference, 4),
            "interval_95_points": [round(bound, 4) for bound in self.interval],
            "mcnemar_exact_p": self.p_value,
            "right_in_both": self.both,
            "right_only_in_a": self.only_a,
            "right_only_in_b": self.only_b,
            "wrong_in_both": self.neither,
            "lost": list(self.lost),
            "gained": list(self.gained),
            "per_class": [asdict(change) for change in self.per_class],
        }

    def as_dataframe(self, *, per_class: bool = False) -> pd.DataFrame:
        """Return the flips, one row an image, or the classes, one row each (needs pandas).

        Args:
            per_class: Return the classes.
        """
        return dataframe(classes_compared(self) if per_class else flip_columns(self))

    def __repr__(self) -> str:
        counts = f"a={self.accuracy_a.correct}, b={self.accuracy_b.correct}, total={self.total}"
        return f"<Comparison against={self.against!r}, {counts}, lost={len(self.lost)}, gained={len(self.gained)}>"

    def _repr_html_(self) -> str:
        low, high = self.interval
        return facts_table(
            f"{'ReaL' if self.against == 'real' else 'original'} top-1 on {self.total:,} images",
            {
                "A": f"{self.accuracy_a.correct:,}, {self.accuracy_a.percent:.3f} %",
                "B": f"{self.accuracy_b.correct:,}, {self.accuracy_b.percent:.3f} %",
                "B - A": f"{self.difference:+.3f} points (95 %: {low:+.3f} to {high:+.3f})",
                "McNemar exact p": f"{self.p_value:.4g}",
                "right only in A": f"{self.only_a:,}",
                "right only in B": f"{self.only_b:,}",
                "right in both, in neither": f"{self.both:,}, {self.neither:,}",
            },
        )

    def __str__(self) -> str:
        title = "ReaL" if self.against == "real" else "original"
        low, high = self.interval
        same = f"both right {self.both:,}, both wrong {self.neither:,}"
        lines = [
            f" {title} top-1 on the {self.total:,} images that both scored",
            f"   A{self.accuracy_a.correct:>12,}  {100 * self.accuracy_a.value:>8.3f}",
            f"   B{self.accuracy_b.correct:>12,}  {100 * self.accuracy_b.value:>8.3f}",
            f"   B - A {self.difference:+.3f} points (95 %: {low:+.3f} to {high:+.3f})",
            f"   McNemar exact p = {self.p_value:.4g}" if self.p_value else "   McNemar exact p < 1e-300",
            f" right only in A {self.only_a:,}, only in B {self.only_b:,}, {same}",
        ]
        moved = sorted(self.per_class, key=lambda change: (-abs(change.correct_b - change.correct_a), change.label))
        moved = [change for change in moved[:_SHOWN_CLASSES] if change.correct_a != change.correct_b]
        if moved:
            lines.append(" classes that moved most        A        B      of")
        lines += [
            f"   {f'{change.label} {classes()[change.label].name}'[:24]:<24}"
            f"{change.correct_a:>6,}   {change.correct_b:>6,}  {change.total:>6,}"
            for change in moved
        ]
        return "\n".join(lines)


def compare(
    a: Predictions | str | Path,
    b: Predictions | str | Path,
    *,
    against: Literal["real", "original"] = "real",
    labels: Labels | None = None,
    threshold: float | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare the top-1 classes of two prediction files on the images that both scored.

    Args:
        a: Path or URL of a prediction file or an output folder, or what `wds_real.read_predictions` returned.
        b: The same.
        against: ``real``: right if among the ReaL labels, on the images that have one; ``original``: on all.
        labels: Labels to use in place of the released ones.
        threshold: Make the ReaL labels from the published rater scores above this threshold (released: 0.8).
        storage_options: For URLs, as for `wds_real.open_store`; a path takes none.

    Raises:
        ValueError: both `labels` and `threshold` are given.
        PredictionsError: the files have no labelled image in common, or a name that is not a validation image.
        StoreError: a file at a URL is missing, too large or cannot be read.
    """
    a, b = (
        side if isinstance(side, Predictions) else read_predictions(side, storage_options=storage_options)
        for side in (a, b)
    )
    answers = right_answers([a, b], against=against, labels=labels, threshold=threshold)
    right, top1, scope = answers.right, answers.top1, answers.scope
    accepted, targets = answers.accepted, answers.targets
    lost, gained = np.flatnonzero(right[0] & ~right[1]), np.flatnonzero(right[1] & ~right[0])
    return Comparison(
        against=against,
        both=int((right[0] & right[1]).sum()),
        only_a=len(lost),
        only_b=len(gained),
        neither=int((scope & ~right[0] & ~right[1]).sum()),
        p_value=mcnemar_exact(len(lost), len(gained)),
        lost=tuple(targets.keys[row] for row in lost),
        gained=tuple(targets.keys[row] for row in gained),
        per_class=_per_class(right, accepted, scope),
        flips=tuple(
            Flip(targets.keys[row], "a" if right[0, row] else "b", int(top1[0, row]), int(top1[1, row]))
            for row in np.flatnonzero(right[0] != right[1])
        ),
    )


def classes_compared(comparison: Comparison) -> dict[str, Sequence[Any]]:
    """Return how many images of each class A and B get right: one row for each class with a compared image."""
    changes = comparison.per_class
    return {
        **class_titles([change.label for change in changes]),
        "total": [change.total for change in changes],
        "correct_a": [change.correct_a for change in changes],
        "correct_b": [change.correct_b for change in changes],
        "difference": [change.correct_b - change.correct_a for change in changes],
    }


def flip_columns(comparison: Comparison) -> dict[str, Sequence[Any]]:
    """Return the images that only one of two models gets right: one row an image, in the order of the names.

    The labels are the released ones, even if the comparison used others.
    """
    flips = comparison.flips
    labels, names = bundled(), classes()
    images = [int(flip.key.rpartition("_")[2]) - 1 for flip in flips]
    return {
        "file_name": [f"{flip.key}.JPEG" for flip in flips],
        "right_only_in": [flip.right_only_in for flip in flips],
        "prediction_a": [flip.class_a for flip in flips],
        "prediction_b": [flip.class_b for flip in flips],
        "name_a": [names[flip.class_a].name for flip in flips],
        "name_b": [names[flip.class_b].name for flip in flips],
        "original_label": [labels.original[image] for image in images],
        "real_label": [" ".join(map(str, labels.real[image])) for image in images],
    }


@dataclass(frozen=True, slots=True, eq=False)
class RightAnswers:
    """Which of several models are right on which images.

    Attributes:
        right: bool (M, N), by model and image; False outside of `scope`.
        top1: int64 (M, N), the classes; -1 where there is none.
        scope: bool (N,), the images that have a label and that all models scored.
        accepted: int64 (N, L), the labels that count as right, padded with -1.
        targets: The labels of all images.
    """

    right: NDArray[np.bool_]
    top1: NDArray[np.int64]
    scope: NDArray[np.bool_]
    accepted: NDArray[np.int64]
    targets: Targets


def right_answers(
    models: Sequence[Predictions],
    *,
    against: Literal["real", "original"],
    labels: Labels | None = None,
    threshold: float | None = None,
) -> RightAnswers:
    """Compare the top-1 classes of several models with the labels, on the images that all of them scored.

    Raises:
        ValueError: both `labels` and `threshold` are given.
        PredictionsError: the models have no labelled image in common, or a name that is not a validation image.
    """
    targets = Targets.of_labels(labels, threshold=threshold)
    accepted = targets.real_label if against == "real" else targets.original_label[:, None]
    top1 = np.full((len(models), len(targets.keys)), -1, dtype=np.int64)
    for row, predictions in enumerate(models):
        top1[row, targets.positions_of(predictions)] = predictions.classes[:, 0]
    scope = (top1 >= 0).all(axis=0) & (accepted[:, 0] >= 0)
    if not scope.any():
        files = "two files" if len(models) == 2 else f"{len(models)} files"
        raise PredictionsError(f"the {files} have no image with a label in common, so nothing can be compared.")
    right = np.stack([(accepted == row[:, None]).any(axis=1) & scope for row in top1])
    return RightAnswers(right, top1, scope, accepted, targets)


def paired_interval(only_a: int, only_b: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of B minus A in percentage points, from the images that only one of the two gets right.

    The adjusted Wald interval for matched pairs of Agresti and Min (2005), which adds half a pair to each of the four
    cells. Its centre is therefore nearer to zero than the difference.

    >>> [round(bound, 2) for bound in paired_interval(10, 40, 1000)]
    [1.61, 4.38]
    """
    n, b, c = total + 2, only_b + 0.5, only_a + 0.5
    centre = (b - c) / n
    half = Z_95 * math.sqrt((b + c) - (b - c) ** 2 / n) / n
    return (100 * max(-1.0, centre - half), 100 * min(1.0, centre + half))


def mcnemar_exact(b: int, c: int) -> float:
    """Return the two-sided p-value of `b` changes in one direction and `c` in the other: exact binomial, in integers.

    >>> mcnemar_exact(0, 5), mcnemar_exact(7, 7)
    (0.0625, 1.0)
    """
    n, tail, term = b + c, 0, 1
    for k in range(min(b, c) + 1):
        tail += term
        term = term * (n - k) // (k + 1)
    return min(1.0, float(Fraction(2 * tail, 1 << n)))


def _per_class(
    right: NDArray[np.bool_], accepted: NDArray[np.int64], scope: NDArray[np.bool_]
) -> tuple[ClassChange, ...]:
    rows, columns = np.nonzero((accepted >= 0) & scope[:, None])
    labels = accepted[rows, columns]
    total = np.bincount(labels, minlength=NUM_CLASSES).tolist()
    counts = [np.bincount(labels[side[rows]], minlength=NUM_CLASSES).tolist() for side in right]
    return tuple(
        ClassChange(label, total[label], counts[0][label], counts[1][label])
        for label in range(NUM_CLASSES)
        if total[label]
    )
