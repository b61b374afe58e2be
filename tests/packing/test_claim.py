"""Claims of roots: one writer at a time, told apart by name, with nothing left behind and nothing blocked by a kill."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wds_real.errors import StoreError, UnavailableError
from wds_real.packing.claim import claimed
from wds_real.storage.local import LocalStore
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wds_real.storage.base import Store

NUMBERS = itertools.count()
NOBODY = 65534


@pytest.fixture(params=["folder", "folder without locks", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Store]:
    """A function that opens the same empty root again and again."""
    if request.param == "memory":
        url = f"memory://claims-{next(NUMBERS)}"
        return lambda: open_store(url)
    if request.param == "folder without locks":

        def flock(*_: int) -> None:
            raise OSError(errno.EOPNOTSUPP, "no locks")

        monkeypatch.setattr(fcntl, "flock", flock)
    return lambda: LocalStore(tmp_path / "root")


def enter(root: Store, *, overwrite: bool = False, advice: str = "Choose another place.") -> None:
    with claimed(root, "pack", overwrite=overwrite, advice=advice):
        pass


def test_a_second_writer_is_refused_and_told_who_writes(opened: Callable[[], Store]) -> None:
    """The message names the work, the process and the machine; when the first has ended, the second may write."""
    with claimed(opened(), "index", overwrite=False):
        with pytest.raises(StoreError, match=rf"is being written by index \(process {os.getpid()} of .* on .*UTC\)"):
            enter(opened())
        with pytest.raises(StoreError, match="is being written by"):
            enter(opened(), overwrite=True)
    enter(opened())


def test_nothing_is_left_of_a_claim(opened: Callable[[], Store], tmp_path: Path) -> None:
    """Neither of one that was granted nor of one that was refused, nor a folder that was made for it."""
    with claimed(opened(), "pack", overwrite=False), pytest.raises(StoreError):
        enter(opened())
    assert opened().list() == []
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_releases_the_claim(opened: Callable[[], Store]) -> None:
    """It passes through unchanged."""
    with pytest.raises(KeyError, match="mine"), claimed(opened(), "pack", overwrite=False):
        raise KeyError("mine")
    enter(opened())


def test_what_was_written_stays(opened: Callable[[], Store]) -> None:
    """Only what the claim made is removed."""
    with claimed(opened(), "pack", overwrite=False):
        opened().put("a", b"x")
    assert opened().list() == ["a"]


def test_a_finished_set_is_refused_unless_it_is_to_be_replaced(opened: Callable[[], Store]) -> None:
    """With overwrite it is still there when the block starts: replacing it is up to the caller."""
    opened().put("manifest.json", b"{}")
    with pytest.raises(StoreError, match="--overwrite"):
        enter(opened())
    with claimed(opened(), "pack", overwrite=True):
        assert opened().get("manifest.json") == b"{}"


def test_a_check_within_the_block_passes(opened: Callable[[], Store]) -> None:
    """As long as nobody else took the root."""
    with claimed(opened(), "pack", overwrite=False) as claim:
        claim.check()


def test_a_killed_writer_blocks_nobody(tmp_path: Path) -> None:
    """Its lock file and its unfinished files go when the next writer starts."""
    code = (
        "import os\nfrom pathlib import Path\nfrom wds_real.packing.claim import claimed\n"
        "from wds_real.storage.local import LocalStore\n"
        "store = LocalStore(Path('.'))\n"
        "with claimed(store, 'pack', overwrite=False), store.create('manifest.json') as file:\n"
        " file.write(b'x')\n os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    enter(LocalStore(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_leftovers_beside_a_finished_set_go(tmp_path: Path) -> None:
    """A writer that was killed after its manifest was there leaves nothing for good, though the set is refused."""
    left = tmp_path / f".manifest.json.{0:032x}.tmp"
    (tmp_path / "manifest.json").write_bytes(b"{}")
    os.link(tmp_path / "manifest.json", left)
    (tmp_path / ".wds_real.lock").write_bytes(b"{}")
    with pytest.raises(StoreError, match="finished set"):
        enter(LocalStore(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_place_that_cannot_be_written_to_is_refused_at_once(tmp_path: Path) -> None:
    """Read-only folders, files and web servers, with the advice of the caller."""
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"file: is a file"):
        enter(LocalStore(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"below: is a file|cannot be written to: Not a directory"):
        enter(LocalStore(tmp_path / "file" / "below"))
    with pytest.raises(UnavailableError, match=r"can only be read\. Pass --output"):
        enter(open_store("http://127.0.0.1:9/set"), advice="Pass --output to write elsewhere.")
    code = f"""
import os
from pathlib import Path
from wds_real.errors import StoreError
from wds_real.packing.claim import claimed
from wds_real.format.owner import Owner
from wds_real.storage.local import LocalStore
Owner.this_process("pack").to_json()  # loads what another user may not read
if os.getuid() == 0: os.setuid({NOBODY})
for place in ("empty", "empty/below", "finished"):
    try:
        with claimed(LocalStore(Path(place)), "pack", overwrite=False): print("no error")
    except StoreError as error: print(error)
"""
    tmp_path.chmod(0o755)
    for name in ("empty", "finished"):
        (tmp_path / name).mkdir()
    (tmp_path / "finished" / "manifest.json").write_bytes(b"{}")
    for name in ("empty", "finished"):
        (tmp_path / name).chmod(0o555)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "empty: cannot be written to: Permission denied. Choose another place."
    assert lines[1] == "empty/below: cannot be written to: Permission denied. Choose another place."
    assert lines[2].startswith("finished: holds a finished set already.")


def test_a_lock_file_of_another_user_blocks_nobody(tmp_path: Path) -> None:
    """One that may not be written to is replaced, where the folder may be written to."""
    (tmp_path / ".wds_real.lock").write_bytes(b"theirs")
    (tmp_path / ".wds_real.lock").chmod(0o444)
    tmp_path.chmod(0o777)
    code = f"""
import os
from pathlib import Path
from wds_real.packing.claim import claimed
from wds_real.format.owner import Owner
from wds_real.storage.local import LocalStore
Owner.this_process("pack").to_json()  # loads what another user may not read
if os.getuid() == 0: os.setuid({NOBODY})
with claimed(LocalStore(Path(".")), "pack", overwrite=False): print(Path(".wds_real.lock").stat().st_uid == os.getuid())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert list(tmp_path.iterdir()) == []
