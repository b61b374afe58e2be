"""Buffers are reused when no view of them is left, and not before."""

from __future__ import annotations

import pickle
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.storage.buffers import Buffers


def address(view: memoryview) -> int:
    import numpy as np

    return int(np.frombuffer(view, dtype=np.uint8).ctypes.data)


def test_a_free_buffer_is_reused() -> None:
    """The next `take` returns the same memory."""
    buffers = Buffers(max_kept=4)
    first = buffers.take(1000)
    first_address = address(first)
    del first
    assert address(buffers.take(2000)) == first_address


def test_a_buffer_with_a_view_is_not_reused() -> None:
    """A slice of a slice is a view too."""
    buffers = Buffers(max_kept=4)
    view = buffers.take(1000)
    view[:5] = b"hello"
    part = view[:100].toreadonly()[:5]
    first_address = address(view)
    del view
    other = buffers.take(1000)
    assert address(other) != first_address
    other[:] = bytes(1000)
    assert bytes(part) == b"hello"
    del part
    assert address(buffers.take(1000)) == first_address


def test_a_buffer_that_is_too_small_is_not_reused() -> None:
    """A longer one is made; views have the requested length."""
    buffers = Buffers(max_kept=4)
    del (small := [buffers.take(10)])[0]
    assert len(buffers.take(5 << 20)) == 5 << 20
    assert len(small) == 0
    assert len(buffers.take(0)) == 0


def test_at_most_max_kept_buffers_are_kept() -> None:
    """Further ones are freed with their views."""
    buffers = Buffers(max_kept=2)
    held = [buffers.take(1) for _ in range(5)]
    held.clear()
    assert len(buffers._kept) == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3000)), max_size=30))
def test_views_keep_their_bytes(steps: list[tuple[int, int]]) -> None:
    """This holds for any order of takes and releases."""
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
    """Each thread finds the bytes that it wrote."""
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


def test_a_pickled_pool_is_empty() -> None:
    """Only its limit is pickled."""
    buffers = Buffers(max_kept=3)
    held = buffers.take(10)
    again: Buffers = pickle.loads(pickle.dumps(buffers))  # noqa: S301 -- our own bytes
    assert (again._kept, again._max_kept) == ([], 3)
    assert len(held) == 10
