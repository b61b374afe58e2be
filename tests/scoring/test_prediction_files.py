"""Prediction files as columns: one content gives the same columns in every kind of file."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wds_real.errors import CoverageError, PredictionsError
from wds_real.scoring.prediction_files import read_columns

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS: dict[str, list[Any]] = {"file_name": ["a.JPEG", "b.JPEG"], "top1": [3, 4]}
RECORDS = [{"file_name": "a.JPEG", "top1": 3}, {"file_name": "b.JPEG", "Top1": 4}]


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", b"file_name,Top1\na.JPEG,3\nb.JPEG,4\n"),
        ("p.csv", b"file_name;top1\r\na.JPEG;3\r\nb.JPEG;4"),
        ("p.tsv", b"\xef\xbb\xbffile_name\ttop1\n\na.JPEG\t3\nb.JPEG\t4\n"),
        ("p.json", json.dumps(RECORDS).encode()),
        ("p.jsonl", b"".join(f"{json.dumps(record)}\n\n".encode() for record in RECORDS)),
        ("P.NPZ", npz(file_name=COLUMNS["file_name"], top1=COLUMNS["top1"])),
    ],
)
def test_every_kind_of_file_gives_the_same_columns(tmp_path: Path, name: str, content: bytes) -> None:
    """Names of columns are in lower case, in the order of the file; text files give text."""
    (tmp_path / name).write_bytes(content)
    found = read_columns(tmp_path / name)
    assert list(found) == list(COLUMNS)
    assert {column: list(map(str, values)) for column, values in found.items()} == {
        column: list(map(str, values)) for column, values in COLUMNS.items()
    }


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("p.csv", b"1,2\n3,4\n", {"0": ["1", "3"], "1": ["2", "4"]}),
        ("p.json", b"[5, 6]", {"0": [5, 6]}),
        ("p.json", b'{"a": 5}', {"file_name": ["a"], "prediction": [5]}),
        ("p.npz", npz(arr_0=[7]), {"0": [7]}),
    ],
)
def test_columns_without_names_are_numbered(
    tmp_path: Path, name: str, content: bytes, columns: dict[str, list[Any]]
) -> None:
    """A table without a header and a bare list have numbered columns; a mapping is names and predictions."""
    (tmp_path / name).write_bytes(content)
    assert {column: list(values) for column, values in read_columns(tmp_path / name).items()} == columns


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("p.xlsx", b"", PredictionsError, "unknown kind of file"),
        ("p.csv", b"", PredictionsError, "empty"),
        ("p.csv", b"a,a\nb,1\n", PredictionsError, "two columns are called 'a'"),
        ("p.csv", b"name,x\na,1\nb\n", PredictionsError, r"row 3 \(b\) has 1 cells"),
        ("p.json", b'{"a": 1, "a": 2}', CoverageError, "1 image"),
        ("p.npz", npz(a=[1], b=[1, 2]), PredictionsError, "different lengths: a 1, b 2"),
        ("p.npz", b"PK junk", PredictionsError, "cannot be read as NPZ"),
    ],
)
def test_what_is_no_table_is_refused_with_its_path(
    tmp_path: Path, name: str, content: bytes, error: type[Exception], words: str
) -> None:
    """The message starts with the path, and says what is wrong."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=rf"{name}: .*{words}"):
        read_columns(tmp_path / name)
