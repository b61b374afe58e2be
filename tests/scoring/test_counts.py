"""Accuracies: intervals against their definition and published values, and the bounds of unreadable samples."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.scoring.counts import Z_95, Accuracy

Z = statistics.NormalDist().inv_cdf(0.975)


def wilson_by_bisection(correct: int, total: int) -> tuple[float, float]:
    """Invert the score test: all p whose standardised distance from the observed share is at most z."""
    share = correct / total

    def is_plausible(p: float) -> bool:
        return (share - p) ** 2 * total <= Z * Z * p * (1 - p)

    def edge(inside: float, outside: float) -> float:
        for _ in range(100):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if is_plausible(middle) else (inside, middle)
        return inside

    centre = (correct + Z * Z / 2) / (total + Z * Z)
    return (0.0 if correct == 0 else edge(centre, 0.0)), (1.0 if correct == total else edge(centre, 1.0))


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_has_its_published_values(correct: int, total: int, low: float, high: float) -> None:
    """Newcombe (Statistics in Medicine 1998), table I, method 3: Wilson's score interval."""
    assert Accuracy(correct, total).interval == pytest.approx((low, high), abs=5e-5)


@given(total=st.integers(1, 60_000), data=st.data())
def test_the_interval_inverts_the_score_test(total: int, data: st.DataObject) -> None:
    """The bounds are the outermost shares that a two-sided 95 % score test does not reject."""
    correct = data.draw(st.sampled_from([0, total]) | st.integers(0, total))
    assert Accuracy(correct, total).interval == pytest.approx(wilson_by_bisection(correct, total), abs=1e-9)


@given(total=st.integers(1, 60_000), data=st.data())
def test_the_interval_holds_the_share_and_stays_within_0_and_1(total: int, data: st.DataObject) -> None:
    """Swapping right and wrong mirrors the interval; the share is inside it."""
    accuracy = Accuracy(data.draw(st.integers(0, total)), total)
    (low, high), (mirrored_low, mirrored_high) = accuracy.interval, Accuracy(total - accuracy.correct, total).interval
    assert 0 <= low <= accuracy.value + 1e-12
    assert accuracy.value - 1e-12 <= high <= 1
    assert (low, high) == pytest.approx((1 - mirrored_high, 1 - mirrored_low), abs=1e-12)


def test_an_accuracy_of_nothing_has_no_value() -> None:
    """Without a sample there is no share and no interval, and JSON says null."""
    nothing = Accuracy(0, 0)
    assert all(map(math.isnan, (nothing.value, nothing.best_case, *nothing.interval)))
    assert nothing.as_dict() == {
        "correct": 0, "total": 0, "failed": 0, "percent": None, "interval_95_percent": None,
    }  # fmt: skip


def test_failed_samples_bound_the_accuracy() -> None:
    """The share is the worst case; the best case is as if every failed sample had been right."""
    accuracy = Accuracy(70, 100, 5)
    assert (accuracy.value, accuracy.best_case) == (0.70, 0.75)
    assert accuracy.as_dict()["failed"] == 5


def test_the_normal_quantile_is_that_of_two_sided_95_percent() -> None:
    """Both intervals, of an accuracy and of a difference, use it."""
    assert pytest.approx(Z, abs=1e-15) == Z_95
