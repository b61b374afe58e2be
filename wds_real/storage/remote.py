"""Object stores and web servers as a store: pins the ETag, checks lengths, retries, redacts credentials.

The first response about an object pins its version. Every later request names that version, and every response is
compared with it, with the requested range, and with the length that the caller expects. If the caller compares the
bytes with checksums, another ETag of an object of the same length is accepted: mirrors may give different ones.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from wds_real.errors import MissingError, StoreError, UnavailableError
from wds_real.storage.downloads import Downloads, TemporaryFile
from wds_real.storage.http_errors import PANIC, Kind, error_of, is_panic, parse_error
from wds_real.storage.obstore_client import FORKS, ObstoreClient
from wds_real.storage.prefetch import Prefetcher, file_blocks
from wds_real.storage.retry import GaveUpError, TransientError, interruptible, retry
from wds_real.storage.url import Location, redact_url

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Iterator

    from wds_real.storage.base import ByteWriter
    from wds_real.storage.obstore_client import Version

__all__ = ["RemoteStore"]

_LOG = logging.getLogger(__name__)
_MAX_REQUESTS_PER_OBJECT = 4
_MAX_FRESH_BYTES = 64 << 20  # of an object that is read in one request
_FIRST_CONTACT_S = 20.0  # deadline of requests while the server has not responded yet
_T = TypeVar("_T")


class _RangesIgnoredError(Exception):
    """The server answers ranged requests with the whole object."""


class _NoConditionalWritesError(Exception):
    """The server does not take If-None-Match."""


class RemoteStore:
    """An object store, or a web server, which can only be read.

    Each process makes its client at the first request. The client does not survive a fork: a forked process gets an
    error, because the client would hang it and its parent.

    Args:
        location: URL and parsed options.
        options: As the user gave them, to open the store again in another process.
        connect: Makes the client.
    """

    remote = True
    emulates_exclusive = False  # until a server refused a conditional write

    def __init__(
        self,
        location: Location,
        options: dict[str, str],
        *,
        connect: Callable[[Location], ObstoreClient] = ObstoreClient,
    ) -> None:
        self._location = location
        self._url = redact_url(location.url)
        self._options = options
        self._connect = connect
        self._client: ObstoreClient | None = None
        self._versions: dict[str, Version] = {}
        self._downloads = Downloads()
        self._download_locks: dict[str, threading.Lock] = {}
        self._checksummed: frozenset[str] = frozenset()
        self._etags_differ = False  # whether a file with checksums had another ETag
        self._has_responded = self._ignores_ranges = False
        self._opened_at = time.monotonic()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without secrets.

        Raises:
            StoreError: the URL or the options hold secrets.
        """
        if self._location.holds_secrets:
            raise StoreError(
                f"{self.url}: was opened with secrets in its URL or options, which are not handed to other processes. "
                "Put them into environment variables or a profile, or open the data set in each process."
            )
        return _reopen, (self._location.url, self._options, self._connect, self._checksummed)

    def __repr__(self) -> str:
        return f"RemoteStore({self.url!r})"

    @property
    def url(self) -> str:
        """The URL without user name, password and query."""
        return self._url

    @property
    def file_reader(self) -> None:
        """None: objects cannot be mapped."""
        return

    @property
    def listable(self) -> bool:
        """Whether this is not a plain web server."""
        return self._location.kind != "http"

    def exists(self) -> bool:
        """Return True: object stores have no folders that could be missing."""
        return True

    def list(self) -> list[str]:
        """Return the names of all objects directly below the URL, sorted."""
        return self._listed(lambda client: client.list())

    def folders(self) -> builtins.list[str]:
        """Return the names of all folders directly below the URL, sorted."""
        return self._listed(lambda client: client.folders())

    def _listed(self, call: Callable[[ObstoreClient], builtins.list[str]]) -> builtins.list[str]:
        if not self.listable:
            raise UnavailableError(f"{self.url}: a web server has no listing. Name the files.")
        return self._request("", "list", call)

    def head(self, name: str) -> int:
        """Return the length of an object in bytes."""
        pinned = self._versions.get(name)
        if pinned is None:
            try:
                pinned = self._pin(name, self._request(name, "look up", lambda client: client.head(name)))
            except _RangesIgnoredError:
                self._ignores_ranges = True
                pinned = self._pin(name, self._request(name, "look up", lambda client: client.stream(name)[0]))
        return pinned.num_bytes

    def get(self, name: str, *, fresh: bool = False) -> bytes:
        """Return a whole object; the ranges of a large one are read in parallel, unless it is read `fresh`."""
        if fresh:
            data = self._request(name, "look up", lambda client: client.get_whole(name, max_bytes=_MAX_FRESH_BYTES))
            if data is None:
                raise StoreError(f"{self._where(name)}: is larger than {_MAX_FRESH_BYTES:,} bytes, so it is not read.")
            return data
        blocks = file_blocks(name, self.head(name))
        if len(blocks) < 2:
            return b"".join(self.get_range(*block) for block in blocks)
        with Prefetcher(self.get_range, blocks, max_requests=_MAX_REQUESTS_PER_OBJECT) as prefetched:
            return b"".join(map(prefetched.take, range(len(blocks))))

    def get_range(
        self, name: str, start: int, stop: int, *, size: int | None = None, fresh: bool = False
    ) -> bytes | memoryview:
        """Return exactly the bytes of the half-open range, of the pinned version of the object.

        Raises:
            MissingError: there is no such object.
            StoreError: the object was replaced, has another length than `size`, or ends before `stop`.
            UnavailableError: access was denied, or retries failed until a deadline.
        """
        del fresh  # nothing is cached
        if start == stop:
            return b""

        def read(client: ObstoreClient) -> memoryview:
            pinned = self._versions.get(name)
            any_etag = self._etags_differ and name in self._checksummed
            response = client.get(name, start, stop, None if pinned is None or any_etag else pinned.strong_etag)
            self._check(name, response.version, size=size, stop=stop)
            if (response.start, response.stop, len(response.data)) != (start, stop, stop - start):
                raise TransientError(Kind.WRONG_RANGE)
            self._pin(name, response.version)
            return response.data

        downloaded = self._downloads.find(name)
        if downloaded is None:
            try:
                return self._request(name, f"bytes {start}-{stop}", read)
            except _RangesIgnoredError:
                downloaded = self._download(name)
        data = downloaded.read(start, stop)
        if len(data) != stop - start or size not in (None, downloaded.num_bytes):
            raise StoreError(
                f"{self._where(name)}: the object has {downloaded.num_bytes:,} bytes, expected "
                + (f"at least {stop:,}." if size is None else f"{size:,}.")
            )
        return data

    def put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        """Write a whole object; with `exclusive`, raise StoreError if it exists, also if it appears meanwhile.

        Where the server has no conditional writes, an object that appears between two requests is replaced: callers
        that must not replace one another claim the URL first.
        """
        attempts = itertools.count()

        def write(client: ObstoreClient) -> None:
            next(attempts)
            refused = False
            try:
                client.put(name, data, exclusive=exclusive)
            except client.errors as error:
                refused = exclusive and parse_error(error).kind is Kind.NOT_IMPLEMENTED
                if not refused:
                    raise
            if refused:  # outside of `except`, because the library's error may hold secrets
                raise _NoConditionalWritesError

        try:
            self._request(name, "write", write)
        except _NoConditionalWritesError:
            self._put_if_missing(name, data)
        except UnavailableError:
            raise
        except StoreError:
            # The response to the first attempt may have been lost: then a later one found what the first one wrote.
            if not exclusive or next(attempts) < 2 or not self._holds(name, data):
                raise
        self._versions.pop(name, None)

    def _put_if_missing(self, name: str, data: bytes) -> None:
        """Write an object unless a request before finds it."""
        self.emulates_exclusive = True
        self._versions.pop(name, None)
        try:
            self.head(name)
        except MissingError:
            self._request(name, "write", lambda client: client.put(name, data, exclusive=False))
        else:
            raise StoreError(f"{self._where(name)}: {Kind.ALREADY_EXISTS.value}")

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[ByteWriter]:
        """Open an object for writing: a temporary file, which is uploaded in parts when the block ends normally."""
        file = TemporaryFile()
        yield file
        self._request(name, "write", lambda client: client.upload(name, file.opened()))
        self._versions.pop(name, None)

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._versions.pop(name, None)
        self.head(name)  # raises MissingError, which object stores do not report for a delete
        self._request(name, "delete", lambda client: client.delete(name))
        self._versions.pop(name, None)

    def decide_by_checksums(self, names: Iterable[str]) -> None:
        """Accept other ETags of these objects, because the caller compares their bytes with checksums."""
        self._checksummed |= frozenset(names)

    def delete_leftovers(self) -> builtins.list[str]:
        """Abort unfinished uploads, and return their names; only S3 with boto3 lists them."""
        return self._request("", "list unfinished uploads", lambda client: client.abort_uploads())

    def _request(self, name: str, what: str, call: Callable[[ObstoreClient], _T]) -> _T:
        """Make one request, with retries; errors of the client become errors of this package."""
        client = self._connected()

        def attempt() -> _T:
            try:
                result = call(client)
            except client.errors as error:
                failure = self._failure(name, what, error)
            except BaseException as error:
                if not is_panic(error):
                    raise
                failure = UnavailableError(f"{self._where(name)}: {what}: {PANIC}")
            else:
                self._has_responded = True
                return result
            raise failure  # outside of `except`: the library's error may hold secrets, so it must not be the context

        policy = self._location.policy
        if not self._has_responded:
            policy = replace(policy, give_up_after_s=min(policy.give_up_after_s, _FIRST_CONTACT_S))
        try:
            return interruptible(lambda: retry(attempt, policy=policy, opened_at=self._opened_at))
        except GaveUpError as error:
            raise UnavailableError(f"{self._where(name)}: {what}: {error}. Run it again later.") from None

    def _failure(self, name: str, what: str, error: Exception) -> Exception:
        """Return the exception to raise for a failed attempt: a TransientError if it is to be retried."""
        response = parse_error(error)
        if response.kind is Kind.RANGE_IGNORED:
            final = _RangesIgnoredError()
            return final if self._ignores_ranges else TransientError(response.kind, final=final)
        if response.kind is Kind.PRECONDITION_FAILED and name in self._checksummed and what.startswith("bytes "):
            self._accept_etags(name)
            return TransientError(Kind.OTHER_VERSION)
        response = response.asked_of(self._location.kind, what)
        if response.kind.is_transient:
            return TransientError(response.kind, response.reason)
        return error_of(response, where=self._where(name), request=what)

    def _check(self, name: str, found: Version, *, size: int | None, stop: int) -> None:
        """Compare the version in a response with the pinned one and with the expected length.

        Raises:
            TransientError: it is another version, or too short.
        """
        pinned = self._versions.get(name)
        expected = size if size is not None else pinned.num_bytes if pinned else None
        if expected is not None and found.num_bytes != expected:
            problem = f"the object has {found.num_bytes:,} bytes, expected {expected:,}"
        elif found.num_bytes < stop:
            problem = f"the object has {found.num_bytes:,} bytes, and byte {stop - 1:,} was requested"
        elif pinned is not None and found.etag != pinned.etag:
            if name in self._checksummed:
                self._accept_etags(name)
                return
            problem = "was replaced while it was read"
        else:
            return
        raise TransientError(Kind.OTHER_VERSION, problem, final=StoreError(f"{self._where(name)}: {problem}."))

    def _accept_etags(self, name: str) -> None:
        if not self._etags_differ:
            self._etags_differ = True
            _LOG.info("%s: its ETag changes, as those of mirrors do; the checksums decide", self._where(name))

    def _pin(self, name: str, version: Version) -> Version:
        with self._lock:
            return self._versions.setdefault(name, version)

    def _download(self, name: str) -> TemporaryFile:
        """Download a whole object: the server ignored ranges three times in a row."""
        self._ignores_ranges = True
        with self._lock:
            lock = self._download_locks.setdefault(name, threading.Lock())
        with lock:
            return self._downloads.find(name) or self._download_now(name)

    def _download_now(self, name: str) -> TemporaryFile:
        file = TemporaryFile()

        def read(client: ObstoreClient) -> None:
            version, chunks = client.stream(name)
            first = self._pin(name, version)
            if first != version and not (name in self._checksummed and first.num_bytes == version.num_bytes):
                raise StoreError(
                    f"{self._where(name)}: was replaced while it was read ({first.num_bytes:,} bytes before)."
                )
            position = 0
            for chunk in chunks:  # after a broken connection, chunks that are in the file already are skipped
                new = chunk[max(0, file.num_bytes - position) :]
                position += len(chunk)
                file.write(new)
            if file.num_bytes != version.num_bytes:
                raise TransientError(Kind.BROKEN_CONNECTION)

        self._request(name, "download", read)
        self._downloads.add(name, file)
        return file

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.get(name, fresh=True) == data
        except StoreError:
            return False

    def _where(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _connected(self) -> ObstoreClient:
        FORKS.check(self.url)
        with self._lock:
            if self._client is None:
                self._client = self._connect(self._location)
            return self._client


def _reopen(
    url: str, options: dict[str, str], connect: Callable[[Location], ObstoreClient], checksummed: frozenset[str]
) -> RemoteStore:
    store = RemoteStore(Location.parse(url, options), options, connect=connect)
    store.decide_by_checksums(checksummed)
    return store
