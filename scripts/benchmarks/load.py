"""CPU time that other processes used during a run: if it is high, the numbers of the run are not reliable."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Load"]

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # columns of /proc/stat: idle, and waiting for a disk
_GUESTS = 8  # this column and those after it are also part of others


class Load(NamedTuple):
    """CPU seconds of the whole machine since it started, and of this process and its children."""

    at: float
    machine_s: float
    own_s: float

    @classmethod
    def now(cls) -> Load:
        """Read the clocks; `machine_s` is 0 on systems without /proc/stat."""
        ticks = _STAT.read_text().partition("\n")[0].split()[1:] if _STAT.exists() else []
        busy = sum(int(ticks[column]) for column in range(min(len(ticks), _GUESTS)) if column not in _IDLE)
        own = sum(os.times()[:4]) + sum(_cpu_ticks(child.pid) for child in multiprocessing.active_children()) / _hertz()
        return cls(time.perf_counter(), busy / _hertz(), own)

    def others_since(self, before: Load) -> float:
        """Return the share, 0..1, of the machine's CPU time that other processes used since `before`."""
        others = (self.machine_s - before.machine_s) - (self.own_s - before.own_s)
        return max(0.0, others / ((self.at - before.at) * (os.cpu_count() or 1)))


def _cpu_ticks(pid: int | None) -> int:
    """Return user and system time of a process; its name, in brackets, may contain spaces and brackets."""
    stat = Path(f"/proc/{pid}/stat")
    return sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) if stat.exists() else 0


def _hertz() -> int:
    return os.sysconf("SC_CLK_TCK")
