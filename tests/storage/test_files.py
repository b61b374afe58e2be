"""files: owned descriptors, complete writes, locks, and OS errors raised as errors of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wds_real.errors import StoreError
from wds_real.storage.files import OpenFile, lock, locked, os_errors_as, remove_if_unlocked, write_all

if TYPE_CHECKING:
    from pathlib import Path


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
