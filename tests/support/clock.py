"""A clock for tests of code that measures time or waits."""

from __future__ import annotations

__all__ = ["Clock"]


class Clock:
    """A clock that advances only in `sleep`, or when a test sets `now`; it keeps the waits that were asked for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
