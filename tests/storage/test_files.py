"""files: owned descriptors, complete writes, locks, and OS errors raised as errors of this package."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wds_real.errors import StoreError
from wds_real.storage.files import (
    FileVersion,
    OpenFile,
    check_owner,
    is_of_the_machine,
    lock,
    locked,
    make_own_folder,
    max_kept_files,
    os_errors_as,
    read_bytes,
    reason_of,
    remove_if_unlocked,
    write_all,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


NOT_REGULAR: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is a named pipe, expected a regular file"),
    "socket": (make_socket, "is a socket, expected a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device, expected a regular file"),
    "folder": (lambda path: path.mkdir(), "Is a directory"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(b"0123456789")
    return made


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_file_is_closed_with_its_last_reference(path: Path) -> None:
    """Another reference, such as that of a thread which is reading, keeps the descriptor open."""
    file = OpenFile.open(path)
    reader, descriptor = file, file.descriptor
    del file
    assert os.pread(reader.descriptor, 3, 2) == b"234"
    del reader
    assert not is_open(descriptor)


def test_closing_twice_closes_no_other_file(path: Path) -> None:
    """A descriptor number that the system gave to another file meanwhile stays open."""
    file = OpenFile.open(path)
    number = file.descriptor
    file.close()
    other = OpenFile.open(path)
    file.close()
    del file
    assert other.descriptor == number
    assert is_open(other.descriptor)


def test_a_file_that_cannot_be_opened_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is closed that was never open."""
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    with pytest.raises(FileNotFoundError):
        OpenFile.open(tmp_path / "missing")
    assert raised == []


def test_programs_started_meanwhile_do_not_inherit_the_file(path: Path) -> None:
    """The descriptor is closed in a child process that runs another program."""
    file = OpenFile.open(path)
    code = f"import os\nos.fstat({file.descriptor})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, close_fds=False)
    assert b"Bad file descriptor" in done.stderr


def test_a_map_is_made_once_and_outlives_its_file(path: Path) -> None:
    """A part of the map can be read after the file object is gone."""
    file = OpenFile.open(path)
    assert file.mapped() is file.mapped()
    part = file.mapped()[2:5]
    del file
    assert part.readonly
    assert bytes(part) == b"234"


def test_an_empty_file_has_no_map(tmp_path: Path) -> None:
    """The system cannot map no bytes."""
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty"):
        OpenFile.open(tmp_path / "empty").mapped()


def test_a_file_is_told_from_its_replacement(path: Path) -> None:
    """`is_at` is False where the path is gone or is another file."""
    file = OpenFile.open(path)
    assert file.is_at(path)
    path.rename(path.with_name("moved"))
    assert not file.is_at(path)
    path.write_bytes(b"0123456789")
    assert not file.is_at(path)
    assert file.is_at(path.with_name("moved"))


@pytest.mark.parametrize("form", [bytes, memoryview])
def test_all_bytes_are_written(path: Path, monkeypatch: pytest.MonkeyPatch, form: type[bytes | memoryview]) -> None:
    """A system call that writes only a part is followed by another one, at the right place."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:3], offset))
    file = OpenFile.open(path, os.O_RDWR)
    write_all(file.descriptor, form(b"abcdefgh"), 1)
    write_all(file.descriptor, form(b""), 1)
    assert path.read_bytes() == b"0abcdefgh9"


def test_a_lock_excludes_others_until_the_block_ends(path: Path) -> None:
    """A second lock fails within the block and works after it, though the block's file is still referenced."""
    other = OpenFile.open(path)
    with locked(path) as held, pytest.raises(BlockingIOError):
        lock(other.descriptor, wait=False)
    lock(other.descriptor, wait=False)
    assert is_open(held.descriptor)


def test_a_lock_makes_its_file(tmp_path: Path) -> None:
    """The file to lock need not exist; an existing one keeps its bytes."""
    with locked(tmp_path / "lock") as file:
        write_all(file.descriptor, b"kept", 0)
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_bytes() == b"kept"


def test_a_lock_ends_with_its_process(path: Path) -> None:
    """A process that is killed leaves no lock behind."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom wds_real.storage.files import locked\n"
        f"with locked(Path({str(path)!r})):\n print('ready', flush=True)\n time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert not remove_if_unlocked(path)
        process.kill()
    assert remove_if_unlocked(path)


def test_only_unlocked_files_are_removed(path: Path) -> None:
    """A locked file stays; an unlocked one goes; a missing one is not an error."""
    with locked(path):
        assert not remove_if_unlocked(path)
        assert path.exists()
    assert remove_if_unlocked(path)
    assert not path.exists()
    assert not remove_if_unlocked(path)


def test_os_errors_become_the_given_error() -> None:
    """The OSError is the cause; other exceptions pass through unchanged."""
    problem = OSError(28, "No space left on device")
    with pytest.raises(StoreError, match=r"^a: No space left") as caught, os_errors_as(_store_error):
        raise problem
    assert caught.value.__cause__ is problem
    with pytest.raises(KeyError, match="mine"), os_errors_as(_store_error):
        raise KeyError("mine")


def _store_error(error: OSError) -> StoreError:
    return StoreError(f"a: {error.strerror}")


@pytest.mark.parametrize("kind", NOT_REGULAR)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT])
def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, flags: int) -> None:
    """Anything else is an error at once: a named pipe without another end does not block."""
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = tmp_path / "it"
    make, reason = NOT_REGULAR[kind]
    make(path.relative_to(tmp_path) if kind == "socket" else path)
    with pytest.raises(OSError, match=reason):
        OpenFile.open(path, flags)
    with pytest.raises(OSError, match=reason):
        read_bytes(path)


@pytest.mark.parametrize("num_bytes", [0, 1, 3_000_000])
def test_a_whole_file_is_read(tmp_path: Path, num_bytes: int) -> None:
    """Whatever its length."""
    data = os.urandom(num_bytes)
    (tmp_path / "file").write_bytes(data)
    assert read_bytes(tmp_path / "file") == data


def test_a_lock_follows_no_link(tmp_path: Path) -> None:
    """Neither a symbolic link, also a broken one, nor another name of a file elsewhere."""
    outside = tmp_path / "outside"
    for target in ("missing", "there"):
        if target == "there":
            outside.write_bytes(b"mine")
        path = tmp_path / f"link to {target}"
        path.symlink_to(outside)
        with pytest.raises(OSError, match="is a symbolic link, which is not followed here"), locked(path):
            pass
        assert outside.exists() == (target == "there")
    (tmp_path / "second name").hardlink_to(outside)
    with pytest.raises(OSError, match="has a second name elsewhere"), locked(tmp_path / "second name"):
        pass
    assert outside.read_bytes() == b"mine"


def test_a_folder_of_our_own_is_private(tmp_path: Path) -> None:
    """It is made with its parents; one that is there keeps its rights."""
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        make_own_folder(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
    tmp_path.chmod(0o750)
    make_own_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(("user", "owner", "good"), [(7, 7, True), (7, 0, True), (7, 8, False), (0, 8, True)])
def test_what_another_user_owns_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, owner: int, *, good: bool
) -> None:
    """This user and root are trusted; root may use everything, because a container's user often is root."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    status = os.stat_result((*tmp_path.stat()[:4], owner, *tmp_path.stat()[5:]))
    if good:
        check_owner(status, tmp_path)
        return
    with pytest.raises(PermissionError, match=rf"belongs to another user \(uid {owner}\)"):
        check_owner(status, tmp_path)


@pytest.mark.parametrize(
    ("limit", "kept"), [(8, 2), (64, 16), (1024, 128), (1 << 20, 128), (resource.RLIM_INFINITY, 128), (2, 1)]
)
def test_files_kept_open_follow_the_limit(monkeypatch: pytest.MonkeyPatch, limit: int, kept: int) -> None:
    """A quarter of the limit, at most 128."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert max_kept_files() == kept


@pytest.mark.parametrize(
    ("code", "of_the_machine", "reason"),
    [
        (errno.ENOENT, False, "No such file or directory."),
        (errno.EISDIR, False, "Is a directory."),
        (errno.ELOOP, False, "Too many levels of symbolic links."),
        (errno.EMFILE, True, "raise it with `ulimit -n`."),
        (errno.ENFILE, True, "The machine has too many open files."),
        (errno.ENOMEM, True, "The machine is out of memory."),
        (errno.EIO, True, "The disk or the network file system failed: see the system's log."),
        (errno.ENOSPC, True, "Make room, or choose another place."),
        (errno.EDQUOT, True, "Make room, or choose another place."),
        (errno.EACCES, True, "Permission denied."),
        (errno.ESTALE, True, "Stale file handle."),
    ],
)
def test_errors_of_the_machine_are_told_from_those_of_a_file(code: int, reason: str, *, of_the_machine: bool) -> None:
    """What says nothing of the file is the machine's, and says what to do."""
    error = OSError(code, os.strerror(code))
    assert is_of_the_machine(error) == of_the_machine
    assert reason_of(error).startswith(os.strerror(code))
    assert reason_of(error).endswith(reason)


def test_an_error_without_a_code_is_of_the_file() -> None:
    """It comes from Python, not from the system."""
    assert not is_of_the_machine(OSError("cannot be mapped"))
    assert reason_of(OSError("cannot be mapped")) == "cannot be mapped."


def test_a_version_changes_with_content_and_with_another_file(path: Path) -> None:
    """Also where the length stays and the time of the last write is set back."""
    before, status = FileVersion.of(path.stat()), path.stat()
    path.write_bytes(b"9876543210")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    rewritten = FileVersion.of(path.stat())
    other = path.with_name("other")
    other.write_bytes(b"0000000000")
    shutil.copystat(path, other)
    other.replace(path)
    assert len({before, rewritten, FileVersion.of(path.stat())}) == 3
    assert {before.mtime_ns} == {rewritten.mtime_ns}


def test_a_file_is_closed_where_python_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that outlives the module `os`, which Python clears before its last objects."""
    (tmp_path / "file").touch()
    file = OpenFile.open(tmp_path / "file")
    descriptor = file.descriptor
    monkeypatch.setattr("wds_real.storage.files.os", None)
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
