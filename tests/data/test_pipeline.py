"""run_stage: batches in order, whatever the threads do; nothing is left running."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wds_real.data.pipeline import FilledRows, StageTimes, run_stage
from wds_real.data.schedule import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = [Step(place, place, np.arange(place * 4, place * 4 + 4)) for place in range(6)]


class Squares:
    """A stage without samples: fills in the squares of the positions, the first batches slowest."""

    rows_per_task = 2

    def __init__(self, *, fail_at: int = -1) -> None:
        self.fail_at = fail_at
        self.closed = False

    @contextlib.contextmanager
    def open_samples(self, steps: Sequence[Step], *, threads: int) -> Any:
        del steps, threads
        yield None
        self.closed = True

    def allocate(self, step: Step) -> tuple[Step, list[int]]:
        return step, [0] * len(step.positions)

    def fill(self, samples: Any, memory: tuple[Step, list[int]], rows: range) -> FilledRows:
        del samples
        step, values = memory
        if step.place == self.fail_at:
            raise RuntimeError("cannot be read")
        time.sleep(0.002 * (6 - step.place))
        for row in rows:
            values[row] = int(step.positions[row]) ** 2
        return FilledRows([rows.start] if step.place == 2 else [], 0.5, 0.25)

    def finish(self, memory: tuple[Step, list[int]], failed: Sequence[int]) -> tuple[list[int], list[int]]:
        return memory[1], list(failed)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_order_with_their_failures_and_times(threads: int) -> None:
    """The order is that of the steps; failed rows and seconds are those that the tasks returned."""
    stage, times, yielded = Squares(), StageTimes(), list[int]()
    batches = list(
        run_stage(stage, STEPS, threads=threads, times=times, set_yielded=lambda step: yielded.append(step.place))
    )
    assert [values for values, _ in batches] == [[n * n for n in range(p * 4, p * 4 + 4)] for p in range(6)]
    assert [failed for _, failed in batches] == [[], [], [0, 2], [], [], []]
    assert (times.read_s, times.decode_s, yielded) == (6.0, 3.0, list(range(6)))
    assert stage.closed


def test_an_error_ends_the_pass_after_the_batches_before_it() -> None:
    """The failing batch raises in its place, the reader is closed, and no thread goes on."""
    yielded = list[int]()
    batches = run_stage(
        Squares(fail_at=3), STEPS, threads=2, times=StageTimes(), set_yielded=lambda step: yielded.append(step.place)
    )
    with pytest.raises(RuntimeError, match="cannot be read"):
        list(batches)
    assert yielded == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
