"""From positions to verified JPEG bytes: the first stage of the read line."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, Protocol, TypeVar

import xxhash

from wds_real.errors import ManifestError, MissingError, ShardError, StoreError, UnavailableError
from wds_real.format.manifest import INDEX_NAME, MANIFEST_NAME, Manifest
from wds_real.format.sample_index import SampleIndex
from wds_real.storage.local import LocalStore
from wds_real.storage.prefetch import (
    BLOCK_BYTES,
    MAX_PREFETCHED_BYTES,
    MAX_REQUESTED_BYTES,
    MAX_REQUESTS,
    ByteRange,
    Prefetcher,
    merge,
)
from wds_real.storage.store import open_store
from wds_real.storage.url import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from wds_real.storage.base import RangeReader, Store
    from wds_real.storage.buffers import Buffers
    from wds_real.storage.prefetch import Block


__all__ = ["SampleReader", "Samples", "open_root", "open_shards", "read_index", "read_manifest"]

_T = TypeVar("_T")


def open_root(root: str | os.PathLike[str], storage_options: Mapping[str, str] | None) -> Store:
    """Return the store of a manifest; options that are for the shards alone are not for a folder."""
    return open_store(root, storage_options=storage_options if is_url(os.fspath(root)) else None)


def open_shards(store: Store, manifest: Manifest, storage_options: Mapping[str, str] | None) -> Store:
    """Return the store of a manifest's shards, which need not be beside it.

    Raises:
        StoreError: there are options, but both are folders.
    """
    place = store.url if manifest.shards_at is None else manifest.shards_at
    options = storage_options if is_url(place) or not is_url(store.url) else None
    beside = manifest.shards_at is None and (is_url(place) or not options)
    return store if beside else open_store(place, storage_options=options)


def read_manifest(store: Store) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        StoreError: there is no such folder.
        ManifestError: it is not there (the set is incomplete, or this is another folder), or damaged.
    """
    if not store.exists():
        raise StoreError(f"{store.url}: no such folder. Check the path; `wds-real pack` makes data sets.")
    try:
        return _parsed(store, MANIFEST_NAME, Manifest.from_json)
    except MissingError as error:
        raise ManifestError(
            f"{store.url}: no {MANIFEST_NAME}, so this is not a finished data set. Check the path; if packing was "
            "interrupted, run the same `wds-real pack` again: it goes on where it stopped."
        ) from error


def read_index(store: Store, manifest: Manifest) -> SampleIndex:
    """Read ``index.json`` and check it against the manifest.

    Raises:
        ManifestError: it is missing or damaged.
    """
    try:
        return _parsed(store, INDEX_NAME, functools.partial(SampleIndex.from_json, manifest=manifest))
    except UnavailableError:
        raise
    except StoreError as error:
        raise ManifestError(f"{error} The set is incomplete: copy {INDEX_NAME} again, or pack again.") from error


def _parsed(store: Store, name: str, parse: Callable[..., _T]) -> _T:
    """Read and parse a file; what came over a network and is damaged is read once more."""
    where = f"{store.url}/{name}"
    try:
        return parse(store.get(name), where=where)
    except ManifestError:
        if not store.remote:
            raise
    return parse(store.get(name), where=where)


class Samples(Protocol):
    """What gives the checked JPEG bytes of samples."""

    def read(self, position: int, /) -> bytes | memoryview:
        """Return the JPEG bytes of the sample at `position`, after checking them against the index."""
        ...

    def read_many(
        self, positions: Sequence[int], buffers: Buffers, *, mapped: bool = False
    ) -> list[bytes | memoryview | ShardError]:
        """Return those of several samples, or what is wrong with one."""
        ...


class SampleReader:
    """Reads JPEG bytes of single samples; safe to share between threads and to send to other processes."""

    def __init__(self, store: RangeReader, manifest: Manifest, index: SampleIndex) -> None:
        self._store = store
        self._sizes = {shard.name: shard.num_bytes for shard in manifest.shards}
        self._foreign = manifest.foreign
        self._keys = index.keys
        # As Python's own numbers: getting one out of an array takes longer than reading it from a list.
        shards = [manifest.shards[number].name for number in index.shard.tolist()]
        stops = index.offset + index.num_bytes
        self._places = [*map(ByteRange, shards, index.offset.tolist(), stops.tolist())]
        self._checksums = index.checksum.tolist()

    def read(self, position: int, fetched: bytes | memoryview | None = None) -> bytes | memoryview:
        """Return the JPEG bytes of the sample at `position`, after checking them against the index.

        Args:
            position: Of the sample in the index.
            fetched: Its bytes as they came, if they were read ahead.

        Raises:
            ShardError: the bytes are not there, or their checksum is wrong twice in a row.
            UnavailableError: the object store denies access, or gave up.
        """
        expected = self._checksums[position]
        for fresh in (False, True):  # a second read tells a passing fault from damage
            data = self._fetch(position, fresh=fresh) if fresh or fetched is None else fetched
            found = xxhash.xxh3_64_intdigest(data)
            if found == expected or (not expected and self._foreign):
                return data
        raise self.error(
            position,
            f"checksum is {found:016x}, {INDEX_NAME} says {expected:016x} (read twice). The shard changed or was "
            "damaged after packing.",
        )

    @property
    def url(self) -> str:
        """Where the samples are, without secrets."""
        return self._store.url

    @property
    def remote(self) -> bool:
        """Whether reading takes a network."""
        return self._store.remote

    def read_many(
        self, positions: Sequence[int], buffers: Buffers, *, mapped: bool = False
    ) -> list[bytes | memoryview | ShardError]:
        """Return the JPEG bytes of several samples, or what is wrong with one, after checking them against the index.

        On a disk, neighbours in a shard are read at once, into a buffer that is used again when nobody holds a part.
        If `mapped`, parts of the mapped shard are returned: they take no memory of this process, but are checked only
        as they are now.

        Raises:
            UnavailableError: the object store denies access, or gave up.
        """
        if not isinstance(self._store, LocalStore) or self._foreign:
            return [_or_error(self.read, position) for position in positions]
        found: list[bytes | memoryview | ShardError] = []
        wanted = self._wanted(positions)
        for block in merge(wanted):
            try:
                data = _view(self._store, block) if mapped else _copy(self._store, block, buffers)
            except StoreError:
                data = memoryview(b"")
            for place in range(block.first, block.last):
                _, start, stop = wanted[place]
                part = data[start - block.start : stop - block.start]
                position = positions[place]
                good = bool(data) and xxhash.xxh3_64_intdigest(part) == self._checksums[position]
                found.append(part if good else _or_error(self.read, position))  # alone, it says what is wrong
        return found

    def ahead(self, positions: Sequence[int], *, threads: int = 1) -> AbstractContextManager[Samples]:
        """Return what reads these samples, about in this order: from a network, before so many threads ask for them.

        What is on a disk is read when it is asked for: the operating system reads ahead there.
        """
        return _SamplesAhead(self, positions, threads) if self._store.remote else contextlib.nullcontext(self)

    def read_ahead(self, positions: Sequence[int], *, threads: int = 1) -> Prefetcher:
        """Return the bytes of samples as they come, fetched in this order before they are taken; not yet checked."""
        return Prefetcher(
            self._get_range,
            self._wanted(positions),
            max_prefetched_bytes=max(MAX_PREFETCHED_BYTES, 2 * threads * BLOCK_BYTES),
            max_requested_bytes=max(MAX_REQUESTED_BYTES, threads * BLOCK_BYTES),
            max_requests=max(MAX_REQUESTS, 2 * threads),
        )

    def error(self, position: int, problem: str) -> ShardError:
        """Return the error that says what is wrong with a sample, where it is and what to do."""
        place = self._places[position]
        return ShardError(
            f"{problem} Run `wds-real verify {self._store.url}`, then pack again.",
            shard=place.name,
            key=f"{self._keys[position]}.jpg",
            byte_range=(place.start, place.stop),
        )

    def _fetch(self, position: int, *, fresh: bool) -> bytes | memoryview:
        try:
            return self._get_range(*self._places[position], fresh=fresh)
        except UnavailableError:  # says nothing of the shard
            raise
        except StoreError as error:
            raise self.error(position, f"cannot be read: {error}") from error

    def _get_range(self, shard: str, start: int, stop: int, *, fresh: bool = False) -> bytes | memoryview:
        if not (self._store.remote or self._foreign):  # samples before the place where a file was cut are still good
            return self._store.get_range(shard, start, stop)
        return self._store.get_range(shard, start, stop, size=self._sizes[shard], fresh=fresh)

    def _wanted(self, positions: Sequence[int]) -> list[ByteRange]:
        return [self._places[position] for position in positions]


def _view(store: LocalStore, block: Block) -> memoryview:
    return store.view(block.name, block.start, block.stop)


def _copy(store: LocalStore, block: Block, buffers: Buffers) -> memoryview:
    """Return a copy of a block, or no bytes if the file ends before."""
    data = buffers.take(block.stop - block.start)
    return data.toreadonly() if store.read_into(block.name, block.start, data) else memoryview(b"")


def _or_error(read: Callable[[int], bytes | memoryview], position: int) -> bytes | memoryview | ShardError:
    try:
        return read(position)
    except ShardError as error:
        return error


class _SamplesAhead:
    """Reads samples that were fetched ahead, in the order given; what was not is read alone."""

    def __init__(self, reader: SampleReader, positions: Sequence[int], threads: int) -> None:
        self._reader = reader
        self._places = {position: place for place, position in enumerate(positions)}
        self._ahead = reader.read_ahead(positions, threads=threads)

    def read(self, position: int, /) -> bytes | memoryview:
        """As `SampleReader.read`."""
        place = self._places.get(position)
        fetched = None
        if place is not None:
            try:
                fetched = self._ahead.take(place)
            except UnavailableError:
                raise
            except StoreError:  # of the request it shared with its neighbours: alone, it may be read, or says why not
                fetched = None
        return self._reader.read(position, fetched)

    def read_many(
        self, positions: Sequence[int], buffers: Buffers, *, mapped: bool = False
    ) -> list[bytes | memoryview | ShardError]:
        """As `SampleReader.read_many`."""
        del buffers, mapped  # what comes over a network brings its own memory
        return [_or_error(self.read, position) for position in positions]

    def __enter__(self) -> Samples:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ahead.close()
