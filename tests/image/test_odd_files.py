"""About 60 odd files against Pillow: the same pixels, whole and transformed, or an error where Pillow has one."""

from __future__ import annotations

import functools
import io
import shutil
import subprocess
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from support.images import jpeg, pillow_pixels, textured

from wds_real.image.decode import DecodeError, decode
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE = textured(201, 133)
PLAIN = jpeg(IMAGE, quality=85)
TABLES = PLAIN.index(b"\xff\xdb")


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save(file, form, **options)
    return file.getvalue()


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x112] = value
    return saved(IMAGE, "JPEG", exif=exif)


def tool(*command: str, ppm: bool = True) -> bytes:
    """Return what cjpeg or jpegtran writes."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is missing: apt-get install libjpeg-turbo-progs")
    given = saved(IMAGE, "PPM") if ppm else PLAIN
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


MADE: dict[str, Callable[[], bytes]] = {
    "plain": lambda: PLAIN,
    "MPO": lambda: saved(IMAGE, "MPO", save_all=True, append_images=[IMAGE.transpose(Image.Transpose.ROTATE_180)]),
    "CMYK, progressive": lambda: saved(IMAGE.convert("CMYK"), "JPEG", progressive=True),
    "PNG": lambda: saved(IMAGE, "PNG"),
    "GIF": lambda: saved(IMAGE, "GIF"),
    "WebP": lambda: saved(IMAGE, "WEBP"),
    "bytes after it": lambda: PLAIN + b"extra bytes" * 100,
    "a JPEG after it": lambda: PLAIN + PLAIN,
    "no end marker": lambda: PLAIN[:-2],
    "last 100 bytes missing": lambda: PLAIN[:-100],
    "half": lambda: PLAIN[: len(PLAIN) // 2],
    "half, with an end marker": lambda: PLAIN[: len(PLAIN) // 2] + b"\xff\xd9",
    "zeros at the end": lambda: PLAIN[:-200] + bytes(200),
    "zeros in the middle": lambda: PLAIN[: len(PLAIN) // 2] + bytes(500) + PLAIN[len(PLAIN) // 2 + 500 :],
    "fill bytes": lambda: PLAIN[:2] + b"\xff" * 50 + PLAIN[2:],
    "bytes between the segments": lambda: PLAIN[:TABLES] + b"\0\1\2\3" + PLAIN[TABLES:],
    "ff 00 between the segments": lambda: PLAIN[:TABLES] + b"\xff\0" + PLAIN[TABLES:],
    "a line end before it": lambda: b"\n" + PLAIN,
    **{f"orientation {value}": functools.partial(with_orientation, value) for value in range(1, 9)},
    "damaged EXIF": lambda: saved(IMAGE, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "large colour profile": lambda: saved(IMAGE, "JPEG", icc_profile=b"not a profile" * 9000),
    "PNG, 16 bits": lambda: saved(Image.fromarray(np.asarray(IMAGE.convert("L")).astype(np.uint16) * 257), "PNG"),
    "PNG, palette with transparency": lambda: saved(IMAGE.convert("P"), "PNG", transparency=bytes(range(256))),
    "PNG, RGBA": lambda: saved(IMAGE.convert("RGBA"), "PNG"),
    "PNG, LA": lambda: saved(IMAGE.convert("LA"), "PNG"),
    "PNG, 1 bit": lambda: saved(IMAGE.convert("1"), "PNG"),
    "TIFF, floats": lambda: saved(Image.fromarray(np.asarray(IMAGE.convert("L")).astype(np.float32)), "TIFF"),
    "TIFF, CMYK": lambda: saved(IMAGE.convert("CMYK"), "TIFF"),
    "GIF, animated": lambda: saved(IMAGE, "GIF", save_all=True, append_images=[IMAGE.rotate(180)]),
    **{
        f"{width} x {height}": functools.partial(lambda size: saved(IMAGE.resize(size), "JPEG"), (width, height))
        for width, height in ((1, 1), (1, 500), (500, 1), (65_500, 2))
    },
    "progressive": lambda: tool("jpegtran", "-progressive", ppm=False),
    **{
        f"sampling {factors}": functools.partial(tool, "cjpeg", "-quality", "85", "-sample", factors)
        for factors in ("4x1", "1x2", "2x2,1x2,2x1", "1x1,2x2,2x2", "4x2", "1x4", "3x1", "2x2,2x1,1x1")
    },
    "RGB": lambda: tool("cjpeg", "-rgb"),
    "grayscale": lambda: tool("cjpeg", "-grayscale"),
    "restart markers": lambda: tool("cjpeg", "-restart", "1"),
    "made with floats": lambda: tool("cjpeg", "-dct", "float"),
    "smoothed": lambda: tool("cjpeg", "-smooth", "50"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about palettes
@pytest.mark.parametrize("name", MADE)
def test_pixels_are_pillows_or_both_refuse(name: str) -> None:
    """Whole and transformed pixels equal Pillow's; what Pillow cannot decode is a DecodeError."""
    data, transform, out = MADE[name](), EvalTransform(64), np.zeros((64, 64, 3), np.uint8)
    try:
        expected = pillow_pixels(data)
    except OSError:
        with pytest.raises(DecodeError):
            decode(data)
        with pytest.raises(DecodeError):
            transform.decode_into(data, out)
        return
    assert np.array_equal(decode(data).pixels, expected)
    transform.decode_into(data, out)
    assert np.array_equal(out, np.asarray(transform(Image.fromarray(expected))))


def test_separate_scans(tmp_path: Path) -> None:
    """A sequential JPEG with one scan for each component has Pillow's pixels."""
    (tmp_path / "scans.txt").write_text("0;\n1;\n2;\n", "ascii")
    data = tool("cjpeg", "-scans", str(tmp_path / "scans.txt"))
    assert np.array_equal(decode(data).pixels, pillow_pixels(data))


@pytest.mark.parametrize("options", [(), ("-progressive",)])
def test_arithmetic_coding_is_decoded_or_refused(options: tuple[str, ...]) -> None:
    """An arithmetic-coded JPEG has the pixels of the Huffman-coded one, or is a DecodeError, as the libraries allow."""
    data = tool("jpegtran", "-arithmetic", *options, ppm=False)
    try:
        pixels = decode(data).pixels
    except DecodeError:
        return
    assert np.array_equal(pixels, pillow_pixels(PLAIN))
