"""``wds-real cat``: the bytes of an image, or its label as JSON."""

from __future__ import annotations

import sys

import click

from wds_real.cli.console import print_bytes
from wds_real.cli.options import storage_option


@click.command("cat")
@click.argument("root")
@click.argument("key")
@storage_option
def command(root: str, key: str, storage_options: dict[str, str]) -> None:
    """Write the JPEG of an image of ROOT to stdout, byte for byte: wds-real cat shards KEY > image.jpg.

    KEY.json writes its labels as JSON.
    """
    from wds_real.data.dataset import open_dataset
    from wds_real.explore.where import choose
    from wds_real.format.shard import encode_label

    dataset = open_dataset(root, storage_options=storage_options)
    position = int(choose(dataset, [key.removesuffix(".json")])[0])
    if key.endswith(".json"):
        print_bytes(encode_label(dataset.index.label(position)) + b"\n" * sys.stdout.isatty())
        return
    if sys.stdout.isatty():
        raise click.UsageError(f"a terminal cannot show an image. Write it to a file: wds-real cat ... > {key}.jpg.")
    print_bytes(dataset.reader.read(position))
