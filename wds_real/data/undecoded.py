"""Batches of verified, undecoded JPEG files, for loops with a decoder of their own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from torch.utils.data import IterableDataset

from wds_real.data.batch import LabelTable
from wds_real.data.distributed import resolve_world, threads_of_this_process
from wds_real.data.loader import worker_places
from wds_real.data.pipeline import FilledRows, StageTimes, run_stage
from wds_real.data.schedule import LoaderState, Schedule, select_batches
from wds_real.errors import ShardError
from wds_real.storage.buffers import Buffers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    import torch

    from wds_real.data.dataset import Dataset
    from wds_real.data.reader import Samples
    from wds_real.data.schedule import Step

__all__ = ["UndecodedBatch", "UndecodedLoader"]

_LOG = logging.getLogger(__name__)
_ROWS_PER_TASK = 32
_MAX_BUFFERS = 64


@dataclass(frozen=True, slots=True, repr=False)
class UndecodedBatch:
    """A batch of files of fixed size B; rows beyond the samples are padding, which is not `valid`.

    Attributes:
        jpeg: B JPEG files, each read-only bytes or a memoryview (``bytes(view)`` copies it); b"" in rows that are not
            valid.
        original_label: As in `wds_real.Batch`.
        real_label: As in `wds_real.Batch`.
        index: As in `wds_real.Batch`.
        key: As in `wds_real.Batch`.
        valid: As in `wds_real.Batch`.
        number: As in `wds_real.Batch`.
    """

    jpeg: tuple[bytes | memoryview, ...]
    original_label: torch.Tensor
    real_label: torch.Tensor
    index: torch.Tensor
    key: tuple[str, ...]
    valid: torch.Tensor
    number: int = -1

    def __len__(self) -> int:
        return len(self.key)

    def __repr__(self) -> str:
        return f"UndecodedBatch(number={self.number}, {int(self.valid.sum())} of {len(self)} rows valid)"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle copies of the files: a DataLoader worker cannot send views."""
        labels = (self.original_label, self.real_label, self.index, self.key, self.valid)
        return UndecodedBatch, (tuple(map(bytes, self.jpeg)), *labels, self.number)


class UndecodedLoader(IterableDataset[UndecodedBatch]):
    """Iterates over the batches of a `wds_real.Loader` as verified files, without decoding.

    Args:
        dataset: From `wds_real.open_dataset`.
        batch_size: As for `Loader`.
        shuffle: As for `Loader`.
        seed: As for `Loader`.
        threads: Reading threads; None as for `Loader`.
        rank: As for `Loader`.
        world_size: As for `Loader`.
        pad: As for `Loader`.
        on_error: As for `Loader`.
        mmap: Give views of the memory-mapped shards instead of copies: faster, and without memory of this process.
            Files are checked as they are read; a shard that is changed in place while a view is used changes the view,
            and reading a view of a part that was truncated ends the process with SIGBUS. For shards in a folder.

    Raises:
        PlanError: rank, world_size or batch_size are impossible.
        ValueError: `on_error` is not one of its values, or `mmap` is set and the shards are not in a folder.
    """

    def __init__(  # noqa: PLR0913 -- as Loader
        self,
        dataset: Dataset,
        *,
        batch_size: int = 256,
        shuffle: bool = False,
        seed: int = 0,
        threads: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        pad: bool = True,
        on_error: Literal["raise", "record"] = "raise",
        mmap: bool = False,
    ) -> None:
        if on_error not in ("raise", "record"):
            raise ValueError(f"on_error is {on_error!r}, expected raise or record.")
        if mmap and dataset.reader.remote:
            raise ValueError("mmap is for shards in a folder: leave it out.")
        self.dataset = dataset
        self.threads = threads or threads_of_this_process()
        self.schedule = Schedule(
            dataset=dataset,
            world=resolve_world(rank, world_size),
            batch_size=batch_size,
            batches=select_batches(len(dataset), batch_size, None),
            shuffle=shuffle,
            seed=seed,
            pad=pad,
        )
        self._state = LoaderState(self.schedule)
        self._stage = _FileStage(
            dataset, padded_rows=batch_size if pad else None, record_errors=on_error == "record", mapped=mmap
        )

    def __len__(self) -> int:
        """Return the number of batches this rank yields."""
        return len(self.schedule)

    def __iter__(self) -> Iterator[UndecodedBatch]:
        """Yield this rank's batches; see `Loader.__iter__`."""
        steps = self.schedule.steps(worker_places(self._state.begin_pass()), epoch=self._state.epoch)
        return run_stage(
            self._stage, steps, threads=self.threads, times=StageTimes(), set_yielded=self._state.set_yielded
        )

    @property
    def num_samples(self) -> int:
        """Samples in this rank's batches."""
        return self.schedule.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of the next ``iter()``."""
        self._state.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last batch that was yielded; see `Loader.state_dict`."""
        return self._state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next ``iter()`` begin where `state` was saved; see `Loader.load_state_dict`."""
        self._state.load_state_dict(state)


@dataclass(frozen=True, slots=True)
class _Files:
    """The rows of a batch: `jpeg` is filled in by the threads."""

    step: Step
    jpeg: list[bytes | memoryview]


class _FileStage:
    """A `wds_real.data.pipeline.Stage` that gives an `UndecodedBatch` of files."""

    rows_per_task = _ROWS_PER_TASK

    def __init__(self, dataset: Dataset, *, padded_rows: int | None, record_errors: bool, mapped: bool) -> None:
        self._reader = dataset.reader
        self._padded_rows, self._record_errors, self._mapped = padded_rows, record_errors, mapped
        self._buffers = Buffers(max_kept=_MAX_BUFFERS)
        self._labels = LabelTable(dataset.index)

    def open_samples(self, steps: Sequence[Step], *, threads: int) -> AbstractContextManager[Samples]:
        positions = [position for step in steps for position in step.positions.tolist()]
        return self._reader.prefetch(positions, threads=threads)

    def allocate(self, step: Step) -> _Files:
        return _Files(step, [b""] * (self._padded_rows or len(step.positions)))

    def fill(self, samples: Samples, memory: _Files, rows: range) -> FilledRows:
        failed, began = [], perf_counter()
        positions = memory.step.positions[rows.start : rows.stop].tolist()
        found = samples.read_many(positions, self._buffers, mapped=self._mapped)
        for row, data in zip(rows, found, strict=True):
            if not isinstance(data, ShardError):
                memory.jpeg[row] = data
            elif self._record_errors:
                _LOG.warning("recorded as unreadable: %s", data)
                failed.append(row)
            else:
                raise data
        return FilledRows(failed, perf_counter() - began)

    def finish(self, memory: _Files, failed: Sequence[int]) -> UndecodedBatch:
        labels = self._labels.rows(memory.step.positions, len(memory.jpeg), failed=failed)
        return UndecodedBatch(
            jpeg=tuple(memory.jpeg),
            original_label=labels.original_label,
            real_label=labels.real_label,
            index=labels.index,
            key=labels.key,
            valid=labels.valid,
            number=memory.step.batch,
        )
