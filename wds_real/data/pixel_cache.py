"""Cache of transformed pixels in one file, for loops that evaluate the same images repeatedly.

    FOLDER/NAME.pixels      NAME: first 32 hex digits of the SHA-256 of `description`

    header    4096 bytes    lines "wds_real.pixels 1", description, xxh3-128 (hex) of the two lines; then zeros;
                            description: canonical JSON of identity, num_samples and shape
    row       stride bytes  pixels + tail, then zeros up to a multiple of 64; row P lies at 4096 + P x stride
    tail      16 bytes      xxh3-128 of the pixels, seeded with P + the first 8 bytes (big-endian) of that SHA-256

The file has its full size from the start and is sparse: a row that was never written is a hole, whose tail is zero. A
row is used only if its tail matches its bytes and its position, so holes, partly written rows and rows of another
position or file are never used. Processes can therefore share the file without locks, and a kill loses at most one row
for each thread.

Rows are read and written with preadv and pwrite, not through a memory map: if the file is truncated or the disk is
full, a call returns an error, where access through a map ends the process with SIGBUS. The page cache holds the rows
once for all processes of a node in both cases.

Nothing is evicted: the full size is known beforehand, and a disk without room for it is an error.

Whoever can write the file can forge rows. So the folder is made for this user alone, a file that belongs to neither
this user nor root is an error, and a symbolic link in place of the file is not followed.
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
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from wds_real.errors import StoreError
from wds_real.storage.files import (
    OpenFile,
    check_owner,
    lock,
    make_own_folder,
    os_errors_as,
    reason_of,
    write_all,
)
from wds_real.storage.url import is_url

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
_ATTEMPTS = 10  # one fails if another process makes or removes the file in between


def cache_size(num_samples: int, *, shape: tuple[int, ...]) -> int:
    """Return the size in bytes of the file that holds all rows.

    >>> cache_size(50_000, shape=(224, 224, 3))
    7529604096
    """
    return _HEADER_BYTES + num_samples * _stride(shape)


class PixelCache:
    """One row of pixels for each sample, uint8 of `shape`; the file is opened, or created, on construction.

    Threads and forked processes may share it. A pickled copy opens the file again by its path. The first write that
    fails is logged and ends the writing; rows that are there are still read.

    Args:
        folder: Folder of the file, created if missing.
        identity: JSON-ready facts that determine the pixels: data set digest, transform, versions of the decoders. With
            `num_samples` and `shape` they determine the file's name.
        num_samples: Rows, one for each sample of the whole data set.
        shape: Shape of the pixels of one sample.
        num_rows: Rows that this run will write or read, for which the disk must have room; None means all.

    Attributes:
        path: The file, absolute.
        num_bytes: Full size of the file; it takes less on the disk until all rows are written.
        num_samples: As passed.
        shape: As passed, as a tuple.

    Raises:
        StoreError: there is no file and none can be made, a damaged one cannot be removed, another user owns it, or the
            disk lacks the room for the rows still to be written.
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
        if is_url(os.fspath(folder)):
            raise StoreError("the pixel cache needs a folder of this machine, not a URL.")
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
        # One-shot flags: set by acquiring without waiting, and never released, so a fork at any moment is safe.
        self._read_failed, self._write_failed = threading.Lock(), threading.Lock()
        num_wanted_bytes = cache_size(wanted, shape=shape)
        self._file: OpenFile | None
        self._read_only_reason: str | None  # None if the file can be written
        self._file, self._read_only_reason = _open(self.path, _header(description), self.num_bytes, num_wanted_bytes)

    def read(self, position: int, out: NDArray[np.uint8]) -> bool:
        """Copy the row of `position` into `out`; return whether it was there and its checksum matches.

        Args:
            position: Position of the sample in the whole data set.
            out: uint8 of `shape`, C-contiguous; undefined content if False is returned.

        Raises:
            ValueError: no such position, `out` has another shape or dtype, or the cache is closed.
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
        """Store the row of `position`; the first failure is logged, and nothing is stored after it.

        Args:
            position: Position of the sample in the whole data set.
            pixels: uint8 of `shape`, C-contiguous.

        Raises:
            ValueError: no such position, `pixels` has another shape or dtype, or the cache is closed.
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
        """Return whether a row was written, by one small read that does not check the checksum.

        There is no ``__len__``: an empty cache would be false.

        Raises:
            OSError: the file cannot be read.
            ValueError: the cache is closed.
        """
        tail = _HEADER_BYTES + position * self._stride + self._row_bytes - len(_HOLE)
        file = self._opened()
        return any(os.pread(file.descriptor, len(_HOLE), tail))

    def close(self) -> None:
        """Close the file, after the threads that are reading or writing a row are done with it."""
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], PixelCache], tuple[()]]:
        """Open the file again by its path, without checking again that the disk has room."""
        identity = json.loads(self._description)["identity"]
        facts = {"identity": identity, "num_samples": self.num_samples, "shape": self.shape, "num_rows": 0}
        return functools.partial(PixelCache, self.path.parent, **facts), ()

    def _opened(self) -> OpenFile:
        file = self._file
        if file is None:
            raise ValueError(f"{self.path}: the cache is closed.")
        return file

    def _offset(self, position: int, pixels: NDArray[np.uint8]) -> int:
        """Return where the row starts, after checking position and form: a wrong one would overwrite other rows."""
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
                "%s: rows cannot be written: %s. Rows that are there are used; all other images are decoded.",
                self.path,
                reason,
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
    """Open the cache at `path`; create it if it is missing, and again if it is damaged."""
    with os_errors_as(functools.partial(_error, path)):
        for _ in range(_ATTEMPTS):
            file, read_only_reason = _open_existing(path)
            if file is None:
                _refuse_full_disk(path.parent, num_wanted_bytes)
                _create(path, header, num_bytes)
                continue
            check_owner(os.fstat(file.descriptor), path)
            if not _is_whole(file, header, num_bytes):
                _remove_damaged(path, file)
            else:
                if read_only_reason is None:
                    num_there = os.fstat(file.descriptor).st_blocks * _BLOCK_BYTES
                    _refuse_full_disk(path.parent, num_wanted_bytes - num_there)
                return file, read_only_reason
    raise StoreError(
        f"{path}: the pixel cache was created {_ATTEMPTS} times and is not there. Check whether another program "
        "removes the file, or choose another folder."
    )


def _error(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: the pixel cache can be neither opened nor created: {reason_of(error)} Choose another folder for it, "
        "or evaluate without it."
    )


def _open_existing(path: Path) -> tuple[OpenFile | None, str | None]:
    """Return the file, or None if it is missing, and the reason if it is read-only."""
    try:
        return OpenFile.open(path, os.O_RDWR | os.O_NOFOLLOW), None
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return OpenFile.open(path, os.O_RDONLY | os.O_NOFOLLOW), str(error.strerror)


def _is_whole(file: OpenFile, header: bytes, num_bytes: int) -> bool:
    status = os.fstat(file.descriptor)
    return status.st_size == num_bytes and os.pread(file.descriptor, len(header), 0) == header


def _remove_damaged(path: Path, file: OpenFile) -> None:
    """Remove the damaged file, unless another process has replaced it by a new one."""
    with contextlib.suppress(OSError):  # without locks a new file may be removed: its rows are lost, but none is wrong
        lock(file.descriptor)  # held until the file is closed
    with contextlib.suppress(FileNotFoundError):
        if file.is_at(path):
            path.unlink()
            _LOG.warning("%s: the pixel cache was damaged (its header or size); it is created again", path)


def _refuse_full_disk(folder: Path, num_bytes: int) -> None:
    place = next(place for place in (folder, *folder.parents) if place.exists())
    num_free = shutil.disk_usage(place).free
    if num_bytes > num_free:
        raise StoreError(
            f"{folder}: not enough room for the pixel cache: {num_bytes:,} bytes are still to be written, {num_free:,} "
            "are free. Make room, choose another folder for it, or evaluate without it."
        )


def _create(path: Path, header: bytes, num_bytes: int) -> None:
    """Create the file without rows, atomically; a file that another process created meanwhile is kept."""
    make_own_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(header)
            file.truncate(num_bytes)
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # a rename would replace a file that is in use
    finally:
        temporary.unlink(missing_ok=True)
