"""JPEG bytes to uint8 RGB pixels of the whole image, bit for bit those of Pillow."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from wds_real.image.jpeg_header import jpeg_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_PIXELS", "DecodeError", "PillowImage", "decode_image", "decode_rgb"]

PillowImage = Image.Image  # so that annotations elsewhere need no import of Pillow

MAX_PIXELS = 1 << 26  # larger images are left to Pillow, which refuses implausible sizes before it allocates memory

_DIRECT_COMPONENTS = (1, 3)  # simplejpeg and Pillow round CMYK and YCCK differently when they convert them to RGB


class DecodeError(ValueError):
    """The bytes are not an image that can be decoded. The message does not name the sample: callers add that."""


def decode_rgb(data: bytes | memoryview) -> NDArray[np.uint8]:
    """Decode a JPEG to uint8 (H, W, 3), RGB; the same bytes as ``PIL.Image.open(...).convert("RGB")``.

    simplejpeg decodes most files; Pillow decodes what simplejpeg refuses, and CMYK.

    Raises:
        DecodeError: the bytes are not an image, or are truncated.
    """
    try:
        width, height, components = jpeg_frame(data)
        if components in _DIRECT_COMPONENTS and width * height <= MAX_PIXELS:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
            return pixels
    except ValueError:
        pass  # Pillow decodes it, or says why it cannot
    return np.asarray(decode_image(data))


def decode_image(data: bytes | memoryview) -> Image.Image:
    """Decode an image to a Pillow image in mode RGB.

    Raises:
        DecodeError: the bytes are not an image, or are truncated.
    """
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except UnidentifiedImageError as error:  # its text contains a memory address
        raise DecodeError("cannot be decoded: not an image format that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DecodeError(f"cannot be decoded: {error}") from error
