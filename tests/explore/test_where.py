"""Conditions that choose images: what they mean, and what is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wds_real.data.dataset import open_dataset
from wds_real.errors import PlanError
from wds_real.explore.where import MAX_CONDITION_LENGTH, answers_of, choose
from wds_real.labels import classes
from wds_real.scoring.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset

TINY = Path(__file__).parents[2] / "shards" / "tiny"


@pytest.fixture(scope="module")
def ds() -> Dataset:
    return open_dataset(TINY)


@pytest.fixture(scope="module")
def files(ds: Dataset) -> tuple[Predictions, Predictions]:
    """The first answers with the original labels, the second with a ReaL label, or class 0 where there is none."""
    original = ds.index.original_label
    second = np.array([labels[0] if labels else 0 for labels in ds.index.real_label])
    return predictions(ds, original), predictions(ds, second)


def predictions(ds: Dataset, best: NDArray[np.int64]) -> Predictions:
    answers = (best[:, None] + np.arange(5)) % 1000
    return Predictions(ds.keys, answers, np.full(answers.shape, np.nan, dtype=np.float32))


class Row(NamedTuple):
    """An image, and the first answers of the two models."""

    key: str
    original: int
    real: tuple[int, ...]
    width: int
    height: int
    a: int
    b: int


CONDITIONS: dict[str, Callable[[Row], bool]] = {
    "len(real) > 1": lambda row: len(row.real) > 1,
    "1 < len(real) <= 3": lambda row: 1 < len(row.real) <= 3,
    "not real": lambda row: not row.real,
    "not not real": lambda row: bool(row.real),
    "original not in real": lambda row: row.original not in row.real,
    "real and original not in real": lambda row: bool(row.real) and row.original not in row.real,
    'class == "sea snake"': lambda row: row.original == 65,
    'class=="n01751748"': lambda row: row.original == 65,
    "class == 65 or original == 970": lambda row: row.original in (65, 970),
    "65 == class": lambda row: row.original == 65,
    'class != "Sea_Snake"': lambda row: row.original != 65,
    '"sea snake" in real': lambda row: 65 in row.real,
    "predicted not in real": lambda row: row.a not in row.real,
    "predicted == original": lambda row: row.a == row.original,
    "B not in real": lambda row: row.b not in row.real,
    "A != B": lambda row: row.a != row.b,
    "original in top5": lambda row: row.original in [(row.a + place) % 1000 for place in range(5)],
    "len(top5) == 5": lambda _: True,
    "flipped(A, B)": lambda row: bool(row.real) and (row.a in row.real) != (row.b in row.real),
    "flipped(B, A) and not (len(real) == 1)": lambda row: (
        len(row.real) > 1 and (row.a in row.real) != (row.b in row.real)
    ),
    'key == "ILSVRC2012_val_00000009"': lambda row: row.key == "ILSVRC2012_val_00000009",
    'key >= "ILSVRC2012_val_00000009"': lambda row: row.key >= "ILSVRC2012_val_00000009",
    "width == height and width < 1e6": lambda row: row.width == row.height,
    'key != "class"': lambda _: True,
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_means_what_it_says(ds: Dataset, files: tuple[Predictions, Predictions], condition: str) -> None:
    """The images found are those for which the same holds in Python, in their order."""
    index, best = ds.index, [file.classes[:, 0].tolist() for file in files]
    columns = (index.keys, index.original_label.tolist(), index.real_label, index.width.tolist(), index.height.tolist())
    rows = (Row(*values) for values in zip(*columns, *best, strict=True))
    expected = [place for place, row in enumerate(rows) if CONDITIONS[condition](row)]
    found = choose(ds, where=condition, predictions=files)
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("condition", ["original not in real", "real and original not in real", "flipped(A, B)"])
def test_conditions_choose_some_of_the_images(
    ds: Dataset, files: tuple[Predictions, Predictions], condition: str
) -> None:
    """The test above compares with sets that are neither empty nor everything."""
    assert 0 < len(choose(ds, where=condition, predictions=files)) < len(ds)


def test_places_are_those_of_the_view(ds: Dataset) -> None:
    """Of a slice, places count from its beginning, so that they can be used as items of it."""
    part = ds[10:60:3]
    found = choose(part, where="original not in real")
    expected = [place for place, sample in enumerate(part) if sample["original_label"] not in sample["real_label"]]
    assert found.tolist() == expected != []


def test_names_choose_in_their_order(ds: Dataset) -> None:
    """Any spelling that `score` takes; of those that are named, the condition leaves some out."""
    names = ["ILSVRC2012_val_00000009.JPEG", "ILSVRC2012_val_00000003", "val/n01751748/ILSVRC2012_val_00000001.jpg"]
    assert choose(ds, names).tolist() == [8, 2, 0]
    assert choose(ds, names, where="class == 65").tolist() == [0]
    with pytest.raises(PlanError, match=r"ILSVRC2012_val_00000099 is not one of the 60 samples of .*, validation\."):
        choose(ds, [names[0], "ILSVRC2012_val_00000099"])


def test_an_image_that_the_model_did_not_answer_is_wrong(ds: Dataset, files: tuple[Predictions, Predictions]) -> None:
    """It has no answer among the labels and none in the top five."""
    some = Predictions(ds.keys[:5], files[0].classes[:5], files[0].probabilities[:5])
    assert answers_of(ds, some)[:, 0].tolist() == [*files[0].classes[:5, 0].tolist(), *[-1] * (len(ds) - 5)]
    assert choose(ds, where="len(top5) == 0", predictions=[some]).tolist() == list(range(5, len(ds)))
    assert set(range(5, len(ds))) <= set(choose(ds, where="predicted not in real", predictions=[some]).tolist())


REFUSED = {
    "": "is not a condition",
    "len(real) >": "is not a condition",
    "real = 3": "is not a condition",
    "not " * 100 + "real": "nested more than 50 deep",
    "(" * 500: "is not a condition",
    "real" + " or real" * 300: "has .* characters, expected at most",
    "'\0'": "is not a condition",
    "len(real)": "is a number, expected a condition, such as len",
    "original": "is a class, expected a condition, such as class == ",
    "'tench'": "is text, expected a condition",
    "real": "is a set of classes, expected a condition, such as original not in real",
    "original < 5": "classes have no order. Use == or !=",
    "original is 5": "`is` is not allowed. Use == or !=",
    "original == 1000": "got 1000, expected a class. Give an index 0..999",
    "original == -1": "is not allowed",
    "original == width": "got a number, expected a class",
    "original == 1.5": "got 1.5, expected a class",
    "original == real": "got a set of classes, expected a class",
    "original in key": "key is text. `in` needs a set: real or top5",
    "'a' in 'abc'": "'abc' is text. `in` needs a set",
    "width > 'a'": "compares a number with text",
    "real == real == real and key == width": "compares text with a number",
    "(real and real) == (real and real)": "compares a condition with a condition",
    "width and real": "width is a number. Expected a condition",
    'class == "crane"': r"is the name of 2 classes. Give the wnid or index: n02012849 \(134\) or n03126707 \(517\)",
    'class == "tenc"': "'tenc' is not a class. Similar: tench",
    'class == "qqqqqqqqq"': "is not a class. `wds-real info` shows",
    "orignal in real": "orignal is not known. Perhaps original",
    "foo in real": "foo is not known. The names are",
    "__import__('os')": "is not allowed. The functions are len",
    "real.__class__": "is not allowed",
    "len.__self__": "is not allowed",
    "real[0]": "is not allowed",
    "lambda: real": "is not allowed",
    "[x for x in real]": "is not allowed",
    "f'{real}'": "is not allowed",
    "(y := real)": "is not allowed",
    "True": "is not allowed",
    "b'a' == key": "is not allowed",
    "width + 1 > 2": "is not allowed",
    "flipped(A)": "Expected flipped",
    "flipped(A, B=B)": "The functions are",
    "len(key) > 3": "Expected len",
    "len() > 3": "Expected len",
    "C == A": "C needs 3 prediction files, given 2. Give them with --predictions FILE",
}


@pytest.mark.parametrize("condition", REFUSED)
def test_what_is_no_condition_is_refused(ds: Dataset, files: tuple[Predictions, Predictions], condition: str) -> None:
    """In one line, which says what is wrong where."""
    with pytest.raises(PlanError, match=REFUSED[condition]) as caught:
        choose(ds, where=condition, predictions=files)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("condition", ["predicted in real", "len(top5) > 2"])
def test_predictions_must_be_given(ds: Dataset, condition: str) -> None:
    """A condition on a model's answers says which option gives them."""
    with pytest.raises(PlanError, match=r"needs 1 prediction file, given 0. Give them with --predictions FILE"):
        choose(ds, where=condition)


WORDS = ["real", "original", "class", "predicted", "len", "flipped", "(", ")", "not", "and", "in", "==", "<", "A", "B",
         "3", '"tench"', "'", ",", "key", "is", "lambda", ":", ".", "\n", "0" * 5000, "é", "\\"]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=MAX_CONDITION_LENGTH))
@example("0" * 1999)
@example("#")
@example("class\n")
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_condition_or_refused(ds: Dataset, files: tuple[Predictions, Predictions], text: str) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(PlanError):
        assert len(choose(ds, where=text, predictions=files)) <= len(ds)


def test_class_names_are_those_of_the_labels() -> None:
    """The classes that this file speaks of."""
    assert [classes()[index].name for index in (65, 134, 517)] == ["sea snake", "crane", "crane"]
