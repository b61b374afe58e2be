"""JSON and JSON lines: mappings, lists of objects, objects of lists, and every form that pandas writes."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from wds_real.errors import CoverageError, PredictionsError, first_few
from wds_real.scoring.reading.spellings import WRAPPING_WORDS, check_distinct, is_image_name, is_known_word, word
from wds_real.scoring.reading.text import MAX_ROW_CHARACTERS, MAX_ROWS

if TYPE_CHECKING:
    from typing import TextIO

    from wds_real.scoring.reading.spellings import Columns

__all__ = ["MAX_VALUES", "read_json", "read_json_lines", "twice_message"]

MAX_VALUES = 100_000_000  # twice 50,000 x 1,000 scores
_SPLIT_LABELS = ("index", "columns")  # of pandas' orient="split", which leaves the first out with index=False


def read_json(file: TextIO) -> Columns:
    """Read a JSON document, or JSON lines under the name of one, which pandas and timm write.

    A mapping from names to predictions becomes the columns ``file_name`` and ``prediction``; a list without names the
    column ``0``; pandas' row labels the column "".

    Raises:
        PredictionsError: it is neither an object nor a list, or has too many values.
        CoverageError: a name occurs twice.
    """
    text = file.read()
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise PredictionsError(f"more than {MAX_VALUES:,} values. Expected up to 1,000 scores for each image.")
    try:
        content = json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        if not _is_lines(text, error):
            raise
        return read_json_lines(io.StringIO(text))
    if isinstance(content, list):
        return _of_list(content)
    if not isinstance(content, dict):
        raise PredictionsError(f"expected an object or a list, found a {type(content).__name__}.")
    return _of_object(content)


def read_json_lines(file: TextIO) -> Columns:
    """Read one object, or one prediction, from each line.

    Raises:
        PredictionsError: some lines are objects and others are not, or there are too many lines.
        CoverageError: a name occurs twice in one object.
    """
    records: list[Any] = []
    while line := file.readline(MAX_ROW_CHARACTERS + 1):
        if len(line) > MAX_ROW_CHARACTERS:
            raise PredictionsError(f"line {len(records) + 1} has more than {MAX_ROW_CHARACTERS:,} characters.")
        if line.strip():
            records.append(json.loads(line, object_pairs_hook=_distinct))
        if len(records) > MAX_ROWS:
            raise PredictionsError(f"more than {MAX_ROWS:,} lines. Expected one for each image.")
    return _of_list(records)


def _is_lines(text: str, error: json.JSONDecodeError) -> bool:
    """Return whether a document ends, and another one begins, where a line does."""
    return error.msg == "Extra data" and "\n" in text[: error.pos][-2:] and text[error.pos :].startswith(("{", "["))


def twice_message(names: list[str]) -> str:
    """Return the message for images that have more than one prediction."""
    return (
        f"{len(names):,} {'image has' if len(names) == 1 else 'images have'} more than one prediction: "
        f"{first_few(names)}. Accuracy was not computed. Keep one prediction for each."
    )


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's pairs as a dict, and raise for a repeated name, of which `json.loads` keeps the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        raise CoverageError(twice_message(twice), doubled=twice)
    return content


def _of_object(content: dict[str, Any]) -> Columns:
    if isinstance(content.get("data"), list) and "schema" in content:  # pandas, orient="table"
        return _of_list(content["data"])
    if isinstance(content.get("data"), list) and any(isinstance(content.get(name), list) for name in _SPLIT_LABELS):
        return _of_split(content)
    inner = list(content.values())
    wrapped = [name for name, value in content.items() if word(name) in WRAPPING_WORDS and _is_table(value)]
    if wrapped and sum(isinstance(value, (list, dict)) for value in inner) == 1:  # the others are facts about the model
        table = content[wrapped[0]]
        return _of_list(table) if isinstance(table, list) else _of_object(table)
    are_columns = any(map(is_known_word, content)) and not any(map(is_image_name, content))
    if inner and all(isinstance(value, dict) and value for value in inner):
        return _of_nested(content, are_columns=are_columns)
    if are_columns and all(isinstance(value, list) for value in inner):
        check_distinct([name.lower() for name in content])
        return {name.lower(): values for name, values in content.items()}
    return {"file_name": list(content), "prediction": inner}


def _is_table(value: object) -> bool:
    """Return whether a value holds all predictions with their names, or rows of them."""
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], (dict, list)))


def _of_nested(content: dict[str, dict[str, Any]], *, are_columns: bool) -> Columns:
    """Return the columns of an object of objects: one for each column (pandas' default), or one for each row."""
    first = next(iter(content.values()))
    if not are_columns and not any(map(is_known_word, first)):
        are_columns = any(map(is_image_name, first)) or (
            not any(map(is_image_name, content)) and len(first) > len(content)
        )
    if not are_columns:
        return {"": list(content), **_of_list(list(content.values()))}
    if any(column.keys() != first.keys() for column in content.values()):
        raise PredictionsError("its columns have different row labels.")
    check_distinct([name.lower() for name in content])
    columns = {name.lower(): [column[row] for row in first] for name, column in content.items()}
    return {"": list(first), **columns}


def _of_split(content: dict[str, Any]) -> Columns:
    """Return the columns of pandas' orient="split", with or without row labels."""
    rows, labels = content["data"], content.get("index")
    names = content.get("columns")
    if not isinstance(names, list):  # a Series
        return {"": labels or [], "0": rows}
    if any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise PredictionsError(f"the number of cells of a row of its data is not that of its columns, {len(names)}.")
    lowered = [str(name).lower() for name in names]
    check_distinct(["", *lowered])
    columns: Columns = {name: [row[place] for row in rows] for place, name in enumerate(lowered)}
    return {"": labels, **columns} if isinstance(labels, list) else columns


def _of_list(records: list[Any]) -> Columns:
    if not any(isinstance(record, dict) for record in records):
        return _of_rows(records)
    rows, known = [], dict[str, None]()
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise PredictionsError(
                f"record {number} is {json.dumps(record)[:80]}, expected an object as the other records."
            )
        names = [name.lower() for name in record]
        check_distinct(names)
        known |= dict.fromkeys(names)
        if len(known) * len(records) > MAX_VALUES:
            raise PredictionsError("its records have different fields. Expected the same for each image.")
        rows.append(dict(zip(names, record.values(), strict=True)))
    return {name: [row.get(name) for row in rows] for name in known}


def _of_rows(rows: list[Any]) -> Columns:
    """Return a list of predictions as one column, and a list of rows that hold a name as numbered ones."""
    first = rows[0] if rows else None
    if isinstance(first, list) and any(isinstance(cell, str) and is_image_name(cell) for cell in first):
        if any(not isinstance(row, list) or len(row) != len(first) for row in rows):
            raise PredictionsError(f"its rows have different lengths, the first has {len(first)} values.")
        return {str(place): [row[place] for row in rows] for place in range(len(first))}
    return {"0": rows} if rows else {}
