"""``wds-real eval``: evaluate a model, on one process or under torchrun."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from wds_real.cli.console import is_main_rank, print_json, print_lines, print_result, progress_bar
from wds_real.cli.model_options import ModelCommand, model_options
from wds_real.cli.options import (
    cache_options,
    json_option,
    local_path,
    open_cache,
    per_class_option,
    quiet_option,
    storage_option,
)
from wds_real.cli.signals import kept_if_stopped
from wds_real.errors import WdsRealError
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wds_real.cli.model_options import ModelOptions
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.scoring.result import Result

_DOWNLOADS = "evaluation.models.downloads"  # one rank of each node does them, and says so
_Floats = tuple[float, float, float]
_THREE_FLOATS = click.Tuple([float, float, float])


@click.command("eval", cls=ModelCommand)
@click.argument("root", default="shards")
@click.option(
    "-m",
    "--model",
    "spec",
    required=True,
    metavar="MODEL",
    help="timm:NAME, torchvision:NAME, hf:FOLDER or hf:USER/MODEL (transformers), open_clip:ARCH/TAG, "
    "package.module:factory, FILE.pt2 (from torch.export) or efficientnet_lite0.",
)
@model_options
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Images per batch on each rank.",
)
@click.option(
    "-j", "--threads", type=click.IntRange(min=1), help="Decoding threads per rank.  [default: one per available core]"
)
@click.option("--split", metavar="SPLIT", help="Part of the data set in TFDS's notation, such as 'validation[:10%]'.")
@click.option(
    "--img-size",
    type=click.IntRange(min=1),
    help="Height and width of the model's input, in pixels.  [default: the model's own]",
)
@click.option(
    "--crop-pct",
    type=click.FloatRange(min=0, min_open=True),
    help="Share of the resized image's side that the centre crop keeps.  [default: the model's own]",
)
@click.option(
    "--crop-mode",
    type=click.Choice(["center", "squash", "border", "center_floor"]),
    help="How to crop.  [default: the model's own]",
)
@click.option(
    "--interpolation",
    type=click.Choice(["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"]),
    help="How to resize.  [default: the model's own]",
)
@click.option(
    "--mean",
    type=_THREE_FLOATS,
    metavar="R G B",
    help="Mean of each channel, for pixel values in 0..1.  [default: the model's own]",
)
@click.option(
    "--std",
    type=_THREE_FLOATS,
    metavar="R G B",
    help="Standard deviation of each channel, for pixel values in 0..1.  [default: the model's own]",
)
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
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    callback=local_path,
    help="Write result.json and predictions.csv to DIR, and a record of each finished batch, from which the same "
    "command resumes.",
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
    spec: str,
    model_options: ModelOptions,
    batch_size: int,
    threads: int | None,
    split: str | None,
    img_size: int | None,
    crop_pct: float | None,
    crop_mode: str | None,
    interpolation: str | None,
    mean: _Floats | None,
    std: _Floats | None,
    device: str | None,
    amp: bool,
    amp_dtype: str,
    channels_last: bool,
    torchcompile: bool,
    on_error: Literal["raise", "record"],
    timeout_s: float,
    output: str | None,
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
    if an image is missing or counted twice.
    """
    Path.cwd()  # where it was removed, importing torch ends the process
    from wds_real.data.dataset import open_dataset
    from wds_real.evaluation.loop import evaluate
    from wds_real.evaluation.models.load import is_factory
    from wds_real.evaluation.options import EvalOptions
    from wds_real.scoring.output_folder import check_output
    from wds_real.scoring.reproduction import compare_with_published, published_name

    told = ("evaluation", "data.decode_stage") if is_main_rank() else (_DOWNLOADS,)
    for module in () if quiet else told:
        logging.getLogger(f"wds_real.{module}").setLevel(logging.INFO)
    with _reported_by_rank_0():
        if output is not None:
            check_output(output)
        dataset = open_dataset(root, split=split, storage_options=storage_options, cache=open_cache(cache, cache_bytes))
        if is_factory(spec):  # found in the current folder, after all installed packages
            sys.path.append("")
        loaded = model_options.load(spec)
    if pixel_cache is not None and not isinstance(loaded.transform, EvalTransform):
        raise click.UsageError(
            f"{spec} is preprocessed by {loaded.transform.name}: --pixel-cache cannot keep its pixels."
        )
    geometry = {"img_size": img_size, "crop_pct": crop_pct, "crop_mode": crop_mode, "interpolation": interpolation}
    model = _with_transform(loaded, {**geometry, "mean": mean, "std": std})
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
    )
    saved = "no batch was saved; use --output to be able to resume"
    if output is not None:
        saved = f"the finished batches are saved in {output}; run the same command to resume"
    with (
        kept_if_stopped(saved),
        progress_bar("eval", len(dataset), unit="images", quiet=quiet or not is_main_rank()) as progress,
    ):
        result = evaluate(model, dataset, options=options, output=output, progress=progress)
    if not is_main_rank():
        return
    if as_json:
        print_json(result.as_dict())
        return
    print_result(result, per_class=per_class)
    found = compare_with_published(result, published_name(result.model), preprocessing=result.preprocessing)
    if found is not None:
        print_lines(*str(found).split("\n"))
    _print_timings(result)
    if output is not None:
        print_lines(f"wrote {output}/result.json and {output}/predictions.csv")


@contextmanager
def _reported_by_rank_0() -> Iterator[None]:
    """Exit the other ranks without a message: in the block, all ranks meet the same errors."""
    try:
        yield
    except WdsRealError as error:
        if is_main_rank():
            raise
        sys.exit(error.exit_code)


def _with_transform(model: LoadedModel, changes: dict[str, Any]) -> LoadedModel:
    """Return the model with its transform changed by the options that are given."""
    given = {name: value for name, value in changes.items() if value is not None}
    if given and not isinstance(model.transform, EvalTransform):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(
            f"{model.spec} is preprocessed by {model.transform.name}, which {options} cannot change."
        )
    try:
        transform = replace(model.transform, **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return replace(model, transform=transform)


def _print_timings(result: Result) -> None:
    timings = result.run["timings"]
    if timings["images_per_s"]:
        print_lines(
            f" {timings['images_per_s']:,.0f} images/s, {timings['total_s']:,.1f} s, of which "
            f"{timings['waited_for_data_s']:,.1f} s waiting for data; slowest stage: {timings['bottleneck']}"
        )
