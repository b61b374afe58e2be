"""How images become a model's input: the transform, mean and std, and their description for the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wds_real.data.batch import output_shape
from wds_real.errors import ModelError
from wds_real.evaluation.models.base import OwnTransform, name_of
from wds_real.image.transform import IMAGENET_MEAN, IMAGENET_STD, EvalTransform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Inputs"]


@dataclass(frozen=True, slots=True)
class Inputs:
    """How images become the model's input.

    Attributes:
        transform: From a Pillow image to pixels.
        mean: Per channel, of values in 0..1.
        std: As `mean`.
        shape: Channels, height and width.
        description: The same, JSON-ready, for the run's identity and the result.
    """

    transform: EvalTransform | Callable[[Any], Any]
    mean: Sequence[float]
    std: Sequence[float]
    shape: tuple[int, int, int]
    description: dict[str, Any]

    @classmethod
    def of(
        cls,
        transform: EvalTransform | Callable[[Any], Any],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        as_pixels: bool = False,
    ) -> Inputs:
        """Take mean and std from the transform, or those of ImageNet, where they are not given.

        Raises:
            ModelError: the model takes pixels, but the transform returns floats.
        """
        if isinstance(transform, EvalTransform | OwnTransform):
            mean, std = mean or transform.mean, std or transform.std
            description = transform.describe()
        else:
            description = {"name": name_of(transform)}
        mean, std = mean or IMAGENET_MEAN, std or IMAGENET_STD
        (height, width, channels), dtype = output_shape(transform)
        if as_pixels and dtype.is_floating_point:
            raise ModelError("the model takes uint8 pixels, but the transform returns floats. Return uint8 from it.")
        if as_pixels:
            unused = (
                ("std",) if description.get("crop_mode") == "border" else ("mean", "std")
            )  # the border has the mean
            description = {name: value for name, value in description.items() if name not in unused}
        elif not dtype.is_floating_point:  # floats are normalised by the transform
            description |= {"mean": list(mean), "std": list(std)}
        return cls(transform, mean, std, (channels, height, width), description)

    def same_pixels(self, other: Inputs) -> bool:
        """Return whether the other's batches hold the same pixels, so that decoding once serves both.

        Mean and std are applied after decoding, and may differ; only the border of ``crop_mode="border"`` has the mean.
        """
        a, b = self.transform, other.transform
        if isinstance(a, EvalTransform) and isinstance(b, EvalTransform):
            return _pixels(a) == _pixels(b)
        return a is b or (isinstance(a, OwnTransform) and a == b)


def _pixels(transform: EvalTransform) -> tuple[object, ...]:
    border = transform.mean if transform.crop_mode == "border" else None
    return transform.size, transform.crop_pct, transform.crop_mode, transform.interpolation, border
