"""The frame header of a JPEG, read without decoding: the size and the number of colour components."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Frame", "JpegError", "jpeg_frame", "jpeg_size"]

_SOI = b"\xff\xd8"
# SOF0..SOF15; DHT (C4), JPG (C8) and DAC (CC) are in the same range but are not frame headers.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9


class JpegError(ValueError):
    """The bytes are not a JPEG. The message does not name the file: callers add that."""


class Frame(NamedTuple):
    """Size in pixels, and the number of colour components: 1 for grayscale, 3 for YCbCr or RGB, 4 for CMYK or YCCK."""

    width: int
    height: int
    components: int


def jpeg_size(data: bytes | memoryview) -> tuple[int, int]:
    """Return (width, height) in pixels from the frame header; raises as `jpeg_frame` does."""
    return jpeg_frame(data)[:2]


def jpeg_frame(data: bytes | memoryview) -> Frame:
    """Return the content of the frame header (ITU-T T.81, B.2.2).

    Raises:
        JpegError: no SOI marker at the start, or no complete frame header before the image data.
    """
    if not data:
        raise JpegError("it is empty")
    if data[:2] != _SOI:
        raise JpegError(f"starts with {data[:4].hex(' ')}, a JPEG starts with ff d8")
    offset = 2
    while offset + 4 <= len(data):
        if data[offset] != 0xFF:
            raise JpegError(f"byte {offset}: expected a marker, found {data[offset]:02x}")
        marker = data[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
        elif marker in _STANDALONE:
            offset += 2
        elif marker in _START_OF_FRAME:
            return _frame(data, offset)
        elif marker in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        else:
            offset += 2 + (data[offset + 2] << 8 | data[offset + 3])  # faster than from_bytes of a slice
    raise JpegError("no frame header: the file is truncated or contains no image")


def _frame(data: bytes | memoryview, offset: int) -> Frame:
    # marker 2, length 2, precision 1, height 2, width 2, number of components 1
    if offset + 10 > len(data):
        raise JpegError("the frame header is truncated")
    height = int.from_bytes(data[offset + 5 : offset + 7], "big")
    width = int.from_bytes(data[offset + 7 : offset + 9], "big")
    if not width or not height:
        raise JpegError(f"the frame header says {width}x{height} pixels")
    return Frame(width, height, data[offset + 9])
