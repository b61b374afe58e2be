"""An HTTP proxy that injects faults into a share of the responses, reproducibly, as a context manager."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from support.wire import LOOPBACK, Request, Wire, Wires, edit_head, listening, parse_headers, response_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

# Faults that hold for any request; the others need a response with a body to spoil.
_KINDS_OF_ALL_METHODS = ("reset", "stall", "503")
_KINDS_OF_RANGES = ("wrong_range", "ignored_range")
ALL_KINDS = (
    *("cut", "reset", "stall", "drip", "503", "wrong_range", "ignored_range"),
    *("short", "extra", "flipped", "changed"),
)
# Without the one that clients do not retry: the object is another version.
TRANSIENT_KINDS = tuple(kind for kind in ALL_KINDS if kind != "changed")


@dataclass(slots=True)
class FaultProxy:
    """A running proxy: `requests` counts all requests, `injected` the faults that were made, by kind."""

    port: int
    requests: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    paused: bool = False

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def pause(self) -> None:
        """Inject nothing from now on. Requests made meanwhile do not change the faults after `resume`."""
        self.paused = True

    def resume(self) -> None:
        self.paused = False


@contextlib.contextmanager
def fault_proxy(
    upstream_host: str,
    upstream_port: int,
    *,
    seed: int,
    rate: float,
    kinds: Iterable[str] = ALL_KINDS,
    only: Callable[[Request], bool] | None = None,
    max_faults_in_a_row: int = 3,
    retry_after: str | None = "0",
    stall_s: float = 5.0,
    drip_s: float = 0.3,
    sign: Callable[[str, str], Mapping[str, str]] | None = None,
) -> Iterator[FaultProxy]:
    """Pass HTTP requests on unchanged (also Host, so that signatures hold), and spoil a share of the responses.

    The fault of a request depends on the seed, the request (method, path, query, range) and on how often it was made
    before, and so not on the timing of threads. The kinds:

    - `cut`: FIN within the body. `reset`: RST before the response or within the body. `stall`: part of the response,
      then nothing until the client goes away, `stall_s` at most. `drip`: all of it, in small pieces, within `drip_s`.
    - `503`: with Retry-After, unless that is None.
    - `wrong_range`: 206 with the bytes and the Content-Range of another range of the same length. `ignored_range`: 200
      and the whole object.
    - `short`, `extra`: Content-Length and body agree on fewer or more bytes than Content-Range and the client say.
    - `flipped`: one bit of the body is another. `changed`: as if the object had been replaced by one of the same
      length: 412 to an If-Match, else another ETag (where there is one) and other bytes.

    `wrong_range` and `ignored_range` are made for requests with a range only, and faults in the body for responses with
    a body and status 200 or 206 only. `cut`, `reset` and `stall` end the connection; the others keep it.

    Args:
        upstream_host: Where the real server listens.
        upstream_port: Its port.
        seed: Another seed draws other faults.
        rate: The share of the requests to spoil, 0..1.
        kinds: What to choose from.
        only: Which requests may be spoiled; all GETs if None. Of a request with another method only `reset`, `stall`
            (the server may have done the request) and `503` (it has not) are made.
        max_faults_in_a_row: After this many faults, the same request succeeds, so that retries help.
        retry_after: The value of that header in a 503.
        stall_s: The longest silence of a `stall`.
        drip_s: How long a `drip` takes.
        sign: Returns the headers that sign a method and target (`S3Server.sign`). Needed for `wrong_range` and
            `ignored_range` where the client signs its Range header, as obstore does, and reads are not public.

    Raises:
        RuntimeError: at the end, if the server's response did not allow a fault to be made.
    """
    unknown = set(kinds := tuple(kinds)) - set(ALL_KINDS)
    if unknown or not 0 <= rate <= 1:
        raise ValueError(f"unknown kinds {sorted(unknown)} or a rate not in 0..1: {rate}")
    settings = _Settings(retry_after, stall_s, drip_s, sign)
    plan = _FaultPlan(seed, rate, kinds, max_faults_in_a_row, only or (lambda request: request.method == "GET"))

    def converse(client: Wire, wires: Wires) -> None:
        with Upstream(upstream_host, upstream_port, wires) as upstream:
            while (request := client.request()) is not None:
                fault = plan.draw(request, proxy)
                exchange = _Exchange(request, client, upstream, settings, proxy, plan)
                if fault is None:
                    exchange.pass_on(upstream.send(request, request.head, client.body(request.headers)))
                elif not exchange.spoil(*fault):
                    return
                if not request.keeps_alive:
                    return

    proxy = FaultProxy(port=0)
    with listening(converse) as port:
        proxy.port = port
        yield proxy


@dataclass(frozen=True, slots=True)
class _Settings:
    retry_after: str | None
    stall_s: float
    drip_s: float
    sign: Callable[[str, str], Mapping[str, str]] | None


@dataclass(slots=True)
class _FaultPlan:
    """Draws the fault of each request, and counts."""

    seed: int
    rate: float
    kinds: tuple[str, ...]
    max_in_a_row: int
    only: Callable[[Request], bool]
    made: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)
    row: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def draw(self, request: Request, proxy: FaultProxy) -> tuple[str, random.Random] | None:
        """Return the kind of fault for this request and what decides its details, or None to pass it on."""
        eligible = self.only(request)
        with self.lock:
            proxy.requests += 1
            if proxy.paused or not eligible:
                return None
            # The signature in a presigned URL changes each time, but the request is the same.
            query = "&".join(part for part in request.query.split("&") if not part.lower().startswith("x-amz-"))
            key = (request.method, f"{request.path}?{query}" if query else request.path, request.range)
            self.made[key] += 1
            draws = random.Random(f"{self.seed}:{key[0]}:{key[1]}:{key[2]}:{self.made[key]}")  # noqa: S311
            kinds = self._kinds_for(request)
            if draws.random() >= self.rate or not kinds or self.row[key] >= self.max_in_a_row:
                self.row[key] = 0
                return None
            self.row[key] += 1
            return draws.choice(kinds), draws

    def _kinds_for(self, request: Request) -> list[str]:
        if request.method != "GET":
            return [kind for kind in self.kinds if kind in _KINDS_OF_ALL_METHODS]
        return [kind for kind in self.kinds if request.range is not None or kind not in _KINDS_OF_RANGES]


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the server: its head as received, and its body as it arrives."""

    status: int
    head: bytes
    headers: Mapping[str, str]
    body: Iterator[bytes]


class Upstream:
    """The connection to the server that belongs to one connection of a client; made anew where it was closed."""

    def __init__(self, host: str, port: int, wires: Wires) -> None:
        self._address = (host, port)
        self._wires = wires
        self._connection = contextlib.ExitStack()
        self._wire: Wire | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, request: Request, head: bytes, body: Iterable[bytes] = ()) -> Response:
        """Send a head and a body; `request` is what the head is a form of. Read the response's body before the next."""
        wire = self._connected()
        if "transfer-encoding" in request.headers:
            body = [b"".join(body)]
            head = edit_head(head, {"transfer-encoding": None, "content-length": str(len(body[0]))})
        for piece in itertools.chain((head,), body):
            # A server may refuse and close before it has read the body: its response counts, not the broken pipe.
            with contextlib.suppress(ConnectionError):
                wire.socket.sendall(piece)
        status = 100
        while status < 200:  # responses like "100 Continue" come before the response
            response = wire.head()
            if not response:
                raise ConnectionResetError("the server closed the connection without a response")
            status = int(response.split(b" ", 2)[1])
        headers = parse_headers(response)
        if request.method == "HEAD" or status in {204, 304}:
            return Response(status, response, headers, iter(()))
        if "content-length" in headers:
            return Response(status, response, headers, wire.body(headers))
        # Chunks, or a body that ends with the connection: it goes on with a length instead.
        data = b"".join(wire.body(headers)) if "transfer-encoding" in headers else wire.rest()
        response = edit_head(response, {"transfer-encoding": None, "content-length": str(len(data))})
        return Response(status, response, parse_headers(response), iter((data,)))

    def _connected(self) -> Wire:
        if self._wire is not None and _is_readable(self._wire.socket):
            self._connection.close()  # the server closed it while it was idle
            self._wire = None
        if self._wire is None:
            self._wire = self._connection.enter_context(self._wires.adopt(socket.create_connection(self._address)))
        return self._wire


def _is_readable(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)
    return True


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request of a client and its response."""

    request: Request
    client: Wire
    upstream: Upstream
    settings: _Settings
    proxy: FaultProxy
    plan: _FaultPlan

    def pass_on(self, response: Response) -> None:
        first = next(response.body, b"")
        self.client.socket.sendall(response.head + first)
        for piece in response.body:
            self.client.socket.sendall(piece)

    def spoil(self, kind: str, draws: random.Random) -> bool:
        """Make the fault; return whether the connection to the client goes on."""
        if kind == "503" or (kind == "changed" and "if-match" in self.request.headers):
            return self._refuse(kind)
        if kind == "reset" and draws.random() < 0.5:
            for _ in self.client.body(self.request.headers):
                pass
            self._count(kind)
            self.client.reset()
            return False
        response = self.upstream.send(self.request, self.request.head, self.client.body(self.request.headers))
        body = b"".join(response.body)
        if self.request.method != "GET":
            return self._keep_silent(kind)
        if not body or response.status not in ({206} if kind in _KINDS_OF_RANGES else {200, 206}):
            self.client.socket.sendall(response.head + body)
            return True
        if kind in {"cut", "reset", "stall", "drip"}:
            return self._break(kind, response.head, body, draws)
        if kind == "wrong_range":
            head, body = self._another_range(response, body, draws)
        elif kind == "ignored_range":
            instead = self._request_instead(None, 200)
            head, body = instead.head, b"".join(instead.body)
        else:
            head, body = _with_other_bytes(kind, response, body, draws)
        self._count(kind)
        self.client.socket.sendall(head + body)
        return True

    def _refuse(self, kind: str) -> bool:
        for _ in self.client.body(self.request.headers):
            pass
        status, code = (503, "SlowDown") if kind == "503" else (412, "PreconditionFailed")
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'.encode()
        headers = {"Content-Type": "application/xml", "Content-Length": str(len(body))}
        if kind == "503" and self.settings.retry_after is not None:
            headers["Retry-After"] = self.settings.retry_after
        self._count(kind)
        self.client.socket.sendall(response_head(status, headers) + (body if self.request.method != "HEAD" else b""))
        return True

    def _keep_silent(self, kind: str) -> bool:
        """The server has done the request, but the client gets no response."""
        self._count(kind)
        if kind == "reset":
            self.client.reset()
        else:
            self._wait_for_the_client()
        return False

    def _break(self, kind: str, head: bytes, body: bytes, draws: random.Random) -> bool:
        sent = draws.randrange(len(body))
        self._count(kind)
        if kind == "drip":
            step = max(1, -(-len(body) // 8))
            self.client.socket.sendall(head)
            for start in range(0, len(body), step):
                time.sleep(self.settings.drip_s / 8)
                self.client.socket.sendall(body[start : start + step])
            return True
        self.client.socket.sendall(head + body[:sent])
        if kind == "reset":
            self.client.reset()
        elif kind == "stall":
            self._wait_for_the_client()
        return False

    def _wait_for_the_client(self) -> None:
        self.client.socket.settimeout(self.settings.stall_s)
        with contextlib.suppress(TimeoutError):
            self.client.socket.recv(1)

    def _another_range(self, response: Response, body: bytes, draws: random.Random) -> tuple[bytes, bytes]:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers["content-range"])
        if match is None:
            raise RuntimeError(f"the server sent Content-Range {response.headers['content-range']!r}")
        start, size = int(match[1]), int(match[3])
        if len(body) == size:  # there is no other range of this length: the object has one more byte in front
            return edit_head(response.head, {"content-range": f"bytes 1-{size}/{size + 1}"}), body[1:] + body[:1]
        other = draws.randrange(size - len(body))
        other += other >= start
        instead = self._request_instead(f"bytes={other}-{other + len(body) - 1}", 206)
        return instead.head, b"".join(instead.body)

    def _request_instead(self, range_header: str | None, status: int) -> Response:
        """Ask the server for the same object with another Range header, or none."""
        changes: dict[str, str | None] = {"range": range_header}
        if self.settings.sign is not None and "authorization" in self.request.headers:
            signed = (name for name in self.request.headers if name.startswith("x-amz-") or name == "authorization")
            changes |= dict.fromkeys(signed) | dict(self.settings.sign(self.request.method, self.request.target))
        response = self.upstream.send(self.request, edit_head(self.request.head, changes))
        if response.status != status:
            raise RuntimeError(
                f"{self.request.method} {self.request.path}: the server responded with {response.status} to the "
                f"proxy's own request for Range {range_header}, expected {status}. Where reads are signed, pass "
                "sign=S3Server.sign."
            )
        return response

    def _count(self, kind: str) -> None:
        with self.plan.lock:
            self.proxy.injected[kind] += 1


def _with_other_bytes(kind: str, response: Response, body: bytes, draws: random.Random) -> tuple[bytes, bytes]:
    """Return a head and a body that match each other, but not the request."""
    changes: dict[str, str | None] = {}
    if kind == "short":
        body = body[: draws.randrange(len(body))]
    elif kind == "extra":
        body += draws.randbytes(draws.randrange(1, 65))
    elif kind == "flipped":
        bit = draws.randrange(8 * len(body))
        spoiled = bytearray(body)
        spoiled[bit // 8] ^= 1 << bit % 8
        body = bytes(spoiled)
    else:
        body = body.translate(bytes(255 - value for value in range(256)))
        if "etag" in response.headers:
            changes["etag"] = f'"{draws.randbytes(16).hex()}"'
    return edit_head(response.head, {**changes, "content-length": str(len(body))}), body
