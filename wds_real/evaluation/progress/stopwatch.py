"""Where the time of a pass goes: waiting for data, normalising pixels, or running each model."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from wds_real.data.batch import Batch
    from wds_real.data.loader import Loader

__all__ = ["ModelStopwatch", "Stopwatch"]


class ModelStopwatch:
    """Adds up the time of one model's steps, and the part of it that normalises pixels.

    Attributes:
        model_s: Seconds of the steps, normalising included.
        normalized_s: Seconds of normalising on a CPU.
    """

    def __init__(self) -> None:
        self.model_s = self.normalized_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add up the time in which the model's work is queued on an accelerator and waited for, or done on the CPU."""
        began = time.perf_counter()
        yield
        self.model_s += time.perf_counter() - began

    @contextmanager
    def normalizing(self, device: torch.device) -> Iterator[None]:
        """Add up the time of the block on a CPU; on an accelerator the block only queues work, and is not measured."""
        began = time.perf_counter()
        yield
        if device.type == "cpu":
            self.normalized_s += time.perf_counter() - began


class Stopwatch:
    """Measures, from its creation on, the whole time and the time that the loop waits for a loader's batches."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._waited = 0.0

    def waiting_for(self, loader: Loader) -> Iterator[Batch]:
        """Yield the batches, and add up the time until each is ready."""
        began = time.perf_counter()
        for batch in loader:
            self._waited += time.perf_counter() - began
            yield batch
            began = time.perf_counter()

    def timings(
        self, num_samples: int, loader: Loader, model: ModelStopwatch, *, num_models: int = 1
    ) -> dict[str, float | str]:
        """Return the times of this rank, and the rate at which all ranks together evaluated `num_samples`.

        Total, reading, decoding and waiting are those of the whole pass, which `num_models` models shared; the time of
        the model is its own. If the loop waits for data for more than a tenth of the time, the bottleneck is the slower
        of reading and decoding, by the seconds that the loader's threads spent on each; else it is the model, or on a
        CPU the normalising of pixels, if that takes longer.
        """
        total = time.perf_counter() - self._started
        slower = "reading" if loader.read_s > loader.decode_s else "decoding"
        longer = "normalising" if 2 * model.normalized_s > model.model_s else "model"
        return {
            "total_s": round(total, 3),
            "waited_for_data_s": round(self._waited, 3),
            "reading_thread_s": round(loader.read_s, 3),
            "decoding_thread_s": round(loader.decode_s, 3),
            "normalizing_s": round(model.normalized_s, 3),
            "model_s": round(model.model_s, 3),
            "models_in_pass": num_models,
            "bottleneck": longer if self._waited <= total / 10 else slower,
            "images_per_s": round(num_samples / total, 1),
        }
