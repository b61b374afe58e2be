"""The labels: original and ReaL, joined to images by file name, never by position.

The bundled files are the released ones (see ``data/README.md``); their digests are checked on every load.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.resources
import io
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "NUM_CLASSES",
    "NUM_IMAGES",
    "ClassInfo",
    "Label",
    "Labels",
    "at_threshold",
    "bundled",
    "by_file_name",
    "canonical_file_name",
    "classes",
    "digest_labels",
    "load_real_json",
    "parse_real_json",
]

NUM_IMAGES = 50_000
NUM_CLASSES = 1_000

_SHA256 = {
    "real.json": "d83e9bff374c631aae8439eb064c7019acc56e1b3bc3f56b8380c2a710b0220b",
    "validation_labels.txt": "313fc3f23c864dde9183c9a368809065765dd1b657a6904fded44e3e46d34604",
    "classes.tsv": "a7303c8079ed41ad970818e19378d317241f040d377db05b859270de7d03ff43",
    "rater_scores.npz": "ac31e1073ae1b1b18c32d3c64ad4a77ae4f698b82618e192558c95b57b3db8e4",
}

# The official spelling, and the Hugging Face / Kaggle one, which appends the wnid of the original label.
_FILE_NAME = re.compile(
    r"(?P<stem>ILSVRC2012_val_(?P<number>\d{8}))(?:_(?P<wnid>n\d{8}))?\.(?:JPEG|jpeg|JPG|jpg)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of one validation image.

    Attributes:
        file_name: Official spelling, ``ILSVRC2012_val_00000001.JPEG``.
        original_label: Class index 0..999 of the ILSVRC2012 ground truth.
        real_label: ReaL class indices in the released order, a set by meaning; empty where ReaL accepts no label.
    """

    file_name: str
    original_label: int
    real_label: tuple[int, ...]

    @property
    def key(self) -> str:
        """The file's stem: the sample's key in a shard."""
        return self.file_name.removesuffix(".JPEG")


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One of the 1,000 classes.

    Attributes:
        index: Position of ``wnid`` in the sorted list of the 1,000 wnids, 0..999.
        wnid: WordNet id, ``n01440764``.
        lemmas: Comma-separated names, the most usual first.
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
            SourceError: the name is not a validation image's, or carries a wnid that is not its original label's.
        """
        match = _match(file_name)
        canonical, wnid, position = f"{match['stem']}.JPEG", match["wnid"], int(match["number"]) - 1
        original = self.original[position]
        if wnid is not None and wnid != classes()[original].wnid:
            raise SourceError(
                f"{file_name}: the name carries the label {wnid}, but the original label of {canonical} is "
                f"{classes()[original].wnid}. The file was renamed or belongs to another set."
            )
        return Label(canonical, original, self.real[position])


def by_file_name(file_name: str) -> Label:
    """Return the bundled label of one validation image; see `Labels.by_file_name`."""
    return bundled().by_file_name(file_name)


def canonical_file_name(name: str) -> str:
    """Return the official spelling of a validation image's file name; folders before it are ignored.

    >>> canonical_file_name("val/n01751748/ILSVRC2012_val_00000001_n01751748.JPEG")
    'ILSVRC2012_val_00000001.JPEG'

    Raises:
        SourceError: this is not the name of one of the 50,000 validation images.
    """
    return f"{_match(name)['stem']}.JPEG"


def _match(name: str) -> re.Match[str]:
    match = _FILE_NAME.fullmatch(name.rpartition("/")[2])
    if match is None or not 1 <= int(match["number"]) <= NUM_IMAGES:
        raise SourceError(
            f"{name}: not the name of a validation image. Expected ILSVRC2012_val_00000001.JPEG to "
            f"ILSVRC2012_val_{NUM_IMAGES:08d}.JPEG."
        )
    return match


@functools.cache
def bundled() -> Labels:
    """Return the released labels that come with the package.

    Raises:
        SourceError: a bundled file is damaged (its digest is wrong).
    """
    index_of = {info.wnid: info.index for info in classes()}
    wnids = _bundled_bytes("validation_labels.txt").decode("ascii").split()
    return Labels(
        original=tuple(index_of[wnid] for wnid in wnids),
        real=parse_real_json(_bundled_bytes("real.json"), where="bundled real.json"),
    )


@functools.cache
def classes() -> tuple[ClassInfo, ...]:
    """Return the 1,000 classes in index order.

    >>> classes()[65].wnid, classes()[65].name
    ('n01751748', 'sea snake')
    """
    rows = _bundled_bytes("classes.tsv").decode("utf-8").splitlines()[1:]
    return tuple(
        ClassInfo(int(index), wnid, lemmas, definition)
        for index, wnid, lemmas, definition in (row.split("\t") for row in rows)
    )


def load_real_json(path: str | Path) -> Labels:
    """Return the bundled original labels with the ReaL labels of a file in the released format.

    Raises:
        SourceError: the file cannot be read, or is not 50,000 lists of distinct integers 0..999.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot read the ReaL labels: {error.strerror}.") from error
    return Labels(original=bundled().original, real=parse_real_json(data, where=str(path)))


def at_threshold(threshold: float) -> Labels:
    """Return the labels that another cut through the published rater scores gives.

    On the 24,889 images that were rated, the ReaL labels are those with a score above `threshold`, ascending; on the
    others, the original label. At 0.8 these are the released sets.

    Raises:
        SourceError: `threshold` is not in [0, 1), or has more than three decimals: the scores are bundled to that.
    """
    permille = round(threshold * 1000) if 0 <= threshold < 1 else -1
    if not 0 <= permille < 1000 or permille / 1000 != threshold:
        raise SourceError(f"threshold is {threshold}, expected 0 <= threshold < 1 with at most three decimals.")
    original = bundled().original
    real = [(label,) for label in original]
    with np.load(io.BytesIO(_bundled_bytes("rater_scores.npz"))) as scores:
        ends = np.cumsum(scores["num_labels"].astype(np.int64)).tolist()
        images, label, accepted = scores["image"].tolist(), scores["label"], scores["permille"] >= permille
    for number, start, stop in zip(images, [0, *ends], ends, strict=False):
        real[number - 1] = tuple(label[start:stop][accepted[start:stop]].tolist())
    return Labels(original, tuple(real))


def parse_real_json(data: bytes, *, where: str) -> tuple[tuple[int, ...], ...]:
    """Return 50,000 tuples of class indices from the bytes of a real.json; `where` names it in errors.

    Raises:
        SourceError: not JSON, not 50,000 lists, or a list holds something else than distinct integers 0..999.
    """
    try:
        lists = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: not JSON ({error}). Expected the released real.json.") from error
    if not isinstance(lists, list) or len(lists) != NUM_IMAGES:
        found = f"{len(lists):,} entries" if isinstance(lists, list) else f"a {type(lists).__name__}"
        raise SourceError(f"{where}: expected a list of {NUM_IMAGES:,} lists, found {found}.")
    for position, entry in enumerate(lists):
        if not _is_label_list(entry):
            raise SourceError(
                f"{where}: entry {position} (ILSVRC2012_val_{position + 1:08d}) is {json.dumps(entry)[:80]}, expected "
                f"a list of distinct integers 0..{NUM_CLASSES - 1}."
            )
    return tuple(tuple(entry) for entry in lists)


def _is_label_list(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and all(type(label) is int and 0 <= label < NUM_CLASSES for label in entry)
        and len(set(entry)) == len(entry)
    )


def digest_labels(rows: Iterable[tuple[str, int, Iterable[int]]]) -> str:
    """Return the SHA-256 (hex) that names a set of labels; `rows` are (key, original_label, real_label) in key order.

    The hashed text has one line a sample: ``KEY ORIGINAL REAL,REAL,...``, each ended by a newline.

    >>> digest_labels([("a", 3, (1, 2)), ("b", 0, ())])[:16]
    'e40a3a195dbff1ca'
    """
    text = "".join(f"{key} {original} {','.join(map(str, real))}\n" for key, original, real in rows)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _bundled_bytes(name: str) -> bytes:
    folder = importlib.resources.files("wds_real") / "labels" / "data"
    try:
        if name.endswith(".npz"):  # compressed in itself
            data = (folder / name).read_bytes()
        else:
            data = gzip.decompress((folder / f"{name}.gz").read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(
            f"wds_real/labels/data/{name}: cannot be read: {error}. "
            "The installation is damaged: install wds_real again."
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != _SHA256[name]:
        raise SourceError(
            f"wds_real/labels/data/{name}: SHA-256 of the bundled labels is {found}, expected {_SHA256[name]}. "
            "The installation is damaged: install wds_real again."
        )
    return data
