"""Whole objects in temporary files: downloads, and data to upload."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from typing import TYPE_CHECKING

from wds_real.errors import StoreError
from wds_real.storage.files import OpenFile, os_errors_as, write_all
from wds_real.storage.prefetch import Prefetcher, file_blocks

if TYPE_CHECKING:
    from wds_real.storage.base import Store

__all__ = ["Downloads", "TemporaryFile", "download"]

_MAX_KEPT = 8
_MAX_REQUESTS = 4


def download(store: Store, name: str, *, max_bytes: int) -> io.FileIO:
    """Copy a file of a store to a temporary file, open for reading, which is deleted when it is closed.

    The length is checked before the download, and all bytes are of one version.

    Raises:
        MissingError: there is no such file.
        StoreError: it has more than `max_bytes`, or was replaced meanwhile; or the disk is full.
        UnavailableError: access was denied, or retries failed until a deadline.
    """
    num_bytes, copy = store.head(name), TemporaryFile()
    if num_bytes > max_bytes:
        raise StoreError(f"{store.url}/{name}: the file has {num_bytes:,} bytes, expected at most {max_bytes:,}.")
    blocks = file_blocks(name, num_bytes)
    with Prefetcher(store.get_range, blocks, max_requests=_MAX_REQUESTS) as prefetched:
        for number in range(len(blocks)):
            copy.write(prefetched.take(number))
    return copy.opened()


class Downloads:
    """The most recently used downloaded objects."""

    def __init__(self) -> None:
        self._files: dict[str, TemporaryFile] = {}  # least recently used first
        self._lock = threading.Lock()

    def find(self, name: str) -> TemporaryFile | None:
        """Return the file of an object, or None if it has to be downloaded."""
        with self._lock:
            file = self._files.pop(name, None)
            if file is not None:
                self._files[name] = file
            return file

    def add(self, name: str, file: TemporaryFile) -> None:
        """Keep a file; the least recently used one is dropped to make room."""
        with self._lock:
            self._files[name] = file
            while len(self._files) > _MAX_KEPT:
                del self._files[next(iter(self._files))]


class TemporaryFile:
    """A temporary file without a name, which is deleted when this object or the process ends."""

    def __init__(self) -> None:
        self.num_bytes = 0
        with os_errors_as(_error):
            descriptor, path = tempfile.mkstemp(prefix="wds_real-")
            self._file = OpenFile(descriptor)
            os.unlink(path)  # noqa: PTH108 -- as mkstemp returned it

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        with os_errors_as(_error):
            write_all(self._file.descriptor, data, self.num_bytes)
        self.num_bytes += len(data)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of the half-open range, fewer where the file ends."""
        return os.pread(self._file.descriptor, stop - start, start)

    def opened(self) -> io.FileIO:
        """Return a file object for reading; closing it does not close this file."""
        return io.FileIO(os.dup(self._file.descriptor), "rb")


def _error(error: OSError) -> StoreError:
    return StoreError(
        f"{tempfile.gettempdir()}: a temporary file cannot be written: {error.strerror}. Set TMPDIR to a folder with "
        "room for the whole file."
    )
