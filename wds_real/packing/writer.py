"""The write path: source images and their labels become shards, an index and, last, the manifest.

    source -> plan_shards -> the bytes of each shard -> tar ... tar, index.json, manifest.json

A shard's bytes are a pure function of its images and labels. So a killed run can be resumed: a shard that exists is
compared with the bytes that it should have, and written again if any byte differs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from wds_real.errors import SourceError, StoreError
from wds_real.format.manifest import SHARD_NAME, Manifest, ShardInfo, shard_name
from wds_real.format.root import Provenance, remove_manifest, write_root
from wds_real.format.sample_index import SampleRow
from wds_real.format.shard import frame_sample
from wds_real.format.side_files import refuse_old_card, remove_side_files
from wds_real.format.tar import END
from wds_real.image.jpeg_header import JpegError, jpeg_size
from wds_real.image.jpeg_warnings import jpeg_warning
from wds_real.packing.claim import claimed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wds_real.packing.object_claim import Claim
    from wds_real.packing.source import Source, SourceImage
    from wds_real.storage.base import Store

__all__ = ["ShardPlan", "plan_shards", "write_shards"]

_LOG = logging.getLogger(__name__)
_COMPARED_BYTES = 8 << 20  # of a stored shard that are read at a time
_BLOCK_BYTES = 4 << 20  # written and hashed at a time: large steps hand over the GIL less often


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The content of one shard: its number, its name and its images in key order."""

    number: int
    name: str
    images: tuple[SourceImage, ...]


def write_shards(
    source: Source,
    store: Store,
    *,
    samples_per_shard: int = 1000,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Write the images of `source` as shards, ``index.json`` and, last, ``manifest.json``; return the manifest.

    Run again after a kill, it keeps the shards that are complete and ends with the same bytes as an undisturbed run.

    Args:
        source: The images, from `wds_real.open_source`.
        store: Where to write.
        samples_per_shard: Samples in every shard but the last, which may be short.
        jobs: Shards written at a time; None means one for each core, at most 4.
        overwrite: Replace a finished set. Without it a finished set is an error.
        progress: Called with the number of JPEG bytes done since the last call, from any thread.

    Raises:
        ValueError: samples_per_shard or jobs is less than 1.
        SourceError: the source cannot be read, or an image in it is not a JPEG.
        StoreError: the store refused, holds a finished set already, or a ``README.md`` with the digest of the set that
            is to be replaced; or another process is writing to it.
    """
    shards = plan_shards(source.images, samples_per_shard=samples_per_shard)
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}, expected at least 1.")
    with claimed(store, "pack", overwrite=overwrite) as claim:
        if overwrite:
            refuse_old_card(store)
            remove_side_files(store)
            remove_manifest(store)
        run = _Run(source, store, claim, threading.Event(), progress or _ignore)
        with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
            digesting = pool.submit(source.tar, run.cancelled)
            packed = _pack_shards(shards, run, jobs)
            source_tar = digesting.result()
        rows = [row for shard in packed for row in shard.rows]
        infos = [shard.info for shard in packed]
        claim.check()
        provenance = Provenance(partial=source.partial, source_digest=_digest_source(rows), source_tar=source_tar)
        return write_root(store, rows, infos, provenance)


def plan_shards(images: Sequence[SourceImage], *, samples_per_shard: int) -> list[ShardPlan]:
    """Cut the sorted images into shards of `samples_per_shard`; the last may be short.

    Raises:
        ValueError: samples_per_shard is less than 1.
    """
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard is {samples_per_shard}, expected at least 1.")
    starts = range(0, len(images), samples_per_shard)
    return [
        ShardPlan(number, shard_name(number), tuple(images[start : start + samples_per_shard]))
        for number, start in enumerate(starts)
    ]


@dataclass(frozen=True, slots=True)
class _Run:
    """What all shards of one run share."""

    source: Source
    store: Store
    claim: Claim
    cancelled: threading.Event
    progress: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _PackedShard:
    """A shard that is in the store, and its samples' rows of the index."""

    info: ShardInfo
    rows: list[SampleRow]


def _pack_shards(shards: Sequence[ShardPlan], run: _Run, jobs: int | None) -> list[_PackedShard]:
    """Write the shards that the store lacks, several at a time."""
    present = set(run.store.list())
    names = {shard.name for shard in shards}
    for name in sorted(present - names):
        if SHARD_NAME.fullmatch(name):
            _LOG.warning("removing %s: an unfinished run with more shards left it", name)
            run.store.delete(name)
    with ThreadPoolExecutor(jobs or min(4, os.cpu_count() or 1), thread_name_prefix="pack") as pool:
        pending = [pool.submit(_pack_shard, shard, run, exists=shard.name in present) for shard in shards]
        try:
            packed = [task.result() for task in pending]
        except BaseException:
            run.cancelled.set()
            pool.shutdown(cancel_futures=True)
            raise
    if kept := len(names & present):
        _LOG.info("found %d of %d shards already there, and kept those whose bytes are right", kept, len(shards))
    return packed


def _digest_source(rows: Sequence[SampleRow]) -> str:
    """Return the manifest's `source_digest` of the images in these rows."""
    lines = (f"{row.label.file_name} {row.num_bytes} {row.checksum:016x}\n" for row in rows)
    return hashlib.sha256("".join(lines).encode("ascii")).hexdigest()


def _pack_shard(shard: ShardPlan, run: _Run, *, exists: bool) -> _PackedShard:
    """Write one shard, unless the store has it with the same bytes."""
    if exists:
        stored = _StoredShard(run.store, shard.name)
        try:
            rows = _produce(shard, replace(run, progress=_ignore), stored.compare)
            stored.compare_end()
        except _DiffersError:
            _LOG.warning("writing %s again: its bytes are not what they should be", shard.name)
        else:
            _LOG.debug("kept %s: its bytes are right", shard.name)
            run.progress(sum(row.num_bytes for row in rows))
            return _PackedShard(stored.info(len(rows)), rows)
    run.claim.check()
    written = _Digest()
    with run.store.create(shard.name) as file:

        def write(block: memoryview) -> None:
            file.write(block)
            written.add(block)

        rows = _produce(shard, run, write)
    if (found := run.store.head(shard.name)) != written.num_bytes:
        raise StoreError(f"{run.store.url}: {shard.name} has {found:,} bytes after {written.num_bytes:,} were written.")
    return _PackedShard(ShardInfo(shard.name, len(rows), written.num_bytes, written.hexdigest()), rows)


def _produce(shard: ShardPlan, run: _Run, write: Callable[[memoryview], None]) -> list[SampleRow]:
    """Pass a shard's bytes to `write`, block by block, and return its samples' rows of the index."""
    rows, position, blocks = list[SampleRow](), 0, _Blocks(write)
    with run.source.prefetch(shard.images) as jpegs:
        for image, data in zip(shard.images, jpegs, strict=True):
            if run.cancelled.is_set():
                raise CancelledError
            width, height = _size(image, data)
            if (warning := jpeg_warning(data)) is not None:
                _LOG.warning(
                    "%s: the decoder warns: %s. It is packed as it is; compare it with another copy of the source",
                    image.label.key,
                    warning,
                )
            frame = frame_sample(image.label, len(data))
            before, after = frame.jpg_header, frame.after
            blocks.add(before)
            blocks.add(data)
            blocks.add(after)
            offset = position + len(before)
            json_offset = offset + len(data) + frame.label_start
            position = offset + len(data) + len(after)
            rows.append(
                SampleRow(
                    label=image.label,
                    shard=shard.number,
                    offset=offset,
                    num_bytes=len(data),
                    json_offset=json_offset,
                    json_num_bytes=len(frame.label),
                    checksum=xxhash.xxh3_64_intdigest(data),
                    width=width,
                    height=height,
                )
            )
            run.progress(len(data))
    blocks.add(END)
    blocks.flush()
    return rows


def _size(image: SourceImage, data: bytes | memoryview) -> tuple[int, int]:
    try:
        return jpeg_size(data)
    except JpegError as error:
        raise SourceError(f"{image.where} is not a JPEG: {error}. The source is damaged: download it again.") from error


class _Blocks:
    """Joins small pieces and passes them on in blocks; the block's memory is reused after `write` returns."""

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._write = write
        self._memory, self._filled = memoryview(bytearray(_BLOCK_BYTES)), 0

    def add(self, piece: bytes | memoryview) -> None:
        """Append a piece; one that is larger than a block is passed on alone."""
        stop = self._filled + len(piece)
        if stop > len(self._memory):
            self.flush()
            stop = len(piece)
        if stop > len(self._memory):
            self._write(memoryview(piece))
        else:
            self._memory[self._filled : stop] = piece
            self._filled = stop

    def flush(self) -> None:
        """Pass on what is left."""
        if self._filled:
            self._write(self._memory[: self._filled])
            self._filled = 0


class _Digest:
    """SHA-256 and length of what was added."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._sha256 = hashlib.sha256()

    def add(self, block: memoryview) -> None:
        self._sha256.update(block)
        self.num_bytes += len(block)

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


class _DiffersError(Exception):
    """A stored shard has other bytes than it should have."""


class _StoredShard:
    """Compares a stored shard with the bytes it should have."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._num_bytes = store.head(name)
        self._read, self._read_from = memoryview(b""), 0
        self._compared = _Digest()

    def compare(self, block: memoryview) -> None:
        """Compare the next bytes.

        Raises:
            _DiffersError: the stored bytes are others, or end before.
        """
        start, stop = self._compared.num_bytes, self._compared.num_bytes + len(block)
        if stop > self._num_bytes:
            raise _DiffersError
        if stop > self._read_from + len(self._read):
            read_to = max(stop, min(start + _COMPARED_BYTES, self._num_bytes))
            self._read, self._read_from = memoryview(self._store.get_range(self._name, start, read_to)), start
        found = self._read[start - self._read_from : stop - self._read_from]
        if not np.array_equal(np.frombuffer(found, np.uint8), np.frombuffer(block, np.uint8)):  # views compare slowly
            raise _DiffersError
        self._compared.add(block)

    def compare_end(self) -> None:
        """Check that the stored shard ends here."""
        if self._compared.num_bytes != self._num_bytes:
            raise _DiffersError

    def info(self, num_samples: int) -> ShardInfo:
        """Return the manifest's entry, once all bytes are compared."""
        return ShardInfo(self._name, num_samples, self._num_bytes, self._compared.hexdigest())


def _ignore(num_bytes: int) -> None:
    del num_bytes
