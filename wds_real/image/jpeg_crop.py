"""The part of a JPEG that a crop needs, decoded alone: a tenth of the time that decoding all of it takes is saved.

Done by an extension of our own (``_jpeg.c``) with the libjpeg-turbo of the machine it was built on. Where that was not
built, the whole picture is decoded: with the same result. Which library of which age it meets is not known beforehand,
so it is believed only after parts of made-up pictures had, in this process, the bytes that `simplejpeg` gives.
"""

from __future__ import annotations

import functools
import itertools
import logging
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from wds_real.image.resample import HAVE_EXTENSION

try:
    from wds_real.image import _jpeg
except ImportError:  # built without libjpeg-turbo's headers, or this machine lacks the library
    _BUILT = False
else:
    _BUILT = True

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["decode_part", "parts_are_exact"]

_LOG = logging.getLogger(__name__)
_SUBSAMPLINGS = ("444", "422", "440", "420", "Gray")
_TRIED_SIZE = (77, 53)  # no multiple of a block


@functools.cache
def parts_are_exact() -> bool:
    """Whether parts are decoded: that and the resize which takes parts were built, and a trial gave the right bytes."""
    if not (_BUILT and HAVE_EXTENSION):
        return False
    exact = all(map(_is_exact, _SUBSAMPLINGS))
    if not exact:
        _LOG.warning("the libjpeg-turbo of this machine decodes parts of pictures inexactly: they are decoded whole")
    return exact


def decode_part(
    data: bytes | memoryview, *, size: tuple[int, int], box: tuple[int, int, int, int]
) -> NDArray[np.uint8] | None:
    """Decode a part of a JPEG to uint8 (height, width, 3), RGB, or return None: then another decoder has to look at it.

    That is the case for what few photographs are (progressive, CMYK), for files that are cut, and for whatever a
    decoder would warn of down to the last row of the part. Rows below it are not decoded.

    Args:
        data: The whole file.
        size: (width, height) that its frame header says.
        box: (left, top, right, bottom) of the part.

    Raises:
        ValueError: the box is not within the picture.
    """
    left, top, right, bottom = box
    pixels = np.empty((bottom - top, right - left + _jpeg.SLACK, 3), dtype=np.uint8)
    start = _jpeg.decode_part(data, pixels, *size, left, top)
    return None if start < 0 else pixels[:, left - start : right - start]


def _is_exact(subsampling: str) -> bool:
    width, height = _TRIED_SIZE
    rng = np.random.default_rng(0)
    made_up = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
    if subsampling == "Gray":
        made_up = np.ascontiguousarray(made_up[:, :, :1])
    data = simplejpeg.encode_jpeg(
        made_up, quality=90, colorspace="Gray" if subsampling == "Gray" else "RGB", colorsubsampling=subsampling
    )
    whole = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    for left, top in itertools.product((0, 23, 48), (0, 15, 33)):
        part = decode_part(data, size=(width, height), box=(left, top, width - left // 2, height - top // 2))
        if part is None or not np.array_equal(part, whole[top : height - top // 2, left : width - left // 2]):
            return False
    return True
