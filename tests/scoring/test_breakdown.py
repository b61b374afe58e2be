"""Where a model is right and wrong: slices, classes and confusions, counted one image at a time."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.labels import NUM_CLASSES, bundled, classes
from wds_real.scoring.breakdown import Breakdown, ClassCount, break_down
from wds_real.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW = st.integers(0, 7) | st.integers(NUM_CLASSES - 3, NUM_CLASSES - 1)  # few classes, so that they meet


class Image(NamedTuple):
    """One image: its labels, what was said of it (-1: nothing), and whether it counts."""

    original: int
    real: tuple[int, ...]
    top1: int
    counts: bool = True

    @property
    def correct(self) -> bool:
        return self.top1 in self.real


images = st.lists(
    st.builds(Image, FEW, st.lists(FEW, max_size=4, unique=True).map(tuple), st.just(-1) | FEW, st.booleans()),
    max_size=60,
)


def counted(drawn: Sequence[Image]) -> Breakdown:
    real = np.full((len(drawn), 5), -1, dtype=np.int64)
    for row, image in enumerate(drawn):
        real[row, : len(image.real)] = image.real
    return break_down(
        np.array([image.top1 for image in drawn], dtype=np.int64),
        np.array([image.correct for image in drawn], dtype=np.bool_),
        original_label=np.array([image.original for image in drawn], dtype=np.int64),
        real_label=real,
        scope=np.array([image.counts and bool(image.real) for image in drawn], dtype=np.bool_),
    )


def in_scope(drawn: Sequence[Image]) -> list[Image]:
    return [image for image in drawn if image.counts and image.real]


@given(images)
@settings(max_examples=50)
def test_slices_are_those_of_a_slow_count(drawn: list[Image]) -> None:
    """One label, several, and original label rejected: right images and all images of each."""
    kept = in_scope(drawn)
    slices = {
        "one_label": [image for image in kept if len(image.real) == 1],
        "several_labels": [image for image in kept if len(image.real) > 1],
        "original_label_rejected": [image for image in kept if image.original not in image.real],
    }
    assert counted(drawn).slices == {
        name: (sum(image.correct for image in part), len(part)) for name, part in slices.items()
    }


@given(images)
@settings(max_examples=50)
def test_classes_are_those_of_a_slow_count(drawn: list[Image]) -> None:
    """Each image counts for each of its labels, so the totals add up to the number of labels."""
    kept, found = in_scope(drawn), counted(drawn)
    for label in range(NUM_CLASSES):
        of_class = [image for image in kept if label in image.real]
        assert found.class_total[label] == len(of_class)
        assert found.class_correct[label] == sum(image.correct for image in of_class)
    assert found.class_total.sum() == sum(len(image.real) for image in kept)
    assert (found.class_total.dtype.str, found.class_total.shape) == ("<i8", (NUM_CLASSES,))


@given(images)
@settings(max_examples=50)
def test_worst_classes_and_confusions_are_those_of_a_slow_count(drawn: list[Image]) -> None:
    """Lowest share first, then the larger class, then the lower index; with the three most frequent wrong answers."""
    kept, found = in_scope(drawn), counted(drawn)
    expected = []
    for label in range(NUM_CLASSES):
        of_class = [image for image in kept if label in image.real]
        wrong = Counter(image.top1 for image in of_class if not image.correct and image.top1 >= 0)
        most = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:3]
        right = sum(image.correct for image in of_class)
        if right < len(of_class):
            expected.append(ClassCount(label, right, len(of_class), tuple(most)))
    expected.sort(key=lambda count: (count.correct / count.total, -count.total, count.label))
    assert list(found.worst) == expected[:20]


@given(images)
@settings(max_examples=50)
def test_json_and_text_show_every_count(drawn: list[Image]) -> None:
    """Plain JSON with names; the text has a line for each slice and each worst class, and no NaN."""
    found = counted(drawn)
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert content["per_class"]["total"] == found.class_total.tolist()
    assert [(entry["class"], entry["wnid"]) for entry in content["worst_classes"]] == [
        (count.label, classes()[count.label].wnid) for count in found.worst
    ]
    text = str(found)
    assert len(text.splitlines()) == 2 + len(found.slices) + len(found.worst)
    assert "nan" not in text.replace("banana", "")


def test_no_image_has_no_share() -> None:
    """Without an image every slice is 0 of 0, shown as a dash."""
    found = counted([])
    assert set(found.slices.values()) == {(0, 0)}
    assert found.worst == ()
    assert str(found).count(" -") == 3


def test_the_original_labels_break_down_as_released() -> None:
    """The released sets: 39,394 images of one label, 7,443 of several, 4,673 whose original label is not among them."""
    found = score(bundled().original).breakdown
    assert found.slices == {
        "one_label": (35_716, 39_394),
        "several_labels": (6_448, 7_443),
        "original_label_rejected": (0, 3_678 + 995),
    }
    assert found.class_total.sum() == 57_553
    assert (found.class_correct <= found.class_total).all()
    per_label = Counter(label for real in bundled().real for label in real)
    assert found.class_total.tolist() == [per_label[label] for label in range(NUM_CLASSES)]


def test_a_perfect_model_has_no_worst_class() -> None:
    """Where everything is right there is nothing to list."""
    found = score([real[-1] if real else 0 for real in bundled().real]).breakdown
    assert found.worst == ()
    assert found.class_correct.tolist() == found.class_total.tolist()
