"""The validation images where they come from: the official tar, or a folder of JPEGs. Nothing is extracted."""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wds_real.errors import MissingError, SourceError
from wds_real.format.tar import BLOCK, TarError, iter_members
from wds_real.format.tar_walk import walk_members
from wds_real.labels import NUM_IMAGES, bundled
from wds_real.storage.prefetch import ByteRange, Prefetcher, merge
from wds_real.storage.store import open_store
from wds_real.storage.url import is_url, redact_url, split_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    from wds_real.format.tar import Member
    from wds_real.labels import Label, Labels

__all__ = ["Source", "SourceImage", "open_source"]

_BLOCK_BYTES = 1 << 20  # of a local tar that are read at once
_SHOWN = 3  # names listed in an error before "and N more"


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One validation image in the source.

    Attributes:
        label: Its official name and its labels.
        path: The tar, or the JPEG file itself; a tar at a URL as it may be shown.
        offset: First byte of the JPEG data in `path`.
        num_bytes: Length of the JPEG data.
    """

    label: Label
    path: Path | str
    offset: int
    num_bytes: int


class Source:
    """The validation images of one source, in key order; a context manager that holds the tar open.

    Attributes:
        path: The tar or folder.
        images: The images, sorted by key.
        partial: True if fewer than the 50,000 images are there.
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
    def ahead(self, images: Sequence[SourceImage]) -> Iterator[Iterator[bytes | memoryview]]:
        """Give the JPEG data of these images, one after the other, each good until the next is taken.

        Neighbours in a tar are read at once, and what comes over a network is fetched ahead.

        Raises:
            SourceError: as `read`.
        """
        with self._reader.ahead(images) as pictures:
            yield _checked(images, pictures)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reader.close()


def open_source(
    path: str | os.PathLike[str],
    *,
    labels: Labels | None = None,
    allow_partial: bool = False,
    storage_options: Mapping[str, str] | None = None,
) -> Source:
    """Find the validation images in the official tar (any member order) or in a folder (flat or one level of folders).

    Only headers and names are read. Accepted names are the official ones and those that append the original label's
    wnid. Hidden files are passed over; any other file that is not a validation image is an error.

    Args:
        path: ``ILSVRC2012_img_val.tar``, which may be at a URL and is not copied then, or a folder of JPEGs.
        labels: Labels to join by file name; None means the bundled ones.
        allow_partial: Accept fewer than the 50,000 images (never a doubled or a foreign one).
        storage_options: For a URL, as `wds_real.open_store` takes them.

    Raises:
        StoreError: the object store refused.
        SourceError: the source is missing, not a whole tar, or does not hold exactly the 50,000 images.
    """
    labels = labels or bundled()
    text = os.fspath(path)
    if is_url(text):
        distant = _StoreTarReader(text, storage_options)
        images = [_image(labels, name, distant.shown, offset, size) for name, offset, size in distant.members()]
        return _source(distant.shown, images, distant, allow_partial=allow_partial)
    path = Path(path)
    if path.is_dir():
        images = [_image(labels, str(found), found, 0, _length(found)) for found in _walk(path)]
        reader: _Reader = _FileReader()
    elif path.is_file():
        reader = _TarReader(path)
        try:
            images = [_image(labels, name, path, offset, size) for name, offset, size in reader.members()]
        except SourceError:
            reader.close()
            raise
    else:
        raise SourceError(f"{path}: no such file or folder. Expected ILSVRC2012_img_val.tar, or a folder of its JPEGs.")
    return _source(path, images, reader, allow_partial=allow_partial)


def _source(path: Path | str, images: list[SourceImage], reader: _Reader, *, allow_partial: bool) -> Source:
    images.sort(key=lambda image: image.label.key)
    try:
        _check_names(path, images, allow_partial=allow_partial)
    except SourceError:
        reader.close()
        raise
    return Source(path, images, reader)


def _image(labels: Labels, name: str, path: Path | str, offset: int, num_bytes: int) -> SourceImage:
    try:
        label = labels.by_file_name(name)
    except SourceError as error:
        raise SourceError(f"{path}: holds something else than validation images. {error}") from error
    return SourceImage(label, path, offset, num_bytes)


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}.") from error


def _check_names(path: Path | str, images: list[SourceImage], *, allow_partial: bool) -> None:
    doubled = [a.label.file_name for a, b in itertools.pairwise(images) if a.label == b.label]
    if doubled:
        raise SourceError(f"{path}: {len(doubled):,} images are there twice: {_some(doubled)}. Remove the copies.")
    if not images:
        raise SourceError(f"{path}: holds no validation image. Expected ILSVRC2012_val_00000001.JPEG and its like.")
    if len(images) < NUM_IMAGES and not allow_partial:
        present = {image.label.file_name for image in images}
        expected = (f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, NUM_IMAGES + 1))
        missing = [name for name in expected if name not in present]
        raise SourceError(
            f"{path}: {len(missing):,} of the {NUM_IMAGES:,} validation images are missing: {_some(missing)}. Get the "
            "whole ILSVRC2012_img_val.tar (6,744,924,160 bytes), or pass --allow-partial to pack a subset."
        )


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files of a folder and of its folders, names sorted; deeper folders are an error."""
    for entry in _visible(root):
        if not entry.is_dir():
            yield entry
            continue
        for inner in _visible(entry):
            if inner.is_dir():
                raise SourceError(f"{inner}: folders nest too deep. Expected JPEGs in {root}, or in folders one below.")
            yield inner


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{folder}: cannot list the folder: {error.strerror}.") from error


class _Reader(Protocol):
    def read(self, image: SourceImage) -> bytes: ...

    def ahead(self, images: Sequence[SourceImage]) -> AbstractContextManager[Iterator[bytes | memoryview]]: ...

    def close(self) -> None: ...


class _FileReader:
    """Reads JPEGs that are files of their own."""

    def read(self, image: SourceImage) -> bytes:
        try:
            return Path(image.path).read_bytes()
        except OSError as error:
            raise SourceError(f"{image.path}: cannot be read: {error.strerror}.") from error

    def ahead(self, images: Sequence[SourceImage]) -> AbstractContextManager[Iterator[bytes]]:
        return contextlib.nullcontext(map(self.read, images))

    def close(self) -> None:
        """Hold nothing open."""


class _TarReader:
    """Reads members of one tar through one descriptor; pread keeps no position, so threads share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._num_bytes = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise SourceError(f"{path}: cannot be opened: {error.strerror}.") from error

    def members(self) -> Iterator[tuple[str, int, int]]:
        """Yield (name, offset, size) of the regular files that are not hidden."""
        head = self._pread(0, min(BLOCK, self._num_bytes))
        try:
            yield from _visible_files(iter_members(self._pread, self._num_bytes))
        except TarError as error:
            raise SourceError(f"{self._path}: not a whole tar: {error}. {_advice(head, self._num_bytes)}") from error

    def read(self, image: SourceImage) -> bytes:
        return self._pread(image.offset, image.offset + image.num_bytes)

    def ahead(self, images: Sequence[SourceImage]) -> AbstractContextManager[Iterator[memoryview]]:
        return contextlib.nullcontext(self._in_blocks(images))

    def close(self) -> None:
        os.close(self._descriptor)

    def _in_blocks(self, images: Sequence[SourceImage]) -> Iterator[memoryview]:
        """Read neighbours at once, into memory that is used again."""
        memory = memoryview(b"")
        for block in merge(_wanted("", images), max_bytes=_BLOCK_BYTES):
            if len(memory) < block.stop - block.start:
                memory = memoryview(bytearray(block.stop - block.start))
            try:
                num_bytes = os.preadv(self._descriptor, (memory[: block.stop - block.start],), block.start)
            except OSError as error:
                raise self._error(block.start, block.stop, error) from error
            for image in images[block.first : block.last]:
                start = image.offset - block.start
                yield memory[start:num_bytes][: image.num_bytes]

    def _pread(self, start: int, stop: int) -> bytes:
        try:
            return os.pread(self._descriptor, stop - start, start)
        except OSError as error:
            raise self._error(start, stop, error) from error

    def _error(self, start: int, stop: int, error: OSError) -> SourceError:
        return SourceError(f"{self._path}: cannot read bytes {start}-{stop}: {error.strerror}.")


class _StoreTarReader:
    """Reads members of a tar at a URL, each by its range."""

    def __init__(self, url: str, storage_options: Mapping[str, str] | None) -> None:
        place, self._name = split_url(url)
        self._store = open_store(place, storage_options=storage_options)
        self.shown = redact_url(url)
        try:
            self._num_bytes = self._store.head(self._name)
        except MissingError as error:
            raise SourceError(f"{self.shown}: no such file. Expected ILSVRC2012_img_val.tar.") from error

    def members(self) -> Iterator[tuple[str, int, int]]:
        """Yield (name, offset, size) of the regular files that are not hidden."""
        head = self._read_range(0, min(BLOCK, self._num_bytes))
        try:
            yield from _visible_files(walk_members(self._read_range, self._num_bytes))
        except TarError as error:
            raise SourceError(f"{self.shown}: not a whole tar: {error}. {_advice(head, self._num_bytes)}") from error

    def read(self, image: SourceImage) -> bytes:
        return self._read_range(image.offset, image.offset + image.num_bytes)

    @contextlib.contextmanager
    def ahead(self, images: Sequence[SourceImage]) -> Iterator[Iterator[memoryview]]:
        with Prefetcher(lambda _, start, stop: self._read_range(start, stop), _wanted(self._name, images)) as fetched:
            yield map(fetched.take, range(len(images)))

    def close(self) -> None:
        """Hold nothing open."""

    def _read_range(self, start: int, stop: int) -> bytes:
        return bytes(self._store.get_range(self._name, start, stop, size=self._num_bytes))


def _checked(images: Sequence[SourceImage], pictures: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    for image, data in zip(images, pictures, strict=True):
        _check_length(image, data)
        yield data


def _check_length(image: SourceImage, data: bytes | memoryview) -> None:
    if len(data) != image.num_bytes:
        raise SourceError(
            f"{image.path}: {image.label.file_name} [bytes {image.offset}-{image.offset + image.num_bytes}) gave "
            f"{len(data)} bytes. The source changed while it was read."
        )


def _wanted(name: str, images: Sequence[SourceImage]) -> list[ByteRange]:
    return [ByteRange(name, image.offset, image.offset + image.num_bytes) for image in images]


def _visible_files(members: Iterable[Member]) -> Iterator[tuple[str, int, int]]:
    for member in members:
        if member.is_file and not member.name.rpartition("/")[2].startswith("."):
            yield member.name, member.offset, member.size


def _advice(head: bytes, num_bytes: int) -> str:
    """Say what the bytes look like instead, from the first block."""
    if num_bytes == 0:
        return "The file is empty: download it again."
    if head.lstrip()[:1] == b"<":
        return "It looks like a web page, perhaps the sign-in page saved by the download: download the tar itself."
    if head.startswith(b"\x1f\x8b"):
        return "It is gzip-compressed: run gunzip on it first."
    if head.startswith(b"PK\x03\x04"):
        return "It is a zip archive: unpack it and give the folder."
    return "The official ILSVRC2012_img_val.tar has 6,744,924,160 bytes and MD5 29b22e2961454d5413ddabcf34fc5622."
