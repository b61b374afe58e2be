"""Decode and transform samples into the rows of a preallocated batch."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import get_worker_info

from wds_real.data.batch import Batch, LabelTable, channels_last, form, output_shape
from wds_real.data.pipeline import BATCHES_IN_PROGRESS, FilledRows
from wds_real.data.pixel_cache import PixelCache, cache_size
from wds_real.errors import ShardError
from wds_real.image.backends import decoder_versions
from wds_real.image.decode import DecodeError, decode_image
from wds_real.image.jpeg_header import is_jpeg
from wds_real.image.jpeg_warnings import jpeg_warning
from wds_real.image.transform import EvalTransform
from wds_real.storage.buffers import Buffers

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.data.reader import Samples
    from wds_real.data.schedule import Step

__all__ = ["DecodeStage", "open_pixel_cache"]

_LOG = logging.getLogger(__name__)
_ROWS_PER_TASK = 8  # few enough to spread a batch over the threads, enough to make a task's overhead small
_MAX_BUFFERS = BATCHES_IN_PROGRESS + 3  # the batch being started, and two that the caller may be using


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The memory of a batch: `pixels` (rows, H, W, C), and `array`, the same memory for NumPy.

    The threads append to `warned` the rows with a file about which the decoder warns.
    """

    step: Step
    pixels: torch.Tensor
    array: NDArray[Any]
    warned: list[int] = field(default_factory=list)


class DecodeStage:
    """A `wds_real.data.pipeline.Stage` that gives a `Batch` of images.

    Args:
        dataset: The data set whose samples are read.
        transform: An `EvalTransform`, or a function of a Pillow image.
        padded_rows: Rows of every batch, with padding; None means no padding.
        record_errors: Mark samples that cannot be read as not valid, instead of raising.
        pixel_cache: Holds transformed pixels, or None.
        check_files: Read each JPEG to its end for the decoder's warnings.
    """

    rows_per_task = _ROWS_PER_TASK

    def __init__(
        self,
        dataset: Dataset,
        transform: EvalTransform | Callable[[Any], Any],
        *,
        padded_rows: int | None,
        record_errors: bool,
        pixel_cache: PixelCache | None,
        check_files: bool = False,
    ) -> None:
        self._dataset = dataset
        self._transform = transform
        self._padded_rows = padded_rows
        self._record_errors = record_errors
        self._cache = pixel_cache
        self._check_files = check_files or pixel_cache is not None  # cached pixels are not decoded again
        self._shape, self._dtype = output_shape(transform)
        self._files, self._memory = Buffers(max_kept=64), Buffers(max_kept=_MAX_BUFFERS)
        self._labels = LabelTable(dataset.index)

    def open_samples(self, steps: Sequence[Step], *, threads: int) -> AbstractContextManager[Samples]:
        """Return the reader of the samples; those in the pixel cache are not prefetched."""
        reader, cache = self._dataset.reader, self._cache
        positions = [position for step in steps for position in step.positions.tolist()]
        if cache is not None and reader.remote:
            positions = [position for position in positions if not cache.has(position)]
        return reader.prefetch(positions, threads=threads)

    def allocate(self, step: Step) -> _Pixels:
        """Return memory for a batch, zero in the padded rows; pinned where there is an accelerator."""
        rows = self._padded_rows or len(step.positions)
        shape = (rows, *self._shape)
        with torch.inference_mode(mode=False):  # the threads that write are not in the caller's inference mode
            if _can_pin():
                pixels = torch.empty(shape, dtype=self._dtype, pin_memory=True)
            else:
                memory = self._memory.take(math.prod(shape) * self._dtype.itemsize)
                pixels = torch.frombuffer(memory, dtype=self._dtype).reshape(shape)
        if len(step.positions) < rows:
            pixels[len(step.positions) :] = 0
        return _Pixels(step, pixels, pixels.numpy())

    def fill(self, samples: Samples, memory: _Pixels, rows: range) -> FilledRows:
        """Read, check, decode and transform some rows of a batch."""
        failed, cache, began = [], self._cache, perf_counter()
        missing = dict(zip(rows, memory.step.positions[rows.start : rows.stop].tolist(), strict=True))
        if cache is not None:
            missing = {row: at for row, at in missing.items() if not cache.read(at, memory.array[row])}
        reading = perf_counter()
        found = samples.read_many([*missing.values()], self._files) if missing else []
        read_s = perf_counter() - reading if missing else 0.0
        for (row, position), data in zip(missing.items(), found, strict=True):
            out = memory.array[row]
            try:
                if isinstance(data, ShardError):
                    raise data
                warning = self._decode_into(position, data, out)
            except ShardError as error:
                if not self._record_errors:
                    raise
                _LOG.warning("recorded as unreadable: %s", str(error))  # not the error, which refers to the shard
                out[:] = 0
                failed.append(row)
            else:
                if warning is not None:
                    memory.warned.append(row)
                elif cache is not None:  # an image with a warning is decoded in each pass, which repeats the warning
                    cache.write(position, out)
        return FilledRows(failed, read_s, perf_counter() - began - read_s)

    def finish(self, memory: _Pixels, failed: Sequence[int]) -> Batch:
        """Return the batch with its labels."""
        labels = self._labels.rows(memory.step.positions, len(memory.pixels), failed=failed)
        return Batch(
            image=memory.pixels.permute(0, 3, 1, 2),
            original_label=labels.original_label,
            real_label=labels.real_label,
            index=labels.index,
            key=labels.key,
            valid=labels.valid,
            number=memory.step.batch,
            warned=tuple(sorted(memory.warned)),
        )

    def _decode_into(self, position: int, data: bytes | memoryview, out: NDArray[Any]) -> str | None:
        """Write the transformed pixels to `out`; return what the decoder warns about, or None."""
        try:
            if isinstance(self._transform, EvalTransform):
                return self._transform.decode_into(data, out, check_file=self._check_files)
            image = decode_image(data)
            warning = jpeg_warning(data) if self._check_files and is_jpeg(data) else None
        except DecodeError as error:
            raise self._dataset.reader.error(position, str(error)) from error
        values, expected = channels_last(self._transform(image)), torch.from_numpy(out)
        if values.shape != expected.shape or values.dtype != expected.dtype:
            raise ValueError(
                f"{self._dataset.index.keys[position]}: the transform gave {form(values)}, but {form(expected)} for "
                "another image. All images of a batch need one shape and dtype: end the transform with a crop."
            )
        expected.copy_(values)
        return warning


def open_pixel_cache(
    folder: str | os.PathLike[str], dataset: Dataset, transform: EvalTransform | Callable[[Any], Any]
) -> PixelCache:
    """Open the cache of transformed pixels of a data set in `folder`, or make it.

    Raises:
        ValueError: the transform is not an `EvalTransform`, so nothing identifies the pixels it makes.
        StoreError: the folder cannot be used, or has no room.
    """
    if not isinstance(transform, EvalTransform):
        raise ValueError(  # noqa: TRY004 -- of the transform that is given, the cache cannot know the pixels
            "pixel_cache needs an EvalTransform: other transforms do not describe the pixels they make."
        )
    shape, _ = output_shape(transform)
    size = cache_size(len(dataset.index), shape=shape)
    _LOG.info("pixel cache: %.1f GB in %s when all images are in it", size / 1e9, folder)
    return PixelCache(
        folder,
        identity={"dataset": dataset.digest, "transform": transform.describe(), "decoders": decoder_versions()},
        num_samples=len(dataset.index),
        shape=shape,
        num_rows=len(dataset),
    )


def _can_pin() -> bool:
    """Return whether to pin: pinned memory needs the accelerator, which a forked DataLoader worker must not touch."""
    return get_worker_info() is None and torch.accelerator.is_available()
