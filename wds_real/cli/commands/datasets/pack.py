"""``wds-real pack``: pack the validation tar into shards."""

from __future__ import annotations

import logging
import time

import click

from wds_real.cli.console import counted, print_json, print_lines, print_message, progress_bar
from wds_real.cli.options import MAX_THREADS, json_option, quiet_option, real_json_option, storage_option, url_options
from wds_real.cli.signals import kept_if_stopped
from wds_real.format.side_files import refuse_old_card
from wds_real.labels import bundled, load_real_json
from wds_real.packing.claim import claimed
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.store import open_store
from wds_real.storage.url import redact_url


@click.command("pack")
@click.argument("source")
@click.argument("root", default="shards")
@click.option(
    "--samples-per-shard",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Images per shard; the last may hold fewer.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, MAX_THREADS),
    help="Shards to write at the same time.  [default: one per core, at most 4]",
)
@real_json_option
@click.option("--allow-partial", is_flag=True, help="Accept fewer than the 50,000 images; the manifest then says so.")
@click.option("--overwrite", is_flag=True, help="Replace a finished data set in ROOT, and remove its side files.")
@storage_option
@quiet_option
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
    quiet: bool,
    as_json: bool,
) -> None:
    """Pack SOURCE into shards, index.json and manifest.json in ROOT (default: shards).

    SOURCE is ILSVRC2012_img_val.tar, as a file or a URL, or a folder of its JPEGs, flat or by class. ROOT is a folder
    or a URL such as s3://bucket/prefix. After an interruption, run the same command again: it keeps the finished
    shards and writes the same bytes as an uninterrupted run.
    """
    if not quiet:
        for module in ("claim", "writer"):
            logging.getLogger(f"wds_real.packing.{module}").setLevel(logging.INFO)
        print_message(f"pack: reading {redact_url(source)}")
    started = time.monotonic()
    labels = bundled() if real_json is None else load_real_json(real_json)
    source_options = url_options(source, storage_options)
    target = open_store(root, storage_options=url_options(root, storage_options))
    with claimed(target, "pack", overwrite=overwrite):
        if overwrite:
            refuse_old_card(target)
        # a place that cannot be written to is refused before the source is read
    with open_source(source, labels=labels, allow_partial=allow_partial, storage_options=source_options) as images:
        total = sum(image.num_bytes for image in images.images)
        kept = f"the finished shards are kept in {redact_url(root)}; run the same command to resume"
        with kept_if_stopped(kept), progress_bar("pack", total, unit="bytes", quiet=quiet) as progress:
            manifest = write_shards(
                images,
                target,
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
    shards, packed = counted(len(manifest.shards), "shard"), counted(manifest.num_samples, "image")
    print_lines(f"packed {packed} into {shards} in {redact_url(root)}{partial}", f"digest {manifest.digest}")
