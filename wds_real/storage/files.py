"""Files of the operating system: owned descriptors, complete writes, locks, and errors of this package's own."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["OpenFile", "lock", "locked", "os_errors_as", "remove_if_unlocked", "write_all"]


class OpenFile:
    """An open file, closed when the last reference to this object is gone.

    Threads and forked processes may share it for reads and writes by position. A thread in the middle of one holds a
    reference, so the descriptor is neither closed nor reused under it.

    Args:
        descriptor: Of the open file; this object closes it.
    """

    __slots__ = ("_mapped", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._mapped: memoryview | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> OpenFile:
        """Open a file, for reading by default; child processes that run another program do not inherit it."""
        return cls(os.open(path, flags | os.O_CLOEXEC, 0o666))

    def mapped(self) -> memoryview:
        """Return a read-only memory map of the whole file, the same one each time.

        The map outlives this object where a part of it is still referenced.

        Raises:
            OSError: the file cannot be mapped.
            ValueError: the file is empty.
        """
        if self._mapped is None:
            if hasattr(os, "posix_fadvise"):  # start reading from the disk before the first page is used
                os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            self._mapped = memoryview(mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ))
        return self._mapped

    def is_at(self, path: Path) -> bool:
        """Return whether `path` is this file, rather than missing or another file."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file now; only for a file that no other thread uses."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`; one system call may write only a part.

    Raises:
        OSError: the disk is full or the file cannot be written.
    """
    left = memoryview(data)
    while left:
        num_bytes = os.pwrite(descriptor, left, offset)
        left, offset = left[num_bytes:], offset + num_bytes


def lock(descriptor: int, *, wait: bool = True) -> None:
    """Lock an open file exclusively, until it is closed or this process ends.

    Raises:
        BlockingIOError: not `wait`, and the file is locked.
        OSError: the file system has no locks.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[OpenFile]:
    """Hold an exclusive lock on a file, which is created if it does not exist.

    Raises:
        OSError: the file can be neither opened nor locked.
    """
    file = OpenFile.open(path, os.O_RDWR | os.O_CREAT)
    lock(file.descriptor)
    try:
        yield file
    finally:
        fcntl.flock(file.descriptor, fcntl.LOCK_UN)  # `file` may be referenced for longer


def remove_if_unlocked(path: Path) -> bool:
    """Remove a file unless it is locked, which its writer does while it lives; return whether it was removed.

    Raises:
        OSError: the file cannot be removed.
    """
    try:
        file = OpenFile.open(path, os.O_RDWR)
        lock(file.descriptor, wait=False)
    except OSError:  # no permission, or no locks: the writer may be alive
        return False
    if not file.is_at(path):
        return False
    path.unlink()
    return True


@contextlib.contextmanager
def os_errors_as(error_of: Callable[[OSError], Exception]) -> Iterator[None]:
    """Raise `error_of(error)` from any OSError in the block; other exceptions pass through unchanged."""
    try:
        yield
    except OSError as error:
        raise error_of(error) from error
