"""Tables as text: delimiters, headers, comments, and rows of scores."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.prediction_files import KEYS, NAMES

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_CLASSES, classes
from wds_real.scoring.reading import text
from wds_real.scoring.reading.text import MAX_ROW_CHARACTERS, read_table

if TYPE_CHECKING:
    from wds_real.scoring.reading.spellings import Columns

WNIDS = [info.wnid for info in classes()]


def table(content: str, delimiter: str = ",") -> Columns:
    return read_table(io.StringIO(content, newline=""), delimiter)


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (f",0\n{NAMES[0]},65\n", {"": [NAMES[0]], "0": ["65"]}),
        (f",0,1\n{NAMES[0]},65,4\n", {"": [NAMES[0]], "0": ["65"], "1": ["4"]}),
        (f"filename,0\n{NAMES[0]},65\n", {"filename": [NAMES[0]], "0": ["65"]}),
        (f"{NAMES[0]} 65\n{NAMES[1]}   4\n", {"0": [NAMES[0], NAMES[1]], "1": ["65", "4"]}),
        (f"{NAMES[0]}\t65\n", {"0": [NAMES[0]], "1": ["65"]}),
        ("6.5e+01\n4.0e+00\n", {"0": ["6.5e+01", "4.0e+00"]}),
        ("6.5e+01 4.0e+00\n", {"0": ["6.5e+01"], "1": ["4.0e+00"]}),
        ("prediction\n65 4\n", {"prediction": ["65 4"]}),
        ("predicted class\n65\n", {"predicted class": ["65"]}),
        ("[ 65  4]\n[ 3  2]\n", {"0": ["[ 65  4]", "[ 3  2]"]}),
        (f"# a comment\n\n#\n{NAMES[0]},65\n# end\n", {"0": [NAMES[0]], "1": ["65"]}),
        (f"# file_name,pred\n{NAMES[0]},65\n", {"file_name": [NAMES[0]], "pred": ["65"]}),
        (
            f'file_name,remark,pred\n{NAMES[0]},"a\n# b",65\n',
            {"file_name": [NAMES[0]], "remark": ["a\n# b"], "pred": ["65"]},
        ),
        (f"filename,pred,,\n{NAMES[0]},65,,\n", {"filename": [NAMES[0]], "pred": ["65"]}),
        ("", {}),
        ("# nothing else\n", {}),
    ],
)
def test_tables_are_read_as_tools_write_them(content: str, columns: dict[str, list[str]]) -> None:
    """What pandas, np.savetxt, Caffe's lists and spreadsheets write gives the columns that are meant."""
    assert table(content) == columns


@pytest.mark.parametrize("header", ["", "file_name," + ",".join(map(str, range(NUM_CLASSES))) + "\n"])
def test_rows_of_scores_are_one_column_of_numbers(header: str) -> None:
    """1,000 numbers in a row become one array, with the names beside it."""
    scores = np.arange(2 * NUM_CLASSES).reshape(2, -1) / 8
    rows = "".join(f"{name},{','.join(map(str, row))}\n" for name, row in zip(NAMES, scores.tolist(), strict=False))
    names, found = table(header + rows).values()
    assert list(names) == list(NAMES[:2])
    assert np.array_equal(found, scores)


def test_columns_of_wnids_are_put_into_the_order_of_classes() -> None:
    """A table of scores with the wnids over them means the same in any order of its columns."""
    order = np.random.default_rng(0).permutation(NUM_CLASSES)
    header = ",".join(["key", *(WNIDS[place] for place in order)])
    found = table(f"{header}\n{KEYS[0]},{','.join(map(str, order.tolist()))}\n")
    assert np.array_equal(found["scores_by_wnid"], np.arange(NUM_CLASSES)[None])


def test_scores_of_more_outputs_are_one_column_too() -> None:
    """Which of them are the 1,000 classes is said by a class map, later."""
    found = table(f"key,{','.join(f'p{place}' for place in range(1001))}\n{KEYS[0]},{','.join(['0.5'] * 1001)}\n")
    assert np.shape(found["scores"]) == (1, 1001)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (",".join(["1"] * 999 + ["x"]) + "\n", "rows of 1,000 cells, 999 of them numbers"),
        (",".join(["1"] * 900 + ["x"] * 200) + "\n", "rows of 1,100 cells, 900 of them numbers"),
        (
            ",".join(["1"] * 1000) + "\n" + ",".join(["1"] * 1000) + "\n" + ",".join(["1"] * 999 + ["x"]),
            "row 3 .1.: a score is",
        ),
        ("a" * (MAX_ROW_CHARACTERS + 1), "Is a quote not closed"),
        ('"' + "a\n" * 70_000, "field larger than|Is a quote not closed"),
        ("a,pred\nb,1\nc\n", r"row 3 \(c\) has 1 cells, the first row has 2"),
    ],
)
def test_what_is_no_table_is_refused(content: str, words: str) -> None:
    """A row with another number of cells, a cell that is no score and a row without an end are named."""
    with pytest.raises(Exception, match=words) as caught:
        table(content)
    assert type(caught.value).__name__ in ("PredictionsError", "Error")


def test_rows_are_counted_while_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and cells beyond the limits are not kept."""
    monkeypatch.setattr(text, "MAX_ROWS", 5)
    assert len(table("1\n" * 5)["0"]) == 5
    with pytest.raises(PredictionsError, match="more than 5 rows"):
        table("1\n" * 7)
    monkeypatch.setattr(text, "MAX_CELLS", 6)
    with pytest.raises(PredictionsError, match="more than 6 cells"):
        table("1,2\n" * 4)
