"""Scan the headers of a tar while it is streamed, to check that it ends with the end-of-archive marker."""

from __future__ import annotations

import sys

from wds_real.format.tar import BLOCK, END, TarError, padding, parse_header, pax_size

__all__ = ["TarScanner"]

_WITHOUT_DATA = b"123456"  # links, devices, directories and pipes


class TarScanner:
    """Scans a tar that is fed block by block; `ended` becomes True at the end-of-archive marker.

    A damaged header stops the scan without an error: the program that unpacks the archive reports it.
    """

    def __init__(self) -> None:
        self.ended = False
        self._position = 0  # of the next byte to be fed
        self._partial = b""  # the part of a header, or of a pax extension, that was fed so far
        self._start, self._length, self._is_header = 0, BLOCK, True  # the header or extension to read next
        self._next_header = 0  # where the header after an extension starts
        self._zero_blocks = 0
        self._pax_size: int | None = None  # size of the next member, from a pax extension

    def feed(self, block: memoryview) -> None:
        """Scan the next bytes of the archive."""
        end = self._position + len(block)
        try:
            while not self.ended and self._start + len(self._partial) < end:
                start = self._start + len(self._partial) - self._position
                self._partial += bytes(block[start : start + self._length - len(self._partial)])
                if len(self._partial) < self._length:
                    break
                data, self._partial = self._partial, b""
                if self._is_header:
                    self._read_header(data)
                else:
                    self._pax_size = pax_size(data)
                    self._expect_header(self._next_header)
        except TarError:
            self._start = sys.maxsize
        self._position = end

    def _read_header(self, data: bytes) -> None:
        """Find the place of the next header, or of the pax extension that this header announces."""
        if not any(data):
            self._zero_blocks += 1
            self.ended = self._zero_blocks == len(END) // BLOCK
            self._start += BLOCK
            return
        _, size, flag = parse_header(data)
        self._zero_blocks = 0
        if flag not in b"xXgLK":
            size, self._pax_size = 0 if flag in _WITHOUT_DATA else (self._pax_size or size), None
        data_start = self._start + BLOCK
        self._next_header = data_start + size + padding(size)
        if flag in b"xX" and size:
            self._start, self._length, self._is_header = data_start, size, False
        else:
            self._expect_header(self._next_header)

    def _expect_header(self, start: int) -> None:
        self._start, self._length, self._is_header = start, BLOCK, True
