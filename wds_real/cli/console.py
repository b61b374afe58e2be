"""Output that the commands share: JSON or text on stdout, progress and messages on stderr.

No other module of the command line prints. Each line passes `wds_real.errors.printable`, so that no name in a file can
write to the terminal.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import click

from wds_real.data.distributed import launched_world
from wds_real.errors import StoreError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wds_real.scoring.result import Result

__all__ = [
    "LogHandler",
    "counted",
    "is_main_rank",
    "print_json",
    "print_lines",
    "print_message",
    "print_result",
    "print_usage_error",
    "progress_bar",
    "rank_prefix",
]

_PLAIN_INTERVAL_S = 5.0


def is_main_rank() -> bool:
    """Return whether this process is rank 0, the one that prints."""
    return launched_world().rank == 0


def rank_prefix() -> str:
    """Return the start of an error message: ``rank 3: ``, or nothing if there is only one process."""
    world = launched_world()
    return f"rank {world.rank}: " if world.world_size > 1 else ""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "shard"), counted(50_000, "image")
    ('1 shard', '50,000 images')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def print_lines(*lines: str, bold: bool = False) -> None:
    """Print lines on stdout, each made printable.

    A closed pipe, as after ``| head``, ends the process without a word, with the exit code that shells give for it.

    Raises:
        StoreError: stdout cannot be written: the disk that it leads to is full.
    """
    try:
        for line in lines:
            click.secho(printable(line), bold=bold)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing is left to fail when Python ends
        if error.errno == errno.EPIPE:
            sys.exit(128 + signal.SIGPIPE)
        raise StoreError(f"stdout cannot be written: {error.strerror or error}.") from error


def print_message(message: str) -> None:
    """Print one line on stderr, made printable; a stderr that cannot be written is no error."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(printable(message), err=True)


def print_usage_error(error: click.ClickException) -> None:
    """Print how the command is used, and what is wrong, as one line."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.1 has none
        error.show()
        return
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try '{error.ctx.command_path} --help' for help.\n", err=True)
    print_message(f"Error: {' '.join(error.format_message().split())}")


class LogHandler(logging.Handler):
    """Prints each log record as a message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record."""
        print_message(f"wds-real: {record.getMessage()}")


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print_lines(*json.dumps(value, indent=1).split("\n"))


def print_result(result: Result, *, per_class: bool) -> None:
    """Print a result's table and receipt."""
    print_lines(*str(result).split("\n"))
    if per_class:
        print_lines(*str(result.breakdown).split("\n"))


class Advance(Protocol):
    """Moves a progress bar; may be called from any thread."""

    def __call__(self, amount: int, total: int | None = None) -> None:
        """Add `amount` to what is done; `total` replaces the total if it was not known before."""


@contextmanager
def progress_bar(title: str, total: int, *, unit: str, hidden: bool = False) -> Iterator[Advance]:
    """Yield the function that moves a progress bar: a bar on a terminal, elsewhere a line every few seconds.

    Args:
        title: What is being done.
        total: The number of units in all; 0 if it is not known yet.
        unit: ``bytes``, or the plural of what is counted.
        hidden: Print nothing.
    """
    if hidden or not is_main_rank():
        yield _print_nothing
    elif sys.stderr.isatty():
        with _rich_bar(title, total, unit) as advance:
            yield advance
    else:
        lines = _PlainLines(title, total, unit)
        yield lines.advance
        lines.finish()


def _print_nothing(amount: int, total: int | None = None) -> None:
    del amount, total


@contextmanager
def _rich_bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    from rich import progress
    from rich.console import Console
    from rich.text import Text

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


class _PlainLines:
    """Prints a line every few seconds: amount done, rate, elapsed time and time left."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = 0
        self._started = self._printed = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, amount: int, total: int | None = None) -> None:
        with self._lock:
            self._done += amount
            self._total = self._total if total is None else total
            if time.monotonic() - self._printed >= _PLAIN_INTERVAL_S:
                self._printed = time.monotonic()
                self._print()

    def finish(self) -> None:
        if self._done:
            self._print()

    def _print(self) -> None:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = self._done / elapsed
        left = f", {(self._total - self._done) / rate:,.0f} s left" if 0 < self._done < self._total else ""
        share = 100 * self._done / self._total if self._total else 100.0
        if self._unit == "bytes":
            whole = f" of {self._total / 1e6:,.1f}" if self._total else ""
            amounts = f"{self._done / 1e6:,.1f}{whole} MB, {rate / 1e6:,.1f} MB/s"
        else:
            whole = f" of {self._total:,}" if self._total else ""
            amounts = f"{self._done:,}{whole} {self._unit}, {rate:,.0f}/s"
        print_message(f"{self._title}: {share:.0f} %, {amounts}, {elapsed:,.1f} s{left}")
