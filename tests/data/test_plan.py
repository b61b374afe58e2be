"""plan.py: who takes which batch, and in which order, as integer functions with pinned values."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.data import plan
from wds_real.errors import PlanError

counts = st.integers(0, 100_000)
sizes = st.integers(1, 300)
seeds = st.integers(0, 2**64 - 1)
keys_lists = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), unique=True, max_size=30)


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "expected"),
    [(0, 1, 0), (1, 1, 1), (1, 256, 1), (256, 256, 1), (257, 256, 2), (50_000, 256, 196), (50_000, 1000, 50)],
)
def test_the_number_of_batches_is_rounded_up(num_samples: int, batch_size: int, expected: int) -> None:
    """A short last batch counts."""
    assert plan.num_batches(num_samples, batch_size) == expected


@given(num_samples=st.integers(0, 2000), batch_size=sizes)
def test_batches_partition_the_order(num_samples: int, batch_size: int) -> None:
    """All batches in turn are the order itself; only the last may be short, and none is empty."""
    order = np.arange(num_samples, dtype=np.int64)[::-1]
    numbers = range(plan.num_batches(num_samples, batch_size))
    batches = [plan.batch(order, number, batch_size=batch_size) for number in numbers]
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert np.concatenate([order[:0], *batches]).tolist() == order.tolist()


@given(total=counts, world_size=sizes)
def test_shares_partition_the_batches(total: int, world_size: int) -> None:
    """The ranks' shares in turn are all batches; they differ by at most one, and the longest is the number of steps."""
    shares = [plan.share(total, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert (shares[0].start, shares[-1].stop) == (0, total)
    assert all(left.stop == right.start for left, right in itertools.pairwise(shares))
    lengths = {len(share) for share in shares}
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) == plan.num_steps(total, world_size=world_size)


def test_a_world_of_one_has_everything() -> None:
    """One process takes all batches in order."""
    assert plan.share(196, rank=0, world_size=1) == range(196)
    assert plan.num_steps(196, world_size=1) == 196


def test_more_ranks_than_batches_leave_some_without() -> None:
    """A rank may have nothing to do; all take the one step."""
    shares = [plan.share(3, rank=rank, world_size=8) for rank in range(8)]
    assert sorted(map(len, shares)) == [0, 0, 0, 0, 0, 1, 1, 1]
    assert plan.num_steps(3, world_size=8) == 1


@pytest.mark.parametrize("batch_size", [0, -1])
def test_an_impossible_batch_size_is_refused(batch_size: int) -> None:
    """The error shows the value, and is also a ValueError."""
    with pytest.raises(PlanError, match=f"batch_size is {batch_size}, expected at least 1"):
        plan.num_batches(10, batch_size)
    with pytest.raises(ValueError, match="batch_size"):
        plan.num_batches(10, batch_size)


@pytest.mark.parametrize(
    ("rank", "world_size", "expected"),
    [
        (0, 0, "world_size is 0, expected at least 1"),
        (0, -1, "world_size is -1, expected at least 1"),
        (2, 2, "rank is 2, expected 0 <= rank < world_size = 2"),
        (-1, 2, "rank is -1, expected 0 <= rank < world_size = 2"),
    ],
)
def test_an_impossible_rank_is_refused(rank: int, world_size: int, expected: str) -> None:
    """The error shows rank and world size."""
    with pytest.raises(PlanError, match=expected):
        plan.share(10, rank=rank, world_size=world_size)


@given(keys=keys_lists, seed=seeds, epoch=seeds)
def test_the_shuffle_sorts_by_the_documented_hash(keys: list[str], seed: int, epoch: int) -> None:
    """Keys are sorted by BLAKE2b of the key, keyed with seed and epoch as big-endian 64-bit numbers."""

    def digest(position: int) -> bytes:
        secret = seed.to_bytes(8, "big") + epoch.to_bytes(8, "big")
        return hashlib.blake2b(keys[position].encode(), key=secret, digest_size=8).digest()

    order = plan.shuffled_order(keys, seed=seed, epoch=epoch)
    assert order.dtype == np.int64
    assert order.tolist() == sorted(range(len(keys)), key=digest)


@given(keys=keys_lists, seed=seeds, epoch=seeds, data=st.data())
def test_a_subset_keeps_the_order_it_has_in_the_whole(
    keys: list[str], seed: int, epoch: int, data: st.DataObject
) -> None:
    """Leaving keys out moves none of the others, nor does the order the keys are given in."""
    subset = data.draw(st.permutations(keys).map(lambda shuffled: shuffled[: len(keys) // 2]))
    whole = [keys[position] for position in plan.shuffled_order(keys, seed=seed, epoch=epoch)]
    part = [subset[position] for position in plan.shuffled_order(subset, seed=seed, epoch=epoch)]
    assert part == [key for key in whole if key in subset]


def test_seeds_and_epochs_are_different_things() -> None:
    """Every pair of seed and epoch has an order of its own: seed 42 epoch 1 is not seed 43 epoch 0."""
    keys = [f"{number:08d}" for number in range(200)]
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (42, 1), (43, 0), (256, 0), (0, 256), (2**64 - 1, 0), (0, 2**64 - 1)]
    orders = {tuple(plan.shuffled_order(keys, seed=seed, epoch=epoch).tolist()) for seed, epoch in pairs}
    assert len(orders) == len(pairs)


def test_the_shuffle_is_even() -> None:
    """Over many epochs every sample comes first equally often, as far as chance allows."""
    keys = [f"{number:08d}" for number in range(10)]
    first = [int(plan.shuffled_order(keys, seed=7, epoch=epoch)[0]) for epoch in range(2000)]
    squares = sum((count - 200) ** 2 / 200 for count in np.bincount(first, minlength=10).tolist())
    assert squares < 27.9  # chi-squared, 9 degrees of freedom: chance exceeds it for one seed in 1,000, not for 7


def test_equal_keys_keep_their_places() -> None:
    """Where two keys are the same, the earlier position comes first."""
    order = plan.shuffled_order(["x", "a", "x", "b", "x"], seed=0, epoch=0).tolist()
    assert [position for position in order if position in (0, 2, 4)] == [0, 2, 4]


@pytest.mark.parametrize("value", [10**5000, -(10**5000)], ids=["positive", "negative"])
def test_a_seed_of_thousands_of_digits_is_refused_in_a_short_line(value: int) -> None:
    """Python refuses to write such a number, so its length is said."""
    with pytest.raises(PlanError, match=r"^seed is a number of 16,610 bits, expected 0 <= seed < 2\*\*64\.$"):
        plan.shuffled_order(["a"], seed=value, epoch=0)


@pytest.mark.parametrize("name", ["seed", "epoch"])
@pytest.mark.parametrize("value", [-1, 2**64])
def test_a_seed_or_epoch_out_of_range_is_refused(name: str, value: int) -> None:
    """The error says which of the two it is."""
    arguments = {"seed": 0, "epoch": 0, name: value}
    with pytest.raises(PlanError, match=f"{name} is {value}, expected 0 <= {name}"):
        plan.shuffled_order(["a"], **arguments)
