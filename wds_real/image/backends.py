"""The libraries and extensions that decode and resize in this installation."""

from __future__ import annotations

import PIL
import simplejpeg

from wds_real.image.jpeg_crop import can_decode_crops
from wds_real.image.resample import HAVE_EXTENSION

__all__ = ["decoder_versions", "describe"]


def describe() -> dict[str, str]:
    """Return how images are decoded (``part`` or ``whole``) and resized (``extension`` or ``pillow``).

    All of these give the same pixels; they differ in speed. ``part`` means that only the part of a JPEG that the crop
    needs is decoded.
    """
    return {
        "decode": "part" if can_decode_crops() else "whole",
        "resize": "extension" if HAVE_EXTENSION else "pillow",
    }


def decoder_versions() -> dict[str, str]:
    """Return the versions of the libraries that decode: the last bit of a pixel can differ between versions."""
    return {"pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}
