"""What every source of models gives: a `LoadedModel`, and the name and digest that identify it in a result."""

from __future__ import annotations

import functools
import hashlib
import importlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import xxhash

from wds_real.errors import ModelError
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from wds_real.labels.class_maps import ClassMap

__all__ = [
    "AcceptedInput",
    "BuildOptions",
    "LoadedModel",
    "OwnTransform",
    "as_loaded",
    "first_line",
    "import_package",
    "name_of",
]


@dataclass(frozen=True, slots=True)
class AcceptedInput:
    """The input that a program was exported for.

    Attributes:
        sizes: Smallest and largest value of batch, channels, height and width; None where there is no largest.
        dtype: Of the images; for uint8, the program takes pixels as they were decoded, not normalised.
        devices: The types of devices that it runs on; None for those of torch.
    """

    sizes: tuple[tuple[int, int | None], ...]
    dtype: torch.dtype = torch.float32
    devices: tuple[str, ...] | None = None

    def transform(self) -> EvalTransform:
        """Return the default preprocessing, at the height and width of the input where these are fixed."""
        (height, largest_height), (width, largest_width) = self.sizes[2:]
        if height != largest_height or width != largest_width:
            return EvalTransform()
        return EvalTransform(img_size=height if height == width else (height, width))

    def check(self, spec: str, shape: tuple[int, ...]) -> None:
        """Compare the shape of a batch (B, C, H, W) with what is accepted.

        Raises:
            ModelError: the program accepts only other shapes.
        """
        batch, channels, *image = (
            low <= size and (high is None or size <= high) for size, (low, high) in zip(shape, self.sizes, strict=True)
        )
        if not batch:
            low, high = self.sizes[0]
            advice = f"-b {low if high is None or shape[0] < low else high}"
            raise ModelError(f"{spec}: exported for batches of {_interval(low, high)}, not {shape[0]}: {advice}.")
        if not (channels and all(image)):
            height, width = (_interval(low, high) for low, high in self.sizes[2:])
            size = self.sizes[2][0] if shape[2] < self.sizes[2][0] else self.sizes[2][1]
            raise ModelError(
                f"{spec}: exported for images of height {height} and width {width}, not {shape[2]} x {shape[3]}: "
                f"--img-size {size}."
            )


def _interval(low: int, high: int | None) -> str:
    """Return the words for a size or a range of sizes.

    >>> [_interval(8, 8), _interval(1, 64), _interval(2, None)]
    ['8', '1 to 64', '2 or more']
    """
    return f"{low} or more" if high is None else f"{low}" if low == high else f"{low} to {high}"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a model is built from its architecture.

    Attributes:
        pretrained: Whether to load its published weights; False if those of a checkpoint follow, and then nothing is
            downloaded.
        num_classes: How many outputs it gets; None for as many as it has by itself.
        arguments: More arguments of the function that builds it.
    """

    pretrained: bool = True
    num_classes: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def all_arguments(self) -> dict[str, Any]:
        """Return the arguments of the function that builds the model, `num_classes` among them if it is given."""
        return {**self.arguments, **({} if self.num_classes is None else {"num_classes": self.num_classes})}

    def refuse_untrained_classifier(self, spec: str) -> None:
        """Raise if another number of outputs is wanted without weights for them.

        Raises:
            ModelError: `num_classes` is given, but no checkpoint.
        """
        if self.pretrained and self.num_classes is not None:
            raise ModelError(
                f"{spec}: --num-classes {self.num_classes} without --checkpoint would leave the classifier untrained. "
                "Add the checkpoint, or leave out --num-classes."
            )


@dataclass(frozen=True, slots=True)
class OwnTransform:
    """The preprocessing of another library, used as it is because no `EvalTransform` gives the same pixels.

    Attributes:
        name: Of the preprocessing and its library.
        settings: What it is set to, JSON-ready.
        preprocess: From a Pillow image in mode RGB to float (3, H, W), normalised.
        mean: Not applied: `preprocess` returns normalised floats.
        std: As `mean`.
    """

    name: str
    settings: Mapping[str, Any]
    preprocess: Callable[[Any], torch.Tensor] = field(compare=False, repr=False)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, image: Any) -> torch.Tensor:  # noqa: ANN401 -- a Pillow image
        """Return the model's input (3, H, W)."""
        return self.preprocess(image)

    def describe(self) -> dict[str, Any]:
        """Return its name and settings, JSON-ready."""
        return {"name": self.name, "settings": dict(self.settings)}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that can be evaluated.

    Attributes:
        spec: The name it was loaded by.
        module: Takes images (B, 3, H, W), float and normalised if `accepts` does not say otherwise; returns scores, one
            column for each of its outputs, or what holds them (`wds_real.evaluation.outputs`).
        transform: The preprocessing of its weights, as far as the source of the model gives one.
        accepts: The input that an exported program is limited to.
        classes: Which output is which class; None for a model of the 1,000 classes in their order.
        facts: What else identifies it, JSON-ready, such as the digest of its file; `runtime` is what runs it instead of
            torch, with its version.
        labels: What its source calls its outputs, where it says so. Without `classes`, they have to be the 1,000
            classes in their order.
        place: Returns the model prepared for a device; None if it needs no preparation.
    """

    spec: str
    module: Callable[[torch.Tensor], Any]
    transform: EvalTransform | OwnTransform = field(default_factory=EvalTransform)
    accepts: AcceptedInput | None = None
    classes: ClassMap | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    place: Callable[[torch.device], LoadedModel] | None = None

    @property
    def takes_pixels(self) -> bool:
        """Whether the model takes uint8 pixels as they were decoded."""
        return self.accepts is not None and self.accepts.dtype is torch.uint8

    def identity(self) -> dict[str, Any]:
        """Return the model's name, the digest of its weights, file or code, and its facts, JSON-ready."""
        identity = {"name": self.spec, **self.facts}
        if isinstance(self.module, torch.nn.Module):
            identity["num_parameters"] = sum(parameter.numel() for parameter in self.module.parameters())
            identity["weights_digest"] = _weights_digest(self.module.state_dict())
        elif "sha256" not in self.facts:
            identity["code"] = name_of(self.module)
        if self.classes is not None:
            identity["class_map"] = dict(self.classes.description)
        return identity


def as_loaded(model: Callable[[torch.Tensor], Any] | LoadedModel) -> LoadedModel:
    """Return a `LoadedModel` as it is, and any other model under the name of its class or function.

    A module's weights do not tell its activations, so the facts include a digest of its printed structure.
    """
    if isinstance(model, LoadedModel):
        return model
    if not isinstance(model, torch.nn.Module):
        return LoadedModel(name_of(model), model)
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(model))
    facts = {"structure": hashlib.sha256(structure.encode()).hexdigest()[:16]}
    return LoadedModel(type(model).__qualname__, model, facts=facts)


def name_of(thing: Callable[..., Any]) -> str:
    """Return a name for a Python callable that is the same in every process.

    Two lambdas have the same qualified name, so the name of a function ends with a digest of its code, constants,
    default arguments and captured values. The name of a ``functools.partial`` includes its arguments.
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
    """Return the repr of a value without memory addresses, which differ between processes."""
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


def import_package(name: str, spec: str, how: str) -> ModuleType:
    """Return an optional package that the model `spec` needs; `how` is the command that installs it.

    Raises:
        ModelError: the package is not installed, or does not fit the installed torch.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(f"{spec}: {name} is not installed ({error}). Install it: {how}.") from error
    except (RuntimeError, OSError) as error:
        raise ModelError(
            f"{spec}: {name} does not fit torch {torch.__version__} ({first_line(error)}). Install torch and "
            "torchvision again, both from one package index."
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's type."""
    return next(iter(str(error).splitlines()), type(error).__name__)
