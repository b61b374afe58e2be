"""Figures measured in a process of their own: python alone.py FIGURE ROOT BATCH_SIZE THREADS prints a JSON list."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import wds_real

_EPOCHS = 10
_SWITCH_INTERVAL_S = 1e-6
_SCHEDULE = Path("/proc/thread-self/schedstat")
_MEMORY = Path("/proc/self/statm")


def main(figure: str, root: str, batch_size: int, threads: int) -> None:
    """Print the figure's values: one, or one per epoch; none if the system does not provide them."""
    dataset = wds_real.open_dataset(root)
    measure = {"first_batch_s": _first_batch_s, "gil_us": _gil_us, "resident_bytes": _resident_bytes}[figure]
    loader = wds_real.Loader(dataset, batch_size=batch_size, threads=1 if figure == "gil_us" else threads, pad=False)
    print(json.dumps(measure(loader)))


def _first_batch_s(loader: wds_real.Loader) -> list[float]:
    started = time.perf_counter()
    batches = iter(loader)
    next(batches)
    return [time.perf_counter() - started]


def _gil_us(loader: wds_real.Loader) -> list[float]:
    """Return how long the loader keeps another Python thread from running, in microseconds per image.

    A thread of pure Python either runs, waits for a core, or waits for the GIL. Wall time minus its CPU time minus its
    wait for a core, which Linux counts, is therefore the time it waits for the GIL: an upper bound of the time for
    which the loader holds the GIL. The loader has one decoding thread, so that two cores are enough for both threads.
    The short switch interval keeps the loader from waiting for the other thread, as in a training loop, whose main
    thread mostly waits for its device.
    """
    stop, waited = threading.Event(), list[float]()

    def spin() -> None:
        started = _running_s()
        while not stop.is_set():
            for _ in range(1000):
                pass
        waited.append(time.perf_counter() - started[0] - (_running_s()[1] - started[1]))

    spinner = threading.Thread(target=spin)
    for _ in loader:  # not timed: imports modules and fills the page cache
        pass
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        spinner.start()
        samples = sum(map(len, loader))
    finally:
        stop.set()
        spinner.join()
        sys.setswitchinterval(interval)
    return [waited[0] / samples * 1e6]


def _running_s() -> tuple[float, float]:
    """Return the time, and how long this thread has run or waited for a core."""
    waiting_ns = int(_SCHEDULE.read_text().split()[1]) if _SCHEDULE.exists() else 0
    return time.perf_counter(), time.thread_time() + waiting_ns / 1e9


def _resident_bytes(loader: wds_real.Loader) -> list[float]:
    """Return the resident memory after each epoch."""
    if not _MEMORY.exists():
        return []
    resident = []
    for _ in range(_EPOCHS):
        for _batch in loader:
            pass
        resident.append(float(_MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    return resident


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
