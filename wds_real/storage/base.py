"""Protocols of the storage backends: `RangeReader` reads ranges of named files, `Store` also lists and writes files.

File names are flat: every file lies directly under the store's URL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import builtins
    import contextlib
    from collections.abc import Iterable

    from wds_real.storage.files import FileVersion

__all__ = ["ByteWriter", "FileReader", "RangeReader", "Store"]


class ByteWriter(Protocol):
    """A file open for writing."""

    def write(self, data: bytes | memoryview) -> object:
        """Append bytes; the caller may change the buffer afterwards."""
        ...


class FileReader(Protocol):
    """Reads ranges of files on this machine without allocating memory for them."""

    def read_into(self, name: str, start: int, out: memoryview) -> bool:
        """Fill `out` with the bytes from `start` on; return False if the file ends before."""
        ...

    def version(self, name: str) -> FileVersion:
        """Return length and times of the open file, which differ after the file was changed."""
        ...

    def view(self, name: str, start: int, stop: int) -> memoryview:
        """Return a read-only view of the mapped file."""
        ...


class RangeReader(Protocol):
    """Reads byte ranges of named files.

    `get_range` raises `MissingError` if there is no such file, `UnavailableError` if the store denies access or all
    retries failed, and `StoreError` if the file has another length or version than expected.
    """

    @property
    def url(self) -> str:
        """URL or path, without secrets."""
        ...

    @property
    def remote(self) -> bool:
        """Whether reads go over a network, so that callers should prefetch and make large reads."""
        ...

    @property
    def file_reader(self) -> FileReader | None:
        """A reader of the same files without copies, or None if they are not files on this machine."""
        ...

    def get_range(
        self, name: str, start: int, stop: int, *, size: int | None = None, fresh: bool = False
    ) -> bytes | memoryview:
        """Return exactly the bytes of the half-open range.

        Args:
            name: Name of the file.
            start: First byte.
            stop: Byte after the last one.
            size: Expected length of the whole file, or None for any.
            fresh: Read from the source, not from a cache.
        """
        ...


class Store(RangeReader, Protocol):
    """A flat collection of named files that can be read, listed and written; errors as for `RangeReader`."""

    @property
    def listable(self) -> bool:
        """Whether `list` works; plain web servers have no listing."""
        ...

    @property
    def emulates_exclusive(self) -> bool:
        """Whether an exclusive `put` had to check for the file first, because the server has no conditional writes."""
        ...

    def exists(self) -> bool:
        """Return whether the folder exists; always True for object stores, which have no folders."""
        ...

    def list(self) -> list[str]:
        """Return the names of all finished files, sorted."""
        ...

    def folders(self) -> builtins.list[str]:
        """Return the names of the folders directly below the URL, sorted; in an object store, parts of longer keys."""
        ...

    def head(self, name: str) -> int:
        """Return the length of a file in bytes."""
        ...

    def get(self, name: str, *, fresh: bool = False) -> bytes:
        """Return a whole file.

        Args:
            name: Name of the file.
            fresh: Return the current version, in one request, even if another one was read before; for small files
                that other processes replace.
        """
        ...

    def put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        """Write a whole file, atomically and durably; with `exclusive`, raise StoreError if the file exists."""
        ...

    def create(self, name: str) -> contextlib.AbstractContextManager[ByteWriter]:
        """Open a file for writing; it appears under its name, complete and durable, when the block ends normally."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file."""
        ...

    def decide_by_checksums(self, names: Iterable[str]) -> None:
        """Accept other ETags of these files, because the caller compares their bytes with checksums.

        Mirrors of a file may give it different ETags. Another length is still an error.
        """
        ...

    def delete_leftovers(self) -> builtins.list[str]:
        """Remove temporary files and unfinished uploads of killed writers, and return their names."""
        ...
