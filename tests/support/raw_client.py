"""HTTP requests over raw sockets, and what is served in the tests of the servers."""

from __future__ import annotations

import hashlib
import random
import socket
from dataclasses import dataclass

from support.wire import LOOPBACK, parse_headers

DATA = random.Random(7).randbytes(50_000)  # noqa: S311 -- bytes to serve
ETAG = f'"{hashlib.sha256(DATA).hexdigest()[:32]}"'
REQUESTED = "bytes=1000-2999"


@dataclass(frozen=True)
class Seen:
    """A response, and the state of the connection afterwards (open, closed or reset)."""

    status: int
    headers: dict[str, str]
    body: bytes
    then: str


def talk(port: int, target: str, headers: dict[str, str] | None = None, *, method: str = "GET") -> Seen:
    """Make one request on a raw socket, and read no more than the response's Content-Length."""
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
    return Seen(int(head.split()[1]), parse_headers(head + b"\r\n\r\n"), body, then)


def head_of(method: str, target: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: example.test", *(f"{n}: {v}" for n, v in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


def is_complete(received: bytes, method: str) -> bool:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    return method == "HEAD" or len(body) >= int(parse_headers(head + b"\r\n\r\n")["content-length"])


def state_of(connection: socket.socket) -> str:
    """Return the state of the connection shortly after a response was read."""
    connection.settimeout(0.005)
    try:
        return "more" if connection.recv(1) else "closed"
    except TimeoutError:
        return "open"


def ranged(port: int, requested: str = REQUESTED, **headers: str) -> Seen:
    return talk(
        port, "/data", {"Range": requested, **{name.replace("_", "-"): value for name, value in headers.items()}}
    )
