"""Prefetcher: each range once, bounded memory, and no thread left over."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.errors import MissingError, StoreError
from wds_real.storage.prefetch import BLOCK_BYTES, GAP_BYTES, Block, ByteRange, Prefetcher, merge

if TYPE_CHECKING:
    from collections.abc import Sequence

FILES = {name: bytes((at * step) % 251 for at in range(300)) for name, step in (("a", 1), ("b", 7), ("c", 13))}
TIMEOUT_S = 20.0

RANGES = st.builds(
    lambda name, start, length: ByteRange(name, start, min(start + length, 300)),
    st.sampled_from(sorted(FILES)),
    st.integers(0, 300),
    st.integers(0, 60),
)


def neighbours(lengths: list[int]) -> list[ByteRange]:
    stops = itertools.accumulate(lengths)
    return [ByteRange("a", stop - length, stop) for length, stop in zip(lengths, stops, strict=True)]


SEQUENCES = st.lists(RANGES, max_size=25) | st.lists(st.integers(0, 30), max_size=10).map(neighbours)


def read(name: str, start: int, stop: int) -> bytes:
    return FILES[name][start:stop]


def ends(threads: Sequence[threading.Thread]) -> bool:
    """Return whether all threads end before a timeout."""
    deadline = time.monotonic() + TIMEOUT_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def started(before: Sequence[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before]


class Gate:
    """A read that blocks until the gate is open, and counts the calls that have begun."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Semaphore(0)

    def read(self, name: str, start: int, stop: int) -> bytes:
        self.begun.release()
        assert self.open.wait(TIMEOUT_S)
        return read(name, start, stop)

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=TIMEOUT_S)


@given(ranges=SEQUENCES, max_bytes=st.integers(1, 100), max_gap=st.integers(0, 40))
def test_blocks_hold_each_range_once_in_order(ranges: list[ByteRange], max_bytes: int, max_gap: int) -> None:
    """Each block covers consecutive ranges; only a block of a single range may exceed the limit."""
    blocks = list(merge(ranges, max_bytes=max_bytes, max_gap=max_gap))
    assert [number for block in blocks for number in range(block.first, block.last)] == list(range(len(ranges)))
    for block in blocks:
        held = ranges[block.first : block.last]
        assert {one.name for one in held} == {block.name}
        assert (block.start, block.stop) == (held[0].start, held[-1].stop)
        assert block.stop - block.start <= max_bytes or len(held) == 1
        for one, other in itertools.pairwise(held):
            assert 0 <= other.start - one.stop <= max_gap


def test_neighbours_share_a_request() -> None:
    """One byte more than the longest gap or the longest block makes another request."""
    one = ByteRange("a", 0, 10)
    near, far = ByteRange("a", 10 + GAP_BYTES, 20 + GAP_BYTES), ByteRange("a", 11 + GAP_BYTES, 20 + GAP_BYTES)
    assert list(merge([one, near])) == [Block("a", 0, near.stop, 0, 2)]
    assert list(merge([one, far])) == [Block("a", 0, 10, 0, 1), Block("a", far.start, far.stop, 1, 2)]
    full, over = ByteRange("a", 10, BLOCK_BYTES), ByteRange("a", 10, BLOCK_BYTES + 1)
    assert [block.last for block in merge([one, full])] == [2]
    assert [block.last for block in merge([one, over])] == [1, 2]


def test_a_range_before_the_last_one_has_a_request_of_its_own() -> None:
    """Ranges that are not in the file's order, overlap, or are of another file are not merged."""
    for second in (ByteRange("a", 0, 10), ByteRange("a", 19, 30), ByteRange("b", 20, 30)):
        assert len(list(merge([ByteRange("a", 10, 20), second]))) == 2


@settings(max_examples=60, deadline=None)
@given(
    ranges=SEQUENCES,
    takers=st.integers(1, 5),
    max_prefetched_bytes=st.integers(1, 200),
    requests=st.integers(1, 6),
)
def test_all_ranges_are_returned_once(
    ranges: list[ByteRange], takers: int, max_prefetched_bytes: int, requests: int
) -> None:
    """This holds for any sequence, limit, and numbers of requests and of threads that take."""
    numbers = iter(range(len(ranges)))
    lock = threading.Lock()
    found: dict[int, bytes] = {}
    before = threading.enumerate()

    def take_all(prefetched: Prefetcher) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            found[number] = bytes(prefetched.take(number))

    with (
        Prefetcher(read, ranges, max_prefetched_bytes=max_prefetched_bytes, max_requests=requests) as prefetched,
        ThreadPoolExecutor(takers) as pool,
    ):
        for done in [pool.submit(take_all, prefetched) for _ in range(takers)]:
            done.result(TIMEOUT_S)
    assert found == {number: read(*one) for number, one in enumerate(ranges)}
    assert ends(started(before))


@settings(max_examples=60, deadline=None)
@given(ranges=SEQUENCES, max_prefetched_bytes=st.integers(1, 200), requests=st.integers(1, 6))
def test_prefetched_bytes_are_bounded(ranges: list[ByteRange], max_prefetched_bytes: int, requests: int) -> None:
    """At each request, the bytes requested and not yet taken are within the limit, or are those of one request."""
    made: list[Prefetcher] = []
    ready = threading.Event()
    beyond: list[list[int]] = []

    def watched(name: str, start: int, stop: int) -> bytes:
        assert ready.wait(TIMEOUT_S)
        prefetched = made[0]
        with prefetched._lock:
            claimed = zip(prefetched._blocks[: prefetched._next_block], prefetched._num_untaken, strict=False)
            sizes = [block.stop - block.start for block, left in claimed if left and block.stop > block.start]
        if sum(sizes) > max_prefetched_bytes and len(sizes) > 1:
            beyond.append(sizes)
        return read(name, start, stop)

    with Prefetcher(watched, ranges, max_prefetched_bytes=max_prefetched_bytes, max_requests=requests) as prefetched:
        made.append(prefetched)
        ready.set()
        assert [bytes(prefetched.take(number)) for number in range(len(ranges))] == [read(*one) for one in ranges]
    assert beyond == []


def test_at_the_limit_the_next_request_waits_for_a_take() -> None:
    """With room for two blocks, the third is requested when the first was taken."""
    requested: list[int] = []
    ready = threading.Semaphore(0)

    def recorded(name: str, start: int, stop: int) -> bytes:
        requested.append(start)
        ready.release()
        return read(name, start, stop)

    ranges = [ByteRange("a", start, start + 10) for start in range(200, -1, -20)]  # backwards: nothing is merged
    with Prefetcher(recorded, ranges, max_prefetched_bytes=20, max_requests=4) as prefetched:
        for number in range(len(ranges)):
            for _ in range(2 if number == 0 else number + 1 < len(ranges)):
                assert ready.acquire(timeout=TIMEOUT_S)
            assert not ready.acquire(timeout=0.01)
            assert sorted(requested, reverse=True) == [one.start for one in ranges[: number + 2]]
            prefetched.take(number)


def test_max_requests_run_at_a_time() -> None:
    """They all run before the first one returns, and no further one."""
    gate = Gate()
    ranges = [ByteRange("a", start, start + 1) for start in range(20, 0, -2)]
    with Prefetcher(gate.read, ranges, max_requests=3) as prefetched:
        gate.wait_for(3)
        assert not gate.begun.acquire(timeout=0.05)
        gate.open.set()
        assert [bytes(prefetched.take(number)) for number in range(10)] == [read(*one) for one in ranges]


def test_a_range_longer_than_the_limit_is_fetched() -> None:
    """It is requested alone, and the ranges after it follow."""
    ranges = [ByteRange("a", 0, 100), ByteRange("b", 0, 100), ByteRange("c", 0, 1)]
    with Prefetcher(read, ranges, max_prefetched_bytes=5) as prefetched:
        assert [bytes(prefetched.take(number)) for number in range(3)] == [read(*one) for one in ranges]


def test_prefetched_ranges_can_be_taken_in_any_order() -> None:
    """Within the limit, the order of the takes need not be that of the sequence."""
    ranges = [ByteRange("a", start, start + 1) for start in range(20, 0, -2)]
    with Prefetcher(read, ranges) as prefetched:
        for number in (5, 0, 9, 1, 8, 2, 7, 3, 6, 4):
            assert bytes(prefetched.take(number)) == read(*ranges[number])


def test_an_error_is_raised_for_the_ranges_of_its_request_only() -> None:
    """Both ranges of the failed request raise its error; all others are returned."""

    def failing(name: str, start: int, stop: int) -> bytes:
        if name == "b":
            raise MissingError("b: gone")
        return read(name, start, stop)

    ranges = [
        ByteRange("a", 0, 5),
        ByteRange("b", 0, 5),
        ByteRange("b", 6, 9),
        ByteRange("c", 0, 5),
        ByteRange("a", 9, 11),
    ]
    with Prefetcher(failing, ranges, max_prefetched_bytes=10, max_requests=2) as prefetched:
        for number, one in enumerate(ranges):
            if one.name == "b":
                with pytest.raises(MissingError, match="b: gone"):
                    prefetched.take(number)
            else:
                assert bytes(prefetched.take(number)) == read(*one)


def test_closing_wakes_waiting_threads() -> None:
    """They raise an error at once, though their requests still run."""
    gate = Gate()
    before = threading.enumerate()
    prefetched = Prefetcher(
        gate.read, [ByteRange("a", 0, 5), ByteRange("b", 0, 5), ByteRange("c", 0, 5)], max_requests=2
    )
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(prefetched.take, number) for number in range(3)]
        gate.wait_for(2)
        prefetched.close()
        for one in waiting:
            with pytest.raises(StoreError, match="reading was stopped"):
                one.result(TIMEOUT_S)
    gate.open.set()
    assert ends(started(before))
    assert not gate.begun.acquire(blocking=False)  # the third was not requested


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_threads_end_with_their_requests(taken: int) -> None:
    """After closing, no thread is left, whether nothing, some or all ranges were taken."""
    before = threading.enumerate()
    ranges = [ByteRange("a", start, start + 10) for start in (100, 50, 0)]
    with Prefetcher(read, ranges, max_prefetched_bytes=10, max_requests=3) as prefetched:
        for number in range(taken):
            prefetched.take(number)
    assert ends(started(before))


def test_taking_after_closing_is_an_error() -> None:
    """This holds for fetched ranges too; closing twice is not an error."""
    prefetched = Prefetcher(read, [ByteRange("a", 0, 5), ByteRange("b", 0, 5)])
    prefetched.take(0)
    prefetched.close()
    prefetched.close()
    with pytest.raises(StoreError, match="reading was stopped"):
        prefetched.take(1)


def test_an_empty_sequence_starts_no_thread() -> None:
    """There is nothing to fetch."""
    before = threading.enumerate()
    with Prefetcher(read, []):
        assert started(before) == []


def test_threads_are_daemons() -> None:
    """A stalled request does not keep an interrupted process alive."""
    gate = Gate()
    before = threading.enumerate()
    with Prefetcher(gate.read, [ByteRange("a", 0, 5)]):
        gate.wait_for(1)
        assert [thread.daemon for thread in started(before)] == [True]
        gate.open.set()
