"""NPY and NPZ: nothing is allocated before it is known to be an array of a size that the file has."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from support.prediction_files import npy, npz

from wds_real.errors import PredictionsError
from wds_real.scoring.reading.arrays import read_npy, read_npz

LIMIT = 1 << 30


def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with (
        pytest.warns(UserWarning, match="Duplicate")
        if len({name for name, _ in members}) < len(members)
        else _nothing(),
        zipfile.ZipFile(file, "w", method) as made,
    ):
        for name, data in members:
            made.writestr(name, data)
    return file.getvalue()


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def says(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    """Return an array's header that says this shape, and eight bytes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(8)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (archive(("pred.npy", npy([1])), ("Pred.npy", npy([2]))), "two arrays are called 'pred' when case is ignored"),
        (archive(("pred.npy", npy([1])), ("pred.npy", npy([2]))), "two arrays are called 'pred'"),
        (archive(("pred.npy", npy([1])), ("readme.txt", b"hello")), "member 'readme.txt' is not an array"),
        (archive(("pred.npy", b"hello")), "'pred' is not an array that NumPy wrote"),
        (archive(("pred.npy", b"\x93NUMPY\x09\x00")), "'pred' is not an array that NumPy wrote"),
        (archive(("pred.npy", npy([1])), method=zipfile.ZIP_LZMA), "compressed in another way than np.savez"),
        (npz(pred=np.array([{}], object)), "'pred' holds Python objects, which are not loaded"),
        (npz(pred=np.array(["a", None], object)), r"Save numbers, or text with \.astype\(str\)"),
        (npz(pred=5), "'pred' is a single value"),
        (archive(("pred.npy", says((10**6,)))), "'pred' needs 8,000,000 bytes, the file has 8"),
        (archive(("pred.npy", says((10**12,)))), "8,000,000,000,000 bytes when inflated, expected at most"),
        (archive(("pred.npy", says((10**6, 0, 10**6)))), "needs 0 bytes, the file has 8"),
        (npz(pred=np.zeros(1_000_001, np.int8)), "'pred' has more than 1,000,000 rows"),
    ],
)
def test_a_member_that_is_no_array_is_named(content: bytes, words: str) -> None:
    """One line of this package's own, without NumPy's advice to allow pickles, and without taking memory."""
    tracemalloc.start()
    with pytest.raises(PredictionsError, match=words) as caught:
        read_npz(io.BytesIO(content), LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "pickle" not in str(caught.value)
    assert peak < 20 << 20


def test_members_count_together() -> None:
    """Many arrays, each below the limit, are refused if their sum is above it."""
    content = npz(**{f"a{number}": np.zeros(100) for number in range(20)})
    assert len(read_npz(io.BytesIO(content), 20 * 1000)) == 20
    with pytest.raises(PredictionsError, match=r"a0.*\(20\): 18,560 bytes when inflated, expected at most 10,000"):
        read_npz(io.BytesIO(content), 10_000)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy([1])[:-1], "needs 8 bytes, the file has 7. Copy it again"),
        (npy([1]) + b"x", "needs 8 bytes, the file has 9"),
        (says((10**12,)), "8,000,000,000,000 bytes when inflated"),
        (npy(np.array([{}], object)), "Python objects"),
        (npz(pred=[1]), "this is an NPZ file, not one array"),
        (b"", "not an array that NumPy wrote"),
    ],
)
def test_an_array_has_the_size_that_its_header_says(content: bytes, words: str) -> None:
    """A cut file, a longer one and a header of terabytes are refused before memory is taken."""
    with pytest.raises(PredictionsError, match=words):
        read_npy(io.BytesIO(content), LIMIT)


def test_arrays_of_the_right_size_are_read() -> None:
    """In either order of axes, compressed or not."""
    table = np.arange(10).reshape(2, 5)
    assert np.array_equal(read_npy(io.BytesIO(npy(np.asfortranarray(table))), LIMIT)["0"], table)
    file = io.BytesIO()
    np.savez_compressed(file, Pred=table, key=np.array([b"a", b"b"]))
    found = read_npz(io.BytesIO(file.getvalue()), LIMIT)
    assert np.array_equal(found["pred"], table)
    assert list(found) == ["pred", "key"]
