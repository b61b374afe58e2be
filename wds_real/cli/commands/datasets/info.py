"""``wds-real info``: what a data set holds, and what this machine would evaluate with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from wds_real.cli.console import print_json, print_lines, progress_bar
from wds_real.cli.options import json_option, storage_option
from wds_real.labels import classes
from wds_real.labels.file_names import sample_key

if TYPE_CHECKING:
    from wds_real.format.manifest import Manifest
    from wds_real.format.sample_index import SampleIndex


_BACKENDS = {
    "part": "only the part of an image that the crop needs",
    "whole": "whole images (the same pixels, slower: install a wheel, or libjpeg-turbo's headers before building)",
    "extension": "compiled extension",
    "pillow": "Pillow (the same pixels, slower: install a wheel, or a C compiler before building)",
}


@click.command("info")
@click.argument("root", default="shards")
@click.argument("keys", nargs=-1)
@click.option("--modes", is_flag=True, help="Read every image's header too, and count the colour modes.")
@click.option("--env", is_flag=True, help="Show this machine's device, cores, decoders and versions instead.")
@storage_option
@json_option
def command(
    root: str, keys: tuple[str, ...], modes: bool, env: bool, storage_options: dict[str, str], as_json: bool
) -> None:
    """Show what the data set in ROOT (default: shards) holds.

    With KEYS, show the labels, size and location of these images. A key is ILSVRC2012_val_00000001, or the file name.
    """
    if modes and (keys or env):
        raise click.UsageError("--modes is about the whole data set: give no KEYS and no --env.")
    facts = _environment() if env else _data_set(root, keys, storage_options, modes=modes)
    if as_json:
        print_json(facts)
    elif env:
        _print_facts({**facts, **{name: _BACKENDS[facts[name]] for name in ("decode", "resize")}})
    elif keys:
        _print_facts({name: _in_words(sample) for name, sample in facts.items()})
    else:
        images = {name: _spread_in_words(spread) for name, spread in facts["images"].items()}
        _print_facts({**facts, "images": images})


def _environment() -> dict[str, Any]:
    import os

    from wds_real.evaluation.device import default_device
    from wds_real.evaluation.model_run import versions
    from wds_real.image.backends import describe

    backends = describe()
    return {
        "device": str(default_device()),
        "cores": os.cpu_count(),
        "decode": backends["decode"],
        "resize": backends["resize"],
        "versions": versions(),
    }


def _data_set(root: str, keys: tuple[str, ...], storage_options: dict[str, str], *, modes: bool) -> dict[str, Any]:
    from wds_real.data.catalogue import catalogue, image_modes
    from wds_real.data.dataset import open_dataset

    dataset = open_dataset(root, storage_options=storage_options)
    if modes:
        with progress_bar("info", len(dataset), unit="images", quiet=False) as advance:
            found = image_modes(dataset, advance=advance)
        facts = catalogue(dataset)
        return {**facts, "images": {**facts["images"], "modes": found}}
    if not keys:
        return catalogue(dataset)
    positions = {key: position for position, key in enumerate(dataset.index.keys)}
    unknown = [name for name in keys if sample_key(name) not in positions]
    if unknown:
        raise click.BadParameter(f"{unknown[0]} is not one of the {len(dataset):,} samples of {dataset.root}.")
    return {name: _sample(dataset.manifest, dataset.index, positions[sample_key(name)]) for name in keys}


def _sample(manifest: Manifest, index: SampleIndex, position: int) -> dict[str, Any]:
    def facts_of(label: int) -> dict[str, Any]:
        return {"index": label, "wnid": classes()[label].wnid, "name": classes()[label].name}

    checksum = int(index.checksum[position])
    return {
        "index": position,
        "key": index.keys[position],
        "original_label": facts_of(int(index.original_label[position])),
        "real_label": [facts_of(label) for label in index.real_label[position]],
        "width": int(index.width[position]),
        "height": int(index.height[position]),
        "shard": manifest.shards[index.shard[position]].name,
        "offset": int(index.offset[position]),
        "num_bytes": int(index.num_bytes[position]),
        "checksum": f"{checksum:016x}" if checksum else None,
    }


def _in_words(sample: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a sample as they are printed without --json."""

    def named(label: dict[str, Any]) -> str:
        return f"{label['index']} {label['name']} ({label['wnid']})"

    start, num_bytes = sample["offset"], sample["num_bytes"]
    return {
        "index": sample["index"],
        "original_label": named(sample["original_label"]),
        "real_label": [named(label) for label in sample["real_label"]],
        "size": f"{sample['width']}x{sample['height']}" if sample["width"] else "unknown",
        "place": f"{sample['shard']} [bytes {start}-{start + num_bytes})",
        "checksum": sample["checksum"] or "none",
    }


def _spread_in_words(spread: dict[str, int] | None) -> str:
    """Return the smallest, median and largest value, or the counts of modes, in words."""
    if spread is None:
        return "not known for all images"
    if set(spread) != {"min", "median", "max"}:
        return ", ".join(f"{name} {count:,}" for name, count in spread.items())
    return f"{spread['min']:,} to {spread['max']:,}, median {spread['median']:,}"


def _print_facts(facts: dict[str, Any], indent: str = "") -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            print_lines(f"{indent}{name}")
            _print_facts(value, indent + "  ")
        else:
            text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
            text = f"{value:,}" if type(value) is int else text
            print_lines(f"{indent}{name:<{34 - len(indent)}}{text}")
