"""Where bytes live: one small verb each over a folder.

A store knows names, lengths and bytes; what they mean is the business of others. Nothing half-written ever has its
final name: `put` and `create` write under a temporary name in the same folder, flush it to the disk and rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from wds_real.errors import StoreError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterator

__all__ = ["ByteWriter", "LocalStore", "Store", "open_store"]

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_URL_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class ByteWriter(Protocol):
    """What a store gives to write a file with."""

    def write(self, data: bytes) -> None:
        """Append bytes."""
        ...


class Store(Protocol):
    """A flat place that holds named bytes."""

    @property
    def url(self) -> str:
        """Where it is, as a person would type it."""
        ...

    def exists(self) -> bool:
        """Return whether there is such a place."""
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

    def create(self, name: str) -> contextlib.AbstractContextManager[ByteWriter]:
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


class _ExplainedFile:
    """Writes to a file and says which one when that fails; what else goes wrong in the caller's block is not ours."""

    def __init__(self, file: BinaryIO, explained: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._file = file
        self._explained = explained

    def write(self, data: bytes) -> None:
        with self._explained():
            self._file.write(data)


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

    def exists(self) -> bool:
        """Return whether the folder is there."""
        return self.root.exists()

    def list(self) -> list[str]:
        """Return the names of all finished files, sorted; temporary and hidden files are not listed."""
        with self._explained(""):
            if self.root.is_file():
                raise StoreError(
                    f"{self.root}: is a file. Give the folder of shards; `wds-real pack` makes one of a tar."
                )
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
        with self._explained(name), (self.root / name).open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), stop - start, start)
            while data and len(data) < stop - start:  # one call reads 2 GiB at most, and some file systems less
                more = os.pread(file.fileno(), stop - start - len(data), start + len(data))
                if not more:
                    break
                data += more
            if len(data) == stop - start:
                return data
            num_bytes = os.fstat(file.fileno()).st_size
        raise StoreError(f"{self.root / name}: bytes {start}-{stop} asked for, the file ends at {num_bytes}.")

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file, atomically and durably."""
        with self.create(name) as file:
            file.write(data)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[ByteWriter]:
        """Open a file for writing; it appears under its name, whole and durable, when the block ends without error."""
        temporary = self.root / f".{name}.{uuid.uuid4().hex}.tmp"
        with self._explained(name):
            self.root.mkdir(parents=True, exist_ok=True)
            file = temporary.open("xb", buffering=1 << 20)
        try:
            with contextlib.suppress(OSError):  # file systems without locks keep their leftovers
                fcntl.flock(file, fcntl.LOCK_EX)  # says that the writer is alive; a kill lets go of it
            yield _ExplainedFile(file, lambda: self._explained(name))
            with self._explained(name):
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(self.root / name)
                _fsync_folder(self.root)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            with contextlib.suppress(OSError):  # what could not be flushed was said above
                file.close()

    def delete(self, name: str) -> None:
        """Remove a file, durably."""
        with self._explained(name):
            (self.root / name).unlink()
            _fsync_folder(self.root)

    def delete_leftovers(self) -> builtins.list[str]:
        """Remove the temporary files of writers that are gone, and return their names."""
        with self._explained(""):
            stale = [path for path in sorted(self.root.glob(".*.tmp")) if _TEMPORARY.fullmatch(path.name)]
            stale = [path for path in stale if not _is_locked(path)]
            for path in stale:
                path.unlink(missing_ok=True)
        return [path.name for path in stale]

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


def _is_locked(path: Path) -> bool:
    """Return whether a living writer, of this process or another, may hold the file: if in doubt, it does."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
