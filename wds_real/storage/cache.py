"""Keep on this machine what was read over a network: pieces of shards, named by the digest of the shard they are of.

A shard's SHA-256 names its content, so the same shard is kept once whatever URL it came from, and one that was packed
anew is another one. Every piece ends with a checksum that is compared when a process first uses it; samples have their
own, and are fetched again past the cache where that is wrong.

Any number of processes share a folder. Who wants a piece that is not there locks a file for it; the others wait for the
lock, which the system takes from a holder that dies. What another data set left is evicted to make room, least recently
used first. Pieces of the data set being read are never evicted for one another: what does not fit is read over the
network each time, as is everything if the folder cannot be written.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from wds_real.errors import StoreError
from wds_real.storage.prefetch import BLOCK_BYTES

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator
    from pathlib import Path

    from wds_real.format.manifest import Manifest
    from wds_real.storage.base import ByteWriter, Store

__all__ = ["DEFAULT_MAX_BYTES", "ByteCache", "CachedStore"]

_LOG = logging.getLogger(__name__)
DEFAULT_MAX_BYTES = 16 << 30  # twice the validation set
_PIECE_BYTES = BLOCK_BYTES
_CHECKSUM_BYTES = 16
_SUFFIX = ".piece"
_UNFINISHED = ".part"


@dataclass(frozen=True, slots=True)
class ByteCache:
    """A folder for pieces of shards.

    Attributes:
        folder: Made when the first piece is written.
        max_bytes: Of all pieces together.
    """

    folder: Path
    max_bytes: int = DEFAULT_MAX_BYTES

    def in_front_of(self, store: Store, manifest: Manifest) -> CachedStore:
        """Return a store that answers from here what it can, for the shards of a data set."""
        shards = {shard.name: (shard.sha256, shard.num_bytes) for shard in manifest.shards if shard.sha256}
        return CachedStore(store, self, shards)


class CachedStore:
    """A store with a `ByteCache` in front of it; all but the ranges of shards passes through."""

    def __init__(self, store: Store, cache: ByteCache, shards: dict[str, tuple[str, int]]) -> None:
        self._store = store
        self._cache = cache
        self._shards = shards
        self._digests = frozenset(digest for digest, _ in shards.values())
        self._checked: set[str] = set()
        self._given_up = False

    def __reduce__(self) -> tuple[object, ...]:
        return CachedStore, (self._store, self._cache, self._shards)

    @property
    def url(self) -> str:
        """As the store's own."""
        return self._store.url

    @property
    def listable(self) -> bool:
        """As the store's own."""
        return self._store.listable

    @property
    def remote(self) -> bool:
        """As the store's own."""
        return self._store.remote

    @property
    def file_reader(self) -> None:
        """None: ranges are assembled from pieces."""
        return

    def exists(self) -> bool:
        """As the store's own."""
        return self._store.exists()

    def list(self) -> list[str]:
        """As the store's own."""
        return self._store.list()

    def head(self, name: str) -> int:
        """As the store's own."""
        return self._store.head(name)

    def get(self, name: str) -> bytes:
        """As the store's own."""
        return self._store.get(name)

    def put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        """As the store's own."""
        self._store.put(name, data, exclusive=exclusive)

    def create(self, name: str) -> contextlib.AbstractContextManager[ByteWriter]:
        """As the store's own."""
        return self._store.create(name)

    def delete(self, name: str) -> None:
        """As the store's own."""
        self._store.delete(name)

    def delete_leftovers(self) -> builtins.list[str]:
        """As the store's own."""
        return self._store.delete_leftovers()

    def get_range(
        self, name: str, start: int, stop: int, *, size: int | None = None, fresh: bool = False
    ) -> bytes | memoryview:
        """Return exactly the bytes of the half-open range, from the pieces that hold it."""
        if name not in self._shards:
            return self._store.get_range(name, start, stop, size=size)
        digest, num_bytes = self._shards[name]
        if stop > num_bytes or size not in (None, num_bytes):
            raise StoreError(f"{self.url}/{name}: bytes {start}-{stop} asked for, the shard has {num_bytes:,}.")
        first = start - start % _PIECE_BYTES
        pieces = [
            _Piece(name, digest, at, min(at + _PIECE_BYTES, num_bytes)) for at in range(first, stop, _PIECE_BYTES)
        ]
        if fresh:
            for piece in pieces:
                self._forget(piece)
            return self._store.get_range(name, start, stop, size=num_bytes, fresh=True)
        parts = [self._part(piece, max(start, piece.start), min(stop, piece.stop), num_bytes) for piece in pieces]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, piece: _Piece, start: int, stop: int, num_bytes: int) -> bytes | memoryview:
        """Return a range within a piece: from the folder, or from the network, then into the folder."""
        within = slice(start - piece.start, stop - piece.start)
        if (found := self._read(piece, within)) is not None:
            return found
        with contextlib.ExitStack() as stack:
            claim = None
            try:
                claim = None if self._given_up else stack.enter_context(_claimed(self._path(piece)))
                if claim is None and (found := self._read(piece, within)) is not None:
                    return found  # another process or thread fetched it while we waited
                fits = claim is not None and self._make_room(claim, piece.stop - piece.start + _CHECKSUM_BYTES)
            except OSError as error:
                self._give_up(error)
                fits = False
            if claim is None or not fits:
                return self._store.get_range(piece.name, start, stop, size=num_bytes)
            data = self._store.get_range(piece.name, piece.start, piece.stop, size=num_bytes)
            try:
                claim.finish(data)
                self._checked.add(piece.file_name)
            except OSError as error:
                self._give_up(error)
            return memoryview(data)[within]

    def _read(self, piece: _Piece, within: slice) -> bytes | None:
        """Return bytes of a piece that is there and whole, or None."""
        length = piece.stop - piece.start
        try:
            with self._path(piece).open("rb", buffering=0) as file:
                if piece.file_name not in self._checked:
                    stored = file.read()
                    if len(stored) != length + _CHECKSUM_BYTES or _checksum(stored[:length]) != stored[length:]:
                        self._forget(piece)
                        _LOG.warning("%s: a damaged piece was removed from the cache", self._path(piece))
                        return None
                    with contextlib.suppress(OSError):  # a folder that is only read from keeps its order
                        os.utime(file.fileno())  # used: among the last to be evicted
                    self._checked.add(piece.file_name)
                    return stored[within]
                found = os.pread(file.fileno(), within.stop - within.start, within.start)
                return found if len(found) == within.stop - within.start else None
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            return None

    def _make_room(self, claim: _Claim, wanted: int) -> bool:
        """Evict what other data sets left until `wanted` bytes fit, and take that room; False if they do not fit."""
        with _locked(self._cache.folder / ".lock"):
            for unfinished in self._cache.folder.glob(f".*{_SUFFIX}{_UNFINISHED}"):
                if unfinished != claim.unfinished:
                    _remove_if_abandoned(unfinished)
            entries = [(entry, entry.stat()) for entry in os.scandir(self._cache.folder) if _SUFFIX in entry.name]
            total = sum(stat.st_size for _, stat in entries) + wanted
            finished = [pair for pair in entries if pair[0].name.endswith(_SUFFIX)]
            foreign = [pair for pair in finished if pair[0].name.partition("-")[0] not in self._digests]
            for entry, stat in sorted(foreign, key=lambda pair: pair[1].st_mtime_ns):
                if total <= self._cache.max_bytes:
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)  # noqa: PTH108 -- as scandir gave it
                total -= stat.st_size
            if total > self._cache.max_bytes:
                return False
            os.ftruncate(claim.descriptor, wanted)  # counts from now on, for all that look
            return True

    def _forget(self, piece: _Piece) -> None:
        self._checked.discard(piece.file_name)
        with contextlib.suppress(OSError):
            self._path(piece).unlink()

    def _give_up(self, error: OSError) -> None:
        if not self._given_up:
            self._given_up = True
            _LOG.warning("%s: not used as a cache any more: %s", self._cache.folder, error.strerror or error)

    def _path(self, piece: _Piece) -> Path:
        return self._cache.folder / piece.file_name


@dataclass(frozen=True, slots=True)
class _Piece:
    """A half-open range of a shard, and the digest of the whole shard."""

    name: str
    digest: str
    start: int
    stop: int

    @property
    def file_name(self) -> str:
        return f"{self.digest}-{self.start}-{self.stop}{_SUFFIX}"


@dataclass(frozen=True, slots=True)
class _Claim:
    """The right to write a piece: its unfinished file, locked."""

    descriptor: int
    unfinished: Path
    final: Path

    def finish(self, data: bytes | memoryview) -> None:
        """Write the piece with its checksum, and give it its name."""
        view = memoryview(bytes(data) + _checksum(data))
        position = 0
        while position < view.nbytes:
            position += os.pwrite(self.descriptor, view[position:], position)
        self.unfinished.replace(self.final)


@contextlib.contextmanager
def _claimed(final: Path) -> Iterator[_Claim | None]:
    """Wait for the right to write a piece; None if somebody else has written it meanwhile."""
    final.parent.mkdir(parents=True, exist_ok=True)
    unfinished = final.with_name(f".{final.name}{_UNFINISHED}")
    while True:
        with _locked(unfinished) as descriptor:
            current = _is_named(descriptor, unfinished)  # or it was finished or removed while we waited for the lock
            if current or final.exists():
                try:
                    yield None if final.exists() else _Claim(descriptor, unfinished, final)
                finally:
                    if current and _is_named(descriptor, unfinished):
                        unfinished.unlink()
                return


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold an exclusive lock on a file, which the system lets go of when this process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_if_abandoned(unfinished: Path) -> None:
    """Remove what a writer that died left: whoever still writes holds the lock."""
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(descriptor, unfinished):
                unfinished.unlink()
        finally:
            os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _checksum(data: bytes | memoryview) -> bytes:
    return xxhash.xxh3_128_digest(data)
