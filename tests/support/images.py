"""Synthetic JPEGs, real ones from tar files, damaged ones, and Pillow's pixels to compare with."""

from __future__ import annotations

import io
import tarfile
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


def textured(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return an image with smooth parts, edges and noise."""
    rng = np.random.default_rng(width * 1009 + height)
    smooth = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(np.asarray(smooth) // 4 * 3 + noise).convert(mode)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    """Return the image as a JPEG that Pillow encoded with these options."""
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def pillow_pixels(data: bytes) -> NDArray[np.uint8]:
    """Return the RGB pixels that Pillow decodes, without its warnings about damaged metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def tar_images(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of each file of a tar."""
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            yield member.name, file.read()


@st.composite
def damaged(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """Return one of the files with up to four bits flipped, and perhaps truncated."""
    data = bytearray(draw(st.sampled_from(files)))
    reach = draw(st.sampled_from([200, 700, len(data)]))  # markers and tables are at the start
    for offset in draw(st.lists(st.integers(0, reach - 1), max_size=4)):
        data[offset] ^= 1 << draw(st.integers(0, 7))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)
