"""Progress of all ranks, reported by rank 0 while the ranks work independently."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wds_real.data.distributed import SharedCount
from wds_real.evaluation.progress.bar import progress_bar, style_of_stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from wds_real.data.launchers import World

__all__ = ["reported"]

_INTERVAL_S = 0.5


@contextmanager
def reported(
    progress: Callable[[int, int], None] | bool | None, total: int, *, own: int, world: World
) -> Iterator[Callable[[int], None]]:
    """Yield a function that each rank calls with the number of its samples that are done.

    Args:
        progress: Called on rank 0 with the samples done since the last call, on all ranks, and `total`; from any
            thread. True shows a bar if stderr is a terminal or a notebook's; False and None show nothing.
        total: Samples of all ranks.
        own: Those of this rank.
        world: The place of this process.
    """
    if progress is True:
        style = style_of_stderr()
        style = "none" if style == "lines" or world.rank else style
        with (
            progress_bar("eval", total, unit="images", style=style) as advance,
            reported(advance, total, own=own, world=world) as add,
        ):
            yield add
    elif world.world_size > 1:
        with _Sum(progress or None, total, own, world) as ranks:
            yield ranks.add
    elif progress:
        yield lambda amount: progress(amount, total)
    else:
        yield lambda _: None


class _Sum:
    """Adds up over the ranks: each adds to a shared count twice a second, and a thread of rank 0 reports it."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int, own: int, world: World) -> None:
        self._progress = progress if world.rank == 0 else None
        self._total, self._left = total, own
        self._count = SharedCount("progress")
        self._pending = self._reported = 0
        self._next_at = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._progress is not None:
            self._thread.join()
            if kind is None:  # all ranks have ended their work
                self._report(self._total)

    def add(self, amount: int) -> None:
        self._pending += amount
        self._left -= amount
        if self._pending and (self._left <= 0 or time.monotonic() >= self._next_at):
            self._next_at = time.monotonic() + _INTERVAL_S
            self._count.add(self._pending)
            self._pending = 0

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            self._report(self._count.add(0))

    def _report(self, done: int) -> None:
        if self._progress is not None and done > self._reported:
            amount, self._reported = done - self._reported, done
            self._progress(amount, self._total)
