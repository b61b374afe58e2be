"""Pixels: bit for bit those of Pillow, torchvision and timm, or a DecodeError."""

from __future__ import annotations

import io
import itertools
import math
import struct
import tarfile
import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from wds_real.image.decode import DecodeError, EvalTransform, decode_image, decode_rgb
from wds_real.image.jpeg_crop import parts_are_exact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

CropMode = Literal["center", "squash", "border"]
MODES: tuple[CropMode, ...] = ("center", "squash", "border")
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "nearest", "box", "hamming")
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


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return a picture with smooth parts, edges and noise."""
    rng = np.random.default_rng(width * 1009 + height)
    smooth = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(np.asarray(smooth) // 4 * 3 + noise).convert(mode)


def jpeg(image: Image.Image, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **how)
    return buffer.getvalue()


def pillow_pixels(data: bytes) -> NDArray[np.uint8]:
    """Return what Pillow gives, without its remarks on damaged metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decoded(transform: EvalTransform, data: bytes) -> NDArray[np.uint8]:
    out = np.full((*transform.size, 3), 77, dtype=np.uint8)
    transform.decode_into(data, out)
    return out


def reference(image: Image.Image, transform: EvalTransform) -> NDArray[np.uint8]:
    """Transform as torchvision's Resize and CenterCrop and timm's ResizeKeepRatio and CenterCropOrPad are documented.

    Resize(int): the shorter side becomes size, the longer ``int(size * long / short)``. ResizeKeepRatio: both sides are
    divided by the smaller (border: the larger) of the two ratios and rounded. Cropping: what is too small is padded,
    the odd pixel right and below; then the start is ``int(round((size - crop) / 2.0))``.
    """
    image = image.convert("RGB")
    width, height = image.size
    out_height, out_width = transform.size
    to_height, to_width = (math.floor(side / transform.crop_pct) for side in (out_height, out_width))
    fill: tuple[int, ...] = (0, 0, 0)
    if transform.crop_mode == "squash":
        to = (to_width, to_height)
    elif transform.crop_mode == "border":
        longest = max(height / to_height, width / to_width)
        to = (round(width / longest), round(height / longest))
        fill = tuple(round(255 * value) for value in transform.mean)
    elif to_height == to_width:
        short, long = sorted((width, height))
        long_to = int(to_height * long / short)
        to = (to_height, long_to) if width <= height else (long_to, to_height)
    else:
        shortest = min(height / to_height, width / to_width)
        to = (round(width / shortest), round(height / shortest))
    image = image.resize(to, getattr(Image.Resampling, transform.interpolation.upper()))
    lack_x, lack_y = max(out_width - to[0], 0), max(out_height - to[1], 0)
    border = (lack_x // 2, lack_y // 2, (lack_x + 1) // 2, (lack_y + 1) // 2)
    image = ImageOps.expand(image, border, fill=fill)
    left, top = (round((have - keep) / 2.0) for have, keep in zip(image.size, (out_width, out_height), strict=True))
    return np.asarray(image.crop((left, top, left + out_width, top + out_height)))


def tar_images(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            yield member.name, file.read()


@pytest.fixture(params=["part", "whole"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode the part that a crop needs, where that can be done, or whole pictures."""
    exact = request.param == "part" and parts_are_exact()
    monkeypatch.setattr("wds_real.image.decode.parts_are_exact", lambda: exact)


transforms = st.builds(
    EvalTransform,
    img_size=st.one_of(st.integers(1, 64), st.tuples(st.integers(1, 64), st.integers(1, 64))),
    crop_pct=st.one_of(st.sampled_from([0.875, 0.9, 0.95, 1.0]), st.floats(0.3, 1.0)),
    crop_mode=st.sampled_from(MODES),
    interpolation=st.sampled_from(INTERPOLATIONS),
)


@given(width=st.integers(1, 200), height=st.integers(1, 200), transform=transforms)
@example(width=1, height=200, transform=EvalTransform(64, 1.0))
@example(width=2, height=3, transform=EvalTransform((17, 40), 0.7, "border"))
@example(width=75, height=50, transform=EvalTransform((33, 34), 0.95, "center"))
@settings(max_examples=300, deadline=None)
def test_pixels_equal_the_reference(width: int, height: int, transform: EvalTransform) -> None:
    """For every image size, crop mode, interpolation, output size and crop_pct, pixels equal the documented rules'."""
    longest = max(height / transform.size[0], width / transform.size[1]) * transform.crop_pct
    assume(min(width, height) / longest > 1)  # timm makes a side of no pixels of such an image, and fails
    image = picture(width, height)
    data = jpeg(image)
    expected = reference(Image.open(io.BytesIO(data)), transform)
    assert np.array_equal(decoded(transform, data), expected)
    assert np.array_equal(np.asarray(transform(Image.open(io.BytesIO(data)))), expected)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_kind_of_jpeg_decodes_as_with_pillow(mode: str, encoding: str) -> None:
    """Colour, grayscale and CMYK files of any sampling, quality and size give Pillow's pixels, to the last bit."""
    for size in SIZES:
        data = jpeg(picture(*size, mode), **ENCODINGS[encoding])
        assert np.array_equal(decode_rgb(data), pillow_pixels(data)), size
        assert np.array_equal(np.asarray(decode_image(data)), pillow_pixels(data)), size


def test_ycck_and_adobe_rgb_decode_as_with_pillow() -> None:
    """The two rarer colour spaces, told by the Adobe marker alone, give Pillow's pixels."""
    rgb = jpeg(picture(50, 31), keep_rgb=True)
    cmyk = jpeg(picture(50, 31, "CMYK"))
    ycck = cmyk.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")
    assert ycck != cmyk
    for data in (rgb, ycck):
        assert np.array_equal(decode_rgb(data), pillow_pixels(data))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_transform_of_grayscale_and_cmyk(mode: str) -> None:
    """A file that is not RGB is converted before it is resized, as torchvision's users do."""
    data = jpeg(picture(90, 61, mode))
    for crop_mode in MODES:
        transform = EvalTransform(32, 0.9, crop_mode)
        assert np.array_equal(decoded(transform, data), reference(Image.open(io.BytesIO(data)), transform))


@pytest.mark.parametrize("crop_mode", MODES)
def test_extreme_aspect_ratios_give_a_whole_picture(crop_mode: CropMode) -> None:
    """An image so long that one side shrinks to nothing still gives an output of the right size."""
    transform = EvalTransform((16, 24), 0.9, crop_mode)
    for size in ((1, 2000), (2000, 1)):
        assert decoded(transform, jpeg(picture(*size))).std() > 0


def test_border_is_the_mean_colour() -> None:
    """Mode border keeps the whole image and fills what is left with the mean, rounded to a pixel value."""
    out = decoded(EvalTransform(20, 1.0, "border", mean=(0.1, 0.5, 0.9)), jpeg(picture(40, 10)))
    fill = np.array([26, 128, 230])
    assert (out[[0, 6, 13, 19]] == fill).all(axis=-1).tolist() == [[True] * 20] * 4
    assert not (out[7:12] == fill).all(axis=-1).any()


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_crop_pct_above_one_pads_with_black(crop_mode: CropMode) -> None:
    """A crop_pct of 1.15, as timm's volo_d5_512 has, is padded with black as torchvision's CenterCrop does."""
    data = jpeg(picture(90, 61))
    transform = EvalTransform(46, 1.15, crop_mode)
    expected = reference(Image.open(io.BytesIO(data)), transform)
    assert (expected[0] == 0).all()
    assert np.array_equal(decoded(transform, data), expected)


@pytest.mark.usefixtures("either_way")
def test_full_size_photos(real_data: Callable[[str], Path]) -> None:
    """300 full-size photos decode as with Pillow and transform as the reference, whatever the settings."""
    every = [
        EvalTransform(224, 0.875, "center", "bicubic"),
        EvalTransform(224, 0.95, "center", "bilinear"),
        EvalTransform(299, 1.0, "center", "nearest"),
        EvalTransform(224, 0.9, "squash", "lanczos"),
        EvalTransform(224, 1.0, "border", "box"),
        EvalTransform(160, 0.9, "border", "hamming"),
        EvalTransform((192, 256), 0.9),
    ]
    images = list(tar_images(real_data("photos-300.tar")))
    assert len(images) == 300
    for (name, data), transform in zip(images, itertools.cycle(every), strict=False):
        assert np.array_equal(decode_rgb(data), pillow_pixels(data)), name
        assert np.array_equal(decoded(transform, data), reference(Image.open(io.BytesIO(data)), transform)), name


@pytest.mark.usefixtures("either_way")
def test_validation_images(real_data: Callable[[str], Path]) -> None:
    """650 validation images decode as with Pillow and transform as the reference."""
    transform, count = EvalTransform(), 0
    for name, data in tar_images(real_data("val-650.tar")):
        assert np.array_equal(decode_rgb(data), pillow_pixels(data)), name
        assert np.array_equal(decoded(transform, data), reference(Image.open(io.BytesIO(data)), transform)), name
        count += 1
    assert count == 650


@pytest.fixture(scope="module")
def victims(real_data: Callable[[str], Path]) -> list[bytes]:
    """A few small real files to damage: the validation images are 227 x 227."""
    return [data for _, (_, data) in zip(range(12), tar_images(real_data("val-650.tar")), strict=False)]


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_files_give_pillows_pixels_or_decode_error(data: st.DataObject, victims: list[bytes]) -> None:
    """Cut or flipped bytes that still decode give the pixels Pillow gives; others give DecodeError and nothing else."""
    damaged = bytearray(data.draw(st.sampled_from(victims)))
    reach = data.draw(st.sampled_from([200, 700, len(damaged)]))  # markers and tables are at the start
    for place in data.draw(st.lists(st.integers(0, reach - 1), max_size=4)):
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
        outcomes = []
        for exact in (parts_are_exact(), False):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("wds_real.image.decode.parts_are_exact", lambda exact=exact: exact)
                outcomes.append(outcome(bytes(damaged)))
        assert outcomes[0] == outcomes[1]
        try:
            pixels = decode_rgb(bytes(damaged))
        except DecodeError:
            return
    assert np.array_equal(pixels, pillow_pixels(bytes(damaged)))


def outcome(data: bytes) -> bytes | str:
    """Return the pixels of a transform that leaves much away, or what is wrong."""
    try:
        return decoded(EvalTransform(64, 0.6), data).tobytes()
    except DecodeError as error:
        return str(error)


def test_a_cut_file_is_an_error_wherever_it_is_cut() -> None:
    """A file that lacks its end, by however little of the picture, is never half a picture."""
    data = jpeg(picture(40, 30))
    for stop in range(0, len(data) - 2, 7):
        with pytest.raises(DecodeError):
            decode_rgb(data[:stop])
        with pytest.raises(DecodeError):  # also where the crop needs nothing of what is cut
            decoded(EvalTransform(16, 0.5), data[:stop])


@pytest.mark.parametrize("junk", [b"", b"\xff\xd8", b"<html>", b"\0" * 5000, b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_picture_is_a_decode_error(junk: bytes) -> None:
    """Bytes that are no picture give DecodeError from both decoders."""
    for decode in (decode_rgb, decode_image):
        with pytest.raises(DecodeError, match="cannot be decoded") as caught:
            decode(junk)
        assert " at 0x" not in str(caught.value)


def test_a_header_that_claims_a_huge_picture_is_a_decode_error() -> None:
    """A damaged size field that says 14,000 x 14,000 pixels is refused before memory is taken for them."""
    data = bytearray(jpeg(picture(40, 30)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 14_000, 14_000)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode_rgb(bytes(data))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"img_size": 0}, "img_size is 0"),
        ({"img_size": (224, -1)}, "img_size"),
        ({"img_size": (224,)}, "img_size"),
        ({"crop_pct": 0.0}, "crop_pct"),
        ({"crop_pct": math.nan}, "crop_pct"),
        ({"crop_mode": "centre"}, "crop_mode is 'centre', expected center"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected one of .*bicubic"),
        ({"std": (0.2, 0.0, 0.2)}, "std"),
        ({"mean": (0.5,)}, "mean"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], says: str) -> None:
    """A setting that cannot be is a ValueError that names it, when the transform is made and not at the first image."""
    with pytest.raises(ValueError, match=says):
        EvalTransform(**wrong)


def test_description_is_json_ready_and_complete() -> None:
    """`describe` has every setting under its own name."""
    transform = EvalTransform((192, 256), 0.9, "border", "box", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert transform.describe() == {
        "name": "EvalTransform",
        "img_size": [192, 256],
        "crop_pct": 0.9,
        "crop_mode": "border",
        "interpolation": "box",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
    }
