"""Schedule and LoaderState: which batches a rank takes, and where a loader continues, without reading a byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wds_real.data.dataset import Dataset, open_dataset
from wds_real.data.launchers import World
from wds_real.data.schedule import LoaderState, Schedule, select_batches
from wds_real.errors import PlanError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    """120 samples."""
    return open_dataset(packed)


def schedule(ds: Dataset, *, rank: int = 0, world_size: int = 1, shuffle: bool = False, pad: bool = True) -> Schedule:
    batches = select_batches(len(ds), 25, None)
    world = World(rank, world_size)
    return Schedule(dataset=ds, world=world, batch_size=25, batches=batches, shuffle=shuffle, seed=3, pad=pad)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_the_ranks_steps_hold_each_sample_once(ds: Dataset, world_size: int, *, shuffle: bool) -> None:
    """All ranks take equally many steps; their positions together are the data set, whatever the order."""
    found = list[int]()
    for rank in range(world_size):
        one = schedule(ds, rank=rank, world_size=world_size, shuffle=shuffle)
        steps = one.steps(range(len(one)), epoch=1)
        assert [step.place for step in steps] == list(range(-(-5 // world_size)))
        assert sum(len(step.positions) for step in steps) == one.num_samples
        assert all((step.batch == -1) == (len(step.positions) == 0) for step in steps)
        found += np.concatenate([step.positions for step in steps]).tolist()
    assert sorted(found) == list(range(120))
    assert (found == list(range(120))) is not shuffle


def test_without_padding_ranks_take_only_batches_that_exist(ds: Dataset) -> None:
    """Five batches over two ranks are two and three steps."""
    assert [len(schedule(ds, rank=rank, world_size=2, pad=False)) for rank in range(2)] == [2, 3]


def test_batches_outside_of_the_plan_are_refused() -> None:
    """A number that is no batch of the plan is named."""
    assert select_batches(120, 25, [4, 0]) == (4, 0)
    with pytest.raises(PlanError, match="batches has 5, expected numbers of batches in"):
        select_batches(120, 25, [1, 5])


def test_the_state_continues_after_the_last_batch_that_was_yielded(ds: Dataset) -> None:
    """A pass begins at the loaded place once; the next one begins at the first batch."""
    one = schedule(ds)
    state = LoaderState(one)
    for step in one.steps(state.begin_pass(), epoch=0)[:2]:
        state.set_yielded(step)
    other = LoaderState(schedule(ds))
    other.load_state_dict(state.state_dict())
    assert other.begin_pass() == range(2, 5)
    assert other.begin_pass() == range(5)


def test_another_epoch_forgets_the_place_and_another_schedule_is_refused(ds: Dataset) -> None:
    """A place means nothing in another order; the error says what differs."""
    state = LoaderState(schedule(ds))
    state.set_yielded(schedule(ds).steps(range(1), epoch=0)[0])
    state.set_epoch(1)
    assert state.state_dict()["step"] == 0
    with pytest.raises(PlanError, match="shuffle was False, is True"):
        LoaderState(schedule(ds, shuffle=True)).load_state_dict(state.state_dict())
