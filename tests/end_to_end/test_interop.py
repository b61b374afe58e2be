"""Other readers: stock webdataset, the standard library and GNU tar find every sample in our shards."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from wds_real.synthetic import labels_of

if TYPE_CHECKING:
    from pathlib import Path

wds = pytest.importorskip("webdataset")

SHARDS = "imagenet2012_real-validation-{000000..000002}.tar"


@pytest.fixture(scope="module")
def pictures(made_tar: Path) -> dict[str, bytes]:
    """The source's JPEG bytes by key, as the standard library reads them."""
    with tarfile.open(made_tar) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name.removesuffix(".JPEG"): file.read() for name, file in files.items() if file is not None}


def expected_labels() -> dict[str, dict[str, Any]]:
    return {
        label.key: {
            "file_name": label.file_name,
            "original_label": label.original_label,
            "real_label": list(label.real_label),
        }
        for label in labels_of(range(1, 121))
    }


@pytest.mark.usefixtures("_files_left_open")
def test_webdataset_reads_every_sample_undecoded(packed: Path, pictures: dict[str, bytes]) -> None:
    """Stock webdataset, given the shards by brace notation, finds each key once with the source's bytes."""
    samples = list(wds.WebDataset(str(packed / SHARDS), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == sorted(pictures)
    assert {sample["__key__"]: sample["jpg"] for sample in samples} == pictures
    assert {sample["__key__"]: json.loads(sample["json"]) for sample in samples} == expected_labels()


@pytest.mark.usefixtures("_files_left_open")
def test_webdataset_decodes_pictures_and_labels(packed: Path, pictures: dict[str, bytes]) -> None:
    """The usual pipeline, decode("pil") and to_tuple("jpg", "json"), gives Pillow images and label dictionaries."""
    dataset = wds.WebDataset(str(packed / SHARDS), shardshuffle=False).decode("pil").to_tuple("jpg", "json")
    found = {}
    for image, label in dataset:
        key = label["file_name"].removesuffix(".JPEG")
        found[key] = label
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(pictures[key])).convert("RGB")))
    assert found == expected_labels()


@pytest.mark.usefixtures("_files_left_open")
def test_webdataset_reads_in_torchs_loader(packed: Path) -> None:
    """Batched by torch's DataLoader with tensors, each sample comes once."""
    dataset = (
        wds.WebDataset(str(packed / SHARDS), shardshuffle=False)
        .decode("torchrgb")
        .map(lambda sample: (sample["jpg"].mean(), sample["json"]["original_label"]))
        .batched(16)
    )
    labels = torch.cat([torch.as_tensor(label) for _, label in DataLoader(dataset, batch_size=None)])
    assert labels.tolist() == [label["original_label"] for label in expected_labels().values()]


def test_the_standard_library_reads_every_sample(packed: Path, pictures: dict[str, bytes]) -> None:
    """tarfile, as a stream without seeking, finds KEY.jpg and KEY.json side by side."""
    found: dict[str, bytes] = {}
    for shard in sorted(packed.glob("*.tar")):
        with tarfile.open(shard, "r|") as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    assert list(found) == [f"{key}.{kind}" for key in sorted(pictures) for kind in ("jpg", "json")]
    labels = expected_labels()
    assert {name[:-4]: data for name, data in found.items() if name.endswith(".jpg")} == pictures
    assert {name[:-5]: json.loads(data) for name, data in found.items() if name.endswith(".json")} == labels


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the tar command")
def test_the_tar_command_unpacks_a_shard_without_a_word(
    packed: Path, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    """The system's tar finds nothing to complain of and unpacks the same files."""
    shard = packed / SHARDS.replace("{000000..000002}", "000002")
    done = subprocess.run(["tar", "-xf", shard, "-C", tmp_path], capture_output=True, check=True)
    assert done.stderr == b""
    found = {path.stem: path.read_bytes() for path in tmp_path.glob("*.jpg")}
    assert found == {key: pictures[key] for key in sorted(pictures)[100:]}
