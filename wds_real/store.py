"""Where bytes live: one small verb each over a folder.

A store knows names, lengths and bytes; what they mean is the business of others. Nothing half-written ever has its
final name: `put` and `create` write under a temporary name in the same folder, flush it to the disk and rename.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from wds_real.errors import StoreError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator

__all__ = ["LocalStore", "Store", "open_store"]

_TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)\.tmp")
_URL_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://")


class Store(Protocol):
    """A flat place that holds named bytes."""

    @property
    def url(self) -> str:
        """Where it is, as a person would type it."""
        ...

    def list(self) -> list[str]:
        """Return the names of all finished files, sorted."""
        ...

    def head(self, name: str) -> int:
        """Return the length of a file in bytes."""
        ...

    def get(self, name: str) -> bytes:
        """Return a whole file."""
        ...

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        """Return exactly the bytes of the half-open range."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file, atomically and durably."""
        ...

    def create(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Open a file for writing; it appears under its name, whole and durable, when the block ends without error."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file."""
        ...

    def delete_leftovers(self) -> builtins.list[str]:
        """Remove what writers that are gone left unfinished, and return its names."""
        ...


def open_store(url: str | os.PathLike[str]) -> Store:
    """Return the store at a folder's path. The folder need not exist: it is made by the first write.

    Raises:
        StoreError: a URL scheme that is not supported.
    """
    text = os.fspath(url)
    if match := _URL_SCHEME.match(text):
        raise StoreError(f"{match[0]}...: this version reads and writes local folders only. Give a local path.")
    return LocalStore(Path(text))


class LocalStore:
    """A folder.

    Every method raises StoreError, with the path and the system's reason, where the file system refuses.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def url(self) -> str:
        """The folder's path as given."""
        return str(self.root)

    def list(self) -> list[str]:
        """Return the names of all finished files, sorted; temporary and hidden files are not listed."""
        with self._explained(""):
            if not self.root.exists():
                return []
            return sorted(entry.name for entry in os.scandir(self.root) if entry.is_file() and entry.name[0] != ".")

    def head(self, name: str) -> int:
        """Return the length of a file in bytes."""
        with self._explained(name):
            return (self.root / name).stat().st_size

    def get(self, name: str) -> bytes:
        """Return a whole file."""
        with self._explained(name):
            return (self.root / name).read_bytes()

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        """Return exactly the bytes of the half-open range.

        Raises:
            StoreError: the file ends before `stop`, or cannot be read.
        """
        with self._explained(name):
            descriptor = os.open(self.root / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, stop - start, start)
            finally:
                os.close(descriptor)
        if len(data) != stop - start:
            raise StoreError(
                f"{self.root / name}: bytes {start}-{stop} asked for, the file ends at {start + len(data)}."
            )
        return data

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file, atomically and durably."""
        with self.create(name) as file:
            file.write(data)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for writing; it appears under its name, whole and durable, when the block ends without error."""
        temporary = self.root / f".{name}.{os.getpid()}.tmp"
        with self._explained(name):
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb", buffering=1 << 20) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.root / name)
                _fsync_folder(self.root)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def delete(self, name: str) -> None:
        """Remove a file, durably."""
        with self._explained(name):
            (self.root / name).unlink()
            _fsync_folder(self.root)

    def delete_leftovers(self) -> builtins.list[str]:
        """Remove the temporary files of writers that are gone, and return their names."""
        leftovers = []
        with self._explained(""):
            for path in sorted(self.root.glob(".*.tmp")):
                match = _TEMPORARY.fullmatch(path.name)
                if match and not _is_alive(int(match["pid"])):
                    path.unlink(missing_ok=True)
                    leftovers.append(path.name)
        return leftovers

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.root / name}: {error.strerror or error}.") from error


def _fsync_folder(path: Path) -> None:
    """Make a rename durable: the folder's entry has to reach the disk too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
