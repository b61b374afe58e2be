"""The label tables: original and ReaL labels of the validation images, joined to images by file name."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import SourceError
from wds_real.labels.bundled_files import read_bundled
from wds_real.labels.class_names import NUM_CLASSES, classes, index_of_wnid
from wds_real.labels.file_names import NUM_IMAGES, parse_file_name
from wds_real.storage.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "Label",
    "Labels",
    "RaterScores",
    "at_threshold",
    "bundled",
    "by_file_name",
    "digest_labels",
    "is_label_list",
    "load_real_json",
    "parse_real_json",
    "rater_scores",
]


@dataclass(frozen=True, slots=True)
class Label:
    """The labels of one validation image.

    Attributes:
        file_name: Official spelling, ``ILSVRC2012_val_00000001.JPEG``.
        original_label: Class index 0..999 of the ILSVRC2012 ground truth.
        real_label: ReaL class indices in the released order, which has no meaning; empty where ReaL accepts no label.
    """

    file_name: str
    original_label: int
    real_label: tuple[int, ...]

    @property
    def key(self) -> str:
        """The file name without its extension: the sample's key in a shard."""
        return self.file_name.removesuffix(".JPEG")


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of all 50,000 validation images, in the order of the sorted file names.

    Attributes:
        original: Class index 0..999 of each image.
        real: ReaL class indices of each image.
    """

    original: tuple[int, ...]
    real: tuple[tuple[int, ...], ...]

    def by_file_name(self, file_name: str) -> Label:
        """Return the label of one image, in any known spelling of its name.

        >>> bundled().by_file_name("ILSVRC2012_val_00000001.JPEG")
        Label(file_name='ILSVRC2012_val_00000001.JPEG', original_label=65, real_label=())

        Raises:
            SourceError: this is not the name of a validation image, or the wnid in it is not the original label's.
        """
        name = parse_file_name(file_name)
        original = self.original[name.number - 1]
        if name.wnid is not None and name.wnid != classes()[original].wnid:
            raise SourceError(
                f"{file_name}: the name contains the label {name.wnid}, but the original label of {name.canonical} is "
                f"{classes()[original].wnid}. The file was renamed or belongs to another data set."
            )
        return Label(name.canonical, original, self.real[name.number - 1])


def by_file_name(file_name: str) -> Label:
    """Return the bundled label of one validation image; see `Labels.by_file_name`."""
    return bundled().by_file_name(file_name)


@functools.cache
def bundled() -> Labels:
    """Return the released labels, which are part of the package.

    Raises:
        SourceError: a bundled file is damaged.
    """
    wnids = read_bundled("validation_labels.txt").decode("ascii").split()
    return Labels(
        original=tuple(index_of_wnid()[wnid] for wnid in wnids),
        real=parse_real_json(read_bundled("real.json"), where="bundled real.json"),
    )


def load_real_json(path: str | Path) -> Labels:
    """Return the bundled original labels with the ReaL labels of a file in the format of the released real.json.

    Raises:
        SourceError: the file cannot be read, or is not 50,000 lists of distinct integers 0..999.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot read the ReaL labels: {error.strerror}.") from error
    return Labels(original=bundled().original, real=parse_real_json(data, where=str(path)))


def at_threshold(threshold: float) -> Labels:
    """Return the labels that the published rater scores give at another threshold than the released 0.8.

    For the 24,889 images that were rated, the ReaL labels are those with a score above `threshold`, ascending; for the
    others, the original label. At 0.8 these are the released sets.

    Raises:
        SourceError: `threshold` is not in [0, 1), or has more than three decimals, the precision of the bundled scores.
    """
    permille = round(threshold * 1000) if 0 <= threshold < 1 else -1
    if not 0 <= permille < 1000 or permille / 1000 != threshold:
        raise SourceError(f"threshold is {threshold}, expected 0 <= threshold < 1 with at most three decimals.")
    original = bundled().original
    real = [(label,) for label in original]
    scores = rater_scores()
    label, accepted, ends = scores.label, scores.permille >= permille, np.cumsum(scores.num_labels).tolist()
    for number, start, stop in zip(scores.image.tolist(), [0, *ends], ends, strict=False):
        real[number - 1] = tuple(label[start:stop][accepted[start:stop]].tolist())
    return Labels(original, tuple(real))


@dataclass(frozen=True, slots=True, eq=False)
class RaterScores:
    """The published rater scores: for each rated image the labels that the raters saw, and the score of each.

    Attributes:
        image: int64 (24,889,), numbers 1..50,000 of the rated images, ascending.
        num_labels: int64 (24,889,), how many labels each of them has in the next two arrays.
        label: int64 (184,962,), class indices, ascending within an image.
        permille: int64 (184,962,), the largest k with score > k/1000; -1 for a score of 0.
    """

    image: NDArray[np.int64]
    num_labels: NDArray[np.int64]
    label: NDArray[np.int64]
    permille: NDArray[np.int64]


def rater_scores() -> RaterScores:
    """Return the published rater scores, which are part of the package.

    Raises:
        SourceError: the bundled file is damaged.
    """
    with np.load(io.BytesIO(read_bundled("rater_scores.npz"))) as scores:
        return RaterScores(*(scores[name].astype(np.int64) for name in ("image", "num_labels", "label", "permille")))


def parse_real_json(data: bytes, *, where: str) -> tuple[tuple[int, ...], ...]:
    """Return 50,000 tuples of class indices from the bytes of a real.json; `where` names the file in errors.

    Raises:
        SourceError: not JSON, not 50,000 lists, or a list has an entry that is not a distinct integer 0..999.
    """
    try:
        lists = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: not JSON ({error}). Expected the released real.json.") from error
    if not isinstance(lists, list) or len(lists) != NUM_IMAGES:
        found = f"{len(lists):,} entries" if isinstance(lists, list) else f"a {type(lists).__name__}"
        raise SourceError(f"{where}: expected a list of {NUM_IMAGES:,} lists, found {found}.")
    for position, entry in enumerate(lists):
        if not is_label_list(entry):
            raise SourceError(
                f"{where}: entry {position} (ILSVRC2012_val_{position + 1:08d}) is {json.dumps(entry)[:80]}, expected "
                f"a list of distinct integers 0..{NUM_CLASSES - 1}."
            )
    return tuple(tuple(entry) for entry in lists)


def is_label_list(entry: object) -> bool:
    """Return whether a JSON value is a list of distinct class indices 0..999.

    >>> is_label_list([3, 4]), is_label_list([]), is_label_list([3, 3]), is_label_list([1000]), is_label_list([True])
    (True, True, False, False, False)
    """
    return (
        isinstance(entry, list)
        and all(type(label) is int and 0 <= label < NUM_CLASSES for label in entry)
        and len(set(entry)) == len(entry)
    )


def digest_labels(rows: Iterable[tuple[str, int, Iterable[int]]]) -> str:
    """Return the SHA-256 (hex) of a set of labels; `rows` are (key, original_label, real_label) in key order.

    The hashed text has one line per sample, ``KEY ORIGINAL REAL,REAL,...``, each ended by a newline.

    >>> digest_labels([("a", 3, (1, 2)), ("b", 0, ())])[:16]
    'e40a3a195dbff1ca'
    """
    text = "".join(f"{key} {original} {','.join(map(str, real))}\n" for key, original, real in rows)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
