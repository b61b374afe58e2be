"""``wds-real compare``: the paired difference of two prediction files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wds_real.cli.console import print_json, print_lines
from wds_real.cli.options import ORDER_CHOICE, export_classes_option, json_option, local_path, prediction_options

if TYPE_CHECKING:
    from typing import Literal

    from wds_real.cli.options import PredictionOptions


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
@prediction_options
@click.option("--name-column-b", metavar="NAME", help="The same in file B.  [default: as --name-column]")
@click.option("--class-column-b", metavar="NAME", help="The same in file B.  [default: as --class-column]")
@click.option("--order-b", type=ORDER_CHOICE, help="The same for file B.  [default: as --order]")
@click.option(
    "--export-flips",
    metavar="FILE",
    callback=local_path,
    help="Write the images that only one of the two gets right to FILE, a .csv or .parquet.",
)
@export_classes_option
@json_option
def command(
    a: str,
    b: str,
    against: Literal["real", "original"],
    options: PredictionOptions,
    name_column_b: str | None,
    class_column_b: str | None,
    order_b: str | None,
    export_flips: str | None,
    export_classes: str | None,
    as_json: bool,
) -> None:
    """Compare the prediction files or --output folders A and B on the images that are in both.

    Prints the paired difference of the accuracies, McNemar's test, and how many images only one of the two gets right.
    A and B may be two columns of one file: name both.
    """
    from wds_real.scoring.comparison import classes_compared, compare, flip_columns
    from wds_real.scoring.export import write_table

    read_a = options.read(a)
    read_b = options.read(b, name_column=name_column_b, class_column=class_column_b, order=order_b)
    comparison = compare(read_a, read_b, against=against, labels=options.labels(), threshold=options.threshold)
    if export_flips is not None:
        write_table(export_flips, flip_columns(comparison))
    if export_classes is not None:
        write_table(export_classes, classes_compared(comparison))
    if as_json:
        print_json({"files": {"a": a, "b": b}, **comparison.as_dict()})
        return
    for title, path, read in (("A", a, read_a), ("B", b, read_b)):
        print_lines(f"{title} {path}", *(f" note: {note}" for note in read.notes))
    print_lines(*str(comparison).split("\n"))
