"""Results as tables: columns of equal length, and the CSV or Parquet file of them."""

from __future__ import annotations

import csv
import importlib
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wds_real.errors import PredictionsError
from wds_real.labels import classes
from wds_real.labels.class_names import NUM_CLASSES
from wds_real.scoring.predictions import parquet_module

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wds_real.scoring.breakdown import Breakdown

__all__ = ["class_columns", "class_titles", "write_table"]


def class_columns(breakdown: Breakdown) -> dict[str, Sequence[Any]]:
    """Return ReaL top-1 of all 1,000 classes: one row a class."""
    correct, total = breakdown.class_correct.tolist(), breakdown.class_total.tolist()
    return {**class_titles(range(NUM_CLASSES)), **_counts(correct, total)}


def write_table(path: str | Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns to a CSV or Parquet file; an existing file is replaced.

    Raises:
        PredictionsError: the name has another ending, the file cannot be written, or pyarrow is not installed.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise PredictionsError(f"{path}: tables are written as CSV or Parquet. Expected a name with .csv or .parquet.")
    data = _csv(columns) if kind == ".csv" else _parquet(columns)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be written: {error.strerror or error}. Choose another file.") from error


def class_titles(labels: Sequence[int]) -> dict[str, Sequence[Any]]:
    """Return the columns that say which classes these are."""
    names = classes()
    return {
        "class": list(labels),
        "wnid": [names[label].wnid for label in labels],
        "name": [names[label].name for label in labels],
    }


def _counts(correct: Sequence[int], total: Sequence[int]) -> dict[str, Sequence[Any]]:
    percent = [round(100 * right / of, 4) if of else math.nan for right, of in zip(correct, total, strict=True)]
    return {"correct": correct, "total": total, "percent": percent}


def _csv(columns: Mapping[str, Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow("" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row)
    return text.getvalue().encode("utf-8")


def _parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    parquet, file = parquet_module(), io.BytesIO()
    parquet.write_table(importlib.import_module("pyarrow").table(dict(columns)), file)
    return file.getvalue()
