"""Prediction files of all kinds as named columns; `wds_real.scoring.prediction_reader` interprets the columns."""

from __future__ import annotations

import csv
import importlib
import io
import json
import tokenize
import warnings
import zipfile
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import CoverageError, PredictionsError
from wds_real.storage.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Columns", "parquet_module", "read_columns", "twice_message"]

# Names in lower case, in file order. Columns of a file without a header are named "0", "1", ...
Columns = dict[str, "Sequence[Any] | NDArray[Any]"]


def read_columns(path: Path) -> Columns:
    """Read a file into columns of equal length.

    A mapping from names to predictions becomes the columns ``file_name`` and ``prediction``. A list or array without
    names becomes the column ``0``.

    Raises:
        PredictionsError: the kind of file is unknown, or the file cannot be read.
        CoverageError: a JSON object has a name twice.
    """
    readers: dict[str, Callable[[bytes], Columns]] = {
        ".csv": lambda data: _table(data, ","),
        ".tsv": lambda data: _table(data, "\t"),
        ".txt": lambda data: _table(data, ","),
        ".json": _json,
        ".jsonl": _jsonl,
        ".npy": lambda data: {"0": _array(data)},
        ".npz": _npz,
        ".parquet": _parquet,
    }
    reader = readers.get(path.suffix.lower())
    if path.is_dir():
        raise PredictionsError(
            f"{path}: this is a folder. Give the prediction file in it, such as {path / 'predictions.csv'}."
        )
    if reader is None:
        raise PredictionsError(f"{path}: unknown kind of file. Expected one of {', '.join(readers)}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of old or damaged headers
            columns = reader(read_bytes(path))
    except FileNotFoundError as error:
        raise PredictionsError(f"{path}: no such file.") from error
    except CoverageError as error:
        raise CoverageError(f"{path}: {error}", doubled=error.doubled) from error
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from error
    except _UNREADABLE as error:
        kind = path.suffix[1:].upper()
        raise PredictionsError(
            f"{path}: cannot be read as {kind}: {str(error)[:200] or type(error).__name__}"
        ) from error
    if not columns:
        raise PredictionsError(f"{path}: the file is empty.")
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column):,}" for name, column in columns.items())
        raise PredictionsError(f"{path}: columns of different lengths: {lengths}.")
    return columns


# The errors that numpy, zipfile and csv raise for damaged files.
_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, TypeError, RecursionError, MemoryError, NotImplementedError, RuntimeError,
    SyntaxError, csv.Error, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


def _table(data: bytes, delimiter: str) -> Columns:
    text = data.decode("utf-8-sig")
    first = text.split("\n", 1)[0]
    if delimiter == "," and "," not in first:
        delimiter = next((other for other in ";\t" if other in first), ",")
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    if not rows:
        return {}
    width = len(rows[0])
    for number, row in enumerate(rows):
        if len(row) != width:
            raise PredictionsError(f"row {number + 1} ({row[0]}) has {len(row)} cells, the first row has {width}.")
    names = [str(place) for place in range(width)]
    if _is_header(rows[0]):
        names = [cell.strip().lower() for cell in rows.pop(0)]
        _check_distinct(names)
    cells = zip(*rows, strict=True) if rows else ((),) * width
    return {name: list(column) for name, column in zip(names, cells, strict=True)}


def _is_header(row: list[str]) -> bool:
    """Return whether a first row is a header: no cell could be an image's name or a prediction."""
    return not any("ILSVRC2012_val_" in cell or any(map(str.isdigit, cell[:2])) for cell in row)


def _check_distinct(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PredictionsError(f"two columns are called {twice[0]!r}.")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's pairs as a dict, and raise for a repeated name, of which `json.loads` keeps the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        raise CoverageError(twice_message(twice), doubled=twice)
    return content


def twice_message(names: list[str]) -> str:
    """Return the message for images that have more than one prediction."""
    shown = f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
    return (
        f"{len(names):,} {'image has' if len(names) == 1 else 'images have'} more than one prediction: {shown}. "
        "Accuracy was not computed. Keep one prediction for each."
    )


def _json(data: bytes) -> Columns:
    content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_distinct)
    if isinstance(content, dict):
        return {"file_name": list(content), "prediction": list(content.values())}
    if not isinstance(content, list):
        raise PredictionsError(f"expected an object or a list, found a {type(content).__name__}.")
    return _records(content)


def _jsonl(data: bytes) -> Columns:
    lines = data.decode("utf-8-sig").splitlines()
    return _records([json.loads(line, object_pairs_hook=_distinct) for line in lines if line.strip()])


def _records(records: list[Any]) -> Columns:
    if not any(isinstance(record, dict) for record in records):
        return {"0": records} if records else {}
    rows = []
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise PredictionsError(
                f"record {number} is {json.dumps(record)[:80]}, expected an object as the other records."
            )
        names = [str(name).lower() for name in record]
        _check_distinct(names)
        rows.append(dict(zip(names, record.values(), strict=True)))
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _array(data: bytes) -> NDArray[Any]:
    content = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(content, np.ndarray) or not content.ndim:
        raise PredictionsError("expected an array of predictions.")
    return content


def _npz(data: bytes) -> Columns:
    with np.load(io.BytesIO(data), allow_pickle=False) as content:
        arrays = {name.lower(): content[name] for name in content.files}
    for name, array in arrays.items():
        if not array.ndim:
            raise PredictionsError(f"{name!r} is a single value, expected an array.")
    return {"0" if name == "arr_0" and len(arrays) == 1 else name: array for name, array in arrays.items()}


def _parquet(data: bytes) -> Columns:
    table = parquet_module().read_table(io.BytesIO(data))
    _check_distinct([name.lower() for name in table.column_names])
    return {name.lower(): table.column(name).to_pylist() for name in table.column_names}


def parquet_module() -> Any:  # noqa: ANN401 -- a module of an optional package
    """Return ``pyarrow.parquet``.

    Raises:
        PredictionsError: pyarrow is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise PredictionsError("Parquet needs pyarrow. Install it: pip install pyarrow. Or use CSV or NPZ.") from error
