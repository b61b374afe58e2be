"""How long to insist: waits with full jitter, a deadline for each request, and one for the run.

There is one layer of retries, and this is it. A request ends by itself within `RetryPolicy.request_timeout_s`, and the
last attempt starts so early that it ends before the deadline: nothing waits longer than it was told to.
"""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GaveUpError", "RetryPolicy", "TransientError", "retry"]

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_T = TypeVar("_T")


class TransientError(Exception):
    """A request failed in a way that may pass.

    Attributes:
        reason: In our own words: what servers and libraries say may hold secrets.
        retry_after_s: How long the server asked to wait, in seconds, or None.
        at_once: The connection broke or the answer was wrong, which says nothing of the server's load: the first
            repetition need not wait.
        at_most: Attempts after which it is no accident, or None.
        final: What to raise then, or None for whatever the caller raises for an outage.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_after_s: float | None = None,
        at_once: bool = False,
        at_most: int | None = None,
        final: Exception | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.at_once = at_once
        self.at_most = at_most
        self.final = final


class GaveUpError(Exception):
    """The last attempt failed too, or there was no time for one."""

    def __init__(self, attempts: int, elapsed_s: float, reason: str) -> None:
        super().__init__(
            f"{reason}; gave up after {attempts} {'attempt' if attempts == 1 else 'attempts'} in {elapsed_s:.1f} s"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to wait for what, in seconds.

    Attributes:
        connect_timeout_s: For a connection.
        read_timeout_s: For the next bytes of an answer; a stalled connection is given up after this.
        timeout_s: For a whole request of at most 8 MiB; shorter where a deadline leaves no time for a second one.
        give_up_after_s: For a request with all its repetitions.
        run_deadline_s: For everything, from the opening of the store on; None means no such deadline.
    """

    connect_timeout_s: float = 5.0
    read_timeout_s: float = 20.0
    timeout_s: float = 60.0
    give_up_after_s: float = 300.0
    run_deadline_s: float | None = None

    @property
    def request_timeout_s(self) -> float:
        """For one attempt: short enough for a second one before a deadline, with some time in between."""
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
    """Call `attempt` until it succeeds or time is up; other exceptions than `TransientError` pass.

    Args:
        attempt: One request.
        policy: How long to go on.
        opened_at: When the run began, by ``time.monotonic()``.
        jitter: Draws the wait from (0, bound).
        sleep: Waits.

    Raises:
        GaveUpError: the next attempt might end after a deadline.
        Exception: a fault's `final`, when it came too often in a row.
    """
    started = time.monotonic()
    deadline = started + policy.give_up_after_s
    if policy.run_deadline_s is not None:
        deadline = min(deadline, opened_at + policy.run_deadline_s)
    if started + policy.request_timeout_s > deadline:
        raise GaveUpError(0, 0.0, f"the run's deadline of {policy.run_deadline_s:g} s leaves no time for a request")
    bound, alike, last = _FIRST_WAIT_S, 0, ""
    for number in itertools.count(1):
        try:
            return attempt()
        except TransientError as fault:
            alike, last = (alike + 1 if fault.reason == last else 1), fault.reason
            if fault.final is not None and alike == fault.at_most:
                raise fault.final from None
            wait = 0.0 if fault.at_once and number == 1 else jitter(0, bound)
            wait = max(wait, fault.retry_after_s or 0.0)
            if time.monotonic() + wait + policy.request_timeout_s > deadline:
                raise GaveUpError(number, time.monotonic() - started, fault.reason) from None
        bound = min(2 * bound, _LONGEST_WAIT_S)
        sleep(wait)
    raise AssertionError  # pragma: no cover -- count() has no end
