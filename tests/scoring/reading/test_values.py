"""One prediction in every accepted form, and what columns hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_CLASSES, classes
from wds_real.scoring.reading.values import classes_of, could_be_predictions, probabilities_of, whole_numbers

WNID = classes()[65].wnid


@pytest.mark.parametrize(
    "value",
    [65, 65.0, "65", " 65 ", "65.0", "6.5e+01", "6.500000000000000000e+01", "6.5E1", b"65", np.bytes_("65"), WNID,
     WNID.encode(), [65], "[65]", "(65,)", np.float32(65)],
)  # fmt: skip
def test_a_class_is_a_whole_number_or_a_wnid(value: Any) -> None:
    """Also as np.savetxt writes numbers, and as bytes."""
    assert classes_of({"0": [value]}, ["0"], ["a"]).tolist() == [[65, -1, -1, -1, -1]]


@pytest.mark.parametrize(
    "value",
    ["6.55e+01", "1e3", "1e-1", "-1", "1e999", "6.5e+01x", b"\xff", True, None, {},
     pytest.param(10**5000, id="huge"), pytest.param(-(10**5000), id="huge and negative")],
)  # fmt: skip
def test_anything_else_is_refused_with_its_key(value: Any) -> None:
    """The message names the image and shows a short form of the value."""
    with pytest.raises(PredictionsError, match=r"^some key: .* is not a class") as caught:
        classes_of({"0": [value]}, ["0"], ["some key"])
    assert len(str(caught.value)) < 400


def test_scores_of_many_rows_are_ranked_in_pieces() -> None:
    """The pieces join without a seam; equal scores rank by class."""
    scores = np.random.default_rng(0).integers(0, 50, (2500, NUM_CLASSES)).astype(np.int8)
    found = classes_of({"0": scores}, ["0"], [""] * 2500)
    assert np.array_equal(found, np.argsort(-scores.astype(int), axis=1, kind="stable")[:, :5])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["1", "2", "x"], True),
        (["1", "x", "x"], False),
        ([WNID] * 3, True),
        (["0.5", "0.25"], False),
        (["1000", "2000"], False),
        ([[1, 2], [3, 4]], True),
        (np.arange(5000), False),
        (np.zeros((3, 1000)), True),
        ([], False),
    ],
)
def test_columns_that_could_be_predictions(column: Any, expected: bool) -> None:
    """Half of the values that are looked at must be classes, wnids, lists of them, or 1,000 scores."""
    assert could_be_predictions(column) is expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [(["1", "2.0", "3e1"], [1, 2, 30]), (np.array([4, 5], np.uint8), [4, 5]), ([b"7"], [7]), (["1", ""], None),
     ([1.5], None), ([True], None), (np.array([0.5]), None), (["-3"], [-3]), ([10**30], None)],
)  # fmt: skip
def test_whole_numbers_are_found_in_every_spelling(column: Any, expected: list[int] | None) -> None:
    """One other value in the column, and it is none of numbers."""
    found = whole_numbers(column)
    assert (None if found is None else found.tolist()) == expected


def test_probabilities_are_five_for_each_row_or_unknown() -> None:
    """Without columns they are NaN; other shapes are refused."""
    assert np.isnan(probabilities_of({}, 2)).all()
    assert probabilities_of({f"prob{place}": ["0.5", ""] for place in range(1, 6)}, 2)[0].tolist() == [0.5] * 5
    with pytest.raises(PredictionsError, match=r"shape \(2,\)"):
        probabilities_of({"probabilities": [1.0, 2.0]}, 2)
