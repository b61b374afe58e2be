"""Prediction files as columns: opening, decompressing within limits, and the reader for each kind of file."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
import tokenize
import warnings
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, cast

from wds_real.errors import CoverageError, PredictionsError
from wds_real.scoring.reading.arrays import read_npy, read_npz
from wds_real.scoring.reading.json_tables import read_json, read_json_lines
from wds_real.scoring.reading.parquet import read_parquet
from wds_real.scoring.reading.text import read_table
from wds_real.storage.files import OpenFile, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TextIO

    from wds_real.scoring.reading.spellings import Columns

__all__ = ["MAX_BYTES", "read_columns"]

MAX_BYTES = (
    2 << 30
)  # of a file, and of what it inflates to; 50,000 x 1,000 scores take 0.4 GB in float64, 1.3 GB as text

_TEXT_READERS: dict[str, Callable[[TextIO], Columns]] = {
    ".csv": lambda file: read_table(file, ","),
    ".tsv": lambda file: read_table(file, "\t"),
    ".txt": lambda file: read_table(file, ","),
    ".json": read_json,
    ".jsonl": read_json_lines,
}
_BINARY_READERS: dict[str, Callable[[IO[bytes], int], Columns]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".parquet": read_parquet,
}
_KINDS = (*_TEXT_READERS, *_BINARY_READERS, ".csv.gz and other text with .gz")
# The errors that NumPy, zipfile, pyarrow and csv raise for damaged files.
_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, TypeError, RecursionError, MemoryError, NotImplementedError, RuntimeError,
    SyntaxError, csv.Error, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


def read_columns(path: Path, *, max_bytes: int = MAX_BYTES) -> Columns:
    """Read a file into columns of equal length.

    Args:
        path: Its ending says its kind; text may be compressed by gzip.
        max_bytes: Largest file, and largest content after decompression.

    Raises:
        PredictionsError: the kind of file is unknown, or the file cannot be read or is too large.
        CoverageError: a JSON object has a name twice.
    """
    try:
        with _opened(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of old or damaged headers
            columns = _read(file, path, max_bytes)
    except CoverageError as error:
        raise CoverageError(f"{path}: {error}", doubled=error.doubled) from error
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise PredictionsError(f"{path}: no such file.") from error
    except MemoryError as error:
        raise PredictionsError(f"{path}: out of memory. Keep names and predictions only.") from error
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise PredictionsError(f"{path}: {reason_of(error)}") from error
        kind = path.suffix[1:].upper()
        raise PredictionsError(f"{path}: cannot be read as {kind}: {_first_line(error)}") from error
    if not columns:
        raise PredictionsError(f"{path}: the file is empty.")
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name[:40]} {len(column):,}" for name, column in list(columns.items())[:8])
        raise PredictionsError(f"{path}: columns of different lengths: {lengths}.")
    return columns


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path.is_dir():
        raise PredictionsError(f"this is a folder. Give the prediction file in it, such as {path / 'predictions.csv'}.")
    owned = OpenFile.open(path)  # refuses pipes and devices
    with open(owned.descriptor, "rb", closefd=False) as file:
        yield file


def _read(file: IO[bytes], path: Path, max_bytes: int) -> Columns:
    ending = path.suffix.lower()
    num_bytes = os.fstat(file.fileno()).st_size
    if num_bytes > max_bytes:
        raise PredictionsError(f"the file has {num_bytes:,} bytes, expected at most {max_bytes:,}.")
    if ending in _BINARY_READERS:
        return _BINARY_READERS[ending](file, max_bytes)
    plain: IO[bytes] = file
    if ending == ".gz":
        plain = cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        ending = path.with_suffix("").suffix.lower()
    if ending not in _TEXT_READERS:
        raise PredictionsError(f"unknown kind of file. Expected one of {', '.join(_KINDS)}.")
    bounded = io.BufferedReader(_Bounded(plain, max_bytes), 1 << 20)
    is_utf16 = bounded.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
    with io.TextIOWrapper(bounded, "utf-16" if is_utf16 else "utf-8-sig", newline="") as text:
        return _TEXT_READERS[ending](text)


class _Bounded(io.RawIOBase):
    """Reads a file, and raises once it has given more than so many bytes."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        super().__init__()
        self._file = file
        self._max_bytes = max_bytes
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        self._given += len(data)
        if self._given > self._max_bytes:
            raise PredictionsError(
                f"more than {self._max_bytes:,} bytes when inflated. Keep names and predictions only."
            )
        buffer[: len(data)] = data
        return len(data)


def _first_line(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start:,} of a block is not text in UTF-8."
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
