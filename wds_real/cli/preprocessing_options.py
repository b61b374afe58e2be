"""The options that override a model's own preprocessing."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from wds_real.evaluation.models.base import LoadedModel

__all__ = ["PreprocessingOptions", "preprocessing_options"]

_Three = tuple[float, float, float]
_THREE_FLOATS = click.Tuple([float, float, float])
_OPTIONS = (
    click.option(
        "--img-size",
        type=click.IntRange(min=1),
        help="Height and width of the model's input, in pixels.  [default: the model's own]",
    ),
    click.option(
        "--crop-pct",
        type=click.FloatRange(min=0, min_open=True),
        help="Share of the resized image's side that the centre crop keeps.  [default: the model's own]",
    ),
    click.option(
        "--crop-mode",
        type=click.Choice(["center", "squash", "border"]),
        help="How to crop.  [default: the model's own]",
    ),
    click.option(
        "--interpolation",
        type=click.Choice(["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"]),
        help="How to resize.  [default: the model's own]",
    ),
    click.option(
        "--mean",
        type=_THREE_FLOATS,
        metavar="R G B",
        help="Mean of each channel, for pixel values in 0..1.  [default: the model's own]",
    ),
    click.option(
        "--std",
        type=_THREE_FLOATS,
        metavar="R G B",
        help="Standard deviation of each channel, for pixel values in 0..1.  [default: the model's own]",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingOptions:
    """The values of the options that `preprocessing_options` adds; None where one is not given."""

    img_size: int | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    interpolation: str | None = None
    mean: _Three | None = None
    std: _Three | None = None

    def given(self) -> dict[str, Any]:
        """Return the options that are given."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def applied_to(self, model: LoadedModel) -> LoadedModel:
        """Return the model with the given options applied to its transform.

        Raises:
            click.UsageError: a value is impossible or would do nothing, or the preprocessing is another library's.
        """
        from wds_real.image.transform import EvalTransform

        given = self.given()
        if not given:
            return model
        if not isinstance(model.transform, EvalTransform):
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise click.UsageError(
                f"{model.spec} is preprocessed by {model.transform.name}, which {options} cannot change."
            )
        try:
            transform = replace(model.transform, **given)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        bordered = transform.crop_mode == "border"  # the border that it adds has the colour of the mean
        unused = [name for name in ("mean", "std") if name in given and not (name == "mean" and bordered)]
        if model.takes_pixels and unused:
            raise click.UsageError(
                f"--{' and --'.join(unused)} would do nothing: {model.spec} takes pixels, 0 to 255, and normalises "
                "them itself."
            )
        return replace(model, transform=transform)


def preprocessing_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the preprocessing to a command, which gets them as `preprocessing`."""
    names = [field.name for field in fields(PreprocessingOptions)]

    @functools.wraps(function)
    def command(*arguments: Any, **others: Any) -> None:
        given = PreprocessingOptions(**{name: others.pop(name) for name in names})
        function(*arguments, preprocessing=given, **others)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command
