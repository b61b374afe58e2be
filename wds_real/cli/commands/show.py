"""``wds-real show``: a contact sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wds_real.cli.choice_options import choice_options
from wds_real.cli.console import counted, print_lines
from wds_real.cli.options import local_path

if TYPE_CHECKING:
    from wds_real.cli.choice_options import Choice


@click.command("show")
@choice_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="examples.png",
    show_default=True,
    callback=local_path,
    help="A .png, .jpg, .svg or .pdf file.",
)
@click.option("-n", "--num-images", type=click.IntRange(1, 500), default=24, show_default=True, help="At most so many.")
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
    try:
        from wds_real.explore.contact_sheet import save, show_examples
    except ImportError as error:
        raise click.UsageError(f"show needs matplotlib ({error}). Install it: pip install 'wds_real[plot]'.") from error

    dataset, predictions, _ = choice.open()
    sheet = show_examples(
        dataset,
        choice.keys,
        where=choice.where,
        predictions=predictions,
        num_images=num_images,
        columns=columns,
        seed=seed,
    )
    save(sheet, output)
    print_lines(f"wrote {output}, {counted(len(sheet.axes), 'image')}")
