"""The records of a run: each finished batch's predictions, saved during the run, so that a killed run can resume.

    run.json         the run's identity: see `wds_real.scoring.run.description`
    records/*.bin    frames (`wds_real.scoring.run.frame`): files that grow in a folder
                     (`wds_real.scoring.run.record_files`), objects that are written once in an object store
                     (`wds_real.scoring.run.record_objects`)

Reading stops at a torn or damaged frame; the batches of that frame and of those behind it are evaluated again. Runs
without torch.
"""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wds_real.errors import PredictionsError
from wds_real.scoring.run.description import RunDescription, RunKey
from wds_real.scoring.run.frame import Record, read_frames
from wds_real.scoring.run.place import OutputPlace
from wds_real.scoring.run.record_files import RecordFiles
from wds_real.scoring.run.record_objects import RecordObjects

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["RecordedBatches", "RunRecords"]

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"(\d{5,})-(?:\d{3}|[0-9a-f]{8}-\d{6})\.bin", re.ASCII)
_MAX_REQUESTS = 8


@dataclass(frozen=True, slots=True)
class RecordedBatches:
    """The records of a run by batch number, one for each batch, and the ranks that wrote them."""

    by_batch: dict[int, Record]
    ranks: frozenset[int]


class RunRecords:
    """The records of one run in one place; a context manager that saves all records of this process at its end.

    Args:
        output: The place of the output; a folder is created if it does not exist.
        key: The identity of the run.
        about: More fields for ``run.json``, such as the root of the data set.
        rank: Of this process; part of its files' names.
        shared: Whether independent ranks write there; in an object store they always may.
        save_every_s: In an object store, the longest time that a finished batch waits to be saved.

    Attributes:
        place: Of the output.
        key: As given.

    Raises:
        PredictionsError: the place holds the records of another run.
        StoreError: the object store cannot be read or written.
    """

    def __init__(
        self,
        output: str | Path | OutputPlace,
        key: RunKey,
        *,
        about: dict[str, Any] | None = None,
        rank: int = 0,
        shared: bool = False,
        save_every_s: float = 10.0,
    ) -> None:
        self.place, self.key = OutputPlace.of(output), key
        self._run = bytes.fromhex(key.digest)[:16]
        folder = self.place.folder
        shared = shared or folder is None
        self._description = RunDescription(self.place, key, about, writes=shared or rank == 0, shared=shared)
        self._files: RecordFiles | RecordObjects
        if folder is None:
            self._files = RecordObjects(self.place, rank=rank, save_every_s=save_every_s)
        else:
            self._files = RecordFiles(self.place, folder, rank=rank)
        self._others_append = shared and self._files.grows
        self._known = dict[str, tuple[Record, ...]]()  # of objects, which do not change

    def add_execution(self, execution: dict[str, Any]) -> None:
        """Note how the model is run from now on, unless it is known; of ranks that are not independent, rank 0 does."""
        self._description.add_execution(execution, has_records=lambda: bool(self._files.names()))

    def run(self) -> dict[str, Any] | None:
        """Return the content of ``run.json``; None if this node has none."""
        return self._description.read()

    def executions(self) -> list[dict[str, Any]]:
        """Return how the model was run at each distinct start; empty if this node has no ``run.json``."""
        return self._description.executions()

    def read(self) -> RecordedBatches:
        """Return the complete records that are saved; of two of one batch, that of the first file in name order.

        Raises:
            PredictionsError: a complete record belongs to another run, or two records of a batch have other classes.
            StoreError: the object store cannot be read.
        """
        by_batch, source_of, ranks = dict[int, Record](), dict[int, str](), set[int]()
        for name, records in self._records_by_name():
            named = _NAME.fullmatch(name)
            for record in records:
                first = by_batch.setdefault(record.batch, record)
                if first is not record:
                    self._check_same(first, record, source_of[record.batch], name)
                    continue
                source_of[record.batch] = name
                if named is not None:
                    ranks.add(int(named[1]))
        return RecordedBatches(by_batch, frozenset(ranks))

    def append(self, record: Record) -> None:
        """Save one record: in a folder at once, in an object store with others, within seconds.

        Raises:
            PredictionsError: the file cannot be written.
            StoreError: an object could not be written.
        """
        self._files.append(record.encode(self._run))

    def flush(self) -> None:
        """Return when all records of this process are saved.

        Raises:
            StoreError: an object could not be written.
        """
        self._files.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._files.close()

    def _records_by_name(self) -> list[tuple[str, tuple[Record, ...]]]:
        names = self._files.names()
        new = [name for name in names if name not in self._known]
        if self._files.grows:
            return [(name, self._read(name)) for name in new]
        with ThreadPoolExecutor(_MAX_REQUESTS, thread_name_prefix="records") as pool:
            self._known.update(zip(new, pool.map(self._read, new), strict=True))
        return [(name, self._known[name]) for name in names]

    def _read(self, name: str) -> tuple[Record, ...]:
        found = read_frames(self._files.read(name), self._run)
        where = f"{self.place}/records/{name}"
        if found.other_run:
            raise PredictionsError(f"{where}: holds records of another run. Choose another --output.")
        if found.torn_at is not None and not self._others_append:  # else another rank may be about to write the rest
            _LOG.warning("%s: the record at byte %d is torn; its batch is evaluated again", where, found.torn_at)
        return found.records

    def _check_same(self, first: Record, record: Record, first_name: str, name: str) -> None:
        difference = first.difference(record)
        if difference is not None:
            raise PredictionsError(
                f"{self.place}: batch {record.batch} was evaluated twice, with different predictions, in "
                f"records/{first_name} and records/{name}: {difference}. Remove the file whose device, or whose data, "
                "is not to be trusted: what else is in it is evaluated again."
            )
