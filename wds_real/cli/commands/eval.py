"""``wds-real eval``: evaluate a model, on one process or under torchrun."""

from __future__ import annotations

import functools
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from wds_real.cli.console import is_main_rank, print_json, print_lines, print_result, progress_bar
from wds_real.cli.memory import keep_freed_memory
from wds_real.cli.model_options import ModelCommand, model_options
from wds_real.cli.options import (
    MAX_BATCH_SIZE,
    MAX_THREADS,
    cache_options,
    json_option,
    local_path,
    open_cache,
    per_class_option,
    quiet_option,
    storage_option,
)
from wds_real.cli.output_options import kept_in, output_options
from wds_real.cli.preprocessing_options import preprocessing_options
from wds_real.cli.ranks import SAME_IN_EVALUATION, same_on_all_ranks
from wds_real.cli.several import SeveralOptions, evaluate_several, named_models
from wds_real.cli.signals import kept_if_stopped
from wds_real.errors import ModelError

if TYPE_CHECKING:
    from wds_real.cli.model_options import ModelOptions
    from wds_real.cli.output_options import OutputOptions
    from wds_real.cli.preprocessing_options import PreprocessingOptions
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.scoring.result import Result
    from wds_real.scoring.run.place import OutputPlace

_DOWNLOADS = "evaluation.models.downloads"  # logged on all ranks, as one rank of each node downloads


@click.command("eval", cls=ModelCommand)
@click.argument("root", default="shards")
@click.option(
    "-m",
    "--model",
    "specs",
    required=True,
    multiple=True,
    metavar="MODEL",
    help="timm:NAME, torchvision:NAME, hf:FOLDER or hf:USER/MODEL (transformers), open_clip:ARCH/TAG, "
    "package.module:factory, efficientnet_lite0, or a file: .onnx, .tflite, .xml (OpenVINO), .pt2 (torch.export, "
    "AOTInductor), .pt (TorchScript). For several models: repeat -m, or give timm:'resnet*', @FILE with one model per "
    "line, or a folder of model files.",
)
@model_options
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(1, MAX_BATCH_SIZE),
    default=256,
    show_default=True,
    help="Images per batch on each rank.",
)
@click.option(
    "-j",
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    help="Decoding threads per rank.  [default: one per available core]",
)
@click.option("--split", metavar="SPLIT", help="Part of the data set in TFDS's notation, such as 'validation[:10%]'.")
@preprocessing_options
@click.option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...  [default: this rank's accelerator, else cpu]")
@click.option("--amp", is_flag=True, help="Run the model under torch.autocast.")
@click.option(
    "--amp-dtype",
    type=click.Choice(["float16", "bfloat16"]),
    default="float16",
    show_default=True,
    help="Precision under --amp.",
)
@click.option("--channels-last", is_flag=True, help="Use the channels-last memory format.")
@click.option("--torchcompile", is_flag=True, help="Compile the model with torch.compile.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "record"]),
    default="raise",
    show_default=True,
    help="raise: stop at an unreadable image; record: count unreadable images as wrong, and show the best possible "
    "accuracy.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=1800.0,
    show_default=True,
    help="Seconds to wait for the other ranks, at the start and at the end.",
)
@output_options
@click.option(
    "--models-at-once",
    type=click.IntRange(1, 1024),
    default=8,
    show_default=True,
    help="Maximum number of models in memory; those with the same preprocessing share each decoded batch.",
)
@click.option(
    "--skip-existing",
    is_flag=True,
    help="With several models: skip those whose folder in --output already holds a result.",
)
@click.option(
    "--pixel-cache",
    metavar="DIR",
    callback=local_path,
    help="Keep the transformed pixels in DIR (7.5 GB for 224x224); later evaluations read them instead of decoding.",
)
@cache_options
@storage_option
@per_class_option
@quiet_option
@json_option
def command(
    root: str,
    specs: tuple[str, ...],
    model_options: ModelOptions,
    batch_size: int,
    threads: int | None,
    split: str | None,
    preprocessing: PreprocessingOptions,
    device: str | None,
    amp: bool,
    amp_dtype: str,
    channels_last: bool,
    torchcompile: bool,
    on_error: Literal["raise", "record"],
    timeout_s: float,
    output: OutputOptions,
    models_at_once: int,
    skip_existing: bool,
    pixel_cache: str | None,
    cache: str | None,
    cache_bytes: int | None,
    storage_options: dict[str, str],
    per_class: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Evaluate MODEL on the data set in ROOT (default: shards), each image exactly once.

    On many GPUs: torchrun --nnodes N --nproc-per-node 8 -m wds_real eval ROOT -m MODEL. Exit code 3, and no accuracy,
    if an image is missing or counted twice. Each of several models gets a folder in --output and a row of the table. A
    model that fails does not stop the others; the exit code is then 1.
    """
    Path.cwd()  # raises if the folder was removed, where importing torch would end the process
    keep_freed_memory()
    from wds_real.data.dataset import open_dataset
    from wds_real.evaluation.loop import evaluate
    from wds_real.evaluation.models.load import is_factory
    from wds_real.evaluation.options import EvalOptions
    from wds_real.evaluation.shares import run_share

    world = output.independent_world()
    told = ("evaluation", "data.decode_stage") if is_main_rank() else (_DOWNLOADS,)
    for module in () if quiet else told:
        logging.getLogger(f"wds_real.{module}").setLevel(logging.INFO)
    with same_on_all_ranks():
        place = output.place(root, storage_options)
        change = functools.partial(_changed, preprocessing=preprocessing, pixel_cache=pixel_cache)
        sources, several = named_models(specs, model_options, change, asked=preprocessing.given())
        _check_use(several, output, skip_existing, per_class)
        dataset = open_dataset(root, split=split, storage_options=storage_options, cache=open_cache(cache, cache_bytes))
        if any(is_factory(source.name) for source in sources):
            sys.path.append("")  # factories are found in the current folder, after all installed packages
        model = None if several else sources[0].load()
    options = EvalOptions(
        batch_size=batch_size,
        threads=threads,
        device=device,
        amp=amp,
        amp_dtype=amp_dtype,
        channels_last=channels_last,
        torchcompile=torchcompile,
        on_error=on_error,
        pixel_cache=pixel_cache,
        timeout_s=timeout_s,
        save_every_s=output.save_every_s,
    )
    if model is None:
        with_models = SeveralOptions(
            output=place, models_at_once=models_at_once, skip_existing=skip_existing, quiet=quiet, as_json=as_json
        )
        evaluate_several(sources, dataset, options, with_models)
        return
    saved = "no batch was saved; use --output to be able to resume"
    if place is not None:
        saved = kept_in(place)
    result: Result | None
    with (
        same_on_all_ranks(SAME_IN_EVALUATION),
        kept_if_stopped(saved),
        progress_bar("eval", len(dataset), unit="images", quiet=quiet or not is_main_rank()) as progress,
    ):
        if world is None or place is None:
            result = evaluate(model, dataset, options=options, output=place, progress=progress)
        else:
            share = run_share(model, dataset, place, world, steal=output.steal, options=options, progress=progress)
            result = share.result
    if not is_main_rank():
        return
    if result is None:
        print_json(share.as_dict()) if as_json else print_lines(f"{share}.")
    elif as_json:
        print_json(result.as_dict())
    else:
        _print_found(result, place, per_class=per_class)


def _print_found(result: Result, place: OutputPlace | None, *, per_class: bool) -> None:
    """Print a result, its comparison with published results, the timings, and where it was written."""
    from wds_real.scoring.reproduction import compare_with_published, published_name

    print_result(result, per_class=per_class)
    found = compare_with_published(result, published_name(result.model), preprocessing=result.preprocessing)
    if found is not None:
        print_lines(*str(found).split("\n"))
    _print_timings(result)
    if place is not None:
        print_lines(f"wrote {place}/result.json and {place}/predictions.csv")


def _check_use(several: bool, output: OutputOptions, skip_existing: bool, per_class: bool) -> None:
    """Refuse options that do not fit the number of models, or one another."""
    if skip_existing and not several:
        raise click.UsageError(
            "--skip-existing is for several models. A finished evaluation of one runs no batch again."
        )
    if several and output.is_independent:
        raise click.UsageError("independent ranks evaluate one model: start them for each model by itself.")
    if skip_existing and output.output is None:
        raise click.UsageError("--skip-existing looks for results in --output: add it.")
    if per_class and several:
        raise click.UsageError("--per-class is for one model. result.json of each model has the numbers of each class.")


def _changed(model: LoadedModel, *, preprocessing: PreprocessingOptions, pixel_cache: str | None) -> LoadedModel:
    """Return the model with the preprocessing of the options.

    Raises:
        ModelError: the options do not fit its preprocessing, or its pixels cannot be cached.
    """
    from wds_real.evaluation.loop import check_pixel_cache

    if pixel_cache is not None:
        check_pixel_cache(model)
    try:
        return preprocessing.applied_to(model)
    except click.UsageError as error:
        raise ModelError(error.message) from error


def _print_timings(result: Result) -> None:
    timings = result.run["timings"]
    if timings["images_per_s"]:
        print_lines(
            f" {timings['images_per_s']:,.0f} images/s, {timings['total_s']:,.1f} s, of which "
            f"{timings['waited_for_data_s']:,.1f} s waiting for data; slowest stage: {timings['bottleneck']}"
        )
