"""``wds-real verify``: is the packed data set whole?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wds_real.cli.console import is_main_rank, json_option, print_json, progress_bar
from wds_real.cli.options import storage_option

if TYPE_CHECKING:
    from wds_real.packing.verification import Level


@click.command("verify")
@click.argument("root", default="shards")
@click.option(
    "--level",
    type=click.Choice(["quick", "full", "decode"]),
    default="full",
    show_default=True,
    help="quick: names and lengths; full: every byte; decode: and every picture.",
)
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Shards checked at a time."
)
@storage_option
@json_option
def command(root: str, level: Level, jobs: int, storage_options: dict[str, str], as_json: bool) -> int:
    """Check the data set in ROOT (default: shards). Exit code 4 if anything is wrong."""
    from wds_real.format.root import open_root, read_manifest
    from wds_real.packing.verification import verify

    if not is_main_rank():
        return 0
    store = open_root(root, storage_options)
    total = sum(shard.num_bytes for shard in read_manifest(store).shards)
    with progress_bar("verify", total, unit="bytes", hidden=as_json or level == "quick") as progress:
        report = verify(store, level=level, jobs=jobs, progress=progress, storage_options=storage_options)
    if as_json:
        print_json(
            {"root": store.url, "level": level, "digest": report.manifest.digest, "problems": list(report.problems)}
        )
    for problem in () if as_json else report.problems:
        click.echo(f"error: {problem}", err=True)
    if report.problems:
        click.echo(f"error: {store.url}: {len(report.problems):,} problems found", err=True)
        return 4
    if not as_json:
        manifest = report.manifest
        click.echo(
            f"{store.url}: {manifest.num_samples:,} samples in {len(manifest.shards):,} shards are whole ({level})"
        )
        click.echo(f"digest {manifest.digest}")
    return 0
