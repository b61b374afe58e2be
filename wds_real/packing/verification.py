"""Check a packed data set: every problem is reported, not only the first.

quick    manifest and index are whole, every shard is there with its length
full     and every byte is read: each shard's SHA-256, the tar's structure, each checksum and label
decode   and every picture is decoded, and has the size the index says
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import xxhash

from wds_real.data.reader import open_shards, read_index, read_manifest
from wds_real.errors import StoreError, UnavailableError
from wds_real.format.manifest import SHARD_NAME
from wds_real.format.tar import BLOCK, END, TarError, encode_header, iter_members, padding
from wds_real.image.decode import DecodeError, decode_rgb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from wds_real.format.manifest import Manifest
    from wds_real.format.sample_index import SampleIndex
    from wds_real.storage.base import Store

__all__ = ["Level", "Report", "verify"]

Level = Literal["quick", "full", "decode"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked, and what is wrong.

    Attributes:
        level: How deep.
        manifest: What the set should be.
        problems: One line each, in shard order; empty if the set is whole.
    """

    level: Level
    manifest: Manifest
    problems: tuple[str, ...]


def verify(
    store: Store,
    *,
    level: Level = "full",
    jobs: int = 2,
    progress: Callable[[int], None] | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Report:
    """Check the data set in `store`.

    Args:
        store: Where it is.
        level: How deep to look.
        jobs: Shards checked at a time.
        progress: Called with the bytes of each shard when it is done, from any thread.
        storage_options: For shards at a URL while the manifest is in a folder.

    Raises:
        UnavailableError: the object store denies access, or gave up.
        ManifestError: the manifest or the index is missing or damaged, so nothing else can be checked.
    """
    manifest = read_manifest(store)
    index = read_index(store, manifest)
    shards = open_shards(store, manifest, storage_options)

    def check(number: int) -> list[str]:
        found = list(_check_shard(shards, manifest, index, number, level))
        if progress is not None:
            progress(manifest.shards[number].num_bytes)
        return found

    listed = shards.list() if shards.listable and not manifest.foreign else []
    extra = sorted({name for name in listed if SHARD_NAME.fullmatch(name)} - {shard.name for shard in manifest.shards})
    problems = [f"{name}: the manifest does not name it, but readers that list the folder find it." for name in extra]
    with ThreadPoolExecutor(jobs, thread_name_prefix="verify") as pool:
        for found in pool.map(check, range(len(manifest.shards))):
            problems += found
    return Report(level, manifest, tuple(problems))


def _check_shard(store: Store, manifest: Manifest, index: SampleIndex, number: int, level: Level) -> Iterator[str]:
    """Yield what is wrong with one shard, each as one line that names it."""
    shard = manifest.shards[number]
    try:
        num_bytes = store.head(shard.name)
        if num_bytes != shard.num_bytes:
            yield f"{shard.name}: {num_bytes:,} bytes, the manifest says {shard.num_bytes:,}. Pack it again."
            return
        if level == "quick":
            return
        data = store.get(shard.name)
    except UnavailableError:  # says nothing of the shard
        raise
    except StoreError as error:
        yield f"{shard.name}: {error} Copy it again, or pack again."
        return
    found = hashlib.sha256(data).hexdigest()
    if found != shard.sha256 and (shard.sha256 or not manifest.foreign):
        yield f"{shard.name}: SHA-256 is {found[:16]}..., the manifest says {shard.sha256[:16]}.... Pack it again."
    rows = np.flatnonzero(index.shard == number).tolist()
    structure = _check_foreign_structure if manifest.foreign else _check_structure
    yield from (f"{shard.name}: {problem}" for problem in structure(data, index, rows))
    for row in rows:
        yield from (f"{shard.name}: {problem}" for problem in _check_picture(data, index, row, level))
        if not manifest.foreign:
            yield from (f"{shard.name}: {problem}" for problem in _check_label(data, index, row))


def _check_structure(data: bytes, index: SampleIndex, rows: list[int]) -> Iterator[str]:
    """Yield where the bytes around the samples are not exactly what wds_real writes: jpg then json, nothing else."""
    position = 0
    for row in rows:
        for extension, offset, size in (
            ("jpg", int(index.offset[row]), int(index.num_bytes[row])),
            ("json", int(index.json_offset[row]), int(index.json_num_bytes[row])),
        ):
            name, end = f"{index.keys[row]}.{extension}", offset + size
            if offset != position + BLOCK:
                yield f"{name} [bytes {offset}-{end}): the index leaves {offset - BLOCK - position} bytes before it."
            elif data[position:offset] != encode_header(name, size):
                where = f"{name} [bytes {position}-{offset})"
                yield f"{where}: the tar header is not the one wds_real writes. Pack it again."
            position = end + padding(size)
            if any(data[end:position]):
                yield f"{name} [bytes {end}-{position}): the padding is not zero. Pack it again."
    if data[position:] != END:
        yield f"[bytes {position}-{len(data)}): no end-of-archive marker, or something behind it. Pack it again."


def _check_foreign_structure(data: bytes, index: SampleIndex, rows: list[int]) -> Iterator[str]:
    """Yield where a tar is not whole, or lacks a member where the index has a sample."""
    try:
        members = {(member.offset, member.size) for member in iter_members(lambda a, b: data[a:b], len(data))}
    except TarError as error:
        yield f"not a whole tar: {error}."
        return
    for row in rows:
        start, size = int(index.offset[row]), int(index.num_bytes[row])
        if (start, size) not in members:
            yield f"{index.keys[row]} [bytes {start}-{start + size}): there is no such member. Index it again."


def _check_picture(data: bytes, index: SampleIndex, row: int, level: Level) -> Iterator[str]:
    start = int(index.offset[row])
    jpeg = data[start : start + int(index.num_bytes[row])]
    where = f"{index.keys[row]}.jpg [bytes {start}-{start + len(jpeg)})"
    checksum = xxhash.xxh3_64_intdigest(jpeg)
    expected = int(index.checksum[row])
    if checksum != expected and expected:
        yield f"{where}: checksum is {checksum:016x}, the index says {expected:016x}. Pack it again."
    elif level == "decode":
        size = (int(index.width[row]), int(index.height[row]))
        try:
            height, width, _ = decode_rgb(jpeg).shape
        except DecodeError as error:
            yield f"{where}: {error}."
        else:
            if size not in ((width, height), (0, 0)):
                yield f"{where}: decodes to {width}x{height} pixels, the index says {size[0]}x{size[1]}."


def _check_label(data: bytes, index: SampleIndex, row: int) -> Iterator[str]:
    start = int(index.json_offset[row])
    encoded = data[start : start + int(index.json_num_bytes[row])]
    expected = {"original_label": int(index.original_label[row]), "real_label": list(index.real_label[row])}
    try:
        label = json.loads(encoded)
        same = {name: label[name] for name in expected} == expected
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        yield f"{index.keys[row]}.json: {encoded[:100]!r} is not the label of the index, {expected}. Pack it again."
