"""JPEG bytes to uint8 pixels, bit for bit as Pillow, torchvision and timm give them.

`EvalTransform` is the evaluation transform in timm's terms. Its pixels equal
``CenterCrop(img_size)(Resize(floor(img_size / crop_pct))(image.convert("RGB")))`` of torchvision on a Pillow image.
"""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import PIL
import simplejpeg
from PIL import Image, UnidentifiedImageError

from wds_real.image.jpeg_crop import decode_part, parts_are_exact
from wds_real.image.jpeg_header import JpegError, jpeg_frame
from wds_real.image.resample import RESAMPLING, needed, resize_crop

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DECODERS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "DecodeError",
    "EvalTransform",
    "Geometry",
    "blank_image",
    "decode_image",
    "decode_rgb",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DECODERS = {"pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}  # two may differ in the last bit

_DECODED_DIRECTLY = (1, 3)  # components: simplejpeg turns CMYK and YCCK into RGB by another rounding than Pillow
_MAX_PIXELS = 1 << 26  # more is damage: Pillow refuses it before it takes the memory


class DecodeError(ValueError):
    """The bytes are not a picture that can be decoded. Callers say which sample."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a transform does to one image size.

    Attributes:
        resized: (width, height) after resizing the whole image.
        left: Column of the resized image where the crop starts; negative where columns are filled in.
        top: Row of the resized image where the crop starts; negative where rows are filled in.
    """

    resized: tuple[int, int]
    left: int
    top: int


@dataclass(frozen=True, slots=True)
class EvalTransform:
    """Resize and crop for evaluation, in timm's terms; `mean` and `std` are applied later, on the model's device.

    Attributes:
        img_size: Height and width of the output in pixels; one number for a square.
        crop_pct: Share of the resized image's shorter side that the crop keeps. The image is resized to
            ``floor(img_size / crop_pct)``; above 1 that is smaller than the crop, and the rest is black.
        crop_mode: ``center`` resizes the shorter side and crops; ``squash`` resizes both sides, ignoring the aspect
            ratio, and crops; ``border`` resizes the longer side and fills the rest with the mean colour.
        interpolation: ``bicubic``, ``bilinear``, ``lanczos``, ``nearest``, ``box`` or ``hamming``; Pillow's.
        mean: Per channel, of values in 0..1.
        std: Per channel, of values in 0..1.

    Raises:
        ValueError: a value that is not one of these.
    """

    img_size: int | tuple[int, int] = 224
    crop_pct: float = 0.875
    crop_mode: Literal["center", "squash", "border"] = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        lengths: tuple[int, ...] = (len(self.size), len(self.mean), len(self.std))
        if lengths != (2, 3, 3) or min(self.size) < 1:
            raise ValueError(
                f"img_size is {self.img_size}, mean {self.mean}, std {self.std}: expected at least 1 pixel, or "
                "(height, width), and three numbers each for mean and std."
            )
        if not 0 < self.crop_pct < math.inf:
            raise ValueError(f"crop_pct is {self.crop_pct}, expected a number above 0.")
        if self.crop_mode not in ("center", "squash", "border"):
            raise ValueError(f"crop_mode is {self.crop_mode!r}, expected center, squash or border.")
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
        self._resize_crop(_Part(np.asarray(image.convert("RGB")), (0, 0), self._crop(*image.size)), out)
        return Image.fromarray(out)

    def decode_into(self, data: bytes | memoryview, out: NDArray[np.uint8]) -> None:
        """Decode JPEG bytes and write the transformed pixels to `out`, uint8 (H, W, 3), RGB.

        Raises:
            DecodeError: the bytes are not a picture.
        """
        part = self._decode_part(data) if parts_are_exact() else None
        if part is None:
            pixels = decode_rgb(data)
            part = _Part(pixels, (0, 0), self._crop(pixels.shape[1], pixels.shape[0]))
        self._resize_crop(part, out)

    def geometry(self, width: int, height: int) -> Geometry:
        """Return the sizes and places for an image of `width` x `height` pixels, rounded as torchvision and timm do.

        >>> EvalTransform(img_size=224, crop_pct=0.875).geometry(500, 375)
        Geometry(resized=(341, 256), left=58, top=16)
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
        return Geometry(resized, _crop_start(resized[0], out_width), _crop_start(resized[1], out_height))

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values, for the result."""
        return {"name": "EvalTransform", **asdict(self), "img_size": list(self.size)}

    def _decode_part(self, data: bytes | memoryview) -> _Part | None:
        """Decode what the crop needs, or return None: then all of the picture has to be decoded."""
        try:
            width, height, _ = jpeg_frame(data)
        except JpegError:
            return None
        if width * height > _MAX_PIXELS:
            return None
        crop = self._crop(width, height)
        box = needed(crop.full, crop.resized, start=crop.start, size=crop.size, interpolation=self.interpolation)
        pixels = None if box is None else decode_part(data, size=crop.full, box=box)
        return None if box is None or pixels is None else _Part(pixels, box[:2], crop)

    def _resize_crop(self, part: _Part, out: NDArray[np.uint8]) -> None:
        pixels, at, (full, resized, (left, top), (width, height), (out_left, out_top)) = part
        covered = out[out_top : out_top + height, out_left : out_left + width]
        if covered.shape != out.shape:
            out[:] = [round(255 * value) for value in self.mean] if self.crop_mode == "border" else 0
        resize_crop(
            pixels, covered, resized=resized, left=left, top=top, interpolation=self.interpolation, full=full, at=at
        )

    def _crop(self, width: int, height: int) -> _Crop:
        """Return what is kept of a picture of this size."""
        place = self.geometry(width, height)
        (resized_width, resized_height), left, top = place.resized, place.left, place.top
        out_height, out_width = self.size
        start, out_start = (max(left, 0), max(top, 0)), (max(-left, 0), max(-top, 0))
        size = (min(left + out_width, resized_width) - start[0], min(top + out_height, resized_height) - start[1])
        return _Crop((width, height), place.resized, start, size, out_start)


class _Crop(NamedTuple):
    """What is kept of a picture; all are pairs of a number of columns and one of rows.

    A picture of size `full` is resized to `resized`. Of that, the part of `size` at `start` is kept, and comes to lie
    at `out_start` in the output.
    """

    full: tuple[int, int]
    resized: tuple[int, int]
    start: tuple[int, int]
    size: tuple[int, int]
    out_start: tuple[int, int]


class _Part(NamedTuple):
    """Decoded pixels, where they are (left, top) in their picture, and what is kept of it."""

    pixels: NDArray[np.uint8]
    at: tuple[int, int]
    crop: _Crop


def _crop_start(resized: int, cropped: int) -> int:
    """Return where a centred crop starts: torchvision rounds half to even when cropping, down when padding."""
    return round((resized - cropped) / 2) if resized >= cropped else -((cropped - resized) // 2)


def decode_rgb(data: bytes | memoryview) -> NDArray[np.uint8]:
    """Decode a JPEG to uint8 (H, W, 3), RGB; the same bytes as ``PIL.Image.open(...).convert("RGB")``.

    libjpeg-turbo does the common case directly; Pillow does what it refuses, CMYK for one.

    Raises:
        DecodeError: the bytes are not a picture, or are cut.
    """
    try:
        width, height, components = jpeg_frame(data)
        if components in _DECODED_DIRECTLY and width * height <= _MAX_PIXELS:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
            return pixels
    except ValueError:
        pass  # Pillow decides
    return np.asarray(decode_image(data))


def decode_image(data: bytes | memoryview) -> Image.Image:
    """Decode a picture to a Pillow image in mode RGB.

    Raises:
        DecodeError: the bytes are not a picture, or are cut.
    """
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except UnidentifiedImageError as error:  # whose text has an address in memory
        raise DecodeError("cannot be decoded: it is no kind of picture that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DecodeError(f"cannot be decoded: {error}") from error


def blank_image() -> Image.Image:
    """Return a black image of a usual size, to learn what a transform makes of one."""
    return Image.new("RGB", (500, 375))
