"""Targets: the labels that predictions are compared with, and the samples that are expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wds_real.data.dataset import open_dataset
from wds_real.errors import PredictionsError
from wds_real.labels import bundled
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.score import score
from wds_real.scoring.targets import Targets

if TYPE_CHECKING:
    from pathlib import Path


def test_a_split_expects_its_samples_only(packed: Path) -> None:
    """The labels are those of the whole set; the samples outside of the split are not expected."""
    dataset = open_dataset(packed, split="validation[10:13]")
    targets = Targets.of_dataset(dataset)
    assert np.flatnonzero(targets.expected).tolist() == [10, 11, 12]
    assert targets.identity["split"] == "validation[10:13]"
    assert targets.keys == dataset.index.keys


def test_labels_are_padded_with_minus_one() -> None:
    """Lists of different lengths make one array; an empty list is a row of -1."""
    targets = Targets.of(["a", "b"], [1, 2], [(3, 4), ()])
    assert targets.real_label.tolist() == [[3, 4], [-1, -1]]
    assert targets.expected.all()


def test_rows_are_found_by_key_and_others_are_refused() -> None:
    """The order of the predictions does not matter; one of another image is an error that names it."""
    predictions = read_predictions({"ILSVRC2012_val_00000003.JPEG": 1, "ILSVRC2012_val_00000001.JPEG": 2})
    targets = Targets.of_labels()
    assert targets.positions_of(predictions).tolist() == [0, 2]
    with pytest.raises(PredictionsError, match="1 of 1 are not of validation images, such as cat"):
        targets.positions_of(read_predictions({"cat": 1}))


def test_scoring_leaves_the_identity_of_other_targets_alone() -> None:
    """A threshold is said in the result it belongs to, and in no other."""
    original = bundled().original
    assert score(original, threshold=0.5).dataset["threshold"] == 0.5
    assert "threshold" not in score(original).dataset
