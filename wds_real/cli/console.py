"""Output that the commands share: JSON or text on stdout, progress and messages on stderr.

No other module of the command line prints. Each line passes `wds_real.errors.printable`, so that names from files
cannot send control characters to the terminal.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import json
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from wds_real.data.launchers import launched_world
from wds_real.errors import StoreError, printable
from wds_real.evaluation.progress import bar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from wds_real.data.launchers import World
    from wds_real.evaluation.progress.bar import Advance
    from wds_real.scoring.result import Result

__all__ = [
    "LogHandler",
    "counted",
    "is_main_rank",
    "print_bytes",
    "print_json",
    "print_lines",
    "print_message",
    "print_result",
    "print_usage_error",
    "progress_bar",
    "rank_prefix",
    "speak_for_rank",
]

_INDEPENDENT: contextvars.ContextVar[World | None] = contextvars.ContextVar("independent rank", default=None)


def speak_for_rank(world: World | None) -> None:
    """Make this process print its own output from now on, as an independent rank does; None undoes this."""
    _INDEPENDENT.set(world)


def is_main_rank() -> bool:
    """Return whether this process is the one that prints: rank 0, or an independent rank."""
    return _INDEPENDENT.get() is not None or launched_world().rank == 0


def rank_prefix() -> str:
    """Return the start of an error message: ``rank 3: ``, or nothing if there is only one process."""
    world = _INDEPENDENT.get() or launched_world()
    return f"rank {world.rank}: " if world.world_size > 1 else ""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "shard"), counted(50_000, "image")
    ('1 shard', '50,000 images')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def print_lines(*lines: str, bold: bool = False) -> None:
    """Print lines on stdout, each made printable.

    A closed pipe, as after ``| head``, ends the process without a message, with exit code 141, as in shells.

    Raises:
        StoreError: stdout cannot be written: the disk that it leads to is full.
    """
    with _stdout_errors():
        for line in lines:
            click.secho(printable(line), bold=bold)


def print_bytes(data: bytes | memoryview) -> None:
    """Write bytes to stdout as they are.

    Raises:
        StoreError: as `print_lines`.
    """
    with _stdout_errors():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def _stdout_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout when it ends, which must not fail
        if error.errno == errno.EPIPE:
            sys.exit(128 + signal.SIGPIPE)
        raise StoreError(f"stdout cannot be written: {error.strerror or error}.") from error


def print_message(message: str) -> None:
    """Print one line on stderr, made printable; if stderr cannot be written, the line is dropped."""
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


def print_json(value: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Print one JSON object, or a list of them, on stdout."""
    print_lines(*json.dumps(value, indent=1).split("\n"))


def print_result(result: Result, *, per_class: bool) -> None:
    """Print a result's table and receipt."""
    print_lines(*str(result).split("\n"))
    if per_class:
        print_lines(*str(result.breakdown).split("\n"))


def progress_bar(title: str, total: int, *, unit: str, quiet: bool) -> AbstractContextManager[Advance]:
    """Return a context manager that yields the function that advances the progress: a bar on a terminal, else lines."""
    return bar.progress_bar(title, total, unit=unit, style="none" if quiet else bar.style_of_stderr())
