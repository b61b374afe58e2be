"""Where bytes live: one small verb each over a folder, an object store or a web server.

A store knows names, lengths and bytes; what they mean is the business of others. Names are flat: all lie directly under
the store's URL. This is the only module that knows obstore, and it knows it as a set of single requests: checks,
retries and errors are `wds_real.storage.remote`'s.
"""

from __future__ import annotations

import functools
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from wds_real.errors import StoreError, UnavailableError
from wds_real.storage.aws import Profile, abort_uploads, have_boto3
from wds_real.storage.buffers import Buffers
from wds_real.storage.client import Answer, Version
from wds_real.storage.http_errors import NO_CREDENTIALS
from wds_real.storage.local import LocalStore
from wds_real.storage.remote import RemoteStore
from wds_real.storage.url import Location, is_url, join_url, shown

if TYPE_CHECKING:
    import builtins
    import contextlib
    from collections.abc import Iterator, Mapping

    from obstore import GetOptions, ObjectMeta
    from obstore.store import MemoryStore, ObjectStore, S3Config, S3Store

__all__ = ["ByteWriter", "Store", "open_store"]

_PART_BYTES = 16 << 20  # of a multipart upload; S3 allows 10,000 parts
_PARTS_AT_A_TIME = 4
_GATHERED_FROM = 1 << 20  # bytes of a range: less comes from memory that the process has at hand
_CHUNK_BYTES = 64 << 10
_BUFFERS_KEPT = 16
_PLAIN_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_STREAM_TIMEOUT = "24h"  # a whole object may take long; that its bytes keep coming is what counts


class ByteWriter(Protocol):
    """What a store gives to write a file with."""

    def write(self, data: bytes | memoryview) -> object:
        """Append bytes, which the caller may change afterwards."""
        ...


class Store(Protocol):
    """A flat place that holds named bytes.

    All verbs raise `MissingError` where there is no such file, `UnavailableError` where an object store denies access
    or gives up, and `StoreError` where the bytes are not what was asked for.
    """

    @property
    def url(self) -> str:
        """Where it is, as a person would type it, without secrets."""
        ...

    @property
    def listable(self) -> bool:
        """Whether `list` works: a web server cannot say what it holds."""
        ...

    @property
    def remote(self) -> bool:
        """Whether reading takes a network: then ask for much at a time, and ahead of time."""
        ...

    def exists(self) -> bool:
        """Return whether there is such a place; what has no folders always exists."""
        ...

    def list(self) -> list[str]:
        """Return the names of all finished files, sorted."""
        ...

    def head(self, name: str) -> int:
        """Return the length of a file in bytes."""
        ...

    def get(self, name: str) -> bytes:
        """Return a whole file."""
        ...

    def get_range(
        self, name: str, start: int, stop: int, *, size: int | None = None, fresh: bool = False
    ) -> bytes | memoryview:
        """Return exactly the bytes of the half-open range, of a file of `size` bytes if that is given.

        What keeps copies must not answer with one if `fresh`.
        """
        ...

    def put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        """Write a whole file, atomically and durably; `exclusive` refuses to replace one."""
        ...

    def create(self, name: str) -> contextlib.AbstractContextManager[ByteWriter]:
        """Open a file for writing; it appears under its name, whole and durable, when the block ends without error."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file."""
        ...

    def delete_leftovers(self) -> builtins.list[str]:
        """Remove what writers that are gone left unfinished, and return its names."""
        ...


def open_store(url: str | os.PathLike[str], *, storage_options: Mapping[str, str] | None = None) -> Store:
    """Return the store at a folder's path or a URL. Nothing is asked of it yet, and the place need not exist.

    Args:
        url: A path, or ``s3://bucket/prefix``, ``gs://``, ``az://``, ``https://``, ``http://`` (on this machine, or
            with the option ``allow_http=true``) or ``memory://name``.
        storage_options: What a store needs to know: ``region``, ``endpoint``, ``skip_signature`` (public buckets),
            ``profile``, credentials, timeouts; the names are obstore's, and fsspec's where those differ.

    Raises:
        StoreError: a URL scheme or an option that is not supported.
    """
    text = os.fspath(url)
    if is_url(text):
        options = dict(storage_options or {})
        return RemoteStore(Location.parse(text, options), options, _ObjectClient)
    if storage_options:
        raise StoreError(f"{text}: storage options are for URLs such as s3://bucket/prefix; a folder takes none.")
    return LocalStore(Path(text))


class _ObjectClient:
    """obstore, one request a method, its own retries off: `wds_real.storage.remote` has the only ones."""

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
        patience = location.patience
        self._options: dict[str, Any] = {
            **location.client,
            "connect_timeout": f"{patience.connect_timeout_s * 1000:.0f}ms",
            "read_timeout": f"{patience.read_timeout_s * 1000:.0f}ms",
            "timeout": f"{patience.request_timeout_s * 1000:.0f}ms",
        }
        if headers:
            self._options["default_headers"] = headers
        self._root = None if location.kind == "http" else self._open(self._url, self._options)
        self._webs: dict[tuple[str, str | None], ObjectStore] = {}
        self._buffers = Buffers(max_kept=_BUFFERS_KEPT)

    def list(self) -> list[str]:
        found = self._obstore.list_with_delimiter(self._place("")[0])
        return sorted(entry["path"] for entry in found["objects"])

    def head(self, name: str) -> Version:
        # A signed URL is for GET alone, and only GET is told why it is refused: ask for a byte, which says the length.
        try:
            return _version(self._obstore.get(*self._place(name), options={"range": (0, 1)}).meta)
        except self._obstore.exceptions.BaseError as error:
            if not any(sign in str(error) for sign in ("416", "StartTooLarge", "InvalidGetRange")):
                raise
        return _version(self._obstore.head(*self._place(name)))  # it has no first byte

    def get(self, name: str, start: int, stop: int, if_match: str | None) -> Answer:
        options: GetOptions = {"range": (start, stop)}
        if if_match is not None and self._location.kind != "memory":  # whose ETags are not quoted as it wants them
            options["if_match"] = if_match
        answer = self._obstore.get(*self._place(name), options=options)
        found, version = answer.range, _version(answer.meta)
        if stop - start < _GATHERED_FROM or found != (start, stop):
            return Answer(memoryview(answer.bytes()), *found, version=version)
        # One answer after the other in the same memory: the library would ask the system for new pages each time.
        memory, filled = self._buffers.take(stop - start), 0
        for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
            if filled + len(chunk) > len(memory):
                return Answer(memoryview(b""), *found, version=version)  # too much: nothing of it is to be believed
            memory[filled : filled + len(chunk)] = memoryview(chunk)
            filled += len(chunk)
        return Answer(memory[:filled].toreadonly(), *found, version=version)

    def stream(self, name: str) -> tuple[Version, Iterator[memoryview]]:
        store, path = self._place(name, timeout=_STREAM_TIMEOUT)
        answer = self._obstore.get(store, path)
        return _version(answer.meta), map(memoryview, answer.stream(min_chunk_size=1 << 20))

    def put(self, name: str, data: bytes, *, exclusive: bool) -> None:
        store, path = self._place(name)
        mode: Any = "create" if exclusive else "overwrite"
        self._obstore.put(store, path, data, mode=mode, use_multipart=False)

    def upload(self, name: str, file: BinaryIO) -> None:
        store, path = self._place(name)
        with file:
            file.seek(0)
            self._obstore.put(store, path, file, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_A_TIME)

    def delete(self, name: str) -> None:
        store, path = self._place(name)
        self._obstore.delete(store, path)

    def abort_uploads(self) -> builtins.list[str]:
        if self._location.kind != "s3" or not have_boto3():
            return []
        try:
            return list(abort_uploads(self._location))
        except UnavailableError as error:
            raise UnavailableError(f"{shown(self._location.url)}: {error}") from None

    def sign(self, name: str) -> tuple[str, dict[str, str]] | None:
        store, path = self._place(name)
        if self._location.kind == "http":
            return join_url(self._url, name), self._options.get("default_headers", {})
        try:
            url: str = self._obstore.sign(cast("S3Store", store), "GET", path, timedelta(minutes=1))
        except (self._obstore.exceptions.BaseError, ValueError, TypeError):  # no signature where there are no secrets
            return None
        return url, {}

    def _place(self, name: str, *, timeout: str | None = None) -> tuple[ObjectStore, str]:
        """Return the library's store and the path in it.

        A web server is one store, with the connections it keeps, unless its URL has a query, which the library would
        put before the name; then, and where it might quote the name otherwise, each file is a store of its own.
        """
        if self._root is not None and timeout is None:
            return self._root, name
        options = self._options if timeout is None else {**self._options, "timeout": timeout}
        if self._location.kind != "http":
            return self._open(self._url, options), name
        plain = "?" not in self._url and _PLAIN_NAME.fullmatch(name) is not None
        url, path = (self._url.rstrip("/"), name) if plain else (join_url(self._url, name), "")
        store = self._webs.get((url, timeout)) or self._open(url, options)
        return self._webs.setdefault((url, timeout), store), path

    def _open(self, url: str, options: dict[str, Any]) -> ObjectStore:
        from obstore.store import HTTPStore, from_url

        location = self._location
        shared: dict[str, Any] = {"client_options": options, "retry_config": {"max_retries": 0}}
        if location.kind == "memory":
            return _memory_store(location.url)
        try:
            if location.kind == "http":
                return HTTPStore(url, **shared)
            config: dict[str, Any] = dict(location.config)
            if location.kind == "s3":
                config.setdefault("checksum_algorithm", "sha256")  # what arrives is what was sent, or is refused
                if "access_key_id" in config:  # as they are: not mixed with what the environment has
                    shared["credential_provider"] = functools.partial(_given_credentials, _pop_credentials(config))
                if self._profile is not None:
                    shared["credential_provider"] = self._profile.credentials()
                    if self._profile.region is not None:
                        config.setdefault("region", self._profile.region)
            store: ObjectStore = from_url(url, config=cast("S3Config", config), **shared)
        except (self._obstore.exceptions.BaseError, ValueError, TypeError) as error:
            unknown = next((name for name in location.config if f"'{name}'" in str(error)), None)
            problem = f"{unknown}: no such storage option" if unknown else "the URL or a storage option is not valid"
            raise StoreError(f"{shown(url)}: {problem}. Check them.") from None
        return store


def _profile(location: Location) -> Profile | None:
    """Return where credentials come from if options do not give them, or None for the library's own way."""
    config = location.config
    if location.kind != "s3" or "access_key_id" in config or config.get("skip_signature", "").lower() == "true":
        return None
    where = shown(location.url)
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
    """Return the store of that name, the same one for the whole process: it lives nowhere else."""
    from obstore.store import MemoryStore

    del url
    return MemoryStore()
