"""The stopwatch: time that passes while the loop waits for data is told from time that passes in the loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from wds_real.evaluation.progress.stopwatch import ModelStopwatch, Stopwatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wds_real import Loader


class Batches:
    """As much of a loader as is measured: three batches, each after `delay_s`."""

    def __init__(self, delay_s: float, *, read_s: float, decode_s: float) -> None:
        self.delay_s, self.read_s, self.decode_s = delay_s, read_s, decode_s

    def __iter__(self) -> Iterator[int]:
        for number in range(3):
            time.sleep(self.delay_s)
            yield number


def timings(batches: Batches, *, work_s: float) -> dict[str, Any]:
    """Return what is measured of a loop that works so long on each batch."""
    stopwatch, model, loader = Stopwatch(), ModelStopwatch(), cast("Loader", batches)
    for _ in stopwatch.waiting_for(loader):
        with model.running():
            time.sleep(work_s)
    return stopwatch.timings(30, loader, model)


@pytest.mark.parametrize(
    ("delay_s", "work_s", "read_s", "decode_s", "bottleneck"),
    [(0.0, 0.1, 9.0, 1.0, "model"), (0.1, 0.0, 2.0, 1.0, "reading"), (0.1, 0.0, 1.0, 2.0, "decoding")],
)
def test_the_bottleneck_is_where_the_time_goes(
    delay_s: float, work_s: float, read_s: float, decode_s: float, bottleneck: str
) -> None:
    """The model if the loop hardly waits, else the slower of reading and decoding."""
    found = timings(Batches(delay_s, read_s=read_s, decode_s=decode_s), work_s=work_s)
    assert found["bottleneck"] == bottleneck
    assert (found["reading_thread_s"], found["decoding_thread_s"]) == (read_s, decode_s)
    assert 0.3 <= found["total_s"] == pytest.approx(30 / found["images_per_s"], rel=0.01)
    assert (found["waited_for_data_s"] >= 0.3) is (delay_s > 0)


@pytest.mark.parametrize(("normalize_s", "model_s", "bottleneck"), [(0.2, 0.02, "normalising"), (0.02, 0.2, "model")])
def test_normalising_is_told_from_the_model(normalize_s: float, model_s: float, bottleneck: str) -> None:
    """Where the loop does not wait, the longer of the two is named; on an accelerator only the model is known."""
    for device, expected in (("cpu", bottleneck), ("meta", "model")):
        stopwatch, model = Stopwatch(), ModelStopwatch()
        with model.running():
            with model.normalizing(torch.device(device)):
                time.sleep(normalize_s)
            time.sleep(model_s)
        found = stopwatch.timings(30, cast("Loader", Batches(0.0, read_s=0.0, decode_s=0.0)), model)
        assert found["bottleneck"] == expected
        assert (cast("float", found["normalizing_s"]) >= normalize_s) is (device == "cpu")


def test_models_of_one_pass_share_its_time_and_have_their_own() -> None:
    """Total and waiting are those of the pass, and the number of models says so; each model has its own seconds."""
    stopwatch, slow, fast = Stopwatch(), ModelStopwatch(), ModelStopwatch()
    loader = cast("Loader", Batches(0.0, read_s=0.0, decode_s=0.0))
    for _ in stopwatch.waiting_for(loader):
        with slow.running():
            time.sleep(0.1)
        with fast.running():
            time.sleep(0.01)
    found = [stopwatch.timings(30, loader, model, num_models=2) for model in (slow, fast)]
    assert [one["models_in_pass"] for one in found] == [2, 2]
    assert cast("float", found[0]["model_s"]) >= 0.3 > cast("float", found[1]["model_s"]) >= 0.03
    assert all(cast("float", one["total_s"]) >= 0.33 for one in found)
