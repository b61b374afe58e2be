"""Names of outputs: the classes in order are recognised in each usual spelling; other orders and names are not."""

from __future__ import annotations

import pytest

from wds_real.labels import classes
from wds_real.labels.matching import classes_named, order_of

SPELLINGS = {
    "wnids": [each.wnid for each in classes()],
    "lemmas": [each.lemmas for each in classes()],
    "first lemmas": [each.name for each in classes()],
    "Keras": [each.name.replace(" ", "_") for each in classes()],
    "capitals": [each.name.upper() for each in classes()],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_order_of_the_classes_is_told_from_others(spelling: str) -> None:
    """In the order of the classes they pass; reversed, and shifted by one, they do not."""
    names = SPELLINGS[spelling]
    assert order_of(names) == "standard"
    assert order_of(names[::-1]) == "another"
    assert order_of([*names[1:], names[0]]) == "another"


def test_a_few_names_may_be_spelt_anew() -> None:
    """Collections call some classes otherwise; but where twenty known ones are swapped, the order is another one."""
    names = [each.name for each in classes()]
    assert order_of(["something new", *names[1:]]) == "standard"
    swapped = [*names[20:40], *names[0:20], *names[40:]]
    assert order_of(swapped) == "another"


@pytest.mark.parametrize("names", [["cat", "dog"], [], [f"LABEL_{i}" for i in range(1000)], ["background"] * 1001])
def test_other_names_are_unknown(names: list[str]) -> None:
    """Other numbers of outputs and other words are not judged."""
    assert order_of(names) == "unknown"


def test_a_name_of_two_classes_means_both() -> None:
    """Crane is a bird and a machine, and each is in its place."""
    assert [each.index for each in classes() if each.name == "crane"] == sorted(classes_named("crane"))
    assert classes_named(" Crane ") == classes_named("crane")
    assert len(classes_named("crane")) == 2
