"""ObstoreClient: single requests, versions, timeouts, and buffers for large responses."""

from __future__ import annotations

import io
import itertools
import urllib.parse
from typing import TYPE_CHECKING

import numpy as np
import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.http_server import http_server

from wds_real.errors import StoreError, UnavailableError
from wds_real.storage.http_errors import Kind, parse_error
from wds_real.storage.obstore_client import ObstoreClient, Version
from wds_real.storage.store import open_store
from wds_real.storage.url import Location

if TYPE_CHECKING:
    from pathlib import Path

    from support.s3 import S3Server

NUMBERS = itertools.count()


@pytest.fixture
def client() -> ObstoreClient:
    """A client of an empty store in memory."""
    return ObstoreClient(Location.parse(f"memory://client-{next(NUMBERS)}"))


def kind_of(client: ObstoreClient, name: str) -> Kind:
    with pytest.raises(client.errors) as caught:
        client.get(name, 0, 1, None)
    return parse_error(caught.value).kind


@pytest.mark.parametrize(("etag", "strong"), [(None, None), ('"a"', '"a"'), ('W/"a"', None)])
def test_only_strong_etags_are_sent(etag: str | None, strong: str | None) -> None:
    """If-Match never matches a weak ETag."""
    assert Version(1, etag).strong_etag == strong


def test_objects_are_written_read_listed_and_removed(client: ObstoreClient) -> None:
    """Each method makes its request; a response says range and version."""
    client.put("b", b"0123456789", exclusive=False)
    client.upload("a", io.BytesIO(b"uploaded"))
    assert client.list() == ["a", "b"]
    response = client.get("b", 2, 5, None)
    assert (bytes(response.data), response.start, response.stop) == (b"234", 2, 5)
    assert response.version == client.head("b")
    assert response.version.num_bytes == 10
    version, chunks = client.stream("b")
    assert (version, b"".join(chunks)) == (response.version, b"0123456789")
    client.delete("b")
    assert client.list() == ["a"]
    assert kind_of(client, "b") is Kind.NOT_FOUND


def test_an_exclusive_write_finds_an_existing_object(client: ObstoreClient) -> None:
    """It fails, and the object stays."""
    client.put("a", b"first", exclusive=True)
    with pytest.raises(client.errors) as caught:
        client.put("a", b"second", exclusive=True)
    assert parse_error(caught.value).kind is Kind.ALREADY_EXISTS
    assert bytes(client.get("a", 0, 5, None).data) == b"first"


def test_an_empty_object_has_a_version(client: ObstoreClient) -> None:
    """Its first byte cannot be requested, so a second request is made."""
    client.put("empty", b"", exclusive=False)
    assert client.head("empty").num_bytes == 0


def test_another_version_is_a_failed_precondition(s3: S3Server) -> None:
    """A request with the ETag of a replaced object fails."""
    s3.put("test", "client/a", b"first")
    client = ObstoreClient(Location.parse("s3://test/client", s3.options))
    etag = client.head("a").strong_etag
    assert bytes(client.get("a", 0, 5, etag).data) == b"first"
    s3.put("test", "client/a", b"other")
    with pytest.raises(client.errors) as caught:
        client.get("a", 0, 5, etag)
    assert parse_error(caught.value).kind is Kind.PRECONDITION_FAILED


def test_a_web_server_is_asked_once_per_request(tmp_path: Path) -> None:
    """The library's own retries are off, and names that it would quote differently are found."""
    for name in ("a.tar", "a b#1.tar"):
        (tmp_path / name).write_bytes(b"0123456789")
    with http_server(tmp_path) as server:
        client = ObstoreClient(Location.parse(server.endpoint))
        assert [bytes(client.get(name, 2, 5, None).data) for name in ("a.tar", "a b#1.tar")] == [b"234"] * 2
        assert kind_of(client, "missing") is Kind.NOT_FOUND
        assert len(server.requests) == 3


def test_uploads_are_aborted_on_s3_only(client: ObstoreClient) -> None:
    """Other stores have none to list."""
    assert client.abort_uploads() == []


def test_an_unknown_option_is_named() -> None:
    """The error does not show its value."""
    with pytest.raises(StoreError, match=r"s3://lab/set: colour: no such storage option") as caught:
        ObstoreClient(Location.parse("s3://lab/set", {"colour": "secret-blue", "skip_signature": "true"}))
    assert "blue" not in str(caught.value)


# --- Large responses, which are read into pooled buffers ----------------------------------------------------


LARGE = np.random.default_rng(0).integers(256, size=9 << 20, dtype=np.uint8).tobytes()


def address(view: bytes | memoryview) -> int:
    return int(np.frombuffer(view, dtype=np.uint8).ctypes.data)


@settings(deadline=None, max_examples=40)
@given(bounds=st.lists(st.tuples(st.integers(0, len(LARGE)), st.integers(0, len(LARGE))), min_size=1, max_size=6))
def test_held_bytes_of_large_responses_are_not_overwritten(bounds: list[tuple[int, int]]) -> None:
    """Ranges of all lengths keep their bytes while others are read, and are read-only."""
    store = open_store("memory://large")
    store.put("a", LARGE)
    ranges = [(min(pair), max(pair)) for pair in bounds]
    found = [store.get_range("a", *one) for one in ranges]
    for (start, stop), data in zip(ranges, found, strict=True):
        assert memoryview(data).readonly
        assert bytes(data) == LARGE[start:stop]


def test_large_responses_reuse_memory() -> None:
    """Responses that are dropped use the same buffer one after the other; one that is held keeps its own."""
    store = open_store("memory://large")
    store.put("a", LARGE)
    addresses = {address(store.get_range("a", start, start + (8 << 20))) for start in range(5)}
    assert len(addresses) == 1
    held = store.get_range("a", 0, 8 << 20)
    assert address(held) != address(store.get_range("a", 0, 8 << 20))


@pytest.mark.parametrize("change", ["cut", "lengthened"])
def test_large_responses_of_another_length_are_rejected(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer or more bytes than requested are an error, even if the library does not notice."""

    class WrongLength:
        """A response with another number of bytes than its range."""

        def __init__(self, response: obstore.GetResult) -> None:
            self.range, self.meta = response.range, response.meta
            self._data = bytes(response.bytes())

        def stream(self, *, min_chunk_size: int) -> list[bytes]:
            data = self._data[:-1] if change == "cut" else self._data + b"x"
            return [data[start : start + min_chunk_size] for start in range(0, len(data), min_chunk_size)]

    store = open_store("memory://large", storage_options={"give_up_after": "1"})
    store.put("a", LARGE)
    get = obstore.get
    monkeypatch.setattr(obstore, "get", lambda *place, **options: WrongLength(get(*place, **options)))
    with pytest.raises(UnavailableError, match="other bytes than requested"):
        store.get_range("a", 5, 5 + (2 << 20))


@pytest.mark.parametrize("folder", ["run#2", "50%", "p%41q", "{a} b", "~[x]*", "a&b=c;d,e$", "ä"])
def test_keys_reach_the_server_as_they_are(s3: S3Server, folder: str) -> None:
    """Written, listed, read and removed under exactly this key, and under no other."""
    client = ObstoreClient(Location.parse(f"s3://test/keys/{folder}", s3.options))
    client.put("a #1%.bin", b"0123", exclusive=True)
    client.upload("b", io.BytesIO(b"uploaded"))
    assert client.list() == ["a #1%.bin", "b"]
    assert bytes(client.get("a #1%.bin", 1, 3, None).data) == b"12"
    status, _, body = s3.request("GET", f"/test/keys/{urllib.parse.quote(folder)}/b")
    assert (status, body) == (200, b"uploaded")
    above = ObstoreClient(Location.parse("s3://test/keys", s3.options))
    assert above.list() == []
    client.delete("a #1%.bin")
    client.delete("b")
    assert client.list() == []
