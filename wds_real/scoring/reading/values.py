"""Every accepted form of a prediction: one value, or a column of them, as the five best classes."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_CLASSES, classes
from wds_real.labels.class_names import classes_by_name, index_of_wnid, plain_name
from wds_real.scoring.predictions import PROBABILITY_COLUMNS, TOP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from wds_real.scoring.reading.spellings import Column, Columns

__all__ = [
    "classes_of",
    "could_be_predictions",
    "holds_names",
    "holds_scores",
    "parts_of",
    "probabilities_of",
    "whole_number",
    "whole_numbers",
]

_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,18}(?:\.\d*)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)["]""")  # an item of a list that NumPy or Python printed
_CLASS_HINT = (
    f"Expected class indices 0..{NUM_CLASSES - 1}, the position of the wnid in the sorted list (not the development "
    "kit's 1..1000)."
)
_MAX_NAME = 1000  # characters; a class's lemmas with its definition take up to 300
_DIGITS = frozenset("0123456789")
_ROWS_AT_ONCE = 1000
_SAMPLED_ROWS = 40


def classes_of(columns: Columns, names: Sequence[str], keys: Sequence[str]) -> NDArray[np.int64]:
    """Return the classes of the columns `names`, int64 (N, 5), filled up with -1; 1,000 columns are scores.

    Raises:
        PredictionsError: a value is not a prediction.
    """
    column = columns[names[0]]
    if len(names) == NUM_CLASSES:
        return _from_array(_stacked([columns[name] for name in names]))
    if len(names) == 1 and isinstance(column, np.ndarray):
        if column.dtype.kind in "fiu":
            return _from_array(column)
        if column.dtype.kind not in "USO":
            raise PredictionsError(f"classes of type {str(column.dtype)[:80]}. {_CLASS_HINT}")
    values = column if len(names) == 1 else zip(*(columns[name] for name in names), strict=True)
    rows = [
        _from_value(value if len(names) == 1 else list(value), key[:80])
        for key, value in zip(keys, values, strict=True)
    ]
    return np.array(rows, dtype=np.int64).reshape(len(keys), TOP)


def could_be_predictions(column: Column) -> bool:
    """Return whether at least half of some values of a column, taken evenly, are class numbers, wnids or scores."""
    return _mostly(column, lambda value: not _are_names(value) and _is_prediction(value))


def holds_names(column: Column) -> bool:
    """Return whether at least half of some values of a column, taken evenly, are names of classes."""
    return _mostly(column, _are_names)


def holds_scores(column: Column) -> bool:
    """Return whether the values of a column are 1,000 numbers each, by the first of them."""
    if isinstance(column, np.ndarray):
        return column.ndim == 2 and column.shape[1] == NUM_CLASSES and column.dtype.kind in "fiu"
    return len(column) > 0 and len(parts_of(column[0])) == NUM_CLASSES


def whole_numbers(column: Column) -> NDArray[np.int64] | None:
    """Return a column of whole numbers as int64 (N,); None if any value is something else."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "iu" and column.ndim == 1:
        return column.astype(np.int64)
    numbers = []
    for value in column:
        number = whole_number(value)
        if number is None:
            return None
        numbers.append(number)
    return np.array(numbers, dtype=np.int64)


def probabilities_of(columns: Columns, length: int) -> NDArray[np.float32]:
    """Return the probabilities float32 (N, 5), NaN where there are none.

    Raises:
        PredictionsError: they are not numbers, or of another shape.
    """
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
        raise PredictionsError(f"the probabilities are not numbers: {str(error)[:80]}") from error
    if found.shape != (length, TOP):
        raise PredictionsError(f"probabilities of shape {found.shape}, expected ({length}, {TOP}).")
    return found


def _from_array(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the classes of an array of classes (N,) or (N, up to 5), or of scores (N, 1000)."""
    if values.ndim == 2 and values.shape[1] == NUM_CLASSES:
        table = np.empty((len(values), TOP), dtype=np.int64)
        for start in range(0, len(values), _ROWS_AT_ONCE):
            scores = values[start : start + _ROWS_AT_ONCE]
            scores = scores if scores.dtype.kind == "f" else scores.astype(np.float64)
            if np.isnan(scores).any():
                raise PredictionsError("NaN among the scores.")
            table[start : start + len(scores)] = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        return table
    columns = values.reshape(len(values), math.prod(values.shape[1:])) if len(values) else values.reshape(0)[:, None]
    if values.ndim > 2 or not 1 <= columns.shape[1] <= TOP:
        raise PredictionsError(
            f"{values.dtype} of shape {values.shape}. Expected classes (N,) or (N, up to {TOP}), or scores "
            f"(N, {NUM_CLASSES}).{_output_advice(math.prod(values.shape[1:]))}"
        )
    wrong = ~((columns >= -1) & (columns < NUM_CLASSES) & (columns == np.floor(columns)))
    wrong[:, 0] |= columns[:, 0] < 0
    if wrong.any():
        row = int(np.flatnonzero(wrong.any(axis=1))[0])
        raise PredictionsError(f"row {row} is {columns[row].tolist()}. {_CLASS_HINT}")
    table = np.full((len(values), TOP), -1, dtype=np.int64)
    table[:, : columns.shape[1]] = columns
    return table


def _output_advice(num_outputs: int) -> str:
    """Return the option for scores of more outputs than the 1,000 classes; "" for fewer."""
    if num_outputs == NUM_CLASSES + 1:
        return " If one of them is the background: --background first, or --background last."
    return " Say which output is which class: --class-map FILE." if num_outputs > NUM_CLASSES else ""


def _from_value(value: Any, key: str) -> list[int]:  # noqa: ANN401 -- whatever a file holds
    """Return five class indices, filled up with -1, from one prediction in any accepted form."""
    parts = parts_of(value)
    if len(parts) == NUM_CLASSES:
        return _from_scores(parts, key)
    while parts and _is_none(parts[-1]):
        parts.pop()
    if len(parts) > TOP:
        raise PredictionsError(
            f"{key}: {len(parts)} classes, expected 1 to {TOP}, or {NUM_CLASSES:,} scores.{_output_advice(len(parts))}"
        )
    labels = [_class_of(part, key) for part in parts or [value]]
    return labels + [-1] * (TOP - len(labels))


def parts_of(value: Any) -> list[Any]:  # noqa: ANN401 -- whatever a file holds
    """Return the classes or scores in one value: the items of a list or a printed list, else the value itself."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return list(value) if isinstance(value, (list, tuple)) or np.ndim(value) == 1 else [value]
    if _is_name(value):
        return [value]
    if value.lstrip().startswith(("[", "(")) and (quoted := _QUOTED.findall(value)):
        return [re.sub(r"\\(.)", r"\1", one or other) for one, other in quoted]
    parts = re.sub(r"[\[\](),;]", " ", value).split()
    if len(parts) > 1 and len(parts) % TOP == 0 and parts[0] in index_of_wnid() and _is_number(parts[1]):
        return parts[::TOP]  # Kaggle's form: a wnid, then the four numbers of a box
    if len(parts) > 1 and any(_is_name(part) for part in parts):
        return [value]  # words of a name that is not known
    return parts


def _from_scores(parts: list[Any], key: str) -> list[int]:
    if any(isinstance(part, bool) or not _is_number(part) for part in parts):
        raise PredictionsError(f"{key}: not all of the {NUM_CLASSES:,} values are numbers. Expected scores.")
    scores = np.array([parts], dtype=np.float64)
    if np.isnan(scores).any():
        raise PredictionsError(f"{key}: NaN among the scores.")
    return [int(label) for label in _from_array(scores)[0]]


def _class_of(part: Any, key: str) -> int:  # noqa: ANN401 -- whatever a file holds
    text = _text(part)
    index = index_of_wnid().get(text)
    label = whole_number(part) if index is None else index
    if label is None:
        meant = classes_by_name().get(plain_name(text), ())
        if len(meant) > 1:
            said = ", ".join(f"{index} ({classes()[index].wnid}: {classes()[index].lemmas})" for index in meant)
            raise PredictionsError(
                f"{key}: {text[:80]!r} names several classes: {said}. Write class indices or wnids; with timm's "
                "inference.py: --include-index."
            )
        label = meant[0] if meant else None
    if label is None or not 0 <= label < NUM_CLASSES:
        raise PredictionsError(f"{key}: {text[:80]!r} is not a class. {_CLASS_HINT}")
    return label


def whole_number(value: Any) -> int | None:  # noqa: ANN401 -- whatever a file holds
    """Return a value as a whole number if it is one, also as ``6.5e+01``; None otherwise."""
    if isinstance(value, (bool, np.bool_)):
        return None
    text = _text(value)
    if _WHOLE_NUMBER.fullmatch(text) is None:
        return None
    if text.lstrip("+-").isdigit():
        return int(text)
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else None


def _text(value: Any) -> str:  # noqa: ANN401 -- whatever a file holds
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length():,} bits"  # Python refuses to print long ones
    return str(value).strip()


def _stacked(columns: Sequence[Column]) -> NDArray[np.float64]:
    """Return 1,000 columns of scores as one array (N, 1000).

    Raises:
        PredictionsError: a score is not a number.
    """
    table = np.empty((len(columns[0]), len(columns)), dtype=np.float64)
    try:
        for place, column in enumerate(columns):
            table[:, place] = column
    except (TypeError, ValueError, OverflowError) as error:
        raise PredictionsError(f"not all of the {NUM_CLASSES:,} scores are numbers: {str(error)[:80]}") from error
    return table


def _mostly(column: Column, holds: Callable[[Any], bool]) -> bool:
    step = max(1, len(column) // _SAMPLED_ROWS)
    found = [holds(column[row]) for row in range(0, len(column), step)]
    return bool(found) and 2 * sum(found) >= len(found)


def _are_names(value: Any) -> bool:  # noqa: ANN401 -- whatever a file holds
    return any(map(_is_name, parts_of(value)[:TOP]))


def _is_name(value: Any) -> bool:  # noqa: ANN401 -- whatever a file holds
    """Return whether a value is the name of a class, or of several."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return isinstance(text, str) and text[:1] not in _DIGITS and plain_name(text[:_MAX_NAME]) in classes_by_name()


def _is_prediction(value: Any) -> bool:  # noqa: ANN401 -- whatever a file holds
    try:
        _from_value(value, "")
    except PredictionsError:
        return False
    return True


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
