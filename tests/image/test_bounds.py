"""What decoding one image may cost: files beyond the bounds are refused by their headers, whichever decoder is used."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from support.images import jpeg, textured

from wds_real.image import bounds, resample
from wds_real.image.bounds import DecodeError, check_jpeg, check_resized, check_size
from wds_real.image.decode import decode, decode_image
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).resolve().parent.parent
MOST_BYTES = 100_000_000  # resident memory that refusing or decoding any of these files may add


def with_size(width: int, height: int, *, marker: bytes = b"\xff\xc0", progressive: bool = False) -> bytes:
    """Return a small JPEG whose frame header says another size."""
    data = bytearray(jpeg(textured(40, 30), progressive=progressive))
    frame = data.index(marker)
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def with_scans(count: int, *, side: int = 64) -> bytes:
    """Return a progressive JPEG whose last scan is repeated, so that it has at least `count` scans."""
    data = jpeg(textured(side, side, "L"), progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:last] + data[last:end] * count + data[end:]


def with_segments(segment: bytes, count: int) -> bytes:
    data = jpeg(textured(40, 30))
    return data[:2] + segment * count + data[2:]


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with more chunks before its image data, which are one row."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = (b"IDAT", zlib.compress(bytes(1 + 3 * width)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in (header, *chunks, rows, (b"IEND", b"")))


def saved(image: Image.Image, form: str, at: int, size: bytes) -> bytes:
    """Return the image in a format, with other bytes where its header has the size."""
    file = io.BytesIO()
    image.save(file, form)
    data = bytearray(file.getvalue())
    data[at : at + len(size)] = size
    return bytes(data)


def tiff_with_tiles(side: int) -> bytes:
    """Return a TIFF of 16 x 16 pixels that says it has one tile of side x side."""
    tags = [
        *((256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)),
        *((322, 4, side), (323, 4, side), (324, 4, 200), (325, 4, 20)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)).ljust(200, b"\0") + bytes(20)


SMALL = textured(16, 16)
BOMB = zlib.compress(bytes(20 << 20), 9)
EXIF = b"\xff\xe1" + struct.pack(">H", 65_533) + b"Exif\0\0MM\0*" + bytes(65_521)
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG of 13,000 x 13,000": (lambda: with_size(13_000, 13_000), "13000 x 13000 pixels"),
    "progressive JPEG of that size": (
        lambda: with_size(13_000, 13_000, marker=b"\xff\xc2", progressive=True),
        "13000 x 13000 pixels",
    ),
    "JPEG just beyond": (lambda: with_size(8192, 8193), "8192 x 8193 pixels, expected at most 67,108,864"),
    "that size, and bytes between the segments": (
        lambda: (data := with_size(13_000, 13_000))[:20] + b"\0\1\2" + data[20:],
        "13000 x 13000 pixels",
    ),
    "10,000 scans": (lambda: with_scans(10_000), "more than 100 scans"),
    "101 scans": (lambda: with_scans(96), "more than 100 scans"),
    "10,000 scans, and bytes between the segments": (
        lambda: (data := with_scans(10_000))[:20] + b"\0\1\2" + data[20:],
        "more than 100 scans",
    ),
    "20 MB of EXIF": (lambda: with_segments(EXIF, 320), "bytes are before its image data"),
    "500,000 comments": (lambda: with_segments(b"\xff\xfe\0\2", 500_000), "more than 10,000 segments"),
    "PNG of 13,000 x 13,000": (lambda: png(13_000, 13_000), "13000 x 13000 pixels"),
    "PNG of 60,000 x 60,000": (lambda: png(60_000, 60_000), "cannot be decoded"),
    "PNG with a bomb in its text": (lambda: png(16, 16, (b"zTXt", b"k\0\0" + BOMB)), "too large"),
    "PNG with a bomb in its colour profile": (lambda: png(16, 16, (b"iCCP", b"p\0\0" + BOMB)), "too large"),
    "GIF of 65,535 x 65,535": (lambda: saved(SMALL, "GIF", 6, b"\xff\xff\xff\xff"), "cannot be decoded"),
    "BMP of 30,000 x 30,000": (lambda: saved(SMALL, "BMP", 18, struct.pack("<ii", 30_000, 30_000)), "cannot be decod"),
    "TIFF with a tile of 60,000 x 60,000": (lambda: tiff_with_tiles(60_000), "60000 x 60000 pixels"),
}

RUN = """
import re, sys
from pathlib import Path
import numpy as np
from wds_real.image.decode import DecodeError, decode, decode_image
from wds_real.image.transform import EvalTransform
from support.images import jpeg, textured
data, out = sys.stdin.buffer.read(), np.empty((32, 32, 3), np.uint8)
good = jpeg(textured(40, 30), progressive=True)
for decode_it in (decode, decode_image, lambda data: EvalTransform(32).decode_into(data, out)):
    decode_it(good)
def peak():
    status = Path("/proc/self/status")  # ru_maxrss would include the memory of the process that started this one
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) if status.exists() else 0
before = peak()
for decode_it in (decode, decode_image, lambda data: EvalTransform(32).decode_into(data, out)):
    try:
        decode_it(data)
    except DecodeError as error:
        print(error)
print(peak() - before)
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_files_beyond_the_bounds_are_refused(name: str) -> None:
    """Every way to decode refuses the file in one line, and allocates no memory for its pixels."""
    make, says = HOSTILE[name]
    command = [sys.executable, "-W", "ignore", "-c", RUN]
    ended = subprocess.run(command, input=make(), capture_output=True, check=True, cwd=TESTS, timeout=60)
    *errors, num_bytes = ended.stdout.decode().splitlines()
    assert len(errors) == 3
    assert all(says in error.lower() for error in errors), errors
    assert int(num_bytes) < MOST_BYTES, f"{num_bytes} bytes"
    print(f"{name}: {int(num_bytes):,} bytes", end=" ")  # noqa: T201 -- for the report


def test_images_within_the_bounds_are_decoded() -> None:
    """A hundred scans, a long comment and a narrow image are no reason to refuse."""
    for data in (
        with_scans(80),
        with_segments(b"\xff\xfe\0\2", 1000),
        jpeg(textured(1, 5000)),
        jpeg(textured(5000, 1)),
    ):
        assert decode(data).pixels.shape[2] == 3
        EvalTransform(32).decode_into(data, np.empty((32, 32, 3), np.uint8))


def test_the_bound_on_scans_shrinks_with_the_size() -> None:
    """Each scan goes through all pixels, so the bound is on scans times pixels."""
    data = with_scans(30)
    check_jpeg(data, size=(1000, 1000))
    with pytest.raises(DecodeError, match="more than 16 scans"):
        check_jpeg(data, size=(8192, 8192))


def test_check_size() -> None:
    """Exactly as many pixels as the bound are allowed."""
    check_size(bounds.MAX_PIXELS, 1)
    with pytest.raises(DecodeError, match="pixels"):
        check_size(bounds.MAX_PIXELS + 1, 1)


def test_an_image_too_narrow_to_be_resized_is_a_decode_error() -> None:
    """A column of 65,500 pixels would be resized to 33 million: this is said of the image, not of the transform."""
    data = jpeg(Image.new("RGB", (1, 65_500)))
    EvalTransform(224).decode_into(data, np.empty((224, 224, 3), np.uint8))
    with pytest.raises(DecodeError, match="512 x 33536000 pixels"):
        EvalTransform(448).decode_into(data, np.empty((448, 448, 3), np.uint8))
    check_resized(bounds.MAX_RESIZED_SIDE, 1)


def test_pillow_resizes_no_narrow_image_to_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Pillow resizes, it resizes whole images: one of 256 x 16 million pixels is refused."""
    monkeypatch.setattr(resample, "HAVE_EXTENSION", False)
    data = jpeg(Image.new("RGB", (1, 65_500)))
    with pytest.raises(DecodeError, match="cannot be resized"):
        EvalTransform(224).decode_into(data, np.empty((224, 224, 3), np.uint8))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n%%EOF\n"
OPEN = """
import io, sys
from PIL import Image
from wds_real.image.decode import DecodeError, decode, decode_image
data = sys.stdin.buffer.read()
if sys.argv[1] == "pillow":
    try:
        Image.open(io.BytesIO(data)).load()
    except OSError:
        pass
for decode_it in (decode_image, decode):
    try:
        decode_it(data)
    except DecodeError as error:
        print(error)
"""


def test_no_format_that_starts_a_program_is_opened(tmp_path: Path) -> None:
    """An EPS under the name of a JPEG is refused, and Ghostscript is not started; Pillow alone would start it."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho started >> {tmp_path}/started\n", "ascii")
    (tmp_path / "gs").chmod(0o755)
    for who in ("package", "pillow"):
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", OPEN, who],
            input=EPS,
            capture_output=True,
            check=True,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        )
        assert (
            ended.stdout.decode().splitlines()
            == ["cannot be decoded: not a JPEG, PNG, WebP, GIF, BMP or TIFF image"] * 2
        )
        assert (tmp_path / "started").exists() == (who == "pillow")


def test_every_call_of_pillow_names_the_formats() -> None:
    """No module of the package and no script lets Pillow choose among all of its formats."""
    files = [path for folder in ("wds_real", "scripts") for path in (TESTS.parent / folder).rglob("*.py")]
    calls = [
        line for path in files for line in path.read_text("utf-8").splitlines() if re.search(r"Image\.open\(", line)
    ]
    calls = [line for line in calls if '"""' not in line]
    assert calls
    assert all("formats=" in line for line in calls), calls


@pytest.mark.parametrize("form", ["PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "ICNS", "PDF"])
def test_formats_that_are_not_listed_are_refused(form: str) -> None:
    """Pillow reads these, this package does not."""
    file = io.BytesIO()
    textured(64, 64).save(file, form)
    with pytest.raises(DecodeError, match="not a JPEG, PNG"):
        decode_image(file.getvalue())


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO"])
def test_formats_that_are_listed_are_decoded(form: str) -> None:
    """Copies of data sets hold some images in these formats, under the names of JPEGs."""
    file = io.BytesIO()
    textured(64, 48).save(file, form)
    reference = Image.open(io.BytesIO(file.getvalue())).convert("RGB")
    assert np.array_equal(decode(file.getvalue()).pixels, np.asarray(reference))
