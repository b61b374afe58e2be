"""Settings of a model's input, correct or with a known mistake, and the options of ``wds-real eval`` for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.image.transform import IMAGENET_MEAN, IMAGENET_STD, EvalTransform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Setting", "Stacked", "option_words", "variations"]

_Three = tuple[float, float, float]
_HALF, _ZERO, _ONE = (0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_BYTE = (1 / 255, 1 / 255, 1 / 255)  # the std that leaves pixels in 0..255
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Those that models are trained with come first: of settings that cannot be told apart, the first one is proposed.
_NORMALISATIONS: dict[str, tuple[_Three, _Three]] = {
    "mean and std of ImageNet": (IMAGENET_MEAN, IMAGENET_STD),
    "mean and std 0.5, values in -1..1 (Inception, ViT)": (_HALF, _HALF),
    "mean and std of OpenAI's CLIP": (_CLIP_MEAN, _CLIP_STD),
    "not normalised, values in 0..1": (_ZERO, _ONE),
    "not normalised, values in 0..255": (_ZERO, _BYTE),
    "only the mean subtracted, values in 0..255": (IMAGENET_MEAN, _BYTE),
}
_CROPS = (0.875, 0.9, 0.95, 1.0)
_INTERPOLATIONS = ("bicubic", "bilinear", "nearest")


@dataclass(frozen=True, slots=True)
class Setting:
    """How images become a model's input.

    Attributes:
        transform: Resizing and cropping, mean and std.
        bgr: Whether the channels are in the order blue, green, red, as OpenCV reads them.
        training: Whether the model is in training mode.
    """

    transform: EvalTransform
    bgr: bool = False
    training: bool = False

    @property
    def geometry(self) -> EvalTransform:
        """The transform without mean and std, which do not change the pixels; two settings may share it."""
        if self.transform.crop_mode == "border":
            return self.transform
        return replace(self.transform, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def variations(setting: Setting, own: EvalTransform, *, pixels: bool, module: bool) -> dict[str, Setting]:
    """Return the settings that differ from a setting by one known mistake, by a title of the difference.

    Args:
        setting: The setting.
        own: The transform that the model's source gives.
        pixels: Whether the model takes uint8 pixels, so that mean and std have no effect.
        module: Whether the model can be put into training mode.
    """
    transform = setting.transform
    found: dict[str, Setting] = {}
    normalised = {} if pixels else dict(_normalisations(transform, own))
    for title, (mean, std) in normalised.items():
        found[title] = replace(setting, transform=replace(transform, mean=mean, std=std))
    found["channels in the order RGB" if setting.bgr else "channels in the order BGR"] = replace(
        setting, bgr=not setting.bgr
    )
    if not (pixels or setting.bgr):
        caffe = replace(transform, mean=IMAGENET_MEAN, std=_BYTE)
        found["BGR, only the mean subtracted (Caffe)"] = replace(setting, transform=caffe, bgr=True)
    for title, change in _geometries(own):
        found[title] = replace(setting, transform=replace(transform, **change))
    if not pixels:
        found["the model's own preprocessing"] = replace(setting, transform=own)
    if module:
        title = "evaluation mode" if setting.training else "training mode instead of evaluation mode"
        found[title] = replace(setting, training=not setting.training)
    different: dict[Setting, str] = {}
    for title, other in found.items():
        if other != setting:
            different.setdefault(other, title)
    return {title: other for other, title in different.items()}


def option_words(before: EvalTransform, after: EvalTransform) -> tuple[str, ...]:
    """Return the options of ``wds-real eval`` that change one transform into another.

    >>> option_words(EvalTransform(), EvalTransform(crop_pct=1.0, std=(0.5, 0.5, 0.5)))
    ('--crop-pct', '1.0', '--std', '0.5', '0.5', '0.5')
    """
    words: list[str] = []
    for name in ("crop_pct", "crop_mode", "interpolation", "mean", "std"):
        value = getattr(after, name)
        if value != getattr(before, name):
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return tuple(words)


class Stacked:
    """A transform that stacks the pixels of several transforms vertically, so that an image is decoded once.

    Args:
        transforms: Of one output size.
    """

    def __init__(self, transforms: Sequence[EvalTransform]) -> None:
        self._transforms = tuple(transforms)

    def __call__(self, image: Any) -> NDArray[np.uint8]:  # noqa: ANN401 -- a Pillow image
        """Return uint8 (number of transforms x H, W, 3)."""
        return np.concatenate([np.asarray(transform(image)) for transform in self._transforms])


def _normalisations(transform: EvalTransform, own: EvalTransform) -> Iterator[tuple[str, tuple[_Three, _Three]]]:
    mean, std = transform.mean, transform.std
    yield "mean and std of the model's own preprocessing", (own.mean, own.std)
    yield from ((title, pair) for title, pair in _NORMALISATIONS.items() if pair != (own.mean, own.std))
    yield "normalised twice", (_three(m + m * s for m, s in zip(mean, std, strict=True)), _three(s * s for s in std))
    yield "divided by 255 twice", (_three(255 * m for m in mean), _three(255 * s for s in std))


def _geometries(own: EvalTransform) -> Iterator[tuple[str, dict[str, Any]]]:
    kept = {"crop_pct": own.crop_pct, "crop_mode": own.crop_mode, "interpolation": own.interpolation}
    yield "resized and cropped as the model's own preprocessing does", kept
    for interpolation in _INTERPOLATIONS:
        yield f"resized by {interpolation}", {"interpolation": interpolation}
    for crop_pct in _CROPS:
        yield f"cropped to {crop_pct} of the image", {"crop_pct": crop_pct, "crop_mode": "center"}
    yield "squashed to a square", {"crop_pct": 1.0, "crop_mode": "squash"}


def _three(values: Iterator[float] | Any) -> _Three:  # noqa: ANN401 -- a generator
    first, second, third = values
    return first, second, third
