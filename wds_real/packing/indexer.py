"""Index the WebDataset shards that others wrote, where they are: one small read a sample, nothing is copied.

A sample is what webdataset takes for one: neighbouring members whose names agree up to the first dot. It needs an image
and a label. Where a file name is that of a validation image, the labels are the bundled ones, and a class that is given
must agree; else there has to be a class in a ``cls`` or ``json`` member.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import braceexpand
import xxhash

from wds_real.errors import MissingError, SourceError, StoreError
from wds_real.format.manifest import DATASET, INDEX_NAME, MANIFEST_NAME, SPLIT, VERSION, Manifest, ShardInfo
from wds_real.format.sample_index import SampleIndex, SampleRow
from wds_real.format.tar import TarError, iter_members
from wds_real.image.jpeg_header import JpegError, jpeg_size
from wds_real.labels import NUM_CLASSES, NUM_IMAGES, Label, bundled, canonical_file_name, classes
from wds_real.storage.store import open_store
from wds_real.storage.url import is_url, redact_url, split_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from wds_real.format.tar import Member
    from wds_real.storage.base import Store

__all__ = ["index_shards", "place_of"]

_IMAGES = ("jpg", "jpeg", "png", "webp", "ppm", "bmp", "gif", "tif", "tiff")
_FILE_NAME_FIELDS = ("file_name", "filename", "fname", "path", "name")
_CLASS_FIELDS = ("original_label", "label", "cls", "class", "target")
_WINDOW_BYTES = 8 << 10  # holds a label, the headers around it, and the start of the next picture
_WINDOWS = 8  # members of a sample
_SKIPPED = re.compile(r"__[^/]*__($|/)")  # webdataset's own notes
_LONGEST_CLASS = 4  # digits of 1000, the class that tells a count from 1
_LARGEST_LABEL = 1 << 20
_CLASSES = frozenset(range(NUM_CLASSES))
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
    """Write ``index.json`` and ``manifest.json`` for shards that others wrote.

    Args:
        spec: The shards in brace notation, ``s3://lab/val-{00..63}.tar``, all in one place; or that place alone, for
            all its tar files.
        root: Where to write, if not beside the shards; the manifest then says where those are.
        storage_options: For URLs, as `wds_real.open_store` takes them.
        checksums: Read every byte, for checksums that each later read is compared with. Without them a read is compared
            with the sizes of shards and with the version of an object, but not with its content.
        overwrite: Replace an index that is there.
        progress: Called with the bytes of each shard that is done, from any thread.

    Raises:
        SourceError: a shard is not a whole tar, a sample has no image or no label, labels disagree, or a key is there
            twice.
        StoreError: a store refused, or there is an index already.
    """
    place, names = _expand(spec, storage_options)
    shards = _open(place, storage_options)
    target = shards if root is None else _open(root, storage_options)
    if not overwrite:
        _refuse_finished(target)

    def scan(number: int) -> tuple[ShardInfo, list[SampleRow]]:
        scanned = _scan(shards, names[number], number, checksums=checksums)
        if progress is not None:
            progress(scanned[0].num_bytes)
        return scanned

    with ThreadPoolExecutor(_SHARDS_AT_A_TIME, thread_name_prefix="index") as pool:
        scanned = list(pool.map(scan, range(len(names))))
    rows = sorted((row for _, rows in scanned for row in rows), key=lambda row: row.label.key)
    _check_keys(shards, rows)
    index = SampleIndex.from_rows(rows)
    encoded = index.to_json()
    official = all(_official_label(row.label.key, spec) is not None for row in rows)
    manifest = Manifest(
        dataset=DATASET if official else "webdataset",
        version=VERSION if official else "0.0.0",
        split=SPLIT,
        num_samples=len(rows),
        partial=not official or len(rows) < NUM_IMAGES,
        source_num_bytes=sum(row.num_bytes for row in rows),
        source_digest="",
        labels_digest=index.labels_digest,
        index_num_bytes=len(encoded),
        index_sha256=hashlib.sha256(encoded).hexdigest(),
        shards=tuple(info for info, _ in scanned),
        foreign=True,
        shards_at=None if root is None else shards.url if is_url(place) else str(Path(place).absolute()),
    )
    if overwrite and _has_manifest(target):
        target.delete(MANIFEST_NAME)
    target.put(INDEX_NAME, encoded)
    target.put(MANIFEST_NAME, manifest.to_json(), exclusive=True)
    return manifest


def place_of(spec: str) -> str:
    """Return the folder or URL that the shards are in."""
    return split_url(spec)[0] if _names_shards(spec) else spec


def _names_shards(spec: str) -> bool:
    return "{" in spec or spec.partition("?")[0].endswith(".tar")


def _expand(spec: str, storage_options: Mapping[str, str] | None) -> tuple[str, list[str]]:
    """Return the place of the shards and their names."""
    if not _names_shards(spec):
        names = [name for name in _open(spec, storage_options).list() if name.endswith(".tar")]
        if not names:
            raise SourceError(
                f"{redact_url(spec)}: holds no tar file. Name the shards: .../name-{{000000..000049}}.tar."
            )
        return spec, names
    try:
        urls = list(braceexpand.braceexpand(spec))
    except ValueError as error:
        raise SourceError(
            f"{redact_url(spec)}: the braces do not match. Write .../name-{{000000..000049}}.tar."
        ) from error
    parts = [split_url(url) for url in urls]
    names = [name for _, name in parts]
    if len({place for place, _ in parts}) > 1 or len(set(names)) < len(names):
        raise SourceError(
            f"{redact_url(spec)}: names shards in several places, or one of them twice. Index each place."
        )
    return parts[0][0], names


def _open(url: str, storage_options: Mapping[str, str] | None) -> Store:
    return open_store(url, storage_options=storage_options if is_url(url) else None)


def _has_manifest(store: Store) -> bool:
    try:
        store.head(MANIFEST_NAME)
    except MissingError:
        return False
    return True


def _refuse_finished(store: Store) -> None:
    if _has_manifest(store):
        raise StoreError(f"{store.url}: holds a finished set already. Pass --overwrite to replace its index.")


def _scan(store: Store, name: str, number: int, *, checksums: bool) -> tuple[ShardInfo, list[SampleRow]]:
    """Return what a shard is, and its samples in the order of the shard."""
    where = f"{store.url}/{name}"
    try:
        num_bytes = store.head(name)
        data = store.get(name) if checksums else b""
        windows = _Windows(store, name, num_bytes)

        def read(start: int, stop: int) -> bytes:
            return data[start:stop] if checksums else windows.read(start, stop)

        rows = [
            _row(sample, read, number, where, checksums=checksums)
            for sample in _samples(iter_members(read, num_bytes), where)
        ]
    except TarError as error:
        raise SourceError(f"{where}: not a whole tar: {error}. Copy it again.") from error
    except MissingError as error:
        raise SourceError(f"{where}: no such shard. Check the numbers in the braces.") from error
    digest = hashlib.sha256(data).hexdigest() if checksums else ""
    return ShardInfo(name, len(rows), num_bytes, digest), rows


class _Windows:
    """Reads a little more than is asked for, and answers from the last few such reads while it can.

    A picture's head and its label are looked at after the header behind them, so that the last one alone would not do.
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
    """The members that have a key in common, by what follows its dot."""

    key: str
    members: dict[str, Member]


def _samples(members: Iterator[Member], where: str) -> Iterator[_Sample]:
    """Group neighbouring members by key; what has no dot, and what is hidden, is no part of a sample."""
    parts = ((*_split_name(member.name), member) for member in members if member.is_file)
    named = (part for part in parts if part[0] and not _SKIPPED.match(part[2].name))
    for key, group in itertools.groupby(named, key=lambda part: part[0]):
        found: dict[str, Member] = {}
        for _, extension, member in group:
            if found.setdefault(extension.lower(), member) is not member:
                raise SourceError(f"{where}: {member.name} is there twice. The shard was not written by webdataset.")
        yield _Sample(key, found)


def _split_name(name: str) -> tuple[str, str]:
    """Return key and extension, split as webdataset does at the first dot behind the folders; "" where it would not."""
    folder, _, base = name.removeprefix("./").rpartition("/")
    stem, dot, extension = base.partition(".")
    if not (stem and dot and extension):
        return "", ""
    return (f"{folder}/{stem}" if folder else stem), extension


def _row(sample: _Sample, read: Callable[[int, int], bytes], number: int, where: str, *, checksums: bool) -> SampleRow:
    """Return a sample's line of the index."""
    images = [member for extension, member in sample.members.items() if extension.rpartition(".")[2] in _IMAGES]
    if len(images) != 1:
        raise SourceError(
            f"{where}: {sample.key} has {len(images)} images among {', '.join(sorted(sample.members))}, expected one."
        )
    image = images[0]
    width, height = _picture_size(image, read)
    given = {kind: sample.members[kind] for kind in ("json", "cls") if kind in sample.members}
    label_member = next(iter(given.values()), None)
    checksum = xxhash.xxh3_64_intdigest(read(image.offset, image.offset + image.size)) if checksums else 0
    return SampleRow(
        label=_label(sample.key, {kind: _content(kind, member, read, where) for kind, member in given.items()}, where),
        shard=number,
        offset=image.offset,
        num_bytes=image.size,
        json_offset=0 if label_member is None else label_member.offset,
        json_num_bytes=0 if label_member is None else label_member.size,
        checksum=checksum,
        width=width,
        height=height,
    )


def _picture_size(image: Member, read: Callable[[int, int], bytes]) -> tuple[int, int]:
    """Return (width, height) of a JPEG from its first bytes; (0, 0) where they do not tell."""
    for num_bytes in (_WINDOW_BYTES // 2, 16 * _WINDOW_BYTES):  # an embedded preview may come before the size
        head = read(image.offset, image.offset + min(num_bytes, image.size))
        try:
            return jpeg_size(head)
        except JpegError:
            if not head.startswith(b"\xff\xd8"):
                break
    return 0, 0


def _content(kind: str, member: Member, read: Callable[[int, int], bytes], where: str) -> dict[str, Any]:
    """Return what a label member says, as fields."""
    if member.size > _LARGEST_LABEL:
        raise SourceError(f"{where}: {member.name} has {member.size:,} bytes, too many for a label.")
    data = read(member.offset, member.offset + member.size)
    try:
        value = json.loads(data) if kind == "json" else data.decode("utf-8").strip()
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: {member.name} is not {kind}: {error}.") from error
    return value if isinstance(value, dict) else {"label": value}


def _label(key: str, contents: dict[str, dict[str, Any]], where: str) -> Label:
    """Return a sample's label: by its file name if that is a validation image's, else as given."""
    if not _is_text(key):
        raise SourceError(f"{where}: {key!a} is not text in UTF-8.")
    given = [_class_index(fields[name]) for fields in contents.values() for name in _CLASS_FIELDS if name in fields]
    classes_given = {index for index in given if index is not None}
    fields = contents.get("json", {})
    names = [key, *(fields[name] for name in _FILE_NAME_FIELDS if isinstance(fields.get(name), str))]
    official = {label.key: label for label in (_official_label(name, where) for name in names) if label is not None}
    if len(official) > 1:
        raise SourceError(f"{where}: {key} names two images: {' and '.join(official)}.")
    if official:
        (label,) = official.values()
        wrong = sorted(classes_given - {label.original_label})
        if wrong:
            raise SourceError(
                f"{where}: {key} says class {wrong[0]}, but the original label of {label.file_name} is "
                f"{label.original_label}. The shards count classes otherwise, or are of other images."
            )
        return label
    if len(classes_given) != 1 or not classes_given < _CLASSES:
        raise SourceError(
            f"{where}: {key} has no label: expected a validation image's file name, or one class 0..{NUM_CLASSES - 1} "
            "in a cls or json member."
        )
    real = fields.get("real_label", [])
    if not isinstance(real, list) or len(set(map(str, real))) < len(real) or not all(map(_is_class, real)):
        raise SourceError(
            f"{where}: {key} has a real_label that is not a list of different classes 0..{NUM_CLASSES - 1}."
        )
    return Label(key, min(classes_given), tuple(real))


def _class_index(value: object) -> int | None:
    """Return a class given as a number, as its digits or as a wnid; None for what is none of these, a name for one."""
    if isinstance(value, str):
        digits = value.lstrip("0") or value[:1]  # "00000066" is 66, "0" is 0, and "" is nothing
        return (
            int(digits)
            if digits.isdecimal() and digits.isascii() and len(digits) <= _LONGEST_CLASS
            else _indices_of_wnids().get(value)
        )
    return value if type(value) is int else None


def _is_class(value: object) -> bool:
    return type(value) is int and value in _CLASSES


def _is_text(key: str) -> bool:
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@functools.cache
def _indices_of_wnids() -> dict[str, int]:
    return {info.wnid: info.index for info in classes()}


def _official_label(name: str, where: str) -> Label | None:
    """Return the labels of a validation image by any spelling of its name, with or without its ending."""
    for spelled in (name, f"{name}.JPEG"):
        try:
            canonical_file_name(spelled)
        except SourceError:
            continue
        try:
            return bundled().by_file_name(spelled)
        except SourceError as error:
            raise SourceError(f"{where}: {error}") from error
    return None


def _check_keys(store: Store, rows: Sequence[SampleRow]) -> None:
    doubled = [a.label.key for a, b in itertools.pairwise(rows) if a.label.key == b.label.key]
    if doubled:
        raise SourceError(
            f"{store.url}: {len(doubled):,} keys are there twice, {doubled[0]} for one. Remove the copies."
        )
    if not rows:
        raise SourceError(f"{store.url}: the shards hold no sample.")
