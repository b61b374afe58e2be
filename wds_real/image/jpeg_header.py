"""The headers of a JPEG, read without decoding: size, colour components, and where the scans are."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Frame", "JpegError", "Layout", "is_jpeg", "jpeg_frame", "jpeg_layout", "jpeg_size"]

_SOI = b"\xff\xd8"
# SOF0..SOF15; DHT (C4), JPG (C8) and DAC (CC) are in the same range but are not frame headers.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_MAX_STEPS = 10_000  # segments and fill bytes that are walked over; each takes a microsecond
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not in image data, where 00 or a restart follows on FF


class JpegError(ValueError):
    """The bytes are not a JPEG. The message does not name the file: callers add that."""


class Frame(NamedTuple):
    """Size in pixels, and the number of colour components: 1 for grayscale, 3 for YCbCr or RGB, 4 for CMYK or YCCK."""

    width: int
    height: int
    components: int


class Layout(NamedTuple):
    """What a decoder goes through: segments (markers with content), scans among them, and bytes before the first scan.

    Counting ends after 10,001 segments.
    """

    num_segments: int
    num_scans: int
    metadata_bytes: int


def is_jpeg(data: bytes | memoryview) -> bool:
    """Return whether the bytes start as a JPEG does."""
    return bytes(data[:2]) == _SOI


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
    for _ in range(_MAX_STEPS):
        if offset + 4 > len(data):
            break
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


def jpeg_layout(data: bytes | memoryview) -> Layout:
    """Return the layout that a decoder finds; unlike `jpeg_frame`, skip bytes between the segments, as libjpeg does.

    If the first scan of a sequential JPEG holds all components, it is the only one, and no image data are searched.
    """
    num_segments, num_scans, metadata_bytes = 0, 0, len(data)
    offset, components, progressive = 2, 0, False
    while num_segments <= _MAX_STEPS and (found := _MARKER.search(data, offset)):
        marker, offset = data[found.end() - 1], found.end()
        if marker == _END_OF_IMAGE:
            break
        if marker in _STANDALONE or offset + 2 > len(data):
            continue
        num_segments += 1
        if marker in _START_OF_FRAME and offset + 8 <= len(data):
            components, progressive = data[offset + 7], progressive or marker in _PROGRESSIVE
        elif marker == _START_OF_SCAN:
            num_scans += 1
            metadata_bytes = min(metadata_bytes, offset)
            if offset + 3 <= len(data) and data[offset + 2] == components and not progressive:
                break
        offset += max(2, data[offset] << 8 | data[offset + 1])
    return Layout(num_segments, num_scans, metadata_bytes)


def _frame(data: bytes | memoryview, offset: int) -> Frame:
    # marker 2, length 2, precision 1, height 2, width 2, number of components 1
    if offset + 10 > len(data):
        raise JpegError("the frame header is truncated")
    height = int.from_bytes(data[offset + 5 : offset + 7], "big")
    width = int.from_bytes(data[offset + 7 : offset + 9], "big")
    if not width or not height:
        raise JpegError(f"the frame header says {width}x{height} pixels")
    return Frame(width, height, data[offset + 9])
