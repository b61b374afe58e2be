"""``wds-real score``: accuracy from a prediction file."""

from __future__ import annotations

import click

from wds_real.cli.console import counted, print_json, print_lines, print_message, print_result
from wds_real.cli.options import json_option, per_class_option, real_json_option
from wds_real.labels import load_real_json


@click.command("score")
@click.argument("predictions")
@real_json_option
@click.option(
    "--threshold",
    type=float,
    help="Take ReaL labels from the published rater scores, with this threshold instead of the released 0.8.",
)
@click.option("--name-column", metavar="NAME", help="Column of the file names or keys.  [default: found by its name]")
@click.option("--class-column", metavar="NAME", help="Column of the predicted classes.  [default: found by its name]")
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

    PREDICTIONS is a CSV, TSV, JSON, JSONL, NPY, NPZ or Parquet file. Each image has a class index 0..999, a wnid or
    1,000 scores, and its file name or key. A file without names holds all 50,000 images in the order of their file
    names. Exit code 3 if images are missing.
    """
    if real_json is not None and threshold is not None:
        raise click.UsageError("--real-json and --threshold exclude each other: each chooses the ReaL labels.")
    from wds_real.scoring.prediction_reader import read_predictions
    from wds_real.scoring.score import score

    labels = None if real_json is None else load_real_json(real_json)
    read = read_predictions(predictions, name_column=name_column, class_column=class_column)
    result = score(read, labels=labels, threshold=threshold, allow_partial=allow_partial)
    if as_json:
        print_json(result.as_dict())
        return
    chosen = "" if threshold is None else f", ReaL labels with rater scores above {threshold}"
    print_lines(f"{predictions}: {counted(len(read), 'prediction')}, {read.origin}{chosen}")
    print_result(result, per_class=per_class)
    if result.original_top1.value < 0.02 and result.original_top1.total >= 100:
        print_message(
            " fewer than 2 % are correct. Check that class indices start at 0, and that images without names are in "
            "the order of their file names."
        )
