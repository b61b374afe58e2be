"""Buffers are used again when nobody holds a part of them, and never before."""

from __future__ import annotations

import pickle
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.storage.buffers import Buffers


def address(view: memoryview) -> int:
    import numpy as np

    return int(np.frombuffer(view, dtype=np.uint8).ctypes.data)


def test_a_buffer_that_was_let_go_is_used_again() -> None:
    """The next one who asks gets the same memory."""
    buffers = Buffers(max_kept=4)
    first = buffers.take(1000)
    place = address(first)
    del first
    assert address(buffers.take(2000)) == place


def test_a_buffer_somebody_holds_a_part_of_is_not() -> None:
    """A slice of a slice is enough to keep it."""
    buffers = Buffers(max_kept=4)
    view = buffers.take(1000)
    view[:5] = b"hello"
    part = view[:100].toreadonly()[:5]
    place = address(view)
    del view
    other = buffers.take(1000)
    assert address(other) != place
    other[:] = bytes(1000)
    assert bytes(part) == b"hello"
    del part
    assert address(buffers.take(1000)) == place


def test_a_buffer_that_is_too_small_is_left_alone() -> None:
    """Who needs more gets another one, of the length asked for."""
    buffers = Buffers(max_kept=4)
    del (small := [buffers.take(10)])[0]
    assert len(buffers.take(5 << 20)) == 5 << 20
    assert len(small) == 0
    assert len(buffers.take(0)) == 0


def test_no_more_are_kept_than_said() -> None:
    """What is beyond that is given back to the system."""
    buffers = Buffers(max_kept=2)
    held = [buffers.take(1) for _ in range(5)]
    held.clear()
    assert len(buffers._kept) == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3000)), max_size=30))
def test_what_is_held_never_changes(steps: list[tuple[int, int]]) -> None:
    """However takes and releases follow each other, each holder finds what it wrote."""
    buffers = Buffers(max_kept=3)
    held: dict[int, tuple[memoryview, bytes]] = {}
    for number, (slot, length) in enumerate(steps):
        held.pop(slot, None)
        view = buffers.take(length)
        content = bytes([number % 251]) * length
        view[:] = content
        held[slot] = (view, content)
        assert all(view == content for view, content in held.values())


def test_threads_never_share_a_buffer() -> None:
    """Each fills its own again and again, and finds it unchanged."""
    buffers, wrong = Buffers(max_kept=8), []

    def work(byte: int) -> None:
        for _ in range(300):
            view = buffers.take(4000)
            view[:] = bytes([byte]) * 4000
            if view != bytes([byte]) * 4000:
                wrong.append(byte)

    threads = [threading.Thread(target=work, args=(byte,)) for byte in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_copy_in_another_process_starts_empty() -> None:
    """Memory does not travel, the bound does."""
    buffers = Buffers(max_kept=3)
    held = buffers.take(10)
    again: Buffers = pickle.loads(pickle.dumps(buffers))  # noqa: S301 -- our own bytes
    assert (again._kept, again._max_kept) == ([], 3)
    assert len(held) == 10
