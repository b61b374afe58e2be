"""Resizing and cropping in one step: the pixels of the installed Pillow, to the last bit, and nothing else touched."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from wds_real.image import resample
from wds_real.image.decode import EvalTransform, decode_rgb
from wds_real.image.resample import HAVE_EXTENSION, RESAMPLING, columns_first, needed, resize_crop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

INTERPOLATIONS = tuple(RESAMPLING)
EDGE = 93  # what lies around the output, and must stay
with_extension = pytest.mark.skipif(not HAVE_EXTENSION, reason="wds_real.image._resample was not built: no C compiler?")


def picture(width: int, height: int, kind: str = "noise") -> NDArray[np.uint8]:
    """Return noise, pure black and white (whose sums leave 0..255), or one colour (whose sums must not drift)."""
    rng = np.random.default_rng(width * 1009 + height)
    if kind == "extremes":
        return rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)
    if kind == "flat":
        return np.full((height, width, 3), (255, 1, 128), dtype=np.uint8)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillow(pixels: NDArray[np.uint8], resized: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize(resized, RESAMPLING[interpolation]))


def part(
    pixels: NDArray[np.uint8], resized: tuple[int, int], box: tuple[int, int, int, int], interpolation: str
) -> NDArray[np.uint8]:
    """Return what `resize_crop` writes for `box` (left, top, right, bottom), and see that it writes nowhere else."""
    left, top, right, bottom = box
    canvas = np.full((bottom - top + 2, right - left + 2, 3), EDGE, dtype=np.uint8)
    out = canvas[1:-1, 1:-1]
    resize_crop(pixels, out, resized=resized, left=left, top=top, interpolation=interpolation)
    result = out.copy()
    out[:] = EDGE
    assert (canvas == EDGE).all()
    return result


def assert_equal_to_pillow(pixels: NDArray[np.uint8], resized: tuple[int, int], interpolation: str) -> None:
    expected = pillow(pixels, resized, interpolation)
    assert np.array_equal(part(pixels, resized, (0, 0, *resized), interpolation), expected), (pixels.shape, resized)


sides = st.one_of(st.integers(1, 8), st.integers(1, 80), st.integers(1, 400))


@given(data=st.data(), width=sides, height=sides, resized=st.tuples(sides, sides))
@settings(max_examples=2000, deadline=None)
def test_every_size_filter_and_part_equals_pillow(
    data: st.DataObject, width: int, height: int, resized: tuple[int, int]
) -> None:
    """Any part of any picture resized to any size by any filter has Pillow's pixels; so has Pillow's own path here."""
    interpolation = data.draw(st.sampled_from(INTERPOLATIONS))
    pixels = picture(width, height, data.draw(st.sampled_from(["noise", "extremes", "flat"])))
    left, top = (data.draw(st.integers(0, side - 1)) for side in resized)
    right, bottom = data.draw(st.integers(left + 1, resized[0])), data.draw(st.integers(top + 1, resized[1]))
    box = (left, top, right, bottom)
    expected = pillow(pixels, resized, interpolation)[top:bottom, left:right]
    assert np.array_equal(part(pixels, resized, box, interpolation), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "HAVE_EXTENSION", False)
        assert np.array_equal(part(pixels, resized, box, interpolation), expected)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_small_sizes(interpolation: str) -> None:
    """Every picture of up to 4 x 4 pixels resized to all up to 5 x 5 is equal; so are all lengths of a side."""
    for width, height, *resized in itertools.product(range(1, 5), range(1, 5), range(1, 6), range(1, 6)):
        assert_equal_to_pillow(picture(width, height), (resized[0], resized[1]), interpolation)
    for side in range(1, 130):
        assert_equal_to_pillow(picture(side, 65), (64, 33), interpolation)
        assert_equal_to_pillow(picture(65, side), (33, 64), interpolation)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_extreme_aspects_and_scales(interpolation: str) -> None:
    """Pictures a pixel wide or high, shrinking to a pixel and growing from one, are equal."""
    long = [(1, 3000), (3000, 1), (5, 2000), (2000, 5), (1, 1), (900, 700)]
    for (width, height), resized in itertools.product(long, [(1, 1), (1, 90), (90, 1), (37, 41), (400, 3), (3, 400)]):
        assert_equal_to_pillow(picture(width, height, "extremes"), resized, interpolation)


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
    """Around the size at which Pillow 13 turns the order of its passes, pixels are equal."""
    height = resized[1] + 2 * max(width - resized[0], 0) + beyond
    if height >= 1:
        assert_equal_to_pillow(picture(width, height), resized, interpolation)


@pytest.mark.parametrize("over", [-1, 0, 1, 2])
def test_which_pass_comes_first_for_very_tall_pictures(over: int) -> None:
    """Around the aspect of 1 : 100, where Pillow 12.2 turns the order of its passes, pixels are equal."""
    for width, resized in itertools.product([1, 3, 7], [(2, 50), (5, 399), (9, 700), (4, 900)]):
        assert_equal_to_pillow(picture(width, 100 * width + over), resized, "bicubic")


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
    """The order of 12.1 and before, of 12.2 and 12.3, and of 13 and later."""
    versions = ((10, 0), (12, 1)), ((12, 2), (12, 3)), ((13, 0), (13, 1), (14, 0))
    for same, order in zip(versions, expected, strict=True):
        assert {columns_first(*size, resized, pillow=version) for version in same} == {order}


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("size", "resized"), [((31, 23), (17, 12)), ((9, 40), (12, 11)), ((12, 9), (12, 17))])
def test_a_crop_at_every_position(size: tuple[int, int], resized: tuple[int, int], interpolation: str) -> None:
    """A part is the same wherever it starts and however large it is."""
    pixels = picture(*size)
    whole = pillow(pixels, resized, interpolation)
    for width, height in [(1, 1), (5, 3), (resized[0], 1), (1, resized[1])]:
        for left, top in itertools.product(range(resized[0] - width + 1), range(resized[1] - height + 1)):
            got = part(pixels, resized, (left, top, left + width, top + height), interpolation)
            assert np.array_equal(got, whole[top : top + height, left : left + width]), (left, top, width, height)


def test_photos(real_data: Callable[[str], Path]) -> None:
    """300 full-size photos, each by every filter, have Pillow's pixels after the usual resizing and centre crop."""
    transform, count = EvalTransform(224, 0.875), 0
    with tarfile.open(real_data("photos-300.tar")) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            pixels = decode_rgb(file.read())
            place = transform.geometry(pixels.shape[1], pixels.shape[0])
            box = (place.left, place.top, place.left + 224, place.top + 224)
            for interpolation in INTERPOLATIONS:
                expected = pillow(pixels, place.resized, interpolation)[box[1] : box[3], box[0] : box[2]]
                assert np.array_equal(part(pixels, place.resized, box, interpolation), expected), member.name
            count += 1
    assert count == 300


@pytest.mark.parametrize("interpolation", ["bicubic", "nearest"])
def test_arrays_that_are_views(interpolation: str) -> None:
    """Cut-out, upside-down, mirrored and read-only pixels, and outputs with other gaps, give the same result."""
    base = picture(90, 70)
    base.flags.writeable = False
    views = (base[5:60, 7:80], base[::-1], base[:, ::-1], base[::2, ::3], base.transpose(1, 0, 2), base[:, :, ::-1])
    for pixels in views:
        expected = pillow(np.ascontiguousarray(pixels), (40, 30), interpolation)[2:22, 3:33]
        for out in (np.empty((20, 30, 3), np.uint8), np.empty((30, 20, 3), np.uint8).transpose(1, 0, 2)):
            resize_crop(pixels, out, resized=(40, 30), left=3, top=2, interpolation=interpolation)
            assert np.array_equal(out, expected)


def test_threads() -> None:
    """Threads that write to their rows of one batch at the same time write what one thread would."""
    jobs = [(picture(60 + 7 * i % 50, 50 + 11 * i % 70), (40 + i % 9, 44 + i % 5)) for i in range(64)]
    batch = np.zeros((len(jobs), 32, 33, 3), dtype=np.uint8)

    def work(index: int) -> None:
        pixels, resized = jobs[index]
        interpolation = INTERPOLATIONS[index % len(INTERPOLATIONS)]
        for _ in range(10):
            resize_crop(pixels, batch[index], resized=resized, left=4, top=5, interpolation=interpolation)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(len(jobs))))
    for index, (pixels, resized) in enumerate(jobs):
        whole = pillow(pixels, resized, INTERPOLATIONS[index % len(INTERPOLATIONS)])
        assert np.array_equal(batch[index], whole[5:37, 4:37]), index


GOOD: dict[str, Any] = {
    "pixels": np.zeros((30, 40, 3), np.uint8),
    "out": np.zeros((10, 12, 3), np.uint8),
    "resized": (20, 15),
    "left": 2,
    "top": 3,
    "interpolation": "bicubic",
}
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
        ({"out": READ_ONLY}, "out is read-only"),
        ({"resized": (13, 15)}, r"out is 12 x 10 from \(2, 3\) on, expected a part of 13 x 15"),
        ({"resized": (20, 12)}, "expected a part of 20 x 12"),
        ({"resized": (0, 0)}, "expected a part"),
        ({"resized": (-20, 15)}, "expected a part"),
        ({"resized": (1 << 25, 15)}, "expected at most"),
        ({"left": -1}, "expected a part"),
        ({"left": 9}, "expected a part"),
        ({"top": -1}, "expected a part"),
        ({"top": 6}, "expected a part"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected one of nearest"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], says: str, extension: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be is a ValueError that says so, with and without the extension, and nothing is written."""
    monkeypatch.setattr(resample, "HAVE_EXTENSION", extension and HAVE_EXTENSION)
    arguments = GOOD | wrong
    with pytest.raises(ValueError, match=says):
        resize_crop(arguments.pop("pixels"), arguments.pop("out"), **arguments)
    assert not GOOD["out"].any()


@with_extension
@pytest.mark.parametrize(
    ("place", "wrong", "error", "says"),
    [
        (0, np.zeros((30, 40, 3), np.int8), ValueError, "pixels is not uint8"),
        (0, np.zeros((30, 40, 3), np.uint16), ValueError, "pixels is not uint8"),
        (0, np.zeros((30, 40), np.uint8), ValueError, "pixels is not uint8"),
        (0, np.zeros((30, 40, 4), np.uint8), ValueError, "pixels is not uint8"),
        (0, np.zeros((30, 40, 3), np.uint8)[:, ::-1], ValueError, "pixels: the pixels of a row"),
        (0, np.zeros((30, 40, 3), np.uint8)[:, :, ::-1], ValueError, "pixels: the pixels of a row"),
        (0, np.zeros((0, 40, 3), np.uint8), ValueError, "pixels: a side is 0"),
        (0, bytes(3600), ValueError, "pixels is not uint8"),
        (0, None, TypeError, "bytes-like"),
        (1, np.zeros((10, 12, 3), np.float32), ValueError, "out is not uint8"),
        (1, np.zeros((10, 24, 3), np.uint8)[:, ::2], ValueError, "out: the pixels of a row"),
        (1, READ_ONLY, ValueError, "read-only"),
        (1, np.zeros((10, 0, 3), np.uint8), ValueError, "out: a side is 0"),
        (2, (39, 30), ValueError, "width: 40 from 0 on is not within a picture of 39"),
        (2, (40, 29), ValueError, "height: 30 from 0 on is not within a picture of 29"),
        (2, (1 << 25, 30), ValueError, "width"),
        (2, (60, 30), ValueError, "do not hold all the crop needs"),
        (2, (40, 60), ValueError, "do not hold all the crop needs"),
        (3, (1, 0), ValueError, "width: 40 from 1 on is not within a picture of 40"),
        (3, (0, -1), ValueError, "height: 30 from -1 on is not within a picture of 30"),
        (4, (0, 15), ValueError, "width: 12 from 2 on is not within 0"),
        (4, (13, 15), ValueError, "width: 12 from 2 on is not within 13"),
        (4, (1 << 25, 15), ValueError, "width"),
        (4, (-(1 << 31), 15), ValueError, "width"),
        (4, (1 << 40, 15), OverflowError, "int"),
        (4, (20, 12), ValueError, "height: 10 from 3 on is not within 12"),
        (5, (-1, 3), ValueError, "width: 12 from -1 on"),
        (5, ((1 << 31) - 1, 3), ValueError, "width"),
        (5, (2, 6), ValueError, "height: 10 from 6 on"),
        (6, -1, ValueError, "filter is -1"),
        (6, 5, ValueError, "filter is 5, expected 0 to 4"),
    ],
)
def test_the_extension_checks_for_itself(place: int, wrong: object, error: type[Exception], says: str) -> None:
    """The extension reads and writes within the two arrays only, whoever calls it."""
    from wds_real.image import _resample

    arguments: list[Any] = [GOOD["pixels"], GOOD["out"], (40, 30), (0, 0), (20, 15), (2, 3), 3, False]
    _resample.resize_crop(*arguments)
    arguments[place] = wrong
    with pytest.raises(error, match=says):
        _resample.resize_crop(*arguments)


@with_extension
@pytest.mark.parametrize(
    ("place", "wrong", "says"),
    [
        (0, (0, 30), "width: 1 from 0 on is not within a picture of 0"),
        (0, (40, 1 << 25), "height"),
        (1, (13, 15), "width: 12 from 2 on is not within 13"),
        (2, (-1, 3), "width: 12 from -1 on"),
        (3, (0, 10), "nothing is kept"),
        (3, (12, -5), "nothing is kept"),
        (3, (12, 13), "height: 13 from 3 on"),
        (4, 5, "filter is 5"),
    ],
)
def test_what_is_needed_is_asked_of_what_can_be(place: int, wrong: object, says: str) -> None:
    """The extension checks these numbers as it does those of a resize."""
    from wds_real.image import _resample

    arguments: list[Any] = [(40, 30), (20, 15), (2, 3), (12, 10), 3]
    _resample.needed(*arguments)
    arguments[place] = wrong
    with pytest.raises(ValueError, match=says):
        _resample.needed(*arguments)


# --- Parts of a picture -------------------------------------------------------------------------------------


@with_extension
@given(data=st.data(), width=sides, height=sides, resized=st.tuples(sides, sides))
@settings(max_examples=1000, deadline=None)
def test_what_a_crop_needs_is_enough_and_not_more(
    data: st.DataObject, width: int, height: int, resized: tuple[int, int]
) -> None:
    """With just the needed part of a picture the pixels are Pillow's; without its first or last row or column, none."""
    interpolation = data.draw(st.sampled_from([name for name in INTERPOLATIONS if name != "nearest"]))
    pixels = picture(width, height)
    left, top = (data.draw(st.integers(0, side - 1)) for side in resized)
    right, bottom = data.draw(st.integers(left + 1, resized[0])), data.draw(st.integers(top + 1, resized[1]))
    size = (right - left, bottom - top)
    box = needed((width, height), resized, start=(left, top), size=size, interpolation=interpolation)
    assert box is not None
    expected = pillow(pixels, resized, interpolation)[top:bottom, left:right]

    def of(box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        held = np.ascontiguousarray(pixels[box[1] : box[3], box[0] : box[2]])
        out = np.empty_like(expected)
        resize_crop(
            held, out, resized=resized, left=left, top=top, interpolation=interpolation,
            full=(width, height), at=box[:2],
        )  # fmt: skip
        return out

    assert np.array_equal(of(box), expected)
    for side, step in ((0, 1), (1, 1), (2, -1), (3, -1)):
        from_x, from_y, to_x, to_y = (value + step * (place == side) for place, value in enumerate(box))
        if from_x < to_x and from_y < to_y:
            with pytest.raises(ValueError, match="do not hold all the crop needs"):
                of((from_x, from_y, to_x, to_y))


def test_a_part_is_refused_where_pillow_does_the_work() -> None:
    """Pillow looks at all of the picture, so nothing is said to be needed, and a part is an error."""
    out = np.zeros((5, 5, 3), np.uint8)
    assert needed((40, 40), (20, 20), start=(0, 0), size=(5, 5), interpolation="nearest") is None
    with pytest.raises(ValueError, match="needs all of the picture"):
        resize_crop(
            np.zeros((20, 20, 3), np.uint8), out, resized=(20, 20), left=0, top=0, interpolation="nearest",
            full=(40, 40),
        )  # fmt: skip


@with_extension
@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory the Linux way")
def test_memory_that_is_not_there_is_a_memory_error() -> None:
    """Where the picture between the passes finds no memory, the call fails and the process goes on."""
    code = """
import resource
from pathlib import Path
import numpy as np
from wds_real.image.resample import resize_crop
pixels = np.lib.stride_tricks.as_strided(np.zeros(15000, np.uint8), (9000, 5000, 3), (0, 3, 1))
out = np.zeros((1, 5000, 3), np.uint8)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), resource.RLIM_INFINITY))
try:
    resize_crop(pixels, out, resized=(5001, 1), left=0, top=0, interpolation="bicubic")
except MemoryError:
    raise SystemExit(7)
"""
    rows_first = "import wds_real.image.resample as module; module.columns_first = lambda *_, **__: False"
    assert subprocess.run([sys.executable, "-c", f"{rows_first}\n{code}"], check=False).returncode == 7


def test_without_the_extension() -> None:
    """A package whose extension was not built imports, says so, and gives the same pixels."""
    code = """
import sys
sys.modules["wds_real.image._resample"] = None
import numpy as np
from wds_real.image.resample import HAVE_EXTENSION, resize_crop
out = np.empty((9, 8, 3), np.uint8)
pixels = np.arange(30 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(30, 40, 3)
resize_crop(pixels, out, resized=(20, 15), left=2, top=3, interpolation="bicubic")
assert not HAVE_EXTENSION
sys.stdout.buffer.write(out.tobytes())
"""
    written = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    out = np.empty((9, 8, 3), np.uint8)
    pixels = np.arange(30 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(30, 40, 3)
    resize_crop(pixels, out, resized=(20, 15), left=2, top=3, interpolation="bicubic")
    assert written == out.tobytes()
