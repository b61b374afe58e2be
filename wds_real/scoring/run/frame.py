"""One finished batch as bytes: a checksummed frame. Runs without torch.

    magic     4 bytes   b"WRB1"
    batch     uint32    number of the batch in the plan
    rows      uint32    samples in it
    run       16 bytes  first half of the run key
    payload   rows x (index int32, classes 5 x int16, probabilities 5 x float32)
    checksum  uint64    xxh3-64 of everything before it in the frame

A batch with files that the decoder warned about has the magic b"WRB2", and one more byte at the end of each row: 1 if
it warned, else 0. All values are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from wds_real.scoring.predictions import TOP

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Frames", "Record", "read_frames"]

_MAGIC, _MAGIC_WARNED = b"WRB1", b"WRB2"
_HEAD = struct.Struct("<4sII16s")
_TAIL = struct.Struct("<Q")
_ROW = np.dtype([("index", "<i4"), ("classes", "<i2", (TOP,)), ("probabilities", "<f4", (TOP,))])
_ROW_WARNED = np.dtype([*_ROW.descr, ("warned", "u1")])


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """The predictions of one finished batch.

    Attributes:
        batch: Number of the batch in the plan.
        index: int64 (n,), positions in the data set.
        classes: int64 (n, 5), best first; -1 where the model gave fewer; all -1 for a sample that could not be read.
        probabilities: float32 (n, 5), NaN where unknown.
        warned: bool (n,), True where the decoder warned about the file; None means nowhere.
    """

    batch: int
    index: NDArray[np.int64]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    warned: NDArray[np.bool_] | None = None

    def encode(self, run: bytes) -> bytes:
        """Return the record's frame."""
        any_warned = self.warned is not None and bool(self.warned.any())
        rows = np.empty(len(self.index), dtype=_ROW_WARNED if any_warned else _ROW)
        rows["index"], rows["classes"], rows["probabilities"] = self.index, self.classes, self.probabilities
        if any_warned:
            rows["warned"] = self.warned
        body = _HEAD.pack(_MAGIC_WARNED if any_warned else _MAGIC, self.batch, len(rows), run) + rows.tobytes()
        return body + _TAIL.pack(xxhash.xxh3_64_intdigest(body))

    def difference(self, other: Record) -> str | None:
        """Return in words where another record of the batch has other samples or classes; None if it has the same."""
        if not np.array_equal(self.index, other.index):
            return "they hold different samples"
        rows = np.flatnonzero((self.classes != other.classes).any(axis=1))
        if not len(rows):
            return None
        ours, theirs = (each.classes[rows[0]].tolist() for each in (self, other))
        return f"sample {self.index[rows[0]]} has the classes {ours} and {theirs}"


@dataclass(frozen=True, slots=True)
class Frames:
    """What the bytes of a record file hold.

    Attributes:
        records: The whole frames, as records.
        other_run: Whether a whole frame belongs to another run; reading stopped there.
        torn_at: Byte at which a torn or damaged frame begins; None if there is none. Reading stopped there.
    """

    records: tuple[Record, ...]
    other_run: bool = False
    torn_at: int | None = None


def read_frames(data: bytes, run: bytes) -> Frames:
    """Return the records in the bytes of a file, up to the first frame that is torn, damaged or of another run."""
    records, position = list[Record](), 0
    while position < len(data):
        frame = _frame_at(data, position)
        if frame is None:
            return Frames(tuple(records), torn_at=position)
        head, rows, position = frame
        _, batch, _, run_of_frame = _HEAD.unpack(head)
        if run_of_frame != run:
            return Frames(tuple(records), other_run=True)
        records.append(
            Record(
                batch,
                rows["index"].astype(np.int64),
                rows["classes"].astype(np.int64),
                rows["probabilities"].astype(np.float32),
                rows["warned"] != 0 if rows.dtype == _ROW_WARNED else None,
            )
        )
    return Frames(tuple(records))


def _frame_at(data: bytes, position: int) -> tuple[bytes, NDArray[Any], int] | None:
    """Return head, rows and end of the frame at `position`, or None if it is torn or damaged."""
    if position + _HEAD.size > len(data):
        return None
    head = data[position : position + _HEAD.size]
    magic, _, num_rows, _ = _HEAD.unpack(head)
    row = _ROW_WARNED if magic == _MAGIC_WARNED else _ROW
    end = position + _HEAD.size + num_rows * row.itemsize
    if magic not in (_MAGIC, _MAGIC_WARNED) or end + _TAIL.size > len(data):
        return None
    if _TAIL.unpack_from(data, end)[0] != xxhash.xxh3_64_intdigest(data[position:end]):
        return None
    return head, np.frombuffer(data, dtype=row, count=num_rows, offset=position + _HEAD.size), end + _TAIL.size
