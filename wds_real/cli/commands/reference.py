"""``wds-real reference``: the published results that `eval` and `score` compare with."""

from __future__ import annotations

from dataclasses import asdict

import click

from wds_real.cli.console import print_json, print_lines
from wds_real.cli.options import json_option
from wds_real.errors import PredictionsError
from wds_real.labels import NUM_IMAGES
from wds_real.labels.published import NUM_LABELLED, find_published, published_results


@click.command("reference")
@click.argument("pattern")
@json_option
def command(pattern: str, as_json: bool) -> None:
    """List the published results of the models that match PATTERN: a timm name, with or without its tag, or "resnet*".

    The figures are timm's: images that each model gets right on the validation set, by original and by ReaL labels.
    """
    import difflib

    rows = find_published(pattern)
    if not rows:
        names = sorted(
            {row.model for row in published_results()} | {row.model.split(".")[0] for row in published_results()}
        )
        similar = ", ".join(difflib.get_close_matches(pattern, names, n=4)) or "none"
        raise PredictionsError(f"{pattern}: no published result has this name. Similar: {similar}.")
    if as_json:
        print_json({"results": [asdict(row) for row in rows]})
        return
    width = max(len(row.model) for row in rows)
    heads = ("size", "crop", "interpolation", "original top-1", "top-5", "ReaL top-1", "top-5", "parameters")
    print_lines(
        f"{'model':<{width}}  {heads[0]:>4}  {heads[1]:>5}  {heads[2]:<13}  " + "  ".join(f"{h:>16}" for h in heads[3:])
    )
    for row in rows:
        shown = [
            f"{count:>6,} ({100 * count / total:.3f})"
            for count, total in (
                (row.original_top1, NUM_IMAGES),
                (row.original_top5, NUM_IMAGES),
                (row.real_top1, NUM_LABELLED),
                (row.real_top5, NUM_LABELLED),
            )
        ]
        figures = "  ".join(f"{text:>16}" for text in (*shown, f"{row.parameters_millions:.2f} M"))
        print_lines(
            f"{row.model:<{width}}  {row.img_size:>4}  {row.crop_pct:>5.3f}  {row.interpolation:<13}  {figures}"
        )
