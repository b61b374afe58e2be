"""The 1,000 ImageNet classes: index, WordNet id, names and definition."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from wds_real.labels.bundled_files import read_bundled

__all__ = ["NUM_CLASSES", "ClassInfo", "classes", "classes_by_name", "index_of_wnid", "plain_name"]

NUM_CLASSES = 1_000


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One of the 1,000 classes.

    Attributes:
        index: Class index 0..999: the place of ``wnid`` in the sorted list of the 1,000 wnids.
        wnid: WordNet id, ``n01440764``.
        lemmas: Comma-separated names, the most common first.
        definition: WordNet's gloss.
    """

    index: int
    wnid: str
    lemmas: str
    definition: str

    @property
    def name(self) -> str:
        """The first lemma."""
        return self.lemmas.split(",", 1)[0]


@functools.cache
def classes() -> tuple[ClassInfo, ...]:
    """Return the 1,000 classes in index order.

    >>> classes()[65].wnid, classes()[65].name
    ('n01751748', 'sea snake')

    Raises:
        SourceError: the bundled file is damaged.
    """
    rows = read_bundled("classes.tsv").decode("utf-8").splitlines()[1:]
    return tuple(
        ClassInfo(int(index), wnid, lemmas, definition)
        for index, wnid, lemmas, definition in (row.split("\t") for row in rows)
    )


@functools.cache
def classes_by_name() -> dict[str, tuple[int, ...]]:
    """Return the indices of the classes that a name can mean, by the name in lower case with blanks for underscores.

    A name is a lemma, all lemmas of a class, or these with the definition, as timm's ``inference.py`` writes them.

    >>> classes_by_name()["great white shark"], classes_by_name()["crane"]
    ((2,), (134, 517))
    """
    found: dict[str, set[int]] = {}
    for info in classes():
        names = (info.lemmas, f"{info.lemmas}: {info.definition}", *info.lemmas.split(","))
        for name in names:
            found.setdefault(plain_name(name), set()).add(info.index)
    return {name: tuple(sorted(indices)) for name, indices in found.items()}


@functools.cache
def index_of_wnid() -> dict[str, int]:
    """Return the class index of each wnid.

    >>> index_of_wnid()["n01751748"]
    65
    """
    return {info.wnid: info.index for info in classes()}


def plain_name(name: str) -> str:
    """Return a class name in lower case, with single blanks for underscores and other gaps.

    >>> plain_name(" Great_white_shark")
    'great white shark'
    """
    return " ".join(name.replace("_", " ").lower().split())
