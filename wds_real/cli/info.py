"""``wds-real info``: what a data set holds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from wds_real.cli.console import is_main_rank, json_option, print_json
from wds_real.cli.options import open_data_set, storage_option
from wds_real.errors import SourceError
from wds_real.labels import canonical_file_name, classes

if TYPE_CHECKING:
    from wds_real.format.manifest import Manifest
    from wds_real.format.sample_index import SampleIndex


@click.command("info")
@click.argument("root", default="shards")
@click.argument("keys", nargs=-1)
@click.option("--env", is_flag=True, help="Instead say which device, cores and versions an evaluation here would use.")
@storage_option
@json_option
def command(root: str, keys: tuple[str, ...], env: bool, storage_options: dict[str, str], as_json: bool) -> None:
    """Say what the data set in ROOT (default: shards) holds; with KEYS, what is known of these images."""
    if not is_main_rank():
        return
    facts = _environment() if env else _data_set(root, keys, storage_options)
    if as_json:
        print_json(facts)
    else:
        _print_facts(facts)


def _environment() -> dict[str, Any]:
    import os

    from wds_real.evaluation.device import default_device
    from wds_real.evaluation.loop import versions
    from wds_real.image.jpeg_crop import can_decode_crops
    from wds_real.image.resample import HAVE_EXTENSION

    return {
        "device": str(default_device()),
        "cores": os.cpu_count(),
        "decode": "our extension, the part that is kept"
        if can_decode_crops()
        else "simplejpeg (the same pixels, slower: built without libjpeg-turbo's headers)",
        "resize": "our extension" if HAVE_EXTENSION else "Pillow (the same pixels, slower: built without a compiler)",
        "versions": versions(),
    }


def _data_set(root: str, keys: tuple[str, ...], storage_options: dict[str, str]) -> dict[str, Any]:
    dataset = open_data_set(root, storage_options)
    if not keys:
        return _summary(dataset.root, dataset.manifest, dataset.index)
    names = {key: _official(key) for key in keys}
    unknown = [key for key, name in names.items() if name not in dataset]
    if unknown:
        raise click.BadParameter(f"{unknown[0]} is not one of the {len(dataset):,} samples of {dataset.root}.")
    rows = {key: dataset.index.keys.index(name) for key, name in names.items()}
    return {key: _sample(dataset.manifest, dataset.index, row) for key, row in rows.items()}


def _official(name: str) -> str:
    """Return the key of an image in any spelling; what is not one is left as it is."""
    try:
        return canonical_file_name(name if "." in name else f"{name}.JPEG").removesuffix(".JPEG")
    except SourceError:
        return name


def _summary(root: str, manifest: Manifest, index: SampleIndex) -> dict[str, Any]:
    lengths = Counter(map(len, index.real_label))
    return {
        "root": root,
        "dataset": manifest.dataset,
        "version": manifest.version,
        "split": manifest.split,
        "num_samples": manifest.num_samples,
        "partial": manifest.partial,
        "num_shards": len(manifest.shards),
        "num_bytes": sum(shard.num_bytes for shard in manifest.shards),
        "with_real_label": len(index) - lengths[0],
        "without_real_label": lengths[0],
        "real_labels": sum(map(len, index.real_label)),
        "images_by_number_of_real_labels": {str(length): lengths[length] for length in sorted(lengths)},
        "labels_digest": manifest.labels_digest,
        "source_digest": manifest.source_digest,
        "digest": manifest.digest,
    }


def _sample(manifest: Manifest, index: SampleIndex, row: int) -> dict[str, Any]:
    def named(label: int) -> str:
        return f"{label} {classes()[label].name} ({classes()[label].wnid})"

    start = int(index.offset[row])
    return {
        "index": row,
        "original_label": named(int(index.original_label[row])),
        "real_label": [named(label) for label in index.real_label[row]],
        "size": f"{index.width[row]}x{index.height[row]}",
        "place": f"{manifest.shards[index.shard[row]].name} [bytes {start}-{start + int(index.num_bytes[row])})",
        "checksum": f"{int(index.checksum[row]):016x}",
    }


def _print_facts(facts: dict[str, Any], indent: str = "") -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{name}")
            _print_facts(value, indent + "  ")
        else:
            text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
            text = f"{value:,}" if type(value) is int else text
            click.echo(f"{indent}{name:<{34 - len(indent)}}{text}")
