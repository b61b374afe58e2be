"""Other numberings of the 1,000 classes, and models whose outputs are not the 1,000 classes in their order.

A numbering is an int64 array whose entry i is the class index 0..999 of number i. A `ClassMap` is its inverse.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from wds_real.errors import SourceError, first_few
from wds_real.labels.bundled_files import read_bundled
from wds_real.labels.class_names import NUM_CLASSES, classes, index_of_wnid
from wds_real.storage.files import read_bytes, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

__all__ = ["NUMBERINGS", "ClassMap", "Numbering", "background_map", "choose_class_map", "devkit_map", "read_class_map",
           "string_sorted_map"]  # fmt: skip

_MAX_BYTES = 16 << 20
_NONE = ("-", "-1")
_WNID = re.compile(r"n\d{8}", re.ASCII)


@dataclass(frozen=True, slots=True, eq=False)
class ClassMap:
    """Which output of a model is which class.

    Attributes:
        outputs: int64 (1000,): the output of each class.
        num_outputs: How many outputs the model has.
        description: Where the map comes from, JSON-ready, for the identity of a run.
    """

    outputs: NDArray[np.int64]
    num_outputs: int
    description: Mapping[str, str | int]

    def class_of_output(self) -> NDArray[np.int64]:
        """Return the class of each output, int64 (num_outputs,); -1 for an output that is none of the 1,000 classes.

        >>> background_map("last").class_of_output()[[0, 999, 1000]].tolist()
        [0, 999, -1]
        """
        found = np.full(self.num_outputs, -1, dtype=np.int64)
        found[self.outputs] = np.arange(NUM_CLASSES)
        return found


def choose_class_map(
    class_map: str | Path | ClassMap | None, background: Literal["first", "last"] | None
) -> ClassMap | None:
    """Return the map that one of two options gives, or None if neither is given.

    Raises:
        ValueError: both are given, or `background` is something else.
        SourceError: the file of the map is not valid.
    """
    if class_map is not None and background is not None:
        raise ValueError("class_map and background exclude each other: both say which output is which class.")
    if background is not None:
        if background not in ("first", "last"):
            raise ValueError(f"background is {background!r}, expected 'first' or 'last'.")
        return background_map(background)
    return class_map if class_map is None or isinstance(class_map, ClassMap) else read_class_map(class_map)


def background_map(place: Literal["first", "last"]) -> ClassMap:
    """Return the map of a model of 1,001 classes, of which the first or the last is the background.

    >>> background_map("first").outputs[:3].tolist()
    [1, 2, 3]
    """
    start = 1 if place == "first" else 0
    return ClassMap(np.arange(start, start + NUM_CLASSES), NUM_CLASSES + 1, {"background": place})


def read_class_map(path: str | Path) -> ClassMap:
    """Return the map in a text file: line i names the class of output i, as a wnid or a class index 0..999.

    A name in `NUMBERINGS`, such as ``devkit``, stands for the map of that numbering, unless a file has that name.

    Each of the 1,000 classes is named exactly once. An output that is none of them has ``-`` or ``-1``, or another wnid
    in a file of more than 1,000 lines, such as the list of the 21,841 classes of ImageNet.

    Raises:
        SourceError: the file cannot be read, a line is none of these, or a class is missing or named twice.
    """
    if str(path) in NUMBERINGS and not Path(path).exists():
        return _map_of_numbering(str(path))
    path = Path(path)
    data = _read(path)
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not a class map: byte {error.start:,} is not text in UTF-8.") from error
    output_of: dict[int, int] = {}
    for output, line in enumerate(lines):
        label = _class_in(line.strip(), is_longer=len(lines) > NUM_CLASSES)
        if isinstance(label, str):
            raise SourceError(f"{path}, line {output + 1}: {line.strip()[:80]!r} {label}")
        if label is not None and output_of.setdefault(label, output) != output:
            raise SourceError(
                f"{path}, line {output + 1}: class {label} ({classes()[label].wnid}) is on line "
                f"{output_of[label] + 1} too, expected each class once."
            )
    missing = [info.wnid for info in classes() if info.index not in output_of]
    if missing:
        raise SourceError(
            f"{path}: of the {NUM_CLASSES:,} classes, {first_few(missing)} are not named in its {len(lines):,} lines. "
            "Give one line for each output, and each class once."
        )
    outputs = np.array([output_of[label] for label in range(NUM_CLASSES)], dtype=np.int64)
    return ClassMap(outputs, len(lines), {"file": path.name, "sha256": hashlib.sha256(data).hexdigest()})


def _map_of_numbering(name: str) -> ClassMap:
    numbering = NUMBERINGS[name]
    outputs = np.argsort(numbering.classes()) + numbering.first
    return ClassMap(outputs, NUM_CLASSES + numbering.first, {"numbering": name})


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SourceError(f"{path}: larger than {_MAX_BYTES:,} bytes, expected a line for each output of a model.")
        return read_bytes(path)  # refuses pipes and devices
    except OSError as error:
        raise SourceError(f"{path}: {reason_of(error)}") from error


def _class_in(text: str, *, is_longer: bool) -> int | str | None:
    """Return the class that a line names, None for none of the 1,000, or what is wrong with the line."""
    if text in index_of_wnid():
        return index_of_wnid()[text]
    if text in _NONE:
        return None
    if _WNID.fullmatch(text):
        return None if is_longer else f"is none of the {NUM_CLASSES:,} wnids."
    if text.isdecimal() and text.isascii():
        in_range = len(text) < 9 and int(text) < NUM_CLASSES
        return int(text) if in_range else f"is no class index, expected 0 to {NUM_CLASSES - 1}."
    return "is neither a wnid nor a class index, expected one of them and nothing else."


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


def _by_english_name() -> NDArray[np.int64]:
    return np.array(sorted(range(NUM_CLASSES), key=lambda index: classes()[index].lemmas.lower()), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Numbering:
    """Another numbering of the 1,000 classes.

    Attributes:
        title: What the numbers are.
        classes: Returns int64 (1000,), the class of each number from `first` on.
        first: The lowest number.
    """

    title: str
    classes: Callable[[], NDArray[np.int64]]
    first: int = 0


NUMBERINGS: dict[str, Numbering] = {
    "devkit": Numbering("ILSVRC2012_ID 1..1000 of the development kit", devkit_map, first=1),
    "devkit-from-0": Numbering("ILSVRC2012_ID of the development kit less 1", devkit_map),
    "folders-as-text": Numbering("class folders 0, 1, 10, 100, ... sorted as text", string_sorted_map),
    "inverse-folders-as-text": Numbering(
        "the inverse of class folders sorted as text", lambda: np.argsort(string_sorted_map())
    ),
    "inverse-devkit": Numbering("the inverse of the development kit's ids", lambda: np.argsort(devkit_map())),
    "english-names": Numbering("classes sorted by their English names", _by_english_name),
    "reversed": Numbering("classes in descending order", lambda: np.arange(NUM_CLASSES)[::-1]),
}
