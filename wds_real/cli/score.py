"""``wds-real score``: accuracy from a prediction file."""

from __future__ import annotations

import click

from wds_real.cli.console import is_main_rank, json_option, per_class_option, print_json, print_result
from wds_real.labels import load_real_json


@click.command("score")
@click.argument("predictions")
@click.option("--real-json", metavar="FILE", help="ReaL labels to use in place of the released ones that come bundled.")
@click.option("--threshold", type=float, help="Cut the published rater scores here instead (released: 0.8).")
@click.option("--name-column", metavar="NAME", help="The column of file names or keys, if its name does not tell.")
@click.option("--class-column", metavar="NAME", help="The column of predicted classes, if its name does not tell.")
@click.option("--allow-partial", is_flag=True, help="Score only the images that are in the file.")
@per_class_option
@json_option
def command(
    predictions: str,
    real_json: str | None,
    threshold: float | None,
    name_column: str | None,
    class_column: str | None,
    allow_partial: bool,
    per_class: bool,
    as_json: bool,
) -> None:
    """Score PREDICTIONS against the original and the ReaL labels; no model and no images are needed.

    PREDICTIONS is a CSV, TSV, JSON, JSONL, NPY, NPZ or Parquet file: class indices 0..999, wnids or 1,000 scores, with
    the file name or key of each image, or all 50,000 in the order of the sorted file names. Exit code 3 if images are
    missing.
    """
    if not is_main_rank():
        return
    if real_json is not None and threshold is not None:
        raise click.UsageError("--real-json and --threshold exclude each other: both say which ReaL labels to use.")
    from wds_real.scoring.predictions import read_predictions
    from wds_real.scoring.score import score

    labels = None if real_json is None else load_real_json(real_json)
    read = read_predictions(predictions, name_column=name_column, class_column=class_column)
    result = score(read, labels=labels, threshold=threshold, allow_partial=allow_partial)
    if as_json:
        print_json(result.as_dict())
        return
    cut = "" if threshold is None else f", ReaL labels cut at {threshold}"
    click.echo(f"{predictions}: {len(read):,} predictions, {read.origin}{cut}")
    print_result(result, per_class=per_class)
    if result.original_top1.value < 0.02 and result.original_top1.total >= 100:
        click.echo(" nearly none is right: are the classes counted from 1, or the images in another order?", err=True)
