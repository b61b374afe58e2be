"""Retries with full jitter, a deadline for each request, and one for the run.

This is the only layer of retries. A request ends by itself within `RetryPolicy.request_timeout_s`, and the last attempt
starts early enough to end before the deadline.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from wds_real.storage.http_errors import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GaveUpError", "RetryPolicy", "TransientError", "interruptible", "retry"]

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_MAX_ALIKE = 3
_T = TypeVar("_T")


class TransientError(Exception):
    """A request failed in a way that may pass.

    Args:
        kind: What went wrong.
        reason: The message of the error, without secrets; None means the message of `kind`.
        final: Error to raise when the third attempt in a row fails with this kind; None to retry until the deadline.
    """

    def __init__(self, kind: Kind, reason: str | None = None, *, final: Exception | None = None) -> None:
        super().__init__(kind.value if reason is None else reason)
        self.kind = kind
        self.final = final


class GaveUpError(Exception):
    """The last attempt failed too, or there was no time for one; callers raise an error that names the file."""

    def __init__(self, attempts: int, elapsed_s: float, reason: str) -> None:
        super().__init__(
            f"{reason}; gave up after {attempts} {'attempt' if attempts == 1 else 'attempts'} in {elapsed_s:.1f} s"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Timeouts and deadlines, in seconds.

    Attributes:
        connect_timeout_s: Limit for opening a connection.
        read_timeout_s: Limit for the wait for the next bytes of a response; ends stalled connections.
        timeout_s: Limit for one request of at most 8 MiB; `request_timeout_s` may be shorter.
        give_up_after_s: Limit for a request with all its retries.
        run_deadline_s: Limit for all requests, counted from when the store was opened; None means no limit.
    """

    connect_timeout_s: float = 5.0
    read_timeout_s: float = 20.0
    timeout_s: float = 60.0
    give_up_after_s: float = 300.0
    run_deadline_s: float | None = None

    @property
    def request_timeout_s(self) -> float:
        """Limit for one attempt, short enough that a second attempt after a wait ends before each deadline."""
        limits = [self.timeout_s, 0.45 * self.give_up_after_s]
        if self.run_deadline_s is not None:
            limits.append(0.45 * self.run_deadline_s)
        return min(limits)


def retry(
    attempt: Callable[[], _T],
    *,
    policy: RetryPolicy,
    opened_at: float,
    jitter: Callable[[float, float], float] = random.uniform,
    sleep: Callable[[float], None] = time.sleep,
) -> _T:
    """Call `attempt` until it succeeds or time is up; exceptions other than `TransientError` pass through.

    The wait before each retry is drawn from (0, bound), where the bound doubles from 0.5 s to 30 s. The first retry
    does not wait unless the server failed: other errors say nothing about its load.

    Args:
        attempt: Makes one request.
        policy: The deadlines.
        opened_at: When the run began, by ``time.monotonic()``.
        jitter: Draws a number between two others.
        sleep: Waits for a number of seconds.

    Raises:
        GaveUpError: the next attempt might end after a deadline.
        Exception: the error's `final`, after three of the same kind in a row.
    """
    started = time.monotonic()
    deadline = started + policy.give_up_after_s
    if policy.run_deadline_s is not None:
        deadline = min(deadline, opened_at + policy.run_deadline_s)
    if started + policy.request_timeout_s > deadline:
        raise GaveUpError(0, 0.0, f"the run's deadline of {policy.run_deadline_s:g} s leaves no time for a request")
    bound, num_alike, last_kind = _FIRST_WAIT_S, 0, None
    for number in itertools.count(1):
        try:
            return attempt()
        except TransientError as error:
            num_alike, last_kind = (num_alike + 1 if error.kind is last_kind else 1), error.kind
            if error.final is not None and num_alike == _MAX_ALIKE:
                raise error.final from None
            wait = 0.0 if number == 1 and error.kind is not Kind.SERVER_ERROR else jitter(0, bound)
            if time.monotonic() + wait + policy.request_timeout_s > deadline:
                raise GaveUpError(number, time.monotonic() - started, str(error)) from None
        bound = min(2 * bound, _LONGEST_WAIT_S)
        sleep(wait)
    raise AssertionError  # pragma: no cover -- count() has no end


def interruptible(call: Callable[[], _T]) -> _T:
    """Run `call` outside the main thread, so that Ctrl-C interrupts it: the client library checks for no signals."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    outcome: list[_T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 -- raised below, in the calling thread
            failure.append(error)

    thread = threading.Thread(target=run, name="request", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
