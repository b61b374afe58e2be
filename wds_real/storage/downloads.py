"""Whole objects in unlinked temporary files: what is read of servers that know no ranges, and what is to be sent."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from typing import TYPE_CHECKING, BinaryIO

from wds_real.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Download", "Downloads"]

_MAX_KEPT = 8


class Downloads:
    """Keeps the last few downloaded objects; what is dropped is closed when nobody reads it any more."""

    def __init__(self) -> None:
        self._files: dict[str, Download] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> Download | None:
        """Return the file of an object, or None if it has to be downloaded."""
        with self._lock:
            file = self._files.pop(name, None)
            if file is not None:
                self._files[name] = file  # the last one used is the last one dropped
            return file

    def add(self, name: str, file: Download) -> None:
        """Keep a file; the one that was not used for longest makes room."""
        with self._lock:
            self._files[name] = file
            while len(self._files) > _MAX_KEPT:
                del self._files[next(iter(self._files))]

    @staticmethod
    def new() -> Download:
        """Return an empty file to download into."""
        return Download()


class Download:
    """A temporary file without a name, which is gone when it is closed or the process ends."""

    def __init__(self) -> None:
        self._descriptor = -1
        self.num_bytes = 0
        with _explained():
            self._descriptor, path = tempfile.mkstemp(prefix="wds_real-")
            os.unlink(path)  # noqa: PTH108 -- as mkstemp gave it

    def write(self, data: bytes | memoryview) -> None:
        """Write behind what is there."""
        view = memoryview(data)
        with _explained():
            while view.nbytes:
                written = os.pwrite(self._descriptor, view, self.num_bytes)
                self.num_bytes += written
                view = view[written:]

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of the half-open range, fewer where the file ends."""
        return os.pread(self._descriptor, stop - start, start)

    def opened(self) -> BinaryIO:
        """Return the file as one to read from the beginning; closing it leaves this one open."""
        return os.fdopen(os.dup(self._descriptor), "rb", buffering=0)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say that it was not the server that failed."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{tempfile.gettempdir()}: a temporary file cannot be written: {error.strerror}. Set TMPDIR to a place "
            "with room for a whole shard."
        ) from error
