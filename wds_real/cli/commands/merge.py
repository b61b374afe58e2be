"""``wds-real merge``: result and predictions from the records of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wds_real.cli.console import print_json, print_lines, print_result
from wds_real.cli.options import json_option, local_path, per_class_option, storage_option
from wds_real.errors import PredictionsError

if TYPE_CHECKING:
    from wds_real.scoring.predictions import Format


@click.command("merge")
@click.argument("folder", metavar="DIR", callback=local_path)
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
@json_option
def command(
    folder: str, root: str | None, form: Format, storage_options: dict[str, str], per_class: bool, as_json: bool
) -> None:
    """Write result.json and predictions from the records in DIR, the --output folder of an eval.

    Exit code 3 if the run was not finished: the message says which images are missing, and nothing is written.
    """
    from wds_real.data.dataset import open_dataset
    from wds_real.scoring.run.output import merge, write_output
    from wds_real.scoring.run.output_folder import owned
    from wds_real.scoring.run.records import read_run
    from wds_real.storage.local import LocalStore

    run = read_run(folder)
    if not isinstance(root or run.get("root"), str) or not isinstance(run["identity"].get("split"), str):
        raise PredictionsError(f"{folder}/run.json does not name the data set and its split. Use --root.")
    dataset = open_dataset(root or run["root"], split=run["identity"]["split"], storage_options=storage_options)
    with owned(folder, "merge"):
        result, predictions = merge(folder, dataset)
        write_output(LocalStore(Path(folder)), result, predictions, form=form)
    if as_json:
        print_json(result.as_dict())
    else:
        print_result(result, per_class=per_class)
        print_lines(f"wrote {folder}/result.json and {folder}/predictions.{form}")
