"""Owner: a process that others can name, and of which this machine knows whether it still runs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from wds_real.format.owner import Owner


def test_an_owner_is_written_and_read() -> None:
    """All fields come back, and the text names work, process, user, machine and time."""
    owner = Owner.this_process("pack")
    assert Owner.from_json(owner.to_json()) == owner
    shown = str(replace(owner, host="node7", pid=12, user="ana", started="2026-01-02 03:04:05 UTC"))
    assert shown == "pack (process 12 of ana on node7, since 2026-01-02 03:04:05 UTC)"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"{}", b'{"work": 1}', b"\xff", b"[" * 3000, b'{"pid": 1e999}']
)
def test_other_bytes_name_no_owner(data: bytes) -> None:
    """A lock file that was cut, or that something else wrote, is no error."""
    assert Owner.from_json(data) is None


def test_long_texts_are_cut() -> None:
    """A claim that somebody else wrote does not fill the screen."""
    data = replace(Owner.this_process("pack"), host="h" * 10_000).to_json()
    found = Owner.from_json(data)
    assert found is not None
    assert len(str(found)) < 500


def test_a_process_is_gone_when_it_has_ended() -> None:
    """This one runs; one that ended is gone, and so is one whose number another process has by now."""
    mine = Owner.this_process("pack")
    assert not mine.is_gone()
    if not mine.machine:
        pytest.skip("this system does not say which processes run")
    code = "from wds_real.format.owner import Owner\nprint(Owner.this_process('pack').to_json().decode())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    ended = Owner.from_json(done.stdout)
    assert ended is not None
    assert ended.is_gone()
    assert replace(mine, process="1").is_gone()
    assert replace(mine, pid=2**70).is_gone()


def test_a_process_that_nobody_waited_for_has_ended() -> None:
    """Its number is still taken, but it writes nothing any more."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    mine = Owner.this_process("pack")
    assert replace(mine, pid=pid).is_gone() == bool(mine.machine)
    os.waitpid(pid, 0)


def test_a_process_of_another_machine_may_run() -> None:
    """Nothing is known of it, nor where the machine is not known."""
    mine = Owner.this_process("pack")
    assert not replace(mine, machine="another", pid=2**22 + 1).is_gone()
    assert not replace(mine, machine="", pid=2**22 + 1).is_gone()
