"""``wds-real pack``: the validation tar becomes shards."""

from __future__ import annotations

import logging
import time

import click

from wds_real.cli.console import is_main_rank, json_option, print_json, progress_bar
from wds_real.cli.options import open_at, storage_option
from wds_real.labels import bundled, load_real_json
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.url import is_url, redact_url


@click.command("pack")
@click.argument("source")
@click.argument("root", default="shards")
@click.option(
    "--samples-per-shard", type=click.IntRange(min=1), default=1000, show_default=True, help="The last may have fewer."
)
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1), help="Shards written at a time.  [default: one a core, at most 4]"
)
@click.option("--real-json", metavar="FILE", help="ReaL labels to use in place of the released ones that come bundled.")
@click.option("--allow-partial", is_flag=True, help="Accept fewer than the 50,000 images; the manifest says so.")
@click.option("--overwrite", is_flag=True, help="Replace a finished set in ROOT.")
@storage_option
@json_option
def command(
    source: str,
    root: str,
    samples_per_shard: int,
    jobs: int | None,
    real_json: str | None,
    allow_partial: bool,
    overwrite: bool,
    storage_options: dict[str, str],
    as_json: bool,
) -> None:
    """Pack SOURCE into shards, index.json and manifest.json in ROOT (default: shards).

    SOURCE is ILSVRC2012_img_val.tar, also at a URL, or a folder of its JPEGs, flat or by class. ROOT is a folder or a
    URL such as s3://bucket/prefix. Run the same command again after an
    interruption: it keeps what is whole and ends with the same bytes.
    """
    if not is_main_rank():
        return
    logging.getLogger("wds_real.packing.writer").setLevel(logging.INFO)
    started = time.monotonic()
    labels = bundled() if real_json is None else load_real_json(real_json)
    in_store = storage_options if is_url(source) else None
    with open_source(source, labels=labels, allow_partial=allow_partial, storage_options=in_store) as images:
        total = sum(image.num_bytes for image in images.images)
        with progress_bar("pack", total, unit="bytes", hidden=as_json) as progress:
            manifest = write_shards(
                images,
                open_at(root, storage_options),
                samples_per_shard=samples_per_shard,
                jobs=jobs,
                overwrite=overwrite,
                progress=progress,
            )
    if as_json:
        print_json(
            {
                "root": redact_url(root),
                "digest": manifest.digest,
                "num_samples": manifest.num_samples,
                "partial": manifest.partial,
                "num_shards": len(manifest.shards),
                "num_bytes": sum(shard.num_bytes for shard in manifest.shards),
                "seconds": round(time.monotonic() - started, 3),
            }
        )
        return
    partial = ", partial: not the whole validation set" if manifest.partial else ""
    shards = f"{len(manifest.shards):,} {'shard' if len(manifest.shards) == 1 else 'shards'}"
    click.echo(f"packed {manifest.num_samples:,} samples into {shards} in {redact_url(root)}{partial}")
    click.echo(f"digest {manifest.digest}")
