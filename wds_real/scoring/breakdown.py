"""ReaL top-1 by kind of label and by class, and the most frequent wrong predictions for the worst classes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.labels import NUM_CLASSES, classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Breakdown", "ClassCount", "break_down"]

_WORST = 20
_CONFUSED = 3


@dataclass(frozen=True, slots=True)
class ClassCount:
    """One class among the worst.

    Attributes:
        label: Class index.
        correct: Images with this class among their ReaL labels that were predicted right.
        total: Images with this class among their ReaL labels.
        confused_with: (class index, images) of the most frequent wrong predictions for them.
    """

    label: int
    correct: int
    total: int
    confused_with: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Breakdown:
    """ReaL top-1 counts by slice and by class.

    An image with several ReaL labels counts for each of these classes, and is right if the prediction is any of its
    labels, so the classes' totals add up to the number of labels, not of images.

    Attributes:
        slices: (correct, total) of the images with one ReaL label, with several, and of those whose original label
            is not among the ReaL labels (these are also in one of the first two).
        class_correct: int64 (1000,), right images of each class.
        class_total: int64 (1000,), images of each class.
        worst: The classes with the lowest share of right images, worst first.
    """

    slices: dict[str, tuple[int, int]]
    class_correct: NDArray[np.int64]
    class_total: NDArray[np.int64]
    worst: tuple[ClassCount, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        names = classes()
        return {
            "slices": {name: {"correct": correct, "total": total} for name, (correct, total) in self.slices.items()},
            "per_class": {"correct": self.class_correct.tolist(), "total": self.class_total.tolist()},
            "worst_classes": [
                {
                    "class": count.label,
                    "wnid": names[count.label].wnid,
                    "name": names[count.label].name,
                    "correct": count.correct,
                    "total": count.total,
                    "confused_with": [
                        {"class": label, "name": names[label].name, "images": images}
                        for label, images in count.confused_with
                    ],
                }
                for count in self.worst
            ],
        }

    def __str__(self) -> str:
        names = classes()
        lines = [" slice                      correct /       n   accuracy"]
        for name, (correct, total) in self.slices.items():
            share = f"{100 * correct / total:>9.3f}" if total else f"{'-':>9}"
            lines.append(f" {name.replace('_', ' '):<25}{correct:>9,} / {total:>7,}  {share}")
        lines.append(" worst classes              correct /       n   taken for")
        for count in self.worst:
            taken = ", ".join(f"{names[label].name} ({images})" for label, images in count.confused_with)
            title = f"{count.label} {names[count.label].name}"
            lines.append(f" {title[:25]:<25}{count.correct:>9,} / {count.total:>7,}   {taken}")
        return "\n".join(lines)


def break_down(
    top1: NDArray[np.int64],
    correct: NDArray[np.bool_],
    *,
    original_label: NDArray[np.int64],
    real_label: NDArray[np.int64],
    scope: NDArray[np.bool_],
) -> Breakdown:
    """Count ReaL top-1 by slice and class.

    Args:
        top1: int64 (N,), predicted classes; -1 where there is no prediction.
        correct: bool (N,), right by ReaL.
        original_label: int64 (N,).
        real_label: int64 (N, M), padded with -1.
        scope: bool (N,), the images to count: those with a ReaL label.
    """
    num_labels = (real_label >= 0).sum(axis=1)
    rejected = ~(real_label == original_label[:, None]).any(axis=1)
    masks = {"one_label": num_labels == 1, "several_labels": num_labels > 1, "original_label_rejected": rejected}
    rows, columns = np.nonzero((real_label >= 0) & scope[:, None])
    labels = real_label[rows, columns]
    total = np.bincount(labels, minlength=NUM_CLASSES)
    right = np.bincount(labels[correct[rows]], minlength=NUM_CLASSES)
    return Breakdown(
        slices={name: (int((correct & mask & scope).sum()), int((mask & scope).sum())) for name, mask in masks.items()},
        class_correct=right.astype(np.int64),
        class_total=total.astype(np.int64),
        worst=_worst(labels, top1[rows], correct[rows], right, total),
    )


def _worst(
    labels: NDArray[np.int64],
    top1: NDArray[np.int64],
    correct: NDArray[np.bool_],
    right: NDArray[np.int64],
    total: NDArray[np.int64],
) -> tuple[ClassCount, ...]:
    """Return the classes with the lowest share of right images, and the most frequent wrong predictions for each.

    `labels`, `top1` and `correct` have one row for each pair of an image and one of its ReaL labels.
    """
    present = np.flatnonzero(right < total)
    ranked = sorted(present.tolist(), key=lambda label: (right[label] / total[label], -total[label], label))
    worst = []
    for label in ranked[:_WORST]:
        wrong = Counter(top1[(labels == label) & ~correct & (top1 >= 0)].tolist())
        most = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:_CONFUSED]
        worst.append(ClassCount(label, int(right[label]), int(total[label]), tuple(most)))
    return tuple(worst)
