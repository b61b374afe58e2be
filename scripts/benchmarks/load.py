"""How much of the machine others used meanwhile: says whether the numbers of a run can be trusted."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Load"]

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # columns of /proc/stat: idle, and waiting for a disk
_GUESTS = 8  # from here on counted twice


class Load(NamedTuple):
    """CPU seconds since the start of the machine, and of this process and its workers."""

    at: float
    machine_s: float
    own_s: float

    @classmethod
    def now(cls) -> Load:
        """Read the clocks; the machine's is 0 where the system does not tell."""
        ticks = _STAT.read_text().partition("\n")[0].split()[1:] if _STAT.exists() else []
        busy = sum(int(ticks[column]) for column in range(min(len(ticks), _GUESTS)) if column not in _IDLE)
        own = sum(os.times()[:4]) + sum(_cpu_ticks(child.pid) for child in multiprocessing.active_children()) / _hertz()
        return cls(time.perf_counter(), busy / _hertz(), own)

    def others_since(self, before: Load) -> float:
        """Return the share 0..1 of the machine's CPU time that others used between the two."""
        others = (self.machine_s - before.machine_s) - (self.own_s - before.own_s)
        return max(0.0, others / ((self.at - before.at) * (os.cpu_count() or 1)))


def _cpu_ticks(pid: int | None) -> int:
    """Return user and system time of a process; its name, in brackets, may hold anything."""
    stat = Path(f"/proc/{pid}/stat")
    return sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) if stat.exists() else 0


def _hertz() -> int:
    return os.sysconf("SC_CLK_TCK")
