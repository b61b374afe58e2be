"""Read the verified JPEG bytes of samples by position."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import xxhash

from wds_real.errors import ShardError, StoreError, UnavailableError
from wds_real.format.manifest import INDEX_NAME
from wds_real.storage.prefetch import (
    BLOCK_BYTES,
    MAX_PREFETCHED_BYTES,
    MAX_REQUESTED_BYTES,
    MAX_REQUESTS,
    ByteRange,
    Prefetcher,
    merge,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from wds_real.format.manifest import Manifest
    from wds_real.format.sample_index import SampleIndex
    from wds_real.storage.base import FileReader, RangeReader
    from wds_real.storage.buffers import Buffers
    from wds_real.storage.prefetch import Block


__all__ = ["SampleReader", "Samples"]


class Samples(Protocol):
    """Reads the verified JPEG bytes of samples."""

    def read(self, position: int, /) -> bytes | memoryview:
        """Return the JPEG bytes of the sample at `position`, after checking them against the index."""
        ...

    def read_many(
        self, positions: Sequence[int], buffers: Buffers, *, mapped: bool = False
    ) -> list[bytes | memoryview | ShardError]:
        """Return the JPEG bytes of several samples, or the error of each that cannot be read."""
        ...


class SampleReader:
    """Reads the JPEG bytes of single samples; threads may share it, and it can be pickled."""

    def __init__(self, shards: RangeReader, manifest: Manifest, index: SampleIndex) -> None:
        self._shards = shards
        self._sizes = {shard.name: shard.num_bytes for shard in manifest.shards}
        self._external = manifest.external
        self._keys = index.keys
        # Lists of Python's numbers: reading one from an array takes longer.
        names = [manifest.shards[number].name for number in index.shard.tolist()]
        stops = index.offset + index.num_bytes
        self._ranges = [*map(ByteRange, names, index.offset.tolist(), stops.tolist())]
        self._checksums = index.checksum.tolist()

    @property
    def shards(self) -> RangeReader:
        """The store of the shards, for other reads than samples; these are not verified."""
        return self._shards

    @property
    def url(self) -> str:
        """URL or path of the shards, without secrets."""
        return self._shards.url

    @property
    def remote(self) -> bool:
        """Whether reads go over a network."""
        return self._shards.remote

    def read(self, position: int, prefetched: bytes | memoryview | None = None) -> bytes | memoryview:
        """Return the JPEG bytes of the sample at `position`, after checking them against the index.

        Args:
            position: Position of the sample in the data set.
            prefetched: Its bytes, if they were fetched before; read again if their checksum is wrong.

        Raises:
            ShardError: the bytes are missing, or their checksum is wrong twice in a row.
            UnavailableError: the object store denies access, or gave up.
        """
        expected = self._checksums[position]
        for fresh in (False, True):  # a second read tells a transient fault from damage
            data = self._fetch(position, fresh=fresh) if fresh or prefetched is None else prefetched
            found = xxhash.xxh3_64_intdigest(data)
            if found == expected or (not expected and self._external):
                return data
        raise self.error(
            position,
            f"checksum is {found:016x}, {INDEX_NAME} says {expected:016x} (read twice). The shard changed or was "
            "damaged after packing.",
        )

    def read_many(
        self, positions: Sequence[int], buffers: Buffers, *, mapped: bool = False
    ) -> list[bytes | memoryview | ShardError]:
        """Return the JPEG bytes of several samples, after checking them against the index.

        In a folder, neighbours in a shard are read with one call, into a buffer that is reused when no part is in use.

        Args:
            positions: Positions of the samples in the data set.
            buffers: Pool of the buffers.
            mapped: Return views of the mapped shard instead: they take no memory of this process, but show later
                changes of the file.

        Returns:
            The bytes of each sample, or the error that says why it cannot be read.

        Raises:
            UnavailableError: the object store denies access, or gave up.
        """
        files = self._shards.file_reader
        if files is None or self._external:
            return [_read_or_error(self.read, position) for position in positions]
        found: list[bytes | memoryview | ShardError] = []
        ranges = [self._ranges[position] for position in positions]
        for block in merge(ranges):
            data = _read_block(files, block, None if mapped else buffers)
            for place in range(block.first, block.last):
                position, part = positions[place], ranges[place]
                jpeg = data[part.start - block.start : part.stop - block.start]
                good = bool(data) and xxhash.xxh3_64_intdigest(jpeg) == self._checksums[position]
                # What is not good is read again alone, for an error of its own.
                found.append(jpeg if good else _read_or_error(self.read, position))
        return found

    def prefetch(self, positions: Sequence[int], *, threads: int = 1) -> AbstractContextManager[Samples]:
        """Return a reader of these samples that fetches them over a network before they are read.

        Samples in a folder are not prefetched: the operating system does that.

        Args:
            positions: In about the order in which they will be read.
            threads: Number of threads that will read.
        """
        return _PrefetchedSamples(self, positions, threads) if self.remote else contextlib.nullcontext(self)

    def prefetcher(self, positions: Sequence[int], *, threads: int = 1) -> Prefetcher:
        """Return a started prefetcher of the samples' bytes, which are not checked yet."""
        return Prefetcher(
            self._get_range,
            [self._ranges[position] for position in positions],
            max_prefetched_bytes=max(MAX_PREFETCHED_BYTES, 2 * threads * BLOCK_BYTES),
            max_requested_bytes=max(MAX_REQUESTED_BYTES, threads * BLOCK_BYTES),
            max_requests=max(MAX_REQUESTS, 2 * threads),
        )

    def error(self, position: int, problem: str) -> ShardError:
        """Return the error that says what is wrong with a sample, where it is and what to do."""
        part = self._ranges[position]
        return ShardError(
            f"{problem} Run `wds-real verify {self.url}`, then pack again.",
            shard=part.name,
            key=f"{self._keys[position]}.jpg",
            byte_range=(part.start, part.stop),
        )

    def _fetch(self, position: int, *, fresh: bool) -> bytes | memoryview:
        try:
            return self._get_range(*self._ranges[position], fresh=fresh)
        except UnavailableError:  # is not about the shard
            raise
        except StoreError as error:
            raise self.error(position, f"cannot be read: {error}") from error

    def _get_range(self, shard: str, start: int, stop: int, *, fresh: bool = False) -> bytes | memoryview:
        if not (self.remote or self._external):  # without the size: samples before a truncation are still readable
            return self._shards.get_range(shard, start, stop)
        return self._shards.get_range(shard, start, stop, size=self._sizes[shard], fresh=fresh)


def _read_block(files: FileReader, block: Block, buffers: Buffers | None) -> memoryview:
    """Return a block of neighbours, mapped or copied into a buffer; no bytes if the file is missing or too short."""
    try:
        if buffers is None:
            return files.view(block.name, block.start, block.stop)
        data = buffers.take(block.stop - block.start)
        return data.toreadonly() if files.read_into(block.name, block.start, data) else memoryview(b"")
    except StoreError:
        return memoryview(b"")


def _read_or_error(read: Callable[[int], bytes | memoryview], position: int) -> bytes | memoryview | ShardError:
    try:
        return read(position)
    except ShardError as error:
        return error


class _PrefetchedSamples:
    """Reads samples that are prefetched in the order given; others are read alone."""

    def __init__(self, reader: SampleReader, positions: Sequence[int], threads: int) -> None:
        self._reader = reader
        self._places = {position: place for place, position in enumerate(positions)}
        self._prefetcher = reader.prefetcher(positions, threads=threads)

    def read(self, position: int, /) -> bytes | memoryview:
        """Return the sample's bytes; see `SampleReader.read`."""
        place = self._places.get(position)
        prefetched = None
        if place is not None:
            try:
                prefetched = self._prefetcher.take(place)
            except UnavailableError:
                raise
            except StoreError:  # of a request shared with neighbours; read alone, the sample may be whole
                prefetched = None
        return self._reader.read(position, prefetched)

    def read_many(
        self, positions: Sequence[int], buffers: Buffers, *, mapped: bool = False
    ) -> list[bytes | memoryview | ShardError]:
        """Return the samples' bytes; see `SampleReader.read_many`."""
        del buffers, mapped  # the prefetched bytes have memory of their own
        return [_read_or_error(self.read, position) for position in positions]

    def __enter__(self) -> Samples:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._prefetcher.close()
