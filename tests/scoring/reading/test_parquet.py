"""Parquet files: columns as lists or arrays, and limits on what they decode to."""

from __future__ import annotations

import io

import numpy as np
import pytest
from support.prediction_files import needs_pyarrow, parquet

from wds_real.errors import PredictionsError
from wds_real.scoring.reading.parquet import read_parquet

pytestmark = needs_pyarrow


def test_lists_of_scores_are_one_array() -> None:
    """1,000 numbers in each row become an array; other lists stay lists."""
    scores = np.random.default_rng(0).random((3, 1000))
    found = read_parquet(io.BytesIO(parquet(Key=["a", "b", "c"], logits=list(scores), top5=[[1, 2]] * 3)), 1 << 30)
    assert found["key"] == ["a", "b", "c"]
    assert isinstance(found["logits"], np.ndarray)
    assert np.array_equal(found["logits"], scores)
    assert found["top5"] == [[1, 2]] * 3


def test_repeated_values_count_as_often_as_they_are_there() -> None:
    """A long text that is stored once and repeated in 10,000 rows is refused before all of it is decoded."""
    content = parquet(key=["x" * 100_000] * 10_000)
    assert len(content) < 1_000_000
    with pytest.raises(PredictionsError, match="more than 100,000,000 bytes when inflated"):
        read_parquet(io.BytesIO(content), 100_000_000)


def test_two_columns_of_one_name_are_refused() -> None:
    """Names differ in more than upper and lower case."""
    with pytest.raises(PredictionsError, match="two columns are called 'pred'"):
        read_parquet(io.BytesIO(parquet(pred=[1], Pred=[2])), 1 << 30)
