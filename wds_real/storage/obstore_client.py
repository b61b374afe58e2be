"""HTTP client for object stores and web servers: single requests through obstore.

This is the only module that imports obstore. `wds_real.storage.remote` adds checks, retries and error messages.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from wds_real.errors import StoreError, UnavailableError
from wds_real.storage.aws import Profile, abort_uploads, have_boto3
from wds_real.storage.buffers import Buffers
from wds_real.storage.http_errors import NO_CREDENTIALS, PANIC, Kind, is_panic, parse_error
from wds_real.storage.url import Location, join_url, redact_url

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Iterator, Sequence

    from obstore import GetOptions, ListResult, ObjectMeta
    from obstore.store import MemoryStore, ObjectStore, S3Config

__all__ = ["FORKS", "ObstoreClient", "Response", "Version"]

_PART_BYTES = 16 << 20  # of a multipart upload; S3 allows 10,000 parts
_MAX_CONCURRENT_PARTS = 4
_POOLED_FROM_BYTES = 1 << 20  # smaller ranges are not pooled: malloc reuses that memory anyway
_CHUNK_BYTES = 64 << 10
_MAX_BUFFERS = 16
_PLAIN_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_STREAM_TIMEOUT = "24h"  # for a whole object; the read timeout still catches a stalled connection


@dataclass(frozen=True, slots=True)
class Version:
    """An object's length in bytes, and its ETag or None."""

    num_bytes: int
    etag: str | None

    @property
    def strong_etag(self) -> str | None:
        """The ETag for an If-Match header, which never matches a weak one; None if there is no strong one."""
        return None if self.etag is None or self.etag.startswith("W/") else self.etag


@dataclass(frozen=True, slots=True)
class Response:
    """The response to a ranged request.

    Attributes:
        data: The bytes.
        start: First byte of the range that the server says it sent.
        stop: Byte after the last one.
        version: Version of the object.
    """

    data: memoryview
    start: int
    stop: int
    version: Version


class ObstoreClient:
    """Makes single requests through obstore, without obstore's own retries.

    Attributes:
        errors: The exceptions that a failed request raises.
    """

    def __init__(self, location: Location) -> None:
        import obstore
        import obstore.exceptions

        self._obstore = obstore
        self.errors: tuple[type[Exception], ...] = (
            obstore.exceptions.BaseError,
            NotImplementedError,
            OSError,
            ValueError,
        )
        self._location = location
        self._url, headers = location.without_user()
        self._profile = _profile(location)
        policy = location.policy
        self._key = f"{location.prefix}/" if location.prefix else ""
        self._options: dict[str, Any] = {
            **location.client,
            "connect_timeout": f"{policy.connect_timeout_s * 1000:.0f}ms",
            "read_timeout": f"{policy.read_timeout_s * 1000:.0f}ms",
            "timeout": f"{policy.request_timeout_s * 1000:.0f}ms",
        }
        if headers:
            self._options["default_headers"] = headers
        self._root = None if location.kind == "http" else self._open(location.bucket_url, self._options)
        self._webs: dict[tuple[str, str | None], ObjectStore] = {}
        self._buffers = Buffers(max_kept=_MAX_BUFFERS)

    def list(self) -> list[str]:
        """Return the names directly below the location, sorted."""
        return self._below(str(entry["path"]) for entry in self._listed()["objects"])

    def folders(self) -> builtins.list[str]:
        """Return the names of the folders directly below the location, sorted."""
        return self._below(path.rstrip("/") for path in self._listed()["common_prefixes"])

    def _listed(self) -> ListResult[Sequence[ObjectMeta]]:
        return self._obstore.list_with_delimiter(self._place("")[0], self._key.rstrip("/") or None)

    def _below(self, paths: Iterable[str]) -> builtins.list[str]:
        """Return the names of paths below the location, sorted, without the object that marks the folder itself."""
        names = (path.removeprefix(self._key) for path in paths if path.startswith(self._key))
        return sorted(name for name in names if name and "/" not in name)

    def head(self, name: str) -> Version:
        """Return an object's version."""
        # Not HEAD: presigned URLs allow only GET, and error responses to HEAD have no body with a code.
        try:
            return _version(self._obstore.get(*self._place(name), options={"range": (0, 1)}).meta)
        except self._obstore.exceptions.BaseError as error:
            if parse_error(error).kind is not Kind.RANGE_NOT_SATISFIABLE:
                raise
        return _version(self._obstore.head(*self._place(name)))  # an empty object has no first byte

    def get(self, name: str, start: int, stop: int, if_match: str | None) -> Response:
        """Return the half-open range, of the version with the ETag `if_match` unless that is None."""
        options: GetOptions = {"range": (start, stop)}
        if if_match is not None and self._location.kind != "memory":  # its If-Match rejects its own ETags
            options["if_match"] = if_match
        response = self._obstore.get(*self._place(name), options=options)
        found, version = response.range, _version(response.meta)
        if stop - start < _POOLED_FROM_BYTES or found != (start, stop):
            return Response(memoryview(response.bytes()), *found, version=version)
        # Into a pooled buffer: the library would allocate new pages for each response.
        memory, filled = self._buffers.take(stop - start), 0
        for chunk in response.stream(min_chunk_size=_CHUNK_BYTES):
            if filled + len(chunk) > len(memory):
                return Response(
                    memoryview(b""), *found, version=version
                )  # longer than its header says: the caller rejects it
            memory[filled : filled + len(chunk)] = memoryview(chunk)
            filled += len(chunk)
        return Response(memory[:filled].toreadonly(), *found, version=version)

    def get_whole(self, name: str, *, max_bytes: int) -> bytes | None:
        """Return an object in one response, so in one version; None if it is larger than `max_bytes`."""
        response = self._obstore.get(*self._place(name))
        return None if response.meta["size"] > max_bytes else bytes(response.bytes())

    def stream(self, name: str) -> tuple[Version, Iterator[memoryview]]:
        """Return an object's version, and its bytes in chunks as they arrive."""
        store, path = self._place(name, timeout=_STREAM_TIMEOUT)
        response = self._obstore.get(store, path)
        return _version(response.meta), map(memoryview, response.stream(min_chunk_size=1 << 20))

    def put(self, name: str, data: bytes, *, exclusive: bool) -> None:
        """Write an object in one request; with `exclusive`, fail if it exists."""
        store, path = self._place(name)
        mode: Any = "create" if exclusive else "overwrite"
        self._obstore.put(store, path, data, mode=mode, use_multipart=False)

    def upload(self, name: str, file: BinaryIO) -> None:
        """Write an object in parts, from the beginning of the file, and close the file."""
        store, path = self._place(name)
        with file:
            file.seek(0)
            self._obstore.put(store, path, file, chunk_size=_PART_BYTES, max_concurrency=_MAX_CONCURRENT_PARTS)

    def delete(self, name: str) -> None:
        """Remove an object."""
        store, path = self._place(name)
        self._obstore.delete(store, path)

    def abort_uploads(self) -> builtins.list[str]:
        """Abort unfinished multipart uploads, and return their names; does nothing unless this is S3 with boto3."""
        if self._location.kind != "s3" or not have_boto3():
            return []
        try:
            location = self._location
            return abort_uploads(self._url, location.config, profile=location.profile, policy=location.policy)
        except UnavailableError as error:
            raise UnavailableError(f"{redact_url(self._location.url)}: {error}") from None

    def _place(self, name: str, *, timeout: str | None = None) -> tuple[ObjectStore, str]:
        """Return the library's store of an object, and the object's path in it; in an object store, that is the key.

        The files of a web server share one store, which keeps connections open. A file has a store of its own if the
        URL has a query, after which the library would put the name, or if the library would quote the name differently.
        """
        if self._root is not None and timeout is None:
            return self._root, f"{self._key}{name}"
        options = self._options if timeout is None else {**self._options, "timeout": timeout}
        if self._location.kind != "http":
            return self._open(self._location.bucket_url, options), f"{self._key}{name}"
        plain = "?" not in self._url and _PLAIN_NAME.fullmatch(name) is not None
        url, path = (self._url.rstrip("/"), name) if plain else (join_url(self._url, name), "")
        store = self._webs.get((url, timeout)) or self._open(url, options)
        return self._webs.setdefault((url, timeout), store), path

    def _open(self, url: str, options: dict[str, Any]) -> ObjectStore:
        from obstore.store import HTTPStore, from_url

        location = self._location
        shared: dict[str, Any] = {"client_options": options, "retry_config": {"max_retries": 0}}
        if location.kind == "memory":
            return _memory_store(url)
        try:
            if location.kind == "http":
                return HTTPStore(url, **shared)
            config: dict[str, Any] = dict(location.config)
            if location.kind == "s3":
                config.setdefault("checksum_algorithm", "sha256")  # so that the server refuses corrupted uploads
                if "access_key_id" in config:  # not mixed with those of the environment
                    shared["credential_provider"] = functools.partial(_given_credentials, _pop_credentials(config))
                if self._profile is not None:
                    shared["credential_provider"] = self._profile.credentials()
                    if self._profile.region is not None:
                        config.setdefault("region", self._profile.region)
            store: ObjectStore = from_url(url, config=cast("S3Config", config), **shared)
        except (self._obstore.exceptions.BaseError, ValueError, TypeError) as error:
            named = next((name for name in {**location.config, **location.client} if name in str(error)), None)
            problem = f"storage option {named}: not valid" if named else "the URL or a storage option is not valid"
            raise StoreError(f"{redact_url(url)}: {problem}. Check it.") from None
        except BaseException as error:
            if not is_panic(error):
                raise
            raise StoreError(f"{redact_url(url)}: {PANIC}") from None
        return store


def _profile(location: Location) -> Profile | None:
    """Return the profile from which boto3 takes credentials; None if the options hold some, or none are needed."""
    config = location.config
    if location.kind != "s3" or "access_key_id" in config or config.get("skip_signature", "").lower() == "true":
        return None
    where = redact_url(location.url)
    if not have_boto3():
        if location.profile is not None:
            raise StoreError(f"{where}: profile {location.profile} needs boto3. Run pip install boto3.")
        return None
    try:
        profile = Profile(location.profile)
    except UnavailableError as error:
        raise UnavailableError(f"{where}: {error}") from None
    if profile.credentials() is None:
        raise UnavailableError(f"{where}: {NO_CREDENTIALS}")
    return profile


def _pop_credentials(config: dict[str, Any]) -> dict[str, Any]:
    names = ("access_key_id", "secret_access_key", "session_token")
    key, secret, token = (config.pop(name, None) for name in names)
    return {"access_key_id": key, "secret_access_key": secret or "", "token": token, "expires_at": None}


def _given_credentials(credentials: dict[str, Any]) -> dict[str, Any]:
    return credentials


def _version(meta: ObjectMeta) -> Version:
    return Version(meta["size"], meta["e_tag"])


@functools.cache
def _memory_store(url: str) -> MemoryStore:
    """Return the store of that name, which holds its objects in memory; each process has one."""
    from obstore.store import MemoryStore

    del url
    return MemoryStore()


class _ForkGuard:
    """Refuses requests in a process that was forked from one that had used a client; there is one for each process."""

    def __init__(self) -> None:
        self._used = self._forked = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def check(self, url: str) -> None:
        """Raise UnavailableError in a forked process."""
        if self._forked:
            raise UnavailableError(
                f"{url}: this process was forked from one that had read from an object store, so it cannot. Give "
                'DataLoader multiprocessing_context="forkserver" or "spawn", or use Loader without worker processes.'
            )
        self._used = True

    def _after_fork(self) -> None:
        self._forked = self._used


FORKS = _ForkGuard()
