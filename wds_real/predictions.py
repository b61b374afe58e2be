"""The prediction file: the five best classes of each image, in key order, and their probabilities.

Written as CSV, NPZ or Parquet; read from those and from JSON, JSONL and NPY, keyed by file name or key, or as the
50,000 in order. Runs without torch.
"""

from __future__ import annotations

import csv
import functools
import importlib
import io
import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from wds_real.errors import CoverageError, PredictionsError, SourceError
from wds_real.labels import NUM_CLASSES, NUM_IMAGES, canonical_file_name, classes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["TOP", "Format", "Predictions", "read_predictions"]

TOP = 5
Format = Literal["csv", "npz", "parquet"]

_NAME_COLUMNS = ("file_name", "filename", "file", "key", "image", "image_id", "imageid", "id", "name", "path")
_CLASS_COLUMNS = ("top5", "classes", "class", "predictions", "prediction", "pred", "label", "logits", "scores")
_RANKED_COLUMNS = tuple(f"top{place + 1}" for place in range(TOP))
_PROBABILITY_COLUMNS = tuple(f"prob{place + 1}" for place in range(TOP))


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What a model said of each image.

    Attributes:
        keys: N strings.
        classes: int64 (N, 5), class indices 0..999, best first; -1 where the model gave fewer.
        probabilities: float32 (N, 5), of these classes; NaN where unknown.
    """

    keys: tuple[str, ...]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.keys)

    def encode(self, form: Format = "csv") -> bytes:
        """Return the bytes of the prediction file: a pure function of the content.

        Raises:
            PredictionsError: Parquet without pyarrow installed.
        """
        if form == "npz":
            file = io.BytesIO()
            np.savez(file, key=np.array(self.keys), classes=self.classes, probabilities=self.probabilities)
            return file.getvalue()
        return self._parquet() if form == "parquet" else self._csv()

    def _csv(self) -> bytes:
        lines = [",".join(("file_name", *_RANKED_COLUMNS, *_PROBABILITY_COLUMNS))]
        for key, row, probabilities in zip(self.keys, self.classes.tolist(), self.probabilities.tolist(), strict=True):
            shown = ("" if math.isnan(value) else f"{value:.9g}" for value in probabilities)
            lines.append(",".join((f"{key}.JPEG", *("" if value < 0 else str(value) for value in row), *shown)))
        return ("\n".join(lines) + "\n").encode("utf-8")

    def _parquet(self) -> bytes:
        parquet = _pyarrow_parquet()
        columns: dict[str, Any] = {"file_name": [f"{key}.JPEG" for key in self.keys]}
        columns |= {name: self.classes[:, place] for place, name in enumerate(_RANKED_COLUMNS)}
        columns |= {name: self.probabilities[:, place] for place, name in enumerate(_PROBABILITY_COLUMNS)}
        file = io.BytesIO()
        parquet.write_table(importlib.import_module("pyarrow").table(columns), file)
        return file.getvalue()


def read_predictions(source: str | Path | Mapping[str, Any] | NDArray[Any] | Sequence[Any]) -> Predictions:
    """Read predictions from a file, a mapping or an array, and check them whole.

    Args:
        source: A path ending in ``.csv``, ``.tsv``, ``.jsonl``, ``.json``, ``.npy``, ``.npz`` or ``.parquet``; a
            mapping from file name or key to a prediction; or an array of the 50,000 predictions in the order of the
            sorted file names. One prediction is a class index 0..999, a wnid, up to five of them (best first), or
            1,000 scores.

    Raises:
        PredictionsError: the file cannot be read or understood, or a class is unknown.
        CoverageError: a name comes twice.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        return _checked(_read_file(path), str(path))
    if isinstance(source, Mapping):
        return _checked(_Raw(list(source.keys()), list(source.values())), "the mapping")
    return _checked(_Raw(None, source), "the array")


class _Raw(NamedTuple):
    """What a file says, before it is checked: names (None: the 50,000 in order), predictions, probabilities."""

    names: Sequence[Any] | None
    values: Sequence[Any] | NDArray[Any]
    probabilities: NDArray[np.float32] | None = None


def _checked(raw: _Raw, where: str) -> Predictions:
    """Bring names and predictions of any accepted form to one."""
    if raw.names is None and len(raw.values) != NUM_IMAGES:
        raise PredictionsError(
            f"{where}: {len(raw.values):,} predictions without names. Expected {NUM_IMAGES:,} in the order of the "
            "sorted file names, or a name with each."
        )
    if raw.names is None:
        keys = [f"ILSVRC2012_val_{number:08d}" for number in range(1, NUM_IMAGES + 1)]
    else:
        keys = [_key(str(name)) for name in raw.names]
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise CoverageError(
            f"{where}: {len(twice):,} images come twice: {', '.join(twice[:3])}{' ...' if len(twice) > 3 else ''}. "
            "Accuracy was not computed. Keep one prediction for each.",
            doubled=twice,
        )
    if isinstance(raw.values, np.ndarray) and raw.values.dtype.kind in "fiu":
        table = _from_array(raw.values, where)
    else:
        rows = [_classes_of(value, f"{where}: {key}") for key, value in zip(keys, raw.values, strict=True)]
        table = np.array(rows, dtype=np.int64).reshape(len(keys), TOP)
    probabilities = raw.probabilities
    if probabilities is None:
        probabilities = np.full((len(keys), TOP), np.nan, dtype=np.float32)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return Predictions(tuple(keys[row] for row in order), table[order], probabilities[order])


def _key(name: str) -> str:
    """Return the key of a file name or key: the official one of a validation image, else the name's stem."""
    stem = name.rsplit("/", 1)[-1]
    stem = re.sub(r"\.(jpe?g|png)$", "", stem, flags=re.IGNORECASE)
    try:
        return canonical_file_name(f"{stem}.JPEG").removesuffix(".JPEG")
    except SourceError:
        return stem


def _from_array(values: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return the classes int64 (N, 5) of classes (N,) or (N, up to 5), or of scores (N, 1000)."""
    if values.ndim == 2 and values.shape[1] == NUM_CLASSES:
        if np.isnan(values).any():
            raise PredictionsError(f"{where}: NaN among the scores.")
        return np.argsort(-values.astype(np.float64), axis=1, kind="stable")[:, :TOP]
    if values.dtype.kind == "f" or values.ndim > 2 or (values.ndim == 2 and values.shape[1] > TOP):
        raise PredictionsError(
            f"{where}: {values.dtype} of shape {values.shape}. Expected classes (N,) or (N, up to {TOP}) as integers, "
            f"or scores (N, {NUM_CLASSES})."
        )
    columns = values.reshape(len(values), -1).astype(np.int64)
    table = np.full((len(values), TOP), -1, dtype=np.int64)
    table[:, : columns.shape[1]] = columns
    outside = np.flatnonzero((columns[:, 0] < 0) | (table >= NUM_CLASSES).any(axis=1) | (table < -1).any(axis=1))
    if len(outside):
        raise PredictionsError(f"{where}: row {outside[0]} is {columns[outside[0]].tolist()}. {_CLASS_HINT}")
    return table


_CLASS_HINT = (
    f"Expected class indices 0..{NUM_CLASSES - 1}, the position of the wnid in the sorted list (not the development "
    "kit's 1..1000)."
)


def _classes_of(value: Any, where: str) -> list[int]:  # noqa: ANN401 -- whatever a file holds
    """Return five class indices, -1 behind the given ones, from one prediction in any accepted form."""
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    parts = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]
    if len(parts) == NUM_CLASSES:
        return [int(label) for label in _from_array(np.array([parts], dtype=np.float64), where)[0]]
    labels = [_class_of(part, where) for part in parts if part != ""]
    if not 1 <= len(labels) <= TOP:
        raise PredictionsError(f"{where}: {len(labels)} classes, expected 1 to {TOP}, or {NUM_CLASSES:,} scores.")
    return labels + [-1] * (TOP - len(labels))


def _class_of(part: Any, where: str) -> int:  # noqa: ANN401 -- whatever a file holds
    if isinstance(part, str) and part in _index_of_wnid():
        return _index_of_wnid()[part]
    try:
        label = int(part)
        whole = label == float(part)
    except (TypeError, ValueError):
        whole = False
    if not whole or not 0 <= label < NUM_CLASSES:
        raise PredictionsError(f"{where}: {part!r} is not a class. {_CLASS_HINT}")
    return label


@functools.cache
def _index_of_wnid() -> dict[str, int]:
    return {info.wnid: info.index for info in classes()}


def _read_file(path: Path) -> _Raw:
    readers = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".json": _read_json,
        ".jsonl": _read_jsonl,
        ".npy": _read_numpy,
        ".npz": _read_numpy,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PredictionsError(f"{path}: unknown kind of file. Expected one of {', '.join(readers)}.")
    try:
        return reader(path)
    except FileNotFoundError as error:
        raise PredictionsError(f"{path}: no such file.") from error
    except (OSError, ValueError, EOFError, csv.Error, zipfile.BadZipFile) as error:
        raise PredictionsError(f"{path}: cannot be read as {path.suffix[1:].upper()}: {error}") from error


def _read_csv(path: Path) -> _Raw:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    rows = [row for row in rows if row]
    if not rows:
        raise PredictionsError(f"{path}: the file is empty.")
    header = [cell.strip().lower() for cell in rows[0]]
    if any(name in _NAME_COLUMNS or name in _CLASS_COLUMNS for name in header):
        columns = {name: [row[place] for row in rows[1:]] for place, name in enumerate(header)}
        return _from_columns(columns, path)
    if len(rows[0]) == 1:
        return _Raw(None, [row[0] for row in rows])
    return _Raw([row[0] for row in rows], [row[1:] for row in rows])


def _read_parquet(path: Path) -> _Raw:
    table = _pyarrow_parquet().read_table(path)
    return _from_columns({name.lower(): table.column(name).to_pylist() for name in table.column_names}, path)


def _from_columns(columns: dict[str, list[Any]], path: Path) -> _Raw:
    """Find the names and the predictions among named columns."""
    name = next((column for column in _NAME_COLUMNS if column in columns), None)
    one = next((column for column in _CLASS_COLUMNS if column in columns), None)
    ranked = [column for column in _RANKED_COLUMNS if column in columns]
    if ranked:
        values: list[Any] = [list(row) for row in zip(*(columns[column] for column in ranked), strict=True)]
        values = [["" if value == -1 else value for value in row] for row in values]
    elif one is not None:
        values = columns[one]
    else:
        raise PredictionsError(f"{path}: no column of classes among {', '.join(columns)}. Expected top1 (to top{TOP}).")
    probabilities = None
    if set(_PROBABILITY_COLUMNS) <= set(columns):
        rows = zip(*(columns[column] for column in _PROBABILITY_COLUMNS), strict=True)
        probabilities = np.array([[float(value or "nan") for value in row] for row in rows], dtype=np.float32)
    return _Raw(None if name is None else columns[name], values, probabilities)


def _read_json(path: Path) -> _Raw:
    content = json.loads(path.read_bytes())
    if isinstance(content, dict):
        return _Raw(list(content), list(content.values()))
    if not isinstance(content, list):
        raise PredictionsError(f"{path}: expected an object or a list, found a {type(content).__name__}.")
    return _from_records(content, path)


def _read_jsonl(path: Path) -> _Raw:
    return _from_records([json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()], path)


def _from_records(records: list[Any], path: Path) -> _Raw:
    if not any(isinstance(record, dict) for record in records):
        return _Raw(None, records)
    names, values = [], []
    for number, record in enumerate(records):
        fields = {str(name).lower(): value for name, value in record.items()} if isinstance(record, dict) else {}
        name = next((fields[column] for column in _NAME_COLUMNS if column in fields), None)
        value = next((fields[column] for column in (*_CLASS_COLUMNS, "top1") if column in fields), None)
        if name is None or value is None:
            raise PredictionsError(
                f"{path}: record {number} is {json.dumps(record)[:80]}, expected a file_name (or key) and a prediction."
            )
        names.append(name)
        values.append(value)
    return _Raw(names, values)


def _read_numpy(path: Path) -> _Raw:
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return _Raw(None, content)
    with content:
        arrays = {name.lower(): content[name] for name in content.files}
    name = next((column for column in (*_NAME_COLUMNS, "keys", "file_names") if column in arrays), None)
    value = next((column for column in _CLASS_COLUMNS if column in arrays), None)
    if value is None:
        raise PredictionsError(f"{path}: no array of classes among {', '.join(arrays)}. Expected 'classes'.")
    return _Raw(None if name is None else arrays[name], arrays[value], arrays.get("probabilities"))


def _pyarrow_parquet() -> Any:  # noqa: ANN401 -- a module of an optional package
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise PredictionsError("Parquet needs pyarrow: pip install pyarrow, or use CSV or NPZ.") from error
