"""Decode only the part of a JPEG that a crop needs: about a tenth faster than decoding the whole image.

The C extension ``_jpeg.c`` does this with the libjpeg-turbo of the machine, or in a wheel with its own. Without the
extension the whole image is decoded, with the same result. The machine's libjpeg-turbo is unknown at build time, so the
first use runs a self-test: crops of synthetic images must have the pixels that `simplejpeg` gives.
"""

from __future__ import annotations

import functools
import itertools
import logging
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from wds_real.image import resample

try:
    from wds_real.image import _jpeg
except ImportError:  # installed without a C compiler or libjpeg-turbo's headers, or the library is missing
    HAVE_EXTENSION = False
else:
    HAVE_EXTENSION = True

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HAVE_EXTENSION", "can_decode_crops", "decode_crop"]

_LOG = logging.getLogger(__name__)
_SUBSAMPLINGS = ("444", "422", "440", "420", "Gray")
_TEST_SIZE = (77, 53)  # not multiples of a block


@functools.cache
def can_decode_crops() -> bool:
    """Return whether crops are decoded: both extensions were built and the self-test of the decoder passes."""
    if not (HAVE_EXTENSION and resample.HAVE_EXTENSION):  # Pillow resizes whole images only
        return False
    exact = all(map(_is_exact, _SUBSAMPLINGS))
    if not exact:
        _LOG.warning("the installed libjpeg-turbo decodes parts of images inexactly: whole images are decoded instead")
    return exact


def decode_crop(
    data: bytes | memoryview, *, size: tuple[int, int], box: tuple[int, int, int, int], to_end: bool = False
) -> NDArray[np.uint8] | None:
    """Decode a rectangle of a JPEG to uint8 (height, width, 3), RGB; return None if this decoder does not support it.

    None stands for progressive and CMYK files, truncated files, and files for which libjpeg-turbo reports a warning up
    to the last row of the rectangle. Rows below are not read unless `to_end` is set.

    Args:
        data: The whole file.
        size: (width, height) in the frame header.
        box: (left, top, right, bottom) of the rectangle.
        to_end: Read the file to its end, and return None if libjpeg-turbo has a warning on any of it.

    Raises:
        ValueError: the box is outside the image.
    """
    left, top, right, bottom = box
    pixels = np.empty((bottom - top, right - left + _jpeg.SLACK, 3), dtype=np.uint8)
    start = _jpeg.decode_crop(data, pixels, *size, left, top, to_end)
    return None if start < 0 else pixels[:, left - start : right - start]


def _is_exact(subsampling: str) -> bool:
    width, height = _TEST_SIZE
    rng = np.random.default_rng(0)
    noise = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
    if subsampling == "Gray":
        noise = np.ascontiguousarray(noise[:, :, :1])
    data = simplejpeg.encode_jpeg(
        noise, quality=90, colorspace="Gray" if subsampling == "Gray" else "RGB", colorsubsampling=subsampling
    )
    whole = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    for left, top in itertools.product((0, 23, 48), (0, 15, 33)):
        right, bottom = width - left // 2, height - top // 2
        crop = decode_crop(data, size=(width, height), box=(left, top, right, bottom))
        if crop is None or not np.array_equal(crop, whole[top:bottom, left:right]):
            return False
    return True
