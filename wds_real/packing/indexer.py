"""Index external WebDataset shards where they are, with one small read for each sample; nothing is copied.

Samples are grouped as webdataset groups them: neighbouring members whose names agree up to the first dot. A sample
needs an image and a label. If its file name is that of a validation image, its labels are the bundled ones, and a class
that is given must agree; else a ``cls`` or ``json`` member must give a class.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import shlex
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from wds_real.errors import MissingError, SourceError, StoreError, first_few, printable
from wds_real.format.json_fields import parse_json
from wds_real.format.manifest import DATASET, VERSION, Manifest, ShardInfo
from wds_real.format.root import Provenance, open_root, remove_manifest, write_root
from wds_real.format.sample_index import SampleRow
from wds_real.format.side_files import refuse_old_card, remove_side_files
from wds_real.format.tar import BLOCK, TarError, iter_members
from wds_real.format.tar_explained import explain_tar_error
from wds_real.image.jpeg_header import JpegError, jpeg_size
from wds_real.labels import NUM_IMAGES
from wds_real.packing.claim import claimed
from wds_real.packing.external_labels import external_label, official_label
from wds_real.packing.shard_spec import find_shards
from wds_real.storage.url import is_url, redact_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from wds_real.format.tar import Member
    from wds_real.labels import Label
    from wds_real.storage.base import Store

__all__ = ["index_shards"]

_LOG = logging.getLogger(__name__)

_IMAGES = ("jpg", "jpeg", "png", "webp", "ppm", "bmp", "gif", "tif", "tiff")
_WINDOW_BYTES = 8 << 10  # holds a label, the headers around it, and the start of the next image
_WINDOWS = 8  # members of a sample
_SKIPPED = re.compile(r"__[^/]*__($|/)")  # webdataset's own metadata
_MAX_LABEL_BYTES = 1 << 20
_SHARDS_AT_A_TIME = 16


def index_shards(
    spec: str,
    root: str | None = None,
    *,
    storage_options: Mapping[str, str] | None = None,
    checksums: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Write ``index.json`` and ``manifest.json`` for external shards.

    Args:
        spec: The shards in brace notation, ``s3://lab/val-{00..63}.tar``, or by a pattern, ``val-*.tar``, all in one
            folder; or that folder or URL alone, for all its tar files.
        root: Where to write, if not beside the shards; the manifest then says where those are.
        storage_options: For URLs, as `wds_real.open_store` takes them.
        checksums: Read every byte and store a checksum of each image, against which later reads are checked. Without
            checksums, later reads are checked only for the lengths of shards and the ETags of objects.
        overwrite: Replace an existing index.
        progress: Called with the bytes of each shard when it is done, from any thread.

    Raises:
        SourceError: a shard is not a whole tar, a sample has no image or no label, labels disagree, or a key occurs
            twice.
        StoreError: a store refused, there is an index already, or another process is writing one.
    """
    found = find_shards(spec, storage_options)
    place, names = found.place, found.names
    shards = open_root(place, storage_options)
    if root is not None and is_url(root) and not is_url(place):
        raise StoreError(
            f"{redact_url(root)}: an index at a URL must not name shards in a folder of this machine, so nobody could "
            "read it. Give a folder as --output, or upload the shards."
        )
    target = shards if root is None else open_root(root, storage_options)

    def scan(number: int) -> _ScannedShard:
        scanned = _scan(shards, names[number], number, checksums=checksums)
        if progress is not None:
            progress(scanned.info.num_bytes)
        return scanned

    advice = "Pass --output to write elsewhere." if root is None else "Choose another --output."
    with claimed(target, "index", overwrite=overwrite, advice=advice) as claim:
        if overwrite:
            refuse_old_card(target)
        with ThreadPoolExecutor(_SHARDS_AT_A_TIME, thread_name_prefix="index") as pool:
            scanned = list(pool.map(scan, range(len(names))))
        rows = sorted((row for shard in scanned for row in shard.rows), key=lambda row: row.label.key)
        _check_keys(shards, rows)
        others = [row.label for row in rows if official_label(row.label.key, spec) is None]
        _say_without_real_labels(others, rows)
        official = not others
        provenance = Provenance(
            dataset=DATASET if official else "webdataset",
            version=VERSION if official else "0.0.0",
            partial=not official or len(rows) < NUM_IMAGES,
            source_digest="",
            external=True,
            shards_at=None if root is None else shards.url if is_url(place) else str(Path(place).absolute()),
        )
        claim.check()
        if overwrite:
            remove_side_files(target, shards_stay=True)
            remove_manifest(target)
        return write_root(target, rows, [shard.info for shard in scanned], provenance)


@dataclass(frozen=True, slots=True)
class _ScannedShard:
    """What a shard is, and its samples in the order of the shard."""

    info: ShardInfo
    rows: list[SampleRow]


def _scan(store: Store, name: str, number: int, *, checksums: bool) -> _ScannedShard:
    where = f"{store.url}/{name}"
    try:
        num_bytes = store.head(name)
        data = store.get(name) if checksums else b""
        windows = _Windows(store, name, num_bytes)

        def read(start: int, stop: int) -> bytes:
            return data[start:stop] if checksums else windows.read(start, stop)

        samples = _samples(iter_members(read, num_bytes), where)
        rows = [_row(sample, read, number, where, checksums=checksums) for sample in samples]
    except TarError as error:
        head = read(0, min(BLOCK, num_bytes))
        problem = explain_tar_error(error, head, num_bytes, if_damaged="Copy it again.")
        raise SourceError(f"{where}: {problem}") from error
    except MissingError as error:
        raise SourceError(f"{where}: no such shard. Check the numbers in the braces.") from error
    digest = hashlib.sha256(data).hexdigest() if checksums else ""
    return _ScannedShard(ShardInfo(name, len(rows), num_bytes, digest), rows)


class _Windows:
    """Reads a little more than requested, and serves later requests from the last few such reads.

    Several windows are kept, because an image's header and its label are needed after the tar header that follows them.
    """

    def __init__(self, store: Store, name: str, num_bytes: int) -> None:
        self._store, self._name, self._num_bytes = store, name, num_bytes
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=_WINDOWS)

    def read(self, start: int, stop: int) -> bytes:
        """Return exactly the bytes of the half-open range."""
        for first, data in self._kept:
            if first <= start <= stop <= first + len(data):
                return data[start - first : stop - first]
        end = min(max(stop, start + _WINDOW_BYTES), self._num_bytes)
        data = bytes(self._store.get_range(self._name, start, end, size=self._num_bytes))
        self._kept.append((start, data))
        return data[: stop - start]


@dataclass(frozen=True, slots=True)
class _Sample:
    """The members of one key, by extension."""

    key: str
    members: dict[str, Member]


def _samples(members: Iterator[Member], where: str) -> Iterator[_Sample]:
    """Group neighbouring members by key; names without an extension and hidden files are skipped."""
    parts = ((*_split_name(member.name), member) for member in members if member.is_file)
    named = (part for part in parts if part[0] and not _SKIPPED.match(part[2].name))
    for key, group in itertools.groupby(named, key=lambda part: part[0]):
        found: dict[str, Member] = {}
        for _, extension, member in group:
            if found.setdefault(extension.lower(), member) is not member:
                raise SourceError(f"{where}: {member.name} occurs twice. The shard was not written by webdataset.")
        yield _Sample(key, found)


def _split_name(name: str) -> tuple[str, str]:
    """Return key and extension, split at the first dot after the folders as in webdataset; "" if it skips the name."""
    folder, _, base = name.removeprefix("./").rpartition("/")
    stem, dot, extension = base.partition(".")
    if not (stem and dot and extension):
        return "", ""
    return (f"{folder}/{stem}" if folder else stem), extension


def _row(sample: _Sample, read: Callable[[int, int], bytes], number: int, where: str, *, checksums: bool) -> SampleRow:
    """Return a sample's row of the index."""
    images = [member for extension, member in sample.members.items() if extension.rpartition(".")[2] in _IMAGES]
    if not images and not {"json", "cls"} & sample.members.keys():
        (stranger, *_) = sample.members.values()
        raise SourceError(
            f"{where}: {stranger.name} belongs to no image. Remove it: tar --delete -f "
            f"{shlex.quote(where.rpartition('/')[2])} {shlex.quote(stranger.name)}"
        )
    if len(images) != 1:
        raise SourceError(
            f"{where}: {sample.key} has {len(images)} images among {first_few(sorted(sample.members))}, expected one."
        )
    image = images[0]
    width, height = _image_size(image, read)
    given = {kind: sample.members[kind] for kind in ("json", "cls") if kind in sample.members}
    label_member = next(iter(given.values()), None)
    contents: dict[str, dict[str, Any]] = {}
    for kind, member in given.items():
        contents[kind] = _content(kind, member, read, where)
    return SampleRow(
        label=external_label(sample.key, contents, where),
        shard=number,
        offset=image.offset,
        num_bytes=image.size,
        json_offset=0 if label_member is None else label_member.offset,
        json_num_bytes=0 if label_member is None else label_member.size,
        checksum=xxhash.xxh3_64_intdigest(read(image.offset, image.offset + image.size)) if checksums else 0,
        width=width,
        height=height,
    )


def _image_size(image: Member, read: Callable[[int, int], bytes]) -> tuple[int, int]:
    """Return (width, height) of a JPEG from its first bytes; (0, 0) if they do not hold it."""
    for num_bytes in (_WINDOW_BYTES // 2, 16 * _WINDOW_BYTES):  # an embedded preview may precede the size
        head = read(image.offset, image.offset + min(num_bytes, image.size))
        try:
            return jpeg_size(head)
        except JpegError:
            if not head.startswith(b"\xff\xd8"):
                break
    return 0, 0


def _content(kind: str, member: Member, read: Callable[[int, int], bytes], where: str) -> dict[str, Any]:
    """Return the fields of a label member."""
    if member.size > _MAX_LABEL_BYTES:
        raise SourceError(f"{where}: {member.name} has {member.size:,} bytes, too many for a label.")
    data = read(member.offset, member.offset + member.size)
    try:
        value = parse_json(data) if kind == "json" else data.decode("utf-8").strip()
    except ValueError as error:
        raise SourceError(f"{where}: {member.name} is not {kind}: {error}.") from error
    return value if isinstance(value, dict) else {"label": value}


def _say_without_real_labels(others: Sequence[Label], rows: Sequence[SampleRow]) -> None:
    """Log how many images have no ReaL label because they have other names than the validation images."""
    without = [label.key for label in others if not label.real_label]
    if without:
        _LOG.warning(
            "%s of %s images (%s) are not named as validation images, so they have no ReaL labels and do not count for "
            "ReaL accuracy. If they are, give the names, such as ILSVRC2012_val_00000001.JPEG, as keys or in the json "
            "member as file_name, and index again.",
            f"{len(without):,}",
            f"{len(rows):,}",
            printable(first_few(without)),
        )


def _check_keys(store: Store, rows: Sequence[SampleRow]) -> None:
    doubled = [a.label.key for a, b in itertools.pairwise(rows) if a.label.key == b.label.key]
    if doubled:
        raise SourceError(f"{store.url}: {len(doubled):,} keys occur twice, such as {doubled[0]}. Remove the copies.")
    if not rows:
        raise SourceError(f"{store.url}: the shards hold no sample.")
