"""retry_after: how long a server asks to wait, read from its own answer."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import servers

from wds_real.storage.retry_after import parse_retry_after, retry_after

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.fixture
def web(tmp_path: Path) -> Iterator[servers.HttpServer]:
    (tmp_path / "a").write_bytes(b"hello")
    with servers.http_server(tmp_path) as server:
        yield server


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        ("Sun, 36 Nov 1994 08:49:00 GMT", None),
    ],
)
def test_a_header_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Both forms of RFC 9110 are understood, a date that is over means now, and anything else counts as none."""
    assert parse_retry_after(value, now=NOON) == seconds


@given(st.text(max_size=60))
@example("Thu, 01 Jan 1970 00:00:00 +9999")
@example("9" * 400)
def test_any_header_is_understood_or_not(value: str) -> None:
    """Whatever a server sends: seconds that are not negative, or None; no error."""
    found = parse_retry_after(value)
    assert found is None or found >= 0


def test_a_date_with_an_absurd_zone_is_no_header() -> None:
    """A date from nowhere is not understood, and not an error."""
    assert parse_retry_after("Thu, 01 Jan 1970 00:00:00 +99999999999999999999") is None


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), (None, None), ("0", 0.0)])
def test_the_refused_server_is_asked(web: servers.HttpServer, header: str | None, seconds: float | None) -> None:
    """The answer of a server that refuses again says how long, or nothing."""
    with servers.fault_proxy(
        servers.LOOPBACK, web.port, seed=0, rate=1, kinds=["503"], max_faults_in_a_row=9, retry_after=header
    ) as proxy:
        assert retry_after(f"{proxy.endpoint}/a") == seconds
        assert proxy.injected["503"] == 1


def test_a_server_that_answers_again_need_not_be_waited_for(web: servers.HttpServer) -> None:
    """It is asked for one byte, and gives it: no wait."""
    assert retry_after(f"{web.endpoint}/a") == 0.0
    assert [request.range for request in web.requests] == ["bytes=0-0"]


def test_a_refusal_of_another_kind_says_nothing(web: servers.HttpServer) -> None:
    """404 has no Retry-After."""
    assert retry_after(f"{web.endpoint}/missing") is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a", "http://127.0.0.1:99999/a", "http://127.0.0.1:port/a"])
def test_no_answer_says_nothing(url: str) -> None:
    """A closed port, and a port that is none, give None and no error."""
    assert retry_after(url) is None


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 503 Busy\r\n" + b"x" * 70_000, b""])
def test_a_server_that_does_not_speak_http_says_nothing(answer: bytes) -> None:
    """Neither nonsense, nor a head without an end, nor silence is an error."""

    def converse(wire: servers._Wire, _: servers._Wires) -> None:
        wire.request()
        wire.socket.sendall(answer)

    with servers._listening(converse) as port:
        assert retry_after(f"http://{servers.LOOPBACK}:{port}/a") is None


def test_a_server_that_is_silent_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without an answer ends with its time-out."""
    monkeypatch.setattr("wds_real.storage.retry_after._TIMEOUT_S", 0.2)
    with socket.create_server((servers.LOOPBACK, 0)) as listener:
        assert retry_after(f"http://{servers.LOOPBACK}:{listener.getsockname()[1]}/a") is None
