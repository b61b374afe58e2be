"""Synthetic validation sets with known results: for the demo, for tests, and to try out a cluster without ImageNet.

Each image encodes a class index as a 4 x 4 grid of light and dark cells, and `known_answer_model` decodes and predicts
it. The index is chosen by image number so that every kind of outcome occurs. `known_answer` counts the outcomes from
the labels alone: it uses no image, no model and none of the evaluation code.
"""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
import torch

from wds_real.image.transform import EvalTransform
from wds_real.labels import NUM_CLASSES, bundled

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from wds_real.labels import Label

__all__ = ["encode_image", "known_answer", "known_answer_model", "labels_of", "top5_of", "write_source_tar"]

_BITS = 10  # 2**10 > 1,000 classes
_GRID = 4
_MARGIN = 1 / 8  # fraction of the side; the centre crop of 7/8 removes half of it


def labels_of(numbers: Iterable[int]) -> list[Label]:
    """Return the bundled labels of the validation images with these numbers, 1..50,000."""
    table = bundled()
    return [table.by_file_name(f"ILSVRC2012_val_{number:08d}.JPEG") for number in numbers]


def top5_of(label: Label) -> list[int]:
    """Return the five classes that `known_answer_model` predicts for an image, best first.

    Of every twenty images, fourteen get their original label, three their last ReaL label, two the original label less
    3, and one the original label plus 500.
    """
    remainder = int(label.key[-8:]) % 20
    if remainder < 14:
        first = label.original_label
    elif remainder < 17:
        first = label.real_label[-1] if label.real_label else label.original_label
    else:
        first = label.original_label - 3 if remainder < 19 else label.original_label + 500
    return [(first + step) % NUM_CLASSES for step in range(5)]


def known_answer(labels: Iterable[Label]) -> dict[str, int]:
    """Return the counts that an evaluation of `known_answer_model` must give, by the definition of each count."""
    counts = dict.fromkeys(
        ("original_top1", "original_top5", "original_top1_labelled", "real_top1", "real_top5", "forgiven",
         "newly_wrong", "labelled", "all"),
        0,
    )  # fmt: skip
    for label in labels:
        top5, accepted = top5_of(label), set(label.real_label)
        right, real_right = top5[0] == label.original_label, top5[0] in accepted
        counts["all"] += 1
        counts["original_top1"] += right
        counts["original_top5"] += label.original_label in top5
        if accepted:
            counts["labelled"] += 1
            counts["original_top1_labelled"] += right
            counts["real_top1"] += real_right
            counts["real_top5"] += not accepted.isdisjoint(top5)
            counts["forgiven"] += real_right and not right
            counts["newly_wrong"] += right and not real_right
    return counts


def encode_image(shown_class: int, *, side: int = 64) -> bytes:
    """Return a square JPEG, `side` pixels wide, with a class index as a grid of light and dark cells."""
    hue = np.array([(shown_class * step) % 97 for step in (7, 11, 13)], dtype=np.float64)
    pixels = np.full((side, side, 3), 90, dtype=np.float64) + hue / 2
    for (rows, columns), light in zip(_cells(side), _bits(shown_class), strict=True):
        pixels[rows, columns] = (200 if light else 8) + hue / 2
    data: bytes = simplejpeg.encode_jpeg(pixels.astype(np.uint8), quality=90, colorspace="RGB")
    return data


def write_source_tar(path: Path, numbers: Iterable[int], *, side: int = 64) -> None:
    """Write a tar like the official one: no folders, the official file names, not sorted."""
    labels = labels_of(numbers)
    labels.sort(key=lambda label: label.key[::-1])
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for label in labels:
            data = encode_image(top5_of(label)[0], side=side + int(label.key[-1]))
            info = tarfile.TarInfo(label.file_name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


class KnownAnswerModel(torch.nn.Module):
    """Predicts the class index that an image encodes, then the four indices after it."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return scores float (B, 1000) for images float (B, 3, S, S) with values in -1..1."""
        side = image.shape[-1]
        grey = image.mean(dim=1)
        lit = [grey[:, rows, columns].mean(dim=(1, 2)) > 0 for rows, columns in _cells(side, cropped=True)[:_BITS]]
        first = sum(bit.long() << place for place, bit in enumerate(lit))
        scores = torch.zeros(len(image), NUM_CLASSES, device=image.device)
        rows = torch.arange(len(image), device=image.device)
        for step in range(5):
            scores[rows, (first + step) % NUM_CLASSES] = 5.0 - step
        return scores


def known_answer_model() -> tuple[torch.nn.Module, EvalTransform]:
    """Return the model and its transform: ``wds-real eval ROOT -m wds_real.synthetic:known_answer_model``."""
    half = (0.5, 0.5, 0.5)
    return KnownAnswerModel(), EvalTransform(img_size=64, crop_pct=0.875, interpolation="bilinear", mean=half, std=half)


def _bits(shown_class: int) -> NDArray[np.bool_]:
    """Return the 16 cells of the grid: ten bits, least significant first, then a fixed pattern."""
    cells = [bool(shown_class >> place & 1) for place in range(_BITS)]
    return np.array([*cells, *(place % 2 == 0 for place in range(_GRID**2 - _BITS))])


def _cells(side: int, *, cropped: bool = False) -> list[tuple[slice, slice]]:
    """Return rows and columns of each cell; for a cropped image, of the middle of each cell."""
    margin, shrink = (_MARGIN, 0.0) if not cropped else ((_MARGIN - 1 / 16) / (7 / 8), 0.25)
    cell = (1 - 2 * margin) / _GRID
    edges = [
        slice(round(side * (margin + cell * (place + shrink))), round(side * (margin + cell * (place + 1 - shrink))))
        for place in range(_GRID)
    ]
    return [(rows, columns) for rows in edges for columns in edges]
