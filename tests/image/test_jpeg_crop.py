"""Decoding a rectangle of a JPEG: the pixels of the whole image, or None; and the self-test of the decoder."""

from __future__ import annotations

import io
import logging
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import simplejpeg
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.images import pillow_pixels, tar_images

from wds_real.image import jpeg_crop, resample
from wds_real.image.jpeg_crop import HAVE_EXTENSION, can_decode_crops, decode_crop
from wds_real.image.jpeg_header import jpeg_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

Box = tuple[int, int, int, int]
pytestmark = pytest.mark.skipif(
    not HAVE_EXTENSION, reason="wds_real.image._jpeg was not built: no C compiler, or no headers of libjpeg-turbo?"
)
SUBSAMPLINGS = ("444", "422", "440", "420")


def noisy(width: int, height: int) -> NDArray[np.uint8]:
    """Return an image in which neighbouring pixels differ, so that a shift by one pixel shows."""
    rng = np.random.default_rng((width, height))
    slope = np.linspace(0, 200, width * height * 3).reshape(height, width, 3)
    return (slope + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def jpeg(width: int, height: int, *, subsampling: str = "420", quality: int = 90, **options: Any) -> bytes:
    """Return a JPEG of `noisy`; Pillow writes what simplejpeg cannot."""
    pixels = noisy(width, height)
    if options:
        buffer = io.BytesIO()
        names = {"444": 0, "422": 1, "420": 2}
        mode = options.pop("mode", "RGB")
        Image.fromarray(pixels).convert(mode).save(
            buffer, "JPEG", quality=quality, **({"subsampling": names[subsampling]} if mode == "RGB" else {}), **options
        )
        return buffer.getvalue()
    if subsampling == "Gray":
        gray = np.ascontiguousarray(pixels[:, :, :1])
        data: bytes = simplejpeg.encode_jpeg(gray, quality=quality, colorspace="Gray", colorsubsampling="Gray")
    else:
        data = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling=subsampling)
    return data


def whole(data: bytes) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    return pixels


def crop(data: bytes | memoryview, box: Box, *, to_end: bool = False) -> NDArray[np.uint8] | None:
    width, height, _ = jpeg_frame(data)
    return decode_crop(data, size=(width, height), box=box, to_end=to_end)


def assert_exact(data: bytes, box: Box) -> None:
    left, top, right, bottom = box
    for to_end in (False, True):
        found = crop(data, box, to_end=to_end)
        assert found is not None
        assert np.array_equal(found, whole(data)[top:bottom, left:right]), box


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int) -> Box:
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))


# --- The pixels of the whole image --------------------------------------------------------------------------


def test_the_installed_library_passes_the_self_test() -> None:
    """If the extension was built, it is used: a failure would otherwise show only as lower speed."""
    assert can_decode_crops()


@pytest.mark.usefixtures("no_cached_self_test")
def test_crops_are_not_decoded_if_pillow_resizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the resize extension Pillow resizes, which needs whole images."""
    monkeypatch.setattr(resample, "HAVE_EXTENSION", False)
    assert not can_decode_crops()


@given(
    data=st.data(),
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    subsampling=st.sampled_from([*SUBSAMPLINGS, "Gray"]),
    quality=st.sampled_from([10, 75, 90, 100]),
)
@settings(max_examples=1500, deadline=None)
def test_any_crop_has_the_pixels_of_the_whole_image(
    data: st.DataObject, width: int, height: int, subsampling: str, quality: int
) -> None:
    """For every size, subsampling and quality, a crop has the pixels that decoding the whole image gives."""
    assert_exact(jpeg(width, height, subsampling=subsampling, quality=quality), data.draw(boxes(width, height)))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_every_first_row_and_column(subsampling: str) -> None:
    """Crops that start at each row and column of a block, and crops of a single row or column, are exact."""
    data = jpeg(70, 66, subsampling=subsampling)
    for start in range(66):
        assert_exact(data, (start, start, 70, 66))
        assert_exact(data, (0, start, 70, start + 1))
        assert_exact(data, (start, 0, start + 1, 66))


@given(data=st.data(), interval=st.integers(1, 30), optimize=st.booleans(), subsampling=st.sampled_from(["444", "420"]))
@settings(max_examples=200, deadline=None)
def test_restart_markers_and_optimised_tables(
    data: st.DataObject, interval: int, optimize: bool, subsampling: str
) -> None:
    """Files with restart markers at any interval and with optimised Huffman tables are exact."""
    encoded = jpeg(90, 70, subsampling=subsampling, restart_marker_blocks=interval, optimize=optimize)
    assert_exact(encoded, data.draw(boxes(90, 70)))


@pytest.mark.parametrize("name", ["photos-300.tar", "val-650.tar"])
def test_real_images(real_data: Callable[[str], Path], name: str) -> None:
    """Three random crops of every real image are exact, and at most one image in twenty is not supported."""
    draws, refused, count = random.Random(0), 0, 0  # noqa: S311 -- test data
    for _, data in tar_images(real_data(name)):
        width, height, components = jpeg_frame(data)
        expected = whole(data) if components == 3 else None
        for _ in range(3):
            left, top = draws.randrange(width), draws.randrange(height)
            right, bottom = draws.randint(left + 1, width), draws.randint(top + 1, height)
            found = crop(data, (left, top, right, bottom))
            count += 1
            refused += found is None
            if found is not None and expected is not None:
                assert np.array_equal(found, expected[top:bottom, left:right])
    assert count
    assert refused <= count // 20


def test_threads() -> None:
    """Sixteen threads that decode crops of different images at once get the right pixels."""
    files = [jpeg(100 + place, 90 - place, subsampling=SUBSAMPLINGS[place % 4]) for place in range(16)]

    def decode(place: int) -> bool:
        data = files[place % 16]
        width, height, _ = jpeg_frame(data)
        box = (place % 50, place % 40, width - place % 7, height - place % 5)
        found = crop(data, box)
        return found is not None and np.array_equal(found, whole(data)[box[1] : box[3], box[0] : box[2]])

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(decode, range(400)))


# --- Files that are not supported ---------------------------------------------------------------------------


class Refused(NamedTuple):
    """A file of 64 x 48 pixels that this decoder does not support."""

    why: str
    data: bytes


GOOD = jpeg(64, 48)
REFUSED = [
    Refused("progressive", jpeg(64, 48, progressive=True)),
    Refused("CMYK", jpeg(64, 48, mode="CMYK")),
    Refused("4:1:1", jpeg(64, 48, subsampling="411")),
    Refused("truncated", GOOD[:-20]),
    Refused("truncated, with an end marker", GOOD[: len(GOOD) // 3] + b"\xff\xd9"),
    Refused("no image data", GOOD[: GOOD.index(b"\xff\xda")] + b"\xff\xd9"),
    Refused("a marker within the data", GOOD[: len(GOOD) // 3] + b"\xff\xd0" + GOOD[len(GOOD) // 3 :]),
    Refused("no tables", GOOD[:2] + GOOD[GOOD.index(b"\xff\xc0") :]),
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.why)
def test_unsupported_and_damaged_files_give_none(refused: Refused) -> None:
    """The result is None and not an error, so that the caller uses another decoder."""
    assert crop(refused.data, (8, 8, 64, 48)) is None


def test_nothing_is_written_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """The warnings and errors of libjpeg-turbo are not printed."""
    for refused in REFUSED:
        crop(refused.data, (8, 8, 64, 48))
    assert capfd.readouterr() == ("", "")


def test_a_frame_of_another_size_gives_none() -> None:
    """The decoder compares its own size with the given one: a second frame header cannot make the box too large."""
    assert decode_crop(GOOD, size=(64, 48), box=(0, 0, 64, 48)) is not None
    assert decode_crop(GOOD, size=(65, 48), box=(0, 0, 65, 48)) is None
    assert decode_crop(GOOD, size=(640, 480), box=(100, 100, 640, 480)) is None


@given(
    subsampling=st.sampled_from([*SUBSAMPLINGS, "Gray"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    box=boxes(64, 48),
)
@example(subsampling="420", changes=[(0.9, 255)], box=(0, 0, 64, 8))
@settings(max_examples=3000, deadline=None)
def test_damage_never_gives_other_pixels_than_pillow(
    subsampling: str, changes: list[tuple[float, int]], box: Box
) -> None:
    """Whichever bytes are changed, the result is None or has Pillow's pixels, and is None where Pillow fails."""
    data = bytearray(jpeg(64, 48, subsampling=subsampling))
    for where, value in changes:
        data[int(where * (len(data) - 2))] = value
    found = decode_crop(bytes(data), size=(64, 48), box=box)
    if found is None:
        return
    left, top, right, bottom = box
    assert np.array_equal(found, pillow_pixels(bytes(data))[top:bottom, left:right])


@pytest.mark.parametrize("num_bytes", [1, 3, 20, len(GOOD) // 4, len(GOOD) // 2])
def test_a_file_truncated_below_the_crop_gives_none(num_bytes: int) -> None:
    """A truncated file is detected even if it contains all rows of the crop."""
    assert crop(GOOD, (0, 0, 64, 1)) is not None
    assert crop(GOOD[:-num_bytes], (0, 0, 64, 1)) is None


def test_damage_above_a_crop_is_found_at_the_end() -> None:
    """Zeros in the data are taken for other blocks: only reading to the end shows that they do not add up."""
    data = jpeg(200, 160)
    zeroed = data[: len(data) // 4] + bytes(400) + data[len(data) // 4 + 400 :]
    box = (20, 60, 180, 150)
    assert crop(zeroed, box, to_end=True) is None
    assert_exact(data, box)


def test_bytes_after_the_image_are_ignored() -> None:
    """Some cameras append data after the end marker; the crop is still decoded."""
    assert_exact(GOOD + b"\0 and more", (5, 5, 64, 48))


# --- The self-test ------------------------------------------------------------------------------------------


@pytest.fixture
def no_cached_self_test() -> Iterator[None]:
    """Run the self-test again in this test, and again after it."""
    can_decode_crops.cache_clear()
    yield
    can_decode_crops.cache_clear()


@pytest.mark.usefixtures("no_cached_self_test")
@pytest.mark.parametrize("subsampling", [*SUBSAMPLINGS, "Gray"])
def test_a_library_with_other_pixels_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, subsampling: str
) -> None:
    """One wrong byte in one crop of one subsampling fails the self-test, which is logged once."""
    real, encode = jpeg_crop.decode_crop, simplejpeg.encode_jpeg
    current = ""

    def encoding(*arguments: Any, colorsubsampling: str, **more: Any) -> bytes:
        nonlocal current
        current = colorsubsampling
        data: bytes = encode(*arguments, colorsubsampling=colorsubsampling, **more)
        return data

    def decoding(data: bytes, *, size: tuple[int, int], box: Box, to_end: bool = False) -> NDArray[np.uint8] | None:
        pixels = real(data, size=size, box=box, to_end=to_end)
        if current == subsampling and box[:2] == (23, 15) and pixels is not None:
            pixels[-1, -1, -1] ^= 1
        return pixels

    monkeypatch.setattr(simplejpeg, "encode_jpeg", encoding)
    monkeypatch.setattr(jpeg_crop, "decode_crop", decoding)
    with caplog.at_level(logging.WARNING):
        assert not can_decode_crops()
        assert not can_decode_crops()
    assert [record.getMessage() for record in caplog.records] == [
        "the installed libjpeg-turbo decodes parts of images inexactly: whole images are decoded instead"
    ]


@pytest.mark.usefixtures("no_cached_self_test")
def test_a_library_that_supports_no_file_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library with another ABI fails for each file, and so fails the self-test."""
    monkeypatch.setattr(jpeg_crop, "decode_crop", lambda *_, **__: None)
    assert not can_decode_crops()


def test_without_the_extension() -> None:
    """A package without the extension can be imported, decodes whole images, and gives the same pixels."""
    code = """
import sys
sys.modules["wds_real.image._jpeg"] = None
import numpy as np
from wds_real.image.transform import EvalTransform
from wds_real.image.jpeg_crop import can_decode_crops
out = np.empty((20, 20, 3), np.uint8)
EvalTransform(20).decode_into(sys.stdin.buffer.read(), out)
assert not can_decode_crops()
sys.stdout.buffer.write(out.tobytes())
"""
    from wds_real.image.transform import EvalTransform

    written = subprocess.run([sys.executable, "-c", code], input=GOOD, check=True, capture_output=True).stdout
    out = np.empty((20, 20, 3), np.uint8)
    EvalTransform(20).decode_into(GOOD, out)
    assert written == out.tobytes()


# --- The extension ------------------------------------------------------------------------------------------


READ_ONLY = np.zeros((8, 50, 3), np.uint8)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("place", "wrong", "error", "says"),
    [
        (0, "text", TypeError, "bytes-like"),
        (1, READ_ONLY, ValueError, "read-only"),
        (1, np.zeros((8, 50), np.uint8), ValueError, "pixels is not uint8"),
        (1, np.zeros((8, 50, 4), np.uint8), ValueError, "pixels is not uint8"),
        (1, np.zeros((8, 50, 3), np.uint16), ValueError, "pixels is not uint8"),
        (1, np.zeros((8, 50, 3), np.uint8)[:, ::-1], ValueError, "pixels is not uint8"),
        (1, np.zeros((8, 50, 3), np.uint8)[::-1], ValueError, "pixels is not uint8"),
        (1, np.broadcast_to(np.zeros((1, 50, 3), np.uint8), (8, 50, 3)).copy()[:0], ValueError, "a crop of"),
        (1, np.zeros((8, 0, 3), np.uint8), ValueError, "a crop of -"),
        (2, 19, ValueError, "is outside an image of 19 x 48"),
        (3, 10, ValueError, "is outside an image of 64 x 10"),
        (4, -1, ValueError, r"at \(-1, 3\)"),
        (4, 47, ValueError, r"a crop of 18 x 8 at \(47, 3\) is outside"),
        (5, -1, ValueError, r"at \(2, -1\)"),
        (5, 41, ValueError, r"at \(2, 41\)"),
        (5, (1 << 31) - 1, ValueError, "is outside"),
        (5, 1 << 40, OverflowError, "int"),
    ],
)
def test_the_extension_checks_its_arguments(place: int, wrong: object, error: type[Exception], says: str) -> None:
    """The extension refuses arguments with which it would write outside the array."""
    from wds_real.image import _jpeg

    arguments: list[Any] = [GOOD, np.zeros((8, 18 + _jpeg.SLACK, 3), np.uint8), 64, 48, 2, 3, False]
    assert _jpeg.decode_crop(*arguments) >= 0
    arguments[place] = wrong
    with pytest.raises(error, match=says):
        _jpeg.decode_crop(*arguments)


def test_an_array_without_columns_for_the_crop_is_refused() -> None:
    """The array has to be wider than the SLACK columns."""
    from wds_real.image import _jpeg

    with pytest.raises(ValueError, match="a crop of 0 x 8"):
        _jpeg.decode_crop(GOOD, np.zeros((8, _jpeg.SLACK, 3), np.uint8), 64, 48, 2, 3, False)
    assert _jpeg.decode_crop(GOOD, np.zeros((8, _jpeg.SLACK + 1, 3), np.uint8), 64, 48, 2, 3, False) == 0


@given(box=boxes(64, 48), subsampling=st.sampled_from(SUBSAMPLINGS))
@settings(max_examples=300, deadline=None)
def test_nothing_outside_the_array_is_changed(box: Box, subsampling: str) -> None:
    """If the array is a view of a larger one, the rest of the larger one is unchanged."""
    from wds_real.image import _jpeg

    left, top, right, bottom = box
    width = right - left + _jpeg.SLACK
    canvas = np.full((bottom - top + 2, width + 2, 3), 93, np.uint8)
    inner = canvas[1:-1, 1:-1]
    start = _jpeg.decode_crop(jpeg(64, 48, subsampling=subsampling), inner, 64, 48, left, top, True)
    assert 0 <= start <= left
    inner[:] = 93
    assert (canvas == 93).all()
