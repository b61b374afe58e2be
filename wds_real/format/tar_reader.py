"""Read a tar where it is stored, by byte ranges: the list of its members, and single members."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wds_real.format.tar import BLOCK, iter_members
from wds_real.format.tar_walk import walk_members

if TYPE_CHECKING:
    from wds_real.format.tar import Member
    from wds_real.storage.base import Store

__all__ = ["TarReader"]


class TarReader:
    """One tar in a store; threads may share it.

    Args:
        store: Where the tar is.
        name: Its file name there.

    Attributes:
        num_bytes: Length of the tar.

    Raises:
        MissingError: there is no such file.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.num_bytes = store.head(name)

    def first_block(self) -> bytes:
        """Return the first 512 bytes, or fewer if the file is shorter, for `explain_tar_error`."""
        return self.read(0, min(BLOCK, self.num_bytes))

    def members(self) -> list[Member]:
        """Return the files and directories of the tar, in its order; only headers are read.

        Raises:
            TarError: the tar is damaged or cut.
            StoreError: the file changed its length, or cannot be read.
        """
        if self.store.remote:
            return walk_members(self.read, self.num_bytes)
        return list(iter_members(self.read, self.num_bytes))

    def read(self, start: int, stop: int) -> bytes:
        """Return exactly the bytes of the half-open range.

        Raises:
            StoreError: the file changed its length, or cannot be read.
        """
        return bytes(self.store.get_range(self.name, start, stop, size=self.num_bytes))
