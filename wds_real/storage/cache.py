"""Cache on this machine for shards read over a network: pieces of shards, named by the SHA-256 of the whole shard.

The digest identifies the content: the same shard is kept once whatever its URL, and a shard with other bytes is another
one. Every piece ends with a checksum, which is compared when a process first uses the piece. Samples have checksums of
their own; if one is wrong, the sample is read again from the source.

Any number of processes of one user share a folder. It is made for that user alone. A folder or piece that belongs to
neither this user nor root is not used, and symbolic links in the folder are not followed.

A process that fetches a piece locks a file for it; the others wait for the lock, which the system releases if the
holder dies. Pieces of other data sets are evicted to make room, least recently used first. Pieces of the data set being
read are never evicted: ranges that do not fit are read over the network each time. If the folder cannot be written, all
ranges are read over the network.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from wds_real.errors import StoreError
from wds_real.storage.files import OpenFile, check_owner, locked, make_own_folder, remove_if_unlocked, write_all
from wds_real.storage.prefetch import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from wds_real.storage.base import RangeReader

__all__ = ["DEFAULT_MAX_BYTES", "ByteCache", "CachedRanges"]

_LOG = logging.getLogger(__name__)
DEFAULT_MAX_BYTES = 16 << 30  # twice the validation set
_PIECE_BYTES = BLOCK_BYTES
_CHECKSUM_BYTES = 16
_SUFFIX = ".piece"
_UNFINISHED = ".part"
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class ByteCache:
    """A folder for pieces of shards.

    Attributes:
        folder: Created when the first piece is written.
        max_bytes: Largest size of all pieces together.
    """

    folder: Path
    max_bytes: int = DEFAULT_MAX_BYTES


class CachedRanges:
    """Reads ranges of shards through a `ByteCache`; ranges of other files are not cached.

    Args:
        source: Where the shards are.
        cache: Where their pieces are kept.
        shards: By name, each shard's SHA-256 (hex) and length in bytes.
    """

    file_reader = None

    def __init__(self, source: RangeReader, cache: ByteCache, shards: Mapping[str, tuple[str, int]]) -> None:
        self._source = source
        self._cache = cache
        self._shards = shards
        self._digests = frozenset(digest for digest, _ in shards.values())
        self._checked: set[str] = set()
        self._disabled = False

    def __reduce__(self) -> tuple[object, ...]:
        return CachedRanges, (self._source, self._cache, self._shards)

    @property
    def url(self) -> str:
        """URL of the source."""
        return self._source.url

    @property
    def remote(self) -> bool:
        """Whether the source is remote."""
        return self._source.remote

    def get_range(
        self, name: str, start: int, stop: int, *, size: int | None = None, fresh: bool = False
    ) -> bytes | memoryview:
        """Return exactly the bytes of the half-open range; `fresh` reads from the source and drops the pieces.

        Raises:
            StoreError: the range or `size` does not fit the shard; otherwise the errors of the source.
        """
        if name not in self._shards:
            return self._source.get_range(name, start, stop, size=size)
        digest, num_bytes = self._shards[name]
        if stop > num_bytes or size not in (None, num_bytes):
            raise StoreError(f"{self.url}/{name}: bytes {start}-{stop} requested, the shard has {num_bytes:,}.")
        first = start - start % _PIECE_BYTES
        pieces = [
            _Piece(name, digest, at, min(at + _PIECE_BYTES, num_bytes)) for at in range(first, stop, _PIECE_BYTES)
        ]
        if fresh:
            for piece in pieces:
                self._forget(piece)
            return self._source.get_range(name, start, stop, size=num_bytes, fresh=True)
        parts = [self._part(piece, max(start, piece.start), min(stop, piece.stop), num_bytes) for piece in pieces]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, piece: _Piece, start: int, stop: int, num_bytes: int) -> bytes | memoryview:
        """Return a range of a piece: from the folder, or from the source and then also written to the folder."""
        within = slice(start - piece.start, stop - piece.start)
        if (found := self._read(piece, within)) is not None:
            return found
        with contextlib.ExitStack() as stack:
            claim = None
            try:
                claim = None if self._disabled else stack.enter_context(_claimed(self._path(piece)))
                if claim is None and (found := self._read(piece, within)) is not None:
                    return found  # another process or thread has fetched it meanwhile
                fits = claim is not None and self._make_room(claim, piece.stop - piece.start + _CHECKSUM_BYTES)
            except OSError as error:
                self._disable(error)
                fits = False
            if claim is None or not fits:
                return self._source.get_range(piece.name, start, stop, size=num_bytes)
            data = self._source.get_range(piece.name, piece.start, piece.stop, size=num_bytes)
            try:
                claim.finish(data)
                self._checked.add(piece.file_name)
            except OSError as error:
                self._disable(error)
            return memoryview(data)[within]

    def _read(self, piece: _Piece, within: slice) -> bytes | None:
        """Return bytes of a piece, or None if it is missing or damaged."""
        length = piece.stop - piece.start
        try:
            file = OpenFile.open(self._path(piece), os.O_RDONLY | os.O_NOFOLLOW)
            if piece.file_name not in self._checked:
                check_owner(os.fstat(file.descriptor), self._path(piece))
                stored = os.pread(file.descriptor, length + _CHECKSUM_BYTES + 1, 0)
                if len(stored) != length + _CHECKSUM_BYTES or _checksum(stored[:length]) != stored[length:]:
                    self._forget(piece)
                    _LOG.warning("%s: a damaged piece was removed from the cache", self._path(piece))
                    return None
                with contextlib.suppress(OSError):  # a read-only folder
                    os.utime(file.descriptor)  # the least recently used piece is evicted first
                self._checked.add(piece.file_name)
                return stored[within]
            found = os.pread(file.descriptor, within.stop - within.start, within.start)
            return found if len(found) == within.stop - within.start else None
        except FileNotFoundError:
            return None
        except OSError as error:
            self._disable(error)
            return None

    def _make_room(self, claim: _Claim, num_bytes: int) -> bool:
        """Evict pieces of other data sets until `num_bytes` fit, and reserve them; return False if they do not fit."""
        with locked(self._cache.folder / _LOCK):
            for unfinished in self._cache.folder.glob(f".*{_SUFFIX}{_UNFINISHED}"):
                if unfinished != claim.unfinished:
                    remove_if_unlocked(unfinished)
            total, evictable = num_bytes, list[tuple[int, int, str]]()
            for entry in os.scandir(self._cache.folder):
                if _SUFFIX in entry.name:
                    with contextlib.suppress(FileNotFoundError):  # its process has removed it meanwhile
                        stat = entry.stat(follow_symlinks=False)
                        total += stat.st_size
                        if entry.name.endswith(_SUFFIX) and entry.name.partition("-")[0] not in self._digests:
                            evictable.append((stat.st_mtime_ns, stat.st_size, entry.path))
            for _, size, path in sorted(evictable):
                if total <= self._cache.max_bytes:
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108 -- as scandir returned it
                total -= size
            if total > self._cache.max_bytes:
                return False
            os.ftruncate(claim.file.descriptor, num_bytes)  # other processes count these bytes from now on
            return True

    def _forget(self, piece: _Piece) -> None:
        self._checked.discard(piece.file_name)
        with contextlib.suppress(OSError):
            self._path(piece).unlink()

    def _disable(self, error: OSError) -> None:
        if not self._disabled:
            self._disabled = True
            _LOG.warning("%s: not used as a cache any more: %s", self._cache.folder, error.strerror or error)

    def _path(self, piece: _Piece) -> Path:
        return self._cache.folder / piece.file_name


@dataclass(frozen=True, slots=True)
class _Piece:
    """A half-open range of a shard, and the SHA-256 of the whole shard."""

    name: str
    digest: str
    start: int
    stop: int

    @property
    def file_name(self) -> str:
        return f"{self.digest}-{self.start}-{self.stop}{_SUFFIX}"


@dataclass(frozen=True, slots=True)
class _Claim:
    """The exclusive right to write a piece: its unfinished file, locked."""

    file: OpenFile
    unfinished: Path
    final: Path

    def finish(self, data: bytes | memoryview) -> None:
        """Write the piece with its checksum, and rename it to its final name."""
        write_all(self.file.descriptor, bytes(data) + _checksum(data), 0)
        with locked(self.final.with_name(_LOCK)):  # not while another process adds up all sizes
            self.unfinished.replace(self.final)


@contextlib.contextmanager
def _claimed(final: Path) -> Iterator[_Claim | None]:
    """Wait for the right to write a piece; None if another process or thread has written it meanwhile."""
    make_own_folder(final.parent)
    unfinished = final.with_name(f".{final.name}{_UNFINISHED}")
    with locked(unfinished) as file:
        try:
            yield None if final.exists() else _Claim(file, unfinished, final)
        finally:
            if file.is_at(unfinished):
                unfinished.unlink()


def _checksum(data: bytes | memoryview) -> bytes:
    return xxhash.xxh3_128_digest(data)
