"""Run the steps of a pass in a pool of threads: batches are allocated, filled in parts, and yielded in order.

A stage makes the batches: `data.decode_stage` decodes images, `data.undecoded` keeps the files.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from wds_real.data.reader import Samples
    from wds_real.data.schedule import Step

__all__ = ["BATCHES_IN_PROGRESS", "FilledRows", "Stage", "StageTimes", "run_stage"]

BATCHES_IN_PROGRESS = 2  # after the one that is yielded

_Memory = TypeVar("_Memory")
_Batch_co = TypeVar("_Batch_co", covariant=True)
_Batch = TypeVar("_Batch")


@dataclass(frozen=True, slots=True)
class FilledRows:
    """The outcome of filling some rows of a batch.

    Attributes:
        failed: Rows whose sample could not be read.
        read_s: Seconds spent reading.
        decode_s: Seconds spent decoding.
    """

    failed: list[int]
    read_s: float
    decode_s: float = 0.0


@dataclass(slots=True)
class StageTimes:
    """Seconds that the threads of a pass spent reading and decoding, added up over the threads."""

    read_s: float = 0.0
    decode_s: float = 0.0


class Stage(Protocol[_Memory, _Batch_co]):
    """Makes batches of samples. `fill` is called from several threads, for disjoint rows."""

    @property
    def rows_per_task(self) -> int:
        """Rows that one call of `fill` fills."""
        ...

    def open_samples(self, steps: Sequence[Step], *, threads: int) -> AbstractContextManager[Samples]:
        """Return the reader of the samples of these steps."""
        ...

    def allocate(self, step: Step) -> _Memory:
        """Return the memory of a step's batch."""
        ...

    def fill(self, samples: Samples, memory: _Memory, rows: range) -> FilledRows:
        """Read some rows' samples into the memory."""
        ...

    def finish(self, memory: _Memory, failed: Sequence[int]) -> _Batch_co:
        """Return the batch, once all its rows are filled."""
        ...


@dataclass(frozen=True, slots=True)
class _Started(Generic[_Memory]):
    """A batch that threads are filling."""

    step: Step
    memory: _Memory
    tasks: list[Future[FilledRows]] = field(default_factory=list)


def run_stage(
    stage: Stage[_Memory, _Batch],
    steps: Sequence[Step],
    *,
    threads: int,
    times: StageTimes,
    set_yielded: Callable[[Step], None],
) -> Iterator[_Batch]:
    """Yield the batches of the steps, in their order.

    Args:
        stage: What to do with the samples.
        steps: What to go through.
        threads: Number of threads.
        times: Where to add the seconds that the threads took.
        set_yielded: Called with each step before its batch is yielded.

    Raises:
        Exception: whatever the stage raises.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def start(step: Step) -> _Started[_Memory]:
        started = _Started(step, stage.allocate(step))
        rows = range(len(step.positions))
        for first in range(0, len(rows), stage.rows_per_task):
            part = rows[first : first + stage.rows_per_task]
            started.tasks.append(pool.submit(stage.fill, samples, started.memory, part))
        return started

    def finish(started: _Started[_Memory]) -> _Batch:
        filled = [task.result() for task in started.tasks]
        times.read_s += sum(part.read_s for part in filled)
        times.decode_s += sum(part.decode_s for part in filled)
        set_yielded(started.step)
        return stage.finish(started.memory, [row for part in filled for row in part.failed])

    in_progress = deque[_Started[_Memory]]()
    with ExitStack() as stack:  # at the end: drop tasks not begun, close the reader (which wakes waiting threads), join
        stack.callback(pool.shutdown, wait=True)
        samples = stack.enter_context(stage.open_samples(steps, threads=threads))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for step in steps:
            in_progress.append(start(step))
            if len(in_progress) > BATCHES_IN_PROGRESS:
                yield finish(in_progress.popleft())
        while in_progress:
            yield finish(in_progress.popleft())
