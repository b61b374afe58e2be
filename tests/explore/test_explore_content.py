"""What a page shows: labels, rater scores, answers, and the columns that hold them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.explorer import data_of, made_predictions, with_models

from wds_real.data.dataset import open_dataset
from wds_real.errors import CoverageError, PredictionsError
from wds_real.explore.page.build import build_page
from wds_real.explore.page.content import Content, answers_of
from wds_real.explore.page.encoding import NO_CLASS, encode_content
from wds_real.labels import Labels, at_threshold, bundled, classes
from wds_real.labels.tables import rater_scores

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def all_images() -> Content:
    return Content.of_labels()


@pytest.fixture(scope="module")
def small(packed: Path) -> Content:
    return Content.of_dataset(open_dataset(packed))


def test_without_a_data_set_all_validation_images_are_shown(all_images: Content) -> None:
    """Keys, both labels and rater scores are the bundled ones, and the page starts at the released threshold."""
    assert (all_images.keys[0], all_images.keys[-1]) == ("ILSVRC2012_val_00000001", "ILSVRC2012_val_00050000")
    assert all_images.original_label.tolist() == list(bundled().original)
    assert all_images.real_label == bundled().real
    assert (all_images.threshold, all_images.given, all_images.places) == (800, False, None)
    evidence = all_images.evidence
    assert evidence.by_threshold.all()
    assert (int((evidence.num_labels > 0).sum()), len(evidence.label)) == (24_889, 184_962)
    assert evidence.label.tolist() == rater_scores().label.tolist()


def test_other_labels_are_offered_beside_the_thresholds() -> None:
    """With labels of a file, or of another threshold, the page starts with these."""
    for labels in (at_threshold(0.5), Labels(bundled().original, ((3,), *bundled().real[1:]))):
        content = Content.of_labels(labels)
        assert (content.threshold, content.given) == (None, True)


def test_a_data_set_gives_its_samples_and_where_they_lie(small: Content, packed: Path) -> None:
    """Labels and places are those of the index; rater scores are those of the same images."""
    dataset = open_dataset(packed)
    assert small.keys == dataset.index.keys
    assert small.places is not None
    assert small.places.offset.tolist() == dataset.index.offset.tolist()
    assert small.digest == dataset.digest
    ends = np.cumsum(small.evidence.num_labels)
    scores = rater_scores()
    place = scores.image.tolist().index(int(small.keys[40][-8:])) if small.evidence.num_labels[40] else None
    if place is not None:
        stop = int(np.cumsum(scores.num_labels)[place])
        expected = scores.label[stop - int(scores.num_labels[place]) : stop]
        assert (
            small.evidence.label[int(ends[40] - small.evidence.num_labels[40]) : int(ends[40])].tolist()
            == expected.tolist()
        )
    assert not small.given


def test_a_split_gives_only_its_samples(packed: Path) -> None:
    """Of a slice, also a reversed one, the samples are in key order."""
    part = open_dataset(packed)[30:10:-1]
    content = Content.of_dataset(part)
    assert content.keys == tuple(sorted(part.keys))
    assert len(content.real_label) == len(content.keys) == 20


def test_answers_are_joined_by_name(all_images: Content, small: Content) -> None:
    """A file of all images shows those of the data set, in its order, whatever else it holds."""
    read = made_predictions(all_images, right=0.7, seed=1)
    (found,) = answers_of(small, {"m": read}, allow_partial=False)
    rows = [read.keys.index(key) for key in small.keys]
    assert found.classes.tolist() == read.classes[rows].tolist()
    assert found.answered.all()
    assert found.source == "made-1.csv"


def test_missing_answers_are_an_error_unless_allowed(small: Content) -> None:
    """As for `score`, an image without a prediction is an error with exit code 3, and --allow-partial leaves it out."""
    read = made_predictions(small, right=0.7, seed=1, rows=range(100))
    with pytest.raises(
        CoverageError, match=r"made-1\.csv: 20 of 120 images have no prediction: .*--allow-partial"
    ) as raised:
        answers_of(small, {"m": read}, allow_partial=False)
    assert raised.value.missing == small.keys[100:]
    (found,) = answers_of(small, {"m": read}, allow_partial=True)
    assert found.answered.tolist() == [True] * 100 + [False] * 20
    assert (found.classes[100:] == -1).all()


def test_answers_of_other_images_are_an_error(small: Content, all_images: Content) -> None:
    """Unknown names, and a file that has nothing to do with the data set, are refused."""
    read = made_predictions(small, right=0.7, seed=1)
    with pytest.raises(
        PredictionsError, match="120 of 120 predictions are of no image of this page, such as aILSVRC2012_val_00000001"
    ):
        answers_of(small, {"m": replace(read, keys=tuple(f"a{key}" for key in read.keys))}, allow_partial=True)
    others = made_predictions(all_images, right=0.7, seed=1, rows=range(40_000, 41_000))
    with pytest.raises(PredictionsError, match="none of its 1,000 predictions is of the 120 images"):
        answers_of(small, {"m": others}, allow_partial=True)


def test_the_columns_hold_the_content(small: Content) -> None:
    """Decoding gives back labels, scores, answers, probabilities to 0.01 %, and places."""
    read = made_predictions(small, right=0.7, seed=1)
    read.classes[5, 2:] = -1
    read.probabilities[7, 1] = np.nan
    content = with_models(
        small, {"m": read, "n": replace(read, probabilities=np.full_like(read.probabilities, np.nan))}
    )
    header, columns = data_of(build_page(content))
    assert header["keys"] == list(content.keys)
    assert header["classes"][65] == [classes()[65].wnid, classes()[65].lemmas, classes()[65].definition]
    assert [model["probabilities"] for model in header["models"]] == [True, False]
    assert columns["original"].tolist() == content.original_label.tolist()
    ends = np.cumsum(columns["real_count"])[:-1]
    assert [tuple(part.tolist()) for part in np.split(columns["real_label"], ends)] == list(content.real_label)
    assert columns["rated_permille"].tolist() == content.evidence.permille.tolist()
    assert columns["class_0_0"].tolist() == read.classes[:, 0].tolist()
    assert columns["class_0_4"][5] == NO_CLASS
    assert columns["probability_0_0"][0] == 5000
    assert columns["probability_0_1"][7] == NO_CLASS
    assert "probability_1_0" not in columns
    assert content.places is not None
    assert columns["offset"].tolist() == content.places.offset.tolist()
    assert columns["checksum"].astype("<u4").view("<u8").tolist() == content.places.checksum.tolist()


def test_equal_content_gives_equal_bytes(small: Content) -> None:
    """The page is a pure function of its content."""
    assert encode_content(small) == encode_content(small)
    assert build_page(small) == build_page(small)
