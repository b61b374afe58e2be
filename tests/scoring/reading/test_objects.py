"""Predictions in memory: tables of pandas, tensors, arrays and mappings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.prediction_files import KEYS, NAMES, ORIGINAL

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_IMAGES
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.reading.objects import columns_of
from wds_real.scoring.score import score

ROWS = {"filename": NAMES[:3], "label": [1, 2, 3], "pred": [65, 970, 230]}


@pytest.fixture(scope="module")
def pandas() -> Any:
    return pytest.importorskip("pandas")


def test_a_table_is_read_as_the_file_of_it(pandas: Any) -> None:
    """Names in a column, or as row labels with or without a title; row numbers are no names."""
    frame = pandas.DataFrame(ROWS)
    for table in (frame, frame[::-1], frame.set_index("filename"), frame.set_index("filename").rename_axis(None)):
        read = read_predictions(table)
        assert (read.keys, read.classes[:, 0].tolist()) == (KEYS[:3], [65, 970, 230])


def test_rows_of_a_filtered_table_keep_their_names(pandas: Any) -> None:
    """Row numbers with gaps, as filtering leaves them, are not taken for classes."""
    frame = pandas.DataFrame({"filename": NAMES[:6], "label": [65, 970, 230, 809, 516, 57]})
    assert read_predictions(frame[frame.label > 200]).classes[:, 0].tolist() == [970, 230, 809, 516]


def test_a_series_is_read(pandas: Any) -> None:
    """By its row labels, or in order."""
    series = pandas.Series([65, 970], index=NAMES[:2])
    assert read_predictions(series).classes[:, 0].tolist() == [65, 970]
    assert score(pandas.Series(ORIGINAL)).original_top1.correct == NUM_IMAGES


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16])
def test_a_tensor_is_read(dtype: torch.dtype) -> None:
    """A tensor of classes in order, as the array of it."""
    assert score(torch.tensor(ORIGINAL, dtype=dtype)).original_top1.correct == NUM_IMAGES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scores_of_a_tensor_are_read(dtype: torch.dtype) -> None:
    """Scores in any precision, also those that need a gradient; names may be given in a mapping."""
    scores = torch.zeros(2, 1000, dtype=dtype)
    scores[0, 65] = scores[1, 970] = 1
    read = read_predictions({"file_name": NAMES[:2], "scores": scores.requires_grad_()})
    assert read.classes[:, 0].tolist() == [65, 970]
    assert read_predictions(dict(zip(NAMES, scores, strict=False))).classes[:, 0].tolist() == [65, 970]


def test_a_mapping_of_columns_is_a_table(tmp_path: Any) -> None:
    """What NumPy loads from an NPZ file, with logits and targets, is read as the file."""
    scores = np.zeros((NUM_IMAGES, 1000), dtype=np.float16)
    scores[np.arange(NUM_IMAGES), ORIGINAL] = 1
    np.savez(tmp_path / "a.npz", logits=scores, targets=np.array(ORIGINAL))
    assert score(tmp_path / "a.npz").original_top1.correct == NUM_IMAGES
    with np.load(tmp_path / "a.npz") as file:
        assert score(file).original_top1.correct == NUM_IMAGES


@pytest.mark.parametrize("source", [5, None, object(), {"pred": [1, 2], "filename": NAMES[:3]}, {"pred": 5, "key": 6}])
def test_what_is_no_table_is_named(source: Any) -> None:
    """A number, nothing, and columns of different lengths are refused in words."""
    with pytest.raises(PredictionsError, match=r"cannot be read as predictions|have different lengths"):
        columns_of(source)


def test_two_columns_of_one_name_are_refused(pandas: Any) -> None:
    """As in a file, upper and lower case are the same."""
    with pytest.raises(PredictionsError, match="two columns are called 'pred'"):
        read_predictions(pandas.DataFrame({"filename": NAMES[:1], "pred": [1], "Pred": [2]}))
