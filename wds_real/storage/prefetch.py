"""Prefetch of byte ranges: neighbouring ranges share a request, several requests run at a time, memory is bounded.

The limits were measured against an S3 server on the same machine with two cores. Four concurrent requests of 8 MiB are
about as fast as bare requests whose bytes are dropped; eight are a fifth slower, because their bytes have left the
processor's caches when they are read. Single samples of 110 KB need about sixteen to hide the latency. Twice the bytes
of the running requests may be held, so that a request that stalls does not stop the readers at once. With many decoding
threads, the caller raises the limits in proportion.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from wds_real.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

__all__ = [
    "BLOCK_BYTES",
    "MAX_PREFETCHED_BYTES",
    "MAX_REQUESTED_BYTES",
    "MAX_REQUESTS",
    "Block",
    "ByteRange",
    "Prefetcher",
    "file_blocks",
    "merge",
]

BLOCK_BYTES = 8 << 20  # of one request: larger ones are not faster and cost more to retry
GAP_BYTES = 64 << 10  # reading and dropping a gap is cheaper than another request
MAX_REQUESTED_BYTES = 4 * BLOCK_BYTES
MAX_PREFETCHED_BYTES = 2 * MAX_REQUESTED_BYTES
MAX_REQUESTS = 16


class ByteRange(NamedTuple):
    """A half-open byte range of a named file."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Block:
    """One request, for the ranges with the numbers [first, last) in their sequence."""

    name: str
    start: int
    stop: int
    first: int
    last: int


def file_blocks(name: str, num_bytes: int) -> list[ByteRange]:
    """Return the ranges of at most `BLOCK_BYTES` that a file of `num_bytes` bytes consists of."""
    return [ByteRange(name, at, min(at + BLOCK_BYTES, num_bytes)) for at in range(0, num_bytes, BLOCK_BYTES)]


def merge(ranges: Iterable[ByteRange], *, max_bytes: int = BLOCK_BYTES, max_gap: int = GAP_BYTES) -> Iterator[Block]:
    """Yield the requests for a sequence of ranges, in its order.

    Ranges that follow each other in the sequence and in a file, with at most `max_gap` bytes between them, share a
    request of at most `max_bytes`. A longer range has its own.

    >>> list(merge([ByteRange("a", 0, 10), ByteRange("a", 12, 20), ByteRange("b", 0, 5)]))[0]
    Block(name='a', start=0, stop=20, first=0, last=2)
    """
    number, name, start, stop, first = -1, "", 0, 0, 0
    for number, (next_name, next_start, next_stop) in enumerate(ranges):
        near = next_name == name and 0 <= next_start - stop <= max_gap and next_stop - start <= max_bytes
        if number and not near:
            yield Block(name, start, stop, first, number)
        if not (number and near):
            name, start, first = next_name, next_start, number
        stop = next_stop
    if number >= 0:
        yield Block(name, start, stop, first, number + 1)


class Prefetcher:
    """Fetches ranges before they are taken; a context manager that ends its threads.

    Each range is taken once, by any thread, in about the order of the sequence: a range can be taken as long as the
    untaken ranges before it fit into `max_prefetched_bytes`.

    Args:
        read: Returns the bytes of a range, or raises.
        ranges: In the order in which they will be taken.
        max_prefetched_bytes: Limit of the bytes that are requested or fetched, and not yet taken; a longer request is
            made alone.
        max_requested_bytes: Limit of the bytes of running requests; a longer request is made alone too.
        max_requests: Limit of the running requests.
    """

    def __init__(
        self,
        read: Callable[[str, int, int], bytes | memoryview],
        ranges: Sequence[ByteRange],
        *,
        max_prefetched_bytes: int = MAX_PREFETCHED_BYTES,
        max_requested_bytes: int = MAX_REQUESTED_BYTES,
        max_requests: int = MAX_REQUESTS,
    ) -> None:
        self._read = read
        self._ranges = ranges
        self._blocks = list(merge(ranges))
        self._block_of = [number for number, block in enumerate(self._blocks) for _ in range(block.first, block.last)]
        self._num_untaken = [block.last - block.first for block in self._blocks]
        self._fetched: dict[int, bytes | memoryview | Exception] = {}
        self._max_prefetched_bytes, self._max_requested_bytes = max_prefetched_bytes, max_requested_bytes
        self._prefetched_bytes = self._requested_bytes = 0
        self._next_block = 0
        self._closed = False
        self._lock = threading.Lock()
        self._arrived: dict[int, threading.Condition] = {}  # by block, for the threads that wait to take it
        self._room = threading.Condition(self._lock)  # the fetching threads wait for room, and wake each other
        for number in range(min(max_requests, len(self._blocks))):
            # Daemons, so that an interrupted process does not wait for a stalled request.
            threading.Thread(target=self._fetch, name=f"fetch-{number}", daemon=True).start()

    def take(self, number: int) -> memoryview:
        """Wait for the range with this number in the sequence, and return its bytes.

        Raises:
            Exception: whatever `read` raised for its request.
            StoreError: the prefetcher was closed meanwhile.
        """
        block_number = self._block_of[number]
        block, taken = self._blocks[block_number], self._ranges[number]
        with self._lock:
            while block_number not in self._fetched and not self._closed:
                self._arrived.setdefault(block_number, threading.Condition(self._lock)).wait()
            if self._closed:
                raise StoreError("reading was stopped.")
            data = self._fetched[block_number]
            self._num_untaken[block_number] -= 1
            if not self._num_untaken[block_number]:
                del self._fetched[block_number]
                self._prefetched_bytes -= block.stop - block.start
                self._room.notify()
        if isinstance(data, Exception):
            raise data
        return memoryview(data)[taken.start - block.start : taken.stop - block.start]

    def close(self) -> None:
        """Drop all fetched bytes; each thread ends when its current request is done."""
        with self._lock:
            self._closed = True
            self._fetched.clear()
            for waiting in (*self._arrived.values(), self._room):
                waiting.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _fetch(self) -> None:
        while (number := self._claim()) is not None:
            block = self._blocks[number]
            data: bytes | memoryview | Exception
            try:
                data = self._read(block.name, block.start, block.stop)
            except Exception as error:  # noqa: BLE001 -- raised where the range is taken
                data = error
            with self._lock:
                if self._closed:
                    return
                self._fetched[number] = data
                was_full = self._requested_bytes + BLOCK_BYTES > self._max_requested_bytes  # else no thread waits
                self._requested_bytes -= block.stop - block.start
                if was_full:
                    self._room.notify()
                if (waiting := self._arrived.pop(number, None)) is not None:
                    waiting.notify_all()

    def _claim(self) -> int | None:
        """Wait for room, and return the number of the next block to fetch, or None if all are claimed."""
        with self._room:
            while not self._closed and self._next_block < len(self._blocks):
                block = self._blocks[self._next_block]
                size = block.stop - block.start
                room = min(
                    self._max_prefetched_bytes - self._prefetched_bytes,
                    self._max_requested_bytes - self._requested_bytes,
                )
                if size <= room or not self._prefetched_bytes:
                    self._prefetched_bytes += size
                    self._requested_bytes += size
                    self._next_block += 1
                    self._room.notify()
                    return self._next_block - 1
                self._room.wait()
            self._room.notify()  # the other waiting threads end too
            return None
