"""The 1,000 ImageNet classes: index, WordNet id, names and definition."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from wds_real.labels.bundled_files import read_bundled

__all__ = ["NUM_CLASSES", "ClassInfo", "classes"]

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
