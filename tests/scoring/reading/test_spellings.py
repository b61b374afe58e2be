"""Headers and names are told from predictions by one rule for every kind of file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.prediction_files import KEYS, NAMES

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_IMAGES
from wds_real.scoring.reading.spellings import check_distinct, is_header, is_image_name, is_known_word, word


@pytest.mark.parametrize(
    ("row", "num_rows", "expected"),
    [
        (["file_name", "top1"], 3, True),
        (["filename", "0"], 3, True),
        (["filename", "2nd"], 3, True),
        (["photo", "answer 1"], 3, True),
        (["", "0"], 3, True),
        (["", "0", "1", "2"], 3, True),
        (["0"], NUM_IMAGES + 1, True),
        (["0", "1", "2", "3", "4"], NUM_IMAGES + 1, True),
        (["0", "1", "2", "3", "4"], NUM_IMAGES, False),
        (["0", "1"], 3, False),
        (["", "1"], 3, False),
        (["1"], NUM_IMAGES + 1, False),
        (["[ 65  4]"], 3, False),
        (["65"], 3, False),
        (["n01440764"], 3, False),
        ([KEYS[0], "class"], 3, False),
        ([f"b'{NAMES[0]}'", "65"], 3, False),
    ],
)
def test_the_first_row_is_a_header_if_it_cannot_be_data(row: list[str], num_rows: int, expected: bool) -> None:
    """Words for columns, and the numbers of columns where a row more than the images is there, make a header."""
    assert is_header(row, num_rows) is expected


def test_image_names_are_found_in_text_bytes_and_paths() -> None:
    """A name may be part of a path; other text is none."""
    assert all(map(is_image_name, [KEYS[0], f"val/{NAMES[0]}", NAMES[0].encode(), Path(NAMES[0])]))
    assert not any(map(is_image_name, ["dog.jpeg", "ILSVRC2012_test_00000001.JPEG", 5, None, b"\xff"]))


def test_words_are_known_in_any_case_with_blanks_and_hyphens() -> None:
    """The same word with blanks, hyphens and capitals is the same column."""
    assert word(" Predicted Class ") == word("predicted-class") == "predicted_class"
    assert all(map(is_known_word, ["Predicted Class", "File-Name", "top1", "Y_TRUE", "prob5"]))
    assert not any(map(is_known_word, ["", "0", "photo", "65"]))


def test_a_doubled_name_among_many_columns_is_found_in_linear_time() -> None:
    """200,000 names are compared in one pass: a quadratic check would take minutes."""
    names = [f"column{number}" for number in range(200_000)]
    check_distinct(names)
    with pytest.raises(PredictionsError, match=r"^two columns are called 'column7'"):
        check_distinct([*names, "column7"])
