"""What a JPEG's frame header says, without decoding: the size, and whether the colours are those of a photograph."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Frame", "JpegError", "jpeg_frame", "jpeg_size"]

_SOI = b"\xff\xd8"
# SOF0..SOF15, without DHT (C4), JPG (C8) and DAC (CC), which share the range but are no frame headers.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9


class JpegError(ValueError):
    """The bytes are not a JPEG picture. Callers say which file, and what to do."""


class Frame(NamedTuple):
    """Size in pixels, and the number of colour components: 1 for gray, 3 for YCbCr or RGB, 4 for CMYK or YCCK."""

    width: int
    height: int
    components: int


def jpeg_size(data: bytes | memoryview) -> tuple[int, int]:
    """Return (width, height) in pixels from the frame header; errors are those of `jpeg_frame`."""
    return jpeg_frame(data)[:2]


def jpeg_frame(data: bytes | memoryview) -> Frame:
    """Return the frame header (ITU-T T.81, B.2.2).

    Raises:
        JpegError: no SOI at the start, or no whole frame header before the picture's data.
    """
    if not data:
        raise JpegError("it is empty")
    if data[:2] != _SOI:
        raise JpegError(f"starts with {data[:4].hex(' ')}, a JPEG starts with ff d8")
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise JpegError(f"byte {position}: expected a marker, found {data[position]:02x}")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _STANDALONE:
            position += 2
        elif marker in _START_OF_FRAME:
            return _frame(data, position)
        elif marker in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        else:
            position += 2 + (data[position + 2] << 8 | data[position + 3])  # faster than from_bytes of a slice
    raise JpegError("no frame header: the file is cut or holds no picture")


def _frame(data: bytes | memoryview, position: int) -> Frame:
    # marker 2, length 2, precision 1, height 2, width 2, number of components 1
    if position + 10 > len(data):
        raise JpegError("the frame header is cut")
    height = int.from_bytes(data[position + 5 : position + 7], "big")
    width = int.from_bytes(data[position + 7 : position + 9], "big")
    if not width or not height:
        raise JpegError(f"the frame header says {width}x{height} pixels")
    return Frame(width, height, data[position + 9])
