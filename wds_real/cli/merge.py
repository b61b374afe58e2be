"""``wds-real merge``: result and predictions from the records of a run, finished or not."""

from __future__ import annotations

from pathlib import Path

import click

from wds_real.cli.console import is_main_rank, json_option, per_class_option, print_json, print_result
from wds_real.cli.options import open_data_set, storage_option
from wds_real.errors import PredictionsError


@click.command("merge")
@click.argument("folder", metavar="DIR")
@click.option("--root", metavar="DIR", help="Where the data set lies now.  [default: where it lay for the run]")
@click.option(
    "--format", "form", type=click.Choice(["csv", "npz", "parquet"]), default="csv", show_default=True,
    help="Of the prediction file.",
)  # fmt: skip
@per_class_option
@storage_option
@json_option
def command(
    folder: str, root: str | None, form: str, storage_options: dict[str, str], per_class: bool, as_json: bool
) -> None:
    """Merge the records in DIR, the --output of an eval, into result.json and predictions.

    Exit code 3, and nothing written, if the run was not finished: the message says what is missing.
    """
    if not is_main_rank():
        return
    from wds_real.scoring.output import merge, write_output
    from wds_real.scoring.records import read_run
    from wds_real.storage.local import LocalStore

    run = read_run(folder)
    if not isinstance(root or run.get("root"), str) or not isinstance(run["identity"].get("split"), str):
        raise PredictionsError(f"{folder}/run.json does not say where the data set lies, or which split: give --root.")
    dataset = open_data_set(root or run["root"], storage_options, split=run["identity"]["split"])
    result, predictions = merge(folder, dataset)
    write_output(LocalStore(Path(folder)), result, predictions, form=form)  # type: ignore[arg-type]  # click checked it
    if as_json:
        print_json(result.as_dict())
    else:
        print_result(result, per_class=per_class)
        click.echo(f"wrote {folder}/result.json and {folder}/predictions.{form}")
