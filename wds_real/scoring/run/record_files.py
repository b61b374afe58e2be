"""Records in a folder: one file a process and start, to which each finished batch is appended at once.

    DIR/records/RRRRR-NNN.bin     rank R, its N-th start

A kill can tear only the last frame of a file. Runs without torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wds_real.errors import PredictionsError
from wds_real.storage.files import make_own_folder, os_errors_as, read_bytes, reason_of, write_all

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from io import FileIO
    from pathlib import Path

    from wds_real.scoring.run.place import OutputPlace

__all__ = ["RecordFiles"]


class RecordFiles:
    """The record files of a folder, and that of this process, which is made at the first append.

    Args:
        place: Of the output, a folder.
        folder: The folder's path.
        rank: Of this process.

    Attributes:
        grows: Whether a file that was read may hold more when it is read again.
    """

    grows = True

    def __init__(self, place: OutputPlace, folder: Path, *, rank: int) -> None:
        self._place, self._rank = place, rank
        self._folder = folder / "records"
        self._file: FileIO | None = None

    def names(self) -> list[str]:
        """Return the names of all record files, sorted."""
        with self._errors(self._folder):
            return sorted(path.name for path in self._folder.glob("*.bin"))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        path = self._folder / name
        with self._errors(path):
            return read_bytes(path)

    def append(self, frame: bytes) -> None:
        """Append a frame; after this returns, a kill of the process cannot lose it."""
        if self._file is None:
            with self._errors(self._folder):
                self._file = self._create()
        with self._errors(self._folder / str(self._file.name)):
            descriptor = self._file.fileno()
            write_all(descriptor, frame, os.fstat(descriptor).st_size)

    def flush(self) -> None:
        """Do nothing: what was appended is there."""

    def close(self) -> None:
        """Write what the system holds back to the disk, and close the file."""
        if self._file is not None:
            file, self._file = self._file, None
            with self._errors(self._folder / str(file.name)), file:
                os.fsync(file.fileno())

    def _create(self) -> FileIO:
        """Create a file with a name that no other process, and no earlier start, has used."""
        self._place.make()
        make_own_folder(self._folder)
        for start in range(1000):
            try:
                return (self._folder / f"{self._rank:05d}-{start:03d}.bin").open("xb", buffering=0)
            except FileExistsError:
                continue
        raise PredictionsError(f"{self._folder}: rank {self._rank} was started 1,000 times. Choose another --output.")

    @staticmethod
    def _errors(path: Path) -> AbstractContextManager[None]:
        return os_errors_as(
            lambda error: PredictionsError(f"{path}: records cannot be read or written: {reason_of(error)}")
        )
