"""JSON in every form that pandas writes, and in those that people write."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from support.prediction_files import KEYS

from wds_real.errors import CoverageError, PredictionsError
from wds_real.scoring.reading import json_tables
from wds_real.scoring.reading.json_tables import read_json, read_json_lines

K0, K1 = KEYS[:2]
NAMED = {"file_name": [K0, K1], "pred": [65, 4]}
LABELLED = {"": [K0, K1], "pred": [65, 4]}
ROWS = {"": ["0", "1"], **NAMED}


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ([{"file_name": K0, "pred": 65}, {"file_name": K1, "pred": 4}], NAMED),  # orient="records"
        ({"file_name": {"0": K0, "1": K1}, "pred": {"0": 65, "1": 4}}, ROWS),  # the default, "columns"
        ({"0": {"file_name": K0, "pred": 65}, "1": {"file_name": K1, "pred": 4}}, ROWS),  # "index"
        ({"columns": ["file_name", "pred"], "index": ["0", "1"], "data": [[K0, 65], [K1, 4]]}, ROWS),  # "split"
        ({"schema": {}, "data": [{"index": 0, "pred": 65}]}, {"index": [0], "pred": [65]}),  # "table"
        ([[K0, 65], [K1, 4]], {"0": [K0, K1], "1": [65, 4]}),  # "values"
        ({"pred": {K0: 65, K1: 4}}, LABELLED),
        ({K0: {"pred": 65}, K1: {"pred": 4}}, LABELLED),
        ({"0": {K0: 65, K1: 4}}, {"": [K0, K1], "0": [65, 4]}),
        ({"0": {"0": 65, "1": 4, "2": 3}, "1": {"0": 1, "1": 2, "2": 5}},
         {"": ["0", "1", "2"], "0": [65, 4, 3], "1": [1, 2, 5]}),
        ({"name": "pred", "index": [K0, K1], "data": [65, 4]}, {"": [K0, K1], "0": [65, 4]}),  # a Series, "split"
        ({K0: 65, K1: 4}, {"file_name": [K0, K1], "prediction": [65, 4]}),
        ({K0: [65, 1], K1: [4, 2]}, {"file_name": [K0, K1], "prediction": [[65, 1], [4, 2]]}),
        ({"File_Name": [K0, K1], "pred": [65, 4]}, NAMED),
        ([[65, 1], [4, 2]], {"0": [[65, 1], [4, 2]]}),
        ([], {}),
    ],
)  # fmt: skip
def test_every_form_gives_the_columns_that_are_meant(content: Any, columns: dict[str, Any]) -> None:
    """The orients of pandas for frames and series, mappings, lists of rows and objects of lists."""
    assert read_json(io.StringIO(json.dumps(content))) == columns


@pytest.mark.parametrize(
    "content",
    [
        {"predictions": [{"key": K0, "class": 65}, {"key": K1, "class": 4}]},
        {"model": "resnet50", "top": 5, "predictions": [{"key": K0, "class": 65}, {"key": K1, "class": 4}]},
        {"results": {"key": [K0, K1], "class": [65, 4]}},
        {"columns": ["key", "class"], "data": [[K0, 65], [K1, 4]]},
    ],
)
def test_wrapped_tables_are_unwrapped(content: Any) -> None:
    """All predictions may be under one name, beside facts about the model; pandas may leave its row labels out."""
    assert read_json(io.StringIO(json.dumps(content))) == {"key": [K0, K1], "class": [65, 4]}


def test_lines_of_json_may_be_called_json() -> None:
    """As pandas and timm write them; two documents in one line, or a broken second one, are errors."""
    lines = f'{{"key": "{K0}", "pred": 1}}\n{{"key": "{K1}", "pred": 2}}\n'
    assert read_json(io.StringIO(lines)) == {"key": [K0, K1], "pred": [1, 2]}
    for content in ('{"a": 1} {"a": 2}', '{"a": 1}\n{"a": '):
        with pytest.raises(json.JSONDecodeError):
            read_json(io.StringIO(content))


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ('{"pred": {"a": 1}, "key": {"b": "x"}}', PredictionsError, "different row labels"),
        ('{"index": [1], "columns": ["a"], "data": [[1, 2]]}', PredictionsError, "is not that of its columns, 1"),
        (f'[["{K0}", 1], ["{K1}"]]', PredictionsError, "rows have different lengths"),
        ('[{"a": 1, "A": 2}]', PredictionsError, "two columns are called 'a'"),
        ('{"pred": [1], "Pred": [2]}', PredictionsError, "two columns are called 'pred'"),
        ('{"a": 1, "a": 2}', CoverageError, "1 image has more than one prediction: a"),
        ("5", PredictionsError, "found a int"),
    ],
)
def test_what_is_no_table_is_refused(content: str, error: type[Exception], words: str) -> None:
    """Each fault is named."""
    with pytest.raises(error, match=words):
        read_json(io.StringIO(content))


def test_values_and_lines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of too many values is refused before it is parsed, and records of ever new fields while they are."""
    monkeypatch.setattr(json_tables, "MAX_VALUES", 9)
    with pytest.raises(PredictionsError, match="more than 9 values"):
        read_json(io.StringIO("[" * 10))
    with pytest.raises(PredictionsError, match="different fields"):
        read_json_lines(io.StringIO("".join(f'{{"a{number}": 1}}\n' for number in range(5))))
    monkeypatch.setattr(json_tables, "MAX_ROWS", 3)
    with pytest.raises(PredictionsError, match="more than 3 lines"):
        read_json_lines(io.StringIO("1\n" * 4))
    monkeypatch.setattr(json_tables, "MAX_ROW_CHARACTERS", 20)
    with pytest.raises(PredictionsError, match="line 1 has more than 20 characters"):
        read_json_lines(io.StringIO("1" * 30))
