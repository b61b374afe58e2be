"""Class maps: which of the 1,000 classes each output of a model stands for.

A map is an int64 array: entry i is the class index 0..999 of output i, or -1 where the output is none of the 1,000
classes, such as a background class.
"""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from wds_real.errors import SourceError
from wds_real.labels.bundled_files import read_bundled
from wds_real.labels.class_names import NUM_CLASSES, classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["background_map", "devkit_map", "read_class_map", "string_sorted_map"]

_MAX_BYTES = 16 << 20
_NOT_A_CLASS = ("", "-", "-1", "background", "none")


def background_map(place: Literal["first", "last"]) -> NDArray[np.int64]:
    """Return the map of a model with 1,001 outputs, whose first or last one is a background class.

    >>> background_map("first")[:3].tolist(), background_map("last")[-2:].tolist()
    ([-1, 0, 1], [999, -1])
    """
    indices = np.arange(NUM_CLASSES, dtype=np.int64)
    return np.concatenate([[-1], indices] if place == "first" else [indices, [-1]]).astype(np.int64)


@functools.cache
def devkit_map() -> NDArray[np.int64]:
    """Return the map of a model whose output i is the class with ILSVRC2012_ID i + 1 of the development kit.

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


def read_class_map(path: str | Path) -> NDArray[np.int64]:
    """Return the map that a file holds: one wnid or class index a line, for output 0, 1, and so on.

    ``-``, ``-1``, ``background`` and an empty line between others stand for an output that is none of the 1,000
    classes, and so do wnids of other classes (models of ImageNet-21k have 21,841 outputs). Text after the first word of
    a line is ignored.

    Raises:
        SourceError: the file cannot be read, a line is neither a wnid nor a class index, two outputs have the same
            class, or no output has one of the 1,000 classes.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path}: the class map cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    lines = [] if len(data) > _MAX_BYTES else data.decode("utf-8-sig", errors="replace").rstrip().splitlines()
    index_of = {info.wnid: info.index for info in classes()}
    entries = [_entry(line, index_of, f"{path}: line {number}") for number, line in enumerate(lines, start=1)]
    known = [entry for entry in entries if entry >= 0]
    if not known:
        raise SourceError(f"{path}: names none of the 1,000 classes. Expected one wnid or class index 0..999 a line.")
    twice, times = Counter(known).most_common(1)[0]
    if times > 1:
        lines_of = [number for number, entry in enumerate(entries, start=1) if entry == twice]
        raise SourceError(
            f"{path}: lines {lines_of[0]} and {lines_of[1]} both stand for class {twice} ({classes()[twice].wnid}). "
            "Expected a different class for each output."
        )
    return np.array(entries, dtype=np.int64)


def _entry(line: str, index_of: dict[str, int], where: str) -> int:
    word = (line.split(None, 1) or [""])[0].strip(",;:'\"").lower()
    if word in _NOT_A_CLASS:
        return -1
    if word in index_of:
        return index_of[word]
    if word[0] == "n" and len(word) == len("n01440764") and word[1:].isdecimal():  # a class of ImageNet-21k
        return -1
    if word.isascii() and word.isdecimal() and len(word) < 10 and int(word) < NUM_CLASSES:
        return int(word)
    raise SourceError(f"{where}: is {word[:40]!r}, expected a wnid such as n01440764 or a class index 0..999.")
