"""Resize and crop in one step, with the pixels of Pillow's ``resize`` followed by ``crop``, bit for bit.

The C extension ``_resample.c`` computes only the pixels of the crop, writes them to the caller's array and releases the
GIL. Pillow does the work if the extension was not built, and for ``nearest``, which the extension does not implement.
Both give the same pixels, because the extension uses Pillow's arithmetic.

Whether rows or columns are resampled first depends on the version of Pillow. The intermediate image is rounded to 8
bits, so the order changes the last bit of some pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import PIL
from PIL import Image

from wds_real.image.bounds import MAX_RESIZED_SIDE, DecodeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

try:
    from wds_real.image import _resample
except ImportError:  # installed without a C compiler
    HAVE_EXTENSION = False
else:
    HAVE_EXTENSION = True

__all__ = ["HAVE_EXTENSION", "RESAMPLING", "Crop", "needed_box", "resize_crop"]

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}

_FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")  # in the order of the extension's filter numbers
_PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])
_MAX_PILLOW_PIXELS = 1 << 28  # of a whole resized image, which takes Pillow 1 GiB


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle of a resized image; horizontal numbers come first.

    Attributes:
        full: (width, height) of the whole image before resizing.
        resized: (width, height) of the whole image after resizing.
        start: (left, top) of the rectangle in the resized image.
        size: (width, height) of the rectangle.
    """

    full: tuple[int, int]
    resized: tuple[int, int]
    start: tuple[int, int]
    size: tuple[int, int]


def resize_crop(
    pixels: NDArray[np.uint8],
    out: NDArray[np.uint8],
    *,
    crop: Crop,
    interpolation: str,
    at: tuple[int, int] = (0, 0),
) -> None:
    """Resize an image and write the pixels of `crop` to `out`.

    Equal to ``Image.fromarray(pixels).resize(crop.resized, ...).crop((left, top, left + W, top + H))`` of the installed
    Pillow. Thread-safe as long as no thread writes to `pixels` or `out` during the call.

    Args:
        pixels: uint8 (h, w, 3), RGB: the whole image, or a part of it that contains `needed_box`. Fastest if the pixels
            of a row are contiguous.
        out: uint8 (H, W, 3), writable, of the crop's size. It may be a view of a larger array, of which nothing else is
            changed. It must not share memory with `pixels`.
        crop: What to resize to, and the rectangle to compute.
        interpolation: One of the names in `RESAMPLING`.
        at: (left, top) of `pixels` in the image.

    Raises:
        ValueError: an array has another shape or dtype, the crop is outside the resized image, or `pixels` lack a part
            that the crop needs.
        DecodeError: the whole image would be too large after resizing, and Pillow resizes.
    """
    _check(pixels, out, crop)
    if interpolation not in RESAMPLING:
        raise ValueError(f"interpolation is {interpolation!r}, expected one of {', '.join(RESAMPLING)}.")
    full, resized = crop.full, crop.resized
    packed = pixels.strides[1:] == out.strides[1:] == (3, 1)
    if HAVE_EXTENSION and packed and interpolation in _FILTERS:
        order = columns_first(*full, resized, pillow=_PILLOW)
        _resample.resize_crop(pixels, out, full, at, resized, crop.start, _FILTERS.index(interpolation), order)
    elif pixels.shape[1::-1] == full:
        _resize_crop_with_pillow(pixels, out, crop, interpolation)
    else:
        raise ValueError(f"pixels are a part of an image of {full}: resizing with Pillow needs the whole image.")


def needed_box(crop: Crop, *, interpolation: str) -> tuple[int, int, int, int] | None:
    """Return (left, top, right, bottom) of the pixels that `resize_crop` reads, or None if it needs the whole image.

    Raises:
        ValueError: the crop is outside the resized image.
    """
    if not HAVE_EXTENSION or interpolation not in _FILTERS:
        return None
    return _resample.needed_box(crop.full, crop.resized, crop.start, crop.size, _FILTERS.index(interpolation))


def columns_first(width: int, height: int, resized: tuple[int, int], *, pillow: tuple[int, ...]) -> bool:
    """Return whether this version of Pillow resamples along the columns before it does so along the rows.

    Versions up to 12.1 never do. 12.2 and 12.3 do if the height is more than 100 times the width and shrinks. 13 does
    if the height loses more than twice as many pixels as the width.

    >>> [columns_first(500, 375, (341, 256), pillow=(version, 0)) for version in (12, 13)]
    [False, False]
    >>> [columns_first(375, 500, (341, 256), pillow=(version, 0)) for version in (12, 13)]
    [False, True]
    """
    if pillow < (12, 2):
        return False
    if pillow < (13, 0):
        return height > 100 * width and resized[1] < height
    return height - resized[1] > 2 * max(width - resized[0], 0)


def _check(pixels: NDArray[np.uint8], out: NDArray[np.uint8], crop: Crop) -> None:
    for name, array in (("pixels", pixels), ("out", out)):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected uint8 (height, width, 3).")
    if out.shape[1::-1] != crop.size:
        raise ValueError(f"out is {out.shape}, expected (height, width, 3) of the crop's (width, height) {crop.size}.")
    if not out.flags.writeable:
        raise ValueError("out is read-only.")
    (width, height), (left, top), (resized_width, resized_height) = crop.size, crop.start, crop.resized
    if max(*crop.full, *crop.resized) > MAX_RESIZED_SIDE:
        raise ValueError(
            f"the image is {crop.full}, resized {crop.resized}: expected sides of at most {MAX_RESIZED_SIDE}."
        )
    if not (0 <= left <= resized_width - width and 0 <= top <= resized_height - height):
        raise ValueError(f"a crop of {crop.size} at {crop.start} is outside the resized image of {crop.resized}.")


def _resize_crop_with_pillow(pixels: NDArray[np.uint8], out: NDArray[np.uint8], crop: Crop, interpolation: str) -> None:
    (left, top), (width, height) = crop.start, crop.size
    if crop.resized[0] * crop.resized[1] > _MAX_PILLOW_PIXELS:
        raise DecodeError(
            f"cannot be resized: it would have {crop.resized[0]} x {crop.resized[1]} pixels, expected at most "
            f"{_MAX_PILLOW_PIXELS:,} in all where Pillow resizes. The image is very long and narrow"
        )
    image = Image.fromarray(pixels).resize(crop.resized, RESAMPLING[interpolation])
    out[:] = np.asarray(image.crop((left, top, left + width, top + height)))
