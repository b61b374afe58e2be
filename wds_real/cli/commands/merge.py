"""``wds-real merge``: result and predictions from the records of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wds_real.cli.console import print_json, print_lines, print_result
from wds_real.cli.options import json_option, path_or_url, per_class_option, storage_option, url_options
from wds_real.cli.output_options import output_errors, output_option_option, place_of_output
from wds_real.errors import PredictionsError

if TYPE_CHECKING:
    from wds_real.scoring.predictions import Format


@click.command("merge")
@click.argument("output", metavar="DIR|URL", callback=path_or_url)
@click.option("--root", metavar="ROOT", help="Folder or URL of the data set.  [default: the one of the run]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "npz", "parquet"]),
    default="csv",
    show_default=True,
    help="Format of the prediction file.",
)
@per_class_option
@storage_option
@output_option_option
@json_option
def command(
    output: str,
    root: str | None,
    form: Format,
    storage_options: dict[str, str],
    storage: dict[str, str],
    per_class: bool,
    as_json: bool,
) -> None:
    """Write result.json and predictions from the records in DIR or at URL, the --output of an eval.

    Exit code 3 if the run was not finished: the message says which images are missing, and nothing is written.
    """
    from wds_real.data.dataset import open_dataset
    from wds_real.scoring.run.description import read_run
    from wds_real.scoring.run.output import merge, write_output

    with output_errors(output):
        place = place_of_output(output, storage, None, storage_options)
        run = read_run(place)
    root = root or run.get("root")
    if not isinstance(root, str) or not isinstance(run["identity"].get("split"), str):
        raise PredictionsError(f"{place}/run.json does not name the data set and its split. Use --root.")
    dataset = open_dataset(root, split=run["identity"]["split"], storage_options=url_options(root, storage_options))
    with output_errors(output), place.owned("merge"):
        result, predictions = merge(place, dataset)
        write_output(place.store, result, predictions, form=form)
    if as_json:
        print_json(result.as_dict())
    else:
        print_result(result, per_class=per_class)
        print_lines(f"wrote {place}/result.json and {place}/predictions.{form}")
