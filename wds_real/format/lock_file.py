"""A lock file whose content says who holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from wds_real.storage.files import OpenFile, check_single_name, lock, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LockHeldError", "held", "no_locks"]

_NO_LOCKS = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK}
_EMPTY_S, _MAX_EMPTY = 0.01, 50


class LockHeldError(Exception):
    """A lock file is held by another process.

    Attributes:
        content: The bytes of the lock file, which its holder wrote.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content


@contextlib.contextmanager
def held(path: Path, content: bytes = b"") -> Iterator[OpenFile]:
    """Hold a lock file that says who holds it, and remove it at the end.

    A file that a killed process left is not locked, so it is taken over.

    Args:
        path: Path of the lock file, in a folder that exists.
        content: What is written to the file.

    Raises:
        LockHeldError: another process, or another block of this one, holds the lock.
        OSError: the file cannot be made, or the file system has no locks; see `no_locks`.
    """
    empty = 0
    while True:
        file = _opened_lock(path)
        try:
            lock(file.descriptor, wait=False)
        except BlockingIOError:
            if (found := os.pread(file.descriptor, 4096, 0)) or empty == _MAX_EMPTY:
                raise LockHeldError(found) from None
            empty += 1
            time.sleep(_EMPTY_S)  # the holder is about to write, or to remove the file
            continue
        except OSError as error:
            if no_locks(error):
                path.unlink(missing_ok=True)
            raise
        if not file.is_at(path):  # its holder removed it between the two calls
            continue
        if fcntl.fcntl(file.descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
            break
        path.unlink(missing_ok=True)  # left by a process of another user
    try:
        check_single_name(file, path)
        os.ftruncate(file.descriptor, 0)
        write_all(file.descriptor, content, 0)
        yield file
    finally:
        if file.is_at(path):
            path.unlink(missing_ok=True)
        fcntl.flock(file.descriptor, fcntl.LOCK_UN)


def _opened_lock(path: Path) -> OpenFile:
    """Open a lock file, for reading only where it is another user's; a symbolic link is not followed."""
    try:
        return OpenFile.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except PermissionError as error:
        try:
            return OpenFile.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise error from None


def no_locks(error: OSError) -> bool:
    """Return whether an error of `held` says that the file system has no locks."""
    return error.errno in _NO_LOCKS
