"""Prediction files as columns: decompressing within limits, and the reader for each kind of file."""

from __future__ import annotations

import csv
import gzip
import io
import tokenize
import warnings
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, cast

from wds_real.errors import CoverageError, PredictionsError
from wds_real.scoring.reading.arrays import read_npy, read_npz
from wds_real.scoring.reading.json_tables import read_json, read_json_lines
from wds_real.scoring.reading.parquet import read_parquet
from wds_real.scoring.reading.places import check_place, is_remote, name_of, opened, shown
from wds_real.scoring.reading.text import read_table
from wds_real.storage.files import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import TextIO

    from wds_real.scoring.reading.spellings import Columns

__all__ = ["KINDS", "MAX_BYTES", "is_prediction_name", "read_columns"]

# Largest file, and largest content after decompression; 50,000 x 1,000 scores take 0.4 GB in float64, 1.3 GB as text.
MAX_BYTES = 2 << 30

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
KINDS = (*_TEXT_READERS, *_BINARY_READERS, ".csv.gz and other text with .gz")
# The errors that NumPy, zipfile, pyarrow and csv raise for damaged files.
_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, TypeError, RecursionError, MemoryError, NotImplementedError, RuntimeError,
    SyntaxError, csv.Error, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


def is_prediction_name(name: str) -> bool:
    """Return whether the end of a file's name is that of a kind of file that is read.

    >>> is_prediction_name("a.csv.gz"), is_prediction_name("A.NPZ"), is_prediction_name("run.v2")
    (True, True, False)
    """
    plain = name.lower().removesuffix(".gz")
    return PurePosixPath(plain).suffix in _TEXT_READERS or PurePosixPath(name.lower()).suffix in _BINARY_READERS


def read_columns(
    place: str | Path, *, storage_options: Mapping[str, str] | None = None, max_bytes: int = MAX_BYTES
) -> Columns:
    """Read a file into columns of equal length.

    Args:
        place: A path or URL, whose ending says the kind of file; text may be compressed by gzip.
        storage_options: For a URL, as for `wds_real.open_store`; a path takes none.
        max_bytes: Largest file, and largest content after decompression; a larger one is not downloaded.

    Raises:
        PredictionsError: the kind of file is unknown, or the file cannot be read or is too large.
        CoverageError: a JSON object has a name twice.
        StoreError: the file at a URL is missing, too large or cannot be read.
    """
    check_place(place, storage_options)
    where, name = shown(place), PurePosixPath(name_of(place))
    try:
        if is_remote(place):
            _reader_of(name)  # before anything is downloaded
        with (
            opened(place, storage_options=storage_options, max_bytes=max_bytes) as file,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # NumPy warns of old or damaged headers
            columns = _reader_of(name)(file, max_bytes)
    except CoverageError as error:
        raise CoverageError(f"{where}: {error}", doubled=error.doubled) from error
    except PredictionsError as error:
        raise PredictionsError(f"{where}: {error}") from error
    except FileNotFoundError as error:
        raise PredictionsError(f"{where}: no such file.") from error
    except MemoryError as error:
        raise PredictionsError(f"{where}: out of memory. Keep names and predictions only.") from error
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise PredictionsError(f"{where}: {reason_of(error)}") from error
        raise PredictionsError(f"{where}: cannot be read as {name.suffix[1:].upper()}: {_first_line(error)}") from error
    if not columns:
        raise PredictionsError(f"{where}: the file is empty.")
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name[:40]} {len(column):,}" for name, column in list(columns.items())[:8])
        raise PredictionsError(f"{where}: columns of different lengths: {lengths}.")
    return columns


def _reader_of(name: PurePosixPath) -> Callable[[IO[bytes], int], Columns]:
    """Return the function that reads a file of this name, with the largest number of bytes as its second argument."""
    ending = name.suffix.lower()
    if ending in _BINARY_READERS:
        return _BINARY_READERS[ending]
    is_compressed = ending == ".gz"
    if is_compressed:
        ending = name.with_suffix("").suffix.lower()
    if ending not in _TEXT_READERS:
        raise PredictionsError(f"unknown kind of file. Expected one of {', '.join(KINDS)}.")
    reader = _TEXT_READERS[ending]

    def read(file: IO[bytes], max_bytes: int) -> Columns:
        plain = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if is_compressed else file
        bounded = io.BufferedReader(_Bounded(plain, max_bytes), 1 << 20)
        is_utf16 = bounded.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
        with io.TextIOWrapper(bounded, "utf-16" if is_utf16 else "utf-8-sig", newline="") as text:
            return reader(text)

    return read


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
