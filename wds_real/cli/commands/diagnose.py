"""``wds-real diagnose``: which known mistake explains an absurd accuracy."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from wds_real.cli.console import print_json, print_lines, progress_bar
from wds_real.cli.memory import keep_freed_memory
from wds_real.cli.model_options import ModelCommand, model_options
from wds_real.cli.options import (
    MAX_BATCH_SIZE,
    MAX_THREADS,
    cache_options,
    json_option,
    open_cache,
    quiet_option,
    refuse_unused_options,
    storage_option,
)
from wds_real.cli.preprocessing_options import preprocessing_options

if TYPE_CHECKING:
    from wds_real.cli.model_options import ModelOptions
    from wds_real.cli.preprocessing_options import PreprocessingOptions

_FOR_FILES = ("name_column", "class_column")
_FOR_BOTH = ("place", "spec", "storage_options", "as_json")
_NOT_IN_EVAL = ("num_images", "measured", "quiet", "batch_size", *_FOR_FILES, *_FOR_BOTH)


@click.command("diagnose", cls=ModelCommand)
@click.argument("place", metavar="[PREDICTIONS | ROOT]", required=False)
@click.option("--name-column", metavar="NAME", help="Column of the file names or keys.  [default: found by its name]")
@click.option("--class-column", metavar="NAME", help="Column of the predicted classes.  [default: found by its name]")
@click.option("-m", "--model", "spec", metavar="MODEL", help="Diagnose this model, named as for `wds-real eval`.")
@model_options
@preprocessing_options
@click.option(
    "-n", "--num-images", type=click.IntRange(min=1), default=1000, show_default=True,
    help="Maximum number of images to try the model on, evenly spread over the split.",
)  # fmt: skip
@click.option("--split", metavar="SPLIT", help="Part of the data set in TFDS's notation.")
@click.option(
    "--measured", type=click.FloatRange(min=0, max=100), metavar="PERCENT",
    help="Original top-1 of the model in another program: name the mistakes that would give it.",
)  # fmt: skip
@click.option(
    "-b", "--batch-size", type=click.IntRange(1, MAX_BATCH_SIZE), default=32, show_default=True,
    help="Images per batch.",
)  # fmt: skip
@click.option("-j", "--threads", type=click.IntRange(1, MAX_THREADS), help="Decoding threads.  [default: one per core]")
@click.option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...  [default: the accelerator, else cpu]")
@cache_options
@storage_option
@quiet_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    place: str | None,
    name_column: str | None,
    class_column: str | None,
    spec: str | None,
    model_options: ModelOptions,
    preprocessing: PreprocessingOptions,
    num_images: int,
    split: str | None,
    measured: float | None,
    batch_size: int,
    threads: int | None,
    device: str | None,
    cache: str | None,
    cache_bytes: int | None,
    storage_options: dict[str, str],
    quiet: bool,
    as_json: bool,
) -> None:
    """Say which known mistake would explain the accuracy of PREDICTIONS, a file or the --output folder of an eval.

    Each known mistake is undone, alone and together with others, and the accuracy is computed again: predictions in
    class-folder order, class numbers of the development kit, class numbers that count from 1, and so on. No file is
    changed.

    With -m, the model is run on some images of the data set in ROOT (default: shards) with other settings: mean and
    std, range of values, channel order, crop, interpolation, training mode. The verdict names the setting that is
    better by more than chance allows.
    """
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if spec is None:
        _check_only_for_files(context, given)
        _diagnose_file(
            place,
            name_column=name_column,
            class_column=class_column,
            storage_options=storage_options,
            as_json=as_json,
        )
        return
    if name_column is not None or class_column is not None:
        raise click.UsageError("--name-column and --class-column are for a file of predictions, not for a model.")
    Path.cwd()  # raises if the folder was removed, where importing torch would end the process
    keep_freed_memory()
    from wds_real.data.dataset import open_dataset
    from wds_real.evaluation.diagnosis.model import diagnose_model
    from wds_real.evaluation.models.load import is_factory
    from wds_real.evaluation.options import EvalOptions

    root = place or "shards"
    dataset = open_dataset(root, split=split, storage_options=storage_options, cache=open_cache(cache, cache_bytes))
    if is_factory(spec):  # found in the current folder, after all installed packages
        sys.path.append("")
    loaded = model_options.load(spec)
    diagnosis = diagnose_model(
        loaded,
        dataset,
        transform=preprocessing.applied_to(loaded).transform,
        num_images=num_images,
        measured=measured,
        options=EvalOptions(batch_size=batch_size, threads=threads, device=device),
        bar=lambda total: progress_bar("diagnose", total, unit="images", quiet=quiet),
    )
    if as_json:
        print_json(diagnosis.as_dict())
        return
    print_lines(*str(diagnosis).split("\n"))
    if diagnosis.options:
        words = _words(context, [name for name in given if name not in _NOT_IN_EVAL], replaced=diagnosis.options)
        print_lines(f" to do: {shlex.join(['wds-real', 'eval', root, '-m', spec, *words, *diagnosis.options])}")


def _diagnose_file(
    place: str | None,
    *,
    name_column: str | None,
    class_column: str | None,
    storage_options: dict[str, str],
    as_json: bool,
) -> None:
    from wds_real.scoring.diagnosis import diagnose_file

    if place is None:
        raise click.UsageError("give a file of predictions, or a model: -m MODEL.")
    refuse_unused_options(storage_options, place)
    diagnosis = diagnose_file(
        place, name_column=name_column, class_column=class_column, storage_options=storage_options
    )
    if as_json:
        print_json(diagnosis.as_dict())
    else:
        print_lines(*str(diagnosis).split("\n"))


def _check_only_for_files(context: click.Context, given: list[str]) -> None:
    """Refuse options that only a model takes."""
    others = [name for name in given if name not in (*_FOR_FILES, *_FOR_BOTH)]
    if others:
        raise click.UsageError(
            f"{' and '.join(_option(context, name).opts[-1] for name in others)}: give -m MODEL too."
        )


def _words(context: click.Context, names: list[str], *, replaced: tuple[str, ...]) -> list[str]:
    """Return the given options as words of a command, without those in `replaced`."""
    words: list[str] = []
    for name in names:
        option, value = _option(context, name), context.params[name]
        if option.opts[-1] in replaced:
            continue
        if isinstance(value, dict):
            values = [f"{key}={item}" for key, item in value.items()]
            words += [word for item in values for word in (option.opts[-1], item)]
        elif value is True:
            words.append(option.opts[-1])
        else:
            words += [option.opts[-1], *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def _option(context: click.Context, name: str) -> click.Parameter:
    return next(parameter for parameter in context.command.params if parameter.name == name)
