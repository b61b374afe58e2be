"""``wds-real score``: accuracy from a prediction file."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import click

from wds_real.cli.console import counted, print_json, print_lines, print_message, print_result
from wds_real.cli.model_options import class_options
from wds_real.cli.options import (
    export_classes_option,
    json_option,
    per_class_option,
    prediction_options,
    refuse_unused_options,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wds_real.cli.options import PredictionOptions
    from wds_real.scoring.predictions import Predictions


@click.command("score")
@click.argument("predictions")
@prediction_options
@class_options
@click.option(
    "--model",
    metavar="NAME",
    help="Name of the model in timm's published results, to compare with.  [default: the file's name]",
)
@click.option("--allow-partial", is_flag=True, help="Score only the images that are in the file.")
@per_class_option
@export_classes_option
@json_option
def command(
    predictions: str,
    options: PredictionOptions,
    class_map: str | None,
    background: Literal["first", "last"] | None,
    model: str | None,
    allow_partial: bool,
    per_class: bool,
    export_classes: str | None,
    as_json: bool,
) -> None:
    """Score PREDICTIONS against the original and the ReaL labels; no model and no images are needed.

    PREDICTIONS is a CSV, TSV, JSON, JSONL, NPY, NPZ or Parquet file, or the --output folder of an eval, at a path or a
    URL. Each image has a class index 0..999, a wnid or 1,000 scores, and its file name or key. A file without names
    holds all 50,000 images in the order of their file names. Exit code 3 if images are missing.

    If timm publishes results of the model, the last lines compare with them; `wds-real reference` lists them.
    """
    from wds_real.scoring.export import class_columns, write_table
    from wds_real.scoring.reading.folders import model_name
    from wds_real.scoring.reading.places import shown
    from wds_real.scoring.reproduction import compare_with_published
    from wds_real.scoring.score import score

    refuse_unused_options(options.storage_options, predictions)
    read = replace(options, class_map=class_map, background=background).read(predictions)
    result = score(read, labels=options.labels(), threshold=options.threshold, allow_partial=allow_partial)
    if export_classes is not None:
        write_table(export_classes, class_columns(result.breakdown))
    if as_json:
        print_json(result.as_dict())
        return
    threshold = options.threshold
    chosen = "" if threshold is None else f", ReaL labels with rater scores above {threshold}"
    print_lines(f"{shown(predictions)}: {counted(len(read), 'prediction')}, {read.origin}{chosen}")
    print_lines(*(f" note: {note}" for note in read.notes))
    print_result(result, per_class=per_class)
    found = compare_with_published(result, model or model_name(predictions))
    if found is not None:
        print_lines(*str(found).split("\n"))
    if result.original_top1.value < 0.02 and result.original_top1.total >= 100:
        print_message(f" fewer than 2 % are correct: {_likely_mistake(read, options.storage_options)}")


def _likely_mistake(read: Predictions, storage_options: Mapping[str, str]) -> str:
    """Return which known mistake of order or class numbers would explain the predictions, and where to see more."""
    from wds_real.scoring.diagnosis import diagnose_predictions
    from wds_real.scoring.reading.places import option_words

    diagnosis = diagnose_predictions(read)
    words = ["wds-real", "diagnose", read.source, *option_words(read.source, storage_options)]
    return f"{diagnosis.verdict}. `{shlex.join(words)}` shows all that was tried."
