"""The process that writes to a root, described so that others can name it and see whether it still runs."""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import pwd
import socket
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

__all__ = ["Owner", "utc"]

_MAX_SHOWN = 80  # characters of a text that another process wrote
_ENDED = "ZX"  # Linux's states of a process that has ended, but whose exit status its parent has not read


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that writes.

    Attributes:
        work: What it does, such as ``pack``.
        host: Name of its machine.
        pid: Its process ID there.
        user: Name of its user.
        started: When it began to write, in UTC.
        machine: Boot ID and PID namespace, the same for all processes that see each other's IDs; "" if unknown.
        process: Start time of the process, by which it differs from a later one with the same ID; "" if unknown.
    """

    work: str
    host: str
    pid: int
    user: str
    started: str
    machine: str
    process: str

    @classmethod
    def this_process(cls, work: str) -> Owner:
        """Return this process as the owner."""
        pid, started = os.getpid(), utc(time.time(), "%Y-%m-%d %H:%M:%S UTC")
        return cls(work, socket.gethostname(), pid, _user(), started, _machine(), _start_of(pid))

    @classmethod
    def from_json(cls, data: bytes) -> Owner | None:
        """Return the owner that these bytes name, or None if they name none."""
        try:
            values = json.loads(data)
            texts = {field.name: str(values[field.name])[:_MAX_SHOWN] for field in fields(cls) if field.name != "pid"}
            return cls(**texts, pid=int(values["pid"]))
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            return None

    def to_json(self) -> bytes:
        """Return the bytes that `from_json` reads."""
        return (json.dumps(asdict(self)) + "\n").encode("ascii")

    def is_gone(self) -> bool:
        """Return whether this was a process of this machine that has ended; False if that cannot be known."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:  # another user's
            pass
        started = _start_of(self.pid)
        return bool(started) and started != self.process

    def __str__(self) -> str:
        return f"{self.work} (process {self.pid} of {self.user} on {self.host}, since {self.started})"


def utc(seconds: float, form: str) -> str:
    """Return a time in UTC.

    >>> utc(0, "%H:%M")
    '00:00'
    """
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime(form)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@functools.cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """Return when a process started, ``ended`` if it has ended, or "" if that cannot be seen."""
    try:
        fields_after_name = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return "ended" if fields_after_name[0] in _ENDED else fields_after_name[19]
    except (OSError, IndexError):
        return ""
