"""The stopwatch: time that passes while the loop waits for data is told from time that passes in the loop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from support.clock import Clock

from wds_real.evaluation.progress import stopwatch as module
from wds_real.evaluation.progress.stopwatch import ModelStopwatch, Stopwatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wds_real import Loader


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of the module."""
    made = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


class Batches:
    """As much of a loader as is measured: three batches, each after `delay_s`."""

    def __init__(self, clock: Clock, delay_s: float, *, read_s: float, decode_s: float) -> None:
        self.clock, self.delay_s, self.read_s, self.decode_s = clock, delay_s, read_s, decode_s

    def __iter__(self) -> Iterator[int]:
        for number in range(3):
            self.clock.sleep(self.delay_s)
            yield number


def timings(batches: Batches, *, work_s: float) -> dict[str, Any]:
    """Return what is measured of a loop that works so long on each batch."""
    stopwatch, model, loader = Stopwatch(), ModelStopwatch(), cast("Loader", batches)
    for _ in stopwatch.waiting_for(loader):
        with model.running():
            batches.clock.sleep(work_s)
    return stopwatch.timings(30, loader, model)


@pytest.mark.parametrize(
    ("delay_s", "work_s", "read_s", "decode_s", "bottleneck"),
    [(0.0, 0.1, 9.0, 1.0, "model"), (0.1, 0.0, 2.0, 1.0, "reading"), (0.1, 0.0, 1.0, 2.0, "decoding")],
)
def test_the_bottleneck_is_where_the_time_goes(
    clock: Clock, delay_s: float, work_s: float, read_s: float, decode_s: float, bottleneck: str
) -> None:
    """The model if the loop hardly waits, else the slower of reading and decoding."""
    found = timings(Batches(clock, delay_s, read_s=read_s, decode_s=decode_s), work_s=work_s)
    assert found["bottleneck"] == bottleneck
    assert (found["reading_thread_s"], found["decoding_thread_s"]) == (read_s, decode_s)
    assert 0.3 <= found["total_s"] == pytest.approx(30 / found["images_per_s"], rel=0.01)
    assert (found["waited_for_data_s"] >= 0.3) is (delay_s > 0)


@pytest.mark.parametrize(("normalize_s", "model_s", "bottleneck"), [(0.2, 0.02, "normalising"), (0.02, 0.2, "model")])
def test_normalising_is_told_from_the_model(clock: Clock, normalize_s: float, model_s: float, bottleneck: str) -> None:
    """Where the loop does not wait, the longer of the two is named; on an accelerator only the model is known."""
    for device, expected in (("cpu", bottleneck), ("meta", "model")):
        stopwatch, model = Stopwatch(), ModelStopwatch()
        with model.running():
            with model.normalizing(torch.device(device)):
                clock.sleep(normalize_s)
            clock.sleep(model_s)
        found = stopwatch.timings(30, cast("Loader", Batches(clock, 0.0, read_s=0.0, decode_s=0.0)), model)
        assert found["bottleneck"] == expected
        assert (cast("float", found["normalizing_s"]) >= normalize_s) is (device == "cpu")


def test_models_of_one_pass_share_its_time_and_have_their_own(clock: Clock) -> None:
    """Total and waiting are those of the pass, and the number of models says so; each model has its own seconds."""
    stopwatch, slow, fast = Stopwatch(), ModelStopwatch(), ModelStopwatch()
    loader = cast("Loader", Batches(clock, 0.0, read_s=0.0, decode_s=0.0))
    for _ in stopwatch.waiting_for(loader):
        with slow.running():
            clock.sleep(0.1)
        with fast.running():
            clock.sleep(0.01)
    found = [stopwatch.timings(30, loader, model, num_models=2) for model in (slow, fast)]
    assert [one["models_in_pass"] for one in found] == [2, 2]
    assert cast("float", found[0]["model_s"]) >= 0.3 > cast("float", found[1]["model_s"]) >= 0.03
    assert all(cast("float", one["total_s"]) >= 0.33 for one in found)
