"""PredictionTable: what is added comes out again, summed over processes, and is counted exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.errors import CoverageError
from wds_real.scoring.table import PredictionTable
from wds_real.scoring.targets import Targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = [f"{number:02d}" for number in range(12)]
TARGETS = Targets.of(KEYS, [number % 5 for number in range(12)], [(number % 5,) for number in range(12)])


def classes_of(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    return (positions[:, None] % 5 + np.arange(5)) % 1000


def probabilities_of(positions: NDArray[np.int64]) -> NDArray[np.float32]:
    return (1 / (2.0 + positions[:, None] + np.arange(5))).astype(np.float32)


@given(st.permutations(range(12)), st.integers(1, 5))
def test_tables_of_several_processes_add_up(order: list[int], world_size: int) -> None:
    """However the samples are divided, the sum of the arrays gives every prediction, bit for bit, in key order."""
    tables = [PredictionTable(TARGETS) for _ in range(world_size)]
    for rank, table in enumerate(tables):
        positions = np.array(order[rank::world_size], dtype=np.int64)
        table.add(positions, classes_of(positions), probabilities_of(positions))
    total = PredictionTable(TARGETS, np.sum([table.array for table in tables], axis=0))
    everything = np.arange(12)
    found = total.predictions()
    assert found.keys == tuple(KEYS)
    assert np.array_equal(found.classes, classes_of(everything))
    assert np.array_equal(found.probabilities, probabilities_of(everything))
    result = total.result(world_size=world_size)
    assert (result.original_top1.correct, result.world_size) == (12, world_size)


def test_a_sample_that_could_not_be_read_is_counted_and_has_no_prediction() -> None:
    """A row of only -1 is a failure: in the total, not among the predictions."""
    table = PredictionTable(TARGETS)
    positions = np.arange(12)
    classes = classes_of(positions)
    classes[3] = -1
    table.add(positions, classes)
    result = table.result(world_size=1)
    assert (result.original_top1.correct, result.original_top1.total) == (11, 12)
    assert result.coverage.failed == (KEYS[3],)
    assert KEYS[3] not in table.predictions().keys
    assert np.isnan(table.predictions().probabilities).sum() == 0


@pytest.mark.parametrize(
    ("positions", "missing", "doubled"),
    [(range(11), (KEYS[11],), ()), ([*range(12), 4], (), (KEYS[4],)), ([0, 0], tuple(KEYS[1:]), (KEYS[0],))],
)
def test_missing_and_doubled_samples_are_errors_with_their_keys(
    positions: list[int], missing: tuple[str, ...], doubled: tuple[str, ...]
) -> None:
    """The table gives no accuracy unless each expected sample was counted once."""
    table = PredictionTable(TARGETS)
    for position in positions:
        one = np.array([position], dtype=np.int64)
        table.add(one, classes_of(one))
    with pytest.raises(CoverageError) as caught:
        table.result(world_size=2)
    assert (caught.value.missing, caught.value.doubled) == (missing, doubled)
    assert f"{len(missing)} missing, {len(doubled)} doubled) over 2 ranks" in str(caught.value)
