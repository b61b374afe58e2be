"""The synthetic set: the model decodes its images, its labels are the released ones, and its counts are right."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wds_real.evaluation.device import Normalize
from wds_real.labels import NUM_CLASSES
from wds_real.synthetic import (
    encode_image,
    known_answer,
    known_answer_model,
    labels_of,
    top5_of,
    write_source_tar,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("side", [64, 69, 73])
def test_the_model_predicts_the_class_that_an_image_encodes(side: int) -> None:
    """The image of each of the 1,000 classes is predicted as that class, through JPEG, resizing and cropping."""
    model, transform = known_answer_model()
    pixels = np.empty((NUM_CLASSES, *transform.size, 3), dtype=np.uint8)
    for shown, out in enumerate(pixels):
        transform.decode_into(encode_image(shown, side=side), out)
    normalize = Normalize(transform.mean, transform.std, device=torch.device("cpu"))
    scores = model(normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    expected = [[(shown + step) % NUM_CLASSES for step in range(5)] for shown in range(NUM_CLASSES)]
    assert scores.topk(5).indices.tolist() == expected


@given(number=st.integers(1, 50_000))
def test_five_different_classes_are_predicted(number: int) -> None:
    """The model's top 5 are five different class indices."""
    (label,) = labels_of([number])
    top5 = top5_of(label)
    assert len(set(top5)) == 5
    assert all(0 <= shown < NUM_CLASSES for shown in top5)


def test_labels_are_those_of_the_released_files(real_data: Callable[[str], Path]) -> None:
    """Synthetic images have the original and ReaL labels of the validation images with the same names."""
    wnids = real_data("validation_labels.txt").read_text().split()
    classes = sorted(set(wnids))
    labels = labels_of(range(1, 50_001))
    assert [label.key for label in labels] == [f"ILSVRC2012_val_{number:08d}" for number in range(1, 50_001)]
    assert [classes[label.original_label] for label in labels] == wnids
    assert [list(label.real_label) for label in labels] == json.loads(real_data("real.json").read_bytes())


def test_the_known_answer_is_what_set_arithmetic_counts() -> None:
    """The counts for all 50,000 images equal those of operations on sets of image numbers."""
    labels = labels_of(range(1, 50_001))
    first = [top5_of(label)[0] for label in labels]
    everything = range(len(labels))
    labelled = {at for at in everything if labels[at].real_label}
    right = {at for at in everything if first[at] == labels[at].original_label}
    real_right = {at for at in everything if first[at] in labels[at].real_label}
    right5 = {at for at in everything if labels[at].original_label in top5_of(labels[at])}
    real_right5 = {at for at in everything if set(top5_of(labels[at])) & set(labels[at].real_label)}
    assert known_answer(labels) == {
        "all": 50_000,
        "labelled": 46_837,
        "original_top1": len(right),
        "original_top5": len(right5),
        "original_top1_labelled": len(right & labelled),
        "real_top1": len(real_right),
        "real_top5": len(real_right5),
        "forgiven": len(real_right - right),
        "newly_wrong": len((right & labelled) - real_right),
    }


def test_every_kind_of_outcome_occurs() -> None:
    """Over 200 images no count is zero and no two are equal, so that a swapped count shows."""
    answer = known_answer(labels_of(range(1, 201)))
    assert min(answer.values()) > 0
    assert Counter(answer.values()).most_common(1)[0][1] == 1
    assert Fraction(answer["real_top1"], answer["labelled"]) != Fraction(answer["original_top1"], answer["all"])


def test_the_tar_is_like_the_official_one(tmp_path: Path) -> None:
    """Regular files under the official names, without folders, not sorted, padded to whole tar records."""
    path = tmp_path / "val.tar"
    write_source_tar(path, range(1, 41))
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert sorted(names) == [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 41)]
    assert names != sorted(names)
    assert all(member.isreg() for member in members)
    assert path.stat().st_size % 10_240 == 0


def test_the_tar_is_reproducible(tmp_path: Path) -> None:
    """The same numbers, in any order, give the same bytes."""
    write_source_tar(tmp_path / "a.tar", range(1, 21))
    write_source_tar(tmp_path / "b.tar", reversed(range(1, 21)))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
