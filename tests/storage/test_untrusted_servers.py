"""Servers that answer oddly: mirrors, redirects, gates, and pages in place of S3."""

from __future__ import annotations

import contextlib
import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from support.http_server import http_server

from wds_real.errors import StoreError, UnavailableError
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wds_real.storage.base import Store

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
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 -- names of http.server

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


# --- refusals of every request ----------------------------------------------------------------------------------------

SKEWED = (
    b"<Error><Code>RequestTimeTooSkewed</Code><Message>hidden</Message><RequestTime>20261130T181500Z</RequestTime>"
    b"<ServerTime>2026-11-30T20:15:00Z</ServerTime><MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds></Error>"
)
AZURE_SKEWED = (
    b"\xef\xbb\xbf<Error><Code>AuthenticationFailed</Code><Message>hidden\nTime:2026-11-30T20:15:00.1234567Z</Message>"
    b"<AuthenticationErrorDetail>Request date header too old: 'Mon, 30 Nov 2026 18:15:00 GMT'"
    b"</AuthenticationErrorDetail></Error>"
)


GOOGLE_KEY = {"private_key": "", "private_key_id": "", "client_email": ""}
OPTIONS_OF: dict[str, Callable[[str], dict[str, str]]] = {
    "s3": lambda endpoint: {
        "endpoint": endpoint, "access_key_id": "a", "secret_access_key": "hidden", "region": "eu-west-1"},
    "az": lambda endpoint: {"endpoint": endpoint, "account_name": "a", "account_key": "aGlkZGVu"},
    "gs": lambda endpoint: {
        "allow_http": "true",
        "service_account_key": json.dumps({"gcs_base_url": endpoint, "disable_oauth": True, **GOOGLE_KEY})},
}  # fmt: skip


REQUESTS = ("get", "get now", "range", "list", "folders", "put", "put new", "create", "delete")


def code_of(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>hidden</Message></Error>".encode()


def requests_of(store: Store) -> dict[str, Callable[[], object]]:
    """Return what can be asked of a store."""

    def create() -> None:
        with store.create("a") as file:
            file.write(b"x")

    return {
        "get": lambda: store.get("a"),
        "get now": lambda: store.get("a", fresh=True),
        "range": lambda: store.get_range("a", 0, 5),
        "list": store.list,
        "folders": store.folders,
        "put": lambda: store.put("a", b"x"),
        "put new": lambda: store.put("a", b"x", exclusive=True),
        "create": create,
        "delete": lambda: store.delete("a"),
    }


@pytest.mark.parametrize(
    "request_", ["get", "get now", "range", "list", "folders", "put", "put new", "create", "delete"]
)
@pytest.mark.parametrize(
    ("scheme", "status", "body", "said"),
    [
        ("s3", 404, code_of("NoSuchBucket"), "there is no such bucket. Check the URL."),
        (
            "az",
            404,
            code_of("ContainerNotFound"),
            "there is no such container. Check the URL and the name of",
        ),
        ("gs", 404, code_of("NoSuchBucket"), "there is no such bucket. Check the URL."),
        ("s3", 403, SKEWED, "this machine's clock is off: 2 h behind the server's. Have it"),
        (
            "az",
            403,
            AZURE_SKEWED,
            "this machine's clock is off: 2 h behind the server's. Have it",
        ),
        ("s3", 403, code_of("AccessDenied"), "access denied. Check"),
        ("az", 403, code_of("AuthorizationPermissionMismatch"), "access denied. Check"),
        ("s3", 403, code_of("InvalidAccessKeyId"), "the server does not know the access key"),
        ("s3", 400, code_of("ExpiredToken"), "the credentials have expired. Get new ones."),
    ],
    ids=[
        "no bucket",
        "no container",
        "no bucket of Google",
        "clock",
        "clock of Azure",
        "denied",
        "denied by Azure",
        "key",
        "expired",
    ],
)
def test_every_request_is_refused_in_words(scheme: str, status: int, body: bytes, said: str, request_: str) -> None:
    """A bucket that is gone, a wrong clock, denied access: the same words from each request, at once, and no secret."""
    with answering(status, body, {"Content-Type": "application/xml"}) as endpoint:
        store = open_store(f"{scheme}://lab/set", storage_options=OPTIONS_OF[scheme](endpoint))
        with pytest.raises(UnavailableError) as caught:
            requests_of(store)[request_]()
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{scheme}://lab/set")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("request_", ["put", "put new", "create"])
def test_a_denied_put_speaks_of_writing(request_: str) -> None:
    """Who may read a public bucket without credentials may not write there."""
    with answering(403, code_of("AccessDenied"), {"Content-Type": "application/xml"}) as endpoint:
        store = open_store("s3://lab/set", storage_options=OPTIONS_OF["s3"](endpoint))
        with pytest.raises(UnavailableError, match=r"write: access denied. Check that the credentials may write there"):
            requests_of(store)[request_]()
