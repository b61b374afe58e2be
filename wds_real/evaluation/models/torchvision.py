"""Models of torchvision, with the preset of their weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from wds_real.errors import ModelError
from wds_real.evaluation.failures import describe
from wds_real.evaluation.models.base import LoadedModel, import_package
from wds_real.evaluation.models.downloads import downloaded, url_weights
from wds_real.evaluation.models.weights_only import weights_only
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from wds_real.evaluation.models.base import BuildOptions

__all__ = ["crop_pct_of", "load_torchvision"]


def load_torchvision(spec: str, name: str, build: BuildOptions) -> LoadedModel:
    """Return the model NAME with its default weights, or NAME.TAG with the weights of that tag.

    Without pretrained weights, the preprocessing is still the preset of these weights.

    Raises:
        ModelError: torchvision is not installed, has no such model or weights, cannot load them, or they are not for
            image classification.
    """
    torchvision = import_package("torchvision", spec, "pip install torchvision")
    name, _, tag = name.partition(".")
    try:
        available = torchvision.models.get_model_weights(name)
        if tag and tag not in available.__members__:
            raise ModelError(f"{spec}: {name} has no such weights. Available: {', '.join(available.__members__)}.")
        weights = available[tag or "DEFAULT"]
        missing = url_weights(weights.url) if build.pretrained else None
        with downloaded(spec, missing), weights_only(spec):
            arguments = {**_arguments(name, build), "weights": weights if build.pretrained else None}
            model = torchvision.models.get_model(name, **arguments)
    except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
        raise ModelError(f"{spec}: torchvision {torchvision.__version__} cannot load it: {describe(error)}.") from error
    preset = weights.transforms()
    if not hasattr(preset, "crop_size"):
        raise ModelError(f"{spec}: its weights are not for image classification ({type(preset).__name__}).")
    return LoadedModel(
        spec,
        model,
        EvalTransform(
            img_size=preset.crop_size[0],
            crop_pct=crop_pct_of(preset.crop_size[0], preset.resize_size[0]),
            interpolation=preset.interpolation.value,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        ),
    )


def _arguments(name: str, build: BuildOptions) -> dict[str, Any]:
    """Return the builder's arguments; the random weights that a checkpoint replaces are not drawn, as that is slow."""
    arguments = build.all_arguments()
    if not build.pretrained and name in ("googlenet", "inception_v3"):
        arguments.setdefault("init_weights", False)
    return arguments


def crop_pct_of(img_size: int, resize_size: int) -> float:
    """Return the crop_pct for which ``floor(img_size / crop_pct)`` is exactly `resize_size`.

    >>> [math.floor(224 / crop_pct_of(224, size)) for size in (232, 236, 248, 256)]
    [232, 236, 248, 256]
    """
    crop_pct = img_size / resize_size
    while math.floor(img_size / crop_pct) < resize_size:
        crop_pct = math.nextafter(crop_pct, 0)
    return crop_pct
