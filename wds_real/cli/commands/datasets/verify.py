"""``wds-real verify``: check a packed data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wds_real.cli.console import counted, print_json, print_lines, print_message, progress_bar
from wds_real.cli.options import MAX_THREADS, json_option, quiet_option, storage_option

if TYPE_CHECKING:
    from wds_real.packing.verification import Level

_CHECKED: dict[Level, str] = {
    "quick": "names and sizes checked",
    "full": "every byte read",
    "decode": "every image decoded",
}


@click.command("verify")
@click.argument("root", default="shards")
@click.option(
    "--level",
    type=click.Choice(["quick", "full", "decode"]),
    default="full",
    show_default=True,
    help="quick: check names and sizes; full: also read every byte; decode: also decode every image.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, MAX_THREADS),
    default=2,
    show_default=True,
    help="Shards to check at the same time.",
)
@storage_option
@quiet_option
@json_option
def command(root: str, level: Level, jobs: int, storage_options: dict[str, str], quiet: bool, as_json: bool) -> int:
    """Check the data set in ROOT (default: shards). Exit code 4 if anything is wrong."""
    from wds_real.format.root import open_root, read_manifest
    from wds_real.packing.verification import verify

    store = open_root(root, storage_options)
    total = sum(shard.num_bytes for shard in read_manifest(store).shards)
    with progress_bar("verify", total, unit="bytes", quiet=quiet or level == "quick") as progress:
        report = verify(store, level=level, jobs=jobs, progress=progress, storage_options=storage_options)
    manifest, problems = report.manifest, report.problems
    if as_json:
        print_json(
            {
                "root": store.url,
                "level": level,
                "digest": manifest.digest,
                "problems": list(problems),
                "warnings": list(report.warnings),
            }
        )
    else:
        for problem in problems:
            print_message(f"error: {problem}")
        for warning in report.warnings:
            print_message(f"warning: {warning}")
    if problems:
        print_message(f"error: {store.url}: {counted(len(problems), 'problem')} found")
        return 4
    if not as_json:
        shards, images = counted(len(manifest.shards), "shard"), counted(manifest.num_samples, "image")
        warned = f", {len(report.warnings):,} of them with warnings" if report.warnings else ""
        print_lines(f"OK: {shards}, {images}, {_CHECKED[level]}{warned}", f"digest {manifest.digest}")
    return 0
