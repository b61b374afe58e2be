"""exclusive: lock files that name their holder, and renames that replace nothing, on any file system."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import pytest

from wds_real.storage import exclusive
from wds_real.storage.exclusive import LockHeldError, held, no_locks, rename_new
from wds_real.storage.files import locked, write_all

if TYPE_CHECKING:
    from pathlib import Path


def test_a_held_lock_says_who_holds_it_and_is_removed(tmp_path: Path) -> None:
    """A second holder gets the bytes that the first one wrote; afterwards nothing is left."""
    path = tmp_path / "lock"
    with held(path, b"first"), pytest.raises(LockHeldError) as caught, held(path, b"second"):
        pass
    assert caught.value.content == b"first"
    assert list(tmp_path.iterdir()) == []
    with held(path, b"third"):
        assert path.read_bytes() == b"third"


def test_a_holder_that_has_not_written_yet_is_waited_for(tmp_path: Path) -> None:
    """For a moment only: one that writes nothing is refused too."""
    path = tmp_path / "lock"
    with locked(path) as file:
        with pytest.raises(LockHeldError) as caught, held(path):
            pass
        assert caught.value.content == b""
        timer = threading.Timer(0.1, write_all, (file.descriptor, b"late", 0))
        timer.start()
        with pytest.raises(LockHeldError) as caught, held(path):
            pass
        timer.join()
        assert caught.value.content == b"late"


def test_a_lock_file_of_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """The next holder takes the file over, whatever it says, and removes it."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom wds_real.storage.exclusive import held\n"
        "with held(Path(sys.argv[1]), b'a longer text than the next one'):\n os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "lock"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"a longer text than the next one"
    with held(path, b"next"):
        assert path.read_bytes() == b"next"
    assert list(tmp_path.iterdir()) == []


def test_one_thread_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    """Waiting holders come one after the other, though each removes the file."""
    inside, most = [0], [0]

    def hold(number: int) -> None:
        del number
        with held(tmp_path / "lock", wait=True):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(400)))
    assert most == [1]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_does_not_follow_a_symbolic_link(tmp_path: Path) -> None:
    """The file that a planted link names stays as it is."""
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "lock").symlink_to("theirs")
    with pytest.raises(OSError, match="is a symbolic link"), held(tmp_path / "lock", b"mine"):
        pass
    assert (tmp_path / "theirs").read_bytes() == b"theirs"


def test_where_there_are_no_locks_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the system's, and `no_locks` knows it."""
    monkeypatch.setattr(fcntl, "flock", _failing(errno.ENOLCK))
    with pytest.raises(OSError, match="No locks") as caught, held(tmp_path / "lock"):
        pass
    assert no_locks(caught.value)
    assert not no_locks(OSError(errno.EACCES, "x"))
    assert list(tmp_path.iterdir()) == []


def _failing(number: int) -> object:
    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture(params=["renameat2", "link", "lock", "nothing"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a file system has for a rename that replaces nothing; each lacks what comes before."""
    kinds = ["renameat2", "link", "lock", "nothing"]
    lacks = kinds[: kinds.index(request.param)]
    if "renameat2" in lacks:
        monkeypatch.setattr(exclusive, "_renameat2", lambda: None)
    if "link" in lacks:
        monkeypatch.setattr(os, "link", _failing(errno.EPERM))
    if "lock" in lacks:
        monkeypatch.setattr(fcntl, "flock", _failing(errno.EOPNOTSUPP))
    return str(request.param)


def test_a_new_name_is_given_once(tmp_path: Path, file_system: str) -> None:
    """The second rename is an error that changes nothing, whatever the file system has for it."""
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(name.encode())
    rename_new(tmp_path / "first", tmp_path / "there")
    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "second", tmp_path / "there")
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"there": b"first", "second": b"second"}, file_system


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_any_answer_that_there_are_no_links_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """exFAT, SMB and FUSE file systems answer differently."""
    monkeypatch.setattr(exclusive, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "link", _failing(number))
    (tmp_path / "a").touch()
    rename_new(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_other_errors_of_a_rename_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is not taken for a file system without links."""
    (tmp_path / "a").touch()
    with pytest.raises(FileNotFoundError):
        rename_new(tmp_path / "missing", tmp_path / "b")
    monkeypatch.setattr(exclusive, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "link", _failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        rename_new(tmp_path / "a", tmp_path / "b")


def test_one_of_many_threads_gives_a_new_name(tmp_path: Path, file_system: str) -> None:
    """All others fail, except where the file system has neither links nor locks."""
    if file_system == "nothing":
        pytest.skip("nothing excludes two writers there but the claim of the whole folder")

    def give(number: int) -> bool:
        path = tmp_path / str(number)
        path.touch()
        try:
            rename_new(path, tmp_path / "there")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(give, range(64))) == 1


def test_a_lock_file_with_a_second_name_is_not_written_to(tmp_path: Path) -> None:
    """A planted hard link would change a file elsewhere."""
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "lock").hardlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match="second name"), held(tmp_path / "lock", b"mine"):
        pass
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
