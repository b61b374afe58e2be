"""What only one of several processes gets: a lock file that names its holder, and a new name for a file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import time
from typing import TYPE_CHECKING

from wds_real.storage.files import OpenFile, check_single_name, lock, write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["LockHeldError", "held", "no_locks", "rename_new"]

# What file systems answer that have no such operation: exFAT and SMB, FUSE file systems such as gcsfuse, old kernels.
_UNSUPPORTED = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_NO_LOCKS = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK}
_EMPTY_S, _MAX_EMPTY = 0.01, 50
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # of Linux


class LockHeldError(Exception):
    """A lock file is held by another process.

    Attributes:
        content: The bytes of the lock file, which its holder wrote.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content


@contextlib.contextmanager
def held(path: Path, content: bytes = b"", *, wait: bool = False) -> Iterator[OpenFile]:
    """Hold a lock file that says who holds it, and remove it at the end.

    A file that a killed process left is not locked, so it is taken over.

    Args:
        path: Of the lock file; its folder exists.
        content: Written to the file.
        wait: Wait for another holder, instead of raising LockHeldError.

    Raises:
        LockHeldError: another process, or another block of this one, holds the lock.
        OSError: the file cannot be made, or the file system has no locks; see `no_locks`.
    """
    empty = 0
    while True:
        file = _opened_lock(path)
        try:
            lock(file.descriptor, wait=wait)
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
    """Return whether an error of `lock`, `locked` or `held` says that the file system has no locks."""
    return error.errno in _NO_LOCKS


def rename_new(source: Path, target: Path) -> None:
    """Rename a file, atomically, unless `target` exists already.

    Where the system has no such rename, a hard link does the same; where there are no hard links either, a lock keeps
    other callers of this function away between the look and the rename.

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
    with contextlib.ExitStack() as stack:
        try:  # the name of a temporary file, so that one of a killed process is removed as such
            stack.enter_context(held(target.with_name(f".{target.name}.{0:032x}.tmp"), wait=True))
        except OSError as error:
            if not no_locks(error):
                raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        source.replace(target)


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
