"""``wds-real export``: the side files by which other libraries read the shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wds_real.cli.console import counted, print_lines
from wds_real.cli.options import local_path, storage_option
from wds_real.errors import first_few
from wds_real.storage.url import is_url, redact_url

if TYPE_CHECKING:
    from wds_real.interop.exports import SideFileForm


@click.command("export")
@click.argument("root", default="shards")
@click.option(
    "--format",
    "form",
    type=click.Choice(["timm", "dali", "hf", "croissant"]),
    required=True,
    help="timm: _info.json; dali: an .idx for each shard; hf: README.md, a dataset card that "
    "datasets.load_dataset(ROOT) reads; croissant: croissant.json.",
)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    callback=local_path,
    help="Write to DIR.  [default: beside the shards, if they are in a folder]",
)
@click.option("--overwrite", is_flag=True, help="Replace files that have another content.")
@storage_option
def command(
    root: str, form: SideFileForm, output: str | None, overwrite: bool, storage_options: dict[str, str]
) -> None:
    """Write the side files by which another library reads the shards in ROOT (default: shards).

    Shards, index and digest stay as they are. The files name the shards relative to their own folder.
    If DIR is another folder, which a ROOT at a URL requires, copy the files beside the shards.
    """
    from wds_real.data.dataset import open_dataset
    from wds_real.interop.exports import side_files, write_side_files
    from wds_real.storage.local import LocalStore

    if output is None and is_url(root):
        raise click.UsageError(
            f"{redact_url(root)} is a URL: side files are written to folders. Pass -o DIR, and copy them beside the "
            "shards."
        )
    place = root if output is None else output
    files = side_files(open_dataset(root, storage_options=storage_options), form)
    written = write_side_files(LocalStore(Path(place)), files, overwrite=overwrite)
    kept = f", {len(files) - len(written):,} up to date" if len(written) < len(files) else ""
    print_lines(f"{place}: wrote {counted(len(written), 'file')} for {form}{kept} ({first_few(list(files))})")
