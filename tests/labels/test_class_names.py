"""Classes: the released table, numbered by sorted wnid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wds_real.labels import NUM_CLASSES, classes

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
