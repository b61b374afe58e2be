"""Whole objects in unlinked temporary files: downloads from servers without range requests, and uploads."""

from __future__ import annotations

import os
import tempfile
import threading
from typing import BinaryIO

from wds_real.errors import StoreError
from wds_real.storage.files import OpenFile, os_errors_as, write_all

__all__ = ["Downloads", "TemporaryFile"]

_MAX_KEPT = 8


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
    """A file without a name, which is gone when this object or the process ends."""

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

    def opened(self) -> BinaryIO:
        """Return the file opened for reading; closing that leaves this one open."""
        return os.fdopen(os.dup(self._file.descriptor), "rb", buffering=0)


def _error(error: OSError) -> StoreError:
    return StoreError(
        f"{tempfile.gettempdir()}: a temporary file cannot be written: {error.strerror}. Set TMPDIR to a folder with "
        "room for a whole shard."
    )
