"""Models of timm, with the data config of their weights."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from wds_real.errors import ModelError
from wds_real.evaluation.failures import describe
from wds_real.evaluation.models.base import LoadedModel, import_package
from wds_real.evaluation.models.downloads import Weights, downloaded, hub_weights, url_weights
from wds_real.evaluation.models.weights_only import weights_only
from wds_real.image.transform import EvalTransform
from wds_real.labels import NUM_CLASSES

if TYPE_CHECKING:
    from types import ModuleType

    from wds_real.evaluation.models.base import BuildOptions

__all__ = ["load_timm", "pretrained_names"]

_FILES = ("model.safetensors", "pytorch_model.bin")
_SOURCES = ("hf-hub", "hf_hub", "local-dir")  # the second is timm's older spelling


def load_timm(spec: str, name: str, build: BuildOptions) -> LoadedModel:
    """Return the model that timm calls `name`: one of its own, of the Hugging Face hub, or of a folder.

    Without pretrained weights, the preprocessing is still that of the name's data config, as in timm's validate.py.

    Raises:
        ModelError: timm is not installed, has no such model, or cannot load its weights; or the weights are a pickle of
            more than tensors.
    """
    timm = import_package("timm", spec, "pip install 'wds_real[timm]'")
    source, colon, place = name.partition(":")
    if colon and (source not in _SOURCES or not place):
        raise ModelError(f"{spec}: expected timm:NAME, timm:hf-hub:USER/MODEL or timm:local-dir:FOLDER.")
    if colon and source == "local-dir" and not (Path(place) / "config.json").is_file():
        raise ModelError(f"{spec}: {place} holds no config.json. Expected a folder saved by timm, or a copy of one.")
    architecture = name.partition(".")[0]
    if not colon and not timm.is_model(architecture):
        similar = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        hub = f" On the Hugging Face hub: timm:hf-hub:{name}." if "/" in name else ""
        raise ModelError(
            f"{spec}: timm {timm.__version__} has no such model. Similar: {', '.join(similar) or 'none'}.{hub}"
        )
    build.refuse_untrained_classifier(spec)
    try:
        weights = _weights(timm, name) if build.pretrained else None
        with downloaded(spec, weights), weights_only(spec):
            model = timm.create_model(name, pretrained=build.pretrained, **build.all_arguments())
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, AssertionError, ImportError) as error:
        raise ModelError(f"{spec}: timm cannot load it: {describe(error)}.") from error
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


def _weights(timm: ModuleType, name: str) -> Weights | None:
    """Return what timm may have to download for a model, as far as its own table says."""
    source, _, place = name.partition(":")
    if source == "local-dir":
        return None
    if place:
        repository, _, revision = place.partition("@")
        return hub_weights(repository, _FILES, revision or None)
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag, which timm says when it creates the model
        return None
    if config is None or config.file:
        return None
    if config.hf_hub_id:
        found = hub_weights(config.hf_hub_id, [config.hf_hub_filename] if config.hf_hub_filename else _FILES)
        if found is not None:
            return found
    return url_weights(config.url) if config.url else None


def pretrained_names(spec: str, pattern: str) -> tuple[list[str], list[str]]:
    """Return timm's pretrained models whose names match a wildcard: those of 1,000 classes, and the others.

    Raises:
        ModelError: timm is not installed.
    """
    timm = import_package("timm", spec, "pip install 'wds_real[timm]'")
    names: tuple[list[str], list[str]] = ([], [])
    for name in timm.list_models(pattern, pretrained=True):
        config = timm.get_pretrained_cfg(name)
        names[config is not None and config.num_classes != NUM_CLASSES].append(name)
    return names
