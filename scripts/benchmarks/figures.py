"""Figures that are not ratios: start-up times, memory growth, and the GIL time taken from other threads."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from benchmarks.data import Data
    from benchmarks.rows import Settings

__all__ = ["Figure", "measure"]

_ALONE = Path(__file__).with_name("alone.py")
_IMPORT = "import time; start = time.perf_counter(); import wds_real; print(time.perf_counter() - start)"


class Figure(NamedTuple):
    """A measured value, the limit it should not exceed, and the values whose lowest and highest are shown."""

    name: str
    value: float
    unit: str
    wanted: float
    values: list[float]


def measure(data: Data, settings: Settings, *, rounds: int) -> list[Figure]:
    """Measure each figure once per round; memory in one process, over its epochs."""
    imports, helps, first_batches, gil = list[float](), list[float](), list[float](), list[float]()
    for _ in range(rounds):
        imports.append(float(_output("-c", _IMPORT)))
        started = time.perf_counter()
        _output("-m", "wds_real", "--help")
        helps.append(time.perf_counter() - started)
        first_batches += _alone("first_batch_s", data, settings)
        gil += _alone("gil_us", data, settings)
    figures = [
        Figure("import wds_real", median(imports), "s", 0.15, imports),
        Figure("wds-real --help", median(helps), "s", 0.3, helps),
        Figure("first batch after iter()", median(first_batches), "s", 0.5, first_batches),
        Figure("GIL withheld from another thread, per image", median(gil), "us", 60.0, gil),
    ]
    resident = [num_bytes / 2**20 for num_bytes in _alone("resident_bytes", data, settings)]
    if resident:
        gained = [after - resident[0] for after in resident[1:]]
        figures.append(Figure("memory gained from epoch 1 to 10", gained[-1], "MiB", 32, gained))
    return figures


def _output(*arguments: str) -> bytes:
    return subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE).stdout  # noqa: S603 -- fixed commands


def _alone(figure: str, data: Data, settings: Settings) -> list[float]:
    """Measure a figure in a process of its own; see ``alone.py``."""
    arguments = (str(_ALONE), figure, str(data.root), str(settings.batch_size), str(settings.workers))
    values: list[float] = json.loads(_output(*arguments))
    return values
