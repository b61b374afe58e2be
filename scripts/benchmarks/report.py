"""From timings to ratios, a table and JSON."""

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
from wds_real.image.jpeg_crop import parts_are_exact
from wds_real.image.resample import HAVE_EXTENSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import Figure
    from benchmarks.rows import Row, Settings, Timing

__all__ = ["Comparison", "Measured", "Pair", "as_json", "as_table", "comparisons", "machine", "pixel_notes", "versions"]

_PACKAGES = ("wds_real", "torch", "torchvision", "pillow", "numpy", "simplejpeg", "webdataset", "nvidia-dali-cuda120")
_MISSED = "missed"
_ALIGNMENT = ("---", "--:", "---", "--:", "--:", "---", "---", "---")
_HEADER = ("what", "images/s", "against", "images/s", "ratio", "lowest .. highest", "wanted", "")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the table: a row against another row of the same round.

    Attributes:
        row: Name of the row.
        reference: Name of the row it is measured against.
        wanted: The least the ratio should be, or the most where `of` is seconds; None if it only informs.
        of: What the ratio is of.
    """

    row: str
    reference: str
    wanted: float | None = None
    of: Literal["images/s", "seconds"] = "images/s"


class Pair(NamedTuple):
    """What one round gave: the two sides of a comparison, timed one straight after the other."""

    row: Timing
    reference: Timing

    @property
    def ratio_of_seconds(self) -> float:
        """Time an image of the row, as a multiple of the reference's."""
        return (self.row.seconds / self.row.samples) / (self.reference.seconds / self.reference.samples)


@dataclass(frozen=True, slots=True)
class Measured:
    """A comparison's rounds; none where a side is `missing`, which says why."""

    comparison: Comparison
    pairs: Sequence[Pair]
    missing: str = ""

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round."""
        seconds = [pair.ratio_of_seconds for pair in self.pairs]
        return seconds if self.comparison.of == "seconds" else [1 / ratio for ratio in seconds]


def comparisons(settings: Settings) -> list[Comparison]:
    """Return the lines of the table; where nothing else is said, both sides use the same number of cores."""
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
        Comparison(rows.PACK, rows.COPY, 1.1, of="seconds"),
    ]


def as_table(measured: Sequence[Measured], figures: Sequence[Figure], *, markdown: bool) -> str:
    """Return the ratios, then the light figures, as text that lines up or as Markdown."""
    cells = [_HEADER, *map(_ratio_cells, measured), *map(_figure_cells, figures)]
    if markdown:
        return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], _ALIGNMENT, *cells[1:]))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def as_json(measured: Sequence[Measured], figures: Sequence[Figure]) -> dict[str, Any]:
    """Return every round, its medians and the ratios, ready for JSON."""
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
    """Return what the numbers were measured on."""
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
    """Return the versions of what was run; a package that is not installed is left out."""
    found = {
        "python": platform.python_version(),
        "resize": "our extension" if HAVE_EXTENSION else "Pillow",
        "decode": "parts" if parts_are_exact() else "whole pictures",
    }
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def pixel_notes(measured_rows: Sequence[Row], pictures: Sequence[bytes]) -> dict[str, str]:
    """Return for each row whose pixels can be looked at how far they are from those that Pillow gives."""
    looked_at = {row.name: row.pixels for row in measured_rows if row.pixels is not None}
    expected = [looked_at[peers.WEBDATASET](picture).astype(np.int16) for picture in pictures]
    notes = {}
    for name, pixels in looked_at.items():
        apart = [np.abs(pixels(picture) - right) for picture, right in zip(pictures, expected, strict=True)]
        share = sum(int((values > 0).sum()) for values in apart) / sum(values.size for values in apart)
        furthest = max(int(values.max()) for values in apart)
        notes[name] = f"{100 * share:.2g} % of the values differ, by {furthest} at most" if furthest else "the same"
    return notes


def _ratio_cells(one: Measured) -> tuple[str, ...]:
    line, ratios = one.comparison, one.ratios
    name, sign = (line.row, ">=") if line.of == "images/s" else (f"{line.row}, seconds", "<=")
    wanted = "" if line.wanted is None else f"{sign} {line.wanted:g}"
    if not ratios:
        return (name, "", line.reference, "", one.missing, "", wanted, "")
    ratio = median(ratios)
    missed = line.wanted is not None and (ratio < line.wanted if line.of == "images/s" else ratio > line.wanted)
    speeds = (f"{_speed(side):,.0f}" for side in zip(*one.pairs, strict=True))
    own_speed, reference_speed = speeds
    spread = f"{min(ratios):.2f} .. {max(ratios):.2f}"
    return (name, own_speed, line.reference, reference_speed, f"{ratio:.2f}", spread, wanted, _MISSED * missed)


def _figure_cells(figure: Figure) -> tuple[str, ...]:
    spread = f"{min(figure.rounds):.3g} .. {max(figure.rounds):.3g}"
    value, wanted = (f"{number:.3g} {figure.unit}" for number in (figure.value, figure.wanted))
    return (figure.name, "", "", "", value, spread, f"<= {wanted}", _MISSED * (figure.value > figure.wanted))


def _speed(timings: Sequence[Timing]) -> float:
    return median(timing.samples / timing.seconds for timing in timings)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
