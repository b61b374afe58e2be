"""``manifest.json``: what a data set is.

Reading it checks all of it, so that no other code needs to: a field that is missing, of another type or out of range
is a ManifestError.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wds_real.errors import ManifestError, first_few
from wds_real.format.json_fields import field, parse_object, shown
from wds_real.format.source_tar import SourceTar, describe_source

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "DATASET",
    "INDEX_NAME",
    "MANIFEST_NAME",
    "SHARD_NAME",
    "SPLIT",
    "VERSION",
    "Manifest",
    "ShardInfo",
    "shard_name",
]

MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.json"
DATASET = "imagenet2012_real"
VERSION = "1.0.0"
SPLIT = "validation"

SHARD_NAME = re.compile(rf"{DATASET}-{SPLIT}-\d{{6}}\.tar")

_SPLIT_NAME = re.compile(r"[A-Za-z0-9_]+")  # what `open_dataset(split=...)` can name
_NOT_IDENTITY = ("digest", "shards_at", "source_tar")
_FORMAT = {"name": "wds_real", "version": 1}


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
        partial: True if the set does not hold all 50,000 validation images.
        external: True if the shards were not written by wds_real (``"foreign"`` in the JSON): their layout is free, and
            digests are empty where they were not computed.
        shards_at: URL or path of the shards, if they are not beside the manifest; no part of the identity.
        source_tar: The tar that all 50,000 images came from; None for a part of them, for a folder, and in sets of
            earlier versions. No part of the identity: the same images in another tar are the same data set.
        source_num_bytes: Length of all JPEG files together.
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
    external: bool = False
    shards_at: str | None = None
    source_tar: SourceTar | None = None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON of all other fields but `shards_at` and `source_tar`."""
        return _digest(self._body())

    @property
    def source(self) -> str:
        """Whether the set was packed from the official tar, in words."""
        return describe_source(self.source_tar, partial=self.partial)

    @property
    def is_of_another_tar(self) -> bool:
        """Whether the set is known to be packed from another tar than the official one."""
        return not self.partial and self.source_tar is not None and self.source_tar.is_official is False

    def to_json(self) -> bytes:
        """Return the bytes of ``manifest.json``."""
        place = {} if self.shards_at is None else {"shards_at": self.shards_at}
        tar = {} if self.source_tar is None else {"source_tar": asdict(self.source_tar)}
        return (json.dumps({**self._body(), **tar, **place, "digest": self.digest}, indent=1) + "\n").encode("ascii")

    def _body(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "dataset": self.dataset,
            "version": self.version,
            "split": self.split,
            "num_samples": self.num_samples,
            "partial": self.partial,
            **({"foreign": True} if self.external else {}),
            "source": {"num_bytes": self.source_num_bytes, "digest": self.source_digest},
            "labels": {"digest": self.labels_digest},
            "index": {"name": INDEX_NAME, "num_bytes": self.index_num_bytes, "sha256": self.index_sha256},
            "shards": [_shard_body(shard) for shard in self.shards],
        }

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> Manifest:
        """Parse and check the bytes of a ``manifest.json``; `where` names it in errors.

        Raises:
            ManifestError: not JSON, another format or version, a field missing or wrong, or the digest does not match.
        """
        body = parse_object(data, where)
        found = body.get("format")
        if found != _FORMAT:
            raise ManifestError(
                f"{where}: format is {shown(found)}, this version of wds_real reads {json.dumps(_FORMAT)}. "
                "Pack again, or install the version that wrote it."
            )
        source, labels, index = (field(body, name, dict, where) for name in ("source", "labels", "index"))
        manifest = cls(
            dataset=field(body, "dataset", str, where),
            version=field(body, "version", str, where),
            split=field(body, "split", str, where),
            num_samples=field(body, "num_samples", int, where),
            partial=field(body, "partial", bool, where),
            source_num_bytes=field(source, "num_bytes", int, where),
            source_digest=field(source, "digest", str, where),
            labels_digest=field(labels, "digest", str, where),
            index_num_bytes=field(index, "num_bytes", int, where),
            index_sha256=field(index, "sha256", str, where),
            shards=tuple(_shard_info(entry, where) for entry in field(body, "shards", list, where)),
            external="foreign" in body and field(body, "foreign", bool, where),
            shards_at=field(body, "shards_at", str, where) if "shards_at" in body else None,
            source_tar=(
                SourceTar.from_dict(field(body, "source_tar", dict, where), where) if "source_tar" in body else None
            ),
        )
        stored = field(body, "digest", str, where)
        # Computed over the content as read, so that fields which this version does not know count too.
        content = {name: value for name, value in body.items() if name not in _NOT_IDENTITY}
        digest = _digest(content)
        if stored != digest:
            raise ManifestError(
                f"{where}: digest says {stored[:16]}..., the content gives {digest[:16]}.... The manifest was edited "
                "or damaged. Copy it again, or pack again."
            )
        if digest != manifest.digest:
            differing = first_few(list(_differences(content, manifest._body())))
            raise ManifestError(
                f"{where}: this version of wds_real does not know, or would not write: {differing}. Install the "
                "version that wrote it, or pack again."
            )
        _check_shards(manifest, where)
        if not _SPLIT_NAME.fullmatch(manifest.split):
            raise ManifestError(f"{where}: split is {manifest.split[:40]!r}, expected a name such as {SPLIT!r}.")
        if not manifest.num_samples:
            raise ManifestError(f"{where}: num_samples is 0, expected at least one sample.")
        return manifest


def shard_name(number: int) -> str:
    """Return the file name of shard `number`.

    >>> shard_name(49)
    'imagenet2012_real-validation-000049.tar'
    """
    return f"{DATASET}-{SPLIT}-{number:06d}.tar"


def _digest(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _shard_body(shard: ShardInfo) -> dict[str, Any]:  # `asdict` takes several times as long
    return {
        "name": shard.name,
        "num_samples": shard.num_samples,
        "num_bytes": shard.num_bytes,
        "sha256": shard.sha256,
    }


def _differences(found: object, expected: object, name: str = "") -> Iterator[str]:
    """Yield the paths of fields that differ or that only one of two JSON values has."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**found, **expected}:
            if key not in found or key not in expected:
                yield f"{name}{key}"
            else:
                yield from _differences(found[key], expected[key], f"{name}{key}.")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, pair in enumerate(zip(found, expected, strict=True)):
            yield from _differences(*pair, f"{name}{number}.")
    elif found != expected:
        yield name.removesuffix(".")


def _check_shards(manifest: Manifest, where: str) -> None:
    """Check that shards are distinct files of one folder, which hold as many samples as the manifest says."""
    counts = Counter(shard.name for shard in manifest.shards)
    wrong = [name for name, count in counts.items() if count > 1 or "/" in name or name in ("", ".", "..")]
    if wrong:
        raise ManifestError(f"{where}: shard {wrong[0]!r} is named twice or is not a plain file name.")
    if sum(shard.num_samples for shard in manifest.shards) != manifest.num_samples:
        raise ManifestError(f"{where}: the shards' num_samples do not add up to {manifest.num_samples:,}.")


def _shard_info(entry: object, where: str) -> ShardInfo:
    if not isinstance(entry, dict):
        raise ManifestError(f"{where}: a shard is {shown(entry)}, expected an object.")
    return ShardInfo(
        name=field(entry, "name", str, where),
        num_samples=field(entry, "num_samples", int, where),
        num_bytes=field(entry, "num_bytes", int, where),
        sha256=field(entry, "sha256", str, where),
    )
