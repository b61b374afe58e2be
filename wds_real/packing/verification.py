"""Check a packed data set, and report every problem.

quick    manifest and index are valid, and every shard has the length that the manifest says
full     also every byte: each shard's SHA-256, its layout, each sample's checksum and label
decode   also every image decodes to the size that the index says; what the decoder warns about is reported

A warning of the decoder is not a problem of the set: the image's bytes are those that were packed, so the image was
damaged in the source already.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import xxhash

from wds_real.errors import StoreError, UnavailableError
from wds_real.format.manifest import SHARD_NAME
from wds_real.format.root import open_shards, read_index, read_manifest
from wds_real.format.shard import frame_sample
from wds_real.format.tar import BLOCK, END, TarError, iter_members
from wds_real.format.tar_explained import explain_tar_error
from wds_real.image.decode import DecodeError, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from wds_real.format.manifest import Manifest, ShardInfo
    from wds_real.format.sample_index import SampleIndex
    from wds_real.storage.base import Store

__all__ = ["Level", "Report", "verify"]

Level = Literal["quick", "full", "decode"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked, and what is wrong.

    Attributes:
        level: What was checked, see the module's docstring.
        manifest: The set's manifest.
        problems: One line each, in shard order; empty if the set is complete and undamaged.
        warnings: One line for each image that the decoder warns about, in shard order.
    """

    level: Level
    manifest: Manifest
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Warning:
    """A warning of the decoder, in contrast to a problem."""

    text: str


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
        store: Where the manifest is.
        level: What to check, see the module's docstring.
        jobs: Shards checked at a time.
        progress: Called with the bytes of each shard when it is done, from any thread.
        storage_options: Options of the shards' store, where the manifest is in a folder and the shards are at a URL.

    Raises:
        UnavailableError: the object store denies access, or gave up.
        ManifestError: the manifest or the index is missing or damaged, so nothing else can be checked.
    """
    manifest = read_manifest(store)
    index = read_index(store, manifest)
    shards = open_shards(store, manifest, storage_options)

    positions = index.positions_by_shard(len(manifest.shards))

    def check(number: int) -> list[str | _Warning]:
        found = list(_check_shard(shards, manifest.shards[number], manifest, index, positions[number], level))
        if progress is not None:
            progress(manifest.shards[number].num_bytes)
        return found

    listed = shards.list() if shards.listable and not manifest.external else []
    extra = sorted({name for name in listed if SHARD_NAME.fullmatch(name)} - {shard.name for shard in manifest.shards})
    found_in_all: list[str | _Warning] = [
        f"{name}: the manifest does not name it, but readers that list the folder find it." for name in extra
    ]
    with ThreadPoolExecutor(jobs, thread_name_prefix="verify") as pool:
        for found in pool.map(check, range(len(manifest.shards))):
            found_in_all += found
    problems = tuple(line for line in found_in_all if isinstance(line, str))
    return Report(level, manifest, problems, tuple(line.text for line in found_in_all if isinstance(line, _Warning)))


def _check_shard(
    store: Store, shard: ShardInfo, manifest: Manifest, index: SampleIndex, positions: list[int], level: Level
) -> Iterator[str | _Warning]:
    """Yield what is wrong with one shard and its samples, one line each."""
    try:
        num_bytes = store.head(shard.name)
        if num_bytes != shard.num_bytes:
            yield f"{shard.name}: {num_bytes:,} bytes, the manifest says {shard.num_bytes:,}. Pack it again."
            return
        if level == "quick":
            return
        data = store.get(shard.name)
    except UnavailableError:  # is not about the shard
        raise
    except StoreError as error:
        yield f"{shard.name}: {error} Copy it again, or pack again."
        return
    found = hashlib.sha256(data).hexdigest()
    if found != shard.sha256 and (shard.sha256 or not manifest.external):
        yield f"{shard.name}: SHA-256 is {found[:16]}..., the manifest says {shard.sha256[:16]}.... Pack it again."
    check_layout = _check_external_layout if manifest.external else _check_layout
    for problem in (*check_layout(data, index, positions), *_check_images(data, index, positions, level)):
        if isinstance(problem, _Warning):
            yield _Warning(f"{shard.name}: {problem.text}")
        else:
            yield f"{shard.name}: {problem}"


def _check_layout(data: bytes, index: SampleIndex, positions: list[int]) -> Iterator[str]:
    """Yield where the bytes around the JPEGs are not those of `wds_real.format.shard`."""
    start = 0
    for position in positions:
        key, jpeg_start, json_start = (
            index.keys[position],
            int(index.offset[position]),
            int(index.json_offset[position]),
        )
        jpeg_stop = jpeg_start + int(index.num_bytes[position])
        json_stop = json_start + int(index.json_num_bytes[position])
        try:
            frame = frame_sample(index.label(position), jpeg_stop - jpeg_start)
        except TarError as error:
            yield f"{key}: {error}. The index was not written by wds_real: pack again."
            return
        stop = json_stop + len(frame.json_padding)
        for member, what, first, last, expected in (
            (f"{key}.jpg", "tar header", start, jpeg_start, frame.jpg_header),
            (f"{key}.jpg", "padding", jpeg_stop, json_start - BLOCK, frame.jpg_padding),
            (f"{key}.json", "tar header", json_start - BLOCK, json_start, frame.json_header),
            (f"{key}.json", "label", json_start, json_stop, frame.label),
            (f"{key}.json", "padding", json_stop, stop, frame.json_padding),
        ):
            if (found := data[first:last]) != expected:
                shown = f" {found[:100]!r}" if what == "label" else ""
                yield f"{member} [bytes {first}-{last}): the {what}{shown} is not what wds_real writes. Pack it again."
        start = stop
    if data[start:] != END:
        yield f"[bytes {start}-{len(data)}): expected the end-of-archive marker and nothing after it. Pack it again."


def _check_external_layout(data: bytes, index: SampleIndex, positions: list[int]) -> Iterator[str]:
    """Yield where a tar is damaged or cut, or has no member where the index has a sample."""
    try:
        members = {(member.offset, member.size) for member in iter_members(lambda a, b: data[a:b], len(data))}
    except TarError as error:
        yield explain_tar_error(error, data[:BLOCK], len(data), if_damaged="Copy it again.")
        return
    for position in positions:
        start, size = int(index.offset[position]), int(index.num_bytes[position])
        if (start, size) not in members:
            yield f"{index.keys[position]} [bytes {start}-{start + size}): there is no such member. Index it again."


def _check_images(data: bytes, index: SampleIndex, positions: list[int], level: Level) -> Iterator[str | _Warning]:
    """Yield the images whose checksum is wrong or, at level decode, that do not decode to the index's size, or warn."""
    for position in positions:
        start = int(index.offset[position])
        jpeg = data[start : start + int(index.num_bytes[position])]
        where = f"{index.keys[position]}.jpg [bytes {start}-{start + len(jpeg)})"
        checksum, expected = xxhash.xxh3_64_intdigest(jpeg), int(index.checksum[position])
        if checksum != expected and expected:
            yield f"{where}: checksum is {checksum:016x}, the index says {expected:016x}. Pack it again."
        elif level == "decode":
            yield from _check_pixels(where, jpeg, index, position)


def _check_pixels(where: str, jpeg: bytes, index: SampleIndex, position: int) -> Iterator[str | _Warning]:
    size = (int(index.width[position]), int(index.height[position]))
    try:
        decoded = decode(jpeg)
    except DecodeError as error:
        yield f"{where}: {error}."
        return
    height, width, _ = decoded.pixels.shape
    if size not in ((width, height), (0, 0)):
        yield f"{where}: decodes to {width}x{height} pixels, the index says {size[0]}x{size[1]}."
    if decoded.warning is not None:
        yield _Warning(
            f"{where}: the decoder warns: {decoded.warning}. The bytes are those that were packed: "
            "the image was damaged before, if it is damaged."
        )
