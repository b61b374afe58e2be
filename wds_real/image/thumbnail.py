"""Small copies of images, for people to look at."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wds_real.image.decode import PillowImage, decode_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["thumbnail", "thumbnail_jpeg"]


def thumbnail(data: bytes | memoryview, side: int) -> NDArray[np.uint8]:
    """Return an image that fits into a square, uint8 (H, W, 3) with H and W at most `side`, RGB.

    Raises:
        DecodeError: the bytes are not an image that can be decoded.
    """
    return np.asarray(_resized(data, side))


def thumbnail_jpeg(image: bytes | memoryview | PillowImage, side: int) -> bytes:
    """Return the thumbnail of an encoded or a decoded image as the bytes of a JPEG.

    Raises:
        DecodeError: as `thumbnail`.
    """
    file = io.BytesIO()
    _resized(image, side).save(file, "JPEG", quality=85)
    return file.getvalue()


def _resized(image: bytes | memoryview | PillowImage, side: int) -> PillowImage:
    whole = image.convert("RGB") if isinstance(image, PillowImage) else decode_image(image)
    small = whole.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)  # in place; never larger than the image
    return small
