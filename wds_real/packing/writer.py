"""The write line: source images and their labels become shards, an index and, last, the manifest.

    source -> plan_shards -> the pieces of each shard -> tar ... tar, index.json, manifest.json

A shard's bytes are a pure function of its images and labels. That is what makes a killed run resumable: a shard that is
already there is compared, piece by piece, with what it should be, and written again if it differs in a single byte.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import deque
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from wds_real.errors import SourceError, StoreError, UnavailableError
from wds_real.format.manifest import (
    DATASET,
    INDEX_NAME,
    MANIFEST_NAME,
    SHARD_NAME,
    SPLIT,
    VERSION,
    Manifest,
    ShardInfo,
    shard_name,
)
from wds_real.format.sample_index import SampleIndex, SampleRow
from wds_real.format.tar import BLOCK, END, encode_header, padding
from wds_real.image.jpeg_header import JpegError, jpeg_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from wds_real.labels import Label
    from wds_real.packing.source import Source, SourceImage
    from wds_real.storage.base import Store

__all__ = ["ShardPlan", "encode_label", "plan_shards", "write_shards"]

_LOG = logging.getLogger(__name__)
_COMPARED = 8 << 20  # bytes of a stored shard that are read at a time
_BLOCK_BYTES = 4 << 20  # of a shard that are written and hashed at a time


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What one shard is to hold: its number, its name and its images in key order."""

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

    Run again after a kill, it keeps the shards that are whole and ends with the same bytes as an undisturbed run.

    Args:
        source: The images, from `wds_real.packing.source.open_source`.
        store: Where to write.
        samples_per_shard: Samples in every shard but the last, which may be short.
        jobs: Shards written at a time; None means one a core, at most 4.
        overwrite: Replace a finished set. Without it a finished set is an error.
        progress: Called with the number of JPEG bytes done since the last call, from any thread.

    Raises:
        ValueError: samples_per_shard or jobs is less than 1.
        SourceError: the source cannot be read, or an image in it is not a JPEG.
        StoreError: the store refused, or holds a finished set already.
    """
    shards = plan_shards(source.images, samples_per_shard=samples_per_shard)
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}, expected at least 1.")
    _make_room(store, {shard.name for shard in shards}, overwrite=overwrite)
    present = set(store.list())
    stop = threading.Event()
    rows, infos = list[SampleRow](), list[ShardInfo]()
    with ThreadPoolExecutor(jobs or min(4, os.cpu_count() or 1), thread_name_prefix="pack") as pool:
        pending = deque(
            pool.submit(_write_shard, shard, source, store, stop, progress, exists=shard.name in present)
            for shard in shards
        )
        try:
            while pending:
                info, shard_rows = pending.popleft().result()
                infos.append(info)
                rows.extend(shard_rows)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    if kept := sum(1 for shard in shards if shard.name in present):
        _LOG.info("found %d of %d shards already there, and kept those whose bytes are right", kept, len(shards))
    return _finish(source, store, infos, rows)


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


def encode_label(label: Label) -> bytes:
    """Return the bytes of a sample's JSON member.

    >>> from wds_real.labels import Label
    >>> encode_label(Label("a.JPEG", 65, ()))
    b'{"file_name": "a.JPEG", "original_label": 65, "real_label": []}'
    """
    fields = {"file_name": label.file_name, "original_label": label.original_label, "real_label": label.real_label}
    return json.dumps(fields).encode("ascii")


def _make_room(store: Store, names: set[str], *, overwrite: bool) -> None:
    """Take away a finished set's manifest if that is wanted, and what killed or other runs left behind."""
    existing = store.list()
    if MANIFEST_NAME in existing:
        if not overwrite:
            raise StoreError(
                f"{store.url}: holds a finished set already. Choose another place, or pass --overwrite to replace it."
            )
        store.delete(MANIFEST_NAME)
    try:
        for name in store.delete_leftovers():
            _LOG.info("removed %s, left by a killed run", name)
    except UnavailableError as error:  # who may write need not be allowed to see what others began
        _LOG.warning("what killed runs may have left was not looked for: %s", error)
    for name in existing:
        if SHARD_NAME.fullmatch(name) and name not in names:
            _LOG.warning("removing %s: an unfinished run with more shards left it", name)
            store.delete(name)


def _write_shard(
    shard: ShardPlan,
    source: Source,
    store: Store,
    stop: threading.Event,
    progress: Callable[[int], None] | None,
    *,
    exists: bool,
) -> tuple[ShardInfo, list[SampleRow]]:
    """Bring one shard into the store, unless its very bytes are there already."""
    if exists:
        kept_rows = list[SampleRow]()
        kept = _compare(_pieces(shard, source, kept_rows, stop, progress=None), store, shard.name)
        if kept is not None:
            _LOG.debug("kept %s: its bytes are right", shard.name)
            if progress is not None:
                progress(sum(image.num_bytes for image in shard.images))
            return ShardInfo(shard.name, len(shard.images), *kept), kept_rows
        _LOG.warning("writing %s again: its bytes are not what they should be", shard.name)
    rows, digest, num_bytes = list[SampleRow](), hashlib.sha256(), 0
    with store.create(shard.name) as file:
        for block in _blocks(_pieces(shard, source, rows, stop, progress)):
            file.write(block)
            digest.update(block)
            num_bytes += len(block)
    if (found := store.head(shard.name)) != num_bytes:
        raise StoreError(f"{store.url}: {shard.name} has {found:,} bytes after {num_bytes:,} were written.")
    return ShardInfo(shard.name, len(shard.images), num_bytes, digest.hexdigest()), rows


def _blocks(pieces: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """Join pieces, in memory that is used again: few large steps hand the GIL over less often than many small ones."""
    memory, filled = memoryview(bytearray(_BLOCK_BYTES)), 0
    for piece in pieces:
        if filled and filled + len(piece) > len(memory):
            yield memory[:filled]
            filled = 0
        if len(piece) > len(memory):
            yield memoryview(piece)
        else:
            memory[filled : filled + len(piece)] = piece
            filled += len(piece)
    if filled:
        yield memory[:filled]


def _compare(pieces: Iterable[bytes | memoryview], store: Store, name: str) -> tuple[int, str] | None:
    """Return length and SHA-256 of the stored shard if it consists of exactly `pieces`, else None."""
    num_bytes, position, digest = store.head(name), 0, hashlib.sha256()
    stored, stored_from = memoryview(b""), 0
    for block in _blocks(pieces):
        stop = position + len(block)
        if stop > num_bytes:
            return None
        if stop > stored_from + len(stored):
            stored_from = position
            stored = memoryview(store.get_range(name, position, max(stop, min(position + _COMPARED, num_bytes))))
        found = stored[position - stored_from : stop - stored_from]
        if not np.array_equal(np.frombuffer(found, np.uint8), np.frombuffer(block, np.uint8)):  # views compare slowly
            return None
        digest.update(block)
        position = stop
    return (num_bytes, digest.hexdigest()) if position == num_bytes else None


def _pieces(
    shard: ShardPlan,
    source: Source,
    rows: list[SampleRow],
    stop: threading.Event,
    progress: Callable[[int], None] | None,
) -> Iterator[bytes | memoryview]:
    """Yield a shard's bytes in order, and append each sample's line of the index to `rows` on the way."""
    with source.ahead(shard.images) as pictures:
        yield from _framed(shard, pictures, rows, stop, progress)
    yield END


def _framed(
    shard: ShardPlan,
    pictures: Iterator[bytes | memoryview],
    rows: list[SampleRow],
    stop: threading.Event,
    progress: Callable[[int], None] | None,
) -> Iterator[bytes | memoryview]:
    """Yield headers, pictures and labels as they follow each other in a shard; each is good until the next."""
    position = 0
    for image, data in zip(shard.images, pictures, strict=True):
        if stop.is_set():
            raise CancelledError
        label = encode_label(image.label)
        try:
            width, height = jpeg_size(data)
        except JpegError as error:
            raise SourceError(
                f"{image.path}: {image.label.file_name} [bytes {image.offset}-{image.offset + image.num_bytes}) is not "
                f"a JPEG: {error}. The source is damaged: download it again."
            ) from error
        offset = position + BLOCK
        json_offset = offset + len(data) + padding(len(data)) + BLOCK
        position = json_offset + len(label) + padding(len(label))
        yield encode_header(f"{image.label.key}.jpg", len(data))
        yield data
        head = bytes(padding(len(data))) + encode_header(f"{image.label.key}.json", len(label))
        yield head + label + bytes(padding(len(label)))
        checksum = xxhash.xxh3_64_intdigest(data)
        rows.append(
            SampleRow(image.label, shard.number, offset, len(data), json_offset, len(label), checksum, width, height)
        )
        if progress is not None:
            progress(len(data))


def _finish(source: Source, store: Store, shards: list[ShardInfo], rows: list[SampleRow]) -> Manifest:
    """Write the index, then the manifest: from here on the set is whole."""
    index = SampleIndex.from_rows(rows)
    encoded = index.to_json()
    lines = (f"{row.label.file_name} {row.num_bytes} {row.checksum:016x}\n" for row in rows)
    manifest = Manifest(
        dataset=DATASET,
        version=VERSION,
        split=SPLIT,
        num_samples=len(rows),
        partial=source.partial,
        source_num_bytes=sum(row.num_bytes for row in rows),
        source_digest=hashlib.sha256("".join(lines).encode("ascii")).hexdigest(),
        labels_digest=index.labels_digest,
        index_num_bytes=len(encoded),
        index_sha256=hashlib.sha256(encoded).hexdigest(),
        shards=tuple(shards),
    )
    store.put(INDEX_NAME, encoded)
    store.put(MANIFEST_NAME, manifest.to_json(), exclusive=True)  # of two runs at once, one gets to write it
    return manifest
