"""Progress: few lines in a file, one line in a notebook, a bar on a terminal, and nothing that can fail."""

from __future__ import annotations

import io
import sys
import types

import pytest

from wds_real.evaluation.progress import bar
from wds_real.evaluation.progress.bar import progress_bar, style_of_stderr


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bar, "time", clock)
    return clock


def test_a_long_run_prints_few_lines(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of 16 minutes with a batch each tenth of a second prints a line at the start and end, and few between."""
    with progress_bar("eval", 50_000, unit="images", style="lines") as advance:
        assert capsys.readouterr().err == "eval: 0 %, 0 of 50,000 images\n"
        for _ in range(10_000):
            clock.now += 0.096
            advance(5)
    lines = capsys.readouterr().err.splitlines()
    assert 8 <= len(lines) <= 16
    assert lines[0].startswith("eval: 1 %, 525 of 50,000 images, 52/s, 10.")
    assert lines[-1] == "eval: 100 %, 50,000 of 50,000 images, 52/s, 960.0 s"


def test_bytes_are_megabytes_and_the_total_may_come_later(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes have a rate in MB/s; a total that is not known at the start is shown once it is."""
    with progress_bar("index", 0, unit="bytes", style="lines") as advance:
        clock.now += 20
        advance(3_000_000, 12_000_000)
        clock.now += 2
        advance(9_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "index: 0 %, 0.0 MB",
        "index: 25 %, 3.0 of 12.0 MB, 0.1 MB/s, 20.0 s, 60 s left",
        "index: 100 %, 12.0 of 12.0 MB, 0.5 MB/s, 22.0 s",
    ]


def test_a_failed_run_has_no_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    """After an exception, no line says how far the work came: the message follows."""
    with pytest.raises(TypeError), progress_bar("pack", 10, unit="bytes", style="lines") as advance:
        advance("five")  # type: ignore[arg-type]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_notebook_has_one_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """In a notebook, the line is written over itself twice a second, and ended at the end."""
    with progress_bar("eval", 100, unit="images", style="notebook") as advance:
        for _ in range(100):
            clock.now += 0.1
            advance(1)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert 15 <= shown.count("\r") <= 25
    assert "eval: 100 %, 100 of 100 images" in shown.rpartition("\r")[2]


def test_no_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a style, nothing is printed."""
    with progress_bar("eval", 100, unit="images", style="none") as advance:
        advance(5, 10)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("closed", [True, False])
def test_progress_that_cannot_be_shown_is_no_error(monkeypatch: pytest.MonkeyPatch, *, closed: bool) -> None:
    """A stderr that is closed, or is none, stops no work."""
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    assert style_of_stderr() == "none"
    with progress_bar("eval", 100, unit="images", style="lines") as advance:
        advance(5)


def test_the_style_is_that_of_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets a bar, a notebook's stream a line, anything else lines."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    notebook = types.new_class("OutStream", (io.StringIO,))
    notebook.__module__ = "ipykernel.iostream"
    for stream, style in ((terminal, "bar"), (notebook(), "notebook"), (io.StringIO(), "lines")):
        monkeypatch.setattr(sys, "stderr", stream)
        assert style_of_stderr() == style
