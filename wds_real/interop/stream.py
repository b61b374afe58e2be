"""An object or web file as a stream of bytes: prefetched, complete, and all of one version."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from wds_real.errors import StoreError
from wds_real.format.tar_scanner import TarScanner
from wds_real.storage.prefetch import Prefetcher, file_blocks
from wds_real.storage.store import open_store
from wds_real.storage.url import split_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StoreStream", "open_stream"]


def open_stream(url: str, *, storage_options: Mapping[str, str] | None = None) -> io.BufferedReader:
    """Open an object for reading from beginning to end; `StoreStream` says what is checked.

    Raises:
        MissingError: there is no such object.
        UnavailableError: the object store denies access, or gave up.
    """
    return io.BufferedReader(StoreStream(url, storage_options=storage_options), buffer_size=1 << 20)


class StoreStream(io.RawIOBase):
    """The bytes of an object, in order. A tar that ends without an end-of-archive marker raises `StoreError`."""

    def __init__(self, url: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._prefetcher: Prefetcher | None = None
        place, self._name = split_url(url)
        self._store = open_store(place, storage_options=storage_options)
        self._num_bytes = self._store.head(self._name)
        blocks = file_blocks(self._name, self._num_bytes)
        self._prefetcher = Prefetcher(self._read, blocks)
        self._numbers = iter(range(len(blocks)))
        self._block = memoryview(b"")
        self._scanner = TarScanner() if self._name.endswith(".tar") else None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 -- any writable buffer
        """Fill the start of a buffer and return the number of bytes; 0 at the end."""
        if not self._block.nbytes:
            number = next(self._numbers, None)
            if number is None or self._prefetcher is None:
                self._check_end()
                return 0
            self._block = self._prefetcher.take(number)
            if self._scanner is not None:
                self._scanner.feed(self._block)
        view = memoryview(buffer).cast("B")
        length = min(view.nbytes, self._block.nbytes)
        view[:length] = self._block[:length]
        self._block = self._block[length:]
        return length

    def close(self) -> None:
        """End the prefetching."""
        if not self.closed and self._prefetcher is not None:
            self._prefetcher.close()
        super().close()

    def _read(self, name: str, start: int, stop: int) -> bytes | memoryview:
        return self._store.get_range(name, start, stop, size=self._num_bytes)

    def _check_end(self) -> None:
        if self._scanner is not None and not self._scanner.ended:
            raise StoreError(
                f"{self._store.url}/{self._name}: no end-of-archive marker in its {self._num_bytes:,} bytes. The "
                "tar is incomplete: copy it again."
            )
