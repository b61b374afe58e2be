"""Files of the operating system: descriptors with an owner, complete writes, locks, and reasons of errors.

`OpenFile.open` never blocks. Anything but a regular file is an error, because opening a named pipe would block until
another process writes to it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import resource
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "FileVersion",
    "OpenFile",
    "check_owner",
    "check_single_name",
    "is_of_the_machine",
    "lock",
    "locked",
    "make_own_folder",
    "max_kept_files",
    "os_errors_as",
    "read_bytes",
    "reason_of",
    "remove_if_unlocked",
    "stand_in",
    "write_all",
]

_MAX_KEPT_FILES = 128
_SHARE_OF_LIMIT = 4  # a process has other files open: the interpreter's, the model's, those of other stores
# These errors are about the named file. All others are about the machine: its limits, memory, disks, permissions.
_OF_THE_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO}
_ADVICE = {
    errno.ENFILE: "The machine has too many open files.",
    errno.ENOMEM: "The machine is out of memory.",
    errno.EIO: "The disk or the network file system failed: see the system's log.",
    errno.ENOSPC: "Make room, or choose another place.",
    errno.EDQUOT: "Make room, or choose another place.",
}
_LFS_POINTER = b"version https://git-lfs"
_HTML = re.compile(rb"\s*<(!doctype\s+html|html)", re.IGNORECASE)
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class FileVersion:
    """Length and times of a file, which differ after its content was changed or another file took its name.

    Attributes:
        num_bytes: The file's length.
        mtime_ns: Time of the last write.
        ctime_ns: Time of the last change of content or metadata, which programs cannot set.
    """

    num_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileVersion:
        """Return the version in the result of `os.stat`."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class OpenFile:
    """An open file, closed when the last reference to this object is gone.

    Threads and forked processes may share it for reads and writes by position. A thread that reads or writes holds a
    reference, so the descriptor is neither closed nor reused meanwhile.

    Args:
        descriptor: Descriptor of the open file, which this object closes.
    """

    __slots__ = ("_mapped", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._mapped: memoryview | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> OpenFile:
        """Open a regular file, for reading by default; programs that this process starts do not inherit it.

        With ``os.O_DIRECTORY`` in `flags`, open a folder.

        Raises:
            OSError: the file cannot be opened, is not a regular one, or, with ``os.O_NOFOLLOW``, is a symbolic link.
        """
        try:
            file = cls(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666))
        except OSError as error:
            if error.errno == errno.ENXIO:  # a socket, or a named pipe to be written
                raise _not_regular(path, os.stat(path).st_mode) from error  # noqa: PTH116 -- any path
            if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
                raise OSError(errno.ELOOP, "is a symbolic link, which is not followed here", str(path)) from error
            raise
        mode = os.fstat(file.descriptor).st_mode
        if not (stat.S_ISREG(mode) or flags & os.O_DIRECTORY):
            raise _not_regular(path, mode)
        return file

    def mapped(self) -> memoryview:
        """Return a read-only memory map of the whole file, the same one each time.

        The map outlives this object as long as a part of it is referenced.

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
        """Return whether `path` still names this file."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), path.stat())
        except FileNotFoundError:
            return False

    def close(self, _close: Callable[[int], None] = os.close) -> None:
        """Close the file now, while no other thread uses it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            _close(descriptor)  # an argument, because at exit Python may clear the module `os` first

    def __del__(self) -> None:
        self.close()


def _not_regular(path: str | os.PathLike[str], mode: int) -> OSError:
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((name for matches, name in _KINDS if matches(mode)), "something else")
    return OSError(errno.EINVAL, f"is {kind}, expected a regular file", str(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: as `OpenFile.open`, or the file cannot be read.
    """
    file, parts = OpenFile.open(path), list[bytes]()
    num_bytes = os.fstat(file.descriptor).st_size + 1  # not 0 for files that report no length, such as those of /proc
    while part := os.read(file.descriptor, num_bytes):
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def max_kept_files() -> int:
    """Return how many files a store may keep open for later reads, given the limit of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_KEPT_FILES
    return max(1, min(_MAX_KEPT_FILES, soft // _SHARE_OF_LIMIT))


def is_of_the_machine(error: OSError) -> bool:
    """Return whether an error is about this machine (limits, memory, disk, permissions), not about the file."""
    return error.errno is not None and error.errno not in _OF_THE_FILE


def reason_of(error: OSError) -> str:
    """Return the system's reason as a sentence, followed by what to do if that is known."""
    reason = f"{error.strerror or error}."
    if error.errno == errno.EMFILE:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return f"{reason} The limit of this process is {soft}: raise it with `ulimit -n`."
    return " ".join((reason, _ADVICE.get(error.errno or 0, ""))).strip()


def make_own_folder(path: Path, *, mode: int = 0o700) -> None:
    """Make a folder with these permissions unless it exists, and check its owner; parents get the usual permissions.

    Raises:
        OSError: it cannot be made, or another user owns it, who could put links and files into it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=mode)
    check_owner(path.stat(), path)


def check_owner(status: os.stat_result, path: Path) -> None:
    """Raise PermissionError unless this user or root owns a file or folder; root accepts any owner."""
    user = os.geteuid()
    if user and status.st_uid not in (user, 0):
        raise PermissionError(errno.EACCES, f"belongs to another user (uid {status.st_uid})", str(path))


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
    """Hold an exclusive lock on a file, which is created if it does not exist; a symbolic link is not followed.

    If another holder removed or renamed the file, a new one is created and locked.

    Raises:
        OSError: the file cannot be opened or locked, or has a second hard link.
    """
    while True:
        file = OpenFile.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        check_single_name(file, path)
        lock(file.descriptor)
        if file.is_at(path):
            break
    try:
        yield file
    finally:
        fcntl.flock(file.descriptor, fcntl.LOCK_UN)  # `file` may be referenced for longer


def check_single_name(file: OpenFile, path: Path) -> None:
    """Raise OSError if a file has a second hard link: writing to it would change that file too."""
    if os.fstat(file.descriptor).st_nlink > 1:
        raise OSError(errno.EMLINK, "has a second name elsewhere (a hard link)", str(path))


def remove_if_unlocked(path: Path) -> bool:
    """Remove a file unless its writer, which locks it, is still running; return whether it was removed.

    Raises:
        OSError: the file cannot be removed.
    """
    try:
        file = OpenFile.open(path, os.O_RDWR | os.O_NOFOLLOW)
        lock(file.descriptor, wait=False)
    except OSError:  # locked, no permission, or no locks: the writer may be running
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


def stand_in(start: bytes, *, may_be_xml: bool = False) -> str | None:
    r"""Return what a file is that was downloaded in place of another one, and what to do; None for any other file.

    >>> stand_in(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    'a Git LFS pointer, not the file itself. Run `git lfs pull` where it was cloned.'

    Args:
        start: The first bytes of the file; 256 are enough.
        may_be_xml: Whether the expected file may be XML; if so, only HTML counts as a web page.
    """
    if start.startswith(_LFS_POINTER):
        return "a Git LFS pointer, not the file itself. Run `git lfs pull` where it was cloned."
    if _HTML.match(start) or (not may_be_xml and start.lstrip()[:1] == b"<"):
        return "looks like a web page, often the one around a download, or a sign-in. Download the file itself."
    return None
