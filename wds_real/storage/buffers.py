"""Pool of reusable buffers: the system zeroes newly allocated memory, which takes longer than reading into it.

A buffer is free when no view of it exists, which CPython's reference count shows: each view holds a reference to its
buffer. So the bytes of an existing view are never overwritten.
"""

from __future__ import annotations

import functools
import sys
import threading

import numpy as np

__all__ = ["Buffers"]

_ROUND_TO = 1 << 20


class Buffers:
    """A pool that grows to the number of buffers in use at the same time, at most `max_kept`."""

    def __init__(self, *, max_kept: int) -> None:
        self._kept: list[np.ndarray[tuple[int], np.dtype[np.uint8]]] = []
        self._max_kept = max_kept
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial(Buffers, max_kept=self._max_kept), ()

    def take(self, num_bytes: int) -> memoryview:
        """Return a writable view of `num_bytes` uninitialized bytes; its buffer is reused when the view is gone."""
        with self._lock:
            for number in range(len(self._kept)):
                if self._kept[number].nbytes >= num_bytes and _references(self._kept, number) == _REFERENCES_IF_FREE:
                    return self._kept[number].data[:num_bytes]
            new = np.empty(-(-max(num_bytes, 1) // _ROUND_TO) * _ROUND_TO, dtype=np.uint8)
            if len(self._kept) < self._max_kept:
                self._kept.append(new)
            return new.data[:num_bytes]


def _references(buffers: list[np.ndarray[tuple[int], np.dtype[np.uint8]]], number: int) -> int:
    return sys.getrefcount(buffers[number])


# Measured, because the number of references that the call itself holds depends on the interpreter.
_REFERENCES_IF_FREE = _references([np.empty(1, dtype=np.uint8)], 0)
