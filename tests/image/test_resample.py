"""Resizing and cropping in one step: the pixels of the installed Pillow, with and without the extension."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.images import tar_images

from wds_real.image import resample
from wds_real.image.decode import decode
from wds_real.image.resample import HAVE_EXTENSION, RESAMPLING, Crop, columns_first, needed_box, resize_crop
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

INTERPOLATIONS = tuple(RESAMPLING)
EDGE = 93  # the value around the output, which must not change
with_extension = pytest.mark.skipif(not HAVE_EXTENSION, reason="wds_real.image._resample was not built: no C compiler?")


def image(width: int, height: int, kind: str = "noise") -> NDArray[np.uint8]:
    """Return noise, black and white pixels (whose sums leave 0..255), or one colour (which must stay the same)."""
    rng = np.random.default_rng(width * 1009 + height)
    if kind == "extremes":
        return rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)
    if kind == "flat":
        return np.full((height, width, 3), (255, 1, 128), dtype=np.uint8)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillow(pixels: NDArray[np.uint8], resized: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize(resized, RESAMPLING[interpolation]))


def crop_of(
    pixels: NDArray[np.uint8], resized: tuple[int, int], box: tuple[int, int, int, int], interpolation: str
) -> NDArray[np.uint8]:
    """Return what `resize_crop` writes for `box` (left, top, right, bottom), and check that nothing else changes."""
    left, top, right, bottom = box
    canvas = np.full((bottom - top + 2, right - left + 2, 3), EDGE, dtype=np.uint8)
    out = canvas[1:-1, 1:-1]
    crop = Crop(pixels.shape[1::-1], resized, (left, top), (right - left, bottom - top))
    resize_crop(pixels, out, crop=crop, interpolation=interpolation)
    result = out.copy()
    out[:] = EDGE
    assert (canvas == EDGE).all()
    return result


def assert_equal_to_pillow(pixels: NDArray[np.uint8], resized: tuple[int, int], interpolation: str) -> None:
    expected = pillow(pixels, resized, interpolation)
    assert np.array_equal(crop_of(pixels, resized, (0, 0, *resized), interpolation), expected), (pixels.shape, resized)


sides = st.one_of(st.integers(1, 8), st.integers(1, 80), st.integers(1, 400))


@given(data=st.data(), width=sides, height=sides, resized=st.tuples(sides, sides))
@settings(max_examples=2000, deadline=None)
def test_every_size_filter_and_crop_equals_pillow(
    data: st.DataObject, width: int, height: int, resized: tuple[int, int]
) -> None:
    """For any size, filter and crop the pixels are Pillow's, with the extension and without."""
    interpolation = data.draw(st.sampled_from(INTERPOLATIONS))
    pixels = image(width, height, data.draw(st.sampled_from(["noise", "extremes", "flat"])))
    left, top = (data.draw(st.integers(0, side - 1)) for side in resized)
    right, bottom = data.draw(st.integers(left + 1, resized[0])), data.draw(st.integers(top + 1, resized[1]))
    box = (left, top, right, bottom)
    expected = pillow(pixels, resized, interpolation)[top:bottom, left:right]
    assert np.array_equal(crop_of(pixels, resized, box, interpolation), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "HAVE_EXTENSION", False)
        assert np.array_equal(crop_of(pixels, resized, box, interpolation), expected)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_small_sizes(interpolation: str) -> None:
    """Pixels are equal for all sizes up to 4 x 4 resized to all up to 5 x 5, and for all sides up to 129."""
    for width, height, *resized in itertools.product(range(1, 5), range(1, 5), range(1, 6), range(1, 6)):
        assert_equal_to_pillow(image(width, height), (resized[0], resized[1]), interpolation)
    for side in range(1, 130):
        assert_equal_to_pillow(image(side, 65), (64, 33), interpolation)
        assert_equal_to_pillow(image(65, side), (33, 64), interpolation)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_extreme_aspects_and_scales(interpolation: str) -> None:
    """Pixels are equal for images one pixel wide or high, and for resizing to one pixel and from one."""
    long = [(1, 3000), (3000, 1), (5, 2000), (2000, 5), (1, 1), (900, 700)]
    for (width, height), resized in itertools.product(long, [(1, 1), (1, 90), (90, 1), (37, 41), (400, 3), (3, 400)]):
        assert_equal_to_pillow(image(width, height, "extremes"), resized, interpolation)


@given(
    width=st.integers(1, 120),
    resized=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    beyond=st.integers(-2, 2),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
@example(width=30, resized=(20, 50), beyond=0, interpolation="bicubic")
@example(width=30, resized=(20, 50), beyond=1, interpolation="bicubic")
@settings(max_examples=400, deadline=None)
def test_which_pass_comes_first(width: int, resized: tuple[int, int], beyond: int, interpolation: str) -> None:
    """Around the size at which Pillow 13 changes the order of its passes, pixels are equal."""
    height = resized[1] + 2 * max(width - resized[0], 0) + beyond
    if height >= 1:
        assert_equal_to_pillow(image(width, height), resized, interpolation)


@pytest.mark.parametrize("over", [-1, 0, 1, 2])
def test_which_pass_comes_first_for_very_tall_images(over: int) -> None:
    """Around the aspect ratio of 1:100, where Pillow 12.2 changes the order of its passes, pixels are equal."""
    for width, resized in itertools.product([1, 3, 7], [(2, 50), (5, 399), (9, 700), (4, 900)]):
        assert_equal_to_pillow(image(width, 100 * width + over), resized, "bicubic")


@pytest.mark.parametrize(
    ("size", "resized", "expected"),
    [
        ((100, 300), (100, 200), (False, False, True)),
        ((100, 300), (50, 200), (False, False, False)),
        ((100, 300), (50, 199), (False, False, True)),
        ((100, 300), (150, 299), (False, False, True)),
        ((100, 300), (150, 300), (False, False, False)),
        ((100, 300), (90, 400), (False, False, False)),
        ((3, 300), (2, 100), (False, False, True)),
        ((3, 301), (2, 100), (False, True, True)),
        ((3, 301), (2, 301), (False, False, False)),
        ((900, 901), (1, 1), (False, False, False)),
    ],
)
def test_order_of_passes_by_version(
    size: tuple[int, int], resized: tuple[int, int], expected: tuple[bool, bool, bool]
) -> None:
    """The order of Pillow up to 12.1, of 12.2 and 12.3, and of 13 and later."""
    versions = ((10, 0), (12, 1)), ((12, 2), (12, 3)), ((13, 0), (13, 1), (14, 0))
    for same, order in zip(versions, expected, strict=True):
        assert {columns_first(*size, resized, pillow=version) for version in same} == {order}


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("size", "resized"), [((31, 23), (17, 12)), ((9, 40), (12, 11)), ((12, 9), (12, 17))])
def test_a_crop_at_every_position(size: tuple[int, int], resized: tuple[int, int], interpolation: str) -> None:
    """Crops at all positions and of several sizes have the pixels of the whole resized image."""
    pixels = image(*size)
    whole = pillow(pixels, resized, interpolation)
    for width, height in [(1, 1), (5, 3), (resized[0], 1), (1, resized[1])]:
        for left, top in itertools.product(range(resized[0] - width + 1), range(resized[1] - height + 1)):
            got = crop_of(pixels, resized, (left, top, left + width, top + height), interpolation)
            assert np.array_equal(got, whole[top : top + height, left : left + width]), (left, top, width, height)


def test_photos(real_data: Callable[[str], Path]) -> None:
    """300 full-size photos have Pillow's pixels with every filter, resized and cropped as for evaluation."""
    transform, count = EvalTransform(224, 0.875), 0
    for name, data in tar_images(real_data("photos-300.tar")):
        pixels = decode(data).pixels
        place = transform.geometry(pixels.shape[1], pixels.shape[0])
        box = (place.left, place.top, place.left + 224, place.top + 224)
        for interpolation in INTERPOLATIONS:
            expected = pillow(pixels, place.resized, interpolation)[box[1] : box[3], box[0] : box[2]]
            assert np.array_equal(crop_of(pixels, place.resized, box, interpolation), expected), name
        count += 1
    assert count == 300


@pytest.mark.parametrize("interpolation", ["bicubic", "nearest"])
def test_arrays_that_are_views(interpolation: str) -> None:
    """Sliced, flipped, mirrored, transposed and read-only arrays of pixels, and a transposed output, work."""
    base = image(90, 70)
    base.flags.writeable = False
    views = (base[5:60, 7:80], base[::-1], base[:, ::-1], base[::2, ::3], base.transpose(1, 0, 2), base[:, :, ::-1])
    for pixels in views:
        expected = pillow(np.ascontiguousarray(pixels), (40, 30), interpolation)[2:22, 3:33]
        for out in (np.empty((20, 30, 3), np.uint8), np.empty((30, 20, 3), np.uint8).transpose(1, 0, 2)):
            crop = Crop(pixels.shape[1::-1], (40, 30), (3, 2), (30, 20))
            resize_crop(pixels, out, crop=crop, interpolation=interpolation)
            assert np.array_equal(out, expected)


def test_threads() -> None:
    """Threads that write to different rows of one batch at the same time write the right pixels."""
    jobs = [(image(60 + 7 * i % 50, 50 + 11 * i % 70), (40 + i % 9, 44 + i % 5)) for i in range(64)]
    batch = np.zeros((len(jobs), 32, 33, 3), dtype=np.uint8)

    def work(index: int) -> None:
        pixels, resized = jobs[index]
        crop = Crop(pixels.shape[1::-1], resized, (4, 5), (33, 32))
        for _ in range(10):
            resize_crop(pixels, batch[index], crop=crop, interpolation=INTERPOLATIONS[index % len(INTERPOLATIONS)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(len(jobs))))
    for index, (pixels, resized) in enumerate(jobs):
        whole = pillow(pixels, resized, INTERPOLATIONS[index % len(INTERPOLATIONS)])
        assert np.array_equal(batch[index], whole[5:37, 4:37]), index


PIXELS = np.zeros((30, 40, 3), np.uint8)
OUT = np.zeros((10, 12, 3), np.uint8)
GOOD = {"full": (40, 30), "resized": (20, 15), "start": (2, 3), "size": (12, 10)}
READ_ONLY = np.zeros((10, 12, 3), np.uint8)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize("extension", [True, False])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"pixels": np.zeros((30, 40, 3), np.float32)}, "pixels is float32"),
        ({"pixels": np.zeros((30, 40), np.uint8)}, r"pixels is uint8 \(30, 40\)"),
        ({"pixels": np.zeros((30, 40, 4), np.uint8)}, "pixels is uint8"),
        ({"pixels": np.zeros((0, 40, 3), np.uint8)}, "pixels is uint8"),
        ({"out": np.zeros((10, 12, 3), np.int8)}, "out is int8"),
        ({"out": np.zeros((10, 0, 3), np.uint8)}, "out is uint8"),
        ({"out": np.zeros((12, 10, 3), np.uint8)}, r"out is \(12, 10, 3\), expected .* crop's .* \(12, 10\)"),
        ({"out": READ_ONLY}, "out is read-only"),
        ({"resized": (13, 15)}, r"a crop of \(12, 10\) at \(2, 3\) is outside the resized image of \(13, 15\)"),
        ({"resized": (20, 12)}, r"outside the resized image of \(20, 12\)"),
        ({"resized": (0, 0)}, "outside the resized image"),
        ({"resized": (-20, 15)}, "outside the resized image"),
        ({"resized": (1 << 25, 15)}, "expected sides of at most"),
        ({"start": (-1, 3)}, "outside the resized image"),
        ({"start": (9, 3)}, "outside the resized image"),
        ({"start": (2, -1)}, "outside the resized image"),
        ({"start": (2, 6)}, "outside the resized image"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected one of nearest"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], says: str, extension: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong arguments are a ValueError that shows them, with and without the extension, and nothing is written."""
    monkeypatch.setattr(resample, "HAVE_EXTENSION", extension and HAVE_EXTENSION)
    crop = Crop(**{name: wrong.get(name, value) for name, value in GOOD.items()})
    with pytest.raises(ValueError, match=says):
        resize_crop(
            wrong.get("pixels", PIXELS), wrong.get("out", OUT), crop=crop,
            interpolation=wrong.get("interpolation", "bicubic"),
        )  # fmt: skip
    assert not OUT.any()


@with_extension
@pytest.mark.parametrize(
    ("place", "wrong", "error", "says"),
    [
        (0, np.zeros((30, 40, 3), np.int8), ValueError, "pixels is not uint8"),
        (0, np.zeros((30, 40, 3), np.uint16), ValueError, "pixels is not uint8"),
        (0, np.zeros((30, 40), np.uint8), ValueError, "pixels is not uint8"),
        (0, np.zeros((30, 40, 4), np.uint8), ValueError, "pixels is not uint8"),
        (0, np.zeros((30, 40, 3), np.uint8)[:, ::-1], ValueError, "pixels: the pixels of a row are not contiguous"),
        (0, np.zeros((30, 40, 3), np.uint8)[:, :, ::-1], ValueError, "pixels: the pixels of a row are not contiguous"),
        (0, np.zeros((0, 40, 3), np.uint8), ValueError, "pixels: a side is 0"),
        (0, bytes(3600), ValueError, "pixels is not uint8"),
        (0, None, TypeError, "bytes-like"),
        (1, np.zeros((10, 12, 3), np.float32), ValueError, "out is not uint8"),
        (1, np.zeros((10, 24, 3), np.uint8)[:, ::2], ValueError, "out: the pixels of a row are not contiguous"),
        (1, READ_ONLY, ValueError, "read-only"),
        (1, np.zeros((10, 0, 3), np.uint8), ValueError, "out: a side is 0"),
        (2, (39, 30), ValueError, "width: 40 starting at 0 is outside an image of 39"),
        (2, (40, 29), ValueError, "height: 30 starting at 0 is outside an image of 29"),
        (2, (1 << 25, 30), ValueError, "width"),
        (2, (60, 30), ValueError, "do not contain the whole part"),
        (2, (40, 60), ValueError, "do not contain the whole part"),
        (3, (1, 0), ValueError, "width: 40 starting at 1 is outside an image of 40"),
        (3, (0, -1), ValueError, "height: 30 starting at -1 is outside an image of 30"),
        (4, (0, 15), ValueError, "width: 12 starting at 2 is outside a resized image of 0"),
        (4, (13, 15), ValueError, "width: 12 starting at 2 is outside a resized image of 13"),
        (4, (1 << 25, 15), ValueError, "width"),
        (4, (-(1 << 31), 15), ValueError, "width"),
        (4, (1 << 40, 15), OverflowError, "int"),
        (4, (20, 12), ValueError, "height: 10 starting at 3 is outside a resized image of 12"),
        (5, (-1, 3), ValueError, "width: 12 starting at -1 is outside"),
        (5, ((1 << 31) - 1, 3), ValueError, "width"),
        (5, (2, 6), ValueError, "height: 10 starting at 6 is outside"),
        (6, -1, ValueError, "filter is -1"),
        (6, 5, ValueError, "filter is 5, expected 0 to 4"),
    ],
)
def test_the_extension_checks_its_arguments(place: int, wrong: object, error: type[Exception], says: str) -> None:
    """The extension refuses arguments with which it would read or write outside the two arrays."""
    from wds_real.image import _resample

    arguments: list[Any] = [PIXELS, OUT, (40, 30), (0, 0), (20, 15), (2, 3), 3, False]
    _resample.resize_crop(*arguments)
    arguments[place] = wrong
    with pytest.raises(error, match=says):
        _resample.resize_crop(*arguments)


@with_extension
@pytest.mark.parametrize(
    ("place", "wrong", "says"),
    [
        (0, (0, 30), "width: 1 starting at 0 is outside an image of 0"),
        (0, (40, 1 << 25), "height"),
        (1, (13, 15), "width: 12 starting at 2 is outside a resized image of 13"),
        (2, (-1, 3), "width: 12 starting at -1 is outside"),
        (3, (0, 10), "the crop is empty"),
        (3, (12, -5), "the crop is empty"),
        (3, (12, 13), "height: 13 starting at 3 is outside"),
        (4, 5, "filter is 5"),
    ],
)
def test_an_impossible_crop_needs_no_box(place: int, wrong: object, says: str) -> None:
    """`needed_box` refuses a crop that `resize_crop` refuses, and an empty one."""
    from wds_real.image import _resample

    arguments: list[Any] = [(40, 30), (20, 15), (2, 3), (12, 10), 3]
    _resample.needed_box(*arguments)
    arguments[place] = wrong
    with pytest.raises(ValueError, match=says):
        _resample.needed_box(*arguments)


# --- Parts of an image --------------------------------------------------------------------------------------


@with_extension
@given(data=st.data(), width=sides, height=sides, resized=st.tuples(sides, sides))
@settings(max_examples=1000, deadline=None)
def test_the_needed_box_is_enough_and_not_more(
    data: st.DataObject, width: int, height: int, resized: tuple[int, int]
) -> None:
    """With only the needed pixels the result is Pillow's; without their first or last row or column it is an error."""
    interpolation = data.draw(st.sampled_from([name for name in INTERPOLATIONS if name != "nearest"]))
    pixels = image(width, height)
    left, top = (data.draw(st.integers(0, side - 1)) for side in resized)
    right, bottom = data.draw(st.integers(left + 1, resized[0])), data.draw(st.integers(top + 1, resized[1]))
    crop = Crop((width, height), resized, (left, top), (right - left, bottom - top))
    box = needed_box(crop, interpolation=interpolation)
    assert box is not None
    expected = pillow(pixels, resized, interpolation)[top:bottom, left:right]

    def of(box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        part = np.ascontiguousarray(pixels[box[1] : box[3], box[0] : box[2]])
        out = np.empty_like(expected)
        resize_crop(part, out, crop=crop, interpolation=interpolation, at=box[:2])
        return out

    assert np.array_equal(of(box), expected)
    for side, step in ((0, 1), (1, 1), (2, -1), (3, -1)):
        from_x, from_y, to_x, to_y = (value + step * (place == side) for place, value in enumerate(box))
        if from_x < to_x and from_y < to_y:
            with pytest.raises(ValueError, match="do not contain the whole part"):
                of((from_x, from_y, to_x, to_y))


def test_pillow_needs_the_whole_image() -> None:
    """Where Pillow resizes, `needed_box` is None, and a part of the image is an error."""
    crop = Crop((40, 40), (20, 20), (0, 0), (5, 5))
    assert needed_box(crop, interpolation="nearest") is None
    with pytest.raises(ValueError, match="needs the whole image"):
        resize_crop(np.zeros((20, 20, 3), np.uint8), np.zeros((5, 5, 3), np.uint8), crop=crop, interpolation="nearest")


@with_extension
@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory the Linux way")
def test_too_little_memory_is_a_memory_error() -> None:
    """If the intermediate image cannot be allocated, the call raises MemoryError and the process continues."""
    code = """
import resource
from pathlib import Path
import numpy as np
from wds_real.image.resample import Crop, resize_crop
pixels = np.lib.stride_tricks.as_strided(np.zeros(15000, np.uint8), (9000, 5000, 3), (0, 3, 1))
out = np.zeros((1, 5000, 3), np.uint8)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), resource.RLIM_INFINITY))
try:
    resize_crop(pixels, out, crop=Crop((5000, 9000), (5001, 1), (0, 0), (5000, 1)), interpolation="bicubic")
except MemoryError:
    raise SystemExit(7)
"""
    rows_first = "import wds_real.image.resample as module; module.columns_first = lambda *_, **__: False"
    assert subprocess.run([sys.executable, "-c", f"{rows_first}\n{code}"], check=False).returncode == 7


def test_without_the_extension() -> None:
    """A package without the extension can be imported, reports that, and gives the same pixels."""
    code = """
import sys
sys.modules["wds_real.image._resample"] = None
import numpy as np
from wds_real.image.resample import HAVE_EXTENSION, Crop, resize_crop
out = np.empty((9, 8, 3), np.uint8)
pixels = np.arange(30 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(30, 40, 3)
resize_crop(pixels, out, crop=Crop((40, 30), (20, 15), (2, 3), (8, 9)), interpolation="bicubic")
assert not HAVE_EXTENSION
sys.stdout.buffer.write(out.tobytes())
"""
    written = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    out = np.empty((9, 8, 3), np.uint8)
    pixels = np.arange(30 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(30, 40, 3)
    resize_crop(pixels, out, crop=Crop((40, 30), (20, 15), (2, 3), (8, 9)), interpolation="bicubic")
    assert written == out.tobytes()
