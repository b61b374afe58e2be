"""Reading predictions from files, mappings and arrays: columns, what they hold, and one checked table.

The steps are in `wds_real.scoring.reading`. Runs without torch.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from wds_real.errors import CoverageError, PredictionsError, first_few
from wds_real.labels import NUM_CLASSES, NUM_IMAGES
from wds_real.labels.class_maps import choose_class_map
from wds_real.scoring.predictions import Predictions
from wds_real.scoring.reading.class_numbers import mapped_numbers, mapped_scores
from wds_real.scoring.reading.columns import read_columns
from wds_real.scoring.reading.folders import find_predictions
from wds_real.scoring.reading.objects import columns_of
from wds_real.scoring.reading.order import find_order, given_order, is_counted, is_truth, key_of_image, keys_of
from wds_real.scoring.reading.places import shown
from wds_real.scoring.reading.roles import find_roles
from wds_real.scoring.reading.spellings import INDEX_WORDS, word
from wds_real.scoring.reading.values import classes_of, probabilities_of, whole_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Sized

    from numpy.typing import NDArray

    from wds_real.labels.class_maps import ClassMap
    from wds_real.scoring.reading.roles import Roles
    from wds_real.scoring.reading.spellings import Column, Columns

__all__ = ["predictions_in", "read_predictions"]

_MANY = 1000  # images; no model predicts the original label of each of so many


def read_predictions(
    source: str | Path | Sized,
    *,
    name_column: str | None = None,
    class_column: str | None = None,
    order: str | None = None,
    class_map: str | Path | ClassMap | None = None,
    background: Literal["first", "last"] | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Predictions:
    """Read and check predictions from a file, a mapping, a table, a tensor or an array.

    The names are in the column ``file_name``, ``filename``, ``key``, ``image``, ``id`` or similar, else in any column
    that holds names of validation images. The classes are in ``top1`` to ``top5`` (or ``index_0`` ...), else in
    ``prediction``, ``pred``, ``logits`` or similar, else in ``class``, ``label``, ``output`` or similar, if no other
    column could hold them. A file without a header has the name in the first column, or holds only the 50,000
    predictions. Anything else is an error.

    Args:
        source: A path or URL ending in ``.csv``, ``.tsv``, ``.txt``, ``.json``, ``.jsonl`` (also with ``.gz``),
            ``.npy``, ``.npz`` or ``.parquet``, or that of the output folder of a run; a mapping from file name or key
            to a prediction; a table of pandas or polars; or an array or tensor of the 50,000 predictions in the order
            of the sorted file names. One prediction is a class index 0..999, a wnid, a name that only one class has, up
            to five of them (best first), or 1,000 scores.
        name_column: The column of names, if it has another name.
        class_column: The column of predictions, if it has another name, or if several columns could be.
        order: The order of all 50,000 rows, whose names are then not used: ``keys`` (sorted file names),
            ``imagefolder`` (class folders, then file names) or another one of `wds_real.scoring.reading.order.ORDERS`.
            None means by the names; without names, sorted file names, unless the original labels prove class folders.
        class_map: Which output of the model is which class, if the numbers or scores are not of the 1,000 classes in
            their order: a file with one wnid or class index a line, or a `ClassMap`.
        background: Whether the first or the last of 1,001 outputs is the background.
        storage_options: For a URL, as for `wds_real.open_store`; a path takes none.

    Raises:
        ValueError: both `class_map` and `background` are given.
        SourceError: the class map is not valid.
        PredictionsError: the file cannot be read or is too large, its columns are not as above, or a class is unknown.
        CoverageError: a name occurs more than once.
        StoreError: the file at a URL is missing, too large or cannot be read.
    """
    mapping = choose_class_map(class_map, background)
    if isinstance(source, (str, Path)):
        source = find_predictions(source, storage_options=storage_options)
        columns, where = read_columns(source, storage_options=storage_options), shown(source)
    else:
        columns, where = columns_of(source)
    return predictions_in(
        columns, where, name_column=name_column, class_column=class_column, order=order, class_map=mapping
    )


def predictions_in(
    columns: Columns,
    where: str,
    *,
    name_column: str | None = None,
    class_column: str | None = None,
    order: str | None = None,
    class_map: ClassMap | None = None,
) -> Predictions:
    """Check the predictions in columns that were read; see `read_predictions`.

    Args:
        columns: By name.
        where: Where they were read, for messages and for `Predictions.source`.
        name_column: As for `read_predictions`.
        class_column: The same.
        order: The same.
        class_map: Which output is which class, or None for the 1,000 classes in their order.

    Raises:
        PredictionsError: the columns are not as expected, or a class is unknown.
        CoverageError: a name occurs more than once.
    """
    try:
        if class_map is None:
            roles = find_roles(columns, name_column=name_column, class_column=class_column)
            return _predictions(columns, roles, where, order)
        columns, mapped = mapped_scores(columns, class_map)
        roles = find_roles(columns, name_column=name_column, class_column=class_column)
        lost = 0
        if not mapped.issuperset(roles.classes):
            columns, roles, lost = mapped_numbers(columns, roles, class_map)
        return _said(_predictions(columns, roles, where, order), class_map, lost)
    except CoverageError as error:
        raise CoverageError(f"{where}: {error}", doubled=error.doubled) from error
    except PredictionsError as error:
        raise PredictionsError(f"{where}: {error}") from error


def _said(predictions: Predictions, class_map: ClassMap, lost: int) -> Predictions:
    """Return the predictions with the class map in `origin`, and a note about the answers that it left out."""
    said = " ".join(f"{name} {value}" for name, value in class_map.description.items() if name != "sha256")
    notes = predictions.notes
    if lost:
        note = f"{lost:,} rows hold answers that are none of the {NUM_CLASSES:,} classes; the next best ones count."
        notes = (note, *notes)
    return replace(
        predictions, origin=f"{predictions.origin} of {class_map.num_outputs:,} outputs ({said})", notes=notes
    )


def _predictions(columns: Columns, roles: Roles, where: str, order: str | None) -> Predictions:
    names, length = roles.names, len(columns[roles.classes[0]])
    given = None if order is None else given_order(order, length)
    has_names = given is None and names is not None and not _are_rows(names, columns[names], length)
    keys = keys_of(columns[names]) if has_names and names is not None else None
    if keys is None and given is None:
        _check_rows(columns, roles, length)
    table = classes_of(columns, roles.classes, keys or [key_of_image(row) for row in range(length)])
    _check_ranking(table, roles)
    read_from = f"names from {names!r}"
    if keys is None:
        numbers = None if names is None else whole_numbers(columns[names])
        found = given or find_order(numbers, table[:, 0], [columns[name] for name in roles.others])
        keys, read_from = [key_of_image(image) for image in found.images.tolist()], found.said
    probabilities = probabilities_of(columns, len(keys))
    rows = sorted(range(len(keys)), key=keys.__getitem__)
    return Predictions(
        keys=tuple(keys[row] for row in rows),
        classes=table[rows],
        probabilities=probabilities[rows],
        source=where,
        origin=f"{read_from}, classes from {', '.join(map(repr, roles.classes))}",
        notes=_notes(table[:, 0], keys, roles),
    )


def _are_rows(name: str, names: Column, length: int) -> bool:
    """Return whether a column of names only counts the rows; then the images are found by their order."""
    return is_counted(names) and (length == NUM_IMAGES or word(name) in INDEX_WORDS)


def _check_rows(columns: Columns, roles: Roles, length: int) -> None:
    """Raise unless rows without names are one for each image, and no other column could hold the names."""
    unexplained = roles.others and not any(is_truth(columns[name], None) for name in roles.others)
    if roles.names is None and unexplained:
        raise PredictionsError(
            f"none of the columns {first_few(columns, count=8)} is known to hold the images' names. Call that "
            "column file_name, or use --name-column. Only a file that holds nothing but predictions needs no names."
        )
    if length != NUM_IMAGES:
        raise PredictionsError(
            f"{length:,} predictions without names. Expected {NUM_IMAGES:,} in the order of the sorted file names, or "
            "a name with each."
        )


def _check_ranking(table: NDArray[np.int64], roles: Roles) -> None:
    """Raise if columns that are ranked by their place alone hold a class twice in a row: one of them is something else.

    A table without column names may hold the truth beside the prediction; where the prediction is right they are equal.
    """
    if len(roles.classes) == 1 or len(roles.classes) == NUM_CLASSES or not all(map(str.isdigit, roles.classes)):
        return
    ordered = np.sort(table, axis=1)
    twice = np.flatnonzero(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1))
    if len(twice):
        raise PredictionsError(
            f"row {twice[0] + 1} gives the same class twice in columns {first_few(roles.classes, count=8)}: these are "
            f"not one model's {len(roles.classes)} best classes. Say which column holds the predictions: "
            f"--class-column {roles.classes[-1]} (class_column in Python)."
        )


def _notes(top1: NDArray[np.int64], keys: Sequence[str], roles: Roles) -> tuple[str, ...]:
    if len(keys) < _MANY or not is_truth(top1, keys):
        return ()
    note = (
        f"the classes in {roles.classes[0]!r} equal the original labels of all {len(keys):,} images. If this is the "
        "truth, name the column of predictions: --class-column."
    )
    return (note,)
