"""What libjpeg-turbo warns about: damage that leaves pixels is found in each way to decode; intact files are not."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import simplejpeg
from support.images import jpeg, pillow_pixels, tar_images, textured

from wds_real.image import jpeg_warnings, transform
from wds_real.image.decode import DecodeError, decode
from wds_real.image.jpeg_warnings import HAVE_EXTENSION, jpeg_warning
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAIN = jpeg(textured(200, 160), quality=90)
TABLES = PLAIN.index(b"\xff\xdb")
START = PLAIN.rindex(b"\xff\xda") + 14


def zeroed(start: int, count: int) -> bytes:
    return PLAIN[:start] + bytes(count) + PLAIN[start + count :]


class Damaged(NamedTuple):
    """A file that gives pixels, though it is damaged."""

    data: bytes
    says: str


DAMAGED = {
    "half, with an end marker": Damaged(PLAIN[: len(PLAIN) // 2] + b"\xff\xd9", "premature end of data segment"),
    "zeros in the middle": Damaged(zeroed(len(PLAIN) // 2, 1000), "extraneous bytes|premature end"),
    "zeros at the start": Damaged(zeroed(START + 10, 500), "extraneous bytes|premature end"),
    "a part is missing": Damaged(PLAIN[: START + 900] + PLAIN[START + 1400 :], "extraneous bytes|premature end"),
    "bytes before the end marker": Damaged(
        PLAIN[:-2] + bytes(range(1, 7)) + PLAIN[-2:], "3 extraneous bytes before marker 0xd9"
    ),
    "bytes between the segments": Damaged(PLAIN[:TABLES] + b"\1\2" + PLAIN[TABLES:], "2 extraneous bytes"),
}
INTACT = {
    "plain": PLAIN,
    "progressive": jpeg(textured(90, 70), progressive=True),
    "grayscale": jpeg(textured(90, 70, "L")),
    "CMYK": jpeg(textured(90, 70, "CMYK")),
    "restart markers": jpeg(textured(90, 70), restart_marker_blocks=3),
    "bytes after the end marker": PLAIN + b"more",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_warned_about(name: str) -> None:
    """Damage gives a warning and Pillow's pixels, whole and transformed."""
    data, says = DAMAGED[name]
    decoded = decode(data)
    assert np.array_equal(decoded.pixels, pillow_pixels(data))
    assert decoded.warning is not None
    out = np.empty((64, 64, 3), np.uint8)
    assert EvalTransform(64).decode_into(data, out, check_file=True) is not None
    if HAVE_EXTENSION:
        assert re.search(says, decoded.warning)


@pytest.mark.parametrize("name", INTACT)
def test_intact_files_give_no_warning(name: str) -> None:
    """Every kind of intact file is read to its end without a warning."""
    out = np.empty((64, 64, 3), np.uint8)
    assert jpeg_warning(INTACT[name]) is None
    assert decode(INTACT[name]).warning is None
    assert EvalTransform(64).decode_into(INTACT[name], out, check_file=True) is None


@pytest.mark.parametrize("name", ["photos-300.tar", "val-650.tar"])
def test_real_images_give_no_warning(name: str, real_data: Callable[[str], Path]) -> None:
    """None of 950 real images gives a warning: they are rare enough to be listed by name."""
    assert [file_name for file_name, data in tar_images(real_data(name)) if jpeg_warning(data) is not None] == []


@pytest.mark.skipif(not HAVE_EXTENSION, reason="wds_real.image._jpeg was not built")
def test_all_ways_to_decode_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 300 files with random damage: the extension, simplejpeg and the transform warn about the same ones."""
    draws, out = random.Random(0), np.empty((64, 64, 3), np.uint8)  # noqa: S311 -- test data
    warned = 0
    for _ in range(300):
        start = draws.randrange(START, len(PLAIN) - 200)
        data = PLAIN[:start] + draws.choice((bytes(64), b"\x55" * 64, PLAIN[START : START + 64])) + PLAIN[start + 64 :]
        try:
            simplejpeg.decode_jpeg(data, "RGB")
            expected = False
        except ValueError:
            expected = True
        warned += expected
        assert (jpeg_warning(data) is not None) == expected
        try:
            assert (EvalTransform(64).decode_into(data, out, check_file=True) is not None) == expected
        except DecodeError:
            assert expected
    assert warned > 200
    monkeypatch.setattr(transform, "can_decode_crops", lambda: False)
    monkeypatch.setattr(jpeg_warnings, "HAVE_EXTENSION", False)
    for damaged in DAMAGED.values():
        assert EvalTransform(64).decode_into(damaged.data, out) is not None
        assert jpeg_warning(damaged.data) is not None
    for data in INTACT.values():
        assert EvalTransform(64).decode_into(data, out) is None
        assert jpeg_warning(data) is None


@pytest.mark.skipif(not HAVE_EXTENSION, reason="wds_real.image._jpeg was not built")
def test_warnings_are_counted() -> None:
    """The text has the first warning, and how many there are."""
    data = jpeg(textured(200, 160), restart_marker_blocks=2)
    for marker in (b"\xff\xd1", b"\xff\xd5"):
        at = data.index(marker)
        data = data[: at - 6] + data[at:]
    warning = jpeg_warning(data)
    assert warning is not None
    assert "(the first of " in warning


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", PLAIN[:100], PLAIN[:START], b"\x89PNG"])
def test_files_that_cannot_be_read_give_the_reason(data: bytes) -> None:
    """What is not a JPEG, or ends in its header, gives a text and no exception."""
    assert isinstance(jpeg_warning(data), str)


def test_beyond_the_bounds_nothing_is_read() -> None:
    """A header of 13,000 x 13,000 pixels is the reason; no memory is allocated for its coefficients."""
    data = bytearray(PLAIN)
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\x32\xc8\x32\xc8"
    assert "13000 x 13000" in str(jpeg_warning(bytes(data)))
