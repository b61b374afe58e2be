"""ReaL and original accuracy of a prediction file, without model, images and torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import CoverageError
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.predictions import Predictions
from wds_real.scoring.table import PredictionTable
from wds_real.scoring.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sized
    from pathlib import Path

    from wds_real.labels import Labels
    from wds_real.scoring.result import Result

__all__ = ["score"]


def score(
    predictions: str | Path | Sized,
    *,
    labels: Labels | None = None,
    threshold: float | None = None,
    allow_partial: bool = False,
    storage_options: Mapping[str, str] | None = None,
) -> Result:
    """Compare predictions with the labels of the 50,000 validation images.

    >>> from wds_real import labels
    >>> score(labels.bundled().original).real_top1.correct
    42164

    Args:
        predictions: Anything `wds_real.read_predictions` reads.
        labels: Labels to use in place of the released ones.
        threshold: Make the ReaL labels from the published rater scores above this threshold (released: 0.8).
        allow_partial: Score only the images that are predicted.
        storage_options: For a URL, as for `wds_real.open_store`; a path takes none.

    Raises:
        ValueError: both `labels` and `threshold` are given.
        PredictionsError: the predictions cannot be read, or are not of validation images.
        CoverageError: an image has no prediction (unless `allow_partial`).
        SourceError: `threshold` is not a multiple of 0.001 in 0 <= threshold < 1.
        StoreError: the file at a URL is missing, too large or cannot be read.
    """
    targets = Targets.of_labels(labels, threshold=threshold)
    if not isinstance(predictions, Predictions):
        predictions = read_predictions(predictions, storage_options=storage_options)
    positions = targets.positions_of(predictions)
    if allow_partial:
        targets = replace(targets, expected=np.isin(np.arange(len(targets.keys)), positions))
    table = PredictionTable(targets)
    table.add(positions, predictions.classes, predictions.probabilities)
    try:
        result = table.result(world_size=1)
    except CoverageError as error:
        raise CoverageError(
            f"{predictions.source or 'the predictions'}: {error} To score only the images that are there, use "
            "--allow-partial (allow_partial=True in Python).",
            missing=error.missing,
            doubled=error.doubled,
        ) from error
    return replace(result, run={"notes": list(predictions.notes)}) if predictions.notes else result
