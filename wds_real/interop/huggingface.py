"""For Hugging Face users: features with class names, and the dataset card by which ``load_dataset(FOLDER)`` works."""

from __future__ import annotations

import functools
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from wds_real.interop.card_text import IMAGES_LICENCE_URL
from wds_real.labels import classes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import datasets

    from wds_real.data.dataset import Dataset

__all__ = ["card_header", "class_label_names", "huggingface_features"]

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))


@functools.cache
def class_label_names() -> tuple[str, ...]:
    """Return 1,000 distinct names in index order; the wnid follows a name that two classes have.

    >>> class_label_names()[0], class_label_names()[134]
    ('tench', 'crane (n02012849)')
    """
    counts = Counter(info.name for info in classes())
    return tuple(info.name if counts[info.name] == 1 else f"{info.name} ({info.wnid})" for info in classes())


def huggingface_features() -> datasets.Features:
    """Return the features of a shard's samples for ``datasets.load_dataset("webdataset", ..., features=...)``.

    ``original_label`` is a ``ClassLabel``, ``real_label`` a list of them, empty for images without a ReaL label. Needs
    the library ``datasets``.
    """
    from datasets import ClassLabel, Features, Image, List, Value  # noqa: PLC0415 -- not a dependency of this package

    label = ClassLabel(names=list(class_label_names()))
    text = Value("string")
    fields = {"file_name": text, "original_label": label, "real_label": List(label)}
    return Features({"jpg": Image(), "json": fields, "__key__": text, "__url__": text})


def card_header(dataset: Dataset) -> str:
    """Return the YAML at the head of a dataset card: licence, task, where the shards are, features and counts.

    A name in it is always in quotation marks, so YAML reads no name as a number or as a truth value.
    """
    manifest, index = dataset.manifest, dataset.index
    num_bytes = int(index.num_bytes.sum() + index.json_num_bytes.sum())
    split = {"name": manifest.split, "num_bytes": num_bytes, "num_examples": manifest.num_samples}
    header = {
        "pretty_name": "ImageNet-2012 validation with ReaL labels",
        "license": "other",
        "license_name": "imagenet-terms-of-access",
        "license_link": IMAGES_LICENCE_URL,
        "task_categories": ["image-classification"],
        "task_ids": ["multi-label-image-classification"],
        "annotations_creators": ["crowdsourced", "machine-generated"],
        "size_categories": [next(name for limit, name in _SIZES if manifest.num_samples < limit)],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": manifest.split, "path": [shard.name for shard in manifest.shards]}],
            }
        ],
        "dataset_info": {
            "features": _features(),
            "splits": [split],
            "download_size": sum(shard.num_bytes for shard in manifest.shards),
            "dataset_size": num_bytes,
        },
    }
    return "\n".join(["---", *_yaml(header), "---", ""])


def _features() -> list[dict[str, Any]]:
    """Return the features in the form that the header of a dataset card has."""
    label = {"class_label": {"names": {str(index): name for index, name in enumerate(class_label_names())}}}
    fields = [
        {"name": "file_name", "dtype": "string"},
        {"name": "original_label", "dtype": label},
        {"name": "real_label", "list": label},
    ]
    text = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    return [{"name": "jpg", "dtype": "image"}, {"name": "json", "struct": fields}, *text]


def _yaml(value: dict[str, Any] | list[Any], indent: str = "") -> Iterator[str]:
    """Yield the lines of nested mappings and lists as YAML in block form; text is quoted as in JSON."""
    entries = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for name, item in entries:
        key = name if name is None or name.replace("_", "").isalpha() else json.dumps(name)
        start = f"{indent}- " if key is None else f"{indent}{key}:"
        if not isinstance(item, dict | list):
            yield f"{start.rstrip()} {json.dumps(item)}"
        elif key is None:
            first, *rest = _yaml(item, f"{indent}  ")
            yield from (f"{start}{first.lstrip()}", *rest)
        else:
            yield from (start, *_yaml(item, f"{indent}  "))
