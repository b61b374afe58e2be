"""NPY and NPZ files; the size of every array is checked before memory is allocated for it."""

from __future__ import annotations

import math
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import PredictionsError, first_few
from wds_real.scoring.reading.text import MAX_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wds_real.scoring.reading.spellings import Columns

__all__ = ["read_npy", "read_npz"]

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of np.savez and np.savez_compressed
_ENCRYPTED = 0x1


def read_npy(file: IO[bytes], max_bytes: int) -> Columns:
    """Read an array as the column ``0``.

    Raises:
        PredictionsError: it is not an array, holds Python objects, or needs more than `max_bytes`.
    """
    num_bytes = file.seek(0, 2)
    file.seek(0)
    if zipfile.is_zipfile(file):
        raise PredictionsError("this is an NPZ file, not one array. Call it .npz.")
    file.seek(0)
    return {"0": _array(file, num_bytes, max_bytes, "the file")}


def read_npz(file: IO[bytes], max_bytes: int) -> Columns:
    """Read arrays as columns; a single array without a name becomes the column ``0``.

    Raises:
        PredictionsError: a member is not an array or is there twice, an array holds Python objects, or all arrays
            together need more than `max_bytes`.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_members(members)
        need = sum(member.file_size for member in members)
        if need > max_bytes:
            raise PredictionsError(
                _too_large(need, max_bytes, first_few([member.filename for member in members], count=8))
            )
        columns = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as data:
                columns[name.lower()] = _array(data, member.file_size, max_bytes, repr(name[:80]))
    return {"0" if name == "arr_0" and len(columns) == 1 else name: column for name, column in columns.items()}


def _check_members(members: Sequence[zipfile.ZipInfo]) -> None:
    seen = set[str]()
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            raise PredictionsError(f"member {name[:80]!r} is not an array. Expected what np.savez writes.")
        if name.lower() in seen:
            raise PredictionsError(f"two arrays are called {name[:80].lower()!r} when case is ignored.")
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _ZIP_METHODS:
            raise PredictionsError(f"{name[:80]!r} is encrypted or compressed in another way than np.savez does.")
        seen.add(name.lower())


def _array(file: IO[bytes], num_bytes: int, max_bytes: int, name: str) -> NDArray[Any]:
    """Return the array of a file, after a check of its header.

    Args:
        file: At the start of the array; readable from there again after ``seek(0)``.
        num_bytes: Of the file.
        max_bytes: Largest array.
        name: Of the array, for messages.
    """
    try:
        version = np.lib.format.read_magic(file)
        shape, _, dtype = _HEADER_READERS[version](file)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError) as error:
        raise PredictionsError(f"{name} is not an array that NumPy wrote.") from error
    if dtype.hasobject:
        raise PredictionsError(
            f"{name} holds Python objects, which are not loaded. Save numbers, or text with .astype(str)."
        )
    if not shape:
        raise PredictionsError(f"{name} is a single value, expected an array.")
    need = math.prod(shape) * dtype.itemsize
    if need > max_bytes:
        raise PredictionsError(_too_large(need, max_bytes, name))
    if shape[0] > MAX_ROWS:
        raise PredictionsError(f"{name} has more than {MAX_ROWS:,} rows. Expected one for each image.")
    if need != num_bytes - file.tell():
        raise PredictionsError(f"{name} needs {need:,} bytes, the file has {num_bytes - file.tell():,}. Copy it again.")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _too_large(need: int, max_bytes: int, name: str) -> str:
    return (
        f"{name}: {need:,} bytes when inflated, expected at most {max_bytes:,}. 50,000 x 1,000 scores in float64 take "
        "400,000,000."
    )
