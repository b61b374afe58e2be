"""Reading predictions: finding the columns of names and of classes, and every accepted form of a prediction.

`wds_real.scoring.prediction_files` reads the files as columns. Runs without torch.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import CoverageError, PredictionsError
from wds_real.labels import NUM_CLASSES, NUM_IMAGES, classes
from wds_real.labels.file_names import sample_key
from wds_real.scoring.prediction_files import read_columns, twice_message
from wds_real.scoring.predictions import PROBABILITY_COLUMNS, RANKED_COLUMNS, TOP, Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wds_real.scoring.prediction_files import Columns

__all__ = ["read_predictions"]

# Spellings of several columns, best class first, then those of a single one.
_RANKED_SPELLINGS = (
    RANKED_COLUMNS,
    *(tuple(f"{stem}{place}" for place in range(start, start + TOP))
      for stem in ("index_", "label_", "class_", "pred_", "class", "pred") for start in (0, 1)),
)  # fmt: skip
_SINGLE_SPELLINGS = (
    "prediction", "predictions", "pred", "preds", "predictionstring", "predicted_class", "predicted_label",
    "pred_label", "pred_class", "class", "classes", "class_id", "class_index", "category_id", "index", "top5", "logits",
    "scores",
)  # fmt: skip
_TRUTH_OR_CLASS = "label"  # holds predictions only if no other column can hold them
_NAME_SPELLINGS = (
    "file_name", "filename", "file_names", "filenames", "file", "files", "key", "keys", "image", "images", "image_id",
    "imageid", "img", "name", "path", "id",
)  # fmt: skip
_IMAGE_NAME = re.compile(r"ILSVRC2012_val_\d{8}", re.ASCII)
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,18}(?:\.0*)?", re.ASCII)
_CLASS_HINT = (
    f"Expected class indices 0..{NUM_CLASSES - 1}, the position of the wnid in the sorted list (not the development "
    "kit's 1..1000)."
)


def read_predictions(
    source: str | Path | Mapping[str, Any] | NDArray[Any] | Sequence[Any],
    *,
    name_column: str | None = None,
    class_column: str | None = None,
) -> Predictions:
    """Read and check predictions from a file, a mapping or an array.

    The names are in the column ``file_name``, ``filename``, ``key``, ``image``, ``id`` or similar, else in any column
    that holds names of validation images. The classes are in ``top1`` to ``top5`` (or ``index_0`` ...), else in
    ``prediction``, ``pred``, ``class``, ``index``, ``logits`` or similar, else in ``label``. A file without a header
    has the name in the first column, or holds only the 50,000 predictions. Anything else is an error.

    Args:
        source: A path ending in ``.csv``, ``.tsv``, ``.json``, ``.jsonl``, ``.npy``, ``.npz`` or ``.parquet``; a
            mapping from file name or key to a prediction; or an array of the 50,000 predictions in the order of the
            sorted file names. One prediction is a class index 0..999, a wnid, up to five of them (best first), or
            1,000 scores.
        name_column: The column of names, if it has another name.
        class_column: The column of predictions, if it has another name.

    Raises:
        PredictionsError: the file cannot be read, its columns are not as above, or a class is unknown.
        CoverageError: a name occurs more than once.
    """
    if isinstance(source, Mapping):
        columns: Columns = {"file_name": list(source.keys()), "prediction": list(source.values())}
        where = "the mapping"
    elif isinstance(source, (str, Path)):
        columns, where = read_columns(Path(source)), str(source)
    else:
        columns, where = {"0": source}, "the array"
    names, values, origin = _find_columns(columns, where, name_column, class_column)
    keys = _keys(None if names is None else columns[names], len(columns[values[0]]), where)
    table = _classes(columns, values, keys, where)
    probabilities = _probabilities(columns, len(keys), where)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return Predictions(tuple(keys[row] for row in order), table[order], probabilities[order], where, origin)


def _find_columns(
    columns: Columns, where: str, name_column: str | None, class_column: str | None
) -> tuple[str | None, list[str], str]:
    """Return the column of names (None: no names, in order), the columns of classes, and a text that names both."""
    for wanted in (name_column, class_column):
        if wanted is not None and wanted.lower() not in columns:
            raise PredictionsError(f"{where}: no column {wanted!r} among {', '.join(columns)}.")
    names = name_column.lower() if name_column else _find_names(columns)
    values = [class_column.lower()] if class_column else _find_classes(columns, names, where)
    ignored = set(columns) - {names, *values, *PROBABILITY_COLUMNS, "probabilities"}
    if names is None and ignored:
        raise PredictionsError(
            f"{where}: none of the columns {', '.join(columns)} is known to hold the images' names. Call that column "
            "file_name, or use --name-column. Only a file that holds nothing but predictions needs no names."
        )
    names_from = "in the order of the sorted file names" if names is None else f"names from {names!r}"
    return names, values, f"{names_from}, classes from {', '.join(map(repr, values))}"


def _find_names(columns: Columns) -> str | None:
    holding = [name for name, column in columns.items() if len(column) and _IMAGE_NAME.search(str(column[0]))]
    known = [name for name in _NAME_SPELLINGS if name in columns]
    if "1" in columns and len(columns["0"]) and not _WHOLE_NUMBER.fullmatch(str(columns["0"][0])):
        known.append("0")  # no header: the name is in the first column
    return next(iter([name for name in known if name in holding] + holding + known), None)


def _find_classes(columns: Columns, names: str | None, where: str) -> list[str]:
    positional = [name for name in columns if name.isdigit() and name != names]
    if positional:
        return positional
    for spelling in _RANKED_SPELLINGS:
        ranked = [column for column in spelling if column in columns]
        if ranked and ranked[0] == spelling[0]:
            return ranked
    found = [column for column in _SINGLE_SPELLINGS if column in columns and column != names]
    if not found and _TRUTH_OR_CLASS in columns:
        found = [_TRUTH_OR_CLASS]
    if len(found) != 1:
        problem = f"both {found[0]!r} and {found[1]!r} could hold the classes" if found else "no column of classes"
        raise PredictionsError(
            f"{where}: {problem} among {', '.join(columns)}. Call them top1 (to top{TOP}), or use --class-column."
        )
    return found


def _keys(names: Sequence[Any] | NDArray[Any] | None, length: int, where: str) -> list[str]:
    if names is None:
        if length != NUM_IMAGES:
            raise PredictionsError(
                f"{where}: {length:,} predictions without names. Expected {NUM_IMAGES:,} in the order of the sorted "
                "file names, or a name with each."
            )
        return [f"ILSVRC2012_val_{number:08d}" for number in range(1, NUM_IMAGES + 1)]
    nameless = [row for row, name in enumerate(names) if name is None]
    if nameless:
        raise PredictionsError(f"{where}: record {nameless[0]} has no name.")
    keys = [sample_key(name) for name in names]
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise CoverageError(f"{where}: {twice_message(twice)}", doubled=twice)
    return keys


def _classes(columns: Columns, values: list[str], keys: list[str], where: str) -> NDArray[np.int64]:
    """Return the classes int64 (N, 5), filled up with -1."""
    column = columns[values[0]]
    if len(values) == 1 and isinstance(column, np.ndarray):
        if column.dtype.kind in "fiu":
            return _from_array(column, where)
        if column.dtype.kind not in "USO":
            raise PredictionsError(f"{where}: classes of type {column.dtype}. {_CLASS_HINT}")
    if len(values) == 1:
        rows = [_from_value(value, f"{where}: {key}") for key, value in zip(keys, column, strict=True)]
    else:
        cells = zip(*(columns[name] for name in values), strict=True)
        rows = [_from_value(list(row), f"{where}: {key}") for key, row in zip(keys, cells, strict=True)]
    return np.array(rows, dtype=np.int64).reshape(len(keys), TOP)


def _from_array(values: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return the classes of an array of classes (N,) or (N, up to 5), or of scores (N, 1000)."""
    if values.ndim == 2 and values.shape[1] == NUM_CLASSES:
        scores = values if values.dtype.kind == "f" else values.astype(np.float64)
        if np.isnan(scores).any():
            raise PredictionsError(f"{where}: NaN among the scores.")
        return np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    columns = values.reshape(len(values), -1) if len(values) else values.reshape(0, 1)
    if values.ndim > 2 or not 1 <= columns.shape[1] <= TOP:
        raise PredictionsError(
            f"{where}: {values.dtype} of shape {values.shape}. Expected classes (N,) or (N, up to {TOP}), or scores "
            f"(N, {NUM_CLASSES})."
        )
    wrong = ~((columns >= -1) & (columns < NUM_CLASSES) & (columns == np.floor(columns)))
    wrong[:, 0] |= columns[:, 0] < 0
    if wrong.any():
        row = int(np.flatnonzero(wrong.any(axis=1))[0])
        raise PredictionsError(f"{where}: row {row} is {columns[row].tolist()}. {_CLASS_HINT}")
    table = np.full((len(values), TOP), -1, dtype=np.int64)
    table[:, : columns.shape[1]] = columns
    return table


def _from_value(value: Any, where: str) -> list[int]:  # noqa: ANN401 -- whatever a file holds
    """Return five class indices, filled up with -1, from one prediction in any accepted form."""
    given = value
    if isinstance(value, str):
        value = re.sub(r"[\[\](),;]", " ", value).split()
        if len(value) > 1 and len(value) % TOP == 0 and value[0] in _index_of_wnid() and _is_number(value[1]):
            value = value[::TOP]  # Kaggle's form: a wnid, then the four numbers of a box
    parts = list(value) if isinstance(value, (list, tuple)) or np.ndim(value) == 1 else [value]
    if len(parts) == NUM_CLASSES:
        return _from_scores(parts, where)
    while parts and _is_none(parts[-1]):
        parts.pop()
    labels = [_class_of(part, where) for part in parts or [given]]
    if not 1 <= len(labels) <= TOP:
        raise PredictionsError(f"{where}: {len(labels)} classes, expected 1 to {TOP}, or {NUM_CLASSES:,} scores.")
    return labels + [-1] * (TOP - len(labels))


def _from_scores(parts: list[Any], where: str) -> list[int]:
    if any(isinstance(part, bool) or not _is_number(part) for part in parts):
        raise PredictionsError(f"{where}: not all of the {NUM_CLASSES:,} values are numbers. Expected scores.")
    return [int(label) for label in _from_array(np.array([parts], dtype=np.float64), where)[0]]


def _class_of(part: Any, where: str) -> int:  # noqa: ANN401 -- whatever a file holds
    text = str(part).strip()
    if text in _index_of_wnid():
        return _index_of_wnid()[text]
    whole = _WHOLE_NUMBER.fullmatch(text) is not None and not isinstance(part, (bool, np.bool_))
    if not whole or not 0 <= int(text.split(".")[0]) < NUM_CLASSES:
        raise PredictionsError(f"{where}: {str(part)[:80]!r} is not a class. {_CLASS_HINT}")
    return int(text.split(".")[0])


def _is_none(part: Any) -> bool:  # noqa: ANN401 -- whatever a file holds
    """Return whether a cell holds no class: empty, None, -1 or NaN."""
    if isinstance(part, str):
        return not part.strip()
    if isinstance(part, (float, np.floating)) and math.isnan(part):
        return True
    return part is None or (isinstance(part, (int, float, np.number)) and bool(part == -1))


def _is_number(part: Any) -> bool:  # noqa: ANN401 -- whatever a file holds
    try:
        float(part)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _probabilities(columns: Columns, length: int, where: str) -> NDArray[np.float32]:
    try:
        if "probabilities" in columns:
            found = np.asarray(columns["probabilities"], dtype=np.float32)
        elif set(PROBABILITY_COLUMNS) <= set(columns):
            rows = zip(*(columns[name] for name in PROBABILITY_COLUMNS), strict=True)
            cells = [[math.nan if value in ("", None) else float(value) for value in row] for row in rows]
            found = np.array(cells, dtype=np.float32).reshape(length, TOP)
        else:
            return np.full((length, TOP), np.nan, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise PredictionsError(f"{where}: the probabilities are not numbers: {error}") from error
    if found.shape != (length, TOP):
        raise PredictionsError(f"{where}: probabilities of shape {found.shape}, expected ({length}, {TOP}).")
    return found


@functools.cache
def _index_of_wnid() -> dict[str, int]:
    return {info.wnid: info.index for info in classes()}
