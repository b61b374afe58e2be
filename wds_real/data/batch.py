"""A batch of samples: images, labels, and which rows are samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wds_real.image.transform import EvalTransform, blank_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from wds_real.data.dataset import Sample
    from wds_real.format.sample_index import SampleIndex

__all__ = ["Batch", "BatchLabels", "LabelTable", "channels_last", "collate", "form", "output_shape"]

_REAL_COLUMNS = 10  # the longest released list has 9 labels


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """A batch of fixed size B; rows beyond the samples are padding, which is not `valid`.

    Attributes:
        image: uint8 (B, 3, H, W), RGB, 0..255, channels-last memory, not normalised; or what a custom transform gives.
            Padded rows are zero.
        original_label: int64 (B,), class index 0..999 of the ILSVRC2012 ground truth; -1 in padded rows.
        real_label: int64 (B, 10), ReaL class indices padded with -1; all -1 where ReaL accepts no label.
        index: int64 (B,), position in the whole data set; -1 in padded rows.
        key: B strings; "" in padded rows.
        valid: bool (B,), False in padded rows, and in rows whose sample could not be read (``on_error="record"``),
            which keep their index.
        number: Number of the batch in the plan; -1 if all rows are padding, or if the batch is not from a `Loader`.
        warned: Rows with a file about which the decoder warned, most often because it is damaged; see `Loader`.
    """

    image: torch.Tensor
    original_label: torch.Tensor
    real_label: torch.Tensor
    index: torch.Tensor
    key: tuple[str, ...]
    valid: torch.Tensor
    number: int = -1
    warned: tuple[int, ...] = ()

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


def collate(samples: Sequence[Sample]) -> Batch:
    """Make a `Batch` of samples whose images have one size: ``DataLoader(ds, collate_fn=wds_real.collate)``."""
    images = [channels_last(sample["image"]) for sample in samples]
    if len({image.shape for image in images}) > 1:
        raise ValueError(
            f"images of different sizes cannot make a batch: {form(images[0])} and others. Open the data set with a "
            "transform that ends with a crop: open_dataset(root, transform=EvalTransform())."
        )
    real = real_label_rows([tuple(sample["real_label"]) for sample in samples])
    return Batch(
        image=torch.stack(images).permute(0, 3, 1, 2),
        original_label=torch.tensor([sample["original_label"] for sample in samples], dtype=torch.int64),
        real_label=torch.from_numpy(real),
        index=torch.tensor([sample["index"] for sample in samples], dtype=torch.int64),
        key=tuple(sample["key"] for sample in samples),
        valid=torch.ones(len(samples), dtype=torch.bool),
    )


@dataclass(frozen=True, slots=True)
class BatchLabels:
    """The columns of a batch that its positions determine; see `Batch` for each."""

    original_label: torch.Tensor
    real_label: torch.Tensor
    index: torch.Tensor
    key: tuple[str, ...]
    valid: torch.Tensor


class LabelTable:
    """The labels of all samples as arrays, with a last row for padding, which position -1 selects."""

    def __init__(self, index: SampleIndex) -> None:
        self._keys = (*index.keys, "")
        self._original = np.append(index.original_label, -1)
        self._real = real_label_rows([*index.real_label, ()])

    def rows(self, positions: NDArray[np.int64], num_rows: int, *, failed: Sequence[int] = ()) -> BatchLabels:
        """Return the labels of a batch: `num_rows` rows, the first of which are the samples at `positions`.

        Args:
            positions: int64 (up to num_rows,), in the data set.
            num_rows: Rows of the batch; those after the samples are padding.
            failed: Rows whose sample could not be read.
        """
        index = np.full(num_rows, -1, dtype=np.int64)  # on small arrays NumPy takes a tenth of torch's time
        index[: len(positions)] = positions
        valid = index >= 0
        valid[list(failed)] = False
        return BatchLabels(
            original_label=torch.from_numpy(self._original[index]),
            real_label=torch.from_numpy(self._real[index]),
            index=torch.from_numpy(index),
            key=tuple(map(self._keys.__getitem__, index.tolist())),
            valid=torch.from_numpy(valid),
        )


def real_label_rows(labels: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """Return ReaL labels as int64 (N, 10), or wider where a list is longer, padded with -1."""
    rows = np.full((len(labels), max([_REAL_COLUMNS, *map(len, labels)])), -1, dtype=np.int64)
    for row, values in zip(rows, labels, strict=True):
        row[: len(values)] = values
    return rows


def output_shape(transform: EvalTransform | Callable[[Any], Any]) -> tuple[tuple[int, ...], torch.dtype]:
    """Return the shape (H, W, C) and dtype that a transform gives, by trying it on a blank image."""
    if isinstance(transform, EvalTransform):
        return (*transform.size, 3), torch.uint8
    values = channels_last(transform(blank_image()))
    return tuple(values.shape), values.dtype


def channels_last(image: Any) -> torch.Tensor:  # noqa: ANN401 -- whatever a user's transform returns
    """Return a Pillow image, an array (H, W, C) or a tensor (C, H, W) as a tensor (H, W, C)."""
    values = image if isinstance(image, torch.Tensor) else torch.from_numpy(np.array(image))
    if values.ndim != 3:
        raise ValueError(
            f"the transform gave {values.dtype} of shape {tuple(values.shape)}, expected an RGB image, an array "
            "(H, W, 3) or a tensor (C, H, W)."
        )
    return values.permute(1, 2, 0) if isinstance(image, torch.Tensor) else values


def form(values: torch.Tensor) -> str:
    """Return dtype and shape of an image (H, W, C) as text, channels first."""
    height, width, channels = values.shape
    return f"{values.dtype} {channels}x{height}x{width}"
