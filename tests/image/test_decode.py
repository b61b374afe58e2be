"""Decoding whole images: Pillow's pixels, bit for bit, or a DecodeError."""

from __future__ import annotations

import struct
import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images import damaged, jpeg, pillow_pixels, tar_images, textured

from wds_real.image.decode import DecodeError, decode, decode_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZES = ((1, 1), (1, 50), (50, 1), (2, 3), (3, 2), (13, 17), (40, 300), (300, 40), (64, 64), (97, 64), (64, 97))
ENCODINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "poor": {"quality": 10},
    "best": {"quality": 100, "subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 2},
    "exif rotation": {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_kind_of_jpeg_decodes_as_with_pillow(mode: str, encoding: str) -> None:
    """Colour, grayscale and CMYK files of any subsampling, quality and size give Pillow's pixels, bit for bit."""
    for size in SIZES:
        data = jpeg(textured(*size, mode), **ENCODINGS[encoding])
        assert np.array_equal(decode(data).pixels, pillow_pixels(data)), size
        assert np.array_equal(np.asarray(decode_image(data)), pillow_pixels(data)), size


def test_ycck_and_adobe_rgb_decode_as_with_pillow() -> None:
    """The two rare colour spaces, which only the Adobe marker tells apart, give Pillow's pixels."""
    rgb = jpeg(textured(50, 31), keep_rgb=True)
    cmyk = jpeg(textured(50, 31, "CMYK"))
    ycck = cmyk.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")
    assert ycck != cmyk
    for data in (rgb, ycck):
        assert np.array_equal(decode(data).pixels, pillow_pixels(data))


@pytest.mark.parametrize(("name", "expected"), [("photos-300.tar", 300), ("val-650.tar", 650)])
def test_real_images(name: str, expected: int, real_data: Callable[[str], Path]) -> None:
    """Full-size photos and validation images decode to Pillow's pixels."""
    count = 0
    for file_name, data in tar_images(real_data(name)):
        assert np.array_equal(decode(data).pixels, pillow_pixels(data)), file_name
        count += 1
    assert count == expected


@pytest.fixture(scope="module")
def small_photos(real_data: Callable[[str], Path]) -> list[bytes]:
    """A few small real files to damage: the validation images are 227 x 227."""
    return [data for _, (_, data) in zip(range(12), tar_images(real_data("val-650.tar")), strict=False)]


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_files_give_pillows_pixels_or_decode_error(data: st.DataObject, small_photos: list[bytes]) -> None:
    """Damaged files that still decode give the pixels Pillow gives; others give DecodeError and nothing else."""
    file = data.draw(damaged(small_photos))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about damaged metadata
        try:
            pixels = decode(file).pixels
        except DecodeError:
            return
    assert np.array_equal(pixels, pillow_pixels(file))


def test_a_truncated_file_is_an_error_wherever_it_ends() -> None:
    """A file without its end, however little is missing, never gives an incomplete image."""
    data = jpeg(textured(40, 30))
    for stop in range(0, len(data) - 2, 7):
        with pytest.raises(DecodeError):
            decode(data[:stop])


@pytest.mark.parametrize("junk", [b"", b"\xff\xd8", b"<html>", b"\0" * 5000, b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_bytes_that_are_not_an_image_are_a_decode_error(junk: bytes) -> None:
    """Both decoders raise a DecodeError without a memory address in its text."""
    for decode_it in (decode, decode_image):
        with pytest.raises(DecodeError, match="cannot be decoded") as caught:
            decode_it(junk)
        assert " at 0x" not in str(caught.value)


def test_a_header_with_a_huge_size_is_a_decode_error() -> None:
    """A damaged size field of 14,000 x 14,000 pixels is refused before memory is allocated for them."""
    data = bytearray(jpeg(textured(40, 30)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 14_000, 14_000)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(bytes(data))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
