"""Width and height from a JPEG's markers, without decoding: all the writer needs to know of a picture."""

from __future__ import annotations

__all__ = ["JpegError", "jpeg_size"]

_SOI = b"\xff\xd8"
# SOF0..SOF15, without DHT (C4), JPG (C8) and DAC (CC), which share the range but are no frame headers.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9


class JpegError(ValueError):
    """The bytes are not a JPEG picture. Callers say which file, and what to do."""


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels from the frame header (ITU-T T.81, B.2.2).

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
            return _frame_size(data, position)
        elif marker in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise JpegError("no frame header: the file is cut or holds no picture")


def _frame_size(data: bytes, position: int) -> tuple[int, int]:
    # marker 2, length 2, precision 1, height 2, width 2
    if position + 9 > len(data):
        raise JpegError("the frame header is cut")
    height = int.from_bytes(data[position + 5 : position + 7], "big")
    width = int.from_bytes(data[position + 7 : position + 9], "big")
    if not width or not height:
        raise JpegError(f"the frame header says {width}x{height} pixels")
    return width, height
