"""Open and write a root: the folder or URL that holds ``manifest.json``, ``index.json`` and usually the shards."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wds_real.errors import ManifestError, MissingError, StoreError, UnavailableError
from wds_real.format.manifest import DATASET, INDEX_NAME, MANIFEST_NAME, SPLIT, VERSION, Manifest
from wds_real.format.sample_index import SampleIndex
from wds_real.format.tar import BLOCK, TarError, parse_header
from wds_real.storage.options import is_secret, parse_bool
from wds_real.storage.store import open_store
from wds_real.storage.url import is_url, redact_url, same_host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wds_real.format.manifest import ShardInfo
    from wds_real.format.sample_index import SampleRow
    from wds_real.format.source_tar import SourceTar
    from wds_real.storage.base import Store

__all__ = [
    "Provenance",
    "holds_manifest",
    "open_root",
    "open_shards",
    "read_index",
    "read_manifest",
    "refuse_finished_root",
    "remove_manifest",
    "write_root",
]

_T = TypeVar("_T")


def open_root(root: str | os.PathLike[str], storage_options: Mapping[str, str] | None) -> Store:
    """Return the store at a path or URL; storage options are ignored for a folder."""
    return open_store(root, storage_options=storage_options if is_url(os.fspath(root)) else None)


def open_shards(root: Store, manifest: Manifest, storage_options: Mapping[str, str] | None) -> Store:
    """Return the store of a manifest's shards, which may be elsewhere than the manifest.

    A manifest at a URL is not trusted. It must not name a folder of this machine. It may name another host only if the
    option ``allow_other_host`` is true, and that host never gets secrets from the options.

    Raises:
        StoreError: there are storage options, but root and shards are folders; or the manifest names a place that is
            not allowed.
    """
    place = root.url if manifest.shards_at is None else manifest.shards_at
    options = storage_options if is_url(place) or not is_url(root.url) else None
    beside = manifest.shards_at is None and (is_url(place) or not options)
    if is_url(root.url) and manifest.shards_at is not None:
        options = _options_elsewhere(root, manifest.shards_at, options or {})
    shards = root if beside else open_store(place, storage_options=options)
    shards.decide_by_checksums(shard.name for shard in manifest.shards if shard.sha256)
    return shards


def _options_elsewhere(root: Store, place: str, options: Mapping[str, str]) -> Mapping[str, str]:
    """Return the storage options for shards at a place that a manifest at a URL names."""
    where = f"{root.url}/{MANIFEST_NAME}"
    if not is_url(place):
        raise StoreError(
            f"{where}: says that the shards are in a folder of this machine, which a manifest at a URL must not. Index "
            "the shards where they are, or copy the manifest to this machine."
        )
    if same_host(root.url, place):
        return options
    if not parse_bool(options.get("allow_other_host", "false"), "storage option allow_other_host"):
        raise StoreError(
            f"{where}: says that the shards are on another host, at {redact_url(place)}. If you trust that, pass "
            "--storage-option allow_other_host=true; that host gets none of the secrets that you pass."
        )
    return {name: value for name, value in options.items() if not is_secret(name, value)}


def read_manifest(root: Store) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        StoreError: there is no such folder.
        ManifestError: it is missing (the set is incomplete, or this is another folder), or damaged.
    """
    if not root.exists():
        raise StoreError(f"{root.url}: no such folder. Check the path; `wds-real pack` makes data sets.")
    _refuse_file(root)
    try:
        return _read_parsed(root, MANIFEST_NAME, Manifest.from_json)
    except MissingError as error:
        place = "URL, and the endpoint if there is one" if is_url(root.url) else "path"
        raise ManifestError(
            f"{root.url}: no {MANIFEST_NAME}, so this is not a finished data set. Check the {place}; if packing was "
            "interrupted, run the same `wds-real pack` again: it continues where it stopped."
        ) from error


def _refuse_file(root: Store) -> None:
    """Raise StoreError if a root is a file on this machine, and say what to do with it."""
    path = Path(root.url)
    try:
        if root.remote or not path.is_file():
            return
        beside = open_store(path.parent)
        name, _, _ = parse_header(bytes(beside.get_range(path.name, 0, min(BLOCK, beside.head(path.name)))))
    except OSError:
        return
    except (TarError, StoreError):
        raise StoreError(f"{path}: is a file, not a data set. Give the folder of a data set.") from None
    if name.upper().endswith(".JPEG"):
        raise StoreError(
            f"{path}: is a tar of images, the source of a data set. Run `wds-real pack {path} shards`, and give the "
            "folder shards."
        )
    raise StoreError(
        f"{path}: is a tar, not a data set. Run `wds-real index {path}` if it holds images and labels, or `wds-real "
        "pack` if it holds the validation images, and give the folder."
    )


def read_index(root: Store, manifest: Manifest) -> SampleIndex:
    """Read ``index.json`` and check it against the manifest.

    Raises:
        ManifestError: it is missing or damaged.
    """
    try:
        return _read_parsed(root, INDEX_NAME, functools.partial(SampleIndex.from_json, manifest=manifest))
    except UnavailableError:
        raise
    except StoreError as error:
        raise ManifestError(f"{error} The set is incomplete: copy {INDEX_NAME} again, or pack again.") from error


def holds_manifest(root: Store) -> bool:
    """Return whether there is a ``manifest.json``; a set without one is incomplete."""
    try:
        root.head(MANIFEST_NAME)
    except MissingError:
        return False
    return True


def refuse_finished_root(root: Store) -> None:
    """Raise StoreError if a root holds a finished set."""
    if holds_manifest(root):
        raise StoreError(
            f"{root.url}: holds a finished set already. Choose another place, or pass --overwrite to replace it."
        )


def remove_manifest(root: Store) -> None:
    """Remove ``manifest.json`` if there is one, which makes the set incomplete."""
    if holds_manifest(root):
        root.delete(MANIFEST_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a manifest says of a set besides its samples and shards; see `Manifest` for the fields."""

    dataset: str = DATASET
    version: str = VERSION
    partial: bool
    source_digest: str
    external: bool = False
    shards_at: str | None = None
    source_tar: SourceTar | None = None


def write_root(root: Store, rows: Sequence[SampleRow], shards: Sequence[ShardInfo], provenance: Provenance) -> Manifest:
    """Write ``index.json`` and, last, ``manifest.json``; return the manifest.

    Args:
        root: Where to write; holds no manifest.
        rows: All samples, in key order.
        shards: The shards, in name order.
        provenance: What else the manifest says.

    Raises:
        StoreError: the store refused, or another run wrote a manifest meanwhile.
    """
    index = SampleIndex.from_rows(rows)
    encoded = index.to_json()
    manifest = Manifest(
        dataset=provenance.dataset,
        version=provenance.version,
        split=SPLIT,
        num_samples=len(rows),
        partial=provenance.partial,
        source_num_bytes=sum(row.num_bytes for row in rows),
        source_digest=provenance.source_digest,
        labels_digest=index.labels_digest,
        index_num_bytes=len(encoded),
        index_sha256=hashlib.sha256(encoded).hexdigest(),
        shards=tuple(shards),
        external=provenance.external,
        shards_at=provenance.shards_at,
        source_tar=provenance.source_tar,
    )
    root.put(INDEX_NAME, encoded)
    root.put(MANIFEST_NAME, manifest.to_json(), exclusive=True)  # of two concurrent runs, one fails
    return manifest


def _read_parsed(root: Store, name: str, parse: Callable[..., _T]) -> _T:
    """Read and parse a file; a file that arrives damaged over a network is read once more."""
    where = f"{root.url}/{name}"
    root.decide_by_checksums((MANIFEST_NAME, INDEX_NAME))
    try:
        return parse(root.get(name), where=where)
    except ManifestError:
        if not root.remote:
            raise
    return parse(root.get(name), where=where)
