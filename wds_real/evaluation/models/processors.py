"""Another library's preprocessing as an `EvalTransform`, if that gives the same pixels, and as it is otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wds_real.errors import ModelError
from wds_real.evaluation.device import Normalize
from wds_real.image.probes import probe_images

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wds_real.evaluation.models.base import OwnTransform
    from wds_real.image.transform import EvalTransform

__all__ = ["equal_transform"]

_TOLERANCE = 0.05  # of the step between two values of a pixel: libraries round normalised values differently


def equal_transform(spec: str, own: OwnTransform, candidates: Iterable[EvalTransform]) -> EvalTransform | OwnTransform:
    """Return the first candidate that gives each pixel of each probe image as `own` does; without one, `own`.

    An `EvalTransform` is faster: it decodes into the batch, only as much as the crop needs, and normalises batches.

    Raises:
        ModelError: `own` gives images of different sizes, which no batch can hold, or not three channels.
    """
    images = probe_images()
    wanted = [own(image) for image in images]
    shapes = sorted({tuple(each.shape) for each in wanted})
    if len(shapes) > 1 or len(shapes[0]) != 3 or shapes[0][0] != 3:
        shown = " and ".join(" x ".join(map(str, shape)) for shape in shapes[:2])
        raise ModelError(
            f"{spec}: {own.name} gives images of {shown}, expected channels, height and width to be 3 and the same for "
            "all. Set a crop or a fixed size in its preprocessor_config.json."
        )
    return next((each for each in candidates if _is_equal(each, images, wanted)), own)


def _is_equal(candidate: EvalTransform, images: Iterable[Any], wanted: Iterable[torch.Tensor]) -> bool:
    normalize = Normalize(candidate.mean, candidate.std, device=torch.device("cpu"))
    tolerance = _TOLERANCE / (255 * torch.tensor(candidate.std)).view(-1, 1, 1)
    for image, expected in zip(images, wanted, strict=True):
        if expected.shape[1:] != candidate.size:
            return False
        pixels = torch.from_numpy(np.array(candidate(image))).permute(2, 0, 1)[None]
        if not ((normalize(pixels)[0] - expected).abs() <= tolerance).all():
            return False
    return True
