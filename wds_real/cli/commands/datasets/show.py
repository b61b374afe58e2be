"""``wds-real show``: a contact sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wds_real.cli.choice_options import choice_options
from wds_real.cli.console import counted, print_lines
from wds_real.cli.options import local_path
from wds_real.cli.plots import write_figure

if TYPE_CHECKING:
    from wds_real.cli.choice_options import Choice
    from wds_real.explore.figures import Figure


@click.command("show")
@choice_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="examples.png",
    show_default=True,
    callback=local_path,
    help="File to write: .png, .jpg, .svg or .pdf.",
)
@click.option(
    "-n",
    "--num-images",
    type=click.IntRange(1, 500),
    default=24,
    show_default=True,
    help="Maximum number of images.",
)
@click.option("--columns", type=click.IntRange(1, 50), default=6, show_default=True, help="Images in a row.")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Choose at random, from this seed.  [default: the first images]"
)
def command(choice: Choice, output: str, num_images: int, columns: int, seed: int | None) -> None:
    """Draw images of ROOT (default: shards) with both labels, and the answers of --predictions.

    Without KEYS and --where, the first images are shown. --where chooses by labels and predictions: --where 'len(real)
    > 1', --where 'original not in real', --where 'class == "tench"', --where 'predicted not in real' --predictions
    FILE, --where 'flipped(A, B)' with two files.
    """
    dataset, predictions, _ = choice.open()

    def draw() -> Figure:
        from wds_real.explore.contact_sheet import show_examples

        return show_examples(
            dataset,
            choice.keys,
            where=choice.where,
            predictions=predictions,
            num_images=num_images,
            columns=columns,
            seed=seed,
        )

    sheet = write_figure(output, draw)
    print_lines(f"wrote {output}, {counted(len(sheet.axes), 'image')}")
