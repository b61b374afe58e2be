"""Connections of the HTTP servers in this folder: request heads, bodies, and one thread for each connection.

They use plain sockets. At the end of a server's block, its connections are closed and its threads have ended.
"""

from __future__ import annotations

import contextlib
import http
import socket
import struct
import sys
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request: `path` is decoded, `range` is the header as sent, header names are in lower case."""

    method: str
    path: str
    range: str | None
    headers: Mapping[str, str]
    query: str
    head: bytes = field(repr=False)

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def keeps_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close" and b" HTTP/1.1\r\n" in self.head


def has_range(request: Request) -> bool:
    """Return whether this is a GET of a range; an `only` for a proxy that spoils no whole objects."""
    return request.method == "GET" and request.range is not None


class Wire:
    """A connection read by heads and bodies; one thread reads and closes it, any thread may end it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._file = connection.makefile("rb")

    def head(self) -> bytes:
        """Return the next head with its empty line, or no bytes if the other side has closed the connection."""
        lines = []
        while (line := self._file.readline()) not in {b"\r\n", b""}:
            lines.append(line)
        if lines and not line:
            raise ConnectionResetError("the connection ended within a head")
        return b"".join((*lines, line))

    def request(self) -> Request | None:
        head = self.head()
        if not head:
            return None
        method, target, _ = head.split(b" ", 2)
        path, _, query = target.decode("latin-1").partition("?")
        headers = parse_headers(head)
        if headers.get("expect", "").lower() == "100-continue":  # the body is read in any case
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method.decode(), urllib.parse.unquote(path), headers.get("range"), headers, query, head)

    def body(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        """Yield the body in pieces as they arrive, without the framing of chunks."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._file.readline().partition(b";")[0], 16):
                yield self._file.read(size)
                self._file.readline()
            while self._file.readline() not in {b"\r\n", b""}:
                pass
            return
        left = int(headers.get("content-length", "0"))
        while left:
            piece = self._file.read1(min(left, 1 << 18))
            if not piece:
                raise ConnectionResetError("the connection ended within a body")
            left -= len(piece)
            yield piece

    def rest(self) -> bytes:
        return self._file.read()

    def end(self) -> None:
        """End both directions at once, also where a forked child holds a copy of the descriptor."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def reset(self) -> None:
        """Close with RST instead of FIN: bytes not yet received are lost."""
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        )
        self.close()


class Wires:
    """The open connections of a server, which end with it."""

    def __init__(self) -> None:
        self._open: set[Wire] = set()
        self._ended = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def adopt(self, connection: socket.socket) -> Iterator[Wire]:
        wire = Wire(connection)
        with self._lock:
            self._open.add(wire)
            if self._ended:
                wire.end()
        try:
            yield wire
        finally:
            with self._lock:
                self._open.discard(wire)
            wire.end()
            wire.close()

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for wire in self._open:
                wire.end()


@contextlib.contextmanager
def listening(converse: Callable[[Wire, Wires], None]) -> Iterator[int]:
    """Give each connection to a free port a thread that runs `converse`; yield the port.

    At the end all connections are ended and all threads are done. What a thread raised, other than that its connection
    ended, is raised then.
    """
    wires = Wires()
    threads: list[Future[None]] = []
    closing = threading.Event()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError), wires.adopt(connection) as wire:
            converse(wire, wires)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            if closing.is_set():
                connection.close()
                return
            threads.append(pool.submit(serve, connection))

    with socket.create_server((LOOPBACK, 0), backlog=512) as listener, ThreadPoolExecutor(max_workers=2048) as pool:
        port: int = listener.getsockname()[1]
        accepting = pool.submit(accept)
        try:
            yield port
        finally:
            closing.set()
            socket.create_connection((LOOPBACK, port)).close()  # wakes `accept`
            accepting.result()
            wires.end()
    for thread in threads:
        thread.result()


def parse_headers(head: bytes) -> dict[str, str]:
    """Return the headers of a head by lower-case name."""
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def response_head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", *(f"{n}: {v}" for n, v in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def edit_head(head: bytes, changes: Mapping[str, str | None]) -> bytes:
    """Return the head with these headers (lower case) replaced or added, or dropped where None."""
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    kept = [line for line in lines if line.partition(":")[0].lower() not in changes]
    added = [f"{name}: {value}" for name, value in changes.items() if value is not None]
    return "\r\n".join([first, *kept, *added, "", ""]).encode("latin-1")
