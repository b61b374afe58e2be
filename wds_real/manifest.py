"""The nouns on disk: ``manifest.json`` (what the set is) and ``index.json`` (where each sample lies).

Both are checked whole when they are read: a field that is missing, of another type or out of range is a ManifestError,
so nothing further on needs to doubt them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wds_real.errors import ManifestError
from wds_real.labels import NUM_CLASSES, digest_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DATASET",
    "INDEX_NAME",
    "MANIFEST_NAME",
    "SHARD_NAME",
    "SPLIT",
    "VERSION",
    "Manifest",
    "SampleIndex",
    "ShardInfo",
    "shard_name",
]

MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.json"
DATASET = "imagenet2012_real"
VERSION = "1.0.0"
SPLIT = "validation"

SHARD_NAME = re.compile(rf"{DATASET}-{SPLIT}-\d{{6}}\.tar")

_FORMAT = {"name": "wds_real", "version": 1}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One tar shard: its file name, how many samples it holds, its length in bytes and its SHA-256 (hex)."""

    name: str
    num_samples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a set of shards is. `digest` is its identity: any change of pixels, labels or layout changes it.

    Attributes:
        dataset: Name of the data set.
        version: Its version, of the labels and their layout.
        split: Name of the split.
        num_samples: Samples in all shards together.
        partial: True if the source was allowed to hold fewer than the 50,000 validation images.
        source_num_bytes: JPEG bytes of the source, without any container.
        source_digest: SHA-256 over the lines ``FILE_NAME NUM_BYTES XXH3`` of the source's images in key order; the same
            for a tar and a folder that hold the same files.
        labels_digest: `wds_real.labels.digest_labels` over the samples.
        index_num_bytes: Length of ``index.json``.
        index_sha256: SHA-256 (hex) of ``index.json``.
        shards: The shards, in name order.
    """

    dataset: str
    version: str
    split: str
    num_samples: int
    partial: bool
    source_num_bytes: int
    source_digest: str
    labels_digest: str
    index_num_bytes: int
    index_sha256: str
    shards: tuple[ShardInfo, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON of all other fields."""
        return _digest(self._body())

    def to_json(self) -> bytes:
        """Return the bytes of ``manifest.json``."""
        return (json.dumps({**self._body(), "digest": self.digest}, indent=1) + "\n").encode("ascii")

    def _body(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "dataset": self.dataset,
            "version": self.version,
            "split": self.split,
            "num_samples": self.num_samples,
            "partial": self.partial,
            "source": {"num_bytes": self.source_num_bytes, "digest": self.source_digest},
            "labels": {"digest": self.labels_digest},
            "index": {"name": INDEX_NAME, "num_bytes": self.index_num_bytes, "sha256": self.index_sha256},
            "shards": [asdict(shard) for shard in self.shards],
        }

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> Manifest:
        """Parse and check the bytes of a ``manifest.json``; `where` names it in errors.

        Raises:
            ManifestError: not JSON, another format or version, a field missing or wrong, or the digest does not match.
        """
        body = _parse_object(data, where)
        found = body.get("format")
        if found != _FORMAT:
            raise ManifestError(
                f"{where}: format is {json.dumps(found)[:80]}, this version of wds_real reads {json.dumps(_FORMAT)}. "
                "Pack again, or install the version that wrote it."
            )
        source, labels, index = (_field(body, name, dict, where) for name in ("source", "labels", "index"))
        manifest = cls(
            dataset=_field(body, "dataset", str, where),
            version=_field(body, "version", str, where),
            split=_field(body, "split", str, where),
            num_samples=_field(body, "num_samples", int, where),
            partial=_field(body, "partial", bool, where),
            source_num_bytes=_field(source, "num_bytes", int, where),
            source_digest=_field(source, "digest", str, where),
            labels_digest=_field(labels, "digest", str, where),
            index_num_bytes=_field(index, "num_bytes", int, where),
            index_sha256=_field(index, "sha256", str, where),
            shards=tuple(_shard_info(entry, where) for entry in _field(body, "shards", list, where)),
        )
        stored = _field(body, "digest", str, where)
        # Over what was read, so that a field this version does not know is not dropped from the identity unseen.
        digest = _digest({name: value for name, value in body.items() if name != "digest"})
        if stored != digest or digest != manifest.digest:
            raise ManifestError(
                f"{where}: digest says {stored[:16]}..., the content gives {digest[:16]}.... The manifest was edited "
                "or damaged. Copy it again, or pack again."
            )
        names = [shard.name for shard in manifest.shards]
        wrong = [
            name for name in names if "/" in name or "\0" in name or name in ("", ".", "..") or names.count(name) > 1
        ]
        if wrong:
            raise ManifestError(f"{where}: shard {wrong[0]!r} is named twice or is not a plain file name.")
        if sum(shard.num_samples for shard in manifest.shards) != manifest.num_samples:
            raise ManifestError(f"{where}: the shards' num_samples do not add up to {manifest.num_samples:,}.")
        return manifest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleIndex:
    """Where each sample lies and what it is: columns over all N samples, in key order.

    Attributes:
        keys: N strings, strictly ascending.
        shard: int64 (N,), position in `Manifest.shards`.
        offset: int64 (N,), first byte of the JPEG data in the shard.
        num_bytes: int64 (N,), length of the JPEG data.
        json_offset: int64 (N,), first byte of the label JSON in the shard.
        json_num_bytes: int64 (N,), its length.
        checksum: uint64 (N,), xxh3-64 of the JPEG data.
        width: int64 (N,), pixels.
        height: int64 (N,), pixels.
        original_label: int64 (N,), class index 0..999 of the ILSVRC2012 ground truth.
        real_label: N tuples of distinct class indices 0..999 in the released order; empty: no label accepted.
    """

    keys: tuple[str, ...]
    shard: NDArray[np.int64]
    offset: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    json_offset: NDArray[np.int64]
    json_num_bytes: NDArray[np.int64]
    checksum: NDArray[np.uint64]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    original_label: NDArray[np.int64]
    real_label: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def labels_digest(self) -> str:
        """`wds_real.labels.digest_labels` over the samples."""
        return digest_labels(zip(self.keys, self.original_label.tolist(), self.real_label, strict=True))

    def to_json(self) -> bytes:
        """Return the bytes of ``index.json``."""
        columns: dict[str, Any] = {"key": self.keys}
        columns |= {name: getattr(self, name).tolist() for name in _INTEGER_COLUMNS[:5]}
        columns["checksum"] = [f"{value:016x}" for value in self.checksum.tolist()]
        columns |= {name: getattr(self, name).tolist() for name in _INTEGER_COLUMNS[5:]}
        columns["real_label"] = self.real_label
        return (json.dumps(columns, separators=(",", ":")) + "\n").encode("ascii")

    @classmethod
    def from_json(cls, data: bytes, *, manifest: Manifest, where: str) -> SampleIndex:
        """Parse and check the bytes of an ``index.json`` against its manifest; `where` names it in errors.

        Raises:
            ManifestError: not the bytes the manifest names, a column missing or of another length, a value out of
                range, keys not ascending, a sample outside its shard, or labels that differ from the labels digest.
        """
        found = hashlib.sha256(data).hexdigest()
        if found != manifest.index_sha256 or len(data) != manifest.index_num_bytes:
            raise ManifestError(
                f"{where}: {len(data):,} bytes with SHA-256 {found[:16]}..., the manifest says "
                f"{manifest.index_num_bytes:,} and {manifest.index_sha256[:16]}.... The index was changed or damaged. "
                "Copy it again, or pack again."
            )
        columns = _parse_object(data, where)
        keys = _field(columns, "key", list, where)
        _check(len(keys) == manifest.num_samples, f"{len(keys):,} keys for {manifest.num_samples:,} samples", where)
        _check(all(isinstance(key, str) and key and _is_text(key) for key in keys), "a key is not a string", where)
        _check(all(a < b for a, b in itertools.pairwise(keys)), "keys are not strictly ascending", where)
        integers = {name: _integer_column(columns, name, len(keys), where) for name in _INTEGER_COLUMNS}
        index = cls(
            keys=tuple(keys),
            checksum=_checksum_column(columns, len(keys), where),
            real_label=_real_label_column(columns, len(keys), where),
            **integers,
        )
        index._check_places(manifest, where)
        _check(index.labels_digest == manifest.labels_digest, "labels do not match the manifest's labels digest", where)
        return index

    def _check_places(self, manifest: Manifest, where: str) -> None:
        """Check that every sample lies in its shard and each shard holds as many as the manifest says."""
        _check(bool(np.all(self.shard < len(manifest.shards))), "a sample is in a shard the manifest lacks", where)
        _check(bool(np.all(self.original_label < NUM_CLASSES)), "an original label is not 0..999", where)
        counts = np.bincount(self.shard, minlength=len(manifest.shards)).tolist()
        _check(counts == [shard.num_samples for shard in manifest.shards], "num_samples of the shards differ", where)
        ends = np.array([shard.num_bytes for shard in manifest.shards], dtype=np.int64)[self.shard]
        for start, length in ((self.offset, self.num_bytes), (self.json_offset, self.json_num_bytes)):
            _check(bool(np.all(start + length <= ends)), "a sample ends behind its shard's end", where)


_INTEGER_COLUMNS = (
    "shard",
    "offset",
    "num_bytes",
    "json_offset",
    "json_num_bytes",
    "width",
    "height",
    "original_label",
)


def shard_name(number: int) -> str:
    """Return the file name of shard `number`.

    >>> shard_name(49)
    'imagenet2012_real-validation-000049.tar'
    """
    return f"{DATASET}-{SPLIT}-{number:06d}.tar"


def _digest(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _parse_object(data: bytes, where: str) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"{where}: not JSON ({error}). The file is damaged: copy it again, or pack again."
        ) from error
    if not isinstance(body, dict):
        raise ManifestError(f"{where}: expected a JSON object, found a {type(body).__name__}.")
    return body


def _field(body: dict[str, Any], name: str, kind: type[_T], where: str) -> _T:
    value = body.get(name)
    # bool is an int to isinstance, and neither may stand for the other here.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ManifestError(f"{where}: field {name!r} is {json.dumps(value)[:60]}, expected {kind.__name__}.")
    if isinstance(value, int) and not 0 <= value < 2**62:
        raise ManifestError(f"{where}: field {name!r} is {str(value)[:30]}, expected 0 <= {name} < 2**62.")
    return value


def _shard_info(entry: object, where: str) -> ShardInfo:
    if not isinstance(entry, dict):
        raise ManifestError(f"{where}: a shard is {json.dumps(entry)[:60]}, expected an object.")
    return ShardInfo(
        name=_field(entry, "name", str, where),
        num_samples=_field(entry, "num_samples", int, where),
        num_bytes=_field(entry, "num_bytes", int, where),
        sha256=_field(entry, "sha256", str, where),
    )


def _check(condition: bool, problem: str, where: str) -> None:
    if not condition:
        raise ManifestError(f"{where}: {problem}. The index was not written by wds_real, or is damaged: pack again.")


def _is_text(key: str) -> bool:
    """Return whether this is Unicode text: JSON can smuggle in halves of surrogate pairs."""
    return key.isascii() or not any("\ud800" <= character <= "\udfff" for character in key)


def _integer_column(columns: dict[str, Any], name: str, length: int, where: str) -> NDArray[np.int64]:
    values = _field(columns, name, list, where)
    _check(len(values) == length, f"column {name!r} has {len(values):,} of {length:,} values", where)
    _check(
        all(type(value) is int and 0 <= value < 2**62 for value in values), f"column {name!r} is not integers", where
    )
    return np.array(values, dtype=np.int64)


def _checksum_column(columns: dict[str, Any], length: int, where: str) -> NDArray[np.uint64]:
    values = _field(columns, "checksum", list, where)
    _check(len(values) == length, f"column 'checksum' has {len(values):,} of {length:,} values", where)
    try:
        return np.array([int(value, 16) for value in values], dtype=np.uint64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ManifestError(f"{where}: column 'checksum' is not 64-bit hex ({error}). Pack again.") from error


def _real_label_column(columns: dict[str, Any], length: int, where: str) -> tuple[tuple[int, ...], ...]:
    values = _field(columns, "real_label", list, where)
    _check(len(values) == length, f"column 'real_label' has {len(values):,} of {length:,} values", where)
    for labels in values:
        _check(
            isinstance(labels, list)
            and all(type(label) is int and 0 <= label < NUM_CLASSES for label in labels)
            and len(set(labels)) == len(labels),
            f"real_label {json.dumps(labels)[:60]} is not a list of distinct integers 0..{NUM_CLASSES - 1}",
            where,
        )
    return tuple(tuple(labels) for labels in values)
