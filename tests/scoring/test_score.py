"""Scoring a prediction file: the released labels, every cut through the rater scores, and what is missing."""

from __future__ import annotations

import importlib.resources
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.errors import CoverageError, PredictionsError, SourceError
from wds_real.labels import NUM_CLASSES, NUM_IMAGES, Labels, at_threshold, bundled
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.predictions import TOP, Predictions
from wds_real.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from wds_real.scoring.result import Result

SCORED = 46_837


def key(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


@cache
def random_top5(seed: int) -> NDArray[np.int64]:
    """Return five distinct classes for each of the 50,000 images, often right ones."""
    rng = np.random.default_rng(seed)
    first = rng.integers(NUM_CLASSES, size=NUM_IMAGES)
    right = rng.random(NUM_IMAGES) < 0.5
    first[right] = np.array(bundled().original)[right]
    steps = np.concatenate([np.zeros((NUM_IMAGES, 1), int), np.sort(rng.integers(1, 249, (NUM_IMAGES, 4)), axis=1)], 1)
    table: NDArray[np.int64] = (first[:, None] + steps + np.arange(TOP) * 249 // 4) % NUM_CLASSES
    return table


def counts(result: Result) -> dict[str, int]:
    """Return every count of a result that does not come from top 5."""
    return {
        "all": result.original_top1.total,
        "labelled": result.real_top1.total,
        "original": result.original_top1.correct,
        "original_labelled": result.original_top1_labelled.correct,
        "real": result.real_top1.correct,
        "forgiven": result.forgiven,
        "newly_wrong": result.newly_wrong,
    }


def naive(said: dict[int, int], labels: Labels) -> dict[str, int]:
    """Count class by image number, one image at a time, from the definitions."""
    found = dict.fromkeys(
        ("all", "labelled", "original", "original_labelled", "real", "forgiven", "newly_wrong"), 0
    )  # fmt: skip
    for number, label in said.items():
        original, real = labels.original[number - 1], labels.real[number - 1]
        found["all"] += 1
        found["original"] += label == original
        if real:
            found["labelled"] += 1
            found["original_labelled"] += label == original
            found["real"] += label in real
            found["forgiven"] += label in real and label != original
            found["newly_wrong"] += label == original and label not in real
    return found


# --- the released labels ----------------------------------------------------------------------------------------------


def test_the_original_labels_score_as_published() -> None:
    """The original labels as a model: right on all 50,000 by themselves, on 42,164 of 46,837 by ReaL."""
    result = score(bundled().original)
    assert counts(result) == {
        "all": NUM_IMAGES, "labelled": SCORED, "original": NUM_IMAGES, "original_labelled": SCORED,
        "real": 42_164, "forgiven": 0, "newly_wrong": SCORED - 42_164,
    }  # fmt: skip
    assert (result.original_top5, result.real_top5) == (None, None)
    assert result.receipt == "50,000 expected, 50,000 seen once, 0 missing, 0 twice, 1 rank"
    assert f"{100 * result.real_top1.value:.4f}" == "90.0228"


def test_perfect_predictions_score_100_percent() -> None:
    """A ReaL label wherever there is one is right on all 46,837, whichever of them it is."""
    labels = bundled()
    for place in (0, -1):
        result = score([real[place] if real else 999 for real in labels.real])
        assert (result.real_top1.correct, result.real_top1.total, result.newly_wrong) == (SCORED, SCORED, 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_count_is_that_of_a_slow_count(seed: int) -> None:
    """Random predictions, top 1 and top 5, counted one image at a time."""
    top5, labels = random_top5(seed), bundled()
    result = score(top5)
    assert counts(result) == naive(dict(enumerate(top5[:, 0].tolist(), start=1)), labels)
    rows = top5.tolist()
    assert result.original_top5 is not None
    assert result.real_top5 is not None
    assert result.original_top5.correct == sum(
        original in row for original, row in zip(labels.original, rows, strict=True)
    )
    assert result.real_top5.correct == sum(
        not set(real).isdisjoint(row) for real, row in zip(labels.real, rows, strict=True)
    )
    assert (result.original_top5.total, result.real_top5.total) == (NUM_IMAGES, SCORED)


def test_a_file_scores_as_what_it_holds(tmp_path: Path) -> None:
    """A path, the predictions read from it and a mapping score alike."""
    mapping = {f"{key(number)}.JPEG": row for number, row in enumerate(random_top5(2)[:2000].tolist(), start=1)}
    predictions = read_predictions(mapping)
    path = tmp_path / "predictions.csv"
    path.write_bytes(predictions.encode())
    expected = score(predictions, allow_partial=True).as_dict()
    for source in (path, str(path), mapping):
        assert score(source, allow_partial=True).as_dict() == expected


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("absent", "shown"),
    [
        ([1], f"Missing: {key(1)}."),
        ([7, 50_000], f"Missing: {key(7)}, {key(50_000)}."),
        (list(range(100, 110)), f"{key(104)} ... (10)."),
    ],
)
def test_a_missing_image_is_a_coverage_error_with_its_key(absent: list[int], shown: str) -> None:
    """Nothing is computed; the error has all keys, its text the first ones and the count."""
    said = {key(number): 5 for number in range(1, NUM_IMAGES + 1) if number not in absent}
    with pytest.raises(CoverageError) as caught:
        score(said)
    assert caught.value.missing == tuple(map(key, absent))
    assert caught.value.doubled == ()
    assert f"saw {NUM_IMAGES - len(absent):,} of 50,000 samples ({len(absent):,} missing, 0 doubled)" in str(
        caught.value
    )
    assert f"{shown} To score only the images that are there, use --allow-partial" in str(caught.value)
    assert str(caught.value).startswith("the mapping: saw ")


@given(numbers=st.sets(st.integers(1, NUM_IMAGES), max_size=40), seed=st.integers(0, 3))
@settings(max_examples=10, deadline=None)
def test_a_part_is_scored_on_its_images_only(numbers: set[int], seed: int) -> None:
    """With allow_partial the counts are those of the images that are there, also if there is none."""
    said = {number: int(random_top5(seed)[number - 1, 0]) for number in numbers}
    result = score({key(number): label for number, label in said.items()}, allow_partial=True)
    assert counts(result) == naive(said, bundled())
    assert (result.coverage.expected, result.coverage.seen_once) == (len(said), len(said))
    assert result.dataset["num_samples"] == len(said)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("name", ["ILSVRC2012_val_00050001.JPEG", "n01440764_10026.JPEG", "", "ILSVRC2012_val_1.JPEG"])
def test_the_name_of_another_image_is_refused(name: str, partial: bool) -> None:
    """A name that is not a validation image is an error that shows it, also with allow_partial."""
    with pytest.raises(PredictionsError, match=r"1 of 2 are not of validation images, such as "):
        score({key(1): 65, name: 5}, allow_partial=partial)


def test_one_image_of_single_class_takes_top_5_from_all() -> None:
    """A top-5 accuracy is given only if every image has five classes."""
    said: dict[str, Any] = {key(1): [65, 1, 2, 3, 4], key(293): [970, 1, 2, 3, 4]}
    assert score(said, allow_partial=True).original_top5 is not None
    result = score({**said, key(2): 970}, allow_partial=True)
    assert (result.original_top5, result.real_top5) == (None, None)


# --- other labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "percent", "total"),
    [(0.3, 91.163, 48_661), (0.5, 90.707, 48_070), (0.7, 90.188, 47_359), (0.8, 90.023, SCORED), (0.9, 89.945, 45_997)],
)
def test_other_cuts_have_their_known_scores(threshold: float, percent: float, total: int) -> None:
    """The original labels as a model, at five cuts through the rater scores."""
    result = score(np.array(bundled().original), threshold=threshold)
    assert (round(100 * result.real_top1.value, 3), result.real_top1.total) == (percent, total)
    assert result.dataset["threshold"] == threshold


def test_the_cut_at_0_8_gives_the_released_sets() -> None:
    """The bundled scores and the bundled labels are of one release."""
    cut, released = at_threshold(0.8), bundled()
    assert cut.original == released.original
    assert list(map(set, cut.real)) == list(map(set, released.real))
    assert all(len(set(labels)) == len(labels) for labels in cut.real)
    assert counts(score(random_top5(0), threshold=0.8)) == counts(score(random_top5(0)))


def test_a_higher_cut_keeps_a_subset() -> None:
    """Raising the threshold only takes labels away; unrated images keep their original label at any."""
    cuts = [at_threshold(threshold).real for threshold in (0.0, 0.001, 0.5, 0.999)]
    for lower, higher in pairwise(cuts):
        assert all(set(high) <= set(low) for low, high in zip(lower, higher, strict=True))
        assert lower != higher


def test_bundled_permilles_are_the_released_scores_at_every_cut(real_data: Callable[[str], Path]) -> None:
    """For each T of three decimals the bundled table accepts exactly the pairs with a released score above T."""
    with np.load(real_data("scores.npz")) as released:
        scores, info = released["tensor"], released["info"]
    numbers = np.array([int(name[15:23]) for name in info[:, 0].tolist()])
    order = np.lexsort((info[:, 1].astype(int), numbers))
    path = importlib.resources.files("wds_real") / "labels" / "data" / "rater_scores.npz"
    with path.open("rb") as file, np.load(file) as table:
        images = np.repeat(table["image"], table["num_labels"])
        labels, permille = table["label"], table["permille"]
    assert np.array_equal(images, numbers[order])
    assert np.array_equal(labels, info[order, 1].astype(int))
    ranked = np.sort(scores)
    for step in range(1000):
        accepted = permille >= step
        assert np.array_equal(accepted, scores[order] > step / 1000), step
        assert accepted.sum() == len(ranked) - np.searchsorted(ranked, step / 1000, side="right")


@pytest.mark.parametrize("threshold", [-0.001, 1.0, 1.5, 0.8001, 1e-9, float("nan"), float("inf"), -0.5])
def test_a_cut_that_the_scores_cannot_tell_is_refused(threshold: float) -> None:
    """Only 0.000 to 0.999 in steps of a thousandth."""
    with pytest.raises(SourceError, match=r"^threshold is .* expected 0 <= threshold < 1"):
        score({key(1): 65}, threshold=threshold)


@pytest.mark.parametrize("permille", [0, 1, 57, 290, 570, 580, 999])
def test_every_decimal_fraction_is_a_cut(permille: int) -> None:
    """Written with three decimals or computed, a thousandth is understood in spite of its rounding to binary."""
    assert at_threshold(float(f"0.{permille:03d}")) == at_threshold(permille / 1000)


def test_given_labels_take_the_place_of_the_released() -> None:
    """Other ReaL labels are scored against, and the result's digest of labels tells."""
    mine = Labels(bundled().original, tuple((label,) for label in bundled().original))
    result = score(bundled().original, labels=mine)
    assert (result.real_top1.correct, result.real_top1.total) == (NUM_IMAGES, NUM_IMAGES)
    assert result.dataset["labels_digest"] != score(bundled().original).dataset["labels_digest"]
    assert counts(score(random_top5(1), labels=bundled())) == counts(score(random_top5(1)))


def test_labels_and_a_cut_exclude_each_other() -> None:
    """Both choose the labels: given both, neither is silently ignored."""
    with pytest.raises(ValueError, match="labels"):
        score(bundled().original, labels=bundled(), threshold=0.5)


def test_the_predictions_are_left_as_they_were() -> None:
    """Scoring changes nothing in what it was given."""
    predictions = read_predictions(random_top5(3))
    before = Predictions(predictions.keys, predictions.classes.copy(), predictions.probabilities.copy())
    assert score(predictions).as_dict() == score(predictions, allow_partial=True).as_dict()
    assert np.array_equal(predictions.classes, before.classes)
