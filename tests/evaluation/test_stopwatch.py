"""The stopwatch: time that passes while the loop waits for data is told from time that passes in the loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from wds_real.evaluation.stopwatch import Stopwatch

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
    stopwatch, loader = Stopwatch(), cast("Loader", batches)
    for _ in stopwatch.waiting_for(loader):
        time.sleep(work_s)
    return stopwatch.timings(30, loader)


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
        stopwatch = Stopwatch()
        with stopwatch.normalizing(torch.device(device)):
            time.sleep(normalize_s)
        time.sleep(model_s)
        found = stopwatch.timings(30, cast("Loader", Batches(0.0, read_s=0.0, decode_s=0.0)))
        assert found["bottleneck"] == expected
        assert (cast("float", found["normalizing_s"]) >= normalize_s) is (device == "cpu")
