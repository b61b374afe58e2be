"""Find the image of each row: by its name, by its number, or by its position.

Files without names are mostly in one of two orders: that of the sorted file names, or that of folders for the classes,
which torchvision's ImageFolder gives. The original labels tell the two apart: a model that is better than chance agrees
with them in its own order, and on one image in a thousand in the other. Any order of `ORDERS` can be given.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import CoverageError, PredictionsError
from wds_real.labels import NUM_CLASSES, NUM_IMAGES, bundled
from wds_real.labels.class_maps import devkit_map
from wds_real.labels.file_names import sample_key
from wds_real.scoring.reading.json_tables import twice_message
from wds_real.scoring.reading.values import whole_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from wds_real.scoring.reading.spellings import Column

__all__ = ["ORDERS", "Order", "find_order", "given_order", "is_counted", "is_truth", "key_of_image", "keys_of",
           "shown_agreement"]  # fmt: skip

# Shares of images whose first class is the original label. In a wrong order it is 0.001, give or take 0.0002.
_PROVEN, _REFUTED = 0.05, 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """The images of the rows.

    Attributes:
        images: int64 (50000,), image number minus one of each row.
        said: The order, as text to print.
    """

    images: NDArray[np.int64]
    said: str


def keys_of(names: Column) -> list[str]:
    """Return the keys of a column of names.

    Raises:
        PredictionsError: a name is missing.
        CoverageError: two names are of one sample.
    """
    nameless = next((row for row, name in enumerate(names) if name is None), None)
    if nameless is not None:
        raise PredictionsError(f"record {nameless} has no name.")
    keys = [sample_key(name) for name in names]
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise CoverageError(twice_message(twice), doubled=twice)
    return keys


def key_of_image(image: int) -> str:
    """Return the key of an image by its number minus one."""
    return f"ILSVRC2012_val_{image + 1:08d}"


def is_counted(names: Column) -> bool:
    """Return whether names are the numbers of N rows, 0..N-1 or 1..N, in any order."""
    numbers = whole_numbers(names)
    if numbers is None or not len(numbers):
        return False
    ordered = np.sort(numbers)
    return bool(ordered[0] in (0, 1) and (ordered == np.arange(ordered[0], ordered[0] + len(ordered))).all())


def is_truth(column: Column, names: Column | None) -> bool:
    """Return whether a column equals the original labels of the images that `names` gives, or of all in order."""
    labels = whole_numbers(column)
    if labels is None or not len(labels):
        return False
    if names is None or is_counted(names):
        return len(labels) == NUM_IMAGES and (np.array_equal(labels, _originals()) or np.array_equal(labels, _sorted()))
    images = [_image_of().get(sample_key(name), -1) for name in names]
    return min(images) >= 0 and np.array_equal(labels, _originals()[images])


def find_order(numbers: NDArray[np.int64] | None, classes: NDArray[np.int64], truths: Sequence[Column]) -> Order:
    """Return which image each of 50,000 rows is of.

    Args:
        numbers: int64 (50000,), a permutation of 0..49999 or 1..50000 that the rows are numbered with; None if they
            are in order.
        classes: int64 (50000,), the first class of each row.
        truths: Columns that may hold the original labels in the order of the rows.

    Raises:
        PredictionsError: the rows are numbered out of order, and the predictions agree with neither order.
    """
    places = np.arange(NUM_IMAGES) if numbers is None else numbers - numbers.min()
    in_order = bool((places[1:] > places[:-1]).all())
    candidates = {"file names": places, "class folders": np.argsort(_originals(), kind="stable")[places]}
    shares = {name: float((_originals()[images] == classes).mean()) for name, images in candidates.items()}
    said_by_truth = [name for name, images in candidates.items() if any(_equals(truth, images) for truth in truths)]
    best = said_by_truth[0] if said_by_truth else max(shares, key=lambda name: shares[name])
    is_proven = bool(said_by_truth) or (shares[best] >= _PROVEN and min(shares.values()) < _REFUTED)
    if not is_proven and not in_order:
        raise PredictionsError(
            "the names are the numbers of rows, out of order, and the predictions do not tell which images they are "
            "of. Write file names or keys."
        )
    if is_proven and best == "class folders":
        return Order(candidates[best], f"in class-folder order ({shown_agreement(shares)})")
    return Order(places, "in the order of the sorted file names")


def given_order(name: str, length: int) -> Order:
    """Return the images of 50,000 rows that are in an order of `ORDERS`.

    Raises:
        PredictionsError: the order is unknown, or there are more or fewer rows.
    """
    if name not in ORDERS:
        raise PredictionsError(f"order {name[:80]!r}, expected one of {', '.join(ORDERS)}.")
    if length != NUM_IMAGES:
        raise PredictionsError(
            f"{length:,} predictions in the order {name}, expected all {NUM_IMAGES:,}. Leave --order out (order in "
            "Python), and give a name with each."
        )
    return Order(ORDERS[name](_originals()), f"in the order {name}")


def _equals(truth: Column, images: NDArray[np.int64]) -> bool:
    labels = whole_numbers(truth)
    return labels is not None and np.array_equal(labels, _originals()[images])


def shown_agreement(shares: dict[str, float]) -> str:
    """Return how many of the predictions are the original label in each order."""
    return "original labels agree on " + ", ".join(
        f"{100 * share:.1f} % in the order of {name}" for name, share in shares.items()
    )


def _by_folder(folder_of: Callable[[int], Any]) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
    """Return the order of images in class folders: sorted by the folder, and in a folder by file name."""

    def order(original_label: NDArray[np.int64]) -> NDArray[np.int64]:
        rank_of = np.empty(NUM_CLASSES, dtype=np.int64)
        rank_of[sorted(range(NUM_CLASSES), key=folder_of)] = np.arange(NUM_CLASSES)
        return np.argsort(rank_of[original_label], kind="stable")

    return order


def _numbers_as_text(original_label: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array(sorted(range(len(original_label)), key=lambda position: str(position + 1)), dtype=np.int64)


# From the original labels of all images to the image of each row.
ORDERS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "keys": lambda labels: np.arange(len(labels)),
    "imagefolder": _by_folder(lambda label: label),
    "folders-as-text": _by_folder(str),
    "devkit-folders": _by_folder(lambda label: int(np.argsort(devkit_map())[label])),
    "numbers-as-text": _numbers_as_text,
    "reversed": lambda labels: np.arange(len(labels))[::-1],
}


@cache
def _originals() -> NDArray[np.int64]:
    return np.array(bundled().original, dtype=np.int64)


@cache
def _sorted() -> NDArray[np.int64]:
    return np.sort(_originals())


@cache
def _image_of() -> dict[str, int]:
    return {key_of_image(image): image for image in range(NUM_IMAGES)}
