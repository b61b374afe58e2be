"""Lock files: one holder at a time, who is named, and none that a kill leaves behind."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import pytest

from wds_real.format import lock_file
from wds_real.format.lock_file import LockHeldError, held, no_locks
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


def test_a_holder_that_has_not_written_yet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment only: one that writes nothing is refused too."""
    path = tmp_path / "lock"
    with locked(path) as file:
        with pytest.raises(LockHeldError) as caught, held(path):
            pass
        assert caught.value.content == b""
        monkeypatch.setattr(lock_file, "_MAX_EMPTY", 6000)  # a minute
        timer = threading.Timer(0.1, write_all, (file.descriptor, b"late", 0))
        timer.start()
        with pytest.raises(LockHeldError) as caught, held(path):
            pass
        timer.join()
        assert caught.value.content == b"late"


def test_a_lock_file_of_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """The next holder takes the file over, whatever it says, and removes it."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom wds_real.format.lock_file import held\n"
        "with held(Path(sys.argv[1]), b'a longer text than the next one'):\n os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "lock"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"a longer text than the next one"
    with held(path, b"next"):
        assert path.read_bytes() == b"next"
    assert list(tmp_path.iterdir()) == []


def test_one_thread_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    """Though each holder removes the file; the others are refused."""
    inside, most, refused = [0], [0], [0]

    def hold(number: int) -> None:
        try:
            with held(tmp_path / "lock", b"%d" % number):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1
        except LockHeldError:
            refused[0] += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(200)))
    assert most == [1]
    assert refused[0] < 200
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


def test_a_lock_file_with_a_second_name_is_not_written_to(tmp_path: Path) -> None:
    """A planted hard link would change a file elsewhere."""
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "lock").hardlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match="second name"), held(tmp_path / "lock", b"mine"):
        pass
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
