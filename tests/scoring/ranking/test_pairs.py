"""Every pair of several models: which way, how much, and whether it is beyond chance among so many pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.scoring.comparison import mcnemar_exact, paired_interval
from wds_real.scoring.counts import Accuracy
from wds_real.scoring.ranking.pairs import holm, pair_differences

N = 2_000


def right(correct: int, *, shift: int = 0) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(N, dtype=np.bool_)
    found[(np.arange(correct) + shift) % N] = True
    return found


def test_pairs_are_counted_image_by_image() -> None:
    """Difference, interval and p are those of the images that only one of the two gets right."""
    rows = {"a": right(1_500), "b": right(1_450, shift=100), "c": right(1_000)}
    pairs = pair_differences(list(rows), [Accuracy(int(one.sum()), N) for one in rows.values()], list(rows.values()))
    assert [(pair.a, pair.b) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    first = pairs[0]
    assert (first.only_a, first.only_b) == (100, 50)
    assert first.difference == pytest.approx(2.5)
    assert first.interval == paired_interval(50, 100, N)
    assert first.p_value == mcnemar_exact(100, 50)
    assert first.paired
    assert all(pair.told_apart for pair in pairs)


def test_without_answers_the_counts_are_compared_as_independent_samples() -> None:
    """A model without predictions is compared by its count; the interval is wider than that of nested answers."""
    accuracies = [Accuracy(1_050, N), Accuracy(1_000, N)]
    [alone] = pair_differences(["a", "b"], accuracies, [right(1_050), None])
    [nested] = pair_differences(["a", "b"], accuracies, [right(1_050), right(1_000)])
    assert (alone.only_a, alone.paired, alone.told_apart) == (None, False, False)
    assert nested.told_apart
    assert alone.interval[0] < 0 < nested.interval[0]
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    error = (0.525 * 0.475 / N + 0.25 / N) ** 0.5
    assert alone.p_value == pytest.approx(2 * stats.norm.sf(0.025 / error), rel=1e-9)


def test_equal_counts_without_spread_are_not_told_apart() -> None:
    """All right and all right is no difference; all right and all wrong is one."""
    everything, nothing = Accuracy(N, N), Accuracy(0, N)
    assert pair_differences(["a", "b"], [everything, everything], [None, None])[0].p_value == 1.0
    assert pair_differences(["a", "b"], [everything, nothing], [None, None])[0].told_apart


def test_many_pairs_need_more_evidence() -> None:
    """The same pair, p = 0.03 alone, is beyond chance alone and not among ten models that are all alike."""
    first, second = right(1_000), right(1_000)
    second[:20], second[1_000:1_009] = False, True
    assert mcnemar_exact(20, 9) < 0.07
    second[:21] = False
    alone = pair_differences(["a", "b"], [Accuracy(1_000, N), Accuracy(988, N)], [first, second])
    assert alone[0].told_apart
    same = [first] * 9
    names = [f"m{number}" for number in range(10)]
    among = pair_differences(names, [*[Accuracy(1_000, N)] * 9, Accuracy(988, N)], [*same, second])
    assert among[-1].p_value == alone[0].p_value
    assert not among[-1].told_apart


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holms_values_follow_their_definition(p_values: list[float]) -> None:
    """None is below its p-value, the order is kept, and the smallest is multiplied by the number of all."""
    corrected = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
    by_p = [q for _, q in sorted(zip(p_values, corrected, strict=True))]
    assert by_p == sorted(by_p)
    if p_values:
        assert min(corrected) == pytest.approx(min(1, len(p_values) * min(p_values)))


def test_a_pair_is_json_ready() -> None:
    """The fields have numbers, and say whether the two are told apart."""
    [pair] = pair_differences(["a", "b"], [Accuracy(1_500, N), Accuracy(1_000, N)], [right(1_500), right(1_000)])
    found = pair.as_dict()
    assert (found["difference_points"], found["right_only_in_a"], found["right_only_in_b"]) == (25.0, 500, 0)
    assert found["told_apart"] is True
    assert found["interval_95_points"] == [round(bound, 4) for bound in pair.interval]
