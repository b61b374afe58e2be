"""Classes: the released table, numbered by sorted wnid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wds_real.labels import NUM_CLASSES, classes
from wds_real.labels.class_names import classes_by_name, plain_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_classes_are_those_of_the_released_file(real_data: Callable[[str], Path]) -> None:
    """Index, wnid, lemmas and definition of every class are those of classes.tsv, in its order."""
    lines = real_data("classes.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    rows = [f"{info.index}\t{info.wnid}\t{info.lemmas}\t{info.definition}" for info in classes()]
    assert rows == lines


def test_classes_are_numbered_by_sorted_wnid() -> None:
    """A class index is the place of the wnid in the sorted list of wnids, 0..999."""
    assert [info.wnid for info in classes()] == sorted(info.wnid for info in classes())
    assert [info.index for info in classes()] == list(range(NUM_CLASSES))
    assert all(info.lemmas and info.definition and info.name == info.lemmas.split(",")[0] for info in classes())


def test_a_name_leads_to_every_class_that_has_it() -> None:
    """Each lemma, all lemmas and all with the definition are names; few are of two classes."""
    found = classes_by_name()
    for info in classes():
        for name in (info.name, info.lemmas, f"{info.lemmas}: {info.definition}"):
            assert info.index in found[plain_name(name)]
    ambiguous = {name for name, indices in found.items() if len(indices) > 1}
    assert {"crane", "maillot", "panther", "cardigan", "missile"} < ambiguous
    assert len(ambiguous) == 19


@pytest.mark.parametrize("name", ["Great_White_Shark", " great  white shark", "white shark"])
def test_spellings_of_a_name_are_one(name: str) -> None:
    """Case, underscores and blanks do not count."""
    assert classes_by_name()[plain_name(name)] == (2,)
