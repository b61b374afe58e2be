"""``wds-real diagnose``: which known mistake explains an absurd accuracy."""

from __future__ import annotations

import click

from wds_real.cli.console import print_json, print_lines
from wds_real.cli.options import json_option


@click.command("diagnose")
@click.argument("predictions")
@click.option("--name-column", metavar="NAME", help="Column of the file names or keys.  [default: found by its name]")
@click.option("--class-column", metavar="NAME", help="Column of the predicted classes.  [default: found by its name]")
@json_option
def command(predictions: str, name_column: str | None, class_column: str | None, as_json: bool) -> None:
    """Say which known mistake would explain the accuracy of PREDICTIONS, a file or the --output folder of an eval.

    Each mistake is undone, alone and with others, and the accuracy counted: predictions in class-folder order, class
    numbers of the development kit, counted from 1, of folders sorted as text, and so on. Nothing is changed.
    """
    from wds_real.scoring.diagnosis import diagnose_file
    from wds_real.scoring.output import find_predictions

    diagnosis = diagnose_file(find_predictions(predictions), name_column=name_column, class_column=class_column)
    if as_json:
        print_json(diagnosis.as_dict())
    else:
        print_lines(*str(diagnosis).split("\n"))
