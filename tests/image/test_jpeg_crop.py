"""Parts of pictures: the bytes of the whole, or None; and nothing is believed that was not seen."""

from __future__ import annotations

import io
import logging
import random
import subprocess
import sys
import tarfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import simplejpeg
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from wds_real.image import jpeg_crop as jpeg_part
from wds_real.image.jpeg_crop import decode_part, parts_are_exact
from wds_real.image.jpeg_header import jpeg_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

Box = tuple[int, int, int, int]
pytestmark = pytest.mark.skipif(
    not jpeg_part._BUILT, reason="wds_real.image._jpeg was not built: no C compiler, or no headers of libjpeg-turbo?"
)
SUBSAMPLINGS = ("444", "422", "440", "420")


def picture(width: int, height: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Return a picture whose colours change from pixel to pixel, so that no neighbour can stand for another."""
    rng = np.random.default_rng((width, height, seed))
    slope = np.linspace(0, 200, width * height * 3).reshape(height, width, 3)
    return (slope + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def jpeg(width: int, height: int, *, subsampling: str = "420", quality: int = 90, **how: Any) -> bytes:
    """Return a JPEG of `picture`; what simplejpeg cannot write, Pillow does."""
    pixels = picture(width, height)
    if how:
        buffer = io.BytesIO()
        names = {"444": 0, "422": 1, "420": 2}
        mode = how.pop("mode", "RGB")
        Image.fromarray(pixels).convert(mode).save(
            buffer, "JPEG", quality=quality, **({"subsampling": names[subsampling]} if mode == "RGB" else {}), **how
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


def part(data: bytes | memoryview, box: Box) -> NDArray[np.uint8] | None:
    width, height, _ = jpeg_frame(data)
    return decode_part(data, size=(width, height), box=box)


def assert_exact(data: bytes, box: Box) -> None:
    left, top, right, bottom = box
    found = part(data, box)
    assert found is not None
    assert np.array_equal(found, whole(data)[top:bottom, left:right]), box


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int) -> Box:
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))


# --- The bytes of the whole ---------------------------------------------------------------------------------


def test_the_library_of_this_machine_is_believed() -> None:
    """Where it was built it is used: else all would go the slow way, and nobody would notice."""
    assert parts_are_exact()


@pytest.mark.usefixtures("anew")
def test_parts_are_of_no_use_without_the_resize_that_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then Pillow resizes, which needs whole pictures, and what is said of the run is that."""
    monkeypatch.setattr(jpeg_part, "HAVE_EXTENSION", False)
    assert not parts_are_exact()


@given(
    data=st.data(),
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    subsampling=st.sampled_from([*SUBSAMPLINGS, "Gray"]),
    quality=st.sampled_from([10, 75, 90, 100]),
)
@settings(max_examples=1500, deadline=None)
def test_any_part_of_any_picture_has_the_bytes_of_the_whole(
    data: st.DataObject, width: int, height: int, subsampling: str, quality: int
) -> None:
    """Every size, subsampling and quality: what is decoded alone is what decoding everything gives."""
    assert_exact(jpeg(width, height, subsampling=subsampling, quality=quality), data.draw(boxes(width, height)))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_every_first_row_and_column(subsampling: str) -> None:
    """Wherever a part starts within a block, and with each of them as its only one."""
    data = jpeg(70, 66, subsampling=subsampling)
    for start in range(66):
        assert_exact(data, (start, start, 70, 66))
        assert_exact(data, (0, start, 70, start + 1))
        assert_exact(data, (start, 0, start + 1, 66))


@given(data=st.data(), interval=st.integers(1, 30), optimize=st.booleans(), subsampling=st.sampled_from(["444", "420"]))
@settings(max_examples=200, deadline=None)
def test_restart_markers_and_tables_of_their_own(
    data: st.DataObject, interval: int, optimize: bool, subsampling: str
) -> None:
    """Files with restart markers anywhere and optimised Huffman tables are exact, too."""
    encoded = jpeg(90, 70, subsampling=subsampling, restart_marker_blocks=interval, optimize=optimize)
    assert_exact(encoded, data.draw(boxes(90, 70)))


def tar_images(path: Path) -> Iterator[bytes]:
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            yield file.read()


@pytest.mark.parametrize("name", ["photos-300.tar", "val-650.tar"])
def test_real_pictures(real_data: Callable[[str], Path], name: str) -> None:
    """Three random parts of every real picture are exact; nearly all pictures are of the kind that is done here."""
    draws, refused, count = random.Random(0), 0, 0  # noqa: S311 -- made-up parts
    for data in tar_images(real_data(name)):
        width, height, components = jpeg_frame(data)
        expected = whole(data) if components == 3 else None
        for _ in range(3):
            left, top = draws.randrange(width), draws.randrange(height)
            right, bottom = draws.randint(left + 1, width), draws.randint(top + 1, height)
            found = part(data, (left, top, right, bottom))
            count += 1
            refused += found is None
            if found is not None and expected is not None:
                assert np.array_equal(found, expected[top:bottom, left:right])
    assert count
    assert refused <= count // 20


def test_threads_do_not_disturb_each_other() -> None:
    """Sixteen threads decode different parts of different pictures at once."""
    pictures = [jpeg(100 + place, 90 - place, subsampling=SUBSAMPLINGS[place % 4]) for place in range(16)]

    def decode(place: int) -> bool:
        data = pictures[place % 16]
        width, height, _ = jpeg_frame(data)
        box = (place % 50, place % 40, width - place % 7, height - place % 5)
        found = part(data, box)
        return found is not None and np.array_equal(found, whole(data)[box[1] : box[3], box[0] : box[2]])

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(decode, range(400)))


# --- What is left to another decoder ------------------------------------------------------------------------


class Refused(NamedTuple):
    """A file of 64 x 48 pixels that another decoder has to look at."""

    why: str
    data: bytes


GOOD = jpeg(64, 48)
REFUSED = [
    Refused("progressive", jpeg(64, 48, progressive=True)),
    Refused("CMYK", jpeg(64, 48, mode="CMYK")),
    Refused("4:1:1", jpeg(64, 48, subsampling="411")),
    Refused("cut", GOOD[:-20]),
    Refused("cut, with an end", GOOD[: len(GOOD) // 3] + b"\xff\xd9"),
    Refused("no picture's data", GOOD[: GOOD.index(b"\xff\xda")] + b"\xff\xd9"),
    Refused("a marker within", GOOD[: len(GOOD) // 3] + b"\xff\xd0" + GOOD[len(GOOD) // 3 :]),
    Refused("no tables", GOOD[:2] + GOOD[GOOD.index(b"\xff\xc0") :]),
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.why)
def test_what_is_not_usual_or_not_whole_is_left_to_another_decoder(refused: Refused) -> None:
    """None, no error and no pixels; nothing is said on standard error either."""
    assert part(refused.data, (8, 8, 64, 48)) is None


def test_nothing_is_written_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """The library would print its warnings and errors."""
    for refused in REFUSED:
        part(refused.data, (8, 8, 64, 48))
    assert capfd.readouterr() == ("", "")


def test_a_frame_of_another_size_is_left_to_another_decoder() -> None:
    """The size is looked at again where the pixels are made: a second frame header cannot make the box too large."""
    assert decode_part(GOOD, size=(64, 48), box=(0, 0, 64, 48)) is not None
    assert decode_part(GOOD, size=(65, 48), box=(0, 0, 65, 48)) is None
    assert decode_part(GOOD, size=(640, 480), box=(100, 100, 640, 480)) is None


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
    """Bytes changed anywhere, below the part too: where Pillow fails another decoder is asked, else pixels are its."""
    data = bytearray(jpeg(64, 48, subsampling=subsampling))
    for place, value in changes:
        data[int(place * (len(data) - 2))] = value
    found = decode_part(bytes(data), size=(64, 48), box=box)
    if found is None:
        return
    left, top, right, bottom = box
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(found, np.asarray(image)[top:bottom, left:right])


@pytest.mark.parametrize("num_bytes", [1, 3, 20, len(GOOD) // 4, len(GOOD) // 2])
def test_a_cut_below_the_part_is_noticed(num_bytes: int) -> None:
    """Also where all the rows that are kept are there."""
    assert part(GOOD, (0, 0, 64, 1)) is not None
    assert part(GOOD[:-num_bytes], (0, 0, 64, 1)) is None


def test_what_follows_the_picture_is_no_damage() -> None:
    """Cameras append things; no decoder looks at them."""
    assert_exact(GOOD + b"\0 and more", (5, 5, 64, 48))


# --- Where it does not work ---------------------------------------------------------------------------------


@pytest.fixture
def anew() -> Iterator[None]:
    """Let the library be tried again, before and after the test."""
    parts_are_exact.cache_clear()
    yield
    parts_are_exact.cache_clear()


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("subsampling", [*SUBSAMPLINGS, "Gray"])
def test_a_library_with_other_bytes_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, subsampling: str
) -> None:
    """One byte of one part of one subsampling is enough; a line says so, once."""
    real, encode = jpeg_part.decode_part, simplejpeg.encode_jpeg
    current = ""

    def encoding(*arguments: Any, colorsubsampling: str, **more: Any) -> bytes:
        nonlocal current
        current = colorsubsampling
        data: bytes = encode(*arguments, colorsubsampling=colorsubsampling, **more)
        return data

    def decoding(data: bytes, *, size: tuple[int, int], box: Box) -> NDArray[np.uint8] | None:
        pixels = real(data, size=size, box=box)
        if current == subsampling and box[:2] == (23, 15) and pixels is not None:
            pixels[-1, -1, -1] ^= 1
        return pixels

    monkeypatch.setattr(simplejpeg, "encode_jpeg", encoding)
    monkeypatch.setattr(jpeg_part, "decode_part", decoding)
    with caplog.at_level(logging.WARNING):
        assert not parts_are_exact()
        assert not parts_are_exact()
    assert [record.getMessage() for record in caplog.records] == [
        "the libjpeg-turbo of this machine decodes parts of pictures inexactly: they are decoded whole"
    ]


@pytest.mark.usefixtures("anew")
def test_a_library_that_refuses_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another kind, whose structures are laid out otherwise, fails at each picture."""
    monkeypatch.setattr(jpeg_part, "decode_part", lambda *_, **__: None)
    assert not parts_are_exact()


def test_without_the_extension() -> None:
    """A package without it imports, decodes whole pictures, and gives the same pixels."""
    code = """
import sys
sys.modules["wds_real.image._jpeg"] = None
import numpy as np
from wds_real.image.decode import EvalTransform
from wds_real.image.jpeg_crop import parts_are_exact
out = np.empty((20, 20, 3), np.uint8)
EvalTransform(20).decode_into(sys.stdin.buffer.read(), out)
assert not parts_are_exact()
sys.stdout.buffer.write(out.tobytes())
"""
    from wds_real.image.decode import EvalTransform

    written = subprocess.run([sys.executable, "-c", code], input=GOOD, check=True, capture_output=True).stdout
    out = np.empty((20, 20, 3), np.uint8)
    EvalTransform(20).decode_into(GOOD, out)
    assert written == out.tobytes()


# --- The extension checks for itself ------------------------------------------------------------------------


READ_ONLY = np.zeros((8, 50, 3), np.uint8)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("place", "wrong", "error", "says"),
    [
        (0, "text", TypeError, "bytes-like"),
        (1, READ_ONLY, ValueError, "read-only"),
        (1, np.zeros((8, 50), np.uint8), ValueError, "pixels are not uint8"),
        (1, np.zeros((8, 50, 4), np.uint8), ValueError, "pixels are not uint8"),
        (1, np.zeros((8, 50, 3), np.uint16), ValueError, "pixels are not uint8"),
        (1, np.zeros((8, 50, 3), np.uint8)[:, ::-1], ValueError, "pixels are not uint8"),
        (1, np.zeros((8, 50, 3), np.uint8)[::-1], ValueError, "pixels are not uint8"),
        (1, np.broadcast_to(np.zeros((1, 50, 3), np.uint8), (8, 50, 3)).copy()[:0], ValueError, "a part of"),
        (1, np.zeros((8, 0, 3), np.uint8), ValueError, "a part of -"),
        (2, 19, ValueError, "is not within a picture of 19 x 48"),
        (3, 10, ValueError, "is not within a picture of 64 x 10"),
        (4, -1, ValueError, r"from \(-1, 3\) on"),
        (4, 47, ValueError, r"a part of 18 x 8 from \(47, 3\) on is not within"),
        (5, -1, ValueError, r"from \(2, -1\) on"),
        (5, 41, ValueError, r"from \(2, 41\) on"),
        (5, (1 << 31) - 1, ValueError, "is not within"),
        (5, 1 << 40, OverflowError, "int"),
    ],
)
def test_the_extension_checks_for_itself(place: int, wrong: object, error: type[Exception], says: str) -> None:
    """It writes within the array only, whoever calls it."""
    from wds_real.image import _jpeg

    arguments: list[Any] = [GOOD, np.zeros((8, 18 + _jpeg.SLACK, 3), np.uint8), 64, 48, 2, 3]
    assert _jpeg.decode_part(*arguments) >= 0
    arguments[place] = wrong
    with pytest.raises(error, match=says):
        _jpeg.decode_part(*arguments)


def test_room_for_slack_alone_is_no_part() -> None:
    """An array must be wider than what is decoded beside a part."""
    from wds_real.image import _jpeg

    with pytest.raises(ValueError, match="a part of 0 x 8"):
        _jpeg.decode_part(GOOD, np.zeros((8, _jpeg.SLACK, 3), np.uint8), 64, 48, 2, 3)
    assert _jpeg.decode_part(GOOD, np.zeros((8, _jpeg.SLACK + 1, 3), np.uint8), 64, 48, 2, 3) == 0


@given(box=boxes(64, 48), subsampling=st.sampled_from(SUBSAMPLINGS))
@settings(max_examples=300, deadline=None)
def test_nothing_else_is_touched(box: Box, subsampling: str) -> None:
    """Rows of an array within a larger one are filled, and what lies around them stays."""
    from wds_real.image import _jpeg

    left, top, right, bottom = box
    width = right - left + _jpeg.SLACK
    canvas = np.full((bottom - top + 2, width + 2, 3), 93, np.uint8)
    inner = canvas[1:-1, 1:-1]
    start = _jpeg.decode_part(jpeg(64, 48, subsampling=subsampling), inner, 64, 48, left, top)
    assert 0 <= start <= left
    inner[:] = 93
    assert (canvas == 93).all()
