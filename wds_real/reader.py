"""From positions to verified JPEG bytes: the first stage of the read line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

from wds_real.errors import ManifestError, ShardError, StoreError
from wds_real.manifest import INDEX_NAME, MANIFEST_NAME, Manifest, SampleIndex

if TYPE_CHECKING:
    from wds_real.store import Store

__all__ = ["SampleReader", "read_index", "read_manifest"]


def read_manifest(store: Store) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        StoreError: there is no such folder.
        ManifestError: it is not there (the set is incomplete, or this is another folder), or damaged.
    """
    if not store.exists():
        raise StoreError(f"{store.url}: no such folder. Check the path; `wds-real pack` makes data sets.")
    if MANIFEST_NAME not in store.list():
        raise ManifestError(
            f"{store.url}: no {MANIFEST_NAME}, so this is not a finished data set. Check the path; if packing was "
            "interrupted, run the same `wds-real pack` again: it goes on where it stopped."
        )
    return Manifest.from_json(store.get(MANIFEST_NAME), where=f"{store.url}/{MANIFEST_NAME}")


def read_index(store: Store, manifest: Manifest) -> SampleIndex:
    """Read ``index.json`` and check it against the manifest.

    Raises:
        ManifestError: it is missing or damaged.
    """
    try:
        data = store.get(INDEX_NAME)
    except StoreError as error:
        raise ManifestError(f"{error} The set is incomplete: copy {INDEX_NAME} again, or pack again.") from error
    return SampleIndex.from_json(data, manifest=manifest, where=f"{store.url}/{INDEX_NAME}")


class SampleReader:
    """Reads JPEG bytes of single samples; safe to share between threads and to send to other processes."""

    def __init__(self, store: Store, manifest: Manifest, index: SampleIndex) -> None:
        self._store = store
        self._shards = tuple(shard.name for shard in manifest.shards)
        self._index = index

    def read(self, position: int) -> bytes:
        """Return the JPEG bytes of the sample at `position`, after checking them against the index.

        Raises:
            ShardError: the bytes cannot be read, or their checksum is wrong twice in a row.
        """
        start, stop = self._range(position)
        shard = self._shards[self._index.shard[position]]
        expected = int(self._index.checksum[position])
        for _ in range(2):  # a second read tells a passing fault from damage
            try:
                data = self._store.get_range(shard, start, stop)
            except StoreError as error:
                raise self.error(position, f"cannot be read: {error}") from error
            found = xxhash.xxh3_64_intdigest(data)
            if found == expected:
                return data
        raise self.error(
            position,
            f"checksum is {found:016x}, {INDEX_NAME} says {expected:016x} (read twice). The shard changed or was "
            "damaged after packing.",
        )

    def error(self, position: int, problem: str) -> ShardError:
        """Return the error that says what is wrong with a sample, where it is and what to do."""
        return ShardError(
            f"{problem} Run `wds-real verify {self._store.url}`, then pack again.",
            shard=self._shards[self._index.shard[position]],
            key=f"{self._index.keys[position]}.jpg",
            byte_range=self._range(position),
        )

    def _range(self, position: int) -> tuple[int, int]:
        start = int(self._index.offset[position])
        return start, start + int(self._index.num_bytes[position])
