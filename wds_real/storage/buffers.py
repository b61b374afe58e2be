"""Memory that is used again: fresh memory has to be zeroed by the system, which takes longer than reading into it.

A buffer is idle when nobody holds a view of it any more. Views keep what they are views of alive, so the number of
references to a buffer says so (CPython), and what a user keeps is never overwritten.
"""

from __future__ import annotations

import functools
import sys
import threading

import numpy as np

__all__ = ["Buffers"]

_ROUND_TO = 1 << 20


class Buffers:
    """Hands out buffers, idle ones first. Keeps as many as were in use at the same time, at most `max_kept`."""

    def __init__(self, *, max_kept: int) -> None:
        self._kept: list[np.ndarray[tuple[int], np.dtype[np.uint8]]] = []
        self._max_kept = max_kept
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial(Buffers, max_kept=self._max_kept), ()

    def take(self, num_bytes: int) -> memoryview:
        """Return a writable view of `num_bytes` bytes, which hold anything; the buffer is idle when it is gone."""
        with self._lock:
            for place in range(len(self._kept)):
                if self._kept[place].nbytes >= num_bytes and _references(self._kept, place) == _IDLE:
                    return self._kept[place].data[:num_bytes]
            new = np.empty(-(-max(num_bytes, 1) // _ROUND_TO) * _ROUND_TO, dtype=np.uint8)
            if len(self._kept) < self._max_kept:
                self._kept.append(new)
            return new.data[:num_bytes]


def _references(buffers: list[np.ndarray[tuple[int], np.dtype[np.uint8]]], place: int) -> int:
    return sys.getrefcount(buffers[place])


_IDLE = _references([np.empty(1, dtype=np.uint8)], 0)  # how many the call itself holds is the interpreter's business
