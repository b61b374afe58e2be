"""What each column of a prediction file holds: the images' names, and the predicted classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import PredictionsError, first_few
from wds_real.labels import NUM_CLASSES
from wds_real.scoring.predictions import PROBABILITY_COLUMNS, TOP
from wds_real.scoring.reading.order import is_counted, is_truth
from wds_real.scoring.reading.spellings import (
    CLASS_WORDS,
    CONFIDENCE_WORDS,
    INDEX_WORDS,
    LABEL_WORDS,
    NAME_WORDS,
    PREDICTION_WORDS,
    RANKED_SPELLINGS,
    TRUTH_WORDS,
    is_image_name,
    numbered_columns,
    word,
)  # fmt: skip
from wds_real.scoring.reading.values import (
    classes_of,
    could_be_predictions,
    holds_names,
    holds_scores,
    whole_numbers,
)

if TYPE_CHECKING:
    from wds_real.scoring.reading.spellings import Column, Columns

__all__ = ["Roles", "find_roles"]

_SAMPLED_ROWS = 20
_NO_CLASSES = frozenset((*TRUTH_WORDS, *CONFIDENCE_WORDS))
_PROBABILITIES = frozenset((*PROBABILITY_COLUMNS, "probabilities"))


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns that are used.

    Attributes:
        names: Column of names; None if the rows are in the order of the images.
        classes: Columns of classes, best first, or one column.
        others: Columns that are neither, nor probabilities.
    """

    names: str | None
    classes: tuple[str, ...]
    others: tuple[str, ...]


def find_roles(columns: Columns, *, name_column: str | None, class_column: str | None) -> Roles:
    """Find the columns of names and classes by their names and by what is in them.

    Args:
        columns: Of the file.
        name_column: The column of names, if the caller says it.
        class_column: The column of classes, if the caller says it.

    Raises:
        PredictionsError: a given column is not there, no column holds classes, or more than one could.
    """
    for wanted in (name_column, class_column):
        if wanted is not None and wanted.lower() not in columns:
            raise PredictionsError(f"no column {wanted[:80]!r} among {first_few(list(columns), count=8)}.")
    given = None if class_column is None else class_column.lower()
    names = name_column.lower() if name_column is not None else _find_names(columns, given)
    classes = _find_classes(columns, names) if given is None else (given,)
    used = {names, *classes, *_PROBABILITIES}
    return Roles(names, classes, tuple(name for name in columns if name not in used))


def _find_names(columns: Columns, classes: str | None) -> str | None:
    candidates = [name for name in columns if name != classes]
    holding = [name for name in candidates if _holds_image_names(columns[name])]
    known = sorted(
        (name for name in candidates if word(name) in NAME_WORDS), key=lambda name: NAME_WORDS.index(word(name))
    )
    if "0" in candidates and "1" in columns and len(columns["0"]) and whole_numbers(columns["0"][:1]) is None:
        known.append("0")  # no header: the name is in the first column
    if "" in candidates and not _is_row_number(columns[""]):
        known.append("")
    counted = [name for name in candidates if word(name) in INDEX_WORDS and is_counted(columns[name])]
    return next(iter([name for name in known if name in holding] + holding + known + counted), None)


def _find_classes(columns: Columns, names: str | None) -> tuple[str, ...]:
    left = [name for name in columns if name != names and name not in _PROBABILITIES]
    by_word = {word(name): name for name in reversed(left)}
    numbered = [name for name in left if name.isdigit()]
    for spelling in RANKED_SPELLINGS:
        ranked = [by_word[column] for column in spelling if column in by_word]
        if ranked and by_word.get(spelling[0]) == ranked[0]:
            return tuple(ranked)
    if scores := numbered_columns(left, NUM_CLASSES):
        return scores[0]
    clear = [by_word[found] for found in PREDICTION_WORDS if found in by_word]
    clear = clear or [name for name in left if holds_scores(columns[name])]
    rivals = [name for name in left if word(name) not in _NO_CLASSES and name not in clear and name not in numbered]
    if clear:
        rivals = [name for name in rivals if word(name) in CLASS_WORDS and word(name) not in LABEL_WORDS]
    rivals = [name for name in rivals if could_be_predictions(columns[name]) and not _is_row_number(columns[name])]
    candidates = [*clear, *numbered[:1], *rivals]
    if not candidates:
        candidates = [name for name in left if word(name) in CLASS_WORDS and holds_names(columns[name])]
    if len(candidates) > 1:
        if not _hold_the_same(columns, candidates):
            raise PredictionsError(_several(columns, candidates, names))
        return (candidates[0],)
    if clear or numbered:
        return tuple(clear or numbered)
    found = rivals or [by_word[known] for known in CLASS_WORDS if known in by_word][:1]
    if not found or word(found[0]) not in CLASS_WORDS:
        hint = f"{found[0]!r} could hold them: use --class-column. " if found else ""
        raise PredictionsError(
            f"no column of classes among {first_few(columns, count=8)}. {hint}Call them top1 (to top{TOP}), or "
            "use --class-column."
        )
    return (found[0],)


def _hold_the_same(columns: Columns, candidates: list[str]) -> bool:
    """Return whether several columns give the same classes, as numbers and as wnids; then either will do."""
    try:
        first, *others = (classes_of(columns, (name,), [""] * len(columns[name])) for name in candidates)
    except PredictionsError:
        return False
    return all(np.array_equal(first, other) for other in others)


def _several(columns: Columns, candidates: list[str], names: str | None) -> str:
    shown = " and ".join(repr(name[:40]) for name in candidates[:2])
    truths = [name for name in candidates if is_truth(columns[name], None if names is None else columns[names])]
    said = f"{truths[0][:40]!r} equals the original labels everywhere, so it is the truth. " if truths else ""
    others = [name for name in candidates if name not in truths] or candidates
    return (
        f"both {shown} could hold the classes among {first_few(columns, count=8)}. {said}Say which column holds "
        f"the predictions: --class-column {others[-1][:40]} (class_column in Python)."
    )


def _holds_image_names(column: Column) -> bool:
    return any(is_image_name(value) for value in column[:_SAMPLED_ROWS])


def _is_row_number(column: Column) -> bool:
    """Return whether a column counts the rows, from 0 or 1."""
    numbers = whole_numbers(column)
    return (
        numbers is not None and len(numbers) > TOP and is_counted(numbers) and bool((numbers[1:] > numbers[:-1]).all())
    )
