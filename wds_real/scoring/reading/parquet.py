"""Parquet files, read in pieces so that their size is known as they grow."""

from __future__ import annotations

import importlib
from typing import IO, TYPE_CHECKING, Any

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_CLASSES
from wds_real.scoring.predictions import parquet_module
from wds_real.scoring.reading.json_tables import MAX_VALUES
from wds_real.scoring.reading.spellings import check_distinct
from wds_real.scoring.reading.text import MAX_ROWS

if TYPE_CHECKING:
    from wds_real.scoring.reading.spellings import Columns

__all__ = ["read_parquet"]

_ROWS_AT_ONCE = 256


def read_parquet(file: IO[bytes], max_bytes: int) -> Columns:
    """Read the columns; lists of equal length and numbers are arrays.

    Raises:
        PredictionsError: pyarrow is not installed, a column's name occurs twice, or the table needs more than
            `max_bytes`.
    """
    table = parquet_module().ParquetFile(file)
    metadata = table.metadata
    names = list(table.schema_arrow.names)
    check_distinct([name.lower() for name in names])
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    if metadata.num_rows > MAX_ROWS or sum(chunk.num_values for chunk in chunks) > MAX_VALUES:
        raise PredictionsError(
            f"more than {MAX_ROWS:,} rows or {MAX_VALUES:,} values. Expected one row for each image."
        )
    batches, num_bytes = [], 0
    if sum(group.total_byte_size for group in groups) > max_bytes:
        raise PredictionsError(_too_large(max_bytes))
    for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE):
        num_bytes += batch.nbytes
        if num_bytes > max_bytes:
            raise PredictionsError(_too_large(max_bytes))
        batches.append(batch)
    content = importlib.import_module("pyarrow").Table.from_batches(batches, table.schema_arrow)
    are_scores = len(names) >= NUM_CLASSES
    return {name.lower(): _column(content.column(name), is_score=are_scores) for name in names}


def _column(column: Any, *, is_score: bool) -> Any:  # noqa: ANN401 -- of an optional package
    """Return scores, from one of 1,000 columns or from lists of 1,000, as an array; any other column as a list."""
    types = importlib.import_module("pyarrow.types")
    if is_score and types.is_floating(column.type) and not column.null_count:
        return column.to_numpy()
    if types.is_list(column.type) and types.is_floating(column.type.value_type) and not column.null_count:
        values = column.combine_chunks().flatten()
        if len(values) == len(column) * NUM_CLASSES and len(column) and not values.null_count:
            lengths = {len(row) for row in column}
            if lengths == {NUM_CLASSES}:
                return values.to_numpy(zero_copy_only=False).reshape(-1, NUM_CLASSES)
    return column.to_pylist()


def _too_large(max_bytes: int) -> str:
    return f"the table needs more than {max_bytes:,} bytes when inflated. Keep names and predictions only."
