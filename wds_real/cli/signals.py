"""SIGINT and SIGTERM: a command stops, prints what is kept, and ends with exit code 130 or 143.

The first signal raises `Stopped` in the main thread. A second one ends the process at once. If the process is still
there ten seconds after the first one, a thread ends it: the main thread may be waiting for other ranks in C code, where
Python handles no signals.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import click

from wds_real.cli.console import is_main_rank, print_message, rank_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType
    from typing import Self

__all__ = ["SignalHandling", "Stopped", "kept_if_stopped"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_S = 10.0  # torchrun and SLURM kill after 30 s


class Stopped(KeyboardInterrupt):
    """A signal asks the command to stop."""


class SignalHandling:
    """Handles the two signals in a ``with`` block; afterwards their earlier handlers are in force again."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.kept = ""
        self._said = False
        self._earlier: dict[int, signal.Handlers] = {}
        self._pipe = (-1, -1)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            os.register_at_fork(after_in_child=self._leave_pipe)
            signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(self._pipe[0],), name="signals", daemon=True).start()
            self._earlier = {number: signal.signal(number, self._stop) for number in handled}  # type: ignore[misc]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        if self._pipe[1] >= 0:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])  # ends the thread, unless it waits after a signal
            self._pipe = (-1, -1)

    @property
    def exit_code(self) -> int:
        """The exit code, 128 plus the signal's number, as in shells: 130 or 143."""
        return 128 + (self.received or signal.SIGINT)

    def say(self) -> None:
        """Print what is kept, on rank 0 only, and that the command was stopped."""
        self._said = True
        if self.kept and is_main_rank():
            print_message(self.kept)
        print_message(rank_prefix() + ("terminated" if self.received == signal.SIGTERM else "interrupted"))

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None:
            os._exit(self.exit_code)
        self.received = number
        raise Stopped

    def _leave_pipe(self) -> None:
        """Close the pipe in a forked process: through it, a signal to that process would end its parent."""
        if self._pipe[1] >= 0:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])
            self._pipe = (-1, -1)

    def _watch(self, pipe: int) -> None:
        """End the process some time after a signal, if it is still there."""
        with open(pipe, "rb", buffering=0) as signals:
            while number := signals.read(1):
                if number[0] in self._earlier:
                    threading.Event().wait(_GRACE_S)
                    self._end(number[0])

    def _end(self, number: int) -> NoReturn:
        self.received = number
        if not self._said:
            self.say()
        os._exit(self.exit_code)


@contextmanager
def kept_if_stopped(text: str) -> Iterator[None]:
    """Print `text` if a signal stops the command in this block; it says what is kept and how to resume."""
    context = click.get_current_context(silent=True)
    handling = None if context is None else context.find_object(SignalHandling)
    if handling is None:
        yield
        return
    before, handling.kept = handling.kept, text
    yield
    handling.kept = before  # not after an exception: `main` prints the text
