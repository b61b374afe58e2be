"""The read line on one screen: plan, fetch, verify, decode, transform, batch.

One process decodes with a thread pool. Decoding and resizing release the GIL, and each thread writes its pixels
straight into its slot of a batch that was allocated whole.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from wds_real.data import plan
from wds_real.data.batch import Batch, LabelTable, channels_last, form, output_shape
from wds_real.data.distributed import current_world
from wds_real.data.pixel_cache import PixelCache, cache_size
from wds_real.errors import PlanError, ShardError
from wds_real.image.backends import decoder_versions
from wds_real.image.decode import DecodeError, decode_image
from wds_real.image.transform import EvalTransform
from wds_real.storage.buffers import Buffers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.data.reader import Samples

__all__ = ["Loader"]

_LOG = logging.getLogger(__name__)
_BATCHES_AHEAD = 2
_DECODED_AT_ONCE = 8  # samples a task: few enough to share a batch out, many enough to make handing over cheap
_READ_AT_ONCE = 32
_MAX_FILE_BUFFERS = 64
_MAX_PIXEL_BUFFERS = _BATCHES_AHEAD + 3  # that being started, and two that the caller may be at work on


class Loader(IterableDataset[Batch]):
    """Iterates over this rank's batches; the same batches exist at every world size.

    Works alone, or inside ``torch.utils.data.DataLoader(loader, batch_size=None, num_workers=N)``, whose workers take
    the steps in turn. Each ``iter()`` starts at the beginning, or once at the place that `load_state_dict` set.

    The memory of a batch is used again once nobody holds it or a part of it; up to five batches of it are kept.

    Args:
        dataset: From `wds_real.open_dataset`.
        batch_size: Samples a batch, on each rank.
        transform: An `EvalTransform`, or any callable that takes a Pillow image in mode RGB and returns an image, an
            array (H, W, 3) or a tensor (C, H, W) of always the same shape. None means ``EvalTransform()``.
        shuffle: Permute the samples by `wds_real.data.plan.shuffled_order`, anew for each epoch.
        seed: Of the permutation.
        threads: Decoding threads; None means one a core, shared between the processes of this node.
        rank: Place among the processes; None means the process group's, torchrun's or SLURM's, or 0.
        world_size: Number of processes; None as for `rank`.
        pad: Yield the same number of batches of exactly `batch_size` rows on every rank. False yields real rows only:
            the last batch may be short and ranks may differ by one batch.
        batches: Numbers of the batches of the plan to go through; None means all. What is left of an interrupted run.
        on_error: ``raise``, or ``record``: a sample that cannot be read keeps its index in the batch but is not valid.
        decode: False gives `Batch.jpeg` instead of `Batch.image`, for those who have their own decoder; the bytes are
            checked all the same.
        mmap: Let `Batch.jpeg` be views of the memory-mapped shards instead of copies: faster, and no memory of this
            process. Bytes are checked as they are read; shards must not be changed in place while views are used
            (who touches a part that was cut off is killed by the system). For shards in a folder, with `decode` False.
        pixel_cache: Folder for a file of transformed pixels, as large as `PixelCache` says. The first pass fills it and
            later ones, of any process on this machine, read it instead of decoding. Needs an `EvalTransform`.

    Attributes:
        read_s: Seconds that the threads of the last pass waited for bytes, added up over the threads.
        decode_s: Seconds that they decoded.

    Raises:
        PlanError: rank, world_size or batch_size are impossible.
        ValueError: `pixel_cache` without decoding, or with another transform; `mmap` with decoding, or without a
            folder.
    """

    def __init__(  # noqa: PLR0913 -- what users of DataLoader expect to set here
        self,
        dataset: Dataset,
        *,
        batch_size: int = 256,
        transform: EvalTransform | Callable[[Any], Any] | None = None,
        shuffle: bool = False,
        seed: int = 0,
        threads: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        pad: bool = True,
        batches: Sequence[int] | None = None,
        on_error: Literal["raise", "record"] = "raise",
        decode: bool = True,
        mmap: bool = False,
        pixel_cache: str | os.PathLike[str] | None = None,
    ) -> None:
        world = current_world()
        if on_error not in ("raise", "record"):
            raise ValueError(f"on_error is {on_error!r}, expected raise or record.")
        if (rank is None) != (world_size is None):
            raise PlanError(f"rank is {rank} and world_size is {world_size}: give both, or neither.")
        self.dataset = dataset
        self.batch_size = batch_size
        self.transform = EvalTransform() if transform is None else transform
        self.shuffle = shuffle
        self.seed = seed
        self.rank = world.rank if rank is None else rank
        self.world_size = world.world_size if world_size is None else world_size
        self.pad = pad
        self.threads = threads or _threads_for_this_process()
        self.epoch = 0
        self._on_error = on_error
        self._step = self._resume_at = 0
        self.read_s = self.decode_s = 0.0
        self._shape, self._dtype = output_shape(self.transform) if decode else ((0,), torch.uint8)
        if mmap and (decode or dataset.reader.remote):
            raise ValueError("mmap is for undecoded files of shards in a folder: leave it out, or give decode=False.")
        self._decode, self._mmap = decode, mmap
        self._files, self._pixels = Buffers(max_kept=_MAX_FILE_BUFFERS), Buffers(max_kept=_MAX_PIXEL_BUFFERS)
        self._labels = LabelTable(dataset.index)
        self._pixel_cache = None if pixel_cache is None else self._open_cache(pixel_cache)
        total = plan.num_batches(len(dataset), batch_size)
        self._batches = tuple(range(total) if batches is None else batches)
        outside = [number for number in self._batches if not 0 <= number < total]
        if outside:
            raise PlanError(f"batches has {outside[0]}, expected numbers of batches in [0, {total}).")
        share = plan.share(len(self._batches), rank=self.rank, world_size=self.world_size)
        self._share = self._batches[share.start : share.stop]

    def __len__(self) -> int:
        """Return the number of batches this rank yields."""
        if self.pad:
            return plan.num_steps(len(self._batches), world_size=self.world_size)
        return len(self._share)

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's batches, from the beginning or from the place that `load_state_dict` set.

        Raises:
            ShardError: a sample is damaged or cannot be decoded (unless ``on_error="record"``).
        """
        first, self._resume_at = self._resume_at, 0
        self._step = first
        steps = range(first, len(self))
        worker = get_worker_info()
        if worker is not None:  # a DataLoader takes batches from its workers in turn: this keeps the plan's order
            steps = steps[worker.id :: worker.num_workers]
        return self._iterate(steps, self._order())

    def _iterate(self, steps: range, order: NDArray[np.int64]) -> Iterator[Batch]:
        started: deque[_PendingBatch] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")
        numbers = {step: self._share[step] for step in steps if step < len(self._share)}
        positions = {step: plan.batch(order, number, batch_size=self.batch_size) for step, number in numbers.items()}
        self.read_s = self.decode_s = 0.0
        with ExitStack() as stack:  # at the end: drop what is not begun, wake who waits for bytes, wait for the threads
            stack.callback(pool.shutdown, wait=True)
            positions_to_read = self._to_read(positions.values())
            samples = stack.enter_context(self.dataset.reader.ahead(positions_to_read, threads=self.threads))
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            for step in steps:
                batch = self._allocate(step, numbers.get(step, -1), positions.get(step, order[:0]))
                started.append(self._start(pool, samples, batch))
                if len(started) > _BATCHES_AHEAD:
                    yield self._finish(started.popleft())
            while started:
                yield self._finish(started.popleft())

    @property
    def num_samples(self) -> int:
        """Samples in this rank's batches."""
        order = self.dataset.positions
        return sum(len(plan.batch(order, number, batch_size=self.batch_size)) for number in self._share)

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of the next ``iter()``, as with ``DistributedSampler``."""
        if epoch != self.epoch:
            self._step = self._resume_at = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last batch that was yielded, and what it belongs to.

        Inside a DataLoader with workers the batches are yielded by their copies: this one's place does not move.
        """
        return {"step": self._step, "epoch": self.epoch, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next ``iter()`` go on where `state` was taken.

        Raises:
            PlanError: `state` is of another data set, batch size, seed, rank or world size, so its place means nothing
                here.
        """
        differing = [name for name, value in self._identity().items() if state.get(name) != value]
        if differing:
            raise PlanError(
                "the state is of another run: "
                + ", ".join(f"{name} was {state.get(name)}, is {self._identity()[name]}" for name in differing)
                + ". Build the Loader with the values of the state."
            )
        self._step = self._resume_at = int(state["step"])
        self.epoch = int(state["epoch"])

    def _identity(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset.digest,
            "split": self.dataset.split,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "rank": self.rank,
            "world_size": self.world_size,
            "batches": hashlib.sha256(str(self._batches).encode()).hexdigest()[:16],
        }

    def _order(self) -> NDArray[np.int64]:
        if not self.shuffle:
            return self.dataset.positions
        return self.dataset.positions[plan.shuffled_order(self.dataset.keys, seed=self.seed, epoch=self.epoch)]

    def _allocate(self, step: int, number: int, positions: NDArray[np.int64]) -> _PendingBatch:
        rows = self.batch_size if self.pad else len(positions)
        shape = (rows, *self._shape)
        with torch.inference_mode(mode=False):  # the threads that write are not in the caller's inference mode
            if not self._decode or _may_pin():
                pixels = torch.empty(shape, dtype=self._dtype, pin_memory=self._decode)
            else:
                memory = self._pixels.take(math.prod(shape) * self._dtype.itemsize)
                pixels = torch.frombuffer(memory, dtype=self._dtype).reshape(shape)
        if len(positions) < rows:
            pixels[len(positions) :] = 0
        return _PendingBatch(step, number, positions, pixels, pixels.numpy(), [b""] * (0 if self._decode else rows))

    def _start(self, pool: ThreadPoolExecutor, samples: Samples, batch: _PendingBatch) -> _PendingBatch:
        """Hand the batch's samples to the threads."""
        rows = range(len(batch.positions))
        fill, each = (self._fill, _DECODED_AT_ONCE) if self._decode else (self._fill_undecoded, _READ_AT_ONCE)
        for start in range(0, len(rows), each):
            batch.tasks.append(pool.submit(fill, samples, batch, rows[start : start + each]))
        return batch

    def _fill(self, samples: Samples, batch: _PendingBatch, rows: range) -> _Filled:
        """Read, check, decode and transform some rows of a batch."""
        failed, cache, began = [], self._pixel_cache, perf_counter()
        wanted = dict(zip(rows, batch.positions[rows.start : rows.stop].tolist(), strict=True))
        if cache is not None:
            wanted = {row: position for row, position in wanted.items() if not cache.read(position, batch.array[row])}
        asked = perf_counter()
        found = samples.read_many([*wanted.values()], self._files) if wanted else []
        read_s = perf_counter() - asked if wanted else 0.0
        for (row, position), data in zip(wanted.items(), found, strict=True):
            out = batch.array[row]
            try:
                if isinstance(data, ShardError):
                    raise data
                self._transform_into(position, data, out)
            except ShardError as error:
                self._record(error)
                out[:] = 0
                failed.append(row)
            else:
                if cache is not None:
                    cache.write(position, out)
        return _Filled(failed, read_s, perf_counter() - began - read_s)

    def _fill_undecoded(self, samples: Samples, batch: _PendingBatch, rows: range) -> _Filled:
        """Read and check some rows of a batch."""
        failed, began = [], perf_counter()
        positions = batch.positions[rows.start : rows.stop].tolist()
        found = samples.read_many(positions, self._files, mapped=self._mmap)
        for row, data in zip(rows, found, strict=True):
            if isinstance(data, ShardError):
                self._record(data)
                failed.append(row)
            else:
                batch.jpeg[row] = data
        return _Filled(failed, perf_counter() - began, 0.0)

    def _record(self, error: ShardError) -> None:
        if self._on_error == "raise":
            raise error
        _LOG.warning("recorded as unreadable: %s", error)

    def _transform_into(self, position: int, data: bytes | memoryview, out: NDArray[Any]) -> None:
        try:
            if isinstance(self.transform, EvalTransform):
                self.transform.decode_into(data, out)
                return
            image = decode_image(data)
        except DecodeError as error:
            raise self.dataset.reader.error(position, str(error)) from error
        values, expected = channels_last(self.transform(image)), torch.from_numpy(out)
        if values.shape != expected.shape or values.dtype != expected.dtype:
            raise ValueError(
                f"{self.dataset.index.keys[position]}: the transform gave {form(values)}, but {form(expected)} for "
                "another image. All images of a batch need one shape and dtype: end the transform with a crop."
            )
        expected.copy_(values)

    def _finish(self, batch: _PendingBatch) -> Batch:
        """Wait for the threads, then add the labels."""
        filled = [task.result() for task in batch.tasks]
        failed = [row for part in filled for row in part.failed]
        self.read_s += sum(part.read_s for part in filled)
        self.decode_s += sum(part.decode_s for part in filled)
        self._step = batch.step + 1
        image = batch.pixels.permute(0, 3, 1, 2) if self._decode else batch.pixels
        return self._labels.batch(image, batch.positions, failed=failed, number=batch.number, jpeg=tuple(batch.jpeg))

    def _to_read(self, batches: Iterable[NDArray[np.int64]]) -> list[int]:
        """Return the positions whose bytes will be needed, in their order."""
        cache = self._pixel_cache
        positions = [position for batch in batches for position in batch.tolist()]
        if cache is None or not self.dataset.reader.remote:
            return positions
        return [position for position in positions if not cache.has(position)]

    def _open_cache(self, folder: str | os.PathLike[str]) -> PixelCache:
        if not isinstance(self.transform, EvalTransform) or not self._decode:
            raise ValueError("pixel_cache needs decoded images and an EvalTransform: no other says what it does.")
        identity = {
            "dataset": self.dataset.digest,
            "transform": self.transform.describe(),
            "decoders": decoder_versions(),
        }
        size = cache_size(len(self.dataset.index), shape=self._shape)
        _LOG.info("pixel cache: %.1f GB in %s when all images are in it", size / 1e9, folder)
        return PixelCache(
            folder,
            identity=identity,
            num_samples=len(self.dataset.index),
            shape=self._shape,
            num_rows=len(self.dataset),
        )


class _Filled(NamedTuple):
    """What became of some rows: those that could not be read, and the seconds that reading and decoding took."""

    failed: list[int]
    read_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class _PendingBatch:
    """A batch the threads are filling: `pixels` (rows, H, W, C) or `jpeg`; the first ``len(positions)`` are samples.

    `array` is the memory of `pixels`.
    """

    step: int
    number: int
    positions: NDArray[np.int64]
    pixels: torch.Tensor
    array: NDArray[Any]
    jpeg: list[bytes | memoryview]
    tasks: list[Future[_Filled]] = field(default_factory=list)


def _may_pin() -> bool:
    """Pinned memory needs the accelerator, which a forked DataLoader worker must not touch."""
    return get_worker_info() is None and torch.accelerator.is_available()


def _threads_for_this_process() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // current_world().local_world_size)
