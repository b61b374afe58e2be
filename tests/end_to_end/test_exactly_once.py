"""Each sample exactly once, at every world size: the plan's promises, by property and by trying all of them.

The steps of a process are taken as `Loader` takes them: all of them, or in turn by the workers of a DataLoader, from
the beginning or from a step a former run stopped at.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.data import plan

WORLD_SIZES = range(1, 65)
NUM_SAMPLES = 50_000

plans = st.fixed_dictionaries(
    {"num_samples": st.integers(0, 700), "batch_size": st.integers(1, 90), "world_size": st.integers(1, 70)}
)


def order_of(num_samples: int, seed: int | None) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return positions in order, or shuffled."""
    if seed is None:
        return np.arange(num_samples, dtype=np.int64)
    return plan.shuffled_order([f"{number:08d}" for number in range(num_samples)], seed=seed, epoch=seed % 3)


def steps_of_worker(steps: range, worker: int, num_workers: int) -> range:
    """Return the steps one of the workers of a DataLoader takes; without workers, the process takes all."""
    return steps[worker::num_workers] if num_workers else steps


def numbers_of(share: range, steps: range) -> range:
    """Return the batches a process fetches in these steps; steps behind its share are padding."""
    start, stop = share.start + steps.start, share.start + steps.stop
    return range(start, min(stop, share.stop), steps.step)


def samples_by_rank(num_samples: int, batch_size: int, world_size: int, *, seed: int | None) -> list[list[list[int]]]:
    """Return the samples of each step of each rank, padding left out: a rank's steps are equally many everywhere."""
    order = order_of(num_samples, seed)
    total = plan.num_batches(num_samples, batch_size)
    steps = plan.num_steps(total, world_size=world_size)
    result = []
    for rank in range(world_size):
        share = plan.share(total, rank=rank, world_size=world_size)
        numbers = [share.start + step for step in range(steps)]
        result.append(
            [plan.batch(order, number, batch_size=batch_size).tolist() if number in share else [] for number in numbers]
        )
    return result


@given(case=plans, seed=st.none() | st.integers(0, 2**64 - 1))
def test_every_sample_is_in_exactly_one_batch_of_one_rank(case: dict[str, int], seed: int | None) -> None:
    """The samples of all steps of all ranks are the data set: none is missing, none comes twice."""
    ranks = samples_by_rank(**case, seed=seed)
    assert sorted(sample for rank in ranks for step in rank for sample in step) == list(range(case["num_samples"]))


@given(case=plans)
def test_every_rank_takes_the_same_number_of_steps(case: dict[str, int]) -> None:
    """No rank waits for another at the end: steps are equal, and some rank fills all of its own."""
    ranks = samples_by_rank(**case, seed=None)
    assert len({len(rank) for rank in ranks}) == 1
    assert case["num_samples"] == 0 or any(all(rank) for rank in ranks)


@given(case=plans, other=st.integers(1, 70), seed=st.none() | st.integers(0, 2**64 - 1))
def test_the_batches_are_the_same_at_every_world_size(case: dict[str, int], other: int, seed: int | None) -> None:
    """Ranks in turn, the non-empty batches and what is in them do not depend on the world size."""

    def batches(world_size: int) -> list[list[int]]:
        ranks = samples_by_rank(case["num_samples"], case["batch_size"], world_size, seed=seed)
        return [step for rank in ranks for step in rank if step]

    assert batches(case["world_size"]) == batches(other) == batches(1)


@given(n=st.integers(0, 10**9), b=st.integers(1, 10**5), w=st.integers(1, 10**5))
def test_whole_batches_cost_no_more_steps_than_split_samples(n: int, b: int, w: int) -> None:
    """ceil(ceil(N/W)/B) == ceil(ceil(N/B)/W): a rank takes as many steps as if samples were dealt out one by one."""
    longest = -(-n // w)
    assert -(-longest // b) == plan.num_steps(plan.num_batches(n, b), world_size=w)


@given(case=plans, num_workers=st.integers(1, 6), data=st.data())
def test_workers_in_turn_keep_the_order_of_the_steps(
    case: dict[str, int], num_workers: int, data: st.DataObject
) -> None:
    """A DataLoader that asks its workers in turn yields the steps one after the other, also after a resume."""
    total = plan.num_steps(plan.num_batches(case["num_samples"], case["batch_size"]), world_size=case["world_size"])
    steps = range(data.draw(st.integers(0, total)), total)
    queues = [list(steps_of_worker(steps, worker, num_workers)) for worker in range(num_workers)]
    taken = [queues[turn % num_workers].pop(0) for turn in range(len(steps))]
    assert taken == list(steps)
    assert not any(queues)


@pytest.mark.parametrize("batch_size", [1, 3, 32, 250, 256, 1000])
def test_exactly_once_at_every_world_size_up_to_64(batch_size: int) -> None:
    """50,000 images, 1..64 processes, 0..4 DataLoader workers each: every image once, all ranks in step."""
    order = order_of(NUM_SAMPLES, None)
    total = plan.num_batches(NUM_SAMPLES, batch_size)
    batches = [plan.batch(order, number, batch_size=batch_size) for number in range(total)]
    assert np.array_equal(np.concatenate(batches), order)
    for world_size in WORLD_SIZES:
        steps = range(plan.num_steps(total, world_size=world_size))
        shares = [plan.share(total, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert max(map(len, shares)) == len(steps)
        for num_workers in range(5):
            fetched = [
                numbers_of(share, steps_of_worker(steps, worker, num_workers))
                for share in shares
                for worker in range(max(1, num_workers))
            ]
            times = np.zeros(total, dtype=np.int64)
            for numbers in fetched:
                times[numbers.start : numbers.stop : numbers.step] += 1
            assert times.min() == times.max() == 1, (world_size, num_workers)


def test_exactly_once_in_ten_thousand_random_runs_with_a_resume() -> None:
    """A run that stops after any step, on every rank, and goes on from there counts every image once."""
    draw = np.random.default_rng(20200614)
    for _ in range(10_000):
        num_samples = int(draw.integers(1, 50_001))
        batch_size = int(draw.integers(1, 1025))
        world_size = int(draw.integers(1, 65))
        num_workers = int(draw.integers(0, 5))
        total = plan.num_batches(num_samples, batch_size)
        all_steps = range(plan.num_steps(total, world_size=world_size))
        stopped_at = int(draw.integers(0, len(all_steps) + 1))
        times = np.zeros(num_samples, dtype=np.int8)
        for rank in range(world_size):
            share = plan.share(total, rank=rank, world_size=world_size)
            first = numbers_of(share, all_steps[:stopped_at])
            times[first.start * batch_size : max(first.start, first.stop) * batch_size] += 1
            for worker in range(max(1, num_workers)):
                for number in numbers_of(share, steps_of_worker(all_steps[stopped_at:], worker, num_workers)):
                    times[number * batch_size : (number + 1) * batch_size] += 1
        assert times.min() == times.max() == 1, (num_samples, batch_size, world_size, num_workers, stopped_at)


@given(done=st.lists(st.booleans(), max_size=200), world_size=st.integers(1, 70))
def test_what_is_left_is_shared_out_once_at_any_world_size(done: list[bool], world_size: int) -> None:
    """A killed run leaves any batches undone; other ranks, as many as may be, take each of these once, in step."""
    left = [number for number, is_done in enumerate(done) if not is_done]
    shares = [plan.share(len(left), rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [number for share in shares for number in left[share.start : share.stop]] == left
    assert max(map(len, shares)) == plan.num_steps(len(left), world_size=world_size)


@pytest.mark.parametrize("world_size", [1, 2, 7, 32, 64])
def test_a_share_is_read_from_front_to_back(world_size: int) -> None:
    """Unshuffled, a rank reads one stretch of the data set, so that a shard is opened by as few ranks as can be."""
    for rank in samples_by_rank(NUM_SAMPLES, 256, world_size, seed=None):
        samples = [sample for step in rank for sample in step]
        assert samples == list(range(samples[0], samples[0] + len(samples)))
