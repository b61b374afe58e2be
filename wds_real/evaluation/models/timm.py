"""Models of timm, with the data config of their weights."""

from __future__ import annotations

import difflib

from wds_real.errors import ModelError
from wds_real.evaluation.models.base import LoadedModel, import_package
from wds_real.image.transform import EvalTransform

__all__ = ["load_timm"]


def load_timm(spec: str, name: str) -> LoadedModel:
    """Return the pretrained model that timm calls `name`.

    Raises:
        ModelError: timm is not installed, has no such model, or cannot load its weights.
    """
    timm = import_package("timm", spec, "pip install 'wds_real[timm]'")
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        similar = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        raise ModelError(f"{spec}: timm {timm.__version__} has no such model. Similar: {', '.join(similar) or 'none'}.")
    try:
        model = timm.create_model(name, pretrained=True)
    except (RuntimeError, OSError, ValueError) as error:
        raise ModelError(f"{spec}: timm cannot load it: {error}") from error
    # The test size: timm's validation script and its published results use it.
    config = timm.data.resolve_model_data_config(model, use_test_size=True)
    return LoadedModel(
        spec,
        model,
        EvalTransform(
            img_size=tuple(config["input_size"][1:]),
            crop_pct=config["crop_pct"],
            crop_mode=config["crop_mode"],
            interpolation=config["interpolation"],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
        ),
    )
