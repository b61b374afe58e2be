"""Which column holds the predictions: found where it is certain, refused where another column could be meant."""

from __future__ import annotations

from typing import Any

import pytest
from support.prediction_files import NAMES, ORIGINAL

from wds_real.errors import PredictionsError
from wds_real.labels import classes
from wds_real.scoring.reading.roles import find_roles

TRUTH = [str(label) for label in ORIGINAL[:50]]
OTHER = [str((label + 1) % 1000) for label in ORIGINAL[:50]]
THIRD = [str((label + 2) % 1000) for label in ORIGINAL[:50]]
LOSS = ["0.25"] * 50
SIZES = [str(2000 + number) for number in range(50)]


def columns(**others: Any) -> dict[str, Any]:
    return {"filename": list(NAMES[:50]), **others}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (columns(pred=OTHER), ("pred",)),
        (columns(label=OTHER), ("label",)),
        (columns(output=OTHER), ("output",)),
        (columns(y_hat=OTHER), ("y_hat",)),
        (columns(label=TRUTH, pred=OTHER), ("pred",)),
        (columns(target=TRUTH, output=OTHER), ("output",)),
        (columns(ground_truth=TRUTH, guess=OTHER), ("guess",)),
        (columns(label=OTHER, loss=LOSS), ("label",)),
        (columns(**{"class": OTHER, "width": SIZES}), ("class",)),
        (columns(index=[str(row) for row in range(50)], pred=OTHER), ("pred",)),
        (columns(label=TRUTH, top1=OTHER, top2=TRUTH), ("top1", "top2")),
        (columns(**{"Predicted Class".lower(): OTHER}), ("predicted class",)),
        ({"": list(NAMES[:50]), "0": OTHER}, ("0",)),
        ({"0": list(NAMES[:50]), "1": OTHER, "2": TRUTH}, ("1", "2")),
    ],
)
def test_the_predictions_are_found(found: dict[str, Any], expected: tuple[str, ...]) -> None:
    """A word for predictions is taken; a word for labels only if nothing else could be the prediction."""
    roles = find_roles(found, name_column=None, class_column=None)
    assert roles.classes == expected
    assert roles.names == next(iter(found))
    assert set(roles.others) == set(found) - {*expected, roles.names}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (columns(label=TRUTH, output=OTHER), ["'label' and 'output'", "'label' equals the", "--class-column output"]),
        (columns(label=TRUTH, y_hat=OTHER), ["'label' equals the original labels everywhere", "--class-column y_hat"]),
        (columns(**{"class": TRUTH, "guess": OTHER}), ["'class' equals the original", "--class-column guess"]),
        (columns(label=OTHER, mine=TRUTH), ["'mine' equals the original labels everywhere", "--class-column label"]),
        (columns(label=OTHER, mine=THIRD), ["both 'label' and 'mine' could hold the classes", "--class-column"]),
        (columns(**{"pred": OTHER, "class": THIRD}), ["both 'pred' and 'class'"]),
        (columns(pred=OTHER, prediction=THIRD), ["could hold the classes"]),
        (columns(**{"0": OTHER, "label": TRUTH}), ["both '0' and 'label'"]),
        (columns(mine=OTHER), ["no column of classes", "'mine' could hold them: use --class-column"]),
        (columns(target=TRUTH), ["no column of classes among filename, target"]),
        (columns(loss=LOSS), ["no column of classes"]),
    ],
)  # fmt: skip
def test_a_column_that_may_be_the_truth_is_refused(found: dict[str, Any], words: list[str]) -> None:
    """The message names both columns, the one that equals the original labels, and the option that decides."""
    with pytest.raises(PredictionsError) as caught:
        find_roles(found, name_column=None, class_column=None)
    assert [word for word in words if word not in str(caught.value)] == []
    chosen = list(found)[-1]
    assert find_roles(found, name_column=None, class_column=chosen.upper()).classes == (chosen,)


def test_columns_that_say_the_same_are_no_choice() -> None:
    """Class numbers with their wnids, or with names that may be ambiguous, are one prediction; the first is taken."""
    wnids = [classes()[int(label)].wnid for label in OTHER]
    found = columns(index=OTHER, label=wnids)
    assert find_roles(found, name_column=None, class_column=None).classes == ("index",)
    found = columns(index=["134"] * 50, label=["crane"] * 50, prob=LOSS)
    assert find_roles(found, name_column=None, class_column=None).classes == ("index",)


def test_names_of_classes_are_taken_where_nothing_else_is() -> None:
    """One column of names is the prediction; two that differ are refused; ``wnid`` is a word for classes."""
    names = ["tench"] * 50
    assert find_roles(columns(class_name=names), name_column=None, class_column=None).classes == ("class_name",)
    assert find_roles(columns(wnid=["n01440764"] * 50), name_column=None, class_column=None).classes == ("wnid",)
    with pytest.raises(PredictionsError, match="both 'label' and 'guess' could hold the classes"):
        find_roles(columns(label=names, guess=["goldfish"] * 50), name_column=None, class_column=None)


def test_1000_scores_are_predictions_under_any_name() -> None:
    """A column of 1,000 numbers each, or 1,000 numbered columns, also where a label is beside them."""
    scores = [[float(place == 7) for place in range(1000)]] * 50
    assert find_roles(columns(confidence=scores), name_column=None, class_column=None).classes == ("confidence",)
    for start in (0, 1):
        numbered = {f"logit_{place + start}": LOSS for place in reversed(range(1000))}
        found = find_roles(columns(label=TRUTH, **numbered), name_column=None, class_column=None)
        assert found.classes == tuple(f"logit_{place + start}" for place in range(1000))


def test_a_message_names_the_first_few_of_many_columns() -> None:
    """20,000 columns are no 20,000 names in a line."""
    found: dict[str, Any] = {f"{'x' * 300}{number}": ["?"] for number in range(20_000)}
    for choice in (None, "nope"):
        with pytest.raises(PredictionsError) as caught:
            find_roles(found, name_column=None, class_column=choice)
        assert len(str(caught.value)) < 2000
        assert "(20,000)" in str(caught.value)
