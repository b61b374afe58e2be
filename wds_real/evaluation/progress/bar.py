"""Progress on stderr: a bar on a terminal, a rewritten line in a notebook, a few lines in a log file.

The command line uses it for all of its commands, `evaluate` for calls from Python; nothing else imports rich.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from wds_real.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Advance", "Style", "progress_bar", "style_of_stderr"]

Style = Literal["bar", "notebook", "lines", "none"]

_FIRST_INTERVAL_S = 10.0
_LONGEST_INTERVAL_S = 120.0


class Advance(Protocol):
    """Moves a progress bar; may be called from any thread."""

    def __call__(self, amount: int, total: int | None = None) -> None:
        """Add `amount` to what is done; `total` replaces the total if it was not known before."""


def style_of_stderr() -> Style:
    """Return what stderr can show: a bar if it is a terminal, a rewritten line if it is a notebook's, else lines."""
    try:
        if sys.stderr.isatty():
            return "bar"
    except (AttributeError, ValueError):  # there is no stderr, or it is closed
        return "none"
    return "notebook" if type(sys.stderr).__module__.partition(".")[0] == "ipykernel" else "lines"


@contextmanager
def progress_bar(title: str, total: int, *, unit: str, style: Style) -> Iterator[Advance]:
    """Yield the function that moves a progress bar.

    Args:
        title: What is being done.
        total: The number of units in all; 0 if it is not known yet.
        unit: ``bytes``, or the plural of what is counted.
        style: How progress is shown. ``lines`` writes one line at the start and one at the end, and between them one
            after ten seconds and then at growing intervals of at most two minutes.
    """
    if style == "none":
        yield _show_nothing
    elif style == "bar":
        with _rich_bar(title, total, unit) as advance:
            yield advance
    else:
        text = _Text(title, total, unit, rewritten=style == "notebook")
        yield text.advance
        text.finish()


def _show_nothing(amount: int, total: int | None = None) -> None:
    del amount, total


@contextmanager
def _rich_bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    from rich import progress  # noqa: PLC0415 -- a tenth of a second, only on terminals
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class RateColumn(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(f"{task.speed or 0:,.0f} {unit}/s")

    counts: tuple[progress.ProgressColumn, ...] = (progress.MofNCompleteColumn(), RateColumn())
    if unit == "bytes":
        counts = (progress.DownloadColumn(), progress.TransferSpeedColumn())
    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), *counts, progress.TimeRemainingColumn())
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total or None)

        def advance(amount: int, total: int | None = None) -> None:
            bar.update(task, advance=amount, total=total)

        yield advance


class _Text:
    """Writes lines: amount done, rate, elapsed time and time left; or one line, which is rewritten twice a second."""

    def __init__(self, title: str, total: int, unit: str, *, rewritten: bool) -> None:
        self._title, self._total, self._unit, self._rewritten = title, total, unit, rewritten
        self._done = 0
        self._started = time.monotonic()
        self._next_at = self._started + (0.5 if rewritten else _FIRST_INTERVAL_S)
        self._lock = threading.Lock()
        self._show()

    def advance(self, amount: int, total: int | None = None) -> None:
        with self._lock:
            self._done += amount
            self._total = self._total if total is None else total
            now = time.monotonic()
            if now < self._next_at:
                return
            interval = min(max(_FIRST_INTERVAL_S, (now - self._started) / 2), _LONGEST_INTERVAL_S)
            self._next_at = now + (0.5 if self._rewritten else interval)
            self._show()

    def finish(self) -> None:
        if self._done or self._rewritten:
            self._show(is_last=True)

    def _show(self, *, is_last: bool = False) -> None:
        line = printable(self._text())
        with contextlib.suppress(OSError, ValueError, AttributeError):  # progress that cannot be shown is no error
            sys.stderr.write(f"\r{line:<78}{chr(10) * is_last}" if self._rewritten else f"{line}\n")
            sys.stderr.flush()

    def _text(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = self._done / elapsed
        share = 100 * self._done / self._total if self._total else 100.0
        if self._unit == "bytes":
            whole = f" of {self._total / 1e6:,.1f}" if self._total else ""
            amounts, speed = f"{self._done / 1e6:,.1f}{whole} MB", f"{rate / 1e6:,.1f} MB/s"
        else:
            whole = f" of {self._total:,}" if self._total else ""
            amounts, speed = f"{self._done:,}{whole} {self._unit}", f"{rate:,.0f}/s"
        if not self._done:
            return f"{self._title}: 0 %, {amounts}"
        left = f", {(self._total - self._done) / rate:,.0f} s left" if self._done < self._total else ""
        return f"{self._title}: {share:.0f} %, {amounts}, {speed}, {elapsed:,.1f} s{left}"
