"""``wds-real eval``: a model over a data set, on one process or under torchrun."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wds_real.cli.console import (
    is_main_rank,
    json_option,
    per_class_option,
    print_json,
    print_result,
    progress_bar,
)
from wds_real.cli.options import cache_options, open_cache, open_data_set, storage_option
from wds_real.errors import WdsRealError

if TYPE_CHECKING:
    from wds_real.data.dataset import Dataset
    from wds_real.evaluation.loop import EvalOptions
    from wds_real.evaluation.models import LoadedModel
    from wds_real.image.transform import EvalTransform

_THREE_FLOATS = click.Tuple([float, float, float])


@click.command("eval")
@click.argument("root", default="shards")
@click.option(
    "-m",
    "--model",
    "spec",
    required=True,
    metavar="MODEL",
    help="timm:NAME, torchvision:NAME, package.module:factory, FILE.pt2 or efficientnet_lite0.",
)
@click.option("-b", "--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Samples a rank.")
@click.option(
    "-j", "--threads", type=click.IntRange(min=1), help="Decoding threads a rank.  [default: the cores it has]"
)
@click.option("--split", metavar="SPLIT", help="A part in TFDS's notation, such as 'validation[:10%]'.")
@click.option(
    "--img-size",
    type=click.IntRange(min=1),
    help="Height and width of the model's input, in pixels.  [default: the model's own]",
)
@click.option(
    "--crop-pct",
    type=click.FloatRange(min=0, min_open=True),
    help="Share of the resized image that the centre crop keeps.  [default: the model's own]",
)
@click.option(
    "--crop-mode", type=click.Choice(["center", "squash", "border"]), help="How to crop.  [default: the model's own]"
)
@click.option(
    "--interpolation",
    type=click.Choice(["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"]),
    help="How to resize.  [default: the model's own]",
)
@click.option(
    "--mean", type=_THREE_FLOATS, metavar="R G B", help="Per channel, of values in 0..1.  [default: the model's own]"
)
@click.option(
    "--std", type=_THREE_FLOATS, metavar="R G B", help="Per channel, of values in 0..1.  [default: the model's own]"
)
@click.option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...  [default: this rank's accelerator, or cpu]")
@click.option("--amp", is_flag=True, help="Run the model under autocast.")
@click.option(
    "--amp-dtype",
    type=click.Choice(["float16", "bfloat16"]),
    default="float16",
    show_default=True,
    help="Precision under --amp.",
)
@click.option("--channels-last", is_flag=True, help="Use channels-last memory.")
@click.option("--torchcompile", is_flag=True, help="Compile the model with torch.compile.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "record"]),
    default="raise",
    show_default=True,
    help="record: count unreadable samples and bound the accuracy.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=1800.0,
    show_default=True,
    help="Seconds a rank waits for the others, at the start and at the end.",
)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    help="Record each batch in DIR and resume from there; write result.json and predictions.csv.",
)
@click.option(
    "--pixel-cache",
    metavar="DIR",
    help="Keep the transformed pixels in DIR (7.5 GB for 224x224) and read them next time instead of decoding.",
)
@cache_options
@storage_option
@per_class_option
@json_option
def command(
    root: str, spec: str, split: str | None, output: str | None, per_class: bool, as_json: bool, **settings: Any
) -> None:
    """Evaluate MODEL on the data set in ROOT (default: shards), each image exactly once.

    On many GPUs: torchrun --nnodes N --nproc-per-node 8 -m wds_real eval ROOT -m MODEL. Exit code 3, and no accuracy,
    if a sample was missed or counted twice.
    """
    sys.path.insert(0, str(Path.cwd()))  # for package.module:factory, as `python -m` has it
    for module in ("evaluation.loop", "data.loader") if is_main_rank() else ():
        logging.getLogger(f"wds_real.{module}").setLevel(logging.INFO)
    dataset, model, options = _setup(root, spec, split, settings)
    from wds_real.data.distributed import current_world
    from wds_real.evaluation.loop import evaluate

    world = current_world()
    title = "eval" if world.world_size == 1 else f"eval, rank {world.rank} of {world.world_size}"
    try:
        with progress_bar(title, 0, unit="images", hidden=as_json) as progress:
            result = evaluate(model, dataset, options=options, output=output, progress=progress)
    except KeyboardInterrupt:
        kept = (
            "nothing was kept: use --output" if output is None else f"finished batches are in {output}: run this again"
        )
        click.echo(kept, err=True)
        raise
    if not is_main_rank():
        return
    if as_json:
        print_json(result.as_dict())
        return
    print_result(result, per_class=per_class)
    timings = result.run["timings"]
    if timings["images_per_s"]:
        click.echo(
            f" {timings['images_per_s']:,.0f} images/s, {timings['total_s']:,.1f} s, of which "
            f"{timings['waited_for_data_s']:,.1f} s waiting for data; slowest stage: {timings['bottleneck']}"
        )
    if output is not None:
        click.echo(f"wrote {output}/result.json and {output}/predictions.csv")


def _setup(
    root: str, spec: str, split: str | None, settings: dict[str, Any]
) -> tuple[Dataset, LoadedModel, EvalOptions]:
    """Open and load everything; what fails here fails on every rank, so only rank 0 says so."""
    from wds_real.evaluation.loop import EvalOptions
    from wds_real.evaluation.models import load_model

    names = ("img_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    try:
        cache = open_cache(settings.pop("cache"), settings.pop("cache_bytes"))
        dataset = open_data_set(root, settings.pop("storage_options"), split=split, cache=cache)
        model = load_model(spec)
    except WdsRealError as error:
        if is_main_rank():
            raise
        sys.exit(error.exit_code)
    changes = {name: settings.pop(name) for name in names}
    try:
        transform: EvalTransform = replace(model.transform, **{k: v for k, v in changes.items() if v is not None})
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _check_device(settings["device"])
    return dataset, replace(model, transform=transform), EvalOptions(**settings)


def _check_device(device: str | None) -> None:
    import torch

    if device is None:
        return
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise click.BadParameter(f"--device {device}: {str(error).splitlines()[0]}") from error
