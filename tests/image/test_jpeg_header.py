"""jpeg_frame and jpeg_size against Pillow, on all kinds of JPEG that the data set contains and on damaged ones."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.images import tar_images

from wds_real.image.jpeg_header import JpegError, jpeg_frame, jpeg_layout, jpeg_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def jpeg(width: int = 40, height: int = 30, *, mode: str = "RGB", **options: Any) -> bytes:
    """Return a black image that Pillow encoded."""
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "JPEG", **options)
    return file.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def with_inserted(data: bytes, extra: bytes) -> bytes:
    """Insert bytes after the start-of-image marker."""
    return data[:2] + extra + data[2:]


def frame_end(data: bytes) -> int:
    """Return the offset after the number of components in the frame header of a baseline JPEG."""
    return data.index(b"\xff\xc0") + 10


@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 12),
    turned=st.booleans(),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    progressive=st.booleans(),
    comment=st.binary(max_size=400),
)
def test_the_frame_is_pillows(
    width: int, height: int, turned: bool, mode: str, progressive: bool, comment: bytes
) -> None:
    """Colour, grayscale and CMYK, baseline and progressive, with comments: width, height and number of channels."""
    if turned:
        width, height = height, width
    data = jpeg(width, height, mode=mode, progressive=progressive, comment=comment)
    image = Image.open(io.BytesIO(data))
    assert jpeg_size(data) == (width, height) == image.size
    assert jpeg_frame(memoryview(data)) == (width, height, len(image.getbands()))


@pytest.mark.parametrize("side", [1, 65_500])
def test_the_smallest_and_largest_sides_are_read(side: int) -> None:
    """Both bytes of each side are used."""
    assert jpeg_size(jpeg(side, 1)) == (side, 1)
    assert jpeg_size(jpeg(1, side)) == (1, side)


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(segment(0xE1, b"Exif\0\0" + jpeg(8, 6)), id="a thumbnail"),
        pytest.param(segment(0xFE, b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01" * 20), id="a frame header in a comment"),
        pytest.param(segment(0xE2, bytes(65_533)), id="the longest segment"),
        pytest.param(segment(0xE0, b""), id="an empty segment"),
        pytest.param(b"\xff" * 7, id="fill bytes"),
        pytest.param(b"\xff\x01\xff\xd0", id="markers without a length"),
        pytest.param(segment(0xC4, bytes(17)), id="a Huffman table"),
        pytest.param(segment(0xCC, bytes(2)), id="an arithmetic table"),
        pytest.param(segment(0xC8, bytes(9)), id="the reserved marker"),
    ],
)
def test_segments_before_the_frame_are_skipped(extra: bytes) -> None:
    """Bytes inside another segment are not read as a frame header."""
    assert jpeg_size(with_inserted(jpeg(40, 30), extra)) == (40, 30)


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
def test_every_frame_marker_is_known(marker: int) -> None:
    """The frame headers of all thirteen coding processes of T.81 are read."""
    assert jpeg_size(b"\xff\xd8" + segment(marker, b"\x08" + bytes([0, 30, 0, 40, 1, 1, 0x11, 0]))) == (40, 30)


def test_orientation_is_not_applied() -> None:
    """The size is that of the stored pixels, without the EXIF rotation, as in Pillow."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(40, 30, exif=exif)
    assert jpeg_size(data) == (40, 30) == Image.open(io.BytesIO(data)).size


def test_a_file_truncated_before_the_size_is_an_error() -> None:
    """A file that ends before the end of its size is refused; one that ends after it gives the right size."""
    data = jpeg(40, 30)
    for stop in range(len(data)):
        if stop < frame_end(data):
            with pytest.raises(JpegError):
                jpeg_size(data[:stop])
        else:
            assert jpeg_size(data[:stop]) == (40, 30)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), "starts with 89 50 4e 47", id="a PNG"),
        pytest.param(b"<html>" * 10, "starts with 3c 68 74 6d", id="a web page"),
        pytest.param(bytes(1000), "starts with 00 00 00 00", id="zeros"),
        pytest.param(b"\xff\xd8" + bytes(1000), "byte 2: expected a marker, found 00", id="zeros after the start"),
        pytest.param(b"\xff\xd8\xff\xd9", "no frame header", id="start and end"),
        pytest.param(b"\xff\xd8" + segment(0xDA, bytes(10)) + bytes(99), "no frame header", id="a scan without frame"),
        pytest.param(b"\xff\xd8\xff\xe0\x00\x01" + bytes(99), "expected a marker", id="a length that cannot be"),
        pytest.param(b"\xff\xd8" + b"\xff" * 999, "no frame header", id="fill bytes only"),
    ],
)
def test_what_is_not_a_jpeg_is_refused(data: bytes, expected: str) -> None:
    """The error says what the bytes are instead."""
    with pytest.raises(JpegError, match=expected):
        jpeg_size(data)


@pytest.mark.parametrize("sides", [b"\0\0\0\x28", b"\0\x1e\0\0", b"\0\0\0\0"], ids=["height", "width", "both"])
def test_a_size_of_zero_is_refused(sides: bytes) -> None:
    """A frame header with a side of 0 pixels is an error."""
    data = bytearray(jpeg(40, 30))
    data[frame_end(bytes(data)) - 4 : frame_end(bytes(data))] = sides
    with pytest.raises(JpegError, match="pixels"):
        jpeg_size(bytes(data))


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_give_a_size_or_an_error(front: bytes, back: bytes) -> None:
    """Any bytes give a size of at least 1x1 or a JpegError."""
    for data in (front, b"\xff\xd8" + front, b"\xff\xd8\xff\xe0" + front + b"\xff\xc0" + back):
        try:
            assert min(jpeg_size(data)) >= 1
        except JpegError:
            continue


@pytest.mark.parametrize("name", ["photos-300.tar", "val-650.tar"])
def test_sizes_of_real_images_are_pillows(name: str, real_data: Callable[[str], Path]) -> None:
    """The sizes of real photos, full-size and scaled, colour and grayscale, are Pillow's."""
    count = 0
    for file_name, data in tar_images(real_data(name)):
        assert jpeg_size(data) == Image.open(io.BytesIO(data)).size, file_name
        count += 1
    assert count == int(name[-7:-4])


@pytest.mark.parametrize(
    ("options", "scans"), [({}, 1), ({"progressive": True}, 10), ({"restart_marker_blocks": 1}, 1)]
)
def test_layout_counts_the_scans(options: dict[str, Any], scans: int) -> None:
    """Scans are counted also behind image data and restart markers; nothing is counted behind the end marker."""
    data = jpeg(40, 30, **options)
    layout = jpeg_layout(data + data)
    assert layout.num_scans == scans
    assert layout.metadata_bytes == data.index(b"\xff\xda") + 2


@given(st.binary(max_size=300))
def test_layout_of_any_bytes_ends(tail: bytes) -> None:
    """Whatever follows the start of a JPEG, the walk ends, and no more segments are counted than fit into the file."""
    layout = jpeg_layout(b"\xff\xd8" + tail)
    assert 0 <= layout.num_scans <= layout.num_segments <= len(tail) // 2


def test_many_segments_end_the_walks() -> None:
    """A header of 100,000 empty comments is an error of the walk over the header, and is counted up to 10,001."""
    data = jpeg(40, 30)
    data = data[:2] + b"\xff\xfe\0\2" * 100_000 + data[2:]
    assert jpeg_layout(data).num_segments == 10_001
    with pytest.raises(JpegError):
        jpeg_frame(data)
