"""The labels that predictions are compared with, for all 50,000 images or for a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import PredictionsError
from wds_real.labels import Labels, at_threshold, bundled, digest_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.scoring.predictions import Predictions

__all__ = ["Targets"]


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The labels that predictions are compared with.

    Attributes:
        keys: N strings, ascending.
        original_label: int64 (N,), class index 0..999.
        real_label: int64 (N, M), ReaL class indices padded with -1.
        expected: bool (N,), the samples that must be predicted: all, or those of a split.
        identity: Name, split and digests of the data set, for the result.
    """

    keys: tuple[str, ...]
    original_label: NDArray[np.int64]
    real_label: NDArray[np.int64]
    expected: NDArray[np.bool_]
    identity: dict[str, Any]

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        original_label: Sequence[int] | NDArray[np.int64],
        real_label: Sequence[Sequence[int]],
        *,
        expected: NDArray[np.bool_] | None = None,
        identity: dict[str, Any] | None = None,
    ) -> Targets:
        """Build targets from lists of labels; without `expected`, all samples are."""
        columns = max((len(labels) for labels in real_label), default=0)
        padded = np.full((len(keys), max(1, columns)), -1, dtype=np.int64)
        for row, labels in enumerate(real_label):
            padded[row, : len(labels)] = labels
        if expected is None:
            expected = np.ones(len(keys), dtype=np.bool_)
        return cls(tuple(keys), np.asarray(original_label, dtype=np.int64), padded, expected, identity or {})

    @classmethod
    def of_labels(cls, labels: Labels | None = None, *, threshold: float | None = None) -> Targets:
        """Return all 50,000 validation images with `labels`, with those at a rater threshold, or the released ones.

        Raises:
            ValueError: both `labels` and `threshold` are given.
            SourceError: `threshold` is not a multiple of 0.001 in 0 <= threshold < 1.
        """
        if labels is not None and threshold is not None:
            raise ValueError("labels and threshold exclude each other: both choose the ReaL labels.")
        labels = labels or (bundled() if threshold is None else at_threshold(threshold))
        keys = [f"ILSVRC2012_val_{number:08d}" for number in range(1, len(labels.original) + 1)]
        digest = digest_labels(zip(keys, labels.original, labels.real, strict=True))
        identity: dict[str, Any] = {"name": "imagenet2012_real", "split": "validation", "labels_digest": digest}
        if threshold is not None:
            identity["threshold"] = threshold
        return cls.of(keys, labels.original, labels.real, identity=identity)

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> Targets:
        """Return the labels of a data set; of a split or slice, with only its samples expected."""
        index = dataset.index
        expected = np.zeros(len(index), dtype=np.bool_)
        expected[dataset.positions] = True
        identity = {
            "name": dataset.manifest.dataset,
            "split": dataset.split,
            "digest": dataset.digest,
            "labels_digest": dataset.manifest.labels_digest,
            **({"source": dataset.manifest.source} if dataset.manifest.is_of_another_tar else {}),
        }
        return cls.of(index.keys, index.original_label, index.real_label, expected=expected, identity=identity)

    def positions_of(self, predictions: Predictions) -> NDArray[np.int64]:
        """Return the positions of the samples that the predictions are of, int64 (n,).

        Raises:
            PredictionsError: a prediction is of another sample.
        """
        position_of = {key: position for position, key in enumerate(self.keys)}
        others = [key for key in predictions.keys if key not in position_of]
        if others:
            raise PredictionsError(
                f"{predictions.source or 'the predictions'}: {len(others):,} of {len(predictions):,} are not of "
                f"validation images, such as {others[0]}. Expected names such as ILSVRC2012_val_00000001.JPEG."
            )
        return np.array([position_of[key] for key in predictions.keys], dtype=np.int64)
