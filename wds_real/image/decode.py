"""JPEG bytes to uint8 RGB pixels of the whole image, bit for bit those of Pillow."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from wds_real.image.bounds import DecodeError, check_jpeg, check_size
from wds_real.image.jpeg_header import JpegError, is_jpeg, jpeg_frame
from wds_real.image.jpeg_warnings import jpeg_warning

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMATS", "DecodeError", "Decoded", "PillowImage", "decode", "decode_image"]

PillowImage = Image.Image  # so that annotations elsewhere need no import of Pillow

# All that Pillow may open. Copies of ImageNet and other sets hold some of these under the names of JPEGs. None of these
# starts another program, as EPS does, or reads another file. JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

_DIRECT_COMPONENTS = (1, 3)  # simplejpeg and Pillow round CMYK and YCCK differently when they convert them to RGB
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
_DAMAGE = (  # what the format readers of Pillow raise on damaged files
    *(OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, EOFError),
    *(RuntimeError, struct.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """The pixels of an image.

    Attributes:
        pixels: uint8 (H, W, 3), RGB.
        warning: What libjpeg-turbo warns about in a JPEG, or None.
    """

    pixels: NDArray[np.uint8]
    warning: str | None = None


def decode(data: bytes | memoryview) -> Decoded:
    """Decode a JPEG to uint8 (H, W, 3), RGB; the same bytes as ``PIL.Image.open(...).convert("RGB")``.

    simplejpeg decodes most files; Pillow decodes what simplejpeg refuses, and CMYK.

    Raises:
        DecodeError: the bytes are not an image of `FORMATS`, are truncated, or are beyond `wds_real.image.bounds`.
    """
    try:
        width, height, components = jpeg_frame(data)
    except JpegError:
        pixels = np.asarray(decode_image(data))  # which may be of another format
        return Decoded(pixels, jpeg_warning(data) if is_jpeg(data) else None)
    check_jpeg(data, size=(width, height))
    if components in _DIRECT_COMPONENTS:
        try:
            pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
        except ValueError:
            pass  # a warning, or not supported: Pillow decodes it, or says why it cannot
        else:
            return Decoded(pixels)
    return Decoded(np.asarray(decode_image(data)), jpeg_warning(data))


def decode_image(data: bytes | memoryview) -> Image.Image:
    """Decode an image to a Pillow image in mode RGB.

    Raises:
        DecodeError: as `decode`.
    """
    try:
        return _open(data).convert("RGB")
    except DecodeError:
        raise
    except UnidentifiedImageError as error:  # its text contains a memory address
        raise DecodeError("cannot be decoded: not a JPEG, PNG, WebP, GIF, BMP or TIFF image") from error
    except _DAMAGE as error:
        raise DecodeError(f"cannot be decoded: {error}") from error


def _open(data: bytes | memoryview) -> Image.Image:
    """Open an image and check its header, before memory for its pixels is allocated."""
    if is_jpeg(data):
        check_jpeg(data, size=(1, 1))  # Pillow reads all metadata when it opens a file
    image = Image.open(io.BytesIO(data), formats=_formats())
    check_size(*image.size)
    if is_jpeg(data):
        check_jpeg(data, size=image.size)
    tags = getattr(image, "tag_v2", None)
    if tags is not None:  # the tiles of a TIFF may be larger than the image
        check_size(tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1))
    return image


@cache
def _formats() -> tuple[str, ...]:
    """Return the `FORMATS` of this installation of Pillow: WebP can be missing."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
