"""The options for a model's weights, and for the classes of its outputs."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import click

from wds_real.cli.options import local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wds_real.evaluation.models.base import LoadedModel

__all__ = ["ModelCommand", "ModelOptions", "class_options", "model_options"]

_ARGUMENTS = "--model-kwargs"
_ARGUMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


class ModelCommand(click.Command):
    """A command whose --model-kwargs takes several values after one another, as in timm."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat --model-kwargs before each of its values, as click expects it."""
        spread: list[str] = []
        for argument in args:
            follows = len(spread) > 1 and spread[-2] == _ARGUMENTS and _ARGUMENT.fullmatch(spread[-1])
            spread += [_ARGUMENTS, argument] if follows and _ARGUMENT.fullmatch(argument) else [argument]
        return super().parse_args(ctx, spread)


def _parse_arguments(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Return NAME=VALUE pairs with the values as Python literals, or as text where they are none, as timm does."""
    del ctx, parameter
    found: dict[str, Any] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or not name.isidentifier():
            raise click.BadParameter(f"{value!r}: expected NAME=VALUE, such as drop_path_rate=0.1.")
        if name in found:
            raise click.BadParameter(f"{name} is given twice.")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            found[name] = text
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Weights and classes of a model: the values of the options that `model_options` adds."""

    checkpoint: str | None = None
    use_ema: bool = False
    num_classes: int | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    class_map: str | None = None
    background: Literal["first", "last"] | None = None
    trust_code: bool = False

    def given(self) -> dict[str, Any]:
        """Return what differs from the defaults."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, False, {})}

    def load(self, spec: str) -> LoadedModel:
        """Return the model that `spec` names, with these weights and classes."""
        from wds_real.evaluation.models.load import load_model

        return load_model(
            spec,
            checkpoint=self.checkpoint,
            use_ema=self.use_ema,
            num_classes=self.num_classes,
            model_kwargs=self.model_kwargs,
            class_map=self.class_map,
            background=self.background,
            trust_code=self.trust_code,
        )


_CLASS_OPTIONS = (
    click.option(
        "--class-map",
        metavar="FILE",
        callback=local_path,
        help="Class of each output: a text file whose line i is the wnid or class index of output i (- for no class), "
        "or the name of a known numbering: devkit, devkit-from-0, folders-as-text, ...",
    ),
    click.option(
        "--background",
        type=click.Choice(["first", "last"]),
        help="Which of 1,001 outputs is the background class; it is left out.",
    ),
)
_WEIGHTS_OPTIONS = (
    click.option(
        "--checkpoint",
        metavar="FILE",
        callback=local_path,
        help="Load these weights (.pth, .safetensors, ...) into the model, in place of pretrained ones.",
    ),
    click.option("--use-ema", is_flag=True, help="Take the averaged weights (EMA) of the checkpoint."),
    click.option(
        "--num-classes",
        type=click.IntRange(min=1),
        help="Number of outputs of the checkpoint's model.  [default: the model's own]",
    ),
    click.option(
        _ARGUMENTS,
        "model_kwargs",
        multiple=True,
        metavar="NAME=VALUE ...",
        callback=_parse_arguments,
        help="More arguments for the function that builds the model.",
    ),
    click.option(
        "--trust-code",
        is_flag=True,
        help="Load a .pt2 or TorchScript file even if it holds code, which can do whatever you can do.",
    ),
)


def class_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add --class-map and --background to a command, which exclude each other."""

    @functools.wraps(function)
    def command(*arguments: Any, class_map: str | None, background: str | None, **others: Any) -> None:
        if class_map is not None and background is not None:
            raise click.UsageError("--class-map and --background exclude each other: both say which output is which.")
        function(*arguments, class_map=class_map, background=background, **others)

    for option in reversed(_CLASS_OPTIONS):
        command = option(command)
    return command


def model_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options for weights and classes; the command gets them as `model_options`."""

    @functools.wraps(function)
    def command(
        *arguments: Any,
        checkpoint: str | None,
        use_ema: bool,
        num_classes: int | None,
        model_kwargs: dict[str, Any],
        class_map: str | None,
        background: Literal["first", "last"] | None,
        trust_code: bool,
        **others: Any,
    ) -> None:
        options = ModelOptions(
            checkpoint=checkpoint,
            use_ema=use_ema,
            num_classes=num_classes,
            model_kwargs=model_kwargs,
            class_map=class_map,
            background=background,
            trust_code=trust_code,
        )
        function(*arguments, model_options=options, **others)

    added = class_options(command)
    for option in reversed(_WEIGHTS_OPTIONS):
        added = option(added)
    return added
