"""Prediction files in tests: content of each kind as bytes, and what is read from it."""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wds_real.labels import NUM_IMAGES, bundled
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.predictions import TOP, Predictions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["CERTAIN", "FORMATS", "KEYS", "NAMES", "ORIGINAL", "ROW", "made", "needs_pyarrow", "npy", "npz", "parquet",
           "read", "same"]  # fmt: skip

KEYS = tuple(f"ILSVRC2012_val_{number:08d}" for number in range(1, NUM_IMAGES + 1))
NAMES = tuple(f"{key}.JPEG" for key in KEYS)
ORIGINAL = bundled().original
ROW = (65, 4, 3, 2, 1)

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
FORMATS = [pytest.param("csv"), pytest.param("npz"), pytest.param("parquet", marks=needs_pyarrow)]


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array))
    return file.getvalue()


def parquet(**columns: Any) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    file = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), file)
    return file.getvalue()


def read(folder: Path, name: str, content: str | bytes) -> Predictions:
    """Write a prediction file and read it."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_predictions(path)


def same(one: Predictions, other: Predictions) -> bool:
    return (
        one.keys == other.keys
        and np.array_equal(one.classes, other.classes)
        and np.array_equal(one.probabilities, other.probabilities, equal_nan=True)
    )


def made(keys: Iterable[str], rows: Any, probabilities: Any = None) -> Predictions:
    """Return predictions of these keys, with unknown probabilities unless they are given."""
    table = np.array(rows, dtype=np.int64).reshape(-1, TOP)
    values = np.full(table.shape, np.nan) if probabilities is None else probabilities
    return Predictions(tuple(keys), table, np.asarray(values, dtype=np.float32).reshape(table.shape))


CERTAIN = made(KEYS[:1], [ROW], [[1.0, 0.0, 0.0, 0.0, 0.0]])
