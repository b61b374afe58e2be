"""Thumbnails: small, of the right shape, of bytes and of images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from wds_real.image.bounds import DecodeError
from wds_real.image.thumbnail import thumbnail, thumbnail_jpeg


def jpeg(width: int, height: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert(mode).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "shape"),
    [((400, 200), (50, 100, 3)), ((200, 400), (100, 50, 3)), ((60, 40), (40, 60, 3)), ((100, 100), (100, 100, 3))],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_an_image_fits_into_the_square(size: tuple[int, int], shape: tuple[int, int, int], mode: str) -> None:
    """Its proportions stay, and it is never made larger."""
    pixels = thumbnail(jpeg(*size, mode), 100)
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8


def test_bytes_and_images_give_the_same() -> None:
    """The image itself is not changed."""
    data = jpeg(300, 150)
    image = Image.open(io.BytesIO(data))
    assert thumbnail_jpeg(image, 100) == thumbnail_jpeg(data, 100)
    assert image.size == (300, 150)
    assert Image.open(io.BytesIO(thumbnail_jpeg(image, 100))).size == (100, 50)


def test_what_is_no_image_is_refused() -> None:
    """As by any decoding here."""
    with pytest.raises(DecodeError, match="cannot be decoded"):
        thumbnail_jpeg(b"no image", 100)
