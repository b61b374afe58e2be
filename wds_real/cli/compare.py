"""``wds-real compare``: the paired difference of two prediction files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wds_real.cli.console import print_json, print_lines
from wds_real.cli.options import json_option, real_json_option
from wds_real.labels import load_real_json

if TYPE_CHECKING:
    from typing import Literal


@click.command("compare")
@click.argument("a")
@click.argument("b")
@click.option(
    "--against",
    type=click.Choice(["real", "original"]),
    default="real",
    show_default=True,
    help="Labels to compare by: ReaL or original.",
)
@real_json_option
@json_option
def command(a: str, b: str, against: Literal["real", "original"], real_json: str | None, as_json: bool) -> None:
    """Compare the prediction files A and B on the images that are in both.

    Prints the paired difference of the accuracies, McNemar's test, and how many images only one of the two gets right.
    """
    from wds_real.scoring.comparison import compare
    from wds_real.scoring.prediction_reader import read_predictions

    labels = None if real_json is None else load_real_json(real_json)
    comparison = compare(read_predictions(a), read_predictions(b), against=against, labels=labels)
    if as_json:
        print_json({"files": {"a": a, "b": b}, **comparison.as_dict()})
    else:
        print_lines(f"A {a}", f"B {b}", *str(comparison).split("\n"))
