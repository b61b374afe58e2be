"""The light figures: how soon it starts, how little it keeps, and how little it is in the way of other threads."""

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


class Figure(NamedTuple):
    """A number that is no ratio of rows: median over rounds, and the most it should be."""

    name: str
    value: float
    unit: str
    wanted: float
    rounds: list[float]


def measure(data: Data, settings: Settings, *, rounds: int) -> list[Figure]:
    """Take every figure once a round; memory once, as it has epochs in place of rounds."""
    imports, helps, first_batches, gil = list[float](), list[float](), list[float](), list[float]()
    for _ in range(rounds):
        imports.append(_wall_s("-c", "import wds_real") - _wall_s("-c", "pass"))
        helps.append(_wall_s("-m", "wds_real", "--help"))
        first_batches += _alone("first_batch_s", data, settings)
        gil += _alone("gil_us", data, settings)
    figures = [
        Figure("import wds_real", median(imports), "s", 0.15, imports),
        Figure("wds-real --help", median(helps), "s", 0.3, helps),
        Figure("first batch after iter()", median(first_batches), "s", 0.5, first_batches),
        Figure("GIL kept from another thread, an image", median(gil), "us", 60.0, gil),
    ]
    resident = [num_bytes / 2**20 for num_bytes in _alone("resident_bytes", data, settings)]
    if resident:
        figures.append(Figure("memory gained from epoch 1 to 10", resident[-1] - resident[0], "MiB", 32, resident))
    return figures


def _wall_s(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 -- our own
    return time.perf_counter() - started


def _alone(figure: str, data: Data, settings: Settings) -> list[float]:
    """Take a figure in a process that has loaded nothing else."""
    command = [sys.executable, str(_ALONE), figure, str(data.root), str(settings.batch_size), str(settings.workers)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 -- our own
    values: list[float] = json.loads(run.stdout)
    return values
