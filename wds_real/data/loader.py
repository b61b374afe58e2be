"""The read path: plan, fetch, verify, decode, transform, batch.

One process decodes with a pool of threads. Decoding and resizing release the GIL, and each thread writes its pixels
straight into its rows of a preallocated batch. The steps of one pass:

    Schedule.steps -> run_stage: [allocate -> SampleReader.read_many -> decode_into the row -> Batch]
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

from torch.utils.data import IterableDataset, get_worker_info

from wds_real.data.batch import Batch
from wds_real.data.decode_stage import DecodeStage, open_pixel_cache
from wds_real.data.distributed import resolve_world, threads_of_this_process
from wds_real.data.notebook import facts_table
from wds_real.data.pipeline import StageTimes, run_stage
from wds_real.data.schedule import LoaderState, Schedule, select_batches
from wds_real.errors import PlanError
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from wds_real.data.dataset import Dataset

__all__ = ["Loader", "worker_places"]


class Loader(IterableDataset[Batch]):
    """Iterates over this rank's batches; the same batches exist at every world size.

    Works alone, or inside ``torch.utils.data.DataLoader(loader, batch_size=None, num_workers=N)``, whose workers take
    the steps in turn. Each ``iter()`` starts at the beginning, or once at the place that `load_state_dict` set.

    The memory of a batch is reused once nothing refers to it or to a part of it; up to five batches are kept.

    Args:
        dataset: From `wds_real.open_dataset`.
        batch_size: Images per batch on each rank.
        transform: An `EvalTransform`, or any callable that takes a Pillow image in mode RGB and returns an image, an
            array (H, W, 3) or a tensor (C, H, W), always of the same shape. None means ``EvalTransform()``.
        shuffle: Permute the samples by `wds_real.data.plan.shuffled_order`, anew for each epoch.
        seed: Seed of the permutation.
        threads: Decoding threads; None means one for each core, divided between the processes of this node.
        rank: Place among the processes; None means the process group's, torchrun's or SLURM's, or 0.
        world_size: Number of processes; None as for `rank`.
        pad: Yield the same number of batches of exactly `batch_size` rows on every rank. False yields real rows only:
            the last batch may be short, and ranks may differ by one batch.
        batches: Numbers of the batches of the plan to go through; None means all. Resuming passes those left to do.
        on_error: ``raise``, or ``record``: a sample that cannot be read keeps its index in the batch but is not valid.
        pixel_cache: Folder for a file of transformed pixels. The first pass writes it; later passes, of any process on
            this machine, read it instead of decoding. Needs an `EvalTransform`.
        check_files: Read each JPEG to its end, also the rows below the crop, so that `Batch.warned` has every file that
            the decoder warns about; this takes about a twentieth of the time to decode. False reads as far as the crop
            needs; `wds_real.evaluate` and a pixel cache set it.

    Raises:
        PlanError: rank, world_size or batch_size are impossible.
        ValueError: `on_error` is not one of its values, or `pixel_cache` is given without an `EvalTransform`.
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
        pixel_cache: str | os.PathLike[str] | None = None,
        check_files: bool = False,
    ) -> None:
        if on_error not in ("raise", "record"):
            raise ValueError(f"on_error is {on_error!r}, expected raise or record.")
        self.dataset = dataset
        self.transform = EvalTransform() if transform is None else transform
        self.threads = threads or threads_of_this_process()
        self.schedule = Schedule(
            dataset=dataset,
            world=resolve_world(rank, world_size),
            batch_size=batch_size,
            batches=select_batches(len(dataset), batch_size, batches),
            shuffle=shuffle,
            seed=seed,
            pad=pad,
        )
        self._state = LoaderState(self.schedule)
        self._times = StageTimes()
        self._stage = DecodeStage(
            dataset,
            self.transform,
            padded_rows=batch_size if pad else None,
            record_errors=on_error == "record",
            pixel_cache=None if pixel_cache is None else open_pixel_cache(pixel_cache, dataset, self.transform),
            check_files=check_files,
        )

    def __repr__(self) -> str:
        return (
            f"Loader({self.dataset!r}, {len(self):,} batches of {self.batch_size}, rank {self.rank} of "
            f"{self.world_size})"
        )

    def _repr_html_(self) -> str:
        return facts_table(
            "Loader",
            {
                "data set": repr(self.dataset),
                "batches of this rank": f"{len(self):,}",
                "batch size": self.batch_size,
                "samples of this rank": f"{self.num_samples:,}",
                "rank": f"{self.rank} of {self.world_size}",
                "epoch": self.epoch,
                "threads": self.threads,
            },
        )

    def __len__(self) -> int:
        """Return the number of batches this rank yields."""
        return len(self.schedule)

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's batches, from the beginning or from the place that `load_state_dict` set.

        Raises:
            ShardError: a sample is damaged or cannot be decoded (unless ``on_error="record"``).
            UnavailableError: the object store denies access, or gave up.
        """
        steps = self.schedule.steps(worker_places(self._state.begin_pass()), epoch=self.epoch)
        self._times = StageTimes()
        return run_stage(
            self._stage, steps, threads=self.threads, times=self._times, set_yielded=self._state.set_yielded
        )

    @property
    def batch_size(self) -> int:
        """Images per batch on each rank."""
        return self.schedule.batch_size

    @property
    def rank(self) -> int:
        """Place among the processes."""
        return self.schedule.world.rank

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.schedule.world.world_size

    @property
    def num_samples(self) -> int:
        """Samples in this rank's batches."""
        return self.schedule.num_samples

    @property
    def epoch(self) -> int:
        """Epoch of the next ``iter()``."""
        return self._state.epoch

    @property
    def read_s(self) -> float:
        """Seconds that the threads of the last pass waited for bytes, added up over the threads."""
        return self._times.read_s

    @property
    def decode_s(self) -> float:
        """Seconds that the threads of the last pass decoded, added up over the threads."""
        return self._times.decode_s

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of the next ``iter()``, as with ``DistributedSampler``.

        Raises:
            PlanError: Accelerate calls it: a DataLoader of this loader went through ``prepare()``, which would share
                out its batches a second time.
        """
        _refuse_accelerate(inspect.currentframe())
        self._state.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last batch that was yielded, and the settings for which it is valid.

        In a DataLoader with workers, the workers' copies yield the batches, so the place of this object does not move.
        """
        return self._state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next ``iter()`` begin where `state` was saved.

        Raises:
            PlanError: `state` is of another data set, batch size, seed, rank or world size.
        """
        self._state.load_state_dict(state)


def _refuse_accelerate(frame: FrameType | None) -> None:
    """Raise if the function of `frame` was called by Accelerate, which calls `set_epoch` before each pass."""
    caller = None if frame is None else frame.f_back
    if caller is not None and str(caller.f_globals.get("__name__")).startswith("accelerate."):
        raise PlanError(
            "accelerator.prepare() was given a DataLoader of a wds_real.Loader, and would share its batches out again. "
            "Give it the Loader itself, or leave the DataLoader as it is: the Loader shares batches out by itself."
        )


def worker_places(places: range) -> range:
    """Return the places of this DataLoader worker; DataLoader asks the workers in turn, which keeps the order."""
    worker = get_worker_info()
    return places if worker is None else places[worker.id :: worker.num_workers]
