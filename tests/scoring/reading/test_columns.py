"""Prediction files as columns: one content gives the same columns in every kind of file, within limits."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import signal
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.prediction_files import CERTAIN, KEYS, needs_pyarrow, npy, npz, parquet

from wds_real.errors import CoverageError, PredictionsError
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.reading.columns import MAX_BYTES, read_columns

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS: dict[str, list[Any]] = {"file_name": ["a.JPEG", "b.JPEG"], "top1": [3, 4]}
RECORDS = [{"file_name": "a.JPEG", "top1": 3}, {"file_name": "b.JPEG", "Top1": 4}]
CSV = b"file_name,Top1\na.JPEG,3\nb.JPEG,4\n"
LOGITS = 50_000 * 1000 * 8  # bytes in float64


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", CSV),
        ("p.csv.gz", gzip.compress(CSV, mtime=0)),
        ("p.csv", b"file_name;top1\r\na.JPEG;3\r\nb.JPEG;4"),
        ("p.csv", CSV.decode().encode("utf-16")),
        ("p.tsv", b"\xef\xbb\xbffile_name\ttop1\n\na.JPEG\t3\nb.JPEG\t4\n"),
        ("p.txt", b"# made by a tool\nfile_name top1\na.JPEG   3\nb.JPEG   4\n"),
        ("p.json", json.dumps(RECORDS).encode()),
        ("p.json.gz", gzip.compress(json.dumps(RECORDS).encode(), mtime=0)),
        ("p.jsonl", b"".join(f"{json.dumps(record)}\n\n".encode() for record in RECORDS)),
        ("P.NPZ", npz(file_name=COLUMNS["file_name"], top1=COLUMNS["top1"])),
        pytest.param("p.parquet", b"", marks=needs_pyarrow),
    ],
)
def test_every_kind_of_file_gives_the_same_columns(tmp_path: Path, name: str, content: bytes) -> None:
    """Names of columns are in lower case, in the order of the file; text files give text."""
    (tmp_path / name).write_bytes(content or parquet(file_name=COLUMNS["file_name"], Top1=COLUMNS["top1"]))
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
        ("p.gz", b"", PredictionsError, "unknown kind of file"),
        ("p.npz.gz", b"", PredictionsError, "unknown kind of file"),
        ("p.csv", b"", PredictionsError, "empty"),
        ("p.csv", b"a,a\nb,1\n", PredictionsError, "two columns are called 'a'"),
        ("p.csv", b"name,x\na,1\nb\n", PredictionsError, r"row 3 \(b\) has 1 cells"),
        ("p.csv.gz", gzip.compress(CSV, mtime=0)[:-9], PredictionsError, "cannot be read as GZ"),
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


@pytest.mark.parametrize("name", ["p.csv", "p.npz", "p.json"])
def test_a_pipe_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """Nothing waits for a writer that may never come."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(PredictionsError, match="is a named pipe, expected a regular file"):
        read_columns(tmp_path / name)


# --- limits -----------------------------------------------------------------------------------------------------------


def bomb(kind: str) -> bytes:
    """Return a small file that inflates to 3 GB, or says that it does."""
    if kind == "npz":  # the header of an array of zeros, and a directory of the archive that agrees with it
        shape = 3_000_000_000 // 8
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (shape,)})
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("pred.npy", header.getvalue() + bytes(1 << 20))
        data = bytearray(file.getvalue())
        place = data.index(b"PK\x01\x02") + 24  # the inflated size in the central directory
        data[place : place + 4] = (3_000_000_000).to_bytes(4, "little")
        return bytes(data)
    line = b"1\n" if kind == "csv.gz" else b"[1],"
    block = gzip.compress(line * ((10 << 20) // len(line)), 1)
    return block * 300  # members of one gzip file


@pytest.mark.parametrize("kind", ["npz", "csv.gz", "json.gz"])
def test_a_bomb_takes_no_more_memory_than_the_limit(tmp_path: Path, kind: str) -> None:
    """With an address space of 4 GB, 3 GB of zeros in a small file are refused for their size, in one line."""
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(bomb(kind))
    assert path.stat().st_size < 20 << 20

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

    done = subprocess.run(
        [sys.executable, "-m", "wds_real", "score", path],
        check=False, capture_output=True, text=True, preexec_fn=limit,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "bytes when inflated" in done.stderr or "more than 1,000,000 rows" in done.stderr


def test_the_limits_leave_room_for_scores_in_float64() -> None:
    """A file may be five times as large as 50,000 x 1,000 scores."""
    assert MAX_BYTES > 5 * LOGITS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", b"1\n" * 600),
        ("p.csv.gz", gzip.compress(b"1\n" * 600, mtime=0)),
        ("p.jsonl.gz", gzip.compress(b"1\n" * 600, mtime=0)),
        ("p.npy", npy(np.zeros(200))),
        ("p.npz", npz(key=np.zeros(100, "U1"), pred=np.zeros(100))),
        pytest.param("p.parquet", b"", marks=needs_pyarrow),
    ],
)
def test_a_file_above_the_limit_is_refused_with_the_limit(tmp_path: Path, name: str, content: bytes) -> None:
    """What is stored and what it inflates to count, in every kind of file."""
    (tmp_path / name).write_bytes(content or parquet(key=["a" * 50] * 100))
    read_columns(tmp_path / name)
    with pytest.raises(PredictionsError, match=r"(at most|more than) 1,000( bytes|\.)"):
        read_columns(tmp_path / name, max_bytes=1000)


# --- any bytes --------------------------------------------------------------------------------------------------------

KINDS = ["csv", "csv.gz", "tsv", "txt", "json", "jsonl", "npy", "npz", pytest.param("parquet", marks=needs_pyarrow)]
VALID = {
    "csv": CERTAIN.encode(),
    "csv.gz": gzip.compress(CERTAIN.encode()),
    "tsv": CERTAIN.encode().replace(b",", b"\t"),
    "txt": f"# names\n{KEYS[0]} 65\n{KEYS[1]} 4\n".encode(),
    "json": json.dumps({"file_name": {"0": KEYS[0]}, "pred": {"0": 65}}).encode(),
    "jsonl": json.dumps({"key": KEYS[0], "top5": [65, 1]}).encode(),
    "npy": npy(np.zeros((3, 5))),
    "npz": npz(key=np.array([KEYS[0].encode()]), classes=[[65, 1]]),
}


def read_or_refuse(folder: Path, kind: str, content: bytes) -> None:
    path = folder / f"any.{kind}"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        found = read_predictions(path)
    except (PredictionsError, CoverageError) as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 -- either outcome is right
        assert len(str(error)) < 2000  # noqa: PT017
        assert "pickle" not in str(error)  # noqa: PT017
    else:
        assert list(found.keys) == sorted(set(found.keys))
        assert found.classes.shape == found.probabilities.shape == (len(found), 5)
        assert bool(((found.classes >= -1) & (found.classes < 1000)).all())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500_000  # kB, far more than a small file needs


def read_or_refuse_apart(folder: Path, kind: str, content: bytes) -> None:
    """As `read_or_refuse`, but Parquet in a child process: some footers make pyarrow abort, not raise."""
    if kind != "parquet":
        read_or_refuse(folder, kind, content)
        return
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        code = 1
        try:
            read_or_refuse(folder, kind, content)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGABRT), content


def damaged(draw: st.DrawFn, kind: str) -> bytes:
    content = bytearray(VALID[kind] if kind in VALID else CERTAIN.encode("parquet"))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 1, 1, 4, len(content)]))
        content[place : place + length] = draw(st.binary(max_size=6))
    return bytes(content)


@st.composite
def contents(draw: st.DrawFn, kind: str) -> bytes:
    """Draw a file of a kind: any bytes, any text, or a valid one that was damaged; gzip around any of them."""
    words = st.sampled_from([KEYS[0], "1", "n01440764", ",", "\n", "#", '"', "[", "]", "{", "}", ":", "0", "pred", " "])
    how = draw(st.integers(0, 3))
    if how == 0:
        return draw(st.binary(max_size=200))
    if how == 1:
        content = "".join(draw(st.lists(words, max_size=40))).encode()
        return gzip.compress(content, mtime=0) if kind.endswith("gz") else content
    return damaged(draw, kind)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60)
def test_any_bytes_are_predictions_or_one_of_two_errors(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    """Whatever a file holds, reading it gives valid predictions, or an error with its path, in bounded memory."""
    read_or_refuse_apart(tmp_path_factory.getbasetemp(), kind, data.draw(contents(kind)))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=3000)
def test_many_bytes_are_predictions_or_one_of_two_errors(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    """The same with 3,000 files of each kind."""
    read_or_refuse_apart(tmp_path_factory.getbasetemp(), kind, data.draw(contents(kind)))
