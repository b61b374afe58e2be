"""Bounds on what decoding one image may cost: pixels, scans and metadata.

The bounds are far above any image of ImageNet, and are checked in the headers, before memory is allocated for pixels.
A JPEG of a few kilobytes can otherwise ask for gigabytes of memory or minutes of time.
"""

from __future__ import annotations

from wds_real.image.jpeg_header import jpeg_layout

__all__ = [
    "MAX_METADATA_BYTES",
    "MAX_PIXELS",
    "MAX_RESIZED_SIDE",
    "MAX_SCANNED_PIXELS",
    "MAX_SCANS",
    "MAX_SEGMENTS",
    "DecodeError",
    "check_jpeg",
    "check_resized",
    "check_size",
]

MAX_PIXELS = 1 << 26  # 8192 x 8192: 201 MB of RGB
MAX_SCANS = 100  # encoders write about ten
MAX_SCANNED_PIXELS = 1 << 30  # pixels times scans: each scan of a progressive JPEG goes through all pixels
MAX_SEGMENTS = 10_000  # markers with content, such as tables, comments and scans
MAX_METADATA_BYTES = 8 << 20  # before the image data of a JPEG; Pillow's time for them grows with their square
MAX_RESIZED_SIDE = 1 << 24  # larger sizes are not exact in single precision, to which Pillow converts them


class DecodeError(ValueError):
    """The bytes are not an image that can be decoded. The message does not name the sample: callers add that."""


def check_size(width: int, height: int) -> None:
    """Check the number of pixels.

    Raises:
        DecodeError: there are more than `MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise DecodeError(
            f"cannot be decoded: its header says {width} x {height} pixels, expected at most {MAX_PIXELS:,} in all"
        )


def check_resized(width: int, height: int) -> None:
    """Check the size of a whole image after resizing.

    Raises:
        DecodeError: a side is longer than `MAX_RESIZED_SIDE`, because the image is very long and narrow.
    """
    if max(width, height) > MAX_RESIZED_SIDE:
        raise DecodeError(
            f"cannot be resized: it would have {width} x {height} pixels, expected sides of at most "
            f"{MAX_RESIZED_SIDE:,}. The image is very long and narrow"
        )


def check_jpeg(data: bytes | memoryview, *, size: tuple[int, int]) -> None:
    """Check the pixels, scans and metadata of a JPEG.

    Args:
        data: The whole file.
        size: (width, height) in the frame header.

    Raises:
        DecodeError: it has more pixels, scans or metadata than the bounds of this module.
    """
    check_size(*size)
    layout = jpeg_layout(data)
    most_scans = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(1, size[0] * size[1]))
    if layout.num_scans > most_scans:
        raise DecodeError(f"cannot be decoded: it has more than {most_scans} scans, too many for its size")
    if layout.num_segments > MAX_SEGMENTS:
        raise DecodeError(f"cannot be decoded: it has more than {MAX_SEGMENTS:,} segments")
    if layout.metadata_bytes > MAX_METADATA_BYTES:
        raise DecodeError(
            f"cannot be decoded: {layout.metadata_bytes:,} bytes are before its image data, expected at most "
            f"{MAX_METADATA_BYTES:,}"
        )
