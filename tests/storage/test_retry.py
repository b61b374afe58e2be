"""retry: waits with full jitter, a deadline for each request, and one for the run."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import Clock

from wds_real.errors import StoreError
from wds_real.storage import retry as retry_module
from wds_real.storage.http_errors import Kind
from wds_real.storage.retry import GaveUpError, RetryPolicy, TransientError, retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of the module; everything else uses the real one."""
    made = Clock()
    monkeypatch.setattr(retry_module, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def failing(clock: Clock, faults: Iterable[Exception], *, takes_s: float = 0.0) -> Callable[[], str]:
    """Return an attempt that takes `takes_s`, raises these errors one by one, and then succeeds."""
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
    """Call `retry`; each wait is `share` of its bound."""
    return retry(
        attempt,
        policy=policy or RetryPolicy(),
        opened_at=clock.now - opened_s_ago,
        jitter=lambda low, high: low + share * (high - low),
        sleep=clock.sleep,
    )


def busy(count: int) -> list[Exception]:
    return [TransientError(Kind.SERVER_ERROR) for _ in range(count)]


def test_success_returns_without_a_wait(clock: Clock) -> None:
    """The result of the attempt is returned."""
    assert run(clock, failing(clock, [])) == "done"
    assert clock.waits == []


def test_waits_double_up_to_thirty_seconds(clock: Clock) -> None:
    """The bound of the wait doubles from 0.5 s, and stays at 30 s."""
    assert run(clock, failing(clock, busy(9)), RetryPolicy(give_up_after_s=1000)) == "done"
    assert clock.waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_jitter_is_full(clock: Clock) -> None:
    """Each wait is drawn between nothing and the bound."""
    assert run(clock, failing(clock, busy(3)), share=0.25) == "done"
    assert clock.waits == [0.125, 0.25, 0.5]


def test_the_default_jitter_stays_within_its_bounds(clock: Clock) -> None:
    """By default, waits are random and lie within the bounds."""
    for _ in range(20):
        retry(failing(clock, busy(2)), policy=RetryPolicy(), opened_at=clock.now, sleep=clock.sleep)
    assert all(0 <= wait <= bound for wait, bound in zip(clock.waits, [0.5, 1.0] * 20, strict=True))
    assert len(set(clock.waits)) > 20


def test_the_first_retry_after_a_broken_connection_does_not_wait(clock: Clock) -> None:
    """It says nothing about the server's load; later retries wait."""
    faults = [TransientError(Kind.BROKEN_CONNECTION) for _ in range(3)]
    assert run(clock, failing(clock, faults)) == "done"
    assert clock.waits == [0, 1, 2]


def test_giving_up_says_attempts_time_and_reason(clock: Clock) -> None:
    """The reason is that of the last attempt."""
    faults = [TransientError(Kind.TIMEOUT), *(TransientError(Kind.SERVER_ERROR, "status 503") for _ in range(100))]
    with pytest.raises(GaveUpError, match=r"^status 503; gave up after \d+ attempts in \d+\.\d s$"):
        run(clock, failing(clock, faults), RetryPolicy(give_up_after_s=10))


def test_other_exceptions_pass(clock: Clock) -> None:
    """Only a TransientError is retried."""
    with pytest.raises(KeyError, match="mine"):
        run(clock, failing(clock, [*busy(1), KeyError("mine")]))
    assert clock.waits == [0.5]


def test_three_errors_of_a_kind_in_a_row_are_final(clock: Clock) -> None:
    """The error's `final` is raised then, whatever the messages; another kind in between restarts the count."""
    final = StoreError("replaced")

    numbers = itertools.count()

    def fault() -> TransientError:
        return TransientError(Kind.OTHER_VERSION, f"reason {next(numbers)}", final=final)

    assert run(clock, failing(clock, [fault(), fault(), *busy(1), fault(), fault()])) == "done"
    with pytest.raises(StoreError) as caught:
        run(clock, failing(clock, [fault(), fault(), fault()]))
    assert caught.value is final


def test_the_deadline_of_the_run_ends_a_request_too(clock: Clock) -> None:
    """A request gives up before the run's deadline, even if its own is later."""
    policy = RetryPolicy(run_deadline_s=100.0, timeout_s=10.0)
    started = clock.now
    with pytest.raises(GaveUpError):
        run(clock, failing(clock, busy(100)), policy, opened_s_ago=60.0)
    assert 0 < clock.now - started <= 40


def test_after_the_deadline_of_the_run_no_request_is_made(clock: Clock) -> None:
    """The message names the deadline."""

    def attempt() -> str:
        pytest.fail("an attempt was made")

    with pytest.raises(GaveUpError, match="the run's deadline of 100 s leaves no time for a request; gave up"):
        run(clock, attempt, RetryPolicy(run_deadline_s=100.0), opened_s_ago=100.0)


def test_one_attempt_leaves_time_for_a_second_one() -> None:
    """Its timeout is less than half of each deadline, and at most `timeout_s`."""
    assert RetryPolicy().request_timeout_s == 60
    assert 8 < RetryPolicy(give_up_after_s=20).request_timeout_s < 10
    assert 3 < RetryPolicy(run_deadline_s=8).request_timeout_s < 4
    assert RetryPolicy(timeout_s=3, run_deadline_s=8).request_timeout_s == 3


def test_a_request_that_timed_out_is_retried(clock: Clock) -> None:
    """There is time for a second attempt, as `RetryPolicy.request_timeout_s` promises."""
    policy = RetryPolicy(give_up_after_s=20)
    takes_s = policy.request_timeout_s + 0.01  # a time-out is noticed a little later
    attempt = failing(clock, [TransientError(Kind.TIMEOUT)], takes_s=takes_s)
    assert run(clock, attempt, policy) == "done"


def test_no_request_ends_after_the_deadline_of_the_run(clock: Clock) -> None:
    """This holds for the first attempt too."""
    policy = RetryPolicy(run_deadline_s=100.0)
    started = clock.now
    with pytest.raises(GaveUpError):
        run(clock, failing(clock, busy(9), takes_s=policy.request_timeout_s), policy, opened_s_ago=95.0)
    assert clock.now - started <= 5


FAULTS = st.builds(TransientError, st.sampled_from(Kind))


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
    """`retry` returns or gives up within `give_up_after_s`, for any errors, timeouts and waits."""
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
