"""Ratios of timings, as a table and as JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from benchmarks import peers, rows
from wds_real.image.backends import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import Figure
    from benchmarks.rows import Row, Settings, Timing

__all__ = ["Comparison", "Measured", "Pair", "as_json", "as_table", "comparisons", "machine", "pixel_notes", "versions"]

_PACKAGES = ("wds_real", "torch", "torchvision", "pillow", "numpy", "simplejpeg", "webdataset", "nvidia-dali-cuda120")
_MISSED = "missed"
_ALIGNMENT = ("---", "---", "--:", "---", "--:", "--:", "---", "---", "---")
_HEADER = ("what", "unit", "value", "against", "value", "ratio", "lowest .. highest", "wanted", "")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the table: a row against another row of the same round.

    Attributes:
        row: Name of the row.
        reference: Name of the row it is compared with.
        wanted: The limit of the ratio, if it has one: the least for images/s, the most for seconds.
        unit: Unit of both values: images per second, or seconds per round.
    """

    row: str
    reference: str
    wanted: float | None = None
    unit: Literal["images/s", "s"] = "images/s"


class Pair(NamedTuple):
    """The timings of one round: both sides of a comparison, one straight after the other."""

    row: Timing
    reference: Timing

    @property
    def ratio_of_seconds(self) -> float:
        """Time per image of the row, divided by that of the reference."""
        return (self.row.seconds / self.row.samples) / (self.reference.seconds / self.reference.samples)


@dataclass(frozen=True, slots=True)
class Measured:
    """The rounds of a comparison; none if a side cannot be run here, for the reason in `missing`."""

    comparison: Comparison
    pairs: Sequence[Pair]
    missing: str = ""

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round."""
        seconds = [pair.ratio_of_seconds for pair in self.pairs]
        return seconds if self.comparison.unit == "s" else [1 / ratio for ratio in seconds]

    @property
    def missed(self) -> bool:
        """Whether the median ratio is outside the limit."""
        wanted = self.comparison.wanted
        if wanted is None or not self.pairs:
            return False
        return median(self.ratios) > wanted if self.comparison.unit == "s" else median(self.ratios) < wanted


def comparisons(settings: Settings) -> list[Comparison]:
    """Return the lines of the table; both sides use as many cores, unless their names give a number of threads."""
    own = rows.exact(settings.workers)
    return [
        *(Comparison(rows.exact(threads), rows.limit(threads), 0.70) for threads in settings.threads),
        *(Comparison(rows.exact(threads), rows.exact(settings.threads[0])) for threads in settings.threads[1:]),
        Comparison(own, peers.TORCHVISION_V2, 1.25),
        Comparison(own, peers.TORCHVISION_PIL),
        Comparison(own, peers.WEBDATASET, 3.0),
        Comparison(own, peers.DALI),
        Comparison(rows.cached(2), rows.cached(1), 10.0),
        *(
            Comparison(rows.undecoded(threads, mmap=mmap), peers.WEBDATASET_UNDECODED, 10.0)
            for mmap in (False, True)
            for threads in settings.threads
        ),
        Comparison(rows.PACK, rows.COPY, 1.1, unit="s"),
    ]


def as_table(measured: Sequence[Measured], figures: Sequence[Figure], *, markdown: bool) -> str:
    """Return the comparisons, then the figures, as aligned text or as Markdown.

    The limits of the column "lowest .. highest" are those of the ratio, or of the value in lines without a ratio.
    """
    cells = [_HEADER, *map(_ratio_cells, measured), *map(_figure_cells, figures)]
    if markdown:
        return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], _ALIGNMENT, *cells[1:]))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def as_json(measured: Sequence[Measured], figures: Sequence[Figure]) -> dict[str, Any]:
    """Return all rounds, the ratios and their medians, ready for JSON."""
    return {
        "comparisons": [
            {
                **asdict(one.comparison),
                "missing": one.missing,
                "ratio": median(one.ratios) if one.pairs else None,
                "ratios": one.ratios,
                "rounds": [{"row": pair.row._asdict(), "reference": pair.reference._asdict()} for pair in one.pairs],
            }
            for one in measured
        ],
        "figures": [figure._asdict() for figure in figures],
    }


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    cpu_info, affinity = Path("/proc/cpuinfo"), getattr(os, "sched_getaffinity", None)
    models = [line.partition(":")[2].strip() for line in _lines(cpu_info) if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_bytes": memory,
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {
        "python": platform.python_version(),
        **describe(),
    }
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def pixel_notes(measured_rows: Sequence[Row], jpegs: Sequence[bytes]) -> dict[str, str]:
    """Return, for each row that gives pixels, how much these differ from Pillow's."""
    pixels_of = {row.name: row.pixels for row in measured_rows if row.pixels is not None}
    expected = [pixels_of[peers.WEBDATASET](jpeg).astype(np.int16) for jpeg in jpegs]
    notes = {}
    for name, pixels in pixels_of.items():
        differences = [np.abs(pixels(jpeg) - values) for jpeg, values in zip(jpegs, expected, strict=True)]
        share = sum(int((values > 0).sum()) for values in differences) / sum(values.size for values in differences)
        largest = max(int(values.max()) for values in differences)
        notes[name] = f"{100 * share:.2g} % of the values differ, by {largest} at most" if largest else "the same"
    return notes


def _ratio_cells(one: Measured) -> tuple[str, ...]:
    line, ratios = one.comparison, one.ratios
    sign = "<=" if line.unit == "s" else ">="
    wanted = "" if line.wanted is None else f"{sign} {line.wanted:g}"
    if not ratios:
        return (line.row, line.unit, "", line.reference, "", one.missing, "", wanted, "")
    own, reference = (_value(side, line.unit) for side in zip(*one.pairs, strict=True))
    spread = f"{min(ratios):.2f} .. {max(ratios):.2f}"
    ratio = f"{median(ratios):.2f}"
    return (line.row, line.unit, own, line.reference, reference, ratio, spread, wanted, _MISSED * one.missed)


def _figure_cells(figure: Figure) -> tuple[str, ...]:
    spread = f"{min(figure.values):.3g} .. {max(figure.values):.3g}"
    wanted = f"<= {figure.wanted:g} {figure.unit}"
    missed = _MISSED * (figure.value > figure.wanted)
    return (figure.name, figure.unit, f"{figure.value:.3g}", "", "", "", spread, wanted, missed)


def _value(timings: Sequence[Timing], unit: Literal["images/s", "s"]) -> str:
    if unit == "s":
        return f"{median(timing.seconds for timing in timings):.3g}"
    return f"{median(timing.samples / timing.seconds for timing in timings):,.0f}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
