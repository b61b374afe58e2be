"""Predictions in memory as columns: arrays, tensors, mappings, and the tables of pandas and polars.

None of these libraries is imported: their objects are recognised by their attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import PredictionsError
from wds_real.scoring.reading.spellings import check_distinct, is_image_name, is_known_word

if TYPE_CHECKING:
    from wds_real.scoring.reading.spellings import Columns

__all__ = ["columns_of"]

_SAMPLED_ROWS = 20


def columns_of(source: Any) -> tuple[Columns, str]:  # noqa: ANN401 -- whatever users have
    """Return the columns of a mapping, table, series, tensor, array or sequence, and its name for messages.

    A mapping from names to predictions becomes the columns ``file_name`` and ``prediction``; row labels become the
    column "", an array the column ``0``.

    Raises:
        PredictionsError: it is none of these, or its columns differ in length or have one name.
    """
    if isinstance(source, Mapping):
        return _of_mapping(source), "the mapping"
    if hasattr(source, "columns") and hasattr(source, "shape"):
        return _of_table(source), "the table"
    if hasattr(source, "index") and hasattr(source, "to_numpy"):  # a pandas Series
        return {**_labels_of(source, {}), "0": source.tolist()}, "the series"
    if hasattr(source, "detach"):
        return {"0": _of_tensor(source)}, "the tensor"
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise PredictionsError(
            f"a {type(source).__name__} cannot be read as predictions. Expected a path, a mapping from file names to "
            "classes, a table with columns, or an array of the 50,000."
        )
    return {"0": source}, "the array"


def _of_mapping(source: Mapping[Any, Any]) -> Columns:
    """Return the columns of a mapping: its own, as of an NPZ file, or its keys as names and its values."""
    are_columns = source and all(isinstance(name, str) and is_known_word(name) for name in source)
    if not are_columns:
        return {"file_name": list(source.keys()), "prediction": [_plain(value) for value in source.values()]}
    check_distinct([name.lower() for name in source])
    columns = {name.lower(): _plain(source[name]) for name in source}
    if len({np.shape(column)[:1] for column in columns.values()}) > 1 or not all(map(np.ndim, columns.values())):
        raise PredictionsError(f"the columns {', '.join(columns)} of the mapping have different lengths.")
    return columns


def _of_table(source: Any) -> Columns:  # noqa: ANN401 -- a DataFrame of pandas, polars or another library
    names = [str(name).lower() for name in source.columns]
    check_distinct(names)
    columns: Columns = {}
    for lowered, name in zip(names, source.columns, strict=True):
        column = source[name]
        columns[lowered] = column.tolist() if hasattr(column, "tolist") else column.to_list()
    return {**_labels_of(source, columns), **columns}


def _labels_of(source: Any, columns: Columns) -> Columns:  # noqa: ANN401 -- of pandas
    """Return the row labels of a table as a column, if they are the names of the images or no column is."""
    index = getattr(source, "index", None)
    if index is None or not hasattr(index, "tolist"):
        return {}
    labels, name = index.tolist(), str(index.name or "").lower()
    named = [column for column in columns.values() if any(map(is_image_name, column[:_SAMPLED_ROWS]))]
    if name in columns or (named and not any(map(is_image_name, labels[:_SAMPLED_ROWS]))):
        return {}
    return {name: labels}


def _plain(value: Any) -> Any:  # noqa: ANN401 -- whatever a mapping holds
    return _of_tensor(value) if hasattr(value, "detach") else value


def _of_tensor(tensor: Any) -> Any:  # noqa: ANN401 -- torch is not imported here
    """Return a tensor as an array; bfloat16, which NumPy lacks, as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
