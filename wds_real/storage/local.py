"""A folder as a store: files appear complete under their names or not at all, and ranges are exact.

`put` and `create` write to a temporary file in the same folder, flush it to the disk and rename it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
import threading
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING

from wds_real.errors import MissingError, StoreError, UnavailableError
from wds_real.storage.files import (
    FileVersion,
    OpenFile,
    is_of_the_machine,
    lock,
    locked,
    max_kept_files,
    os_errors_as,
    read_bytes,
    reason_of,
    remove_if_unlocked,
    write_all,
)

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from wds_real.storage.base import ByteWriter

__all__ = ["LocalStore"]

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_FLUSH_BYTES = 8 << 20
# Errors for an operation that is missing: in exFAT, SMB, FUSE file systems such as gcsfuse, and old kernels.
_UNSUPPORTED = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # of Linux


class LocalStore:
    """A folder; also a `FileReader`.

    Every method raises StoreError, with the path and the system's reason, if a system call fails; an UnavailableError
    if the reason is this machine (limits, memory, disk, permissions) and not the file.
    """

    listable = True
    remote = False
    emulates_exclusive = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: OrderedDict[str, OpenFile] = OrderedDict()  # least recently used first
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
        """Return whether the folder exists."""
        return self.root.exists()

    def list(self) -> list[str]:
        """Return the names of all finished files, sorted; temporary and hidden files are not listed."""
        with self._errors(""):
            if self.root.is_file():
                raise StoreError(
                    f"{self.root}: is a file. Give the folder of shards; `wds-real pack` makes one of a tar."
                )
            if not self.root.exists():
                return []
            return sorted(entry.name for entry in os.scandir(self.root) if entry.is_file() and entry.name[0] != ".")

    def folders(self) -> builtins.list[str]:
        """Return the names of all folders but hidden ones, sorted."""
        with self._errors(""):
            return sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir() and entry.name[0] != ".")

    def head(self, name: str) -> int:
        """Return the length of a file in bytes."""
        with self._errors(name):
            return (self.root / name).stat().st_size

    def get(self, name: str, *, fresh: bool = False) -> bytes:
        """Return a whole file, always its current content."""
        del fresh
        with self._errors(name):
            return read_bytes(self.root / name)

    def get_range(self, name: str, start: int, stop: int, *, size: int | None = None, fresh: bool = False) -> bytes:
        """Return exactly the bytes of the half-open range; check that the file has `size` bytes if that is given.

        The file stays open: if another process replaces it, later reads still return the bytes of the old one.

        Raises:
            MissingError: there is no such file.
            StoreError: the file ends before `stop`, has another length than `size`, or cannot be read.
        """
        del fresh  # nothing is cached
        try:  # not `with self._errors`, which costs more: this is called for each sample
            file = self._opened(name)
            data = os.pread(file.descriptor, stop - start, start)
            if len(data) == stop - start and size is None:
                return data
            return self._read_on(name, file, data, start, stop, size)
        except OSError as error:
            raise self._error(name, error) from error

    def read_into(self, name: str, start: int, out: memoryview) -> bool:
        """Fill `out` with the bytes from `start` on; return False if the file ends before.

        Raises:
            MissingError: there is no such file.
            StoreError: the file cannot be read.
        """
        try:
            file = self._opened(name)
            return os.preadv(file.descriptor, (out,), start) == out.nbytes
        except OSError as error:
            raise self._error(name, error) from error

    def version(self, name: str) -> FileVersion:
        """Return length and times of the open file, which differ after the file was changed or replaced.

        Raises:
            MissingError: there is no such file.
            StoreError: the file cannot be opened.
        """
        with self._errors(name):
            return FileVersion.of(os.fstat(self._opened(name).descriptor))

    def view(self, name: str, start: int, stop: int) -> memoryview:
        """Return a read-only view of the mapped file, whose pages all processes share.

        The view shows later writes to the file. If the file is truncated while mapped, reading the view beyond its new
        end kills the process with SIGBUS.

        Raises:
            MissingError: there is no such file.
            StoreError: the file ends before `stop`, or cannot be mapped.
        """
        try:
            file = self._opened(name)
            with self._lock:  # one map for all threads
                mapped = file.mapped()
            num_bytes = min(len(mapped), os.fstat(file.descriptor).st_size)  # it may have been truncated since
        except (OSError, ValueError) as error:  # ValueError: the file is empty
            raise self._error(name, error if isinstance(error, OSError) else OSError(str(error))) from error
        if stop > num_bytes:
            raise StoreError(f"{self.root / name}: bytes {start}-{stop} requested, the file ends at {num_bytes}.")
        return mapped[start:stop]

    def _read_on(self, name: str, file: OpenFile, data: bytes, start: int, stop: int, size: int | None) -> bytes:
        """Return `data` and the bytes after it up to `stop`: one call reads at most 2 GiB, on some systems less."""
        while data and len(data) < stop - start:
            more = os.pread(file.descriptor, stop - start - len(data), start + len(data))
            if not more:
                break
            data += more
        num_bytes = os.fstat(file.descriptor).st_size
        if len(data) != stop - start:
            raise StoreError(f"{self.root / name}: bytes {start}-{stop} requested, the file ends at {num_bytes}.")
        if size not in (None, num_bytes):
            raise StoreError(f"{self.root / name}: the file has {num_bytes:,} bytes, expected {size:,}.")
        return data

    def _opened(self, name: str) -> OpenFile:
        """Return an open file, which stays open: opening it costs as much as reading a sample."""
        file = self._files.get(name)
        if file is None:
            return self._open(name)
        with contextlib.suppress(KeyError):  # another thread has closed it to make room; this one can still read it
            self._files.move_to_end(name)
        return file

    def _open(self, name: str) -> OpenFile:
        with self._lock:
            while (file := self._files.get(name)) is None:
                while len(self._files) >= max_kept_files():
                    self._files.popitem(last=False)
                try:
                    self._files[name] = OpenFile.open(self.root / name)
                except OSError as error:
                    if error.errno != errno.EMFILE or not self._files:
                        raise
                    self._files.clear()  # other code in this process has the most files open
            return file

    def put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        """Write a whole file, atomically and durably.

        Raises:
            StoreError: the file cannot be written, or `exclusive` and it exists.
        """
        with self._written(name, exclusive=exclusive) as file:
            file.write(data)

    def create(self, name: str) -> contextlib.AbstractContextManager[ByteWriter]:
        """Open a file for writing; it appears under its name, complete and durable, when the block ends normally."""
        return self._written(name, exclusive=False)

    @contextlib.contextmanager
    def _written(self, name: str, *, exclusive: bool) -> Iterator[ByteWriter]:
        temporary = self.root / f".{name}.{uuid.uuid4().hex}.tmp"
        errors = functools.partial(self._error, name)
        with os_errors_as(errors):
            self.root.mkdir(parents=True, exist_ok=True)
            file = OpenFile.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with contextlib.suppress(OSError):  # without locks on this file system, leftovers stay
                lock(file.descriptor)  # tells `delete_leftovers` that the writer is running
            yield _Writer(file, errors)
            with os_errors_as(errors):
                os.fsync(file.descriptor)
                _rename(temporary, self.root / name, exclusive=exclusive)
                self._files.pop(name, None)
                _fsync_folder(self.root)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            with contextlib.suppress(OSError):  # fsync above has reported what could not be written
                file.close()

    def delete(self, name: str) -> None:
        """Remove a file, durably."""
        with self._errors(name):
            (self.root / name).unlink()
            self._files.pop(name, None)
            _fsync_folder(self.root)

    def decide_by_checksums(self, names: Iterable[str]) -> None:
        """Do nothing: files have no ETags."""

    def delete_leftovers(self) -> builtins.list[str]:
        """Remove the temporary files of writers that have ended, and return their names."""
        with self._errors(""):
            found = [path for path in sorted(self.root.glob(".*.tmp")) if _TEMPORARY.fullmatch(path.name)]
            return [path.name for path in found if remove_if_unlocked(path)]

    def _errors(self, name: str) -> contextlib.AbstractContextManager[None]:
        return os_errors_as(functools.partial(self._error, name))

    def _error(self, name: str, error: OSError) -> StoreError:
        kind = UnavailableError if is_of_the_machine(error) else StoreError
        kind = MissingError if isinstance(error, FileNotFoundError) else kind
        return kind(f"{self.root / name}: {reason_of(error)}")


class _Writer:
    """Appends to an open file, and has the system write it to the disk piece by piece."""

    def __init__(self, file: OpenFile, error_of: Callable[[OSError], StoreError]) -> None:
        self._file = file
        self._error_of = error_of
        self._num_bytes = self._num_flushed = 0

    def write(self, data: bytes | memoryview) -> None:
        try:  # not `with os_errors_as`, which costs more: packing writes each sample in several pieces
            write_all(self._file.descriptor, data, self._num_bytes)
        except OSError as error:
            raise self._error_of(error) from error
        self._num_bytes += len(data)
        if self._num_bytes - self._num_flushed >= _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Start writing to the disk, so that the final fsync has little left to do."""
        start, size = self._num_flushed, self._num_bytes - self._num_flushed
        self._num_flushed = self._num_bytes
        if hasattr(os, "posix_fadvise"):  # Linux starts to write pages that are not needed any more
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._file.descriptor, start, size, os.POSIX_FADV_DONTNEED)


def _rename(temporary: Path, final: Path, *, exclusive: bool) -> None:
    if not exclusive:
        temporary.replace(final)
        return
    try:
        _rename_new(temporary, final)
    except FileExistsError as error:
        raise StoreError(f"{final}: is there already; another run made it meanwhile.") from error


def _rename_new(source: Path, target: Path) -> None:
    """Rename a file, atomically, unless `target` exists already.

    If the system has no such rename, a hard link does the same. If the file system has no hard links either, a lock
    excludes other callers of this function between the check and the rename.

    Raises:
        FileExistsError: `target` exists.
        OSError: the file cannot be renamed.
    """
    for rename in (_rename_noreplace, _link_and_unlink):
        try:
            rename(source, target)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return
    guard = target.with_name(f".{target.name}.{0:032x}.tmp")  # after a kill it is removed as a temporary file
    with _guarded(guard):
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        source.replace(target)


@contextlib.contextmanager
def _guarded(guard: Path) -> Iterator[None]:
    """Keep other processes out of the block by a locked file, if the file system has locks."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(guard))
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        try:
            yield
        finally:
            guard.unlink(missing_ok=True)


def _rename_noreplace(source: Path, target: Path) -> None:
    renameat2 = _renameat2()
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    ctypes.set_errno(0)
    if renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def _link_and_unlink(source: Path, target: Path) -> None:
    os.link(source, target)
    source.unlink()


@functools.cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """Return Linux's renameat2, or None on other systems."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int
    typed: Callable[[int, bytes, int, bytes, int], int] = function
    return typed


def _fsync_folder(path: Path) -> None:
    """Make a rename durable: the folder's entry has to reach the disk too."""
    folder = OpenFile.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder.descriptor)
