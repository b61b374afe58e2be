"""Prefetcher: every range once and right, a bound on what is ahead, and no thread left behind."""

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

FILES = {name: bytes((place * step) % 251 for place in range(300)) for name, step in (("a", 1), ("b", 7), ("c", 13))}
PATIENCE_S = 20.0

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
    """Return whether all threads are done within a generous time."""
    deadline = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def started(before: Sequence[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before]


class Gate:
    """A read that waits to be let through, and counts who is in it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = threading.Semaphore(0)

    def read(self, name: str, start: int, stop: int) -> bytes:
        self.inside.release()
        assert self.open.wait(PATIENCE_S)
        return read(name, start, stop)

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.inside.acquire(timeout=PATIENCE_S)


@given(wanted=SEQUENCES, max_bytes=st.integers(1, 100), max_gap=st.integers(0, 40))
def test_blocks_bring_each_range_once_in_order(wanted: list[ByteRange], max_bytes: int, max_gap: int) -> None:
    """Blocks cut the sequence into runs; each holds its ranges, and is within the bound but for a single range."""
    blocks = list(merge(wanted, max_bytes=max_bytes, max_gap=max_gap))
    assert [place for block in blocks for place in range(block.first, block.last)] == list(range(len(wanted)))
    for block in blocks:
        held = wanted[block.first : block.last]
        assert {one.name for one in held} == {block.name}
        assert (block.start, block.stop) == (held[0].start, held[-1].stop)
        assert block.stop - block.start <= max_bytes or len(held) == 1
        for one, other in itertools.pairwise(held):
            assert 0 <= other.start - one.stop <= max_gap


def test_neighbours_share_a_request() -> None:
    """Up to the longest gap that is worth reading, and up to the longest block; one more byte is another request."""
    one = ByteRange("a", 0, 10)
    near, far = ByteRange("a", 10 + GAP_BYTES, 20 + GAP_BYTES), ByteRange("a", 11 + GAP_BYTES, 20 + GAP_BYTES)
    assert list(merge([one, near])) == [Block("a", 0, near.stop, 0, 2)]
    assert list(merge([one, far])) == [Block("a", 0, 10, 0, 1), Block("a", far.start, far.stop, 1, 2)]
    full, over = ByteRange("a", 10, BLOCK_BYTES), ByteRange("a", 10, BLOCK_BYTES + 1)
    assert [block.last for block in merge([one, full])] == [2]
    assert [block.last for block in merge([one, over])] == [1, 2]


def test_a_range_before_the_last_one_has_a_request_of_its_own() -> None:
    """What is not in the file's order is not merged, nor is what overlaps."""
    for second in (ByteRange("a", 0, 10), ByteRange("a", 19, 30), ByteRange("b", 20, 30)):
        assert len(list(merge([ByteRange("a", 10, 20), second]))) == 2


@settings(max_examples=60, deadline=None)
@given(
    wanted=SEQUENCES,
    takers=st.integers(1, 5),
    max_prefetched_bytes=st.integers(1, 200),
    requests=st.integers(1, 6),
)
def test_any_ranges_come_back_right(
    wanted: list[ByteRange], takers: int, max_prefetched_bytes: int, requests: int
) -> None:
    """Whatever the sequence, the bound, and the numbers of requests and of threads that take: each range, once."""
    places = iter(range(len(wanted)))
    lock = threading.Lock()
    found: dict[int, bytes] = {}
    before = threading.enumerate()

    def take_all(ahead: Prefetcher) -> None:
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                return
            found[place] = bytes(ahead.take(place))

    with (
        Prefetcher(read, wanted, max_prefetched_bytes=max_prefetched_bytes, max_requests=requests) as ahead,
        ThreadPoolExecutor(takers) as pool,
    ):
        for done in [pool.submit(take_all, ahead) for _ in range(takers)]:
            done.result(PATIENCE_S)
    assert found == {place: read(*one) for place, one in enumerate(wanted)}
    assert ends(started(before))


@settings(max_examples=60, deadline=None)
@given(wanted=SEQUENCES, max_prefetched_bytes=st.integers(1, 200), requests=st.integers(1, 6))
def test_no_more_than_the_bound_is_ahead(wanted: list[ByteRange], max_prefetched_bytes: int, requests: int) -> None:
    """At the time of each request: what was asked for and not yet taken is within the bound, or one request alone."""
    made: list[Prefetcher] = []
    ready = threading.Event()
    beyond: list[list[int]] = []

    def watched(name: str, start: int, stop: int) -> bytes:
        assert ready.wait(PATIENCE_S)
        ahead = made[0]
        with ahead._lock:
            claimed = zip(ahead._blocks[: ahead._next], ahead._left, strict=False)
            sizes = [block.stop - block.start for block, left in claimed if left and block.stop > block.start]
        if sum(sizes) > max_prefetched_bytes and len(sizes) > 1:
            beyond.append(sizes)
        return read(name, start, stop)

    with Prefetcher(watched, wanted, max_prefetched_bytes=max_prefetched_bytes, max_requests=requests) as ahead:
        made.append(ahead)
        ready.set()
        assert [bytes(ahead.take(place)) for place in range(len(wanted))] == [read(*one) for one in wanted]
    assert beyond == []


def test_nothing_is_fetched_beyond_the_bound_until_something_is_taken() -> None:
    """With room for two blocks, the third is asked for when the first was taken whole."""
    asked: list[int] = []
    ready = threading.Semaphore(0)

    def noted(name: str, start: int, stop: int) -> bytes:
        asked.append(start)
        ready.release()
        return read(name, start, stop)

    wanted = [ByteRange("a", start, start + 10) for start in range(200, -1, -20)]  # backwards: nothing is merged
    with Prefetcher(noted, wanted, max_prefetched_bytes=20, max_requests=4) as ahead:
        for place in range(len(wanted)):
            for _ in range(2 if place == 0 else place + 1 < len(wanted)):
                assert ready.acquire(timeout=PATIENCE_S)
            assert not ready.acquire(timeout=0.01)
            assert sorted(asked, reverse=True) == [one.start for one in wanted[: place + 2]]
            ahead.take(place)


def test_as_many_requests_at_a_time_as_were_asked_for() -> None:
    """All of them are under way before the first one is answered, and no more."""
    gate = Gate()
    wanted = [ByteRange("a", start, start + 1) for start in range(20, 0, -2)]
    with Prefetcher(gate.read, wanted, max_requests=3) as ahead:
        gate.wait_for(3)
        assert not gate.inside.acquire(timeout=0.05)
        gate.open.set()
        assert [bytes(ahead.take(place)) for place in range(10)] == [read(*one) for one in wanted]


def test_what_is_longer_than_the_bound_comes_alone() -> None:
    """A range that exceeds the bound is let through, and so are those that follow it."""
    wanted = [ByteRange("a", 0, 100), ByteRange("b", 0, 100), ByteRange("c", 0, 1)]
    with Prefetcher(read, wanted, max_prefetched_bytes=5) as ahead:
        assert [bytes(ahead.take(place)) for place in range(3)] == [read(*one) for one in wanted]


def test_within_what_is_ahead_the_order_is_free() -> None:
    """Ranges that are fetched may be taken in any order."""
    wanted = [ByteRange("a", start, start + 1) for start in range(20, 0, -2)]
    with Prefetcher(read, wanted) as ahead:
        for place in (5, 0, 9, 1, 8, 2, 7, 3, 6, 4):
            assert bytes(ahead.take(place)) == read(*wanted[place])


def test_an_error_reaches_those_who_asked_for_its_block_only() -> None:
    """Both ranges of the request that failed raise what it raised; all others come."""

    def failing(name: str, start: int, stop: int) -> bytes:
        if name == "b":
            raise MissingError("b: gone")
        return read(name, start, stop)

    wanted = [
        ByteRange("a", 0, 5),
        ByteRange("b", 0, 5),
        ByteRange("b", 6, 9),
        ByteRange("c", 0, 5),
        ByteRange("a", 9, 11),
    ]
    with Prefetcher(failing, wanted, max_prefetched_bytes=10, max_requests=2) as ahead:
        for place, one in enumerate(wanted):
            if one.name == "b":
                with pytest.raises(MissingError, match="b: gone"):
                    ahead.take(place)
            else:
                assert bytes(ahead.take(place)) == read(*one)


def test_closing_wakes_everyone() -> None:
    """Threads that wait for bytes get an error at once, though the requests are still under way."""
    gate = Gate()
    before = threading.enumerate()
    ahead = Prefetcher(gate.read, [ByteRange("a", 0, 5), ByteRange("b", 0, 5), ByteRange("c", 0, 5)], max_requests=2)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(ahead.take, place) for place in range(3)]
        gate.wait_for(2)
        ahead.close()
        for one in waiting:
            with pytest.raises(StoreError, match="reading was ended before its time"):
                one.result(PATIENCE_S)
    gate.open.set()
    assert ends(started(before))
    assert not gate.inside.acquire(blocking=False)  # nobody asked for the third


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_no_thread_outlives_its_request(taken: int) -> None:
    """Whether nothing, something or all was taken: after closing, threads end when their requests do."""
    before = threading.enumerate()
    wanted = [ByteRange("a", start, start + 10) for start in (100, 50, 0)]
    with Prefetcher(read, wanted, max_prefetched_bytes=10, max_requests=3) as ahead:
        for place in range(taken):
            ahead.take(place)
    assert ends(started(before))


def test_closed_is_closed() -> None:
    """Taking afterwards is an error, also of what had been fetched; closing twice is none."""
    ahead = Prefetcher(read, [ByteRange("a", 0, 5), ByteRange("b", 0, 5)])
    ahead.take(0)
    ahead.close()
    ahead.close()
    with pytest.raises(StoreError, match="ended before its time"):
        ahead.take(1)


def test_nothing_wanted_is_nothing_asked() -> None:
    """An empty sequence starts no thread."""
    before = threading.enumerate()
    with Prefetcher(read, []):
        assert started(before) == []


def test_threads_keep_no_process_alive() -> None:
    """A request that hangs must not hold up the end of an interrupted process."""
    gate = Gate()
    before = threading.enumerate()
    with Prefetcher(gate.read, [ByteRange("a", 0, 5)]):
        gate.wait_for(1)
        assert [thread.daemon for thread in started(before)] == [True]
        gate.open.set()
