"""The decoded pixels of a data set in one file, for loops that evaluate the same images again and again.

    FOLDER/NAME.pixels      NAME: first 32 hex digits of the SHA-256 of `description`

    header    4096 bytes    lines "wds_real.pixels 1", description, xxh3-128 (hex) of the two lines; then zeros;
                            description: canonical JSON of identity, num_samples and shape
    row       stride bytes  pixels + tail, then zeros up to a multiple of 64; row P lies at 4096 + P x stride
    tail      16 bytes      xxh3-128 of the pixels, seeded with P + the first 8 bytes (big-endian) of that SHA-256

The file has its full size from the start and is sparse: a row that was never written is a hole, whose tail is zero. A
row is believed only if its tail is right for its bytes and its place, so a hole, a torn row, or a row of another place
or file is never taken for pixels. Processes therefore share the file without locks, and a kill costs a row a thread.

Rows are read and written by position (preadv, pwrite), not through a memory map. Where the file has been cut or the
disk is full, a call returns an error; touching a map there kills the process with SIGBUS. The page cache holds the rows
once for all processes of a node either way.

Nothing is evicted: the full size is known beforehand, and a disk without room for it is refused. Runs without torch.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import operator
import os
import shutil
import stat
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from wds_real.errors import StoreError
from wds_real.storage.files import OpenFile, lock, os_errors_as, write_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

__all__ = ["PixelCache", "cache_size"]

_LOG = logging.getLogger(__name__)
_MAGIC = b"wds_real.pixels 1\n"
_HEADER_BYTES = 4096
_HOLE = bytes(16)
_BLOCK_BYTES = 512  # the unit of st_blocks
_SEEDS = 1 << 64
_ATTEMPTS = 10  # each one lost means that another process made or removed the file in between


def cache_size(num_samples: int, *, shape: tuple[int, ...]) -> int:
    """Return the size in bytes of the file that holds all rows.

    >>> cache_size(50_000, shape=(224, 224, 3))
    7529604096
    """
    return _HEADER_BYTES + num_samples * _stride(shape)


class PixelCache:
    """One row of pixels a sample, uint8 of `shape`; opened, or made if need be, on construction.

    Threads and forked processes may share it. A pickled copy opens the file anew by its path. An attempt to write that
    the system refuses is logged once and ends the writing, not the reading: the cache then only is less of a help.

    Args:
        folder: Where the file lies; made if need be.
        identity: JSON-ready facts that decide the pixels: data set digest, transform, versions of decoder and resizer.
            With `num_samples` and `shape` they decide the file's name, so other facts mean another file.
        num_samples: Rows, one for each sample of the whole data set.
        shape: Of the pixels of one sample.
        num_rows: How many rows this run will want to be there, for which the disk must have room; None means all.

    Attributes:
        path: The file, absolute.
        num_bytes: Full size of the file; it takes less on the disk until all rows are written.
        num_samples: As given.
        shape: As given.

    Raises:
        StoreError: there is no file and none can be made, a damaged one cannot be removed, or the disk lacks the room
            for the rows still to be written.
        ValueError: num_samples, shape or num_rows is impossible, or identity takes more room than the header has.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        identity: dict[str, Any],
        num_samples: int,
        shape: tuple[int, ...],
        num_rows: int | None = None,
    ) -> None:
        shape = tuple(map(int, shape))
        wanted = num_samples if num_rows is None else num_rows
        if not 0 <= wanted <= num_samples or min(shape, default=0) < 1:
            raise ValueError(
                f"num_samples is {num_samples}, num_rows {num_rows}, shape {shape}: expected num_rows in "
                "[0, num_samples] and lengths of at least 1."
            )
        description = _canonical({"identity": identity, "num_samples": num_samples, "shape": shape})
        digest = hashlib.sha256(description).digest()
        self.path = Path(folder).absolute() / f"{digest[:16].hex()}.pixels"
        self.num_bytes = cache_size(num_samples, shape=shape)
        self.num_samples = num_samples
        self.shape = shape
        self._description = description
        self._seed = int.from_bytes(digest[:8], "big")
        self._stride = _stride(shape)
        self._row_bytes = _row_bytes(shape)
        # Locks that are taken once and never given back: nobody waits for them, so a fork may come at any moment.
        self._read_failed, self._write_failed = threading.Lock(), threading.Lock()
        num_wanted_bytes = cache_size(wanted, shape=shape)
        self._file: OpenFile | None
        self._read_only_reason: str | None  # None if the file can be written
        self._file, self._read_only_reason = _open(self.path, _header(description), self.num_bytes, num_wanted_bytes)

    def read(self, position: int, out: NDArray[np.uint8]) -> bool:
        """Copy the row of `position` into `out` and return True if it is there and right.

        Args:
            position: In the whole data set.
            out: uint8 of `shape`, C-contiguous; holds anything if the answer is False.

        Raises:
            ValueError: no such position, `out` is of another form, or the cache is closed.
            BufferError: `out` may not be written.
        """
        file, offset = self._opened(), self._offset(position, out)
        tail = bytearray(len(_HOLE))
        try:
            num_bytes = os.preadv(file.descriptor, (out.data, tail), offset)
        except OSError as error:
            if self._read_failed.acquire(blocking=False):
                _LOG.warning("%s: rows cannot be read: %s. Their images are decoded.", self.path, error.strerror)
            return False
        return num_bytes == self._row_bytes and tail != _HOLE and tail == self._tail(position, out)

    def write(self, position: int, pixels: NDArray[np.uint8]) -> None:
        """Store the row of `position`; where the system refuses, say so once and store no more.

        Args:
            position: In the whole data set.
            pixels: uint8 of `shape`, C-contiguous.

        Raises:
            ValueError: no such position, `pixels` is of another form, or the cache is closed.
        """
        file, offset = self._opened(), self._offset(position, pixels)
        if self._write_failed.locked():
            return
        if self._read_only_reason is not None:
            self._stop_writing(self._read_only_reason)
            return
        try:
            write_all(file.descriptor, pixels.reshape(-1).data, offset)
            write_all(file.descriptor, self._tail(position, pixels), offset + pixels.nbytes)
        except OSError as error:
            self._stop_writing(str(error.strerror))

    def has(self, position: int) -> bool:
        """Return whether a row seems to hold pixels: one small read, which takes a torn row for a whole one.

        Raises:
            OSError: the file cannot be read.
            ValueError: the cache is closed.
        """
        tail = _HEADER_BYTES + position * self._stride + self._row_bytes - len(_HOLE)
        file = self._opened()
        return any(os.pread(file.descriptor, len(_HOLE), tail))

    def rows_present(self) -> int:
        """Return how many rows hold pixels, for messages: one small read a row, which takes torn rows for whole.

        There is no ``__len__``: a cache that is still empty would count as false.

        Raises:
            OSError: the file cannot be read.
            ValueError: the cache is closed.
        """
        return sum(map(self.has, range(self.num_samples)))

    def close(self) -> None:
        """Close the file, once the threads that are in the middle of a row have done it."""
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], PixelCache], tuple[()]]:
        """Open anew by path; whether the disk has room was asked when the cache was made."""
        identity = json.loads(self._description)["identity"]
        facts = {"identity": identity, "num_samples": self.num_samples, "shape": self.shape, "num_rows": 0}
        return functools.partial(PixelCache, self.path.parent, **facts), ()

    def _opened(self) -> OpenFile:
        file = self._file
        if file is None:
            raise ValueError(f"{self.path}: the cache is closed.")
        return file

    def _offset(self, position: int, pixels: NDArray[np.uint8]) -> int:
        """Return where the row starts; check what would damage other rows or memory."""
        if not 0 <= position < self.num_samples:
            raise ValueError(f"{self.path}: position is {position}, expected one in [0, {self.num_samples}).")
        if pixels.shape != self.shape or pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
            raise ValueError(
                f"{self.path}: pixels are {pixels.dtype} {pixels.shape}, expected C-contiguous uint8 {self.shape}."
            )
        return _HEADER_BYTES + operator.index(position) * self._stride

    def _tail(self, position: int, pixels: NDArray[np.uint8]) -> bytes:
        return xxhash.xxh3_128_digest(pixels.data, (self._seed + operator.index(position)) % _SEEDS)

    def _stop_writing(self, reason: str) -> None:
        if self._write_failed.acquire(blocking=False):
            _LOG.warning(
                "%s: rows cannot be written: %s. Those there are used; all others are decoded.", self.path, reason
            )


def _row_bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) + len(_HOLE)


def _stride(shape: tuple[int, ...]) -> int:
    return -(-_row_bytes(shape) // 64) * 64


def _canonical(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _header(description: bytes) -> bytes:
    text = _MAGIC + description + b"\n"
    text += xxhash.xxh3_128_hexdigest(text).encode("ascii") + b"\n"
    if len(text) > _HEADER_BYTES:
        raise ValueError(f"identity takes {len(text) - _HEADER_BYTES} bytes more than the header of a cache has.")
    return text.ljust(_HEADER_BYTES, b"\0")


def _open(path: Path, header: bytes, num_bytes: int, num_wanted_bytes: int) -> tuple[OpenFile, str | None]:
    """Open the cache at `path`; make it if there is none, and anew if it is damaged."""
    with os_errors_as(functools.partial(_error, path)):
        for _ in range(_ATTEMPTS):
            file, read_only_reason = _open_existing(path)
            if file is None:
                _refuse_full_disk(path.parent, num_wanted_bytes)
                _make(path, header, num_bytes)
            elif not _is_whole(file, header, num_bytes):
                _remove_damaged(path, file)
            else:
                if read_only_reason is None:
                    num_there = os.fstat(file.descriptor).st_blocks * _BLOCK_BYTES
                    _refuse_full_disk(path.parent, num_wanted_bytes - num_there)
                return file, read_only_reason
    raise StoreError(
        f"{path}: the pixel cache is not there after it was made, {_ATTEMPTS} times over. Look whether the name is a "
        "broken link or another program removes the file, or choose another folder."
    )


def _error(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: the pixel cache can be neither opened nor made: {error.strerror or error}. Choose another folder for "
        "it, or evaluate without it."
    )


def _open_existing(path: Path) -> tuple[OpenFile | None, str | None]:
    """Return the file, or None if there is none, and the reason if it can only be read."""
    try:
        return OpenFile.open(path, os.O_RDWR), None
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return OpenFile.open(path), str(error.strerror)


def _is_whole(file: OpenFile, header: bytes, num_bytes: int) -> bool:
    status = os.fstat(file.descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != num_bytes:
        return False
    return os.pread(file.descriptor, len(header), 0) == header


def _remove_damaged(path: Path, file: OpenFile) -> None:
    """Remove the damaged file, unless another process did and `path` is a new one by now."""
    with contextlib.suppress(OSError):  # without locks a new file might be removed: its rows are lost, none is wrong
        lock(file.descriptor)  # held until the file is closed
    with contextlib.suppress(FileNotFoundError):
        if file.is_at(path):
            path.unlink()
            _LOG.warning("%s: the pixel cache was damaged (its header or size); it is made anew", path)


def _refuse_full_disk(folder: Path, num_bytes: int) -> None:
    place = next(place for place in (folder, *folder.parents) if place.exists())
    num_free = shutil.disk_usage(place).free
    if num_bytes > num_free:
        raise StoreError(
            f"{folder}: not enough room for the pixel cache: {num_bytes:,} bytes are still to be written, {num_free:,} "
            "are free. Make room, choose another folder for it, or evaluate without it."
        )


def _make(path: Path, header: bytes, num_bytes: int) -> None:
    """Make the file without rows; it appears whole, and if another process is faster its file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(header)
            file.truncate(num_bytes)
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # a rename would take the place of a file that is in use
    finally:
        temporary.unlink(missing_ok=True)
