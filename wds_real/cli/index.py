"""``wds-real index``: shards that others wrote become a data set."""

from __future__ import annotations

import click

from wds_real.cli.console import is_main_rank, json_option, print_json, progress_bar
from wds_real.cli.options import storage_option
from wds_real.storage.url import redact_url


@click.command("index")
@click.argument("spec")
@click.option("-o", "--output", "root", metavar="ROOT", help="Where to write.  [default: beside the shards]")
@click.option("--checksums", is_flag=True, help="Read every byte, so that each later read is compared with it.")
@click.option("--overwrite", is_flag=True, help="Replace an index that is there.")
@storage_option
@json_option
def command(
    spec: str, root: str | None, checksums: bool, overwrite: bool, storage_options: dict[str, str], as_json: bool
) -> None:
    """Write index.json and manifest.json for the WebDataset shards in SPEC: image and json or cls members.

    SPEC is a folder, a URL, or shards in brace notation, such as 's3://lab/val-{000000..000049}.tar'. Labels are joined
    by file name where these are the validation images' own; else the class in json or cls counts, and there is no ReaL
    label.
    """
    if not is_main_rank():
        return
    from wds_real.packing.indexer import index_shards, place_of

    with progress_bar("index", 0, unit="bytes", hidden=as_json) as progress:
        manifest = index_shards(
            spec,
            root,
            storage_options=storage_options,
            checksums=checksums,
            overwrite=overwrite,
            progress=progress,
        )
    facts = {
        "root": redact_url(root if root is not None else place_of(spec)),
        "digest": manifest.digest,
        "dataset": manifest.dataset,
        "num_samples": manifest.num_samples,
        "num_shards": len(manifest.shards),
        "num_bytes": sum(shard.num_bytes for shard in manifest.shards),
        "checksums": checksums,
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"indexed {manifest.num_samples:,} samples in {len(manifest.shards):,} shards")
    click.echo(f"digest {manifest.digest}")
