"""Per-batch result records, checksummed and written as each batch finishes.

    DIR/run.json                         the run's identity, whose digest is the run key, and how it was executed
    DIR/records/RRRRR-NNN.bin            records of one process: rank R, its N-th start
    DIR/.wds_real.lock                   while a run writes here: the process of its rank 0

A record file is a sequence of frames and nothing else:

    magic     4 bytes   b"WRB1"
    batch     uint32    number of the batch in the plan
    rows      uint32    samples in it
    run       16 bytes  first half of the run key
    payload   rows x (index int32, classes 5 x int16, probabilities 5 x float32)
    checksum  uint64    xxh3-64 of everything before it in the frame

A batch with files that the decoder warned about has the magic b"WRB2", and one more byte at the end of each row: 1 if
it warned, else 0.

All values are little-endian. A process appends only to the file that it created, so a kill can tear only the last frame
of a file. Reading stops at a torn or damaged frame; the batches of that frame and of those behind it are evaluated
again. Runs without torch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from wds_real.errors import PredictionsError
from wds_real.format.json_fields import parse_json
from wds_real.scoring.predictions import TOP
from wds_real.storage.files import make_own_folder, os_errors_as, read_bytes, reason_of, write_all
from wds_real.storage.local import LocalStore
from wds_real.storage.url import is_url, redact_url

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager
    from io import FileIO
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

__all__ = [
    "RUN_NAME",
    "Record",
    "RecordedBatches",
    "RunKey",
    "RunRecords",
    "executions_of",
    "read_run",
    "world_size_of",
]

RUN_NAME = "run.json"

_LOG = logging.getLogger(__name__)
_MAGIC, _MAGIC_WARNED = b"WRB1", b"WRB2"
_FILE_NAME = re.compile(r"(\d{5,})-\d{3}\.bin", re.ASCII)
_HEAD = struct.Struct("<4sII16s")
_TAIL = struct.Struct("<Q")
_ROW = np.dtype([("index", "<i4"), ("classes", "<i2", (TOP,)), ("probabilities", "<f4", (TOP,))])
_ROW_WARNED = np.dtype([*_ROW.descr, ("warned", "u1")])
_FORMAT = {"name": "wds_real.run", "version": 1}
_FOLDER_RIGHTS = 0o755  # others may read the results; who could write here could plant links


@dataclass(frozen=True, slots=True)
class RunKey:
    """The identity of a run: data, model, preprocessing, precision and batch size.

    Attributes:
        identity: JSON-ready: digest and split of the data set, name and digest of the model, preprocessing, ``dtype``
            and ``batch_size``.
    """

    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON of `identity`."""
        return _digest(self.identity)


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """The predictions of one finished batch.

    Attributes:
        batch: Number of the batch in the plan.
        index: int64 (n,), positions in the data set.
        classes: int64 (n, 5), best first; -1 where the model gave fewer; all -1 for a sample that could not be read.
        probabilities: float32 (n, 5), NaN where unknown.
        warned: bool (n,), whose file the decoder warned about; None means none.
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


@dataclass(frozen=True, slots=True)
class RecordedBatches:
    """The records of a run by batch number, one for each batch, and the ranks that wrote them."""

    by_batch: dict[int, Record]
    ranks: frozenset[int]


class RunRecords:
    """The records of one run in one folder; a context manager that holds the file of this process open.

    Args:
        folder: The output folder; created if it does not exist.
        key: The identity of the run.
        about: More fields for ``run.json``, such as the root of the data set; those of the latest start are kept.
        rank: Of this process; part of its file's name.

    Raises:
        PredictionsError: the folder holds the records of another run.
    """

    def __init__(self, folder: str | Path, key: RunKey, *, about: dict[str, Any] | None = None, rank: int = 0) -> None:
        if not str(folder):  # an unset variable of a shell, rather than the current folder
            raise PredictionsError("the path of the output folder is empty. The current folder is a single dot.")
        if is_url(str(folder)):
            raise PredictionsError(f"{redact_url(str(folder))}: records need a folder. Choose a local --output.")
        self.folder = Path(folder)
        self.key = key
        self._rank = rank
        self._run = bytes.fromhex(key.digest)[:16]
        self._file: FileIO | None = None
        if self.folder.is_file():
            raise PredictionsError(f"{self.folder}: is a file. Give a folder for --output, which is made if missing.")
        self._store = LocalStore(self.folder)
        if RUN_NAME in self._store.list():
            run = read_run(self.folder)
            _refuse_other_run(self.folder, run, key)
            if rank == 0 and about is not None and not about.items() <= run.items():
                self._write_run({**run, **about})
        elif rank == 0:
            self._write_run({"format": _FORMAT, "identity": key.identity, "digest": key.digest, **(about or {})})

    def add_execution(self, execution: dict[str, Any]) -> None:
        """Add to ``run.json`` how the model is run from now on, unless it is listed there; only rank 0 writes.

        Records of earlier versions, which did not list this, get an empty entry: how they were computed is unknown.
        """
        if self._rank == 0:
            run = read_run(self.folder)
            known = executions_of(run) or [{} for _ in itertools.islice(self._files(), 1)]
            if execution not in known:
                executions = [*known, execution]
                self._write_run({**run, "executions": executions, "executions_digest": _digest(executions)})

    def executions(self) -> list[dict[str, Any]]:
        """Return how the model was run at each distinct start; empty if this node has no ``run.json``."""
        return executions_of(read_run(self.folder)) if RUN_NAME in self._store.list() else []

    def read(self) -> RecordedBatches:
        """Return the complete records on disk; of two of one batch, that of the first file in name order.

        Raises:
            PredictionsError: a complete record belongs to another run.
        """
        by_batch, ranks = dict[int, Record](), set[int]()
        for path in sorted(self._files()):
            for record in self._read(path):
                if by_batch.setdefault(record.batch, record) is record and (named := _FILE_NAME.fullmatch(path.name)):
                    ranks.add(int(named[1]))
        return RecordedBatches(by_batch, frozenset(ranks))

    def append(self, record: Record) -> None:
        """Append one record to the file of this process; after this returns, a kill of the process cannot lose it."""
        if self._file is None:
            with _errors(self.folder / "records"):
                self._file = self._create()
        with _errors(Path(str(self._file.name))):
            descriptor = self._file.fileno()
            write_all(descriptor, record.encode(self._run), os.fstat(descriptor).st_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with _errors(Path(str(file.name))), file:
                os.fsync(file.fileno())

    def _files(self) -> Iterator[Path]:
        return (self.folder / "records").glob("*.bin")

    def _write_run(self, run: dict[str, Any]) -> None:
        with _errors(self.folder):
            make_own_folder(self.folder, mode=_FOLDER_RIGHTS)
        self._store.put(RUN_NAME, (json.dumps(run, indent=1) + "\n").encode("ascii"))

    def _create(self) -> FileIO:
        """Create a file with a name that no other process, and no earlier start, has used."""
        folder = self.folder / "records"
        make_own_folder(self.folder, mode=_FOLDER_RIGHTS)
        make_own_folder(folder)
        for start in range(1000):
            try:
                return (folder / f"{self._rank:05d}-{start:03d}.bin").open("xb", buffering=0)
            except FileExistsError:
                continue
        raise PredictionsError(f"{folder}: rank {self._rank} was started 1,000 times. Choose another --output.")

    def _read(self, path: Path) -> Iterator[Record]:
        with _errors(path):
            data, position = read_bytes(path), 0
        while position < len(data):
            frame = _frame_at(data, position)
            if frame is None:
                _LOG.warning("%s: the record at byte %d is torn; its batch is evaluated again", path, position)
                return
            magic_batch, rows, position = frame
            _, batch, _, run = _HEAD.unpack(magic_batch)
            if run != self._run:
                raise PredictionsError(f"{path}: holds records of another run. Choose another --output.")
            yield Record(
                batch,
                rows["index"].astype(np.int64),
                rows["classes"].astype(np.int64),
                rows["probabilities"].astype(np.float32),
                rows["warned"] != 0 if rows.dtype == _ROW_WARNED else None,
            )


def _errors(path: Path) -> AbstractContextManager[None]:
    return os_errors_as(
        lambda error: PredictionsError(f"{path}: records cannot be read or written: {reason_of(error)}")
    )


def read_run(folder: str | Path) -> dict[str, Any]:
    """Return the content of ``run.json``.

    Raises:
        PredictionsError: there is no such file, or it is damaged.
    """
    path = Path(folder) / RUN_NAME
    try:
        run = parse_json(read_bytes(path))
    except FileNotFoundError as error:
        raise PredictionsError(f"{path}: no such file: {folder} is not the --output of `wds-real eval`.") from error
    except (OSError, ValueError) as error:
        raise PredictionsError(f"{path}: cannot be read: {error}. Choose another --output.") from error
    if not isinstance(run, dict) or run.get("format") != _FORMAT or not isinstance(run.get("identity"), dict):
        raise PredictionsError(f"{path}: not written by this version of wds_real. Choose another --output.")
    if {"executions", "executions_digest"} & run.keys() and run.get("executions_digest") != _digest(
        run.get("executions")
    ):
        raise PredictionsError(f"{path}: was edited or damaged: its executions do not match their digest.")
    return run


def world_size_of(run: dict[str, Any], ranks: Collection[int]) -> int:
    """Return the number of processes of the latest start; of earlier versions, that of the `ranks` with records."""
    found = run.get("world_size")
    return found if isinstance(found, int) and found > 0 else len(ranks)


def executions_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return how the model was run at each distinct start, from what `read_run` returned; {} where that is unknown."""
    executions: list[dict[str, Any]] = run.get("executions", [])
    return executions


def _digest(content: object) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _refuse_other_run(folder: Path, run: dict[str, Any], key: RunKey) -> None:
    found: dict[str, Any] = run["identity"]
    if RunKey(found).digest == key.digest:
        return
    changes = "; ".join(
        f"{name} was {json.dumps(was)}, is {json.dumps(now)}" for name, was, now in _differences(found, key.identity)
    )
    raise PredictionsError(
        f"{folder}: holds the records of another run: {changes}. Choose another --output, or remove the folder."
    )


def _differences(was: object, now: object, name: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield the fields that differ, by their path."""
    if isinstance(was, dict) and isinstance(now, dict):
        for field in sorted({*was, *now}):
            yield from _differences(was.get(field), now.get(field), f"{name}.{field}" if name else field)
    elif was != now:
        yield name, was, now


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
