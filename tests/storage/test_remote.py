"""RemoteStore against servers that fail: bytes are right or there is an error, in time, in words without secrets."""

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
# All that a store can notice: a flipped bit is found by the samples' checksums.
NOTICED = tuple(kind for kind in TRANSIENT_KINDS if kind != "flipped")
FOREVER = 1_000_000


# --- What must never be said --------------------------------------------------------------------------------


class Watch:
    """Gathers what stores and errors say, in every way in which it may come before other eyes."""

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = secrets
        self._texts: list[str] = []

    @contextlib.contextmanager
    def refuses(self, kind: type[StoreError], match: str) -> Iterator[pytest.ExceptionInfo[StoreError]]:
        """Expect an error of exactly this kind, and remember all of it."""
        with pytest.raises(kind, match=match) as caught:
            yield caught
        self.hear(caught.value)
        assert type(caught.value) is kind

    def hear(self, error: BaseException) -> None:
        self._texts += [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
        self._texts.append(pickle.dumps(error).decode("latin-1"))

    def store(self, store: Store) -> Store:
        """Remember what a store says of itself, and whether it can be sent elsewhere."""
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
    """At the end of the test: nothing that was said or logged holds one of the five secrets."""
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "wds_real")
    watch = Watch([s3.access_key, s3.secret_key, TOKEN, SIGNATURE, PASSWORD])
    yield watch
    for record in caplog.get_records("call"):
        watch.text(f"{record.getMessage()} {record.exc_text} {vars(record)}")
    watch.check()


def test_the_watch_finds_secrets(s3: S3Server) -> None:
    """A secret in an error's message, its cause, its attributes or a store's text is noticed."""

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
        """Return a proxy in front of the S3 server; by default it spoils every GET, again and again."""
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
    """What the web servers of a test serve: one file."""
    path = tmp_path / "web"
    path.mkdir()
    (path / "a").write_bytes(DATA)
    return path


class Heard:
    """The `only` of a proxy that spoils nothing and remembers every request."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> bool:
        self.requests.append(request)
        return False


@dataclass(frozen=True)
class Answering:
    """A server that gives every request the same answer."""

    port: int
    requests: list[Request] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


@contextlib.contextmanager
def answering(status: int, code: str) -> Iterator[Answering]:
    """Answer as S3 does, with an error's code in XML."""
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
        yield Answering(port, requests)


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


def run(code: str, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run code in another process, which a hang cannot keep."""
    start = "import json, os, signal, sys, time\nfrom wds_real.errors import *\n"
    start += "from wds_real.storage.store import open_store\n"
    return subprocess.run(
        [sys.executable, "-c", start + code, *arguments], capture_output=True, text=True, check=False, timeout=timeout_s
    )


# --- Faults that pass ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NOTICED)
@pytest.mark.parametrize("gathered_from", [1, 1 << 20])
def test_each_kind_of_fault_is_survived(
    lab: Lab, kind: str, gathered_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the requests fail, up to twice in a row: all ranges are right, whoever's memory the answers fill."""
    monkeypatch.setattr("wds_real.storage.obstore_client._POOLED_FROM_BYTES", gathered_from)
    lab.put("a")
    with lab.spoiled(seed=1, rate=0.5, kinds=[kind], max_faults_in_a_row=2, drip_s=0.1) as proxy:
        read_many(lab.store(proxy.endpoint, read_timeout="0.3"), "a", seed=1)
        assert proxy.injected[kind] > 2


@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_of_faults_is_survived(folder: Path, watch: Watch, seed: int) -> None:
    """A web server on a bad line: ranges and whole files are right."""
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
def test_long_mixtures_of_faults_are_survived(lab: Lab, folder: Path, server: str, seed: int) -> None:
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
def test_writing_survives_faults(lab: Lab, kind: str) -> None:
    """Objects, lists, lengths and deletions are right, though every other request fails or its answer is lost."""
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
def test_a_large_object_is_written_in_spite_of_faults(lab: Lab, kind: str) -> None:
    """A part fails, and then the completion: in the end the object is whole, and what was begun before is deleted."""
    spoiled: list[str] = []

    def is_spoiled(request: Request) -> bool:
        """Tell whether this is the first part that is sent, or the first completion."""
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


def test_an_exclusive_write_whose_answer_is_lost_has_written(lab: Lab) -> None:
    """The object is there with these bytes, so that nobody else wrote it: no error."""
    with lab.spoiled(kinds=["stall"], only=lambda request: request.method == "PUT", max_faults_in_a_row=1) as proxy:
        lab.store(proxy.endpoint, read_timeout="0.5").put("a", DATA, exclusive=True)
    assert lab.store().get("a") == DATA


def test_an_exclusive_write_that_gave_up_asks_nothing_more(lab: Lab) -> None:
    """Whether the object is there is no question when the server is gone: the deadline was for all of it."""
    heard: list[str] = []

    def note(request: Request) -> bool:
        heard.append(request.method)
        return True

    with (
        lab.spoiled(kinds=["stall"], only=note) as proxy,
        lab.watch.refuses(UnavailableError, "write: no response in time"),
    ):
        lab.store(proxy.endpoint, give_up_after="2", read_timeout="0.4").put("a", DATA, exclusive=True)
    assert set(heard) == {"PUT"}


@pytest.mark.parametrize("server", ["s3", "web"])
def test_a_changed_object_is_an_error_or_the_old_one(lab: Lab, folder: Path, server: str) -> None:
    """From the first answer on: either bytes of that version or a StoreError that is no outage."""
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
def test_a_request_ends_by_its_deadline(lab: Lab, kind: str, reason: str, *, seen_before: bool) -> None:
    """With all its repetitions; the error says how often it was tried, for how long, and why it failed."""
    lab.put("a")
    with lab.spoiled(kinds=[kind], stall_s=20) as proxy:
        store = lab.store(proxy.endpoint, give_up_after="2", read_timeout="0.4")
        if seen_before:
            proxy.pause()
            assert store.get_range("a", 0, 10) == DATA[:10]
            proxy.resume()
        started = time.monotonic()
        with lab.watch.refuses(UnavailableError, rf"bytes 10-20: {reason}; gave up after \d+ attempts in \d\.\d s"):
            store.get_range("a", 10, 20)
        assert time.monotonic() - started < 4
        assert proxy.injected[kind] >= 2


def test_the_run_s_deadline_ends_everything(lab: Lab) -> None:
    """It counts from the opening: afterwards nothing is asked any more, though the server is well."""
    lab.put("a")
    with lab.spoiled(kinds=["503"]) as proxy:
        proxy.pause()
        started = time.monotonic()
        store = lab.store(proxy.endpoint, run_deadline="1.5")
        assert store.get_range("a", 0, 10) == DATA[:10]
        proxy.resume()
        with lab.watch.refuses(UnavailableError, "gave up after"):
            store.get_range("a", 10, 20)
        assert time.monotonic() - started < 3.5
        proxy.pause()
        time.sleep(max(0.0, started + 1.5 - time.monotonic()))
        before = proxy.requests
        with lab.watch.refuses(UnavailableError, r"the run's deadline of 1\.5 s leaves no time"):
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
    """A connection that gives nothing is left, and another one gives the rest."""
    lab.put("a")
    with lab.spoiled(kinds=["stall"], stall_s=60, max_faults_in_a_row=1) as proxy:
        started = time.monotonic()
        assert lab.store(proxy.endpoint, read_timeout="0.4").get_range("a", 0, 1000) == DATA[:1000]
        assert time.monotonic() - started < 20
        assert proxy.injected["stall"] == 1


def test_a_slow_answer_ends_with_the_timeout(lab: Lab) -> None:
    """Bytes that keep coming, but too slowly for one request, are given up too."""
    lab.put("a")
    with lab.spoiled(kinds=["drip"], drip_s=3, max_faults_in_a_row=1) as proxy:
        assert lab.store(proxy.endpoint, timeout="1").get_range("a", 0, 1000) == DATA[:1000]
        assert proxy.injected["drip"] == 1
        assert proxy.requests == 2


@pytest.mark.slow
def test_a_server_that_never_answered_is_given_up_sooner(watch: Watch) -> None:
    """A wrong address is known within half a minute, not after five."""
    started = time.monotonic()
    with watch.refuses(UnavailableError, "no connection to the server; gave up after"):
        open_store(f"http://{LOOPBACK}:1/set").get("a")
    assert time.monotonic() - started < 30


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
def test_a_refusal_is_not_repeated(
    lab: Lab, url: str | None, changes: dict[str, str | None], kind: type[StoreError], message: str
) -> None:
    """One request, and an error that says what to do."""
    heard = Heard()
    with lab.spoiled(only=heard) as proxy, lab.watch.refuses(kind, message):
        lab.store(proxy.endpoint, url, **changes).get_range("gone", 0, 10)
    assert len(heard.requests) == 1


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
def test_an_answer_that_will_not_change_is_not_asked_for_again(
    lab: Lab, verb: str, status: int, code: str, message: str
) -> None:
    """Whatever was to be done: one request, and the server's reason in our words, without the server's text."""
    with answering(status, code) as server, lab.watch.refuses(UnavailableError, message):
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


def test_a_web_server_that_wants_a_password_is_not_asked_again(folder: Path, watch: Watch) -> None:
    """Neither without a user nor with the wrong password."""
    with http_server(folder, user="me", password=PASSWORD[::-1]) as web:
        for url in (web.endpoint, web.endpoint.replace("://", f"://me:{PASSWORD}@")):
            store = watch.store(open_store(f"{url}?X-Amz-Signature={SIGNATURE}"))
            with watch.refuses(UnavailableError, r"the server requires credentials.*\(401\)"):
                store.get_range("a", 0, 10)
    assert len(web.requests) == 2


def test_a_server_without_tls_is_not_asked_again(watch: Watch) -> None:
    """Where https was asked for, the error says so."""
    connections: list[bytes] = []

    def converse(wire: Wire, _: Wires) -> None:
        connections.append(wire.socket.recv(10_000))
        wire.socket.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with listening(converse) as port:
        store = open_store(f"https://{LOOPBACK}:{port}/set?X-Amz-Signature={SIGNATURE}")
        with watch.refuses(UnavailableError, "no secure connection"):
            store.get_range("a", 0, 10)
    assert len(connections) == 1


def test_no_credentials_are_said_to_be_none(lab: Lab) -> None:
    """Before anything is asked."""
    heard = Heard()
    with lab.spoiled(only=heard) as proxy, lab.watch.refuses(UnavailableError, "no credentials were found"):
        lab.store(proxy.endpoint, access_key_id=None, secret_access_key=None).get_range("a", 0, 10)
    assert heard.requests == []


def test_a_profile_that_is_not_there_is_named(lab: Lab) -> None:
    """Before anything is asked."""
    with lab.watch.refuses(UnavailableError, "there is no profile nobody"):
        lab.store(access_key_id=None, secret_access_key=None, profile="nobody").list()


def test_a_profile_of_the_environment_that_is_not_there_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE is a name too."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with lab.watch.refuses(UnavailableError, "there is no profile nobody"):
        lab.store(access_key_id=None, secret_access_key=None).list()


@pytest.mark.parametrize("problem", ["half", "nonsense", "process"])
def test_credentials_that_cannot_be_read_are_our_error(
    lab: Lab, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a pair, a file that is none, and a command that fails: an UnavailableError, not boto3's."""
    path = tmp_path / "config"
    path.write_text({"half": "", "nonsense": "[default\n", "process": "[default]\ncredential_process=false\n"}[problem])
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    if problem == "half":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", lab.s3.access_key)
    with lab.watch.refuses(UnavailableError, "credentials"):
        lab.store(access_key_id=None, secret_access_key=None).list()


@pytest.mark.parametrize("problem", ["refused", "no server", "no profile"])
def test_leftovers_that_cannot_be_listed_are_our_error(lab: Lab, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever boto3 says comes as a StoreError, like the errors of all other verbs."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if problem == "no profile":
        monkeypatch.setenv("AWS_PROFILE", "nobody")
    changes = {"refused": {"secret_access_key": "wrong"}, "no server": {"endpoint": "http://127.0.0.1:1"}}
    with lab.watch.refuses(UnavailableError, "unfinished uploads"):
        open_store(lab.url, storage_options={**lab.s3.options, **changes.get(problem, {})}).delete_leftovers()


# --- Requests as they should be -----------------------------------------------------------------------------


def test_large_objects_are_read_in_blocks(lab: Lab) -> None:
    """No request asks for more than a block; the blocks are all of the object, of one version."""
    data = DATA * 100
    lab.put("large", data)
    heard = Heard()
    with lab.spoiled(only=heard) as proxy:
        assert lab.store(proxy.endpoint).get("large") == data
    gets = [request for request in heard.requests if request.range != "bytes=0-0"]  # which asks for the length
    bounds = sorted(tuple(map(int, (request.range or "").removeprefix("bytes=").split("-"))) for request in gets)
    starts = range(0, len(data), BLOCK_BYTES)
    assert bounds == [(start, min(start + BLOCK_BYTES, len(data)) - 1) for start in starts]
    assert len({request.headers.get("if-match") for request in gets}) == 1
    assert gets[0].headers["if-match"].startswith('"')


def test_large_objects_are_written_in_parts(lab: Lab) -> None:
    """Each with a checksum that the server verifies; a small one is one request."""
    heard = Heard()
    with lab.spoiled(only=heard) as proxy:
        store = lab.store(proxy.endpoint)
        with store.create("large") as file:
            file.write(DATA * 100)
        parts = [request for request in heard.requests if request.method == "PUT"]
        assert [("partNumber" in request.query, "x-amz-checksum-sha256" in request.headers) for request in parts] == [
            (True, True),
            (True, True),
        ]
        heard.requests.clear()
        store.put("small", DATA)
        (request,) = heard.requests
        assert "x-amz-checksum-sha256" in request.headers
    assert lab.uploads() == []


def test_the_first_version_is_asked_for_from_then_on(folder: Path) -> None:
    """The first request cannot name it, all others do."""
    with http_server(folder) as web:
        store = open_store(web.endpoint)
        for start in range(3):
            store.get_range("a", start, 10)
    etag = web.requests[1].headers["if-match"]
    assert [request.headers.get("if-match") for request in web.requests] == [None, etag, etag]


def test_a_signature_is_sent_with_every_request(folder: Path, watch: Watch) -> None:
    """A presigned URL, or one with a SAS, opens every file below it; redirections are followed."""
    with http_server(folder) as web:
        store = watch.store(open_store(f"{web.endpoint}/redirect?X-Amz-Signature={SIGNATURE}"))
        assert store.get("a") == DATA
    assert {request.path for request in web.requests} == {"/redirect/a", "/a"}
    assert {request.query for request in web.requests} == {f"X-Amz-Signature={SIGNATURE}"}


def test_a_password_stays_with_its_server(folder: Path, watch: Watch) -> None:
    """It is sent with every request, but not to another server that the first one names."""
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


def test_more_objects_than_one_answer_holds_are_listed(lab: Lab) -> None:
    """S3 lists a thousand at a time."""
    names = [f"{number:04d}" for number in range(1005)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: lab.put(name, b""), names))
    heard = Heard()
    with lab.spoiled(only=heard) as proxy:
        assert lab.store(proxy.endpoint).list() == names
    assert len(heard.requests) == 2


def test_the_files_of_a_web_server_share_connections(folder: Path) -> None:
    """One after the other they take one; what needs quoting, or comes with a query, is found all the same."""
    names = ["a", "b.tar", "c-1_2.json", "mit Leer#zeichen?.tar"]
    for name in names[1:]:
        (folder / name).write_bytes(name.encode())
    connections: dict[str, int] = {}  # each has a thread of its own while it is kept

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


def test_a_server_without_ranges_is_downloaded_once(folder: Path) -> None:
    """After it has ignored a range, one request brings the file for all ranges."""
    with http_server(folder, ranges=False) as web:
        store = open_store(web.endpoint)
        read_many(store, "a", seed=0, count=1)
        read_many(store, "a", seed=1)
    assert sum(map(is_whole, web.requests)) == 1
    assert len(web.requests) <= 4


def test_what_a_server_does_with_ranges_is_learned_once(folder: Path) -> None:
    """The first file is asked for three times, in case it was an accident; each further one once, without a wait."""
    (folder / "b").write_bytes(DATA[::-1])
    with http_server(folder, ranges=False) as web:
        store = open_store(web.endpoint)
        assert store.get_range("a", 0, 10) == DATA[:10]
        first = len(web.requests)
        assert store.get_range("b", 5, 10) == DATA[::-1][5:10]
    assert (first, len(web.requests) - first) == (4, 2)


def test_threads_share_a_download(folder: Path) -> None:
    """Several that ask for the first time while it is under way make one request for the file."""

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


def test_a_broken_download_goes_on(folder: Path) -> None:
    """Each stream breaks somewhere, but reaches further than the last: in the end all bytes are there, each once."""
    with (
        http_server(folder, ranges=False) as web,
        fault_proxy(
            *(LOOPBACK, web.port), seed=4, rate=1, kinds=["cut"], only=is_whole, max_faults_in_a_row=2
        ) as proxy,
    ):
        read_many(open_store(proxy.endpoint), "a", seed=4, count=1)
        assert proxy.injected["cut"] == 2


def test_a_download_is_of_one_version(folder: Path, watch: Watch) -> None:
    """A file that was replaced between two streams is an error, not the beginning of one and the end of the other."""
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
    """As a web server is."""
    lab.put("a")
    with lab.spoiled(kinds=["ignored_range"]) as proxy:
        assert lab.store(proxy.endpoint, give_up_after="4").get_range("a", 5, 10) == DATA[5:10]


def test_a_full_disk_is_said_to_be_full(folder: Path) -> None:
    """Not the server failed: the error says so, and comes at once."""
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
def test_a_temporary_file_that_cannot_be_made_is_our_error(folder: Path, call: str) -> None:
    """As where a folder cannot be written to: a StoreError that says where."""
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


# --- Who one is ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)


def anonymous_options(lab: Lab, **more: str) -> dict[str, str]:
    return {"endpoint": lab.s3.endpoint, "allow_http": "true", "region": "us-east-1", **more}


@pytest.mark.parametrize("how", ["option", "environment", "default"])
def test_a_profile_opens_the_store(lab: Lab, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option, by AWS_PROFILE or as the usual one; the endpoint may come from the environment."""
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
    """Without it the error says what to install; leftovers are left."""
    with lab.watch.refuses(StoreError, "profile lab needs boto3"):
        open_store(lab.url, storage_options=anonymous_options(lab, profile="lab")).list()
    assert lab.store().delete_leftovers() == []


def test_options_are_not_mixed_with_the_environment(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session token of other credentials is not sent with those that were given."""
    lab.put("a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    heard = Heard()
    with lab.spoiled(only=heard) as proxy, contextlib.suppress(UnavailableError):
        lab.store(proxy.endpoint).get("a")
    assert [request.headers.get("x-amz-security-token") for request in heard.requests] == [None, None]


def test_anyone_reads_a_public_bucket(lab: Lab) -> None:
    """Without credentials, also in another process, and nothing is signed."""
    lab.s3.put("public", f"{lab.prefix}/a", DATA)
    heard = Heard()
    with lab.spoiled(only=heard) as proxy:
        options = anonymous_options(lab, skip_signature="true", endpoint=proxy.endpoint)
        store = lab.watch.store(open_store(f"s3://public/{lab.prefix}", storage_options=options))
        assert store.list() == ["a"]
        copy: Store = pickle.loads(pickle.dumps(store))  # noqa: S301 -- our own
        assert copy.get("a") == DATA
        with lab.watch.refuses(UnavailableError, "access denied"):
            store.put("b", DATA)
    assert not [request for request in heard.requests if "authorization" in request.headers]


@pytest.mark.parametrize(
    ("with_boto3", "options"),
    [
        (True, {}),
        (False, {"read_timeout": "1", "give_up_after": "4"}),
        pytest.param(False, {}, marks=pytest.mark.slow),
    ],
)
def test_a_metadata_service_that_is_silent_is_given_up(lab: Lab, with_boto3: bool, options: dict[str, str]) -> None:
    """A machine whose metadata address leads nowhere: within seconds the error says that there are no credentials."""
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
    assert int(seconds) < 30


# --- Processes and signals ----------------------------------------------------------------------------------


def test_a_forked_process_gets_an_error_and_its_parent_goes_on(lab: Lab) -> None:
    """At once, for the store that was used, for another one and for one opened there; the message says what to do."""
    lab.put("a")
    code = """
options = json.loads(sys.argv[2])
used, unused = (open_store(sys.argv[1], storage_options=options) for _ in range(2))
data = used.get("a")
child = os.fork()
if child == 0:
    signal.alarm(20)
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


def test_a_process_forked_before_the_first_request_may_read(lab: Lab) -> None:
    """A store that was only opened is handed on by fork; each process makes its own client."""
    lab.put("a")
    code = """
store = open_store(sys.argv[1], storage_options=json.loads(sys.argv[2]))
child = os.fork()
if child == 0:
    signal.alarm(20)
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
def test_an_interrupt_during_a_stall_is_heard(lab: Lab, call: str) -> None:
    """Ctrl-C ends the process promptly, though the server says nothing and there is time left."""
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
        assert process.communicate(timeout=10)[0] == "interrupted\n"
        assert process.returncode == 130


def wait_until(happened: Callable[[], bool], *, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- What writers leave -------------------------------------------------------------------------------------


def test_uploads_of_killed_writers_are_aborted(lab: Lab) -> None:
    """A writer is killed within an upload: nothing is there under the name, and what it sent is deleted when asked."""
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


def test_a_writer_that_gave_up_can_clean_up(lab: Lab) -> None:
    """An upload that failed for good leaves no object; what it left elsewhere is deleted when asked."""
    with lab.spoiled(kinds=["503"], only=lambda request: "partNumber" in request.query) as proxy:
        store = lab.store(proxy.endpoint, give_up_after="1")

        def write() -> None:
            with store.create("a") as file:
                file.write(DATA * 100)

        with lab.watch.refuses(UnavailableError, "write: the server responded with status 503; gave up after"):
            write()
    assert lab.store().list() == []
    assert set(lab.store().delete_leftovers()) <= {"a"}
    assert lab.uploads() == []


def test_no_request_outlives_its_test(lab: Lab) -> None:
    """After a request in the main thread its helper thread is gone."""
    lab.put("a")
    store = lab.store()
    store.get("a")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("request", "get"))]
