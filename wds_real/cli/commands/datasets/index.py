"""``wds-real index``: make a data set of existing WebDataset shards."""

from __future__ import annotations

import click

from wds_real.cli.console import counted, print_json, print_lines, progress_bar
from wds_real.cli.options import json_option, quiet_option, storage_option
from wds_real.cli.signals import kept_if_stopped
from wds_real.storage.url import redact_url


@click.command("index")
@click.argument("spec")
@click.option("-o", "--output", "root", metavar="ROOT", help="Where to write.  [default: beside the shards]")
@click.option(
    "--checksums", is_flag=True, help="Read every byte and store checksums; later reads are compared to them."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing index.")
@storage_option
@quiet_option
@json_option
def command(
    spec: str,
    root: str | None,
    checksums: bool,
    overwrite: bool,
    storage_options: dict[str, str],
    quiet: bool,
    as_json: bool,
) -> None:
    """Write index.json and manifest.json for existing WebDataset shards, so that all commands can read them.

    SPEC is a folder, a URL, or shards in brace notation or by a pattern, such as 's3://lab/val-{000000..000049}.tar' or
    'val-*.tar'. A sample has an image and a json or cls member. Images with the names of the validation images get
    their labels by name. For other names, the class in json or cls is the original label, and there are no ReaL labels.
    """
    from wds_real.packing.indexer import index_shards
    from wds_real.packing.shard_spec import place_of

    with kept_if_stopped("nothing was written"), progress_bar("index", 0, unit="bytes", quiet=quiet) as progress:
        manifest = index_shards(
            spec,
            root,
            storage_options=storage_options,
            checksums=checksums,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "root": redact_url(root if root is not None else place_of(spec)),
                "digest": manifest.digest,
                "dataset": manifest.dataset,
                "num_samples": manifest.num_samples,
                "num_shards": len(manifest.shards),
                "num_bytes": sum(shard.num_bytes for shard in manifest.shards),
                "checksums": checksums,
            }
        )
        return
    shards, images = counted(len(manifest.shards), "shard"), counted(manifest.num_samples, "image")
    print_lines(f"indexed {images} in {shards}", f"digest {manifest.digest}")
