"""Map the predictions of a model with other outputs to the 1,000 classes.

Only numbers are mapped; wnids and names of classes in the same column stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_CLASSES
from wds_real.scoring.predictions import PROBABILITY_COLUMNS, TOP
from wds_real.scoring.reading.spellings import SCORES_BY_WNID, numbered_columns
from wds_real.scoring.reading.values import parts_of, whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wds_real.labels.class_maps import ClassMap
    from wds_real.scoring.reading.roles import Roles
    from wds_real.scoring.reading.spellings import Column, Columns

__all__ = ["mapped_numbers", "mapped_scores"]

_NO_CLASS = -1  # of the 1,000


def mapped_scores(columns: Columns, class_map: ClassMap) -> tuple[Columns, frozenset[str]]:
    """Return the columns with scores of the 1,000 classes in place of scores of all outputs, and their names."""
    outputs = class_map.outputs.tolist()
    found = dict(columns)
    mapped = set[str]()
    for name, column in columns.items():
        if name == SCORES_BY_WNID:
            mapped.add(name)
        elif isinstance(column, np.ndarray) and column.ndim == 2:
            if column.shape[1] == class_map.num_outputs:
                found[name] = column[:, class_map.outputs]
                mapped.add(name)
        elif len(column) and len(parts_of(column[0])) == class_map.num_outputs:
            rows = [parts_of(value) for value in column]
            wrong = next((row for row, parts in enumerate(rows) if len(parts) != class_map.num_outputs), None)
            if wrong is not None:
                raise PredictionsError(
                    f"row {wrong} has {len(rows[wrong]):,} scores, expected {class_map.num_outputs:,}."
                )
            found[name] = [[parts[output] for output in outputs] for parts in rows]
            mapped.add(name)
    for names in numbered_columns(columns, class_map.num_outputs):
        stem = names[0].rstrip("0123456789")
        scores = {f"{stem}{label}": columns[names[output]] for label, output in enumerate(outputs)}
        found = {name: column for name, column in found.items() if name not in set(names)} | scores
        mapped |= scores.keys()
    return found, frozenset(mapped)


def mapped_numbers(columns: Columns, roles: Roles, class_map: ClassMap) -> tuple[Columns, Roles, int]:
    """Return columns of class indices in place of numbers of outputs, their roles, and how many rows lost an answer.

    An answer that is none of the 1,000 classes, such as the background, is left out, and the next best one takes its
    place.

    Raises:
        PredictionsError: a number is not one of an output, or a row has no answer left.
    """
    given = [columns[name] for name in roles.classes]
    found = [_mapped(column, class_map) for column in given]
    lost = sum(any(_NO_CLASS in row for row in rows) for rows in zip(*found, strict=True))
    if not lost:
        return {**columns, **dict(zip(roles.classes, map(_plain, found), strict=True))}, roles, 0
    merged = [[label for row in rows for label in row if label != _NO_CLASS] for rows in zip(*found, strict=True)]
    empty = next(
        (row for row, labels in enumerate(merged) if not any(label not in ("", None) for label in labels)), None
    )
    if empty is not None:
        raise PredictionsError(
            f"row {empty} has only answers that are none of the {NUM_CLASSES:,} classes, such as the background. Write "
            f"the {TOP} best classes, or the scores, of each image."
        )
    left = {name: column for name, column in columns.items() if name not in (*PROBABILITY_COLUMNS, "probabilities")}
    return {**left, roles.classes[0]: merged}, replace(roles, classes=roles.classes[:1]), lost


def _mapped(column: Column, class_map: ClassMap) -> list[list[Any]]:
    """Return the answers of each row, numbers of outputs as class indices or -1, anything else as it is."""
    class_of = class_map.class_of_output().tolist()
    rows = []
    for row, value in enumerate(column.tolist() if isinstance(column, np.ndarray) else column):
        parts = parts_of(value)
        if len(parts) > TOP:
            raise PredictionsError(
                f"row {row} has {len(parts):,} values, but the class map is for {class_map.num_outputs:,} outputs."
            )
        numbers = [whole_number(part) for part in parts]
        wrong = [number for number in numbers if number is not None and not -1 <= number < class_map.num_outputs]
        if wrong:
            raise PredictionsError(
                f"row {row} is {wrong[0]}, but the class map is for outputs 0 to {class_map.num_outputs - 1}."
            )
        rows.append(
            [
                part if number is None else None if number == -1 else class_of[number]
                for part, number in zip(parts, numbers, strict=True)
            ]
        )
    return rows


def _plain(rows: Sequence[list[Any]]) -> list[Any]:
    """Return single answers as such, so that a column of numbers stays one."""
    return [row[0] if len(row) == 1 else row for row in rows]
