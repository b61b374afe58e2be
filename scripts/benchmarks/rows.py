"""The rows of this package: loading and packing, with their limits, which are decoding alone and copying."""

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

    from benchmarks.data import Data, Location

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
UNDECODED_BATCH = 64  # 7 MB, which fit in the processor's caches, as webdataset's single samples do
_UNDECODED_PASSES = 8  # together they take as long as one pass of webdataset; one takes 30 ms, too short to time
_SAMPLES_PER_TASK = 8  # as in the loader, so that both spend the same on handing over tasks


class Timing(NamedTuple):
    """Samples and seconds of one round of a row."""

    samples: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """Something that is timed once per round.

    Attributes:
        name: The name in the table.
        run: Times one round, without its preparation. None if it cannot be run here.
        missing: The reason why it cannot be run here.
        pixels: From JPEG bytes to this row's pixels, uint8 (224, 224, 3), for the comparison with Pillow's.
    """

    name: str
    run: Callable[[], Timing] | None
    missing: str = ""
    pixels: Callable[[bytes], NDArray[np.uint8]] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of all rows; `threads` ascends, and its last is the number of the peers' workers."""

    threads: tuple[int, ...]
    batch_size: int

    @property
    def workers(self) -> int:
        """Number of processes or threads of a peer."""
        return self.threads[-1]


def exact(threads: int) -> str:
    """Return the name of the row of `wds_real.Loader` with this number of threads."""
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
    """Return the rows of this package."""
    rows = []
    for threads in settings.threads:
        rows.append(_decode_only_row(data, threads))
        rows.append(Row(exact(threads), _passes(_loader(data, settings, threads)), pixels=_own_pixels))
        for mmap in (False, True):
            loader = _undecoded_loader(data, threads, mmap=mmap)
            rows.append(Row(undecoded(threads, mmap=mmap), _passes(loader, _UNDECODED_PASSES)))
    return [*rows, *_cached_rows(data, settings), *_packing_rows(data)]


def consume(start: Callable[[], Iterable[Sized]]) -> Timing:
    """Time a pass over the batches that `start` returns, from `iter` to the last one."""
    batches = start()
    started = time.perf_counter()
    samples = sum(map(len, batches))
    return Timing(samples, time.perf_counter() - started)


def _loader(data: Data, settings: Settings, threads: int, *, pixel_cache: Path | None = None) -> wds_real.Loader:
    return wds_real.Loader(
        wds_real.open_dataset(data.root),
        batch_size=settings.batch_size,
        transform=TRANSFORM,
        threads=threads,
        pad=False,
        pixel_cache=pixel_cache,
    )


def _undecoded_loader(data: Data, threads: int, *, mmap: bool) -> wds_real.UndecodedLoader:
    return wds_real.UndecodedLoader(
        wds_real.open_dataset(data.root), batch_size=UNDECODED_BATCH, threads=threads, pad=False, mmap=mmap
    )


def _passes(loader: wds_real.Loader | wds_real.UndecodedLoader, number: int = 1) -> Callable[[], Timing]:
    """Return a function that times this number of passes over a loader, which stays from round to round."""

    def run() -> Timing:
        timings = [consume(lambda: loader) for _ in range(number)]
        return Timing(sum(one.samples for one in timings), sum(one.seconds for one in timings))

    return run


def _own_pixels(jpeg: bytes) -> NDArray[np.uint8]:
    out = np.empty((224, 224, 3), dtype=np.uint8)
    TRANSFORM.decode_into(jpeg, out)
    return out


def _decode_only_row(data: Data, threads: int) -> Row:
    """Return the row that only decodes: the same bytes, whole images, libjpeg-turbo in its accurate mode."""
    starts = range(0, len(data.locations), _SAMPLES_PER_TASK)
    chunks = [data.locations[start : start + _SAMPLES_PER_TASK] for start in starts]

    def decode(chunk: tuple[Location, ...]) -> int:
        for location in chunk:
            simplejpeg.decode_jpeg(read_bytes(location), "RGB", fastdct=False, fastupsample=False)
        return len(chunk)

    def run() -> Timing:
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            samples = sum(pool.map(decode, chunks))
        return Timing(samples, time.perf_counter() - started)

    return Row(limit(threads), run)


def _cached_rows(data: Data, settings: Settings) -> list[Row]:
    """Return two passes with a pixel cache: the first fills it, the second reads it."""
    folder = data.folder / "pixels"

    def read() -> Timing:
        return consume(lambda: _loader(data, settings, settings.workers, pixel_cache=folder))

    def fill() -> Timing:
        shutil.rmtree(folder, ignore_errors=True)
        return read()

    return [Row(cached(1), fill), Row(cached(2), read)]


def _packing_rows(data: Data) -> list[Row]:
    """Return packing and copying: both read from the page cache, write to the same disk and end with fsync."""
    packed, copied = data.folder / "packed", data.folder / "copied"
    packed.mkdir()
    copied.mkdir()

    def pack() -> Timing:
        _empty(packed)
        started = time.perf_counter()
        with wds_real.open_source(data.source, allow_partial=True) as images:
            wds_real.write_shards(images, wds_real.open_store(packed))
        return Timing(len(data.locations), time.perf_counter() - started)

    def copy() -> Timing:
        _empty(copied)
        target = copied / data.source.name
        started = time.perf_counter()
        subprocess.run(["/bin/cp", data.source, target], check=True)  # noqa: S603 -- fixed command
        for path in (target, copied):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        return Timing(len(data.locations), time.perf_counter() - started)

    return [Row(PACK, pack), Row(COPY, copy)]


def _empty(folder: Path) -> None:
    """Remove the files of the round before, and wait until the disk is idle."""
    for path in folder.iterdir():
        path.unlink()
    os.sync()
