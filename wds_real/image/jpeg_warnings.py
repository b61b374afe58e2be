"""Warnings of libjpeg-turbo about a JPEG, most often about damaged data that it decodes all the same.

A damaged file still gives pixels, the same ones in every library. Only the warnings tell that it is damaged, such as
``premature end of data segment``. Some warnings are harmless, such as a few extra bytes before a marker.
"""

from __future__ import annotations

import simplejpeg

from wds_real.image.bounds import MAX_PIXELS, DecodeError, check_jpeg
from wds_real.image.jpeg_header import JpegError, is_jpeg, jpeg_frame

try:
    from wds_real.image import _jpeg
except ImportError:  # installed without a C compiler or libjpeg-turbo's headers, or the library is missing
    HAVE_EXTENSION = False
else:
    HAVE_EXTENSION = True

__all__ = ["jpeg_warning"]


def jpeg_warning(data: bytes | memoryview) -> str | None:
    """Return the first warning on the whole of a JPEG, or why it cannot be read; None if there is none.

    The extension reads the compressed data without computing pixels, in about four fifths of the time of decoding.
    Without it, simplejpeg decodes the file, and None is returned for the few kinds of files that it does not support.
    """
    try:
        width, height, components = jpeg_frame(data)
    except JpegError as error:
        if not (HAVE_EXTENSION and is_jpeg(data)):
            return str(error)
        width, height, components = 1, 1, 1  # libjpeg skips bytes between the segments, and checks the size
    try:
        check_jpeg(data, size=(width, height))
    except DecodeError as error:
        return str(error)
    return _jpeg.warning(data, MAX_PIXELS) if HAVE_EXTENSION else _warning_of_simplejpeg(data, components)


def _warning_of_simplejpeg(data: bytes | memoryview, components: int) -> str | None:
    color_space = "CMYK" if components == 4 else "RGB"
    try:
        simplejpeg.decode_jpeg(data, color_space)
    except ValueError as error:
        try:
            simplejpeg.decode_jpeg(data, color_space, strict=False)
        except ValueError:
            return None  # not supported, or not decodable: simplejpeg does not tell
        return str(error)
    return None
