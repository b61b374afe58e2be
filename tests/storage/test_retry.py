"""persist: one layer of retries with jitter, a deadline for a request, and one for the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.errors import StoreError
from wds_real.storage import retry as retry_module
from wds_real.storage.retry import GaveUpError, RetryPolicy, TransientError, retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Clock:
    """Time that passes only where something waits or works."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the module a clock of its own; the real one keeps running for everything else."""
    made = Clock()
    monkeypatch.setattr(retry_module, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def failing(clock: Clock, faults: Iterable[Exception], *, takes_s: float = 0.0) -> Callable[[], str]:
    """Return an attempt that takes its time, raises these one after the other and succeeds when there are no more."""
    left: Iterator[Exception] = iter(faults)

    def attempt() -> str:
        clock.now += takes_s
        for fault in left:
            raise fault
        return "done"

    return attempt


def run(
    clock: Clock,
    attempt: Callable[[], str],
    policy: RetryPolicy | None = None,
    *,
    share: float = 1.0,
    opened_s_ago: float = 0.0,
) -> str:
    """Persist; `share` says where between 0 and its bound each wait is drawn."""
    return retry(
        attempt,
        policy=policy or RetryPolicy(),
        opened_at=clock.now - opened_s_ago,
        jitter=lambda low, high: low + share * (high - low),
        sleep=clock.sleep,
    )


def busy(count: int) -> list[Exception]:
    return [TransientError("busy") for _ in range(count)]


def test_success_at_once_waits_for_nothing(clock: Clock) -> None:
    """The result is given back, and there was no wait."""
    assert run(clock, failing(clock, [])) == "done"
    assert clock.waits == []


def test_waits_double_up_to_thirty_seconds(clock: Clock) -> None:
    """The bound of the wait grows from 0.5 s twofold, and stays at 30 s."""
    assert run(clock, failing(clock, busy(9)), RetryPolicy(give_up_after_s=1000)) == "done"
    assert clock.waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_jitter_is_full(clock: Clock) -> None:
    """Each wait is drawn between nothing and the bound."""
    assert run(clock, failing(clock, busy(3)), share=0.25) == "done"
    assert clock.waits == [0.125, 0.25, 0.5]


def test_the_default_jitter_stays_within_its_bounds(clock: Clock) -> None:
    """Without a draw of the caller's own, waits are random and lie within the bounds."""
    for _ in range(20):
        retry(failing(clock, busy(2)), policy=RetryPolicy(), opened_at=clock.now, sleep=clock.sleep)
    assert all(0 <= wait <= bound for wait, bound in zip(clock.waits, [0.5, 1.0] * 20, strict=True))
    assert len(set(clock.waits)) > 20


def test_a_broken_connection_is_repeated_at_once_but_only_once(clock: Clock) -> None:
    """The first repetition after a fault that says nothing of the server's load does not wait; later ones do."""
    faults = [TransientError("broken", at_once=True) for _ in range(3)]
    assert run(clock, failing(clock, faults)) == "done"
    assert clock.waits == [0, 1, 2]


def test_the_server_s_wish_is_the_shortest_wait(clock: Clock) -> None:
    """Retry-After lengthens a wait and never shortens one."""
    faults = [TransientError("busy", retry_after_s=7.0), TransientError("busy", retry_after_s=0.0)]
    assert run(clock, failing(clock, faults)) == "done"
    assert clock.waits == [7.0, 1.0]


def test_a_wish_that_is_beyond_the_deadline_ends_it_at_once(clock: Clock) -> None:
    """There is no waiting for an attempt that could not be made in time."""
    with pytest.raises(GaveUpError, match=r"^busy; gave up after 1 attempt in 0\.0 s$"):
        run(clock, failing(clock, [TransientError("busy", retry_after_s=301.0)]))
    assert clock.waits == []


def test_giving_up_says_attempts_time_and_reason(clock: Clock) -> None:
    """The last reason is the one that is told."""
    faults = [TransientError("no answer"), *busy(100)]
    with pytest.raises(GaveUpError, match=r"^busy; gave up after \d+ attempts in \d+\.\d s$"):
        run(clock, failing(clock, faults), RetryPolicy(give_up_after_s=10))


def test_other_exceptions_pass(clock: Clock) -> None:
    """What is not transient is not tried again."""
    with pytest.raises(KeyError, match="mine"):
        run(clock, failing(clock, [TransientError("busy"), KeyError("mine")]))
    assert clock.waits == [0.5]


def test_the_same_fault_in_a_row_is_no_accident(clock: Clock) -> None:
    """After as many as it says, its own error is raised; another fault in between starts the count anew."""
    final = StoreError("replaced")

    def fault() -> TransientError:
        return TransientError("other version", at_most=3, final=final)

    assert run(clock, failing(clock, [fault(), fault(), *busy(1), fault(), fault()])) == "done"
    with pytest.raises(StoreError) as caught:
        run(clock, failing(clock, [fault(), fault(), fault()]))
    assert caught.value is final


def test_the_run_s_deadline_ends_a_request_too(clock: Clock) -> None:
    """What is left of the run counts, however patient a single request may be."""
    policy = RetryPolicy(run_deadline_s=100.0, timeout_s=10.0)
    started = clock.now
    with pytest.raises(GaveUpError):
        run(clock, failing(clock, busy(100)), policy, opened_s_ago=60.0)
    assert 0 < clock.now - started <= 40


def test_after_the_run_s_deadline_nothing_is_asked(clock: Clock) -> None:
    """No attempt is made, and the message says which deadline it was."""

    def attempt() -> str:
        pytest.fail("an attempt was made")

    with pytest.raises(GaveUpError, match="the run's deadline of 100 s leaves no time for a request; gave up"):
        run(clock, attempt, RetryPolicy(run_deadline_s=100.0), opened_s_ago=100.0)


def test_one_attempt_leaves_time_for_a_second_one() -> None:
    """It takes less than half of each deadline, and no longer than it may."""
    assert RetryPolicy().request_timeout_s == 60
    assert 8 < RetryPolicy(give_up_after_s=20).request_timeout_s < 10
    assert 3 < RetryPolicy(run_deadline_s=8).request_timeout_s < 4
    assert RetryPolicy(timeout_s=3, run_deadline_s=8).request_timeout_s == 3


def test_a_request_that_timed_out_is_tried_again(clock: Clock) -> None:
    """One time-out is survived whatever the deadline, as `RetryPolicy.request_timeout_s` promises."""
    policy = RetryPolicy(give_up_after_s=20)
    takes_s = policy.request_timeout_s + 0.01  # a time-out is noticed a little later
    attempt = failing(clock, [TransientError("no answer in time", at_once=True)], takes_s=takes_s)
    assert run(clock, attempt, policy) == "done"


def test_no_request_ends_after_the_run_s_deadline(clock: Clock) -> None:
    """The first attempt is one too: what begins with 5 s left must not be given 50."""
    policy = RetryPolicy(run_deadline_s=100.0)
    started = clock.now
    with pytest.raises(GaveUpError):
        run(clock, failing(clock, busy(9), takes_s=policy.request_timeout_s), policy, opened_s_ago=95.0)
    assert clock.now - started <= 5


FAULTS = st.builds(
    TransientError,
    st.sampled_from(["busy", "broken", "no answer"]),
    retry_after_s=st.none() | st.floats(0, 400),
    at_once=st.booleans(),
)


@given(
    faults=st.lists(FAULTS, max_size=60),
    give_up_after_s=st.floats(0.01, 1000),
    timeout_s=st.floats(0.01, 100),
    effort=st.floats(0, 1),
    share=st.floats(0, 1),
)
def test_no_request_ends_after_its_deadline(
    faults: list[TransientError], give_up_after_s: float, timeout_s: float, effort: float, share: float
) -> None:
    """Whatever happens: either success, or the end within `give_up_after_s`, and no wait shorter than was asked for."""
    clock = Clock()
    policy = RetryPolicy(give_up_after_s=give_up_after_s, timeout_s=timeout_s)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(retry_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
        started = clock.now
        try:
            run(clock, failing(clock, faults, takes_s=effort * policy.request_timeout_s), policy, share=share)
        except GaveUpError as error:
            assert f"after {len(clock.waits) + 1} attempt" in str(error)  # noqa: PT017 -- success is as good
        else:
            assert len(clock.waits) == len(faults)
    assert clock.now - started <= give_up_after_s + 1e-6
    for wait, fault in zip(clock.waits, faults, strict=False):
        assert wait >= (fault.retry_after_s or 0)
