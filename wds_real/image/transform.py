"""The evaluation transform: resize and crop, with the pixels of torchvision and timm on Pillow images.

`EvalTransform` takes timm's settings. Its pixels equal those of torchvision's
``CenterCrop(img_size)(Resize(floor(img_size / crop_pct))(image.convert("RGB")))`` on a Pillow image.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from wds_real.image.bounds import MAX_METADATA_BYTES, MAX_PIXELS, check_resized
from wds_real.image.decode import decode
from wds_real.image.jpeg_crop import can_decode_crops, decode_crop
from wds_real.image.jpeg_header import JpegError, jpeg_frame
from wds_real.image.resample import RESAMPLING, Crop, needed_box, resize_crop

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "MAX_RESIZED", "MAX_SIDE", "EvalTransform", "Geometry", "blank_image"]

MAX_SIDE = 8192  # of the output
MAX_RESIZED = 1 << 16  # of the side that is resized to img_size / crop_pct

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a transform resizes and crops images of one size.

    Attributes:
        resized: (width, height) of the whole image after resizing.
        left: Column of the resized image where the crop starts; negative if columns are padded.
        top: Row of the resized image where the crop starts; negative if rows are padded.
    """

    resized: tuple[int, int]
    left: int
    top: int


@dataclass(frozen=True, slots=True)
class EvalTransform:
    """Resize and crop for evaluation, with timm's settings; `mean` and `std` are applied later, on the model's device.

    Attributes:
        img_size: Height and width of the output in pixels; one number for a square.
        crop_pct: Fraction of the resized image's shorter side that the crop keeps. The image is resized to
            ``floor(img_size / crop_pct)``; above 1 that is smaller than the crop, and the rest is black.
        crop_mode: ``center`` resizes the shorter side and crops; ``squash`` resizes both sides, ignoring the aspect
            ratio, and crops; ``border`` resizes the longer side and fills the rest with the mean colour;
            ``center_floor`` is ``center`` as transformers does it, see `geometry`.
        interpolation: Pillow's ``bicubic``, ``bilinear``, ``lanczos``, ``nearest``, ``box`` or ``hamming``.
        mean: Mean of each channel, for values in 0..1.
        std: Standard deviation of each channel, for values in 0..1.

    Raises:
        ValueError: a setting is not one of these values.
    """

    img_size: int | tuple[int, int] = 224
    crop_pct: float = 0.875
    crop_mode: Literal["center", "squash", "border", "center_floor"] = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        lengths: tuple[int, ...] = (len(self.size), len(self.mean), len(self.std))
        sides: tuple[object, ...] = self.size
        if lengths != (2, 3, 3) or not all(isinstance(side, int) and 1 <= side <= MAX_SIDE for side in sides):
            raise ValueError(
                f"img_size is {self.img_size}, mean {self.mean}, std {self.std}: expected 1 to {MAX_SIDE:,} pixels, or "
                "(height, width), and three numbers each for mean and std."
            )
        if not 0 < self.crop_pct < math.inf:
            raise ValueError(f"crop_pct is {self.crop_pct}, expected a number above 0.")
        resized = [side / self.crop_pct for side in self.size]
        if min(resized) < 1 or max(resized) > MAX_RESIZED:
            raise ValueError(
                f"crop_pct is {self.crop_pct} and img_size {self.img_size}: images would be resized to "
                f"{max(resized):.3g} pixels, expected 1 to {MAX_RESIZED:,}."
            )
        if self.crop_mode not in ("center", "squash", "border", "center_floor"):
            raise ValueError(f"crop_mode is {self.crop_mode!r}, expected center, squash, border or center_floor.")
        if self.interpolation not in RESAMPLING:
            raise ValueError(f"interpolation is {self.interpolation!r}, expected one of {', '.join(RESAMPLING)}.")
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"mean is {self.mean}, expected three finite numbers.")
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std is {self.std}, expected three numbers above 0.")

    @property
    def size(self) -> tuple[int, int]:
        """Output (height, width) in pixels."""
        return (self.img_size, self.img_size) if isinstance(self.img_size, int) else self.img_size

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the transformed image, as torchvision's ``Compose([Resize, CenterCrop])`` does."""
        out = np.empty((*self.size, 3), dtype=np.uint8)
        self._resize_into(np.asarray(image.convert("RGB")), out, crop=self._crop(*image.size))
        return Image.fromarray(out)

    def decode_into(self, data: bytes | memoryview, out: NDArray[np.uint8], *, check_file: bool = False) -> str | None:
        """Decode JPEG bytes and write the transformed pixels to `out`, uint8 (H, W, 3), RGB.

        Args:
            data: The whole file.
            out: The output.
            check_file: Read the file to its end for the decoder's warnings, also where the crop needs only a part.

        Returns:
            What the decoder warns about, see `wds_real.image.jpeg_warnings`; None if it does not.

        Raises:
            DecodeError: the bytes are not an image, or are truncated.
            ValueError: `out` has another shape or dtype.
        """
        if can_decode_crops() and self._decode_crop_into(data, out, to_end=check_file):
            return None
        decoded = decode(data)
        height, width, _ = decoded.pixels.shape
        self._resize_into(decoded.pixels, out, crop=self._crop(width, height))
        return decoded.warning

    def geometry(self, width: int, height: int) -> Geometry:
        """Return how an image of `width` x `height` pixels is resized and cropped, rounded as in torchvision and timm.

        With ``center_floor``, a crop that would start between two pixels starts at the first, as in transformers;
        torchvision rounds half to even.

        >>> EvalTransform(img_size=224, crop_pct=0.875).geometry(500, 334)
        Geometry(resized=(383, 256), left=80, top=16)
        >>> EvalTransform(img_size=224, crop_pct=0.875, crop_mode="center_floor").geometry(500, 334)
        Geometry(resized=(383, 256), left=79, top=16)
        """
        out_height, out_width = self.size
        scale_height, scale_width = (math.floor(side / self.crop_pct) for side in self.size)
        if self.crop_mode == "squash":
            resized = (scale_width, scale_height)
        elif self.crop_mode == "border" or scale_height != scale_width:
            pick = max if self.crop_mode == "border" else min
            ratio = pick(height / scale_height, width / scale_width)
            resized = (max(1, round(width / ratio)), max(1, round(height / ratio)))
        elif width <= height:
            resized = (scale_width, int(scale_width * height / width))
        else:
            resized = (int(scale_width * width / height), scale_width)
        floor = self.crop_mode == "center_floor"
        left, top = (_crop_start(*sides, floor=floor) for sides in zip(resized, (out_width, out_height), strict=True))
        return Geometry(resized, left, top)

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values, for the result."""
        return {"name": "EvalTransform", **asdict(self), "img_size": list(self.size)}

    def _decode_crop_into(self, data: bytes | memoryview, out: NDArray[np.uint8], *, to_end: bool) -> bool:
        """Decode only the part of the JPEG that the crop needs; return False if the whole image has to be decoded."""
        try:
            width, height, _ = jpeg_frame(data)
        except JpegError:
            return False
        if width * height > MAX_PIXELS or len(data) > MAX_METADATA_BYTES:
            return False  # `decode` refuses it, or finds where its metadata end
        crop = self._crop(width, height)
        box = needed_box(crop, interpolation=self.interpolation)
        pixels = None if box is None else decode_crop(data, size=crop.full, box=box, to_end=to_end)
        if box is None or pixels is None:
            return False
        self._resize_into(pixels, out, crop=crop, at=box[:2])
        return True

    def _resize_into(
        self, pixels: NDArray[np.uint8], out: NDArray[np.uint8], *, crop: Crop, at: tuple[int, int] = (0, 0)
    ) -> None:
        """Write the crop to the centre of `out` and fill the rest; `at` is (left, top) of `pixels` in the image."""
        (height, width), (crop_width, crop_height) = self.size, crop.size
        inner = out
        if crop_height < height or crop_width < width:
            out[:] = [round(255 * value) for value in self.mean] if self.crop_mode == "border" else 0
            left, top = (width - crop_width) // 2, (height - crop_height) // 2
            inner = out[top : top + crop_height, left : left + crop_width]
        resize_crop(pixels, inner, crop=crop, interpolation=self.interpolation, at=at)

    def _crop(self, width: int, height: int) -> Crop:
        """Return the part of an image of this size that the output shows."""
        place, (out_height, out_width) = self.geometry(width, height), self.size
        check_resized(*place.resized)
        start = (max(place.left, 0), max(place.top, 0))
        size = (min(place.resized[0], out_width), min(place.resized[1], out_height))
        return Crop((width, height), place.resized, start, size)


def _crop_start(resized: int, cropped: int, *, floor: bool) -> int:
    """Return where a centred crop starts: torchvision rounds half to even when cropping, down when padding."""
    if resized < cropped:
        return -((cropped - resized) // 2)
    return (resized - cropped) // 2 if floor else round((resized - cropped) / 2)


def blank_image() -> Image.Image:
    """Return a black image of 500 x 375 pixels: calling a transform with it shows the transform's output shape."""
    return Image.new("RGB", (500, 375))
