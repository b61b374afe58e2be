"""``index.json``: where each sample lies and what it is, as columns.

Reading it checks all of it, against the manifest, so that no other code needs to.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wds_real.errors import ManifestError
from wds_real.format.json_fields import field, is_text, parse_object, shown
from wds_real.labels import NUM_CLASSES, Label, digest_labels
from wds_real.labels.tables import is_label_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wds_real.format.manifest import Manifest

__all__ = ["SampleIndex", "SampleRow"]


class SampleRow(NamedTuple):
    """One sample's line of the index; see `SampleIndex` for what the fields are."""

    label: Label
    shard: int
    offset: int
    num_bytes: int
    json_offset: int
    json_num_bytes: int
    checksum: int
    width: int
    height: int


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
        checksum: uint64 (N,), xxh3-64 of the JPEG data; 0 where it was not computed, in external shards only.
        width: int64 (N,), pixels; 0 where it is not known, in external shards only.
        height: int64 (N,), pixels; 0 where the width is 0.
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

    def label(self, position: int) -> Label:
        """Return the label of one sample."""
        return Label(f"{self.keys[position]}.JPEG", int(self.original_label[position]), self.real_label[position])

    def positions_by_shard(self, num_shards: int) -> list[list[int]]:
        """Return the positions of the samples of each shard, ascending."""
        order = np.argsort(self.shard, kind="stable")
        starts = np.searchsorted(self.shard[order], np.arange(1, num_shards))
        return [part.tolist() for part in np.split(order, starts)][:num_shards]

    @property
    def labels_digest(self) -> str:
        """`wds_real.labels.digest_labels` over the samples."""
        return digest_labels(zip(self.keys, self.original_label.tolist(), self.real_label, strict=True))

    @classmethod
    def from_rows(cls, rows: Sequence[SampleRow]) -> SampleIndex:
        """Return the columns of rows that are in key order."""
        labels, *numbers = zip(*rows, strict=True) if rows else ((),) * len(SampleRow._fields)
        columns = dict(zip(SampleRow._fields[1:], numbers, strict=True))
        return cls(
            keys=tuple(label.key for label in labels),
            checksum=np.array(columns.pop("checksum"), dtype=np.uint64),
            original_label=np.array([label.original_label for label in labels], dtype=np.int64),
            real_label=tuple(label.real_label for label in labels),
            **{name: np.array(column, dtype=np.int64) for name, column in columns.items()},
        )

    def to_json(self) -> bytes:
        """Return the bytes of ``index.json``."""
        columns: dict[str, Any] = {"key": self.keys}
        columns |= {name: getattr(self, name).tolist() for name in _INTEGER_COLUMNS[:5]}
        columns["checksum"] = [f"{value:016x}" if value else "" for value in self.checksum.tolist()]
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
        columns = parse_object(data, where)
        keys = field(columns, "key", list, where)
        _check(len(keys) == manifest.num_samples, f"{len(keys):,} keys for {manifest.num_samples:,} samples", where)
        _check(all(isinstance(key, str) and key and is_text(key) for key in keys), "a key is not text", where)
        _check(all(a < b for a, b in itertools.pairwise(keys)), "keys are not strictly ascending", where)
        integers = {name: _integer_column(columns, name, len(keys), where) for name in _INTEGER_COLUMNS}
        index = cls(
            keys=tuple(keys),
            checksum=_checksum_column(columns, len(keys), where, optional=manifest.external),
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
        order = np.lexsort((self.offset, self.shard))
        starts, stops, shards = self.offset[order], (self.offset + self.num_bytes)[order], self.shard[order]
        overlap = (shards[1:] == shards[:-1]) & (starts[1:] < stops[:-1])
        # Hard links in an external shard are several samples of the same bytes.
        _check(manifest.external or not np.any(overlap), "two samples overlap in their shard", where)


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


_CHECKSUM = re.compile(r"[0-9a-f]{16}")
_NO_CHECKSUM = "0" * 16


def _check(condition: bool, problem: str, where: str) -> None:
    if not condition:
        raise _damaged(problem, where)


def _damaged(problem: str, where: str) -> ManifestError:
    return ManifestError(f"{where}: {problem}. The index was not written by wds_real, or is damaged: pack again.")


def _integer_column(columns: dict[str, Any], name: str, length: int, where: str) -> NDArray[np.int64]:
    values = field(columns, name, list, where)
    _check(len(values) == length, f"column {name!r} has {len(values):,} of {length:,} values", where)
    _check(
        all(type(value) is int and 0 <= value < 2**62 for value in values), f"column {name!r} is not integers", where
    )
    return np.array(values, dtype=np.int64)


def _checksum_column(columns: dict[str, Any], length: int, where: str, *, optional: bool) -> NDArray[np.uint64]:
    values = field(columns, "checksum", list, where)
    _check(len(values) == length, f"column 'checksum' has {len(values):,} of {length:,} values", where)
    for value in values:
        is_one = isinstance(value, str) and _CHECKSUM.fullmatch(value) is not None and value != _NO_CHECKSUM
        if not is_one and not (optional and value == ""):
            raise _damaged(f"column 'checksum' is not 64-bit hex above 0: {shown(value)}", where)
    return np.array([int(value or "0", 16) for value in values], dtype=np.uint64)


def _real_label_column(columns: dict[str, Any], length: int, where: str) -> tuple[tuple[int, ...], ...]:
    values = field(columns, "real_label", list, where)
    _check(len(values) == length, f"column 'real_label' has {len(values):,} of {length:,} values", where)
    for labels in values:
        if not is_label_list(labels):
            problem = f"real_label {shown(labels)} is not a list of distinct integers 0..{NUM_CLASSES - 1}"
            raise _damaged(problem, where)
    return tuple(tuple(labels) for labels in values)
