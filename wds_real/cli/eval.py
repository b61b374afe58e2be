"""``wds-real eval``: a model over a data set, on one process or under torchrun."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from wds_real.cli.talk import is_main_rank, json_option, print_json, progress_bar
from wds_real.errors import WdsRealError

if TYPE_CHECKING:
    from wds_real.dataset import Dataset
    from wds_real.decode import EvalTransform
    from wds_real.evaluate import EvalOptions
    from wds_real.models import LoadedModel
    from wds_real.result import Result

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
@click.option("--img-size", type=click.IntRange(min=1), help="In place of the model's own.")
@click.option("--crop-pct", type=click.FloatRange(min=0, max=1, min_open=True), help="In place of the model's own.")
@click.option("--crop-mode", type=click.Choice(["center", "squash", "border"]), help="In place of the model's own.")
@click.option(
    "--interpolation",
    type=click.Choice(["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"]),
    help="In place of the model's own.",
)
@click.option("--mean", type=_THREE_FLOATS, metavar="R G B", help="Of values in 0..1; in place of the model's own.")
@click.option("--std", type=_THREE_FLOATS, metavar="R G B", help="Of values in 0..1; in place of the model's own.")
@click.option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...  [default: this rank's accelerator, or cpu]")
@click.option("--amp", is_flag=True, help="Run the model under autocast.")
@click.option("--amp-dtype", type=click.Choice(["float16", "bfloat16"]), default="float16", show_default=True)
@click.option("--channels-last", is_flag=True, help="Use channels-last memory.")
@click.option("--torchcompile", is_flag=True, help="Compile the model with torch.compile.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "record"]),
    default="raise",
    show_default=True,
    help="record: count unreadable samples and bound the accuracy.",
)
@click.option("-o", "--output", metavar="DIR", help="Write DIR/result.json.")
@json_option
def command(root: str, spec: str, split: str | None, output: str | None, as_json: bool, **settings: Any) -> None:  # noqa: ANN401
    """Evaluate MODEL on the data set in ROOT (default: shards), each image exactly once.

    On many GPUs: torchrun --nnodes N --nproc-per-node 8 -m wds_real eval ROOT -m MODEL. Exit code 3, and no accuracy,
    if a sample was missed or counted twice.
    """
    dataset, model, options = _setup(root, spec, split, settings)
    from wds_real.evaluate import evaluate

    mine = -(-len(dataset) // _world_size())
    with progress_bar("eval", mine, unit="images", hidden=as_json) as progress:
        result = evaluate(model.module, dataset, transform=model.transform, options=options, progress=progress)
    result = replace(result, model=model.identity)
    if not is_main_rank():
        return
    if output is not None:
        from wds_real.store import open_store

        open_store(output).put("result.json", _encoded(result))
    if as_json:
        print_json(result.as_dict())
    else:
        _print_result(result, dataset)


def _setup(
    root: str, spec: str, split: str | None, settings: dict[str, Any]
) -> tuple[Dataset, LoadedModel, EvalOptions]:
    """Open and load everything; what fails here fails on every rank, so only rank 0 says so."""
    from wds_real.dataset import open_dataset
    from wds_real.evaluate import EvalOptions
    from wds_real.models import load_model

    names = ("img_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    try:
        dataset = open_dataset(root, split=split)
        model = load_model(spec)
    except WdsRealError as error:
        if is_main_rank():
            raise
        sys.exit(error.exit_code)
    changes = {name: settings.pop(name) for name in names}
    transform: EvalTransform = replace(model.transform, **{k: v for k, v in changes.items() if v is not None})
    return dataset, replace(model, transform=transform), EvalOptions(**settings)


def _world_size() -> int:
    from wds_real.distributed import current_world

    return current_world().world_size


def _encoded(result: Result) -> bytes:
    return (json.dumps(result.as_dict(), indent=1) + "\n").encode("ascii")


def _print_result(result: Result, dataset: Dataset) -> None:
    click.echo(f"{result.model['name']} on {result.dataset['name']}, {result.dataset['split']}, {dataset.root}")
    click.echo(str(result))
    if dataset.manifest.partial or len(dataset) < dataset.manifest.num_samples:
        click.echo(f" partial: {len(dataset):,} of the 50,000 validation images; not an ImageNet accuracy")
    click.echo(f" digest {dataset.digest}")
    timings = result.run["timings"]
    click.echo(
        f" {timings['images_per_s']:,.0f} images/s, {timings['total_s']:,.1f} s, of which "
        f"{timings['waited_for_data_s']:,.1f} s waiting for data"
    )
