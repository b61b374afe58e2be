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

from wds_real.decode import DecodeError, decode_rgb
from wds_real.errors import StoreError
from wds_real.reader import read_index, read_manifest
from wds_real.tar import BLOCK, END, TarError, encode_header, iter_members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wds_real.manifest import Manifest, SampleIndex, ShardInfo
    from wds_real.store import Store

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
    store: Store, *, level: Level = "full", jobs: int = 2, progress: Callable[[int], None] | None = None
) -> Report:
    """Check the data set in `store`.

    Args:
        store: Where it is.
        level: How deep to look.
        jobs: Shards checked at a time.
        progress: Called with the bytes of each shard when it is done, from any thread.

    Raises:
        ManifestError: the manifest or the index is missing or damaged, so nothing else can be checked.
    """
    manifest = read_manifest(store)
    index = read_index(store, manifest)

    def check(number: int) -> list[str]:
        problems = list(_check_shard(store, manifest.shards[number], index, number, level))
        if progress is not None:
            progress(manifest.shards[number].num_bytes)
        return problems

    with ThreadPoolExecutor(jobs, thread_name_prefix="verify") as pool:
        found = pool.map(check, range(len(manifest.shards)))
        return Report(level, manifest, tuple(problem for problems in found for problem in problems))


def _check_shard(store: Store, shard: ShardInfo, index: SampleIndex, number: int, level: Level) -> Iterator[str]:
    """Yield what is wrong with one shard, each as one line that names it."""
    try:
        num_bytes = store.head(shard.name)
        if num_bytes != shard.num_bytes:
            yield f"{shard.name}: {num_bytes:,} bytes, the manifest says {shard.num_bytes:,}. Pack it again."
            return
        if level == "quick":
            return
        data = store.get(shard.name)
    except StoreError as error:
        yield f"{shard.name}: {error} Copy it again, or pack again."
        return
    found = hashlib.sha256(data).hexdigest()
    if found != shard.sha256:
        yield f"{shard.name}: SHA-256 is {found[:16]}..., the manifest says {shard.sha256[:16]}.... Pack it again."
    rows = np.flatnonzero(index.shard == number).tolist()
    yield from (f"{shard.name}: {problem}" for problem in _check_structure(data, index, rows))
    for row in rows:
        yield from (f"{shard.name}: {problem}" for problem in _check_sample(data, index, row, level))


def _check_structure(data: bytes, index: SampleIndex, rows: list[int]) -> Iterator[str]:
    """Yield where the tar's members are not exactly the index's samples, jpg then json, with our headers."""
    try:
        found = [
            (member.name, member.offset, member.size)
            for member in iter_members(lambda start, stop: data[start:stop], len(data))
        ]
    except TarError as error:
        yield f"not a whole tar: {error}. Pack it again."
        return
    expected = []
    for row in rows:
        key = index.keys[row]
        expected.append((f"{key}.jpg", int(index.offset[row]), int(index.num_bytes[row])))
        expected.append((f"{key}.json", int(index.json_offset[row]), int(index.json_num_bytes[row])))
    for want, have in zip(expected, found, strict=False):
        if want != have:
            yield f"member is {have[0]} [bytes {have[1]}-{have[1] + have[2]}), the index says {want[0]}. Pack it again."
            return
        if data[want[1] - BLOCK : want[1]] != encode_header(want[0], want[2]):
            yield f"{want[0]}: the tar header is not the one wds_real writes. Pack it again."
    if len(found) != len(expected):
        yield f"{len(found):,} members, the index says {len(expected):,}. Pack it again."
    elif not data.endswith(END):
        yield "no end-of-archive marker. Pack it again."


def _check_sample(data: bytes, index: SampleIndex, row: int, level: Level) -> Iterator[str]:
    start = int(index.offset[row])
    jpeg = data[start : start + int(index.num_bytes[row])]
    where = f"{index.keys[row]}.jpg [bytes {start}-{start + len(jpeg)})"
    checksum = xxhash.xxh3_64_intdigest(jpeg)
    if checksum != int(index.checksum[row]):
        yield f"{where}: checksum is {checksum:016x}, the index says {int(index.checksum[row]):016x}. Pack it again."
    elif level == "decode":
        size = (int(index.width[row]), int(index.height[row]))
        try:
            height, width, _ = decode_rgb(jpeg).shape
        except DecodeError as error:
            yield f"{where}: {error}."
        else:
            if (width, height) != size:
                yield f"{where}: decodes to {width}x{height} pixels, the index says {size[0]}x{size[1]}."
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
