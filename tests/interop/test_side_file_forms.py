"""The side files: timm's info, DALI's indexes, the header of the dataset card and Croissant, against the shards."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import wds_real
from wds_real import interop
from wds_real.interop.huggingface import class_label_names
from wds_real.labels import classes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def dataset(packed: Path) -> wds_real.Dataset:
    return wds_real.open_dataset(packed)


def text_of(dataset: wds_real.Dataset, form: Any) -> str:
    (data,) = interop.side_files(dataset, form).values()
    return data.decode("utf-8")


def test_timms_info_names_each_shard_with_its_number_of_samples(dataset: wds_real.Dataset) -> None:
    """``_info.json`` has the split's shards, their lengths and the field of the target."""
    info = json.loads(text_of(dataset, "timm"))
    assert list(interop.side_files(dataset, "timm")) == ["_info.json"]
    assert info["splits"] == {
        "validation": {
            "name": "validation",
            "num_samples": 120,
            "filenames": [f"imagenet2012_real-validation-{number:06d}.tar" for number in range(3)],
            "shard_lengths": [50, 50, 20],
            "alt_label": "original_label",
        }
    }


def test_dalis_indexes_name_offset_and_length_of_each_member(dataset: wds_real.Dataset, packed: Path) -> None:
    """Each shard has an index of version 1.2 whose lines are what Python's tarfile finds in the shard."""
    files = interop.side_files(dataset, "dali")
    assert list(files) == [shard.name.replace(".tar", ".idx") for shard in dataset.manifest.shards]
    for name, data in files.items():
        with tarfile.open(packed / name.replace(".idx", ".tar")) as tar:
            members = [(m.name.rpartition(".")[2], m.offset_data, m.size, m.name) for m in tar]
        pairs = zip(members[::2], members[1::2], strict=True)
        lines = [f"v1.2 {len(members) // 2}", *(" ".join(map(str, (*jpg, *label))) for jpg, label in pairs)]
        assert data.decode("ascii") == "\n".join([*lines, ""])


def test_names_of_classes_are_distinct_and_in_order() -> None:
    """A class label has 1,000 different names; one that two classes share has its wnid."""
    names = class_label_names()
    assert len(set(names)) == 1_000
    for name, info in zip(names, classes(), strict=True):
        assert name in (info.name, f"{info.name} ({info.wnid})")
    assert sum(name.endswith(")") for name in names) == 4  # crane and maillot


def test_the_header_of_the_dataset_card_is_yaml(dataset: wds_real.Dataset) -> None:
    """Licence, task, shards, counts and features are in the YAML, and the Markdown follows."""
    start, header, markdown = text_of(dataset, "hf").split("---\n", 2)
    facts = yaml.safe_load(header)
    assert start == ""
    assert markdown.lstrip().startswith("# imagenet2012_real")
    assert 'load_dataset("FOLDER", split="validation")' in markdown
    assert (facts["license"], facts["task_categories"]) == ("other", ["image-classification"])
    assert facts["size_categories"] == ["n<1K"]
    names = [shard.name for shard in dataset.manifest.shards]
    assert facts["configs"] == [
        {"config_name": "default", "data_files": [{"split": "validation", "path": names}]},
    ]
    info = facts["dataset_info"]
    assert info["splits"][0]["num_examples"] == 120
    assert info["download_size"] == sum(shard.num_bytes for shard in dataset.manifest.shards)
    fields = {field["name"]: field for field in info["features"]}
    assert list(fields) == ["jpg", "json", "__key__", "__url__"]
    labels = {field["name"]: field for field in fields["json"]["struct"]}
    for label in (labels["original_label"]["dtype"], labels["real_label"]["list"]):
        assert [label["class_label"]["names"][str(place)] for place in range(1_000)] == list(class_label_names())


def test_croissant_names_each_file_with_its_sha256(dataset: wds_real.Dataset, packed: Path) -> None:
    """Shards and index are there with length and digest, and the file sets are contained in all shards."""
    import hashlib

    described = json.loads(text_of(dataset, "croissant"))
    parts = {part["@id"]: part for part in described["distribution"]}
    for name in (*(shard.name for shard in dataset.manifest.shards), "index.json"):
        data = (packed / name).read_bytes()
        assert parts[name]["sha256"] == hashlib.sha256(data).hexdigest()
        assert parts[name]["contentSize"] == f"{len(data)} B"
    shards = [{"@id": shard.name} for shard in dataset.manifest.shards]
    assert parts["images"]["containedIn"] == parts["labels"]["containedIn"] == shards


def test_croissant_says_what_responsible_use_needs(dataset: wds_real.Dataset) -> None:
    """Version 1.1 with RAI fields: how labels were made, limits, people in images, and how many have no label."""
    described = json.loads(text_of(dataset, "croissant"))
    assert described["conformsTo"] == [
        "http://mlcommons.org/croissant/1.1",
        "http://mlcommons.org/croissant/RAI/1.0",
    ]
    unlabelled = sum(not labels for labels in dataset.index.real_label)
    assert described["rai:dataCollectionMissingData"] == f"{unlabelled} of 120 images have no ReaL label."
    assert {"rai:dataAnnotationProtocol", "rai:dataLimitations", "rai:personalSensitiveInformation"} <= set(described)
    assert described["rai:dataCollection"].endswith("Source of this set: a part of the validation set.")
    assert "2006.07159" in described["citeAs"]


def test_croissants_references_lead_somewhere(dataset: wds_real.Dataset) -> None:
    """Each @id that a field, a key or a file set points to is defined in the description."""
    described = json.loads(text_of(dataset, "croissant"))
    del described["@context"]
    defined, used = set[str](), set[str]()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "@id" in value:
                (defined if "@type" in value else used).add(value["@id"])
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(described)
    assert used
    assert used <= defined
