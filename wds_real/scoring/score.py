"""ReaL and original accuracy of a prediction file: no model, no images, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import PredictionsError
from wds_real.labels import at_threshold
from wds_real.scoring.predictions import Predictions, read_predictions
from wds_real.scoring.result import Result, Targets, tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wds_real.labels import Labels

__all__ = ["place", "score"]


def score(
    predictions: str | Path | Mapping[str, Any] | NDArray[Any] | Sequence[Any] | Predictions,
    *,
    labels: Labels | None = None,
    threshold: float | None = None,
    allow_partial: bool = False,
) -> Result:
    """Hold predictions against the labels of the 50,000 validation images.

    >>> from wds_real import labels
    >>> score(labels.bundled().original).real_top1.correct
    42164

    Args:
        predictions: Anything `wds_real.scoring.predictions.read_predictions` reads.
        labels: Labels to use in place of the released ones.
        threshold: Take the ReaL labels from another cut through the published rater scores (released: 0.8).
        allow_partial: Score only the images that are there.

    Raises:
        ValueError: both `labels` and `threshold` are given.
        PredictionsError: the predictions cannot be read, or are not of validation images.
        CoverageError: an image has no prediction (unless `allow_partial`).
        SourceError: `threshold` is not one the bundled scores can tell apart.
    """
    if labels is not None and threshold is not None:
        raise ValueError("labels and threshold exclude each other: both say which ReaL labels to use.")
    if not isinstance(predictions, Predictions):
        predictions = read_predictions(predictions)
    if threshold is not None:
        labels = at_threshold(threshold)
    targets = Targets.of_labels(labels)
    rows = place(predictions, targets)
    seen = np.zeros(len(targets.keys), dtype=np.int64)
    seen[rows] = 1
    top5 = np.full((len(targets.keys), predictions.classes.shape[1]), -1, dtype=np.int64)
    top5[rows] = predictions.classes
    if allow_partial:
        targets = targets.only(seen == 1)
    if threshold is not None:
        targets.identity["threshold"] = threshold
    return tally(targets, top5=top5, seen=seen)


def place(predictions: Predictions, targets: Targets) -> NDArray[np.int64]:
    """Return the rows of `targets` that the predictions are of, int64 (N,).

    Raises:
        PredictionsError: a prediction is of something else.
    """
    row_of = {key: row for row, key in enumerate(targets.keys)}
    foreign = [key for key in predictions.keys if key not in row_of]
    if foreign:
        raise PredictionsError(
            f"{predictions.source or 'the predictions'}: {len(foreign):,} of {len(predictions):,} are not of "
            f"validation images: {foreign[0]}. "
            "Expected names such as ILSVRC2012_val_00000001.JPEG."
        )
    return np.array([row_of[key] for key in predictions.keys], dtype=np.int64)
