"""The server of `--serve`: ranges as RFC 9110 has them, no other file, no other host."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import pytest

from wds_real.errors import StoreError
from wds_real.explore.page.server import Site, serve
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = b"<!doctype html><p>page</p>"
NAME = "a b#%.tar"
DATA = bytes(range(256)) * 40_000  # more than two pieces of a response


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    (folder / NAME).write_bytes(DATA)
    (folder / "secret.txt").write_text("secret")
    store = LocalStore(folder)
    with serve(Site(PAGE, store, {NAME: len(DATA), "gone.tar": 100}), 0) as url:
        yield url


def request(url: str, path: str, *, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


SHARD = f"/shards/{quote(NAME)}"


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=100-299", 100, 300), ("bytes=-10", len(DATA) - 10, len(DATA)),
     ("bytes=10239000-", 10_239_000, len(DATA)), ("bytes=5-99999999", 5, len(DATA))],
)  # fmt: skip
def test_ranges_are_served(url: str, header: str, start: int, stop: int) -> None:
    """A range gets 206, its place and exactly its bytes."""
    status, headers, body = request(url, SHARD, Range=header)
    assert (status, headers["content-range"]) == (206, f"bytes {start}-{stop - 1}/{len(DATA)}")
    assert body == DATA[start:stop]


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=x-1", ""])
def test_what_is_no_single_range_gets_all(url: str, header: str) -> None:
    """An unknown or multiple range is ignored, as the standard allows."""
    status, _, body = request(url, SHARD, Range=header)
    assert (status, body) == (200, DATA)


@pytest.mark.parametrize("header", [f"bytes={len(DATA)}-", "bytes=9-5", "bytes=-0"])
def test_empty_ranges_get_416(url: str, header: str) -> None:
    """A range without a byte is refused, with the length."""
    status, headers, _ = request(url, SHARD, Range=header)
    assert (status, headers["content-range"]) == (416, f"bytes */{len(DATA)}")


def test_head_has_the_headers_and_no_body(url: str) -> None:
    """HEAD tells the lengths of page and shard."""
    assert request(url, "/", method="HEAD")[1]["content-length"] == str(len(PAGE))
    status, headers, body = request(url, SHARD, method="HEAD")
    assert (status, headers["content-length"], headers["accept-ranges"], body) == (200, str(len(DATA)), "bytes", b"")


@pytest.mark.parametrize("path", ["/", "/index.html", "/?x=1"])
def test_the_page_is_served_with_safe_headers(url: str, path: str) -> None:
    """The page is HTML that no other site can frame, and nothing is cached or guessed."""
    status, headers, body = request(url, path)
    assert (status, body, headers["content-type"]) == (200, PAGE, "text/html; charset=utf-8")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        *("/shards/secret.txt", "/shards/../secret.txt", "/shards/..%2fsecret.txt", "/shards/%2e%2e/%2e%2e/etc/passwd"),
        *("/shards//etc/passwd", "/../../etc/passwd", "/etc/passwd", "/shards", "/shards/", "/shards/gone.tar"),
        *("/secret.txt", "//evil/", "/shards/%00"),
    ],
)
def test_nothing_else_is_served(url: str, path: str) -> None:
    """Only the names of the manifest lead to files: no other file of the folder or of the machine is read."""
    status, _, body = request(url, path)
    assert status == 404
    assert b"secret" not in body
    assert b"root" not in body


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", ""])
def test_other_host_names_are_refused(url: str, host: str) -> None:
    """A name that another site made lead to this machine gets nothing (DNS rebinding)."""
    assert request(url, "/", Host=host)[0] == 403


def test_localhost_is_the_same_place(url: str) -> None:
    """The page can be opened under both names of the machine."""
    assert request(url, "/", Host=f"localhost:{urlsplit(url).port}")[0] == 200


def test_other_methods_are_refused(url: str) -> None:
    """Nothing can be written."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert request(url, "/", method=method)[0] == 501


def test_it_listens_on_this_machine_only(url: str) -> None:
    """The socket is bound to the loopback address, and closed at the end."""
    assert urlsplit(url).hostname == "127.0.0.1"
    with serve(Site(PAGE, None, {}), 0) as other:
        port = urlsplit(other).port
        assert request(other, "/shards/x.tar")[0] == 404
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port or 0), timeout=5):
        pass


def test_a_taken_port_is_an_error(url: str) -> None:
    """The message says what to do."""
    port = urlsplit(url).port
    with (
        pytest.raises(StoreError, match=rf"port {port}: cannot be served on: .*--serve PORT"),
        serve(Site(PAGE, None, {}), port or 0),
    ):
        pass


def test_a_shard_that_shrank_ends_the_connection(tmp_path: Path) -> None:
    """A response whose bytes cannot be read is never filled with others."""
    (tmp_path / "s.tar").write_bytes(DATA[: 5 << 20])
    with serve(Site(PAGE, LocalStore(tmp_path), {"s.tar": len(DATA)}), 0) as url:
        with pytest.raises(http.client.IncompleteRead):
            request(url, "/shards/s.tar")
        status, _, body = request(url, "/shards/s.tar", Range=f"bytes={6 << 20}-{7 << 20}")
        assert status == 502
        assert b"s.tar" in body
