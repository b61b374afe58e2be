"""RemoteStore against failing servers: right bytes or an error before the deadline, and no secrets in messages."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
import pytest
from support.fault_proxy import TRANSIENT_KINDS, FaultProxy, fault_proxy
from support.http_server import basic_authorization, http_server
from support.wire import LOOPBACK, Request, Wire, Wires, listening, response_head

from wds_real.errors import MissingError, StoreError, UnavailableError
from wds_real.storage.prefetch import BLOCK_BYTES
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.s3 import S3Server

    from wds_real.storage.base import Store

NUMBERS = itertools.count()
DATA = random.Random(0).randbytes(200_000)  # noqa: S311 -- made-up data
TOKEN, SIGNATURE, PASSWORD = "canary-token", "canary-signature", "canary-password"
# Without flipped bits, which only the samples' checksums find.
NOTICED = tuple(kind for kind in TRANSIENT_KINDS if kind != "flipped")
FOREVER = 1_000_000


# --- Secrets --------------------------------------------------------------------------------


class Watch:
    """Collects all texts of stores and errors that a user or another process may see."""

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = secrets
        self._texts: list[str] = []

    @contextlib.contextmanager
    def refuses(self, kind: type[StoreError], match: str) -> Iterator[pytest.ExceptionInfo[StoreError]]:
        """Expect an error of exactly this kind, and collect its texts."""
        with pytest.raises(kind, match=match) as caught:
            yield caught
        self.hear(caught.value)
        assert type(caught.value) is kind

    def hear(self, error: BaseException) -> None:
        self._texts += [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
        self._texts.append(pickle.dumps(error).decode("latin-1"))

    def store(self, store: Store) -> Store:
        """Collect the texts of a store, and of its pickle."""
        self._texts += [str(store), repr(store), store.url]
        try:
            self._texts.append(pickle.dumps(store).decode("latin-1"))
        except StoreError as error:
            self.hear(error)
        return store

    def text(self, text: str) -> str:
        self._texts.append(text)
        return text

    def check(self) -> None:
        forms = [form for secret in self._secrets for form in (secret, urllib.parse.quote(secret, safe=""))]
        forms += [base64.b64encode(f"me:{PASSWORD}".encode()).decode()]
        assert not [text for text in self._texts for form in forms if form in text]


@pytest.fixture
def watch(s3: S3Server, caplog: pytest.LogCaptureFixture) -> Iterator[Watch]:
    """Check at the end of the test that no text or log record holds one of the five secrets."""
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "wds_real")
    watch = Watch([s3.access_key, s3.secret_key, TOKEN, SIGNATURE, PASSWORD])
    yield watch
    for record in caplog.get_records("call"):
        watch.text(f"{record.getMessage()} {record.exc_text} {vars(record)}")
    watch.check()


def test_the_watch_finds_secrets(s3: S3Server) -> None:
    """In an error's message, its cause, its attributes, and in a store's text."""

    def chained() -> None:
        try:
            raise ValueError(SIGNATURE)  # noqa: TRY301 -- what a library does
        except ValueError as error:
            raise StoreError("ours") from error

    for heard in (StoreError(f"x{PASSWORD}x"), None):
        watch = Watch([s3.secret_key, SIGNATURE, PASSWORD])
        if heard is None:
            with watch.refuses(StoreError, "ours"):
                chained()
        else:
            watch.hear(heard)
        with pytest.raises(AssertionError):
            watch.check()


# --- Servers and stores -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lab:
    """A prefix of its own on the S3 server."""

    s3: S3Server
    prefix: str
    watch: Watch

    @property
    def url(self) -> str:
        return f"s3://test/{self.prefix}"

    def put(self, name: str, data: bytes = DATA) -> None:
        self.s3.put("test", f"{self.prefix}/{name}", data)

    def store(self, endpoint: str | None = None, url: str | None = None, **options: str | None) -> Store:
        """Open a store, at a proxy if its endpoint is given; options that are None are left out."""
        every = {**self.s3.options, "give_up_after": "60", "endpoint": endpoint or self.s3.endpoint, **options}
        given = {name: value for name, value in every.items() if value is not None}
        return self.watch.store(open_store(url or self.url, storage_options=given))

    def spoiled(self, **faults: object) -> contextlib.AbstractContextManager[FaultProxy]:
        """Return a proxy in front of the S3 server; by default every GET fails."""
        every: dict[str, object] = {
            "seed": 0,
            "rate": 1,
            "max_faults_in_a_row": FOREVER,
            "sign": self.s3.sign,
            **faults,
        }
        return fault_proxy(LOOPBACK, self.s3.port, **every)  # type: ignore[arg-type]

    def boto(self) -> object:
        return boto3.client(
            "s3",
            endpoint_url=self.s3.endpoint,
            aws_access_key_id=self.s3.access_key,
            aws_secret_access_key=self.s3.secret_key,
            region_name="us-east-1",
        )

    def uploads(self) -> list[str]:
        """Return the keys of unfinished uploads, without the prefix."""
        found = self.boto().list_multipart_uploads(Bucket="test", Prefix=self.prefix)  # type: ignore[attr-defined]
        return sorted(upload["Key"].removeprefix(f"{self.prefix}/") for upload in found.get("Uploads", []))


@pytest.fixture
def lab(s3: S3Server, watch: Watch) -> Lab:
    return Lab(s3, f"remote-{next(NUMBERS)}", watch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that the web servers of a test serve, with one file."""
    path = tmp_path / "web"
    path.mkdir()
    (path / "a").write_bytes(DATA)
    return path


class Recorder:
    """The `only` of a proxy without faults, which records every request."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> bool:
        self.requests.append(request)
        return False


@dataclass(frozen=True)
class SameResponse:
    """A server that sends the same response to every request."""

    port: int
    requests: list[Request] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


@contextlib.contextmanager
def same_response(status: int, code: str) -> Iterator[SameResponse]:
    """Respond like S3, with an error code in XML."""
    requests: list[Request] = []
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{SIGNATURE}</Message></Error>".encode()
    head = {"Content-Type": "application/xml", "Content-Length": str(len(body))}

    def converse(wire: Wire, _: Wires) -> None:
        while (request := wire.request()) is not None:
            for _piece in wire.body(request.headers):
                pass
            requests.append(request)
            wire.socket.sendall(response_head(status, head) + (body if request.method != "HEAD" else b""))

    with listening(converse) as port:
        yield SameResponse(port, requests)


def read_many(store: Store, name: str, *, seed: int, count: int = 10) -> None:
    """Read ranges from several threads, and compare each."""
    draws = random.Random(seed)  # noqa: S311 -- made-up ranges
    starts = [draws.randrange(len(DATA) - 1) for _ in range(count)]
    bounds = [(start, min(len(DATA), start + draws.randint(1, 30_000))) for start in starts]

    def is_right(bounds: tuple[int, int]) -> bool:
        return bytes(store.get_range(name, *bounds, size=len(DATA))) == DATA[slice(*bounds)]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_right, bounds))


def is_whole(request: Request) -> bool:
    return request.method == "GET" and request.range is None


def any_request(request: Request) -> bool:
    return bool(request)


def run(code: str, *arguments: str, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
    """Run code in another process, with a timeout."""
    start = "import json, os, signal, sys, time\nfrom wds_real.errors import *\n"
    start += "from wds_real.storage.store import open_store\n"
    return subprocess.run(
        [sys.executable, "-c", start + code, *arguments], capture_output=True, text=True, check=False, timeout=timeout_s
    )


# --- Transient faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NOTICED)
@pytest.mark.parametrize("gathered_from", [1, 1 << 20])
def test_faults_of_each_kind_are_retried(
    lab: Lab, kind: str, gathered_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the requests fail, up to twice in a row; all ranges are right, with and without pooled buffers."""
    monkeypatch.setattr("wds_real.storage.obstore_client._POOLED_FROM_BYTES", gathered_from)
    lab.put("a")
    with lab.spoiled(seed=1, rate=0.5, kinds=[kind], max_faults_in_a_row=2, drip_s=0.1) as proxy:
        read_many(lab.store(proxy.endpoint, read_timeout="0.3"), "a", seed=1)
        assert proxy.injected[kind] > 2


@pytest.mark.parametrize("seed", range(3))
def test_mixed_faults_are_retried(folder: Path, watch: Watch, seed: int) -> None:
    """Ranges and whole files of a web server are right."""
    with (
        http_server(folder) as web,
        fault_proxy(LOOPBACK, web.port, seed=seed, rate=0.4, kinds=NOTICED, max_faults_in_a_row=2, drip_s=0.1) as proxy,
    ):
        store = watch.store(open_store(proxy.endpoint, storage_options={"read_timeout": "0.5"}))
        read_many(store, "a", seed=seed)
        assert store.get("a") == DATA
        assert len(proxy.injected) > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("server", ["s3", "web"])
def test_many_mixed_faults_are_retried(lab: Lab, folder: Path, server: str, seed: int) -> None:
    """Many seeds, many ranges."""
    lab.put("a")
    with http_server(folder) as web:
        port = lab.s3.port if server == "s3" else web.port
        sign = lab.s3.sign if server == "s3" else None
        with fault_proxy(LOOPBACK, port, seed=seed, rate=0.4, kinds=NOTICED, max_faults_in_a_row=2, sign=sign) as proxy:
            url = lab.url if server == "s3" else proxy.endpoint
            options = {**lab.s3.options, "endpoint": proxy.endpoint} if server == "s3" else {}
            store = open_store(url, storage_options={**options, "read_timeout": "0.5"})
            read_many(store, "a", seed=seed, count=300)
            assert store.get("a") == DATA
            assert set(proxy.injected) == set(NOTICED)


@pytest.mark.parametrize("kind", ["503", "reset", "stall"])
def test_writes_are_retried(lab: Lab, kind: str) -> None:
    """Objects, lists, lengths and deletions are right, though every other request fails or its response is lost."""
    with lab.spoiled(seed=2, rate=0.5, kinds=[kind], max_faults_in_a_row=1, only=any_request) as proxy:
        store = lab.store(proxy.endpoint, read_timeout="0.3")
        for name in "abcd":
            store.put(name, DATA)
        store.delete("a")
        assert store.list() == ["b", "c", "d"]
        assert store.head("b") == len(DATA)
        assert proxy.injected[kind] > 1
    assert [lab.store().get(name) for name in "bcd"] == [DATA] * 3


@pytest.mark.parametrize("kind", ["503", "reset", "stall"])
def test_multipart_uploads_are_retried(lab: Lab, kind: str) -> None:
    """A part fails, then the completion; the object is complete, and leftovers are deleted."""
    spoiled: list[str] = []

    def is_spoiled(request: Request) -> bool:
        """Return whether this is the first part, or the first completion."""
        step = "part" if request.method == "PUT" else "completion" if "uploadId" in request.query else "beginning"
        if step == "beginning" or step in spoiled:
            return False
        spoiled.append(step)
        return True

    data = DATA * 100
    with lab.spoiled(kinds=[kind], only=is_spoiled) as proxy:
        store = lab.store(proxy.endpoint, read_timeout="1" if kind == "stall" else "10")
        with store.create("a") as file:
            file.write(data)
        assert proxy.injected[kind] == 2
    assert lab.store().get("a") == data
    assert set(lab.store().delete_leftovers()) <= {"a"}
    assert lab.uploads() == []
    assert lab.store().list() == ["a"]


def test_an_exclusive_write_whose_response_is_lost_succeeds(lab: Lab) -> None:
    """The object has these bytes, so no other writer created it."""
    with lab.spoiled(kinds=["stall"], only=lambda request: request.method == "PUT", max_faults_in_a_row=1) as proxy:
        lab.store(proxy.endpoint, read_timeout="0.5").put("a", DATA, exclusive=True)
    assert lab.store().get("a") == DATA


def test_an_exclusive_write_that_gave_up_makes_no_request(lab: Lab) -> None:
    """After the deadline, the store does not check whether the object exists."""
    heard: list[str] = []

    def note(request: Request) -> bool:
        heard.append(request.method)
        return True

    with (
        lab.spoiled(kinds=["stall"], only=note) as proxy,
        lab.watch.refuses(UnavailableError, "write: no response in time"),
    ):
        lab.store(proxy.endpoint, give_up_after="5", read_timeout="0.6").put("a", DATA, exclusive=True)
    assert set(heard) == {"PUT"}


@pytest.mark.parametrize("server", ["s3", "web"])
def test_a_changed_object_is_a_store_error(lab: Lab, folder: Path, server: str) -> None:
    """After the first response, reads return bytes of that version or raise a StoreError."""
    lab.put("a")
    outcomes: Counter[str] = Counter()
    with http_server(folder) as web:
        port = lab.s3.port if server == "s3" else web.port
        with fault_proxy(LOOPBACK, port, seed=3, rate=0.5, kinds=["changed"]) as proxy:
            proxy.pause()
            store = lab.store(proxy.endpoint) if server == "s3" else open_store(proxy.endpoint)
            assert store.get_range("a", 0, 10) == DATA[:10]
            proxy.resume()
            for start in range(20):
                try:
                    found = store.get_range("a", start, 1000)
                except StoreError as error:
                    lab.watch.hear(error)
                    assert not isinstance(error, UnavailableError)  # noqa: PT017 -- the old bytes are as good
                    outcomes["error"] += 1
                else:
                    assert found == DATA[start:1000]
                    outcomes["old"] += 1
    assert set(outcomes) == {"error", "old"}


# --- Deadlines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reason", "seen_before"),
    [
        ("503", "the server responded with status 503", False),
        ("503", "the server responded with status 503", True),
        ("stall", "no response in time", False),
        ("cut", "the connection broke", False),
        ("wrong_range", "the (response holds other bytes than requested|request failed)", True),
    ],
)
def test_a_request_ends_before_its_deadline(lab: Lab, kind: str, reason: str, *, seen_before: bool) -> None:
    """With all its retries; the error says how often it was tried, for how long, and why it failed."""
    lab.put("a")
    with lab.spoiled(kinds=[kind], stall_s=60) as proxy:
        store = lab.store(proxy.endpoint, give_up_after="5", read_timeout="0.6")
        if seen_before:
            proxy.pause()
            assert store.get_range("a", 0, 10) == DATA[:10]
            proxy.resume()
        started = time.monotonic()
        with lab.watch.refuses(UnavailableError, rf"bytes 10-20: {reason}; gave up after \d+ attempts in \d\.\d s"):
            store.get_range("a", 10, 20)
        assert time.monotonic() - started < 20  # generous: the default is five minutes
        assert proxy.injected[kind] >= 2


def test_the_deadline_of_the_run_ends_everything(lab: Lab) -> None:
    """It counts from the opening; after it no request is made, even if the server works."""
    lab.put("a")
    with lab.spoiled(kinds=["503"]) as proxy:
        proxy.pause()
        started = time.monotonic()
        store = lab.store(proxy.endpoint, run_deadline="5")
        assert store.get_range("a", 0, 10) == DATA[:10]
        proxy.resume()
        with lab.watch.refuses(UnavailableError, "gave up after"):
            store.get_range("a", 10, 20)
        assert time.monotonic() - started < 25
        proxy.pause()
        time.sleep(max(0.0, started + 5 - time.monotonic()))
        before = proxy.requests
        with lab.watch.refuses(UnavailableError, r"the run's deadline of 5 s leaves no time"):
            store.get_range("a", 10, 20)
        assert proxy.requests == before


def test_each_attempt_is_one_request(lab: Lab) -> None:
    """An error response is read without a second request, also one with Retry-After; the error counts all requests."""
    lab.put("a")
    with lab.spoiled(kinds=["503"], retry_after="100") as proxy:
        with lab.watch.refuses(
            UnavailableError, r"the server responded with status 503; gave up after \d+ attempts? in"
        ) as caught:
            lab.store(proxy.endpoint, give_up_after="4").get_range("a", 0, 10)
        assert f"gave up after {proxy.requests} attempt" in str(caught.value)


def test_a_stall_ends_with_the_read_timeout(lab: Lab) -> None:
    """A stalled connection is dropped, and another one reads the bytes."""
    lab.put("a")
    with lab.spoiled(kinds=["stall"], stall_s=60, max_faults_in_a_row=1) as proxy:
        started = time.monotonic()
        assert lab.store(proxy.endpoint, read_timeout="2").get_range("a", 0, 1000) == DATA[:1000]
        assert time.monotonic() - started < 40
        assert proxy.injected["stall"] == 1


def test_a_slow_response_ends_with_the_timeout(lab: Lab) -> None:
    """Bytes that arrive too slowly for one request are dropped too."""
    lab.put("a")
    with lab.spoiled(kinds=["drip"], drip_s=9, max_faults_in_a_row=1) as proxy:
        assert lab.store(proxy.endpoint, timeout="3").get_range("a", 0, 1000) == DATA[:1000]
        assert proxy.injected["drip"] == 1
        assert proxy.requests == 2


@pytest.mark.slow
def test_a_server_that_never_responded_is_given_up_sooner(watch: Watch) -> None:
    """A wrong address is an error within half a minute, or somewhat later on a busy machine, not after five."""
    started = time.monotonic()
    with watch.refuses(UnavailableError, "no connection to the server; gave up after"):
        open_store(f"http://{LOOPBACK}:1/set").get("a")
    assert time.monotonic() - started < 90


# --- Refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "changes", "kind", "message"),
    [
        (
            None,
            {"secret_access_key": "wrong"},
            UnavailableError,
            "secret key does not belong.*403 SignatureDoesNotMatch",
        ),
        (None, {"access_key_id": "unknown"}, UnavailableError, "does not know the access key.*403 InvalidAccessKeyId"),
        (None, {}, MissingError, r"/gone: no such file\. Check the URL"),
        ("s3://nowhere/set", {}, UnavailableError, r"s3://nowhere/set/gone: .*no such bucket.*404 NoSuchBucket"),
        (
            None,
            {"access_key_id": None, "secret_access_key": None, "skip_signature": "true"},
            UnavailableError,
            "access denied.*skip_signature=true.*403",
        ),
    ],
    ids=["wrong secret", "unknown key", "missing", "no bucket", "anonymous"],
)
def test_a_refusal_is_not_retried(
    lab: Lab, url: str | None, changes: dict[str, str | None], kind: type[StoreError], message: str
) -> None:
    """One request, and an error that says what to do."""
    recorder = Recorder()
    with lab.spoiled(only=recorder) as proxy, lab.watch.refuses(kind, message):
        lab.store(proxy.endpoint, url, **changes).get_range("gone", 0, 10)
    assert len(recorder.requests) == 1


@pytest.mark.parametrize("verb", ["get_range", "put", "list", "create"])
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "ExpiredToken", "the credentials have expired"),
        (400, "InvalidToken", "the session token is not valid"),
        (400, "AuthorizationHeaderMalformed", "wrong region"),
        (301, "PermanentRedirect", "wrong region"),
        (403, "RequestTimeTooSkewed", "clock is wrong"),
        (501, "NotImplemented", "cannot do this"),
    ],
)
def test_permanent_errors_are_not_retried(lab: Lab, verb: str, status: int, code: str, message: str) -> None:
    """For any method: one request, and a message for the server's code, without the server's text."""
    with same_response(status, code) as server, lab.watch.refuses(UnavailableError, message):
        store = lab.store(server.endpoint, session_token=TOKEN)
        if verb == "create":
            with store.create("a") as file:
                file.write(DATA)
        else:
            {"get_range": lambda: store.get_range("a", 0, 10), "put": lambda: store.put("a", DATA), "list": store.list}[
                verb
            ]()
    assert len(server.requests) == 1
    assert server.requests[0].headers["x-amz-security-token"] == TOKEN


def test_a_missing_password_is_not_retried(folder: Path, watch: Watch) -> None:
    """Neither is a wrong one."""
    with http_server(folder, user="me", password=PASSWORD[::-1]) as web:
        for url in (web.endpoint, web.endpoint.replace("://", f"://me:{PASSWORD}@")):
            store = watch.store(open_store(f"{url}?X-Amz-Signature={SIGNATURE}"))
            with watch.refuses(UnavailableError, r"the server requires credentials.*\(401\)"):
                store.get_range("a", 0, 10)
    assert len(web.requests) == 2


def test_a_server_without_tls_is_not_retried(watch: Watch) -> None:
    """The error names TLS if the URL is https."""
    connections: list[bytes] = []

    def converse(wire: Wire, _: Wires) -> None:
        connections.append(wire.socket.recv(10_000))
        wire.socket.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with listening(converse) as port:
        store = open_store(f"https://{LOOPBACK}:{port}/set?X-Amz-Signature={SIGNATURE}")
        with watch.refuses(UnavailableError, "no secure connection"):
            store.get_range("a", 0, 10)
    assert len(connections) == 1


def test_missing_credentials_are_an_error(lab: Lab) -> None:
    """No request is made."""
    recorder = Recorder()
    with lab.spoiled(only=recorder) as proxy, lab.watch.refuses(UnavailableError, "no credentials were found"):
        lab.store(proxy.endpoint, access_key_id=None, secret_access_key=None).get_range("a", 0, 10)
    assert recorder.requests == []


def test_a_missing_profile_is_named(lab: Lab) -> None:
    """No request is made."""
    with lab.watch.refuses(UnavailableError, "there is no profile nobody"):
        lab.store(access_key_id=None, secret_access_key=None, profile="nobody").list()


def test_a_missing_profile_of_the_environment_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE names it."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with lab.watch.refuses(UnavailableError, "there is no profile nobody"):
        lab.store(access_key_id=None, secret_access_key=None).list()


@pytest.mark.parametrize("problem", ["half", "nonsense", "process"])
def test_unreadable_credentials_are_an_unavailable_error(
    lab: Lab, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a pair, an invalid file, and a failing command; no exception of boto3."""
    path = tmp_path / "config"
    path.write_text({"half": "", "nonsense": "[default\n", "process": "[default]\ncredential_process=false\n"}[problem])
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    if problem == "half":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", lab.s3.access_key)
    with lab.watch.refuses(UnavailableError, "credentials"):
        lab.store(access_key_id=None, secret_access_key=None).list()


@pytest.mark.parametrize("problem", ["refused", "no server", "no profile"])
def test_a_failed_listing_of_uploads_is_a_store_error(lab: Lab, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No exception of boto3."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if problem == "no profile":
        monkeypatch.setenv("AWS_PROFILE", "nobody")
    changes = {"refused": {"secret_access_key": "wrong"}, "no server": {"endpoint": "http://127.0.0.1:1"}}
    with lab.watch.refuses(UnavailableError, "unfinished uploads"):
        open_store(lab.url, storage_options={**lab.s3.options, **changes.get(problem, {})}).delete_leftovers()


# --- Requests -----------------------------------------------------------------------------------------------


def test_large_objects_are_read_in_blocks(lab: Lab) -> None:
    """No request is longer than a block; all blocks are of one version."""
    data = DATA * 100
    lab.put("large", data)
    recorder = Recorder()
    with lab.spoiled(only=recorder) as proxy:
        assert lab.store(proxy.endpoint).get("large") == data
    gets = [request for request in recorder.requests if request.range != "bytes=0-0"]  # the one for the length
    bounds = sorted(tuple(map(int, (request.range or "").removeprefix("bytes=").split("-"))) for request in gets)
    starts = range(0, len(data), BLOCK_BYTES)
    assert bounds == [(start, min(start + BLOCK_BYTES, len(data)) - 1) for start in starts]
    assert len({request.headers.get("if-match") for request in gets}) == 1
    assert gets[0].headers["if-match"].startswith('"')


def test_large_objects_are_written_in_parts(lab: Lab) -> None:
    """Each has a checksum that the server verifies; a small object takes one request."""
    recorder = Recorder()
    with lab.spoiled(only=recorder) as proxy:
        store = lab.store(proxy.endpoint)
        with store.create("large") as file:
            file.write(DATA * 100)
        parts = [request for request in recorder.requests if request.method == "PUT"]
        assert [("partNumber" in request.query, "x-amz-checksum-sha256" in request.headers) for request in parts] == [
            (True, True),
            (True, True),
        ]
        recorder.requests.clear()
        store.put("small", DATA)
        (request,) = recorder.requests
        assert "x-amz-checksum-sha256" in request.headers
    assert lab.uploads() == []


def test_later_requests_name_the_first_version(folder: Path) -> None:
    """All but the first request have If-Match."""
    with http_server(folder) as web:
        store = open_store(web.endpoint)
        for start in range(3):
            store.get_range("a", start, 10)
    etag = web.requests[1].headers["if-match"]
    assert [request.headers.get("if-match") for request in web.requests] == [None, etag, etag]


def test_a_signature_is_sent_with_every_request(folder: Path, watch: Watch) -> None:
    """The query of a presigned URL is sent for every file below it; redirects are followed."""
    with http_server(folder) as web:
        store = watch.store(open_store(f"{web.endpoint}/redirect?X-Amz-Signature={SIGNATURE}"))
        assert store.get("a") == DATA
    assert {request.path for request in web.requests} == {"/redirect/a", "/a"}
    assert {request.query for request in web.requests} == {f"X-Amz-Signature={SIGNATURE}"}


def test_a_password_is_not_sent_to_other_servers(folder: Path, watch: Watch) -> None:
    """It is sent with every request, but not after a redirect to another server."""
    with http_server(folder) as other:

        def converse(wire: Wire, _: Wires) -> None:
            while (request := wire.request()) is not None:
                asked.append(request)
                location = {"Location": f"{other.endpoint}{request.path}", "Content-Length": "0"}
                wire.socket.sendall(response_head(302, location))

        asked: list[Request] = []
        with listening(converse) as port:
            store = watch.store(open_store(f"http://me:{PASSWORD}@{LOOPBACK}:{port}"))
            assert store.get("a") == DATA
    assert {request.headers.get("authorization") for request in asked} == {basic_authorization("me", PASSWORD)}
    assert {request.headers.get("authorization") for request in other.requests} == {None}


def test_long_listings_are_complete(lab: Lab) -> None:
    """S3 lists a thousand names in a response."""
    names = [f"{number:04d}" for number in range(1005)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: lab.put(name, b""), names))
    recorder = Recorder()
    with lab.spoiled(only=recorder) as proxy:
        assert lab.store(proxy.endpoint).list() == names
    assert len(recorder.requests) == 2


def test_the_files_of_a_web_server_share_connections(folder: Path) -> None:
    """In sequence they use one; names that need quoting, and URLs with a query, work too."""
    names = ["a", "b.tar", "c-1_2.json", "mit Leer#zeichen?.tar"]
    for name in names[1:]:
        (folder / name).write_bytes(name.encode())
    connections: dict[str, int] = {}  # by thread: each open connection has its own

    def note(request: Request) -> None:
        connections[request.path] = threading.get_ident()

    with http_server(folder, on_request=note) as web:
        for url, shared in ((web.endpoint, 3), (f"{web.endpoint}?sig=1", 1)):
            connections.clear()
            store = open_store(url)
            assert [bytes(store.get_range(name, 0, 1)) for name in names[1:]] == [b"b", b"c", b"m"]
            assert bytes(store.get_range("a", 0, 5)) == DATA[:5]
            counted = Counter(connections.values())
            assert max(counted.values()) == shared
            assert sorted(connections) == sorted(f"/{name}" for name in names)


# --- Servers without ranges ---------------------------------------------------------------------------------


def test_a_file_of_a_server_without_ranges_is_downloaded_once(folder: Path) -> None:
    """All ranges are read from the download."""
    with http_server(folder, ranges=False) as web:
        store = open_store(web.endpoint)
        read_many(store, "a", seed=0, count=1)
        read_many(store, "a", seed=1)
    assert sum(map(is_whole, web.requests)) == 1
    assert len(web.requests) <= 4


def test_a_server_without_ranges_is_detected_once(folder: Path) -> None:
    """The first file takes three requests, each further one a single request without a wait."""
    (folder / "b").write_bytes(DATA[::-1])
    with http_server(folder, ranges=False) as web:
        store = open_store(web.endpoint)
        assert store.get_range("a", 0, 10) == DATA[:10]
        first = len(web.requests)
        assert store.get_range("b", 5, 10) == DATA[::-1][5:10]
    assert (first, len(web.requests) - first) == (4, 2)


def test_threads_share_a_download(folder: Path) -> None:
    """Threads that read the same file at the same time make one request for it."""

    def delay(request: Request) -> None:
        if is_whole(request):
            time.sleep(1.5)  # longer than any of the threads takes to learn that ranges are ignored

    with http_server(folder, ranges=False, on_request=delay) as web:
        store = open_store(web.endpoint)
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda start: store.get_range("a", start, 1000) == DATA[start:1000], range(4))) == {
                True
            }
    assert sum(map(is_whole, web.requests)) == 1


def test_a_broken_download_is_continued(folder: Path) -> None:
    """Each stream breaks, but later than the one before; in the end all bytes are there once."""
    with (
        http_server(folder, ranges=False) as web,
        fault_proxy(
            *(LOOPBACK, web.port), seed=4, rate=1, kinds=["cut"], only=is_whole, max_faults_in_a_row=2
        ) as proxy,
    ):
        read_many(open_store(proxy.endpoint), "a", seed=4, count=1)
        assert proxy.injected["cut"] == 2


def test_a_download_is_of_one_version(folder: Path, watch: Watch) -> None:
    """A file that is replaced between two streams is an error, not a mixture."""
    wholes = itertools.count(1)

    def replace_before_the_second(request: Request) -> None:
        if is_whole(request) and next(wholes) == 2:
            (folder / "new").write_bytes(DATA[::-1])
            (folder / "new").rename(folder / "a")

    with (
        http_server(folder, ranges=False, on_request=replace_before_the_second) as web,
        fault_proxy(
            *(LOOPBACK, web.port), seed=5, rate=1, kinds=["cut"], only=is_whole, max_faults_in_a_row=1
        ) as proxy,
        watch.refuses(StoreError, "was replaced while it was read"),
    ):
        open_store(proxy.endpoint).get_range("a", 0, 10)


def test_an_s3_server_without_ranges_is_downloaded(lab: Lab) -> None:
    """Like a web server."""
    lab.put("a")
    with lab.spoiled(kinds=["ignored_range"]) as proxy:
        assert lab.store(proxy.endpoint, give_up_after="4").get_range("a", 5, 10) == DATA[5:10]


def test_a_full_disk_for_downloads_is_an_error(folder: Path) -> None:
    """It is raised at once and names the disk, not the server."""
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    open_store(sys.argv[1], storage_options={"give_up_after": "3"}).get_range("a", 0, 10)
except StoreError as error:
    print(error)
"""
    with http_server(folder, ranges=False) as web:
        done = run(code, web.endpoint)
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert "gave up" not in done.stdout


@pytest.mark.parametrize(
    "call", ['store.create("a").__enter__()', 'store.get_range("a", 0, 10)'], ids=["create", "get_range"]
)
def test_a_failing_temporary_file_is_a_store_error(folder: Path, call: str) -> None:
    """It names the folder."""
    code = f"""
import tempfile
tempfile.tempdir = sys.argv[2]
store = open_store(sys.argv[1])
try:
    {call}
except StoreError as error:
    print(type(error).__name__, error)
"""
    with http_server(folder, ranges=False) as web:
        done = run(code, web.endpoint, str(folder / "missing"))
    assert done.stdout.startswith("StoreError")
    assert str(folder / "missing") in done.stdout
    assert done.stderr == ""


# --- Credentials --------------------------------------------------------------------------------------------


@pytest.fixture
def no_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)


def anonymous_options(lab: Lab, **more: str) -> dict[str, str]:
    return {"endpoint": lab.s3.endpoint, "allow_http": "true", "region": "us-east-1", **more}


@pytest.mark.parametrize("how", ["option", "environment", "default"])
def test_a_profile_opens_the_store(lab: Lab, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option, by AWS_PROFILE, or the default profile; the endpoint may come from the environment."""
    lab.put("a")
    name = "default" if how == "default" else "lab"
    path = tmp_path / "credentials"
    path.write_text(
        f"[{name}]\naws_access_key_id={lab.s3.access_key}\naws_secret_access_key={lab.s3.secret_key}\nregion=us-east-1\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", lab.s3.endpoint)
    if how == "environment":
        monkeypatch.setenv("AWS_PROFILE", "lab")
    store = lab.watch.store(open_store(lab.url, storage_options={"profile": "lab"} if how == "option" else None))
    assert store.get("a") == DATA
    store.put("b", DATA)
    assert store.list() == ["a", "b"]


@pytest.mark.parametrize("with_boto3", [True, False])
def test_the_environment_opens_the_store(
    lab: Lab, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, with_boto3: bool
) -> None:
    """AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are enough, with boto3 and without."""
    if not with_boto3:
        request.getfixturevalue("no_boto3")
    lab.put("a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", lab.s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", lab.s3.secret_key)
    store = lab.watch.store(open_store(lab.url, storage_options=anonymous_options(lab)))
    assert store.get("a") == DATA


@pytest.mark.usefixtures("no_boto3")
def test_a_profile_needs_boto3(lab: Lab) -> None:
    """Without it the error says what to install, and leftovers stay."""
    with lab.watch.refuses(StoreError, "profile lab needs boto3"):
        open_store(lab.url, storage_options=anonymous_options(lab, profile="lab")).list()
    assert lab.store().delete_leftovers() == []


def test_options_are_not_mixed_with_the_environment(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session token of the environment is not sent with the credentials of the options."""
    lab.put("a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    recorder = Recorder()
    with lab.spoiled(only=recorder) as proxy, contextlib.suppress(UnavailableError):
        lab.store(proxy.endpoint).get("a")
    assert [request.headers.get("x-amz-security-token") for request in recorder.requests] == [None, None]


def test_a_public_bucket_is_read_without_credentials(lab: Lab) -> None:
    """Nothing is signed, also in another process."""
    lab.s3.put("public", f"{lab.prefix}/a", DATA)
    recorder = Recorder()
    with lab.spoiled(only=recorder) as proxy:
        options = anonymous_options(lab, skip_signature="true", endpoint=proxy.endpoint)
        store = lab.watch.store(open_store(f"s3://public/{lab.prefix}", storage_options=options))
        assert store.list() == ["a"]
        copy: Store = pickle.loads(pickle.dumps(store))  # noqa: S301 -- our own
        assert copy.get("a") == DATA
        with lab.watch.refuses(UnavailableError, "access denied"):
            store.put("b", DATA)
    assert not [request for request in recorder.requests if "authorization" in request.headers]


@pytest.mark.parametrize(
    ("with_boto3", "options"),
    [
        (True, {}),
        (False, {"read_timeout": "1", "give_up_after": "4"}),
        pytest.param(False, {}, marks=pytest.mark.slow),
    ],
)
def test_a_silent_metadata_service_means_no_credentials(lab: Lab, with_boto3: bool, options: dict[str, str]) -> None:
    """The error comes within seconds."""
    code = """
if sys.argv[3] == "False":
    sys.modules["boto3"] = None
started = time.monotonic()
try:
    open_store(sys.argv[1], storage_options=json.loads(sys.argv[2])).list()
except UnavailableError as error:
    print(error, round(time.monotonic() - started), sep="|")
"""
    with socket.create_server((LOOPBACK, 0)) as nowhere, pytest.MonkeyPatch.context() as monkeypatch:
        endpoint = f"http://{LOOPBACK}:{nowhere.getsockname()[1]}"
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        for name in ("AWS_METADATA_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT"):
            monkeypatch.setenv(name, endpoint)
        given = json.dumps(anonymous_options(lab, **options))
        done = run(code, lab.url, given, str(with_boto3), timeout_s=120)
    assert done.returncode == 0, done.stderr
    message, seconds = lab.watch.text(done.stdout).split("|")
    assert "no credentials were found" in message
    assert int(seconds) < 60


# --- Processes and signals ----------------------------------------------------------------------------------


def test_a_forked_process_gets_an_error_and_its_parent_goes_on(lab: Lab) -> None:
    """For the used store, another one, and one opened in the child; the message says what to do."""
    lab.put("a")
    code = """
options = json.loads(sys.argv[2])
used, unused = (open_store(sys.argv[1], storage_options=options) for _ in range(2))
data = used.get("a")
child = os.fork()
if child == 0:
    signal.alarm(120)
    for store in (used, unused, open_store(sys.argv[1], storage_options=options)):
        for call in (lambda: store.get_range("a", 0, 5), store.list, lambda: store.put("b", b"")):
            try:
                call()
            except UnavailableError as error:
                if 'multiprocessing_context="forkserver"' not in str(error):
                    os._exit(3)
            else:
                os._exit(4)
    os._exit(0)
status = os.waitpid(child, 0)[1]
assert used.get("a") == unused.get("a") == data
print(status, len(data))
"""
    done = run(code, lab.url, json.dumps(lab.s3.options))
    assert (done.returncode, done.stdout) == (0, f"0 {len(DATA)}\n"), lab.watch.text(done.stderr)


def test_a_process_forked_before_the_first_request_can_read(lab: Lab) -> None:
    """A store that was only opened survives a fork; each process makes its own client."""
    lab.put("a")
    code = """
store = open_store(sys.argv[1], storage_options=json.loads(sys.argv[2]))
child = os.fork()
if child == 0:
    signal.alarm(120)
data = store.get("a")
if child == 0:
    os._exit(len(data) % 251)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(data))
"""
    done = run(code, lab.url, json.dumps(lab.s3.options))
    assert (done.returncode, done.stdout) == (0, f"{len(DATA) % 251} {len(DATA)}\n"), lab.watch.text(done.stderr)


@pytest.mark.parametrize(
    "call",
    [
        'store.get_range("a", 0, 1000)',
        'store.put("b", b"")',
        "store.list()",
        'store.get("large")',
    ],
)
def test_ctrl_c_ends_a_stalled_request(lab: Lab, call: str) -> None:
    """The process ends promptly, though there is time left."""
    lab.put("a")
    lab.put("large", DATA * 100)
    code = f"""
store = open_store(sys.argv[1], storage_options=json.loads(sys.argv[2]))
try:
    {call}
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(130)
"""
    start = "import json, sys\nfrom wds_real.storage.store import open_store\n"
    stalled = lab.spoiled(kinds=["stall"], stall_s=60, only=lambda request: request.method != "HEAD")
    with stalled as proxy, contextlib.ExitStack() as stack:
        given = {**lab.s3.options, "endpoint": proxy.endpoint, "read_timeout": "60"}
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", start + code, lab.url, json.dumps(given)], stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(process.kill)
        wait_until(lambda: proxy.injected["stall"] > 0)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "interrupted\n"
        assert process.returncode == 130


def wait_until(happened: Callable[[], bool], *, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- Leftovers of writers -----------------------------------------------------------------------------------


def test_uploads_of_killed_writers_are_aborted(lab: Lab) -> None:
    """A killed writer leaves no object, and `delete_leftovers` aborts its upload."""
    code = """
store = open_store(sys.argv[1], storage_options=json.loads(sys.argv[2]))
with store.create("a") as file:
    file.write(bytes(20_000_000))
"""
    start = "import json, sys\nfrom wds_real.storage.store import open_store\n"
    lab.put("whole", DATA)
    lab.boto().create_multipart_upload(Bucket="test", Key=f"{lab.prefix}/deep/b")  # type: ignore[attr-defined]
    with lab.spoiled(kinds=["stall"], stall_s=60, only=lambda request: "partNumber" in request.query) as proxy:
        given = {**lab.s3.options, "endpoint": proxy.endpoint, "read_timeout": "60"}
        with subprocess.Popen([sys.executable, "-c", start + code, lab.url, json.dumps(given)]) as process:
            try:
                wait_until(lambda: proxy.injected["stall"] > 1)
            finally:
                process.kill()
    store = lab.store()
    assert lab.uploads() == ["a", "deep/b"]
    assert store.list() == ["whole"]
    assert store.delete_leftovers() == ["a"]
    assert lab.uploads() == ["deep/b"]
    assert store.delete_leftovers() == []
    assert store.list() == ["whole"]


def test_failed_uploads_are_aborted(lab: Lab) -> None:
    """A failed upload leaves no object, and `delete_leftovers` aborts it."""
    with lab.spoiled(kinds=["503"], only=lambda request: "partNumber" in request.query) as proxy:
        store = lab.store(proxy.endpoint, give_up_after="5")

        def write() -> None:
            with store.create("a") as file:
                file.write(DATA * 100)

        with lab.watch.refuses(UnavailableError, "write: the server responded with status 503; gave up after"):
            write()
    assert lab.store().list() == []
    assert set(lab.store().delete_leftovers()) <= {"a"}
    assert lab.uploads() == []


def test_helper_threads_end_with_their_requests(lab: Lab) -> None:
    """After a request in the main thread its helper thread is gone."""
    lab.put("a")
    store = lab.store()
    store.get("a")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("request", "get"))]
