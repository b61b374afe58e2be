"""List the members of a tar at a URL with many requests at a time.

Each header says where the next one is, so reading them one after the other would take hours. Instead the archive is cut
into parts. In each part the first header is searched for, and the chain of headers from there is followed up to the
next part. If every chain ends exactly at the first header of the next part, the chains together hold the same members
as `wds_real.format.tar.iter_members` finds. Otherwise some data looked like a header, and the members are those that
`iter_members` finds.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from wds_real.format.tar import BLOCK, TarError, iter_entries, iter_members, padding, parse_header, resolve_links

if TYPE_CHECKING:
    from collections.abc import Callable

    from wds_real.format.tar import Member

__all__ = ["walk_members"]

_PART_BYTES = 2 << 20  # smallest part, which holds several images
_LOOKED_AT = 256 << 10  # bytes searched at a time for a header


def walk_members(read: Callable[[int, int], bytes], num_bytes: int, *, chains: int = 32) -> list[Member]:
    """Return the files and directories of an archive of `num_bytes` bytes, in their order.

    Args:
        read: Returns exactly the bytes of a half-open range; called from several threads.
        num_bytes: Length of the archive.
        chains: Largest number of parts, which are walked at the same time.

    Raises:
        TarError: as `wds_real.format.tar.iter_members`.
    """
    parts = max(1, min(chains, num_bytes // _PART_BYTES))
    bounds = [num_bytes * part // parts // BLOCK * BLOCK for part in range(parts)] + [num_bytes]

    def walk(part: int) -> tuple[int, list[Member]] | None:
        start = 0 if part == 0 else _find_header(read, bounds[part], bounds[part + 1])
        if start is None:
            return None
        try:
            stop = bounds[part + 1] if part + 1 < parts else None  # the last chain has to find the end marker
            return start, list(iter_entries(read, num_bytes, start=start, stop=stop))
        except TarError:
            return None

    if parts > 1:
        with ThreadPoolExecutor(parts, thread_name_prefix="headers") as pool:
            found = [chain for chain in pool.map(walk, range(parts)) if chain is not None]
        ends = [_end(start, members) for start, members in found]
        if len(found) == parts and ends[:-1] == [start for start, _ in found[1:]]:
            return list(resolve_links(member for _, members in found for member in members))
    return list(iter_members(read, num_bytes))


def _find_header(read: Callable[[int, int], bytes], start: int, stop: int) -> int | None:
    """Return where the first block that is a member's header starts, or None if there is none."""
    for at in range(start, stop, _LOOKED_AT):
        data = read(at, min(at + _LOOKED_AT, stop))
        for place in range(0, len(data) - BLOCK + 1, BLOCK):
            block = data[place : place + BLOCK]
            if block[257:262] == b"ustar":
                try:
                    parse_header(block)
                except TarError:
                    continue
                return at + place
    return None


def _end(start: int, members: list[Member]) -> int:
    """Return where the header after the last member is."""
    return start if not members else members[-1].offset + members[-1].size + padding(members[-1].size)
