"""A web server for one explorer page and its shards, on this machine only: GET and HEAD, with ranges.

It serves the page, and the shards by their names in the manifest. No other name leads to a file.
"""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from wds_real.errors import MissingError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wds_real.storage.base import RangeReader

__all__ = ["SHARDS_PATH", "Site", "serve"]

SHARDS_PATH = "shards"
_LOOPBACK = "127.0.0.1"
_PIECE = 4 << 20  # bytes of a response that are in memory at once
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Site:
    """What is served.

    Attributes:
        page: Bytes of the page, made with ``shards_url=SHARDS_PATH``.
        shards: Where the shards are read; None for a page without images.
        sizes: Name and length in bytes of each shard.
    """

    page: bytes
    shards: RangeReader | None
    sizes: Mapping[str, int]


@contextlib.contextmanager
def serve(site: Site, port: int) -> Iterator[str]:
    """Serve a site in threads of this process, and yield its URL; it ends with the block.

    Args:
        site: What is served.
        port: On the loopback address; 0 takes any free one.

    Raises:
        StoreError: the port is taken or not allowed.
    """
    try:
        server = _Server((_LOOPBACK, port), _Handler, site)
    except OSError as error:
        raise StoreError(
            f"port {port}: cannot be served on: {error.strerror}. Choose another one with --serve PORT."
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="explorer", daemon=True)
    thread.start()
    try:
        yield f"http://{_LOOPBACK}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[_Handler], site: Site) -> None:
        self.site = site
        super().__init__(address, handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (_LOOPBACK, "localhost")}


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        """Respond with the page, a shard, or a part of one."""
        self._respond(with_body=True)

    def do_HEAD(self) -> None:
        """Respond as to GET, without the body."""
        self._respond(with_body=False)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 -- the base class's name
        """Print nothing."""

    def version_string(self) -> str:
        """Return the name in the Server header, without versions."""
        return "wds-real"

    def _respond(self, *, with_body: bool) -> None:
        site = self.server.site
        if self.headers.get("Host", "").lower() not in self.server.hosts:  # a foreign host name (DNS rebinding)
            self._refuse(HTTPStatus.FORBIDDEN, with_body=with_body)
            return
        path = urlsplit(self.path).path
        folder, _, name = path.removeprefix("/").partition("/")
        if path in ("/", "/index.html"):
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", site.page if with_body else b"", len(site.page))
        elif folder == SHARDS_PATH and site.shards is not None and unquote(name) in site.sizes:
            self._send_shard(site.shards, unquote(name), with_body=with_body)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, with_body=with_body)

    def _send_shard(self, shards: RangeReader, name: str, *, with_body: bool) -> None:
        size = self.server.site.sizes[name]
        part = _part(self.headers.get("Range"), size)
        if part is not None and part.start >= part.stop:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, with_body=with_body, size=size)
            return
        wanted = part or range(size)
        try:
            first = shards.get_range(name, wanted.start, min(wanted.stop, wanted.start + _PIECE)) if with_body else b""
        except MissingError:
            self._refuse(HTTPStatus.NOT_FOUND, with_body=with_body)
            return
        except StoreError as error:
            self._refuse(HTTPStatus.BAD_GATEWAY, with_body=with_body, reason=str(error))
            return
        status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
        extra = {"Accept-Ranges": "bytes"}
        if part is not None:
            extra["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        self._send(status, "application/x-tar", bytes(first), len(wanted), extra)
        if with_body:
            self._send_rest(shards, name, wanted.start + len(first), wanted.stop)

    def _send_rest(self, shards: RangeReader, name: str, start: int, stop: int) -> None:
        """Send what follows the first piece; a failure ends the connection, so that the client sees it."""
        try:
            for at in range(start, stop, _PIECE):
                self.wfile.write(shards.get_range(name, at, min(stop, at + _PIECE)))
        except (OSError, StoreError):
            self.close_connection = True

    def _refuse(self, status: HTTPStatus, *, with_body: bool, size: int | None = None, reason: str = "") -> None:
        body = f"{status.value} {status.phrase}\n{reason}".encode()
        extra = {} if size is None else {"Content-Range": f"bytes */{size}"}
        self._send(status, "text/plain; charset=utf-8", body if with_body else b"", len(body), extra)

    def _send(
        self, status: HTTPStatus, kind: str, body: bytes, length: int, extra: Mapping[str, str] | None = None
    ) -> None:
        headers = {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Cache-Control": "no-store",
            "Content-Security-Policy": "frame-ancestors 'none'",  # the page has the rest of its policy inside
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            **(extra or {}),
        }
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the browser closed the connection
            self.close_connection = True


def _part(header: str | None, size: int) -> range | None:
    """Return the bytes that a Range header asks for: None for all of them, an empty range if there are none.

    >>> _part("bytes=10-19", 100), _part("bytes=-5", 100), _part("bytes=100-", 100), _part("bytes=0-1,5-6", 100)
    (range(10, 20), range(95, 100), range(0, 0), None)
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or not any(match.groups()):
        return None  # of several ranges, or another unit, a server may send all
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    start, stop = int(first), min(size, int(last) + 1 if last else size)
    return range(start, stop) if start < stop else range(0)
