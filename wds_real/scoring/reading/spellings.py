"""The words that identify columns and headers, the same for every kind of prediction file."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_IMAGES
from wds_real.scoring.predictions import PROBABILITY_COLUMNS, RANKED_COLUMNS, TOP

__all__ = [
    "CLASS_WORDS", "CONFIDENCE_WORDS", "INDEX_WORDS",
    "LABEL_WORDS", "NAME_WORDS", "PREDICTION_WORDS", "RANKED_SPELLINGS", "SCORES_BY_WNID",
    "TRUTH_WORDS", "WRAPPING_WORDS", "Column", "Columns", "check_distinct", "is_header", "is_image_name",
    "is_known_word", "numbered_columns", "word",
]  # fmt: skip

Column: TypeAlias = Sequence[Any] | NDArray[Any]
# Names in lower case, in file order. Columns of a file without a header are named "0", "1", ...
Columns: TypeAlias = dict[str, Column]

# Several columns, best class first.
RANKED_SPELLINGS = (
    RANKED_COLUMNS,
    *(tuple(f"{stem}{place}" for place in range(start, start + TOP))
      for stem in ("index_", "label_", "class_", "pred_", "top_", "class", "pred") for start in (0, 1)),
)  # fmt: skip
# Scores whose header names the class of each; they are in the order of the classes.
SCORES_BY_WNID = "scores_by_wnid"
# A column of one of these names holds predictions.
PREDICTION_WORDS = (
    "prediction", "predictions", "pred", "preds", "predictionstring", "predicted", "predicted_class",
    "predicted_label", "predicted_index", "pred_label", "pred_class", "pred_index", "pred_idx", "y_pred", "top5",
    "logits", "scores", SCORES_BY_WNID,
)  # fmt: skip
# These hold labels, which may be the truth, or predictions: taken only if no other column can hold predictions.
LABEL_WORDS = ("label", "labels")
CLASS_WORDS = (
    "class", "classes", "class_id", "class_index", "class_idx", "class_name", "category_id", "wnid", "synset", "index",
    "output", "outputs", "y_hat", "yhat", "guess", "answer", "argmax", *LABEL_WORDS,
)  # fmt: skip
# These hold the truth and are never taken for predictions.
TRUTH_WORDS = (
    "target", "targets", "truth", "gt", "ground_truth", "groundtruth", "y_true", "true_label", "true_class",
    "original_label", "real_label",
)  # fmt: skip
# The model's confidence: never a class, even if it is a whole number.
CONFIDENCE_WORDS = ("prob", "probs", "probability", "logit", "score", "confidence", "loss")
# An object of JSON may hold all predictions under one of these names, beside facts about the model.
WRAPPING_WORDS = ("prediction", "predictions", "preds", "results", "outputs")
NAME_WORDS = (
    "file_name", "filename", "file_names", "filenames", "file", "files", "key", "keys", "image", "images", "image_id",
    "imageid", "image_name", "img", "name", "path", "id",
)  # fmt: skip
INDEX_WORDS = ("", "unnamed:_0", "index", "level_0")  # pandas' row labels, as it writes them and reads them back
_KNOWN = frozenset((
    *(name for spelling in RANKED_SPELLINGS for name in spelling), *PREDICTION_WORDS, *CLASS_WORDS, *TRUTH_WORDS,
    *NAME_WORDS, *PROBABILITY_COLUMNS, *CONFIDENCE_WORDS, "probabilities",
))  # fmt: skip
_IMAGE_NAME = re.compile(r"ILSVRC2012_val_\d{8}", re.ASCII)


def word(name: str) -> str:
    """Return a column's name as the lists of words have it: lower case, with underscores for blanks and hyphens."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def is_known_word(cell: str) -> bool:
    """Return whether a cell is the name of a column and so belongs to a header."""
    return word(cell) in _KNOWN


def is_image_name(value: object) -> bool:
    """Return whether a value holds the name of a validation image: text, bytes or a path."""
    if isinstance(value, bytes):
        value = value[:4096].decode("utf-8", "replace")
    return _IMAGE_NAME.search(str(value)[:4096]) is not None


def is_header(row: Sequence[str], num_rows: int) -> bool:
    """Return whether the first row of a table names its columns.

    That is so if a cell is a word for a column, or if no cell could be a name or a prediction, or if the cells count
    the columns from 0 as pandas does: after an empty cell, or where the table has one row more than images.

    Args:
        row: The first row.
        num_rows: Rows of the table with this one.
    """
    cells = [cell.strip() for cell in row]
    if any(map(is_image_name, cells)):
        return False
    if any(map(is_known_word, cells)) or not any(any(map(str.isdigit, cell.lstrip("[({'\"+ ")[:2])) for cell in cells):
        return True
    counted = cells if cells[0] else cells[1:]
    return counted == [str(place) for place in range(len(counted))] and (not cells[0] or num_rows == NUM_IMAGES + 1)


def numbered_columns(names: Collection[str], count: int) -> list[tuple[str, ...]]:
    """Return each set of columns that share a stem and count 0 to `count` - 1, or 1 to `count`, in that order.

    >>> numbered_columns(["key", "prob_1", "prob_0", "logit1", "logit2"], 2)
    [('prob_0', 'prob_1'), ('logit1', 'logit2')]
    """
    by_stem: dict[str, dict[int, str]] = {}
    for name in names if len(names) >= count else ():
        stem = name.rstrip("0123456789")
        if stem != name:
            by_stem.setdefault(stem, {})[int(name[len(stem) :])] = name
    return [
        tuple(columns[number] for number in sorted(columns))
        for columns in by_stem.values()
        if columns.keys() in (set(range(count)), set(range(1, count + 1)))
    ]


def check_distinct(names: Sequence[str]) -> None:
    """Raise if two columns have the same name.

    Raises:
        PredictionsError: a name occurs twice.
    """
    seen = set[str]()
    for name in names:
        if name in seen:
            raise PredictionsError(f"two columns are called {name!r} when case is ignored.")
        seen.add(name)
