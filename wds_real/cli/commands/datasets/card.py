"""``wds-real card``: the data card of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wds_real.cli.console import print_bytes, print_lines
from wds_real.cli.options import local_path, storage_option

if TYPE_CHECKING:
    from wds_real.interop.cards import CardForm


@click.command("card")
@click.argument("root", default="shards")
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "hf", "croissant", "bibtex"]),
    default="md",
    show_default=True,
    help="md: Markdown; hf: a dataset card for Hugging Face; croissant: JSON-LD with RAI fields; bibtex: what to cite.",
)
@click.option("-o", "--output", metavar="FILE", callback=local_path, help="Write to FILE.  [default: stdout]")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it has another content.")
@storage_option
def command(root: str, form: CardForm, output: str | None, overwrite: bool, storage_options: dict[str, str]) -> None:
    """Print the data card of ROOT (default: shards).

    It has description, version, splits, features, statistics of labels and images, origin and licence, known limits,
    errors in other sources, and citation.
    """
    from wds_real.data.dataset import open_dataset
    from wds_real.interop.cards import card
    from wds_real.interop.exports import write_side_files
    from wds_real.storage.local import LocalStore

    data = card(open_dataset(root, storage_options=storage_options), form).encode("utf-8")
    if output is None:
        print_bytes(data)
        return
    path = Path(output)
    written = write_side_files(LocalStore(path.parent), {path.name: data}, overwrite=overwrite)
    print_lines(f"wrote {output}" if written else f"{output} is up to date")
