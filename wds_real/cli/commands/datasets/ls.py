"""``wds-real ls``: the keys of images, with their labels if wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wds_real.cli.choice_options import choice_options
from wds_real.cli.console import print_json, print_lines
from wds_real.cli.options import json_option
from wds_real.labels import classes
from wds_real.labels.agreement import agreement

if TYPE_CHECKING:
    from wds_real.cli.choice_options import Choice
    from wds_real.data.dataset import Dataset


@click.command("ls")
@choice_options
@click.option("-l", "--long", is_flag=True, help="Print size and labels too.")
@json_option
def command(choice: Choice, long: bool, as_json: bool) -> None:
    """List the keys of the images in ROOT (default: shards), or of those with these KEYS.

    --where chooses by labels and predictions: --where 'len(real) > 1', --where 'original not in real', --where 'class
    == "tench"', --where 'predicted not in real' --predictions FILE, --where 'flipped(A, B)' with two files.
    """
    dataset, _, places = choice.open()
    keys, positions = dataset.index.keys, dataset.positions[places].tolist()
    if as_json:
        frame = dataset.as_dataframe().iloc[places]
        print_json({"samples": frame.to_dict(orient="records")})
    elif long:
        print_lines(*(_line(dataset, position) for position in positions))
    else:
        print_lines(*(keys[position] for position in positions))


def _line(dataset: Dataset, position: int) -> str:
    index = dataset.index
    original, real = int(index.original_label[position]), index.real_label[position]
    size = f"{index.width[position]}x{index.height[position]}" if index.width[position] else "?"
    named = ", ".join(classes()[label].name for label in real) or "-"
    return (
        f"{index.keys[position]}  {size:>9}  {int(index.num_bytes[position]):>9,}  {agreement(original, real):<15}  "
        f"{classes()[original].name} | {named}"
    )
