"""The diagnosis of absurd accuracies: each known mistake, put into real or synthetic answers, is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wds_real.labels import NUM_CLASSES, NUM_IMAGES, bundled
from wds_real.labels.class_maps import devkit_map, string_sorted_map
from wds_real.scoring.diagnosis import CLASS_MISTAKES, ORDER_MISTAKES, diagnose

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Fault = Callable[[NDArray[np.int64]], NDArray[np.int64]]

MODELS = (
    "alexnet", "densenet161", "inception_v3_tf", "mobilenet_v1_tf", "nasnetamobile", "resnet18", "resnet50", "senet154",
    "squeezenet1_1", "vgg16",
)  # fmt: skip
ORIGINAL = np.array(bundled().original, dtype=np.int64)


def class_folder_order() -> NDArray[np.int64]:
    """Return the images in the order of ImageFolder."""
    return np.lexsort((np.arange(NUM_IMAGES), ORIGINAL))


def shuffled(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.random.default_rng(7).permutation(values)


FAULTS: dict[str, Fault] = {
    "class-folder": lambda predicted: predicted[class_folder_order()],
    "ILSVRC2012_ID 1..1000": lambda predicted: np.argsort(devkit_map())[predicted] + 1,
    "ILSVRC2012_ID of the development kit less 1": lambda predicted: np.argsort(devkit_map())[predicted],
    "counted from 1, or after a background class": lambda predicted: predicted + 1,
    "one too low": lambda predicted: predicted - 1,
    "sorted as text": lambda predicted: np.argsort(string_sorted_map())[predicted],
    "unknown order": lambda predicted: shuffled(np.arange(NUM_CLASSES))[predicted],
    "no known mistake explains it": shuffled,
}


@pytest.fixture(scope="module")
def predicted() -> NDArray[np.int64]:
    """Answers of a model that is right on about 70 % of the images."""
    random = np.random.default_rng(0)
    wrong = random.random(NUM_IMAGES) > 0.7
    return np.where(wrong, random.integers(0, NUM_CLASSES, NUM_IMAGES), ORIGINAL)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_known_mistake_is_found(predicted: NDArray[np.int64], fault: str) -> None:
    """The verdict names the mistake, and gives the accuracy without it."""
    diagnosis = diagnose(FAULTS[fault](predicted), ORIGINAL)
    assert fault in diagnosis.verdict
    assert diagnosis.as_is.accuracy < 0.02
    if diagnosis.explanation is not None:
        assert diagnosis.explanation.accuracy == pytest.approx((predicted == ORIGINAL).mean(), abs=0.01)


def test_sound_answers_raise_no_alarm(predicted: NDArray[np.int64]) -> None:
    """Right answers, and those of a model that is right on one image in twenty, have no mistake."""
    assert diagnose(predicted, ORIGINAL).explanation is None
    weak = np.where(np.arange(NUM_IMAGES) % 20 == 0, ORIGINAL, shuffled(predicted))
    diagnosis = diagnose(weak, ORIGINAL)
    assert diagnosis.explanation is None
    assert diagnosis.verdict == "no known mistake of order or class numbers"


def test_two_mistakes_together_are_found(predicted: NDArray[np.int64]) -> None:
    """A wrong order and wrong class numbers at once are undone together."""
    diagnosis = diagnose(FAULTS["ILSVRC2012_ID 1..1000"](FAULTS["class-folder"](predicted)), ORIGINAL)
    assert diagnosis.explanation is not None
    assert len(diagnosis.explanation.mistakes) == 2
    assert diagnosis.explanation.correct == int((predicted == ORIGINAL).sum())


@pytest.mark.parametrize("mistake", list(ORDER_MISTAKES), ids=lambda mistake: mistake.name)
def test_undoing_an_order_gives_each_image_its_own_prediction(mistake: object) -> None:
    """Each order is a permutation of all images; predictions in that order are all right once it is undone."""
    order = ORDER_MISTAKES[mistake](ORIGINAL)  # type: ignore[index]
    assert sorted(order.tolist()) == list(range(NUM_IMAGES))
    explanation = diagnose(ORIGINAL[order], ORIGINAL).explanation
    assert explanation is not None
    assert explanation.correct == NUM_IMAGES


@pytest.mark.parametrize("mistake", list(CLASS_MISTAKES), ids=lambda mistake: mistake.name)
def test_undoing_a_class_mistake_maps_numbers_to_classes(mistake: object) -> None:
    """A map gives at least 999 different classes, and -1 for what is no class."""
    mapped = CLASS_MISTAKES[mistake](np.arange(-1, NUM_CLASSES + 1))  # type: ignore[index]
    inside = mapped[(mapped >= 0) & (mapped < NUM_CLASSES)]
    assert len(set(inside.tolist())) == len(inside) >= NUM_CLASSES


def test_named_predictions_of_a_part_are_diagnosed_by_class_alone(predicted: NDArray[np.int64]) -> None:
    """A part of the images has no order to be wrong in; its positions say which images they are."""
    positions = np.arange(0, NUM_IMAGES, 7)
    diagnosis = diagnose(predicted[positions] + 1, ORIGINAL, positions=positions)
    assert "counted from 1" in diagnosis.verdict
    assert all(mistake not in ORDER_MISTAKES for trial in diagnosis.trials for mistake in trial.mistakes)


def test_the_table_shows_every_single_mistake(predicted: NDArray[np.int64]) -> None:
    """The printed table has a line for each mistake, the verdict and what to do; JSON has every trial."""
    diagnosis = diagnose(predicted + 1, ORIGINAL)
    shown = str(diagnosis)
    for mistake in (*ORDER_MISTAKES, *CLASS_MISTAKES):
        assert mistake.name in shown
    assert " to do: subtract 1 from each class" in shown
    trials = diagnosis.as_dict()["trials"]
    assert len(trials) == (1 + len(ORDER_MISTAKES)) * (2 + len(CLASS_MISTAKES))
    assert trials[0] == {"undone": [], "correct": diagnosis.as_is.correct, "total": NUM_IMAGES}


@pytest.mark.parametrize("model", MODELS)
def test_real_answers_are_diagnosed(real_data: Callable[[str], Path], model: str) -> None:
    """For ten real models, each mistake is named, and the sound answers raise no alarm."""
    with np.load(real_data(f"predictions/{model}.npz")) as file:
        top1 = file["top5"][:, 0].astype(np.int64)
    verdicts = {fault: diagnose(put_in(top1), ORIGINAL).verdict for fault, put_in in FAULTS.items()}
    assert [fault for fault, verdict in verdicts.items() if fault not in verdict] == []
    assert diagnose(top1, ORIGINAL).explanation is None
