"""The source of the validation images: the official tar, or a folder of JPEGs. Nothing is extracted."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wds_real.errors import MissingError, SourceError, StoreError, first_few
from wds_real.format.root import open_root
from wds_real.format.source_tar import OFFICIAL_TAR, SourceTar
from wds_real.format.tar import TarError
from wds_real.format.tar_explained import explain_tar_error
from wds_real.format.tar_reader import TarReader
from wds_real.labels import NUM_IMAGES, bundled
from wds_real.storage.buffers import Buffers
from wds_real.storage.files import FileVersion, read_bytes
from wds_real.storage.prefetch import ByteRange, Prefetcher, merge
from wds_real.storage.url import is_url, redact_url, split_url

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    from wds_real.format.tar import Member
    from wds_real.labels import Label, Labels
    from wds_real.storage.base import FileReader

__all__ = ["Source", "SourceImage", "open_source"]

_OFFICIAL = (
    "Download it again: the official ILSVRC2012_img_val.tar has 6,744,924,160 bytes and MD5 "
    "29b22e2961454d5413ddabcf34fc5622."
)
_BLOCK_BYTES = 1 << 20  # of a local tar that are read at once
_DIGESTED_BYTES = 4 << 20  # read at a time for the digest of the tar
_MAX_BUFFERS = 8
_CHANGED = "The source changed while it was read. Pack it again when nothing writes to it."
_ARCHIVER = "__MACOSX"
_LITTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", _ARCHIVER.lower())
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One validation image in the source.

    Attributes:
        label: Its official name and its labels.
        path: The tar, or the JPEG file itself; for a tar at a URL, the URL without secrets.
        offset: First byte of the JPEG data in `path`.
        num_bytes: Length of the JPEG data.
    """

    label: Label
    path: Path | str
    offset: int
    num_bytes: int

    @property
    def where(self) -> str:
        """File, name and byte range, for messages."""
        return f"{self.path}: {self.label.file_name} [bytes {self.offset}-{self.offset + self.num_bytes})"


class Source:
    """The validation images of one source, in key order; also a context manager.

    Attributes:
        path: The tar or folder.
        images: The images, sorted by key.
        partial: True if the source has fewer than the 50,000 images.
    """

    def __init__(self, path: Path | str, images: list[SourceImage], reader: _Reader) -> None:
        self.path = path
        self.images = images
        self.partial = len(images) < NUM_IMAGES
        self._reader = reader

    def read(self, image: SourceImage) -> bytes:
        """Return the JPEG data of one image; safe to call from several threads.

        Raises:
            SourceError: the file cannot be read, or changed its length since it was indexed.
        """
        data = self._reader.read(image)
        _check_length(image, data)
        return data

    @contextlib.contextmanager
    def prefetch(self, images: Sequence[SourceImage]) -> Iterator[Iterator[bytes | memoryview]]:
        """Give an iterator over the JPEG data of these images, in their order.

        Images that are neighbours in a local tar are read with one call; images at a URL are prefetched.

        Raises:
            SourceError: as `read`.
        """
        with self._reader.prefetch(images) as jpegs:
            yield _checked(images, jpegs)

    def tar(self, cancelled: threading.Event) -> SourceTar | None:
        """Return length and SHA-256 of the tar; None if it does not hold all 50,000 images, or for a folder.

        The SHA-256 is computed for a local tar of the official length, which is read from beginning to end. Other
        threads may read images meanwhile.

        Raises:
            SourceError: the tar cannot be read, or changed.
        """
        return None if self.partial else self._reader.tar(cancelled)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: the tar is closed when nothing refers to it any more."""


def open_source(
    path: str | os.PathLike[str],
    *,
    labels: Labels | None = None,
    allow_partial: bool = False,
    storage_options: Mapping[str, str] | None = None,
) -> Source:
    """Find the validation images in the official tar (any member order) or in a folder (flat or one level of folders).

    Only headers and names are read. Accepted names are the official ones and those that append the original label's
    wnid. Hidden files are skipped; any other file that is not a validation image is an error.

    Args:
        path: ``ILSVRC2012_img_val.tar``, which may be at a URL and is not copied then, or a folder of JPEGs.
        labels: Labels to join by file name; None means the bundled ones.
        allow_partial: Accept fewer than the 50,000 images; other files and images that occur twice stay errors.
        storage_options: For a URL, as `wds_real.open_store` takes them.

    Raises:
        StoreError: the object store refused.
        SourceError: the source is missing, not a whole tar, or does not hold exactly the 50,000 images.
    """
    labels = labels or bundled()
    text = os.fspath(path)
    if not text:
        raise SourceError("the path of the source is empty. Expected ILSVRC2012_img_val.tar, or a folder of its JPEGs.")
    if not is_url(text) and Path(path).is_dir():
        versions = {found: _version(found) for found in _walk(Path(path))}
        images = [_image(labels, found.name, found, 0, version.num_bytes) for found, version in versions.items()]
        return _sorted_source(Path(path), images, _FolderReader(versions), allow_partial=allow_partial)
    shown = redact_url(text) if is_url(text) else Path(path)
    if isinstance(shown, Path) and not shown.is_file():
        raise SourceError(f"{path}: no such file or folder. Expected ILSVRC2012_img_val.tar, or a folder of its JPEGs.")
    folder, name = split_url(text)
    store = open_root(folder, storage_options)
    try:
        reader = _TarImages(TarReader(store, name), str(shown))
    except MissingError as error:
        raise SourceError(f"{shown}: no such file. Expected ILSVRC2012_img_val.tar.") from error
    images = [_image(labels, member.name, shown, member.offset, member.size) for member in reader.members()]
    return _sorted_source(shown, images, reader, allow_partial=allow_partial)


def _sorted_source(path: Path | str, images: list[SourceImage], reader: _Reader, *, allow_partial: bool) -> Source:
    images.sort(key=lambda image: image.label.key)
    _check_names(path, images, allow_partial=allow_partial)
    return Source(path, images, reader)


def _image(labels: Labels, name: str, path: Path | str, offset: int, num_bytes: int) -> SourceImage:
    try:
        label = labels.by_file_name(name)
    except SourceError as error:
        raise SourceError(f"{path}: {error} Remove it from the source.") from error
    return SourceImage(label, path, offset, num_bytes)


def _version(path: Path) -> FileVersion:
    try:
        return FileVersion.of(path.stat())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}.") from error


def _check_names(path: Path | str, images: list[SourceImage], *, allow_partial: bool) -> None:
    doubled = [a.label.file_name for a, b in itertools.pairwise(images) if a.label == b.label]
    if doubled:
        raise SourceError(f"{path}: {len(doubled):,} images occur twice: {first_few(doubled)}. Remove the copies.")
    if not images:
        raise SourceError(f"{path}: holds no validation image. Expected names such as ILSVRC2012_val_00000001.JPEG.")
    if len(images) < NUM_IMAGES and not allow_partial:
        present = {image.label.file_name for image in images}
        expected = (f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, NUM_IMAGES + 1))
        missing = [name for name in expected if name not in present]
        raise SourceError(
            f"{path}: {len(missing):,} of the {NUM_IMAGES:,} validation images are missing: {first_few(missing)}. "
            "Get the whole ILSVRC2012_img_val.tar (6,744,924,160 bytes), or pass --allow-partial to pack a subset."
        )


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files of a folder and of its folders, names sorted; deeper folders are an error."""
    skipped: list[str] = []
    for entry in _listed(root, skipped):
        if not entry.is_dir():
            yield entry
            continue
        for inner in _listed(entry, skipped):
            if inner.is_dir():
                raise SourceError(f"{inner}: folders nest too deep. Expected JPEGs in {root}, or in folders one below.")
            yield inner
    _say_skipped(root, skipped)


def _listed(folder: Path, skipped: list[str]) -> list[Path]:
    """Return the entries of a folder, sorted; names that file managers leave are added to `skipped` instead."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise SourceError(f"{folder}: cannot list the folder: {error.strerror}.") from error
    skipped += [entry.name for entry in entries if _is_litter(entry.name)]
    return [entry for entry in entries if not _is_litter(entry.name)]


def _is_litter(name: str) -> bool:
    """Return whether a file is hidden, or one that file managers and archivers leave behind."""
    parts = name.split("/")
    return parts[-1].startswith(".") or parts[-1].lower() in _LITTER or _ARCHIVER in parts


def _say_skipped(path: Path | str, names: list[str]) -> None:
    if names:
        many = "a file" if len(names) == 1 else f"{len(names):,} files"
        _LOG.warning("%s: skipped %s that file managers leave: %s", path, many, first_few(names))


class _Reader(Protocol):
    def read(self, image: SourceImage) -> bytes: ...

    def prefetch(self, images: Sequence[SourceImage]) -> AbstractContextManager[Iterator[bytes | memoryview]]: ...

    def tar(self, cancelled: threading.Event) -> SourceTar | None: ...


class _FolderReader:
    """Reads images that are files of their own, and compares each with the version that was found first."""

    def __init__(self, versions: Mapping[Path, FileVersion]) -> None:
        self._versions = versions

    def read(self, image: SourceImage) -> bytes:
        path = Path(image.path)
        try:
            data = read_bytes(path)
            is_same = FileVersion.of(path.stat()) == self._versions[path]
        except OSError as error:
            raise SourceError(f"{image.path}: cannot be read: {error.strerror}.") from error
        if not is_same:
            raise SourceError(f"{image.where} is another file or was written to. {_CHANGED}")
        return data

    def prefetch(self, images: Sequence[SourceImage]) -> AbstractContextManager[Iterator[bytes]]:
        return contextlib.nullcontext(map(self.read, images))

    def tar(self, cancelled: threading.Event) -> None:
        """Return None: files in a folder are in no tar."""
        del cancelled


class _TarImages:
    """Reads images that are members of one tar, in a folder or at a URL."""

    def __init__(self, tar: TarReader, shown: str) -> None:
        self._tar = tar
        self._shown = shown
        self._files = tar.store.file_reader
        with self._explained():
            self._version = None if self._files is None else self._files.version(tar.name)
        self._buffers = Buffers(max_kept=_MAX_BUFFERS)

    def read(self, image: SourceImage) -> bytes:
        with self._explained(f"{image.where}: ", " The source changed while it was read, or its disk fails."):
            data = self._tar.read(image.offset, image.offset + image.num_bytes)
            self._check_version(image)
            return data

    def _check_version(self, image: SourceImage | None = None) -> None:
        """Raise SourceError if a local tar was written to, or another file has its name."""
        if self._files is not None and self._files.version(self._tar.name) != self._version:
            where = self._shown if image is None else image.where
            raise SourceError(f"{where}: the tar was written to, or is another file now. {_CHANGED}")

    @contextlib.contextmanager
    def prefetch(self, images: Sequence[SourceImage]) -> Iterator[Iterator[bytes | memoryview]]:
        ranges = [ByteRange(self._tar.name, image.offset, image.offset + image.num_bytes) for image in images]
        if self._files is not None:
            yield self._read_blocks(images, ranges, self._files)
            return
        with Prefetcher(lambda _, start, stop: self._tar.read(start, stop), ranges) as prefetcher:
            yield map(prefetcher.take, range(len(images)))

    def tar(self, cancelled: threading.Event) -> SourceTar:
        num_bytes = self._tar.num_bytes
        if self._files is None or num_bytes != OFFICIAL_TAR.num_bytes:
            return SourceTar(num_bytes, "")
        sha256 = hashlib.sha256()
        with self._explained(f"{self._shown}: "):
            for start in range(0, num_bytes, _DIGESTED_BYTES):
                if cancelled.is_set():
                    raise CancelledError
                sha256.update(self._tar.read(start, min(start + _DIGESTED_BYTES, num_bytes)))
            self._check_version()
        return SourceTar(num_bytes, sha256.hexdigest())

    def members(self) -> list[Member]:
        """Return the regular files of the tar but those that file managers leave."""
        try:
            with self._explained():
                members = self._tar.members()
        except TarError as error:
            problem = explain_tar_error(error, self._tar.first_block(), self._tar.num_bytes, if_damaged=_OFFICIAL)
            raise SourceError(f"{self._shown}: {problem}") from error
        files = [member for member in members if member.is_file]
        _say_skipped(self._shown, [member.name for member in files if _is_litter(member.name)])
        return [member for member in files if not _is_litter(member.name)]

    @contextlib.contextmanager
    def _explained(self, before: str = "", after: str = "") -> Iterator[None]:
        """Turn errors of a folder into SourceError, with text before and after; those of object stores pass through."""
        try:
            yield
        except StoreError as error:
            if self._tar.store.remote:
                raise
            raise SourceError(f"{before}{error}{after}") from error

    def _read_blocks(
        self, images: Sequence[SourceImage], ranges: Sequence[ByteRange], files: FileReader
    ) -> Iterator[memoryview]:
        """Read neighbouring images with one call, into buffers that are reused when no part of them is in use."""
        for block in merge(ranges, max_bytes=_BLOCK_BYTES):
            data = memoryview(b"")  # so that the buffer of the block before can be reused
            data = self._buffers.take(block.stop - block.start)
            with self._explained():
                complete = files.read_into(block.name, block.start, data)
            self._check_version(images[block.first])
            for image in images[block.first : block.last]:
                start = image.offset - block.start
                yield data[start : start + image.num_bytes] if complete else memoryview(self.read(image))


def _checked(images: Sequence[SourceImage], jpegs: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    for image, data in zip(images, jpegs, strict=True):
        _check_length(image, data)
        yield data


def _check_length(image: SourceImage, data: bytes | memoryview) -> None:
    if len(data) != image.num_bytes:
        raise SourceError(
            f"{image.where} gave {len(data)} bytes, expected {image.num_bytes}. The source changed while it was read."
        )
