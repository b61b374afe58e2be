"""The read line on one screen: plan, fetch, verify, decode, transform, batch.

One process decodes with a thread pool. Decoding and resizing release the GIL, and each thread writes its pixels
straight into its slot of a batch that was allocated whole.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from wds_real import plan
from wds_real.decode import DecodeError, EvalTransform, blank_image, decode_image
from wds_real.distributed import current_world
from wds_real.errors import PlanError, ShardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from wds_real.dataset import Dataset, Sample

__all__ = ["Batch", "Loader", "collate", "output_shape"]

_LOG = logging.getLogger(__name__)
_REAL_COLUMNS = 10  # the longest released list has 9 labels
_BATCHES_AHEAD = 2
_SAMPLES_PER_TASK = 8  # few enough to share a batch out, many enough to make handing over cheap


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """A batch of fixed size B; where there are fewer samples, padded rows are not `valid`.

    Attributes:
        image: uint8 (B, 3, H, W), RGB, 0..255, channels-last memory, not normalised; or what a custom transform gives.
            Padded rows are zero.
        original_label: int64 (B,), class index 0..999 of the ILSVRC2012 ground truth; -1 in padded rows.
        real_label: int64 (B, 10), ReaL class indices padded with -1; all -1 where ReaL accepts no label.
        index: int64 (B,), position in the whole data set; -1 in padded rows.
        key: B strings; "" in padded rows.
        valid: bool (B,), False in padded rows, and in rows whose sample could not be read (``on_error="record"``),
            which keep their index.
        number: Number of the batch in the plan; -1 if all of it is padding, or if it is not from a `Loader`.
    """

    image: torch.Tensor
    original_label: torch.Tensor
    real_label: torch.Tensor
    index: torch.Tensor
    key: tuple[str, ...]
    valid: torch.Tensor
    number: int = -1

    def __len__(self) -> int:
        return len(self.key)

    def __repr__(self) -> str:
        samples = f"{int(self.valid.sum())} of {len(self)} rows valid"
        return f"Batch(number={self.number}, image={self.image.dtype} {tuple(self.image.shape)}, {samples})"

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the batch with its image on `device`; labels, index and valid stay where they are."""
        return replace(self, image=self.image.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch with its image in pinned memory; `torch.utils.data.DataLoader` calls this."""
        return replace(self, image=self.image.pin_memory())


class Loader(IterableDataset[Batch]):
    """Iterates over this rank's batches; the same batches exist at every world size.

    Works alone, or inside ``torch.utils.data.DataLoader(loader, batch_size=None, num_workers=N)``, whose workers take
    the steps in turn. Each ``iter()`` starts at the beginning, or once at the place that `load_state_dict` set.

    Args:
        dataset: From `wds_real.open_dataset`.
        batch_size: Samples a batch, on each rank.
        transform: An `EvalTransform`, or any callable that takes a Pillow image in mode RGB and returns an image, an
            array (H, W, 3) or a tensor (C, H, W) of always the same shape. None means ``EvalTransform()``.
        shuffle: Permute the samples by `wds_real.plan.shuffled_order`, anew for each epoch.
        seed: Of the permutation.
        threads: Decoding threads; None means one a core, shared between the processes of this node.
        rank: Place among the processes; None means the process group's, torchrun's or SLURM's, or 0.
        world_size: Number of processes; None as for `rank`.
        pad: Yield the same number of batches of exactly `batch_size` rows on every rank. False yields real rows only:
            the last batch may be short and ranks may differ by one batch.
        batches: Numbers of the batches of the plan to go through; None means all. What is left of an interrupted run.
        on_error: ``raise``, or ``record``: a sample that cannot be read keeps its index in the batch but is not valid.

    Raises:
        PlanError: rank, world_size or batch_size are impossible.
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
        self._shape, self._dtype = output_shape(self.transform)
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
        try:
            for step in steps:
                started.append(self._start(pool, order, step))
                if len(started) > _BATCHES_AHEAD:
                    yield self._finish(started.popleft())
            while started:
                yield self._finish(started.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

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

    def _start(self, pool: ThreadPoolExecutor, order: NDArray[np.int64], step: int) -> _PendingBatch:
        """Allocate the batch of `step` and hand its samples to the threads."""
        number = self._share[step] if step < len(self._share) else -1
        positions = order[:0] if number < 0 else plan.batch(order, number, batch_size=self.batch_size)
        rows = self.batch_size if self.pad else len(positions)
        with torch.inference_mode(mode=False):  # the threads that write are not in the caller's inference mode
            pixels = torch.empty((rows, *self._shape), dtype=self._dtype, pin_memory=_may_pin())
        pixels[len(positions) :] = 0
        chunks = (
            range(len(positions))[start : start + _SAMPLES_PER_TASK] for start in range(0, rows, _SAMPLES_PER_TASK)
        )
        tasks = [pool.submit(self._fill, positions, pixels, chunk) for chunk in chunks if chunk]
        return _PendingBatch(step, number, positions, pixels, tasks)

    def _fill(self, positions: NDArray[np.int64], pixels: torch.Tensor, rows: range) -> list[int]:
        """Read, check, decode and transform some rows of a batch; return the rows that could not be read."""
        failed = []
        for row in rows:
            try:
                self._fill_row(int(positions[row]), pixels[row])
            except ShardError as error:
                if self._on_error == "raise":
                    raise
                _LOG.warning("recorded as unreadable: %s", error)
                pixels[row] = 0
                failed.append(row)
        return failed

    def _fill_row(self, position: int, out: torch.Tensor) -> None:
        reader = self.dataset.reader
        data = reader.read(position)
        try:
            if isinstance(self.transform, EvalTransform):
                self.transform.decode_into(data, out.numpy())
                return
            image = decode_image(data)
        except DecodeError as error:
            raise reader.error(position, str(error)) from error
        values = _channels_last(self.transform(image))
        if values.shape != out.shape or values.dtype != out.dtype:
            raise ValueError(
                f"{self.dataset.index.keys[position]}: the transform gave {_form(values)}, but {_form(out)} for "
                "another image. All images of a batch need one shape and dtype: end the transform with a crop."
            )
        out.copy_(values)

    def _finish(self, pending: _PendingBatch) -> Batch:
        """Wait for the threads, then add the labels."""
        failed = [row for task in pending.tasks for row in task.result()]
        self._step = pending.step + 1
        index = self.dataset.index
        return _batch(
            pending.pixels.permute(0, 3, 1, 2),
            index=pending.positions.tolist(),
            keys=[index.keys[position] for position in pending.positions],
            original=index.original_label[pending.positions].tolist(),
            real=[index.real_label[position] for position in pending.positions],
            failed=failed,
            number=pending.number,
        )


@dataclass(frozen=True, slots=True)
class _PendingBatch:
    """A batch the threads are filling: pixels (rows, H, W, C), of which the first ``len(positions)`` are samples."""

    step: int
    number: int
    positions: NDArray[np.int64]
    pixels: torch.Tensor
    tasks: list[Future[list[int]]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Make a `Batch` of samples whose images are equally large: ``DataLoader(ds, collate_fn=wds_real.collate)``."""
    images = [_channels_last(sample["image"]) for sample in samples]
    if len({image.shape for image in images}) > 1:
        raise ValueError(
            f"images of different sizes cannot make a batch: {_form(images[0])} and others. Open the data set with a "
            "transform that ends with a crop: open_dataset(root, transform=EvalTransform())."
        )
    return _batch(
        torch.stack(images).permute(0, 3, 1, 2),
        index=[sample["index"] for sample in samples],
        keys=[sample["key"] for sample in samples],
        original=[sample["original_label"] for sample in samples],
        real=[tuple(sample["real_label"]) for sample in samples],
    )


def _batch(
    image: torch.Tensor,
    *,
    index: list[int],
    keys: list[str],
    original: list[int],
    real: list[tuple[int, ...]],
    failed: Sequence[int] = (),
    number: int = -1,
) -> Batch:
    """Add labels to pixels (B, C, H, W); rows behind the last sample are padding."""
    padded = len(image) - len(keys)
    columns = max([_REAL_COLUMNS, *map(len, real)])
    valid = torch.arange(len(image)) < len(keys)
    valid[list(failed)] = False
    return Batch(
        image=image,
        original_label=torch.tensor(original + [-1] * padded, dtype=torch.int64),
        real_label=torch.tensor(
            [[*labels, *[-1] * (columns - len(labels))] for labels in real] + [[-1] * columns] * padded,
            dtype=torch.int64,
        ).reshape(len(image), columns),
        index=torch.tensor(index + [-1] * padded, dtype=torch.int64),
        key=(*keys, *[""] * padded),
        valid=valid,
        number=number,
    )


def output_shape(transform: EvalTransform | Callable[[Any], Any]) -> tuple[tuple[int, ...], torch.dtype]:
    """Return the shape (H, W, C) and dtype a transform gives; a blank image tells, so that no sample is read for it."""
    if isinstance(transform, EvalTransform):
        return (*transform.size, 3), torch.uint8
    values = _channels_last(transform(blank_image()))
    return tuple(values.shape), values.dtype


def _channels_last(image: Any) -> torch.Tensor:  # noqa: ANN401 -- whatever a user's transform returns
    """Return a Pillow image, an array (H, W, C) or a tensor (C, H, W) as a tensor (H, W, C)."""
    values = image if isinstance(image, torch.Tensor) else torch.from_numpy(np.array(image))
    if values.ndim != 3:
        raise ValueError(
            f"the transform gave {values.dtype} of shape {tuple(values.shape)}, expected an RGB image, an array "
            "(H, W, 3) or a tensor (C, H, W)."
        )
    return values.permute(1, 2, 0) if isinstance(image, torch.Tensor) else values


def _form(values: torch.Tensor) -> str:
    height, width, channels = values.shape
    return f"{values.dtype} {channels}x{height}x{width}"


def _may_pin() -> bool:
    """Pinned memory needs the accelerator, which a forked DataLoader worker must not touch."""
    return get_worker_info() is None and torch.accelerator.is_available()


def _threads_for_this_process() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // current_world().local_world_size)
