"""An object store that is not believed: versions pinned, answers measured, requests repeated, secrets kept.

The first answer about an object says which version of it is read from then on. Every request names that version, and
every answer is compared with it, with what was asked, and with the length the caller expects.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from wds_real.errors import StoreError, UnavailableError
from wds_real.storage.downloads import Download, Downloads
from wds_real.storage.http_errors import refusal_of
from wds_real.storage.obstore_client import ObstoreClient
from wds_real.storage.prefetch import BLOCK_BYTES, ByteRange, Prefetcher
from wds_real.storage.retry import GaveUpError, TransientError, retry
from wds_real.storage.url import Location, redact_url

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterator

    from wds_real.storage.base import ByteWriter
    from wds_real.storage.obstore_client import Version

__all__ = ["RemoteStore"]

_REQUESTS = 4  # for one large object at a time
_FIRST_CONTACT_S = 20.0  # a server that never answered is given up sooner than one that did
_T = TypeVar("_T")


class _RangesIgnoredError(Exception):
    """The server answers ranged requests with the whole object."""


class RemoteStore:
    """An object store, or a web server, which can only be read.

    The client is made at the first request, anew in each process. It does not survive a fork: a forked process gets an
    error, where the client would hang it and its parent.

    Args:
        location: Where it is.
        options: As the user gave them, to open it again in another process.
        connect: Makes the client.
    """

    remote = True

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
        self._turns: dict[str, threading.Lock] = {}
        self._answered = self._ignores_ranges = False
        self._opened_at = time.monotonic()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        """Go to another process without secrets; what cannot go without them does not go."""
        if self._location.holds_secrets:
            raise StoreError(
                f"{self.url}: was opened with secrets in its URL or options, which are not handed to other processes. "
                "Put them into environment variables or a profile, or open the data set in each process."
            )
        return _reopen, (self._location.url, self._options, self._connect)

    def __repr__(self) -> str:
        return f"RemoteStore({self.url!r})"

    @property
    def url(self) -> str:
        """Where it is, without user name, password and query."""
        return self._url

    @property
    def file_reader(self) -> None:
        """None: objects cannot be mapped."""
        return

    @property
    def listable(self) -> bool:
        """Whether this is more than a web server."""
        return self._location.kind != "http"

    def exists(self) -> bool:
        """Return True: what has no folders has no missing ones either."""
        return True

    def list(self) -> list[str]:
        """Return the names of all objects directly below the URL, sorted."""
        if not self.listable:
            raise UnavailableError(f"{self.url}: a web server cannot say what it holds. Name the files.")
        return self._request("", "list", lambda client: client.list())

    def head(self, name: str) -> int:
        """Return the length of an object in bytes."""
        pinned = self._versions.get(name)
        if pinned is None:
            try:
                pinned = self._pin(name, self._request(name, "look up", lambda client: client.head(name)))
            except _RangesIgnoredError:
                return self._download(name).num_bytes
        return pinned.num_bytes

    def get(self, name: str) -> bytes:
        """Return a whole object, in ranges read side by side where it is large."""
        num_bytes = self.head(name)
        starts = range(0, num_bytes, BLOCK_BYTES)
        blocks = [ByteRange(name, start, min(start + BLOCK_BYTES, num_bytes)) for start in starts]
        if len(blocks) < 2:
            return b"".join(self.get_range(*block) for block in blocks)
        with Prefetcher(self.get_range, blocks, max_requests=_REQUESTS) as ahead:
            return b"".join(ahead.take(place) for place in range(len(blocks)))

    def get_range(
        self, name: str, start: int, stop: int, *, size: int | None = None, fresh: bool = False
    ) -> bytes | memoryview:
        """Return exactly the bytes of the half-open range, of the version of the object that was first seen.

        Raises:
            MissingError: there is no such object.
            StoreError: the object was replaced, has another length than `size`, or ends before `stop`.
            UnavailableError: access was denied, or a deadline passed.
        """
        del fresh  # there are no copies
        if start == stop:
            return b""

        def read(client: ObstoreClient) -> memoryview:
            pinned = self._versions.get(name)
            answer = client.get(name, start, stop, pinned.strong_etag if pinned else None)
            self._check(name, answer.version, size=size, stop=stop)
            if (answer.start, answer.stop, len(answer.data)) != (start, stop, stop - start):
                raise TransientError("the answer holds other bytes than asked for", at_once=True)
            self._pin(name, answer.version)
            return answer.data

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
        """Write a whole object; `exclusive` refuses to replace one, also one that appears at the same moment."""
        attempts = itertools.count()

        def write(client: ObstoreClient) -> None:
            next(attempts)
            client.put(name, data, exclusive=exclusive)

        try:
            self._request(name, "write", write)
        except UnavailableError:
            raise
        except StoreError:
            # The answer to the first attempt may have been lost, and the second one have found what that one wrote.
            if not exclusive or next(attempts) < 2 or not self._holds(name, data):
                raise
        self._versions.pop(name, None)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[ByteWriter]:
        """Open an object for writing: it gathers in a temporary file, and is uploaded in parts when the block ends."""
        file = self._downloads.new()
        yield file
        self._request(name, "write", lambda client: client.upload(name, file.opened()))
        self._versions.pop(name, None)

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._versions.pop(name, None)
        self.head(name)  # object stores remove what is not there without a word
        self._request(name, "delete", lambda client: client.delete(name))
        self._versions.pop(name, None)

    def delete_leftovers(self) -> builtins.list[str]:
        """Abort the uploads that writers left unfinished, where there is a way to ask for them: S3, with boto3."""
        return self._request("", "list unfinished uploads", lambda client: client.abort_uploads())

    def _request(self, name: str, what: str, call: Callable[[ObstoreClient], _T]) -> _T:
        """Make one request, again and again if need be, and say in our own words what became of it."""
        client = self._connected()

        def attempt() -> _T:
            try:
                result = call(client)
            except client.errors as error:
                refusal = self._refusal(name, what, error)
            else:
                self._answered = True
                return result
            raise refusal  # out here: the library's text, which may hold secrets, is no part of its context either

        policy = self._location.policy
        if not self._answered:
            policy = replace(policy, give_up_after_s=min(policy.give_up_after_s, _FIRST_CONTACT_S))
        try:
            return _interruptible(lambda: retry(attempt, policy=policy, opened_at=self._opened_at))
        except GaveUpError as error:
            raise UnavailableError(f"{self._where(name)}: {what}: {error}. Run it again later.") from None

    def _refusal(self, name: str, what: str, error: Exception) -> Exception:
        if any(sign in str(error) for sign in ("RangeNotSupported", "NotPartial", "non-partial")):
            if self._ignores_ranges:
                return _RangesIgnoredError()
            return TransientError("the server ignored the range", at_once=True, at_most=3, final=_RangesIgnoredError())
        return refusal_of(error, where=self._where(name), request=what)

    def _check(self, name: str, found: Version, *, size: int | None, stop: int) -> None:
        """Compare what an answer says of its object with what is known of it."""
        pinned = self._versions.get(name)
        expected = size if size is not None else pinned.num_bytes if pinned else None
        if expected is not None and found.num_bytes != expected:
            problem = f"the object has {found.num_bytes:,} bytes, expected {expected:,}"
        elif found.num_bytes < stop:
            problem = f"the object has {found.num_bytes:,} bytes, and byte {stop - 1:,} was asked for"
        elif pinned is not None and found.etag != pinned.etag:
            problem = "was replaced while it was read"
        else:
            return
        final = StoreError(f"{self._where(name)}: {problem}.")
        raise TransientError(problem, at_once=True, at_most=3, final=final)

    def _pin(self, name: str, version: Version) -> Version:
        with self._lock:
            return self._versions.setdefault(name, version)

    def _download(self, name: str) -> Download:
        """Fetch a whole object in one stream; where that breaks, a new one is read up to the same place."""
        self._ignores_ranges = True  # else this is not called; not by accident: three times in a row
        with self._lock:
            turn = self._turns.setdefault(name, threading.Lock())
        with turn:
            return self._downloads.find(name) or self._download_now(name)

    def _download_now(self, name: str) -> Download:
        file = self._downloads.new()

        def read(client: ObstoreClient) -> None:
            version, chunks = client.stream(name)
            if (first := self._pin(name, version)) != version:
                raise StoreError(
                    f"{self._where(name)}: was replaced while it was read ({first.num_bytes:,} bytes before)."
                )
            position = 0
            for chunk in chunks:
                new = chunk[max(0, file.num_bytes - position) :]
                position += len(chunk)
                file.write(new)
            if file.num_bytes != version.num_bytes:
                raise TransientError("the connection broke", at_once=True)

        self._request(name, "read it all", read)
        self._downloads.add(name, file)
        return file

    def _holds(self, name: str, data: bytes) -> bool:
        self._versions.pop(name, None)
        try:
            return self.get(name) == data
        except StoreError:
            return False

    def _where(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _connected(self) -> ObstoreClient:
        _FORKS.check(self.url)
        with self._lock:
            if self._client is None:
                self._client = self._connect(self._location)
            return self._client


def _reopen(url: str, options: dict[str, str], connect: Callable[[Location], ObstoreClient]) -> RemoteStore:
    return RemoteStore(Location.parse(url, options), options, connect=connect)


def _interruptible(call: Callable[[], _T]) -> _T:
    """Run `call` where Ctrl-C is heard while it waits: the client library does not look for it in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    outcome: list[_T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 -- raised below, in the thread that asked
            failure.append(error)

    thread = threading.Thread(target=run, name="request", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class _ForkGuard:
    """Knows whether this process was forked from one that had used a client: state of the process, not of a store."""

    def __init__(self) -> None:
        self._used = self._forked = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def check(self, url: str) -> None:
        if self._forked:
            raise UnavailableError(
                f"{url}: this process was forked from one that had read from an object store, so it cannot. Give "
                'DataLoader multiprocessing_context="forkserver" or "spawn", or use Loader without worker processes.'
            )
        self._used = True

    def _after_fork(self) -> None:
        self._forked = self._used


_FORKS = _ForkGuard()
