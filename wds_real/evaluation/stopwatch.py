"""Where the time of a run goes: waiting for data, or running the model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wds_real.data.batch import Batch
    from wds_real.data.loader import Loader

__all__ = ["Stopwatch"]


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

    def timings(self, num_samples: int, loader: Loader) -> dict[str, float | str]:
        """Return the times of this rank, and the rate at which all ranks together evaluated `num_samples`.

        If the loop waits for data for more than a tenth of the time, the bottleneck is the slower of reading and
        decoding, by the seconds that the loader's threads spent on each; else it is the model.
        """
        total = time.perf_counter() - self._started
        slower = "reading" if loader.read_s > loader.decode_s else "decoding"
        return {
            "total_s": round(total, 3),
            "waited_for_data_s": round(self._waited, 3),
            "reading_thread_s": round(loader.read_s, 3),
            "decoding_thread_s": round(loader.decode_s, 3),
            "bottleneck": "model" if self._waited <= total / 10 else slower,
            "images_per_s": round(num_samples / total, 1),
        }
