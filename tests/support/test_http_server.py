"""The HTTP file server, seen from plain sockets."""

from __future__ import annotations

import contextlib
import http.client
import socket
from typing import TYPE_CHECKING

import pytest

from support.http_server import HttpServer, basic_authorization, http_server
from support.raw_client import DATA, ETAG, REQUESTED, ranged, talk
from support.wire import LOOPBACK, Request

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_sent_whole_and_its_head_without_a_body(site: HttpServer) -> None:
    """GET sends all bytes with length and ETag, HEAD the same head; the connection is kept."""
    got = talk(site.port, "/data")
    assert (got.status, got.body, got.then) == (200, DATA, "open")
    assert got.headers["etag"] == ETAG
    assert got.headers["content-length"] == str(len(DATA))
    assert got.headers["accept-ranges"] == "bytes"
    head = talk(site.port, "/data", {"Range": REQUESTED}, method="HEAD")
    assert (head.status, head.headers, head.body) == (200, got.headers, b"")


@pytest.mark.parametrize(
    ("requested", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-2999", 1000, 3000),
        ("bytes=49999-", 49_999, 50_000),
        ("bytes=49000-99999", 49_000, 50_000),
        ("bytes=-10", 49_990, 50_000),
        ("bytes=-99999", 0, 50_000),
    ],
)
def test_a_range_is_served(site: HttpServer, requested: str, start: int, stop: int) -> None:
    """206 with Content-Range; a range past the end has the bytes that exist."""
    got = ranged(site.port, requested)
    assert (got.status, got.body) == (206, DATA[start:stop])
    assert got.headers["content-range"] == f"bytes {start}-{stop - 1}/50000"


@pytest.mark.parametrize("requested", ["bytes=50000-", "bytes=50000-50009", "bytes=-0"])
def test_a_range_beyond_the_end_is_416(site: HttpServer, requested: str) -> None:
    """The response says the file's length."""
    got = ranged(site.port, requested)
    assert (got.status, got.headers["content-range"]) == (416, "bytes */50000")
    assert talk(site.port, "/empty", {"Range": requested}).status == 416


@pytest.mark.parametrize("requested", ["bytes=5-3", "bytes=-", "bytes=0-1,5-6", "lines=0-1", "bytes=a-b"])
def test_an_invalid_range_is_ignored(site: HttpServer, requested: str) -> None:
    """The response is 200 and the whole file."""
    got = ranged(site.port, requested)
    assert (got.status, got.body) == (200, DATA)


def test_a_server_without_ranges_sends_the_whole_file(folder: Path) -> None:
    """The response to a request for a range is 200."""
    with http_server(folder, ranges=False) as server:
        got = ranged(server.port)
    assert (got.status, got.body, got.headers["accept-ranges"]) == (200, DATA, "none")
    assert "content-range" not in got.headers


@pytest.mark.parametrize(
    ("wanted", "status"), [(ETAG, 206), ("*", 206), (f'"other", {ETAG}', 206), ('"other"', 412), (f"W/{ETAG}", 412)]
)
def test_if_match_compares_versions(site: HttpServer, wanted: str, status: int) -> None:
    """Strong ETags are compared, also in a list; a weak one never matches."""
    got = ranged(site.port, If_Match=wanted)
    assert got.status == status
    assert (got.body == DATA[1000:3000]) == (status == 206)


def test_a_replaced_file_has_another_etag(folder: Path) -> None:
    """If-Match detects a file of the same length that was swapped in between two requests."""

    def swap(request: Request) -> None:
        if request.range is None:
            (folder / "new").write_bytes(DATA[::-1])
            (folder / "new").replace(folder / "data")

    with http_server(folder, on_request=swap) as server:
        before = ranged(server.port)
        after = talk(server.port, "/data")
        assert ranged(server.port, If_Match=before.headers["etag"]).status == 412
    assert before.headers["etag"] == ETAG != after.headers["etag"]
    assert after.body == DATA[::-1]


def test_without_etags_if_match_is_ignored(folder: Path) -> None:
    """Such a server cannot tell versions apart."""
    with http_server(folder, etags=False) as server:
        got = ranged(server.port, If_Match='"other"')
    assert (got.status, "etag" in got.headers) == (206, False)


def test_basic_authentication_is_required(folder: Path) -> None:
    """401 without the right user and password."""
    wrong, right = (basic_authorization("me", password) for password in ("other", "pass:word"))
    with http_server(folder, user="me", password="pass:word") as server:  # noqa: S106 -- of this server only
        assert talk(server.port, "/data").status == 401
        assert talk(server.port, "/data", {"Authorization": wrong}).status == 401
        assert talk(server.port, "/data", {"Authorization": right}).body == DATA


def test_a_redirect_leads_to_the_file(site: HttpServer) -> None:
    """302 names the path without /redirect, and keeps the query."""
    got = talk(site.port, "/redirect/a%20name.bin?token=1")
    assert (got.status, got.headers["location"]) == (302, "/a%20name.bin?token=1")
    assert talk(site.port, got.headers["location"]).body == b"named"


@pytest.mark.parametrize("target", ["/nothing", "/", "/../secret", "/%2e%2e/secret"])
def test_only_files_of_the_folder_are_served(site: HttpServer, target: str) -> None:
    """Everything else is 404."""
    assert talk(site.port, target).status == 404


def test_requests_are_recorded(site: HttpServer) -> None:
    """With method, path, query, range and headers; one connection serves them all."""
    connection = http.client.HTTPConnection(LOOPBACK, site.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/a%20name.bin?x=1", headers={"Range": "bytes=0-1", "X-Who": "me"})
        assert connection.getresponse().read() == b"na"
        first = connection.sock
        connection.request("POST", "/data", body=b"ignored")
        assert connection.getresponse().read() == b"405 Method Not Allowed\n"
        connection.request("GET", "/data")
        assert connection.getresponse().read() == DATA
        assert connection.sock is first
    ranged_get, posted, whole = site.requests
    assert (ranged_get.method, ranged_get.path, ranged_get.query, ranged_get.range) == (
        "GET",
        "/a name.bin",
        "x=1",
        "bytes=0-1",
    )
    assert ranged_get.headers["x-who"] == "me"
    assert (posted.method, whole.range) == ("POST", None)


def test_errors_in_a_thread_are_raised_at_the_end(folder: Path) -> None:
    """An exception in `on_request` is not lost."""

    def fail(request: Request) -> None:
        raise LookupError(request.path)

    with pytest.raises(LookupError, match="/data"), http_server(folder, on_request=fail) as server:
        assert talk(server.port, "/data").then == "closed"


def test_a_server_closes_idle_connections(folder: Path) -> None:
    """At the end of the block they are closed, and the port too."""
    with http_server(folder) as server:
        connection = socket.create_connection((LOOPBACK, server.port), timeout=10)
    with connection:
        assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, server.port), timeout=10)
