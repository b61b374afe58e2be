"""A small HTTP file server with ranges, ETags, basic authentication and redirects, as a context manager."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import http
import itertools
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.wire import LOOPBACK, Request, Wire, Wires, listening, response_head

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A running file server; `requests` holds every request so far, in order."""

    port: int
    requests: list[Request]  # append is atomic, so threads need no lock

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


@contextlib.contextmanager
def http_server(
    folder: Path,
    *,
    ranges: bool = True,
    etags: bool = True,
    on_request: Callable[[Request], None] | None = None,
    user: str | None = None,
    password: str = "",
    token: str | None = None,
    mirrors: int = 1,
    extra: Mapping[str, str] | None = None,
) -> Iterator[HttpServer]:
    """Serve the files under `folder` by GET and HEAD over HTTP/1.1, keeping connections alive.

    Responses: 206 and 416 to a range, 412 to an If-Match of another version, 401 without the right user or token, 302
    from /redirect/NAME to /NAME, from /elsewhere/PORT/NAME to /NAME at that port, and from /circle/NAME to itself, 405
    to other methods. Queries are ignored. The ETag is a digest of the bytes, so a file
    that is replaced has another one. Each response is of one version of a file, if files are replaced by rename.

    Args:
        folder: Where the files are.
        ranges: Without, the response to a request for a range is 200 and the whole file.
        etags: Without, no ETag is sent and If-Match is ignored.
        on_request: Called with each request before the response, in the thread of its connection.
        user: The user name of basic authentication, or None for none.
        password: The user's password.
        token: The bearer token without which the response is 401, or None for none.
        mirrors: How many mirrors answer in turn, each with ETags of its own.
        extra: Headers of every response to a request for a file.
    """
    authorization = basic_authorization(user, password) if user is not None else token and f"Bearer {token}"
    site = _Site(folder.resolve(), ranges, etags, authorization, mirrors, extra or {})
    requests: list[Request] = []

    def converse(wire: Wire, _: Wires) -> None:
        while (request := wire.request()) is not None:
            for _piece in wire.body(request.headers):
                pass
            requests.append(request)
            if on_request is not None:
                on_request(request)
            _respond(site, request, wire)
            if not request.keeps_alive:
                return

    with listening(converse) as port:
        yield HttpServer(port, requests)


@dataclass(frozen=True, slots=True)
class _Site:
    folder: Path
    ranges: bool
    etags: bool
    authorization: str | None
    mirrors: int
    extra: Mapping[str, str]
    turns: Iterator[int] = field(default_factory=itertools.count)
    digests: dict[tuple[int, int, int, int], str] = field(default_factory=dict)


def basic_authorization(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _respond(site: _Site, request: Request, wire: Wire) -> None:
    """Response one request: the checks in the order in which a server makes them, then the file."""
    path = (site.folder / request.path.lstrip("/")).resolve()
    if site.authorization is not None and request.headers.get("authorization") != site.authorization:
        _refuse(wire, 401, {"WWW-Authenticate": 'Basic realm="tests"'}, request)
    elif request.method not in {"GET", "HEAD"}:
        _refuse(wire, 405, {"Allow": "GET, HEAD"}, request)
    elif request.path.startswith("/elsewhere/"):
        _, _, port, name = request.path.split("/", 3)
        _refuse(wire, 302, {"Location": f"http://{LOOPBACK}:{port}/{name}"}, request)
    elif request.path.startswith("/circle/"):
        _refuse(wire, 302, {"Location": request.target}, request)
    elif request.path.startswith("/redirect/"):
        _refuse(wire, 302, {"Location": request.target.replace("/redirect", "", 1)}, request)
    elif not path.is_relative_to(site.folder) or not path.is_file():
        _refuse(wire, 404, {}, request)
    else:
        with path.open("rb") as file:
            _send_file(site, request, wire, file, "text/html" if path.suffix == ".html" else "application/octet-stream")


def _refuse(wire: Wire, status: int, headers: Mapping[str, str], request: Request) -> None:
    body = f"{status} {http.HTTPStatus(status).phrase}\n".encode()
    head = response_head(status, {**headers, "Content-Type": "text/plain", "Content-Length": str(len(body))})
    wire.socket.sendall(head if request.method == "HEAD" else head + body)


def _send_file(site: _Site, request: Request, wire: Wire, file: io.BufferedReader, kind: str) -> None:
    """Send the file or the requested range, from one open file and so of one version."""
    facts = os.fstat(file.fileno())
    headers = {
        **site.extra,
        "Content-Type": kind,
        "Last-Modified": email.utils.formatdate(facts.st_mtime, usegmt=True),
        "Accept-Ranges": "bytes" if site.ranges else "none",
    }
    if site.etags:
        headers["ETag"] = _etag(site, file, facts)
        wanted = request.headers.get("if-match")
        if wanted is not None and not {headers["ETag"], "*"} & {tag.strip() for tag in wanted.split(",")}:
            _refuse(wire, 412, {"ETag": headers["ETag"]}, request)
            return
    start, stop, status = 0, facts.st_size, 200
    # Only GET has ranges (RFC 9110, section 14.2).
    requested = _range(request.range, facts.st_size) if site.ranges and request.method == "GET" else None
    if requested is not None:
        start, stop = requested
        if start >= stop:
            _refuse(wire, 416, {"Content-Range": f"bytes */{facts.st_size}"}, request)
            return
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{facts.st_size}"
    headers["Content-Length"] = str(stop - start)
    wire.socket.sendall(response_head(status, headers))
    if request.method == "GET" and stop > start:
        wire.socket.sendfile(file, start, stop - start)


def _etag(site: _Site, file: io.BufferedReader, facts: os.stat_result) -> str:
    version = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    if version not in site.digests:
        site.digests[version] = f'"{hashlib.file_digest(file, "sha256").hexdigest()[:32]}"'
    if site.mirrors > 1:
        return f'{site.digests[version][:-1]}-{next(site.turns) % site.mirrors}"'
    return site.digests[version]


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the requested range as start, stop, empty if it is beyond the end, or None for the whole file.

    An invalid header, or one with several ranges, is ignored (RFC 9110, section 14.2).
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size
