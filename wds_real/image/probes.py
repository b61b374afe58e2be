"""Made-up images to compare another library's preprocessing with `EvalTransform`, pixel by pixel."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

__all__ = ["probe_images"]

# Landscape, portrait and square; smaller and larger than usual crops. Whatever their shorter side is resized to, up to
# 640 pixels, some longer side exceeds the crop by 3 more than a multiple of 4: libraries then round differently.
_SIZES = ((500, 375), (375, 500), (500, 333), (500, 334), (334, 500), (256, 256), (227, 227), (96, 61), (61, 97),
          (640, 200), (431, 389), (389, 430), (70, 47), (88, 53), (56, 43), (62, 43), (48, 37), (79, 41), (56, 47),
          (51, 37))  # fmt: skip


@functools.cache
def probe_images() -> tuple[Image.Image, ...]:
    """Return images in mode RGB, the same in each process, in which each pixel differs from those around it.

    Any other crop, size, filter, rounding or order of channels gives other pixels.
    """
    random = np.random.default_rng(2012)
    return tuple(_probe(random, *size) for size in _SIZES)


def _probe(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return a gradient of another direction in each channel, edges and noise on it."""
    rows, columns = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    waves = (9 * rows + 5 * columns) % 2 >= 1
    channels = np.stack([rows, columns, (rows + 1 - columns) / 2], axis=-1) * 150 + 40 * waves[..., None]
    return Image.fromarray((channels + random.integers(0, 64, channels.shape)).clip(0, 255).astype(np.uint8))
