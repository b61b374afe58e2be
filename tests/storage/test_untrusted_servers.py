"""Servers that answer oddly: mirrors, redirects, gates, and pages in place of S3."""

from __future__ import annotations

import contextlib
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from support.http_server import http_server

from wds_real.errors import StoreError, UnavailableError
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "data").write_bytes(DATA)
    return tmp_path / "site"


@contextlib.contextmanager
def answering(status: int, body: bytes, headers: dict[str, str]) -> Iterator[str]:
    """Run a server that gives the same response to everything; give its URL."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


# --- mirrors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
def test_mirrors_are_read_where_the_bytes_decide(folder: Path, *, ranges: bool) -> None:
    """The same bytes under different ETags: read where a checksum is compared, also by a pickled copy."""
    with http_server(folder, mirrors=2, ranges=ranges) as server:
        store = open_store(server.endpoint)
        store.decide_by_checksums(["data"])
        for each in (store, pickle.loads(pickle.dumps(store))):  # noqa: S301 -- our own
            assert each.get("data") == DATA
            for start in range(0, 1000, 100):
                assert bytes(each.get_range("data", start, start + 50, size=len(DATA))) == DATA[start : start + 50]


def test_mirrors_are_refused_where_nothing_else_decides(folder: Path) -> None:
    """The error says what could be done."""
    with http_server(folder, mirrors=2) as server:
        store = open_store(server.endpoint)
        store.get_range("data", 0, 10)
        with pytest.raises(StoreError, match=r"replaced while it was read.*mirrors.*--checksums"):
            store.get_range("data", 10, 20)


def test_another_length_is_refused_in_any_case(folder: Path) -> None:
    """Checksums do not make an object of another length acceptable."""
    with http_server(folder, mirrors=2) as server:
        store = open_store(server.endpoint)
        store.decide_by_checksums(["data"])
        store.get_range("data", 0, 10)
        (folder / "new").write_bytes(DATA + b"more")
        (folder / "new").rename(folder / "data")
        with pytest.raises(StoreError, match="bytes, expected"):
            store.get_range("data", 0, 10)


# --- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"token": "t"}, {"headers": "Authorization: Bearer t\nCookie: a=b"}])
def test_another_host_gets_no_token(folder: Path, options: dict[str, str]) -> None:
    """A redirect to another host, as a hub makes to its storage, is followed without Authorization and Cookie."""
    with http_server(folder) as other, http_server(folder, token="t") as hub:  # noqa: S106 -- a test's
        store = open_store(f"{hub.endpoint}/elsewhere/{other.port}", storage_options=options)
        assert store.get("data") == DATA
        assert all(request.headers["authorization"] == "Bearer t" for request in hub.requests)
        assert other.requests
        assert not {"authorization", "cookie"} & {name for request in other.requests for name in request.headers}


def test_a_redirect_within_a_host_keeps_the_token(folder: Path) -> None:
    """The same host asks for it again."""
    with http_server(folder, token="t") as hub:  # noqa: S106 -- a test's
        assert open_store(f"{hub.endpoint}/redirect", storage_options={"token": "t"}).get("data") == DATA


def test_redirects_are_bounded(folder: Path) -> None:
    """A circle ends after ten, is not retried, and the message says what it is."""
    with http_server(folder) as server:
        with pytest.raises(UnavailableError, match="the server redirects in a circle"):
            open_store(f"{server.endpoint}/circle").get("data")
        assert len(server.requests) <= 11


# --- gates ------------------------------------------------------------------------------------------------------------


def test_a_gate_opens_with_the_token_only(folder: Path) -> None:
    """Without it, or with another, the error says that credentials are missing, and shows none."""
    with http_server(folder, token="right") as hub:  # noqa: S106 -- a test's
        for options in ({}, {"token": "hidden"}):
            with pytest.raises(UnavailableError, match=r"requires credentials.*HF_TOKEN") as caught:
                open_store(hub.endpoint, storage_options=options).get("data")
            assert "hidden" not in str(caught.value)
        assert open_store(hub.endpoint, storage_options={"token": "right"}).get("data") == DATA


# --- pages in place of S3 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (301, b"<Error><Code>PermanentRedirect</Code></Error>", "wrong region"),
        (400, b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>", "wrong region"),
        (404, b"<Error><Code>NoSuchBucket</Code></Error>", "no such bucket"),
        (404, b"<html>nothing here</html>", "not that of an S3 server"),
        (404, b"", "not that of an S3 server"),
        (403, b"<Error><Code>AccessDenied</Code></Error>", "access denied"),
    ],
)
def test_a_refusal_says_nothing_of_the_object(status: int, body: bytes, reason: str) -> None:
    """It is no missing file, from which would follow that a data set is unfinished."""
    with answering(status, body, {"Content-Type": "application/xml"}) as endpoint:
        options = {"endpoint": endpoint, "access_key_id": "a", "secret_access_key": "b", "region": "eu-west-1"}
        with pytest.raises(UnavailableError, match=reason):
            open_store("s3://lab/set", storage_options=options).get("manifest.json")
