"""The fault proxy: each kind of fault, and which requests it spoils."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from support.fault_proxy import ALL_KINDS, TRANSIENT_KINDS, FaultProxy, fault_proxy
from support.http_server import HttpServer, basic_authorization, http_server
from support.raw_client import DATA, ETAG, REQUESTED, Seen, head_of, is_complete, ranged, talk
from support.wire import LOOPBACK, Wire, Wires, has_range, listening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def always(site: HttpServer, kind: str, **settings: Any) -> Iterator[FaultProxy]:
    """Spoil each GET in this way, and check that the faults are counted."""
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=1, kinds=[kind], max_faults_in_a_row=99, **settings) as proxy:
        yield proxy
    assert proxy.injected == Counter({kind: proxy.requests})


def test_cut_closes_within_the_body(site: HttpServer) -> None:
    """Content-Length is that of the whole body; fewer bytes arrive, then FIN."""
    with always(site, "cut") as proxy:
        seen = [ranged(proxy.port) for _ in range(5)]
    for got in seen:
        assert (got.status, got.headers["content-length"], got.then) == (206, "2000", "closed")
        assert len(got.body) < 2000
        assert DATA[1000:3000].startswith(got.body)
    assert len({len(got.body) for got in seen}) > 1


def test_reset_breaks_the_connection(site: HttpServer) -> None:
    """RST comes before or within the response."""
    with always(site, "reset") as proxy:
        seen = [ranged(proxy.port) for _ in range(10)]
    assert {got.then for got in seen} == {"reset"}
    assert all(len(got.body) < 2000 for got in seen)
    assert 0 < len(site.requests) < 10


def test_stall_is_silent_and_ends_after_its_time(site: HttpServer) -> None:
    """A part arrives, then nothing on an open connection, and in the end FIN."""
    with always(site, "stall", stall_s=60) as proxy:
        with socket.create_connection((LOOPBACK, proxy.port), timeout=60) as connection:
            connection.sendall(head_of("GET", "/data", {"Range": REQUESTED}))
            received = connection.recv(1 << 16)
            connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                while piece := connection.recv(1 << 16):
                    received += piece
                pytest.fail("the proxy closed the connection")
        assert b"Content-Length: 2000" in received
        assert not is_complete(received, "GET")
    with always(site, "stall", stall_s=0.1) as proxy:
        got = ranged(proxy.port)
    assert (got.status, got.then, len(got.body) < 2000) == (206, "closed", True)


def test_drip_sends_all_in_small_pieces(site: HttpServer) -> None:
    """Every byte arrives, but slowly, and the connection is kept."""
    with always(site, "drip", drip_s=0.16) as proxy:
        with socket.create_connection((LOOPBACK, proxy.port), timeout=10) as connection:
            connection.sendall(head_of("GET", "/data", {"Range": REQUESTED}))
            pieces = [connection.recv(1 << 16)]
            while not is_complete(b"".join(pieces), "GET"):
                pieces.append(connection.recv(1 << 16))
        assert b"".join(pieces).endswith(DATA[1000:3000])
        assert max(map(len, pieces)) < 2000
        assert ranged(proxy.port).then == "open"


@pytest.mark.parametrize("retry_after", ["0", "7", None])
def test_503_has_retry_after(site: HttpServer, retry_after: str | None) -> None:
    """With the given value, or without the header; the server gets no request."""
    with always(site, "503", retry_after=retry_after) as proxy:
        got = ranged(proxy.port)
    assert (got.status, got.headers.get("retry-after"), got.then) == (503, retry_after, "open")
    assert b"<Code>SlowDown</Code>" in got.body
    assert site.requests == []


def test_wrong_range_has_the_bytes_of_another_range(site: HttpServer) -> None:
    """206 with the requested number of bytes, from the range in Content-Range, which is another one."""
    with always(site, "wrong_range") as proxy:
        for requested in (REQUESTED, "bytes=0-49998", "bytes=-2000", "bytes=48000-"):
            right, got = ranged(site.port, requested), ranged(proxy.port, requested)
            where = got.headers["content-range"]
            start, last = map(int, where.removeprefix("bytes ").removesuffix("/50000").split("-"))
            assert (got.status, got.body, got.then) == (206, DATA[start : last + 1], "open")
            assert len(got.body) == len(right.body)
            assert where != right.headers["content-range"]
        whole = ranged(proxy.port, "bytes=0-")
    assert (whole.status, whole.headers["content-range"]) == (206, "bytes 1-50000/50001")
    assert (len(whole.body), whole.body == DATA) == (50_000, False)


def test_ignored_range_is_the_whole_object(site: HttpServer) -> None:
    """200 without Content-Range."""
    with always(site, "ignored_range") as proxy:
        got = ranged(proxy.port, If_Match=ETAG)
    assert (got.status, got.body, got.headers["etag"], got.then) == (200, DATA, ETAG, "open")
    assert "content-range" not in got.headers


def test_short_and_extra_have_another_length(site: HttpServer) -> None:
    """Content-Length matches the body, Content-Range the request."""
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


def test_flipped_differs_in_one_bit(site: HttpServer) -> None:
    """The head is right."""
    right = ranged(site.port)
    with always(site, "flipped") as proxy:
        got = ranged(proxy.port)
    differ = int.from_bytes(got.body) ^ int.from_bytes(right.body)
    assert (got.headers, len(got.body), got.then) == (right.headers, 2000, "open")
    assert differ.bit_count() == 1


def test_changed_is_another_version(site: HttpServer) -> None:
    """Other bytes of the same length under another ETag, or 412 to an If-Match."""
    with always(site, "changed") as proxy:
        got = ranged(proxy.port)
        refused = ranged(proxy.port, If_Match=ETAG)
    assert (got.status, len(got.body), got.then) == (206, 2000, "open")
    assert got.headers["etag"] != ETAG
    assert all(mine != theirs for mine, theirs in zip(got.body, DATA[1000:3000], strict=True))
    assert (refused.status, refused.then) == (412, "open")


def test_whole_objects_are_spoiled_as_well(site: HttpServer) -> None:
    """Without a range the kinds that are about ranges are not chosen; the others are."""
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=1, stall_s=0.05, drip_s=0.05, max_faults_in_a_row=99) as proxy:
        for _ in range(60):
            talk(proxy.port, "/data")
    assert set(proxy.injected) == set(ALL_KINDS) - {"wrong_range", "ignored_range"}
    assert proxy.injected.total() == proxy.requests == 60


# --- The proxy: which requests it spoils ------------------------------------------------------------------------


def test_without_faults_nothing_changes(site: HttpServer) -> None:
    """The server gets the head as sent, with Host, and the client gets the response as sent."""
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=0) as proxy:
        for method, target in (("GET", "/data"), ("HEAD", "/data"), ("GET", "/none"), ("GET", "/a%20name.bin?q=%2F")):
            headers = {"range": REQUESTED, "X-oDD": "  kept  "}
            assert talk(proxy.port, target, headers, method=method) == talk(site.port, target, headers, method=method)
    heads = [request.head for request in site.requests]
    assert heads[::2] == heads[1::2]
    assert heads[0] == head_of("GET", "/data", {"range": REQUESTED, "X-oDD": "  kept  "})
    assert (proxy.requests, proxy.injected.total()) == (4, 0)


def outcomes(site: HttpServer, seed: int, num_threads: int) -> dict[str, list[Seen]]:
    """Request 24 ranges three times each, from several threads; return the responses for each range, in order."""
    requested = [f"bytes={start}-{start + 99}" for start in range(0, 2400, 100)]
    seen: dict[str, list[Seen]] = {name: [] for name in requested}
    settings: dict[str, Any] = {"seed": seed, "rate": 0.5, "stall_s": 0.05, "drip_s": 0.05}
    with fault_proxy(LOOPBACK, site.port, **settings) as proxy:

        def work(mine: list[str]) -> None:
            for name in mine * 3:
                seen[name].append(ranged(proxy.port, name))

        threads = [threading.Thread(target=work, args=(requested[index::num_threads],)) for index in range(num_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 20 < proxy.injected.total() < 52
    return seen


def test_the_seed_decides_the_faults(site: HttpServer) -> None:
    """One thread and four get the same faults, byte for byte; another seed makes others."""
    # How much of what was sent before a RST still arrives is up to the system.
    one, four, other = (
        {name: [("reset",) if got.then == "reset" else got for got in responses] for name, responses in seen.items()}
        for seen in (outcomes(site, 1, 1), outcomes(site, 1, 4), outcomes(site, 2, 4))
    )
    assert one == four
    assert one != other


def test_a_repeated_request_succeeds(site: HttpServer) -> None:
    """At rate 1 every fourth attempt succeeds, for each range, also if the kinds differ."""
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=1, kinds=["503", "short", "flipped"]) as proxy:
        for requested in (REQUESTED, "bytes=0-99"):
            right = ranged(site.port, requested)
            assert [ranged(proxy.port, requested) == right for _ in range(8)] == [False, False, False, True] * 2


def test_a_paused_proxy_injects_nothing(site: HttpServer) -> None:
    """Requests made meanwhile do not change the faults after the pause."""
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


def test_only_selected_requests_are_spoiled(site: HttpServer) -> None:
    """By default no HEAD; with `has_range` no whole objects; responses other than 200 and 206 stay whole."""
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=1, kinds=["503"], only=has_range) as proxy:
        assert ranged(proxy.port).status == 503
        assert talk(proxy.port, "/data").body == DATA
    assert (proxy.requests, proxy.injected.total()) == (2, 1)
    kinds = set(ALL_KINDS) - {"503", "reset"}
    with fault_proxy(LOOPBACK, site.port, seed=1, rate=1, kinds=kinds, max_faults_in_a_row=99) as proxy:
        assert {talk(proxy.port, "/none", {"Range": REQUESTED}).status for _ in range(20)} == {404}
        assert {talk(proxy.port, "/empty").status for _ in range(20)} == {200}
        assert talk(proxy.port, "/data", method="HEAD").status == 200
    assert (proxy.requests, proxy.injected.total()) == (41, 0)


def test_a_write_can_fail_before_and_after_it_was_done(site: HttpServer) -> None:
    """A PUT gets a 503 that the server does not see, or a reset before or after the server wrote."""
    with always(site, "503", only=lambda request: request.method == "PUT") as proxy:
        assert talk(proxy.port, "/data", {"Content-Length": "0"}, method="PUT").status == 503
    assert site.requests == []
    with always(site, "reset", only=lambda request: request.method == "PUT") as proxy:
        seen = [talk(proxy.port, "/data", {"Content-Length": "0"}, method="PUT") for _ in range(10)]
    assert {(got.status, got.then) for got in seen} == {(0, "reset")}
    assert 0 < len(site.requests) < 10


def test_chunked_responses_get_a_length() -> None:
    """Interim responses are dropped, and a server that closes after each response is connected to again."""
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    script = [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ]

    closed = threading.Semaphore(0)

    def converse(wire: Wire, _: Wires) -> None:
        if wire.request() is not None:
            wire.socket.sendall(script.pop(0))
            wire.socket.shutdown(socket.SHUT_WR)
            closed.release()

    with listening(converse) as port, fault_proxy(LOOPBACK, port, seed=1, rate=0) as proxy:
        connection = http.client.HTTPConnection(LOOPBACK, proxy.port, timeout=10)
        with contextlib.closing(connection):
            bodies = []
            for _ in range(3):
                connection.request("GET", "/")
                bodies.append(connection.getresponse().read())
                assert closed.acquire(timeout=60)  # the server's FIN is there before the next request
    assert bodies == [b"abcde", b"until the end", b"ok"]


def test_a_fault_that_cannot_be_made_is_an_error(folder: Path) -> None:
    """Otherwise a test without faults would pass."""
    with (
        http_server(folder, user="me") as server,
        pytest.raises(RuntimeError, match=r"401 to the proxy's own request .* pass sign="),
        fault_proxy(
            LOOPBACK, server.port, seed=1, rate=1, kinds=["ignored_range"], sign=lambda *_: {"authorization": "no"}
        ) as proxy,
    ):
        assert ranged(proxy.port, Authorization=basic_authorization("me", "")).then == "closed"


@pytest.mark.parametrize("wrong", [{"kinds": ["cut", "melt"]}, {"rate": 1.5}])
def test_unknown_kinds_and_impossible_rates_are_refused(wrong: dict[str, Any]) -> None:
    """Nothing is started."""
    settings: dict[str, Any] = {"seed": 1, "rate": 0.5, **wrong}
    with pytest.raises(ValueError, match=r"melt|1\.5"), fault_proxy(LOOPBACK, 1, **settings):
        pass


def test_a_client_with_checks_and_retries_gets_every_byte(site: HttpServer) -> None:
    """Two thousand requests on kept connections, with all transient faults."""
    right = [DATA[start : start + 100] for start in range(0, 40_000, 100)]
    got: list[bytes] = [b""] * len(right)
    settings: dict[str, Any] = {"kinds": TRANSIENT_KINDS, "stall_s": 0.02, "drip_s": 0.02}
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
    assert set(proxy.injected) == set(TRANSIENT_KINDS)
    assert proxy.requests == len(right) + proxy.injected.total() - proxy.injected["drip"]
