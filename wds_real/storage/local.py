"""A folder as a store: whole files or none under their names, exact ranges.

Nothing half-written ever has its final name: `put` and `create` write under a temporary name in the same folder, flush
it to the disk and rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import threading
import uuid
from typing import TYPE_CHECKING

from wds_real.errors import MissingError, StoreError

if TYPE_CHECKING:
    import builtins
    import io
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wds_real.storage.base import ByteWriter

__all__ = ["LocalStore"]

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_FLUSHED_AT_ONCE = 8 << 20  # bytes
_MAX_OPEN = 128  # files kept open; what comes after is opened for each read


class _Writing:
    """A file that is being written, flushed on the way; what fails is said with its name.

    What else goes wrong in the caller's block is not ours.
    """

    def __init__(self, file: io.FileIO, explained: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._file = file
        self._explained = explained
        self._num_bytes = self._flushed = 0

    def write(self, data: bytes | memoryview) -> None:
        with self._explained():
            left = memoryview(data)
            while left.nbytes:  # unbuffered, so that large pieces are not copied once more; it may take a part only
                left = left[self._file.write(left) :]
        self._num_bytes += len(data)
        if self._num_bytes - self._flushed >= _FLUSHED_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        """Let the disk begin with what is written so far, so that little is left when the file has to be on it."""
        place, size = self._flushed, self._num_bytes - self._flushed
        self._flushed = self._num_bytes
        if hasattr(os, "posix_fadvise"):  # that the pages are not needed any more: Linux then starts to write them
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._file.fileno(), place, size, os.POSIX_FADV_DONTNEED)


class LocalStore:
    """A folder.

    Every method raises StoreError, with the path and the system's reason, where the file system refuses.
    """

    listable = True
    remote = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, _OpenFile] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return LocalStore, (self.root,)

    @property
    def url(self) -> str:
        """The folder's path as given."""
        return str(self.root)

    @property
    def file_reader(self) -> LocalStore:
        """This store: `read_into` and `view` work on its files."""
        return self

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

    def get_range(self, name: str, start: int, stop: int, *, size: int | None = None, fresh: bool = False) -> bytes:
        """Return exactly the bytes of the half-open range, of a file of `size` bytes if that is given.

        The file is kept open: if another one gets its name meanwhile, the one first read is read on.

        Raises:
            MissingError: there is no such file.
            StoreError: the file ends before `stop`, has another length than `size`, or cannot be read.
        """
        del fresh  # there are no copies
        try:  # rather than _explained: every sample passes here
            file = self._files.get(name) or self._open(name)
            data = os.pread(file.descriptor, stop - start, start)
            if len(data) == stop - start and size is None:
                return data
            return self._read_on(name, file, data, start, stop, size)
        except OSError as error:
            raise self._error(name, error) from error

    def read_into(self, name: str, start: int, out: memoryview) -> bool:
        """Fill `out` with the bytes from `start` on, without fresh memory; False if fewer came.

        Raises:
            MissingError: there is no such file.
            StoreError: the file cannot be read.
        """
        try:
            file = self._files.get(name) or self._open(name)
            return os.preadv(file.descriptor, (out,), start) == out.nbytes
        except OSError as error:
            raise self._error(name, error) from error

    def view(self, name: str, start: int, stop: int) -> memoryview:
        """Return a range of a file, read-only, without a copy: its pages are the system's, shared by all who read it.

        They show what is later written to the file in place; who touches a page of it after the file was cut is killed.

        Raises:
            MissingError: there is no such file.
            StoreError: the file ends before `stop`, or cannot be mapped.
        """
        try:
            file = self._files.get(name) or self._open(name)
            mapped = file.mapped or self._map(file)
            num_bytes = min(len(mapped), os.fstat(file.descriptor).st_size)  # it may have been cut since
        except (OSError, ValueError) as error:  # no file system's error: an empty file has no pages
            raise self._error(name, error if isinstance(error, OSError) else OSError(str(error))) from error
        if stop > num_bytes:
            raise StoreError(f"{self.root / name}: bytes {start}-{stop} asked for, the file ends at {num_bytes}.")
        return mapped[start:stop]

    def _map(self, file: _OpenFile) -> memoryview:
        with self._lock:
            if file.mapped is None:
                if hasattr(os, "posix_fadvise"):  # to have it read from the disk while its beginning is looked at
                    os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
                file.mapped = memoryview(mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ))
            return file.mapped

    def _read_on(self, name: str, file: _OpenFile, data: bytes, start: int, stop: int, size: int | None) -> bytes:
        """Return `data` and what follows up to `stop`: one call reads 2 GiB at most, and some file systems less."""
        while data and len(data) < stop - start:
            more = os.pread(file.descriptor, stop - start - len(data), start + len(data))
            if not more:
                break
            data += more
        num_bytes = os.fstat(file.descriptor).st_size
        if len(data) != stop - start:
            raise StoreError(f"{self.root / name}: bytes {start}-{stop} asked for, the file ends at {num_bytes}.")
        if size not in (None, num_bytes):
            raise StoreError(f"{self.root / name}: the file has {num_bytes:,} bytes, expected {size:,}.")
        return data

    def _open(self, name: str) -> _OpenFile:
        """Open a file for reading and keep it open, since that costs as much as reading a sample.

        Of too many, the one opened first is let go.
        """
        with self._lock:
            if name not in self._files:
                if len(self._files) >= _MAX_OPEN:
                    del self._files[next(iter(self._files))]
                self._files[name] = _OpenFile(self.root / name)
            return self._files[name]

    def put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        """Write a whole file, atomically and durably.

        Raises:
            StoreError: the file system refuses, or `exclusive` and there is a file of that name.
        """
        with self._written(name, exclusive=exclusive) as file:
            file.write(data)

    def create(self, name: str) -> contextlib.AbstractContextManager[ByteWriter]:
        """Open a file for writing; it appears under its name, whole and durable, when the block ends without error."""
        return self._written(name, exclusive=False)

    @contextlib.contextmanager
    def _written(self, name: str, *, exclusive: bool) -> Iterator[ByteWriter]:
        temporary = self.root / f".{name}.{uuid.uuid4().hex}.tmp"
        with self._explained(name):
            self.root.mkdir(parents=True, exist_ok=True)
            file = temporary.open("xb", buffering=0)
        try:
            with contextlib.suppress(OSError):  # file systems without locks keep their leftovers
                fcntl.flock(file, fcntl.LOCK_EX)  # says that the writer is alive; a kill lets go of it
            yield _Writing(file, lambda: self._explained(name))
            with self._explained(name):
                os.fsync(file.fileno())
                _name(temporary, self.root / name, exclusive=exclusive)
                self._files.pop(name, None)
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
            self._files.pop(name, None)
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
            raise self._error(name, error) from error

    def _error(self, name: str, error: OSError) -> StoreError:
        kind = MissingError if isinstance(error, FileNotFoundError) else StoreError
        return kind(f"{self.root / name}: {error.strerror or error}.")


class _OpenFile:
    """A file open for positional reads, which threads and forked processes share; closed when nobody holds it.

    Attributes:
        descriptor: Number of the open file.
        mapped: All of it, if it was mapped; stays as long as a part is held.
    """

    __slots__ = ("descriptor", "mapped")

    def __init__(self, path: Path) -> None:
        self.mapped: memoryview | None = None
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # it could not be opened
            os.close(self.descriptor)


def _name(temporary: Path, final: Path, *, exclusive: bool) -> None:
    if not exclusive:
        temporary.replace(final)
        return
    try:
        os.link(temporary, final)
    except FileExistsError as error:
        raise StoreError(f"{final}: is there already; another run made it meanwhile.") from error
    temporary.unlink()


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
