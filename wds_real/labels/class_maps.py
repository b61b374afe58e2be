"""Other numberings of the 1,000 classes: entry i of an int64 array is the class index 0..999 of number i."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from wds_real.labels.bundled_files import read_bundled
from wds_real.labels.class_names import NUM_CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["devkit_map", "string_sorted_map"]


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
