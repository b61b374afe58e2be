"""The evaluation transform: the pixels of torchvision and timm on Pillow images, whichever backend decodes."""

from __future__ import annotations

import io
import itertools
import math
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from support.images import damaged, jpeg, tar_images, textured

from wds_real.image.decode import DecodeError
from wds_real.image.jpeg_crop import can_decode_crops
from wds_real.image.transform import EvalTransform, blank_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

CropMode = Literal["center", "squash", "border"]
MODES: tuple[CropMode, ...] = ("center", "squash", "border")
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "nearest", "box", "hamming")


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


@pytest.fixture(params=["part", "whole"])
def part_or_whole(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode only the part that a crop needs, if this installation can, or whole images."""
    crops = request.param == "part" and can_decode_crops()
    monkeypatch.setattr("wds_real.image.transform.can_decode_crops", lambda: crops)


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
    """For any image size and any settings, the pixels are those of the documented rules."""
    longest = max(height / transform.size[0], width / transform.size[1]) * transform.crop_pct
    assume(min(width, height) / longest > 1)  # timm resizes a side of such an image to 0 pixels, and fails
    image = textured(width, height)
    data = jpeg(image)
    expected = reference(Image.open(io.BytesIO(data)), transform)
    assert np.array_equal(decoded(transform, data), expected)
    assert np.array_equal(np.asarray(transform(Image.open(io.BytesIO(data)))), expected)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_transform_of_grayscale_and_cmyk(mode: str) -> None:
    """A file that is not RGB is converted before it is resized, as is usual with torchvision."""
    data = jpeg(textured(90, 61, mode))
    for crop_mode in MODES:
        transform = EvalTransform(32, 0.9, crop_mode)
        assert np.array_equal(decoded(transform, data), reference(Image.open(io.BytesIO(data)), transform))


@pytest.mark.parametrize("crop_mode", MODES)
def test_extreme_aspect_ratios_give_an_image(crop_mode: CropMode) -> None:
    """An image with a side that would be resized to 0 pixels still gives an output of the right size."""
    transform = EvalTransform((16, 24), 0.9, crop_mode)
    for size in ((1, 2000), (2000, 1)):
        assert decoded(transform, jpeg(textured(*size))).std() > 0


def test_border_is_the_mean_colour() -> None:
    """Mode border keeps the whole image and fills the rest with the mean, rounded to a pixel value."""
    out = decoded(EvalTransform(20, 1.0, "border", mean=(0.1, 0.5, 0.9)), jpeg(textured(40, 10)))
    fill = np.array([26, 128, 230])
    assert (out[[0, 6, 13, 19]] == fill).all(axis=-1).tolist() == [[True] * 20] * 4
    assert not (out[7:12] == fill).all(axis=-1).any()


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_crop_pct_above_one_pads_with_black(crop_mode: CropMode) -> None:
    """With a crop_pct of 1.15, as of timm's volo_d5_512, the rest is black, as with torchvision's CenterCrop."""
    data = jpeg(textured(90, 61))
    transform = EvalTransform(46, 1.15, crop_mode)
    expected = reference(Image.open(io.BytesIO(data)), transform)
    assert (expected[0] == 0).all()
    assert np.array_equal(decoded(transform, data), expected)


@pytest.mark.usefixtures("part_or_whole")
def test_full_size_photos(real_data: Callable[[str], Path]) -> None:
    """300 full-size photos are transformed as by the reference, with all kinds of settings."""
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
        assert np.array_equal(decoded(transform, data), reference(Image.open(io.BytesIO(data)), transform)), name


@pytest.mark.usefixtures("part_or_whole")
def test_validation_images(real_data: Callable[[str], Path]) -> None:
    """650 validation images are transformed as by the reference."""
    transform, count = EvalTransform(), 0
    for name, data in tar_images(real_data("val-650.tar")):
        assert np.array_equal(decoded(transform, data), reference(Image.open(io.BytesIO(data)), transform)), name
        count += 1
    assert count == 650


@pytest.fixture(scope="module")
def small_photos(real_data: Callable[[str], Path]) -> list[bytes]:
    """A few small real files to damage: the validation images are 227 x 227."""
    return [data for _, (_, data) in zip(range(12), tar_images(real_data("val-650.tar")), strict=False)]


def outcome(data: bytes) -> bytes | str:
    """Return the pixels of a transform with a small crop, or the error's text."""
    try:
        return decoded(EvalTransform(64, 0.6), data).tobytes()
    except DecodeError as error:
        return str(error)


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_files_give_the_same_either_way(data: st.DataObject, small_photos: list[bytes]) -> None:
    """Decoding only a part of a damaged file gives the pixels, or the error, of decoding the whole image."""
    file = data.draw(damaged(small_photos))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about damaged metadata
        outcomes = []
        for crops in (can_decode_crops(), False):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("wds_real.image.transform.can_decode_crops", lambda crops=crops: crops)
                outcomes.append(outcome(file))
    assert outcomes[0] == outcomes[1]


def test_a_truncated_file_is_an_error_wherever_it_ends() -> None:
    """A file without its end is an error even if the crop needs none of the missing data."""
    data = jpeg(textured(40, 30))
    for stop in range(0, len(data) - 2, 7):
        with pytest.raises(DecodeError):
            decoded(EvalTransform(16, 0.5), data[:stop])


@pytest.mark.usefixtures("part_or_whole")
@pytest.mark.parametrize("crop_mode", MODES)
@pytest.mark.parametrize("wrong", [(15, 24, 3), (16, 25, 3), (16, 24, 4)])
def test_an_output_of_another_shape_is_refused(wrong: tuple[int, ...], crop_mode: CropMode) -> None:
    """The output array has to have the transform's size and three channels."""
    with pytest.raises(ValueError, match=r"out is|broadcast"):
        EvalTransform((16, 24), 0.9, crop_mode).decode_into(jpeg(textured(90, 61)), np.empty(wrong, np.uint8))


def test_the_blank_image_shows_the_output_shape() -> None:
    """Any transform can be called with it."""
    assert EvalTransform((16, 24))(blank_image()).size == (24, 16)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"img_size": 0}, "img_size is 0"),
        ({"img_size": (224, -1)}, "img_size"),
        ({"img_size": (224,)}, "img_size"),
        ({"img_size": 1_000_000}, "img_size is 1000000.* expected 1 to 8,192 pixels"),
        ({"img_size": (224.5, 224)}, "img_size"),
        ({"crop_pct": 0.0}, "crop_pct"),
        ({"crop_pct": 1e-9}, r"crop_pct is 1e-09 .* resized to 2.24e\+11 pixels, expected 1 to 65,536"),
        ({"crop_pct": 1e9}, "resized to 2.24e-07 pixels"),
        ({"crop_pct": math.nan}, "crop_pct"),
        ({"crop_mode": "centre"}, "crop_mode is 'centre', expected center"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected one of .*bicubic"),
        ({"std": (0.2, 0.0, 0.2)}, "std"),
        ({"mean": (0.5,)}, "mean"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], says: str) -> None:
    """An impossible setting is a ValueError that names it, raised by the constructor and not at the first image."""
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
