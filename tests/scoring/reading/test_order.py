"""Rows without names: the order of file names, of class folders, or of numbers, as far as it can be proven."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.prediction_files import KEYS, NAMES, ORIGINAL

from wds_real.errors import CoverageError, PredictionsError
from wds_real.labels import NUM_IMAGES
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.reading.order import ORDERS, find_order, given_order, is_counted, is_truth, keys_of
from wds_real.scoring.score import score

LABELS = np.array(ORIGINAL)
FOLDERS = np.argsort(LABELS, kind="stable")  # images in the order of ImageFolder
RNG = np.random.default_rng(0)
PREDICTED = np.where(RNG.random(NUM_IMAGES) < 0.7, LABELS, RNG.integers(0, 1000, NUM_IMAGES))
BAD = RNG.integers(0, 1000, NUM_IMAGES)
SHUFFLED = RNG.permutation(NUM_IMAGES)
RIGHT = int((PREDICTED == LABELS).sum())


def correct(predictions: Any) -> int:
    return score(read_predictions(predictions)).original_top1.correct


def test_class_folder_order_is_recognised_and_said() -> None:
    """Predictions in ImageFolder's order agree with the labels in that order only; the result is that of the names."""
    read = read_predictions(PREDICTED[FOLDERS])
    assert score(read).original_top1.correct == RIGHT
    assert read.origin.startswith("in class-folder order (original labels agree on 0.")
    assert correct(PREDICTED) == RIGHT
    assert read_predictions(PREDICTED).origin == "in the order of the sorted file names, classes from '0'"


def test_what_is_not_proven_stays_in_the_order_of_file_names() -> None:
    """Predictions no better than chance, or good in both orders, are read as they always were."""
    for values in (BAD, np.full(NUM_IMAGES, 65), LABELS):
        assert read_predictions(values).origin.startswith("in the order of the sorted file names")
        assert correct(values) == (values == LABELS).sum()


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("as_text", [False, True])
def test_numbers_for_names_are_places(start: int, as_text: bool) -> None:
    """0..49999 or 1..50000 in any order number the file names, or the class folders, as the labels prove."""
    by_name: dict[Any, int] = {place + start: int(PREDICTED[place]) for place in SHUFFLED.tolist()}
    by_folder = {place + start: int(PREDICTED[FOLDERS[place]]) for place in SHUFFLED.tolist()}
    for mapping in (by_name, by_folder):
        assert correct({str(key): value for key, value in mapping.items()} if as_text else mapping) == RIGHT


def test_numbers_in_order_need_no_proof_and_others_do() -> None:
    """Row numbers in order are as good as none; shuffled ones of a model no better than chance are refused."""
    assert correct(dict(enumerate(BAD.tolist()))) == (BAD == LABELS).sum()
    with pytest.raises(PredictionsError, match="numbers of rows, out of order"):
        read_predictions({place: int(BAD[place]) for place in SHUFFLED.tolist()})


def test_the_truth_beside_the_predictions_proves_the_order() -> None:
    """A column of original labels tells the order, also of a model no better than chance."""
    for images in (np.arange(NUM_IMAGES), FOLDERS):
        truth = [str(label) for label in LABELS[images].tolist()]
        order = find_order(None, BAD[images], [truth])
        assert np.array_equal(order.images, images)
    wrong = [str(label) for label in LABELS[SHUFFLED].tolist()]
    assert np.array_equal(find_order(None, BAD, [wrong]).images, np.arange(NUM_IMAGES))


@pytest.mark.parametrize(
    ("names", "expected"),
    [([0, 1, 2], True), (["2", "1", "3"], True), (["1.0", "0.0"], True), ([0, 2], False), ([1, 1], False),
     (["a"], False), ([], False), ([2, 3], False)],
)  # fmt: skip
def test_rows_are_counted_from_0_or_1(names: list[Any], expected: bool) -> None:
    """Each number once, without a gap."""
    assert is_counted(names) is expected


def test_the_truth_is_known_by_names_or_by_order() -> None:
    """Only a column that is equal everywhere is the truth."""
    assert is_truth([str(label) for label in ORIGINAL[:9]], [name.encode() for name in NAMES[:9]])
    assert is_truth(LABELS, None)
    assert is_truth(np.sort(LABELS), None)
    assert not is_truth([*ORIGINAL[:8], (ORIGINAL[8] + 1) % 1000], NAMES[:9])
    assert not is_truth(ORIGINAL[:9], None)
    assert not is_truth(ORIGINAL[:2], ["dog.jpeg", "cat.jpeg"])
    assert not is_truth(["x"], NAMES[:1])
    assert not is_truth([], [])


def test_keys_are_those_of_the_names() -> None:
    """A missing name and a doubled one are errors."""
    assert keys_of([NAMES[0].encode(), f"val/{NAMES[1]}"]) == list(KEYS[:2])
    with pytest.raises(PredictionsError, match="record 1 has no name"):
        keys_of([NAMES[0], None])
    with pytest.raises(CoverageError, match=KEYS[0]):
        keys_of([NAMES[0], KEYS[0]])


@pytest.mark.parametrize("order", ORDERS)
def test_a_given_order_is_taken_as_it_is(order: str) -> None:
    """Rows in any known order give each image its own prediction, also where no label could prove it."""
    images = ORDERS[order](LABELS)
    assert sorted(images.tolist()) == list(range(NUM_IMAGES))
    for values in (PREDICTED, BAD):
        read = read_predictions(values[images], order=order)
        assert read.classes[:, 0].tolist() == values.tolist()
    assert read.origin == f"in the order {order}, classes from '0'"


def test_a_given_order_replaces_the_names() -> None:
    """Names that were put beside predictions in class-folder order are wrong, and not used."""
    wrong = dict(zip(NAMES, PREDICTED[FOLDERS].tolist(), strict=True))
    assert correct(wrong) < NUM_IMAGES / 50
    assert score(read_predictions(wrong, order="imagefolder")).original_top1.correct == RIGHT


def test_a_given_order_is_of_all_images() -> None:
    """A part of the images has no order; an unknown order is refused with those that exist."""
    with pytest.raises(PredictionsError, match="3 predictions in the order keys, expected all 50,000"):
        read_predictions({NAMES[0]: 1, NAMES[1]: 2, NAMES[2]: 3}, order="keys")
    with pytest.raises(PredictionsError, match="order 'sorted', expected one of keys, imagefolder"):
        given_order("sorted", NUM_IMAGES)
