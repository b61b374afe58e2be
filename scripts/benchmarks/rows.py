"""What is timed: this package, the limit that decoding sets, and packing against copying."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import simplejpeg

import wds_real
from benchmarks.data import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sized
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.data import Data, Place

__all__ = [
    "COPY",
    "PACK",
    "TRANSFORM",
    "UNDECODED_BATCH",
    "Row",
    "Settings",
    "Timing",
    "cached",
    "consume",
    "exact",
    "limit",
    "own_rows",
    "undecoded",
]

TRANSFORM = wds_real.EvalTransform(img_size=224, crop_pct=0.875, interpolation="bicubic")
PACK, COPY = "pack", "cp + fsync"
UNDECODED_BATCH = 64  # 7 MB, which stay in the processor's caches as webdataset's single samples do
_UNDECODED_PASSES = 8  # together as long as one of webdataset's: a single one of 30 ms says little
_SAMPLES_PER_TASK = 8  # as the loader does: handing over is then cheap for both


class Timing(NamedTuple):
    """What one round of a row gave."""

    samples: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """Something that is timed once a round.

    Attributes:
        name: In the table.
        run: Times one round; what has to be made ready for it is not timed. None if it cannot be run here.
        missing: Why it cannot be run here.
        pixels: JPEG bytes to uint8 (224, 224, 3) as this row makes them, to see whether they are Pillow's.
    """

    name: str
    run: Callable[[], Timing] | None
    missing: str = ""
    pixels: Callable[[bytes], NDArray[np.uint8]] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What all rows have in common; `threads` ascends, and its last is the number of the peers' workers."""

    threads: tuple[int, ...]
    batch_size: int

    @property
    def workers(self) -> int:
        """Processes or threads of a peer."""
        return self.threads[-1]


def exact(threads: int) -> str:
    """Return the name of our row with so many threads."""
    return f"exact, {threads} thread{'s' * (threads > 1)}"


def limit(threads: int) -> str:
    """Return the name of the row that only decodes."""
    return f"decode only, {threads} thread{'s' * (threads > 1)}"


def undecoded(threads: int, *, mmap: bool = False) -> str:
    """Return the name of the row that only reads and verifies."""
    return f"undecoded{', mmap' * mmap}, {threads} thread{'s' * (threads > 1)}"


def cached(number: int) -> str:
    """Return the name of the first (1) or second (2) pass with a pixel cache."""
    return f"pixel cache, pass {number}"


def own_rows(data: Data, settings: Settings) -> list[Row]:
    """Return the rows that need nothing but this package."""
    rows = []
    for threads in settings.threads:
        rows.append(_decode_only_row(data, threads))
        rows.append(Row(exact(threads), _loading(data, settings, threads), pixels=_own_pixels))
        for mmap in (False, True):
            load = _reading(data, threads, mmap=mmap)
            rows.append(Row(undecoded(threads, mmap=mmap), _repeated(load, _UNDECODED_PASSES)))
    return [*rows, *_cached_rows(data, settings), *_packing_rows(data)]


def consume(start: Callable[[], Iterable[Sized]]) -> Timing:
    """Time the way from the first `iter` to the last batch of what `start` makes."""
    batches = start()
    started = time.perf_counter()
    samples = sum(map(len, batches))
    return Timing(samples, time.perf_counter() - started)


def _loading(
    data: Data,
    settings: Settings,
    threads: int,
    *,
    pixel_cache: Path | None = None,
) -> Callable[[], Timing]:
    """Return a function that goes once through a `wds_real.Loader` and times that; all but a cache outlives a round."""
    dataset = wds_real.open_dataset(data.root)

    def start() -> wds_real.Loader:
        return wds_real.Loader(
            dataset,
            batch_size=settings.batch_size,
            transform=TRANSFORM,
            threads=threads,
            pad=False,
            pixel_cache=pixel_cache,
        )

    if pixel_cache is not None:  # which each round makes anew
        return lambda: consume(start)
    loader = start()
    return lambda: consume(lambda: loader)


def _reading(data: Data, threads: int, *, mmap: bool) -> Callable[[], Timing]:
    """Return a function that goes once through a `wds_real.UndecodedLoader` and times that."""
    loader = wds_real.UndecodedLoader(
        wds_real.open_dataset(data.root), batch_size=UNDECODED_BATCH, threads=threads, pad=False, mmap=mmap
    )
    return lambda: consume(lambda: loader)


def _repeated(load: Callable[[], Timing], passes: int) -> Callable[[], Timing]:
    def run() -> Timing:
        timings = [load() for _ in range(passes)]
        return Timing(sum(one.samples for one in timings), sum(one.seconds for one in timings))

    return run


def _own_pixels(picture: bytes) -> NDArray[np.uint8]:
    out = np.empty((224, 224, 3), dtype=np.uint8)
    TRANSFORM.decode_into(picture, out)
    return out


def _decode_only_row(data: Data, threads: int) -> Row:
    """The same bytes, the accurate decoder on whole pictures, and nothing else."""
    chunks = [data.places[start : start + _SAMPLES_PER_TASK] for start in range(0, len(data.places), _SAMPLES_PER_TASK)]

    def decode(chunk: tuple[Place, ...]) -> int:
        for place in chunk:
            simplejpeg.decode_jpeg(read_bytes(place), "RGB", fastdct=False, fastupsample=False)
        return len(chunk)

    def run() -> Timing:
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            samples = sum(pool.map(decode, chunks))
        return Timing(samples, time.perf_counter() - started)

    return Row(limit(threads), run)


def _cached_rows(data: Data, settings: Settings) -> list[Row]:
    """Two passes with a pixel cache: the first finds it empty and fills it, the second reads it."""
    folder = data.folder / "pixels"
    load = _loading(data, settings, settings.workers, pixel_cache=folder)

    def fill() -> Timing:
        shutil.rmtree(folder, ignore_errors=True)
        return load()

    return [Row(cached(1), fill), Row(cached(2), load)]


def _packing_rows(data: Data) -> list[Row]:
    """Both write the same pictures to the same disk and end when they are on it; the source is in the page cache."""
    packed, copied = data.folder / "packed", data.folder / "copied"
    packed.mkdir()
    copied.mkdir()

    def pack() -> Timing:
        _empty(packed)
        started = time.perf_counter()
        with wds_real.open_source(data.source, allow_partial=True) as images:
            wds_real.write_shards(images, wds_real.open_store(packed))
        return Timing(len(data.places), time.perf_counter() - started)

    def copy() -> Timing:
        _empty(copied)
        target = copied / data.source.name
        started = time.perf_counter()
        subprocess.run(["/bin/cp", data.source, target], check=True)  # noqa: S603 -- paths of our own
        for path in (target, copied):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        return Timing(len(data.places), time.perf_counter() - started)

    return [Row(PACK, pack), Row(COPY, copy)]


def _empty(folder: Path) -> None:
    """Remove what the round before wrote, and let the disk come to rest."""
    for path in folder.iterdir():
        path.unlink()
    os.sync()
