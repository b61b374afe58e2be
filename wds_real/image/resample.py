"""Resize and crop in one step: the pixels of Pillow's ``resize`` followed by ``crop``, to the last bit.

An evaluation transform resizes a whole picture and keeps a part of it. Here only that part is computed, straight into
the caller's array and without the GIL, by an extension of our own (``_resample.c``). Where that was not built, and for
``nearest``, which is another algorithm, Pillow does the work: with the same result, as both follow the same arithmetic.

The one thing that depends on the version of Pillow is which pass comes first, along the rows or along the columns. The
picture between the passes is rounded to 8 bits, so that the order shows in the last bit of some pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import PIL
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

try:
    from wds_real.image import _resample
except ImportError:  # built without a compiler
    HAVE_EXTENSION = False
else:
    HAVE_EXTENSION = True

__all__ = ["HAVE_EXTENSION", "RESAMPLING", "needed", "resize_crop"]

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}

_FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")  # as the extension numbers them
_PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])
_MAX_SIDE = 1 << 24


def resize_crop(
    pixels: NDArray[np.uint8],
    out: NDArray[np.uint8],
    *,
    resized: tuple[int, int],
    left: int,
    top: int,
    interpolation: str,
    full: tuple[int, int] | None = None,
    at: tuple[int, int] = (0, 0),
) -> None:
    """Write to `out` the part of the resized `pixels` whose upper left corner is (left, top).

    Equal to ``Image.fromarray(pixels).resize(resized, ...).crop((left, top, left + W, top + H))`` of the installed
    Pillow. Any number of threads may call it; what `pixels` and `out` hold must not change meanwhile.

    Args:
        pixels: uint8 (h, w, 3), RGB. At its fastest where the pixels of a row are neighbours in memory.
        out: uint8 (H, W, 3), writable; it may be a part of a larger array, of which nothing else is touched. It must
            not share memory with `pixels`.
        resized: (width, height) of the whole resized picture.
        left: Column of the resized picture where the part starts.
        top: Row of the resized picture where the part starts.
        interpolation: One of the names in `RESAMPLING`.
        full: (width, height) of the picture of which `pixels` are a part, one that holds `needed`; None if they are
            all of it.
        at: (left, top) of `pixels` in that picture.

    Raises:
        ValueError: an array is not what is said above, the part is not within the resized picture, or `pixels` do not
            hold what it needs.
    """
    full = pixels.shape[1::-1] if full is None else full
    _check(pixels, out, full, resized, left, top)
    if interpolation not in RESAMPLING:
        raise ValueError(f"interpolation is {interpolation!r}, expected one of {', '.join(RESAMPLING)}.")
    packed = pixels.strides[1:] == out.strides[1:] == (3, 1)
    if HAVE_EXTENSION and packed and interpolation in _FILTERS:
        order = columns_first(*full, resized, pillow=_PILLOW)
        _resample.resize_crop(pixels, out, full, at, resized, (left, top), _FILTERS.index(interpolation), order)
    elif pixels.shape[1::-1] == full:
        _resize_crop_with_pillow(pixels, out, resized, left, top, interpolation)
    else:
        raise ValueError(f"pixels are a part of {full}: Pillow, which does this, needs all of the picture.")


def needed(
    full: tuple[int, int],
    resized: tuple[int, int],
    *,
    start: tuple[int, int],
    size: tuple[int, int],
    interpolation: str,
) -> tuple[int, int, int, int] | None:
    """Return (left, top, right, bottom) of what `resize_crop` looks at, or None where it looks at all of the picture.

    Args:
        full: (width, height) of the picture.
        resized: (width, height) that it is resized to.
        start: (left, top) of the kept part in the resized picture.
        size: (width, height) of the kept part.
        interpolation: One of the names in `RESAMPLING`.

    Raises:
        ValueError: the kept part is not within the resized picture.
    """
    if not HAVE_EXTENSION or interpolation not in _FILTERS:
        return None
    return _resample.needed(full, resized, start, size, _FILTERS.index(interpolation))


def columns_first(width: int, height: int, resized: tuple[int, int], *, pillow: tuple[int, ...]) -> bool:
    """Whether that version of Pillow resamples along the columns before it does so along the rows.

    Until 12.1 it never does; 12.2 and 12.3 do for pictures more than 100 times as high as wide that become lower; 13
    does where the height loses more than twice as many pixels as the width.

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


def _check(
    pixels: NDArray[np.uint8],
    out: NDArray[np.uint8],
    full: tuple[int, int],
    resized: tuple[int, int],
    left: int,
    top: int,
) -> None:
    for name, array in (("pixels", pixels), ("out", out)):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected uint8 (height, width, 3).")
    if not out.flags.writeable:
        raise ValueError("out is read-only.")
    (height, width, _), (resized_width, resized_height) = out.shape, resized
    if max(*full, *resized) > _MAX_SIDE:
        raise ValueError(f"the picture is {full}, resized {resized}: expected at most {_MAX_SIDE} a side.")
    if not (0 <= left <= resized_width - width and 0 <= top <= resized_height - height):
        raise ValueError(
            f"out is {width} x {height} from ({left}, {top}) on, expected a part of {resized_width} x {resized_height}."
        )


def _resize_crop_with_pillow(
    pixels: NDArray[np.uint8], out: NDArray[np.uint8], resized: tuple[int, int], left: int, top: int, interpolation: str
) -> None:
    height, width, _ = out.shape
    image = Image.fromarray(pixels).resize(resized, RESAMPLING[interpolation])
    out[:] = np.asarray(image.crop((left, top, left + width, top + height)))
