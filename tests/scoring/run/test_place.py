"""The output folder: refused at the start where it cannot be written to, and written by one run at a time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wds_real.errors import PredictionsError
from wds_real.scoring.run.place import LOCK_NAME, OutputPlace
from wds_real.storage.files import locked

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys, time
from wds_real.scoring.run.place import OutputPlace
with OutputPlace(sys.argv[1]).owned("eval on 2 ranks"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_that_can_be_made_is_not_made_yet(tmp_path: Path) -> None:
    """The check makes nothing, neither in a folder that is there nor for one that is not."""
    for folder in (tmp_path, tmp_path / "new", tmp_path / "new" / "run"):
        OutputPlace(folder).check()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("file", "file: is not a folder. --output takes a folder"),
        ("file/run", "is not a folder"),
        ("dangling", "is not a folder"),
        ("https://host/run?secret=x", r"https://host/run: a web server can only be read"),
        ("a\0b", r"a\\x00b: cannot be used"),
        ("x" * 300, "cannot be"),
    ],
)
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str, says: str) -> None:
    """A file, a URL and an impossible name are refused with what they are."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nothing")
    output = name if "://" in name else f"{tmp_path}/{name}"
    with pytest.raises(PredictionsError, match=says), OutputPlace(output).owned("eval"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_refused(tmp_path: Path) -> None:
    """A folder that this user may not write to is named at the start, also if a new one would be made in it."""
    (tmp_path / "closed").mkdir(mode=0o555)
    for folder in (tmp_path / "closed", tmp_path / "closed" / "run"):
        with pytest.raises(PredictionsError, match=re.escape(f"{tmp_path}/closed: cannot be written to")):
            OutputPlace(folder).check()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc stands for a place that takes no folder")
def test_a_place_that_refuses_writing_is_refused() -> None:
    """A file system that takes no new folders is named, whatever the rights say."""
    with pytest.raises(PredictionsError, match=r"/proc/self.*cannot be"), OutputPlace("/proc/self/run").owned("eval"):
        pass


def test_a_second_run_is_told_who_writes_there(tmp_path: Path) -> None:
    """While a process holds the folder, others are refused and told its work, number, host and start."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        says = rf"run: eval on 2 ranks \(process {holder.pid} of .*, since .*\) writes there\. Wait until"
        with pytest.raises(PredictionsError, match=says), OutputPlace(tmp_path / "run").owned("merge"):
            pass
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / "run" / LOCK_NAME).exists()
    with OutputPlace(tmp_path / "run").owned("eval"):  # the lock of a killed process is free
        pass
    assert [*(tmp_path / "run").iterdir()] == []


def test_a_holder_without_a_name_is_refused_too(tmp_path: Path) -> None:
    """A lock whose file does not say who holds it is a lock all the same, also of the same process."""
    (tmp_path / LOCK_NAME).write_bytes(b"no owner")
    with (
        locked(tmp_path / LOCK_NAME),
        pytest.raises(PredictionsError, match="another process writes there"),
        OutputPlace(tmp_path).owned("eval"),
    ):
        pass
    with (
        OutputPlace(tmp_path).owned("eval"),
        pytest.raises(PredictionsError, match=r"eval .* writes there"),
        OutputPlace(tmp_path).owned("x"),
    ):
        pass
