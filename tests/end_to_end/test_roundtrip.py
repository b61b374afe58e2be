"""From the source to the pixels and back: every image once, its bytes and its labels unchanged."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wds_real.data.dataset import open_dataset
from wds_real.data.loader import Loader
from wds_real.evaluation.loop import evaluate
from wds_real.image.transform import EvalTransform
from wds_real.labels import bundled
from wds_real.packing.source import open_source
from wds_real.packing.verification import verify
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import encode_image, known_answer, known_answer_model, labels_of, top5_of, write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# The child's peak of memory over what its imports take; through a shell, because a process that is started from a large
# one inherits its peak.
PACK_AND_MEASURE = """
import resource, sys
from wds_real import cli
from wds_real.cli import main
from wds_real.cli.commands.datasets import pack
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    main.main(["pack", *sys.argv[1:]])
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((peak - before) * (1 if sys.platform == "darwin" else 1024))
"""


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in files.items() if file is not None}


@settings(max_examples=25, deadline=None)
@given(
    numbers=st.lists(st.integers(1, 50_000), min_size=1, max_size=30, unique=True),
    samples_per_shard=st.integers(1, 40),
    jobs=st.integers(1, 4),
)
def test_any_subset_in_any_order_comes_back_whole(
    tmp_path_factory: pytest.TempPathFactory, numbers: Sequence[int], samples_per_shard: int, jobs: int
) -> None:
    """Whatever images a source holds, in whatever order, and however they are cut: read back, all is what it was."""
    folder = tmp_path_factory.mktemp("roundtrip")
    pictures = {number: encode_image(number % 1000, side=8 + number % 9) for number in numbers}
    with tarfile.open(folder / "val.tar", "w") as tar:
        for number, picture in pictures.items():
            info = tarfile.TarInfo(f"ILSVRC2012_val_{number:08d}.JPEG")
            info.size = len(picture)
            tar.addfile(info, io.BytesIO(picture))
    with open_source(folder / "val.tar", allow_partial=True) as source:
        manifest = write_shards(source, LocalStore(folder), samples_per_shard=samples_per_shard, jobs=jobs)
    dataset = open_dataset(folder)
    assert manifest == dataset.manifest
    assert len(manifest.shards) == -(-len(numbers) // samples_per_shard)
    assert [dataset.reader.read(position) for position in range(len(dataset))] == [
        pictures[number] for number in sorted(numbers)
    ]
    for sample, label in zip(dataset, labels_of(sorted(numbers)), strict=True):
        assert (sample["file_name"], sample["key"]) == (label.file_name, label.key)
        assert (sample["original_label"], sample["real_label"]) == (label.original_label, list(label.real_label))
        assert sample["image"].size == (8 + int(label.key[-8:]) % 9,) * 2
    assert verify(LocalStore(folder), level="decode").problems == ()


def test_pixels_are_those_pillow_reads_from_the_source(made_tar: Path, packed: Path) -> None:
    """Each image of the set is, pixel for pixel, the source's JPEG as Pillow opens it."""
    source = members_of(made_tar)
    for sample in open_dataset(packed):
        expected = Image.open(io.BytesIO(source[sample["file_name"]])).convert("RGB")
        assert np.array_equal(np.asarray(sample["image"]), np.asarray(expected))


def test_the_loader_streams_what_the_source_holds(made_tar: Path, packed: Path) -> None:
    """Streamed in batches, each image comes once, in key order, with the pixels and labels of the source."""
    source, seen = members_of(made_tar), list[str]()
    for batch in Loader(open_dataset(packed), batch_size=32, transform=EvalTransform(img_size=64, crop_pct=1.0)):
        for row in batch.valid.nonzero().flatten().tolist():
            (label,) = labels_of([len(seen) + 1])
            image = (
                Image.open(io.BytesIO(source[label.file_name]))
                .convert("RGB")
                .resize((64, 64), Image.Resampling.BICUBIC)
            )
            assert batch.key[row] == label.key
            assert np.array_equal(batch.image[row].permute(1, 2, 0).numpy(), np.asarray(image))
            assert batch.original_label[row] == label.original_label
            assert [value for value in batch.real_label[row].tolist() if value >= 0] == list(label.real_label)
            seen.append(batch.key[row])
    assert len(seen) == 120


def test_a_callable_transform_evaluates_like_the_settings_it_stands_for(packed: Path) -> None:
    """A function from Pillow image to Pillow image, as torchvision and timm have them, gives the same counts."""
    model, settings_of_model = known_answer_model()
    half = (0.5, 0.5, 0.5)
    result = evaluate(model, open_dataset(packed), transform=settings_of_model.__call__, mean=half, std=half)
    answer = known_answer(labels_of(range(1, 121)))
    assert (result.original_top1.correct, result.real_top1.correct) == (answer["original_top1"], answer["real_top1"])


def test_real_images_come_back_with_the_released_labels(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """Real validation images: the bytes of the tar, and the labels of the released files at the image's number."""
    path = real_data("val-650.tar")
    real = json.loads(real_data("real.json").read_bytes())
    wnids = real_data("validation_labels.txt").read_text().split()
    classes = sorted(set(wnids))
    with open_source(path, allow_partial=True) as source:
        write_shards(source, LocalStore(tmp_path), samples_per_shard=100)
    dataset = open_dataset(tmp_path)
    source_bytes = members_of(path)
    assert [f"{key}.JPEG" for key in dataset.keys] == sorted(source_bytes)
    for sample in dataset:
        number = int(sample["key"][-8:])
        assert dataset.reader.read(sample["index"]) == source_bytes[sample["file_name"]]
        assert sample["original_label"] == classes.index(wnids[number - 1])
        assert sample["real_label"] == real[number - 1]
    assert verify(LocalStore(tmp_path), level="decode").problems == ()


def test_photographs_of_all_sizes_come_back(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """Full-size photographs, grey ones among them, under made-up numbers: the same bytes, and the size Pillow finds."""
    photos = sorted(members_of(real_data("photos-300.tar")).items())
    (tmp_path / "source").mkdir()
    for number, (_, data) in enumerate(photos, start=1):
        (tmp_path / "source" / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(data)
    with open_source(tmp_path / "source", allow_partial=True) as source:
        write_shards(source, LocalStore(tmp_path / "set"))
    dataset = open_dataset(tmp_path / "set")
    for position, (_, data) in enumerate(photos):
        assert dataset.reader.read(position) == data
        size = (dataset.index.width[position], dataset.index.height[position])
        assert size == Image.open(io.BytesIO(data)).size


@pytest.mark.slow
def test_a_full_set_packs_verifies_and_streams(tmp_path: Path) -> None:
    """All 50,000: not partial, 50 shards, less than 1 GB of memory, each image streamed once with its class to see."""
    write_source_tar(tmp_path / "val.tar", range(1, 50_001), side=32)
    script = [sys.executable, "-c", PACK_AND_MEASURE, str(tmp_path / "val.tar"), str(tmp_path / "set"), "--json"]
    done = subprocess.run(["sh", "-c", '"$0" "$@"; exit $?', *script], capture_output=True, text=True, check=True)
    facts, end = json.JSONDecoder().raw_decode(done.stdout)
    assert (facts["num_samples"], facts["num_shards"], facts["partial"]) == (50_000, 50, False)
    assert 0 <= int(done.stdout[end:]) < 1e9
    report = verify(LocalStore(tmp_path / "set"), level="quick")
    assert report.problems == ()
    assert report.manifest.digest == facts["digest"]
    labels, table = labels_of(range(1, 50_001)), bundled()
    dataset, place = open_dataset(tmp_path / "set"), 0
    assert tuple(dataset.index.original_label.tolist()) == table.original
    assert dataset.index.real_label == table.real
    for batch in Loader(dataset, batch_size=500, transform=EvalTransform(img_size=32, crop_pct=1.0)):
        expected = labels[place : place + 500]
        assert batch.key == tuple(label.key for label in expected)
        assert batch.original_label.tolist() == [label.original_label for label in expected]
        place += int(batch.valid.sum())
        shown = encode_image(top5_of(expected[0])[0], side=32 + int(expected[0].key[-1]))
        first = Image.open(io.BytesIO(shown)).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.array_equal(batch.image[0].permute(1, 2, 0).numpy(), np.asarray(first))
    assert place == 50_000
