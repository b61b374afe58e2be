"""Other numberings of the 1,000 classes, and models whose outputs are not the 1,000 classes in their order.

A numbering is an int64 array whose entry i is the class index 0..999 of number i; a `ClassMap` is the way back.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from wds_real.labels.bundled_files import read_bundled
from wds_real.labels.class_names import NUM_CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["ClassMap", "background_map", "devkit_map", "string_sorted_map"]


@dataclass(frozen=True, slots=True, eq=False)
class ClassMap:
    """Which output of a model is which class.

    Attributes:
        outputs: int64 (1000,): the output of each class.
        num_outputs: How many outputs the model has.
        description: The same in a few words, JSON-ready, for the identity of a run.
    """

    outputs: NDArray[np.int64]
    num_outputs: int
    description: Mapping[str, str | int]


def background_map(place: Literal["first", "last"]) -> ClassMap:
    """Return the map of a model of 1,001 classes, of which the first or the last is the background.

    >>> background_map("first").outputs[:3].tolist()
    [1, 2, 3]
    """
    start = 1 if place == "first" else 0
    return ClassMap(np.arange(start, start + NUM_CLASSES), NUM_CLASSES + 1, {"background": place})


@functools.cache
def devkit_map() -> NDArray[np.int64]:
    """Return the map of a model whose output i is the class with ILSVRC2012_ID i + 1 of the development kit.

    >>> from wds_real.labels import classes
    >>> classes()[devkit_map()[0]].name
    'kit fox'
    """
    return np.array(read_bundled("devkit_classes.txt").split(), dtype=np.int64)


def string_sorted_map() -> NDArray[np.int64]:
    """Return the map of a model trained on folders named "0" to "999", which were sorted as text.

    >>> string_sorted_map()[:4].tolist()
    [0, 1, 10, 100]
    """
    return np.array(sorted(range(NUM_CLASSES), key=str), dtype=np.int64)
