"""Records in an object store: gathered into few objects, written once, and lost by no clean end."""

from __future__ import annotations

import itertools
import re
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wds_real.errors import StoreError, UnavailableError
from wds_real.scoring.run import record_objects as module
from wds_real.scoring.run.description import RunKey
from wds_real.scoring.run.frame import Record
from wds_real.scoring.run.place import OutputPlace
from wds_real.scoring.run.record_objects import RecordObjects
from wds_real.scoring.run.records import RunRecords
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wds_real.storage.base import Store

NUMBERS = itertools.count()
KEY = RunKey({"dataset": "d" * 64, "split": "validation", "model": {"name": "m"}, "batch_size": 2})
LONG = 1000.0


def record(batch: int, rows: int = 2) -> Record:
    classes = np.random.default_rng(batch).integers(0, 1000, (rows, 5))
    return Record(batch, np.arange(batch * rows, (batch + 1) * rows), classes, np.full((rows, 5), 0.5, np.float32))


@pytest.fixture
def url() -> str:
    return f"memory://record-objects-{next(NUMBERS)}"


def objects(url: str) -> list[str]:
    return open_store(f"{url}/records").list()


def batches_in(url: str) -> set[int]:
    return set(RunRecords(url, KEY).read().by_batch)


class Counted:
    """A store that counts requests, and fails on demand."""

    def __init__(self, store: Store) -> None:
        self._store, self.requests = store, list[str]()
        self.error: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()

    def put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        self.requests.append(f"put {len(data)} {exclusive}")
        self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self._store.put(name, data, exclusive=exclusive)

    def list(self) -> list[str]:
        self.requests.append("list")
        return self._store.list()

    def get(self, name: str, *, fresh: bool = False) -> bytes:
        self.requests.append("get")
        return self._store.get(name, fresh=fresh)


@pytest.fixture
def counted(url: str) -> tuple[RecordObjects, Counted]:
    """Record objects of rank 3 that are written only when they are asked to be, on a counted store."""
    found = RecordObjects(OutputPlace(url), rank=3, save_every_s=LONG)
    store = Counted(found._store)
    found._store = store  # type: ignore[assignment]
    return found, store


def wait_until(is_so: object, *, seconds: float = 60.0) -> None:
    assert callable(is_so)
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_batches_of_some_seconds_make_one_object(url: str) -> None:
    """Nothing is written before the time is over; the name holds the rank, a random word and a number."""
    with RunRecords(url, KEY, rank=3, save_every_s=LONG) as records:
        for batch in range(50):
            records.append(record(batch))
        assert objects(url) == []
    (name,) = objects(url)
    assert re.fullmatch(r"00003-[0-9a-f]{8}-000000\.bin", name)
    assert batches_in(url) == set(range(50))


def test_an_old_batch_is_written_while_others_come(url: str) -> None:
    """Its age decides, not that of the newest one."""
    with RunRecords(url, KEY, save_every_s=0.2) as records:
        numbers = itertools.count()

        def is_written() -> bool:
            records.append(record(next(numbers)))
            return bool(objects(url))

        wait_until(is_written)
        assert 0 in batches_in(url)
    assert batches_in(url) == set(range(next(numbers)))


def test_many_bytes_are_written_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the time is: memory is bounded."""
    monkeypatch.setattr(module, "_MAX_BYTES", 3 * len(record(0).encode(b"0" * 16)))
    with RunRecords(url, KEY, save_every_s=LONG) as records:
        for batch in range(3):
            records.append(record(batch))
        wait_until(lambda: objects(url))
        assert batches_in(url) == {0, 1, 2}
        records.append(record(3))
    assert len(objects(url)) == 2
    assert batches_in(url) == {0, 1, 2, 3}


def test_flush_returns_when_all_is_there(url: str) -> None:
    """Also if the thread is writing at that moment; what is flushed is not written again."""
    with RunRecords(url, KEY, save_every_s=LONG) as records:
        for batch in range(3):
            records.append(record(batch))
            records.flush()
            assert batches_in(url) == set(range(batch + 1))
        records.flush()
    assert len(objects(url)) == 3


def test_two_starts_of_one_rank_never_write_the_same_object(url: str) -> None:
    """Their words differ, and each object is written only if there is none of its name."""
    for _ in range(20):
        with RunRecords(url, KEY, rank=1) as records:
            records.append(record(7))
    assert len(objects(url)) == 20
    assert batches_in(url) == {7}
    assert RunRecords(url, KEY).read().ranks == {1}


def test_the_evaluation_makes_no_request(counted: tuple[RecordObjects, Counted]) -> None:
    """Appending neither lists nor writes; one object is one exclusive put."""
    files, store = counted
    for batch in range(100):
        files.append(record(batch).encode(b"0" * 16))
    assert store.requests == []
    files.close()
    assert [request.split()[0::2] for request in store.requests] == [["put", "True"]]


def test_appending_does_not_wait_for_a_slow_store(counted: tuple[RecordObjects, Counted]) -> None:
    """The thread waits; what comes meanwhile makes the next object."""
    files, store = counted
    files._save_every_s = 0.0
    store.gate.clear()
    files.append(b"first")
    wait_until(lambda: store.requests)
    for number in range(20):
        files.append(f"{number}".encode())
    assert store.requests == ["put 5 True"]
    store.gate.set()
    files.close()
    assert [files.read(name) for name in files.names()] == [b"first", b"".join(b"%d" % n for n in range(20))]


@pytest.mark.parametrize("how", ["append", "flush", "close"])
def test_a_store_that_fails_is_said_once(counted: tuple[RecordObjects, Counted], how: str) -> None:
    """The next call raises it, with how many batches are not saved; what was saved before is there."""
    files, store = counted
    files.append(b"saved")
    files.flush()
    store.error = UnavailableError("s3://lab/run: write: access denied.")
    files._save_every_s = 0.0 if how == "append" else LONG
    for number in range(3):
        if how == "append" and number:
            wait_until(lambda: files._error)
            break
        files.append(b"x")
    with pytest.raises(
        UnavailableError, match=r"access denied\. Of this process, the last .* not saved: the same command"
    ):
        files.append(b"y") if how == "append" else files.flush() if how == "flush" else files.close()
    store.error = None
    files.close()
    assert [files.read(name) for name in files.names()] == [b"saved"]


def test_the_number_of_unsaved_batches_is_right(counted: tuple[RecordObjects, Counted]) -> None:
    """One is "the last batch"; more are counted."""
    files, store = counted
    store.error = StoreError("down.")
    files.append(b"x")
    with pytest.raises(StoreError, match="the last batch is not saved"):
        files.flush()
    files.append(b"x")
    files.append(b"x")
    with pytest.raises(StoreError, match="the last 2 batches are not saved"):
        files.flush()
    files.close()


def test_an_error_of_the_evaluation_saves_what_is_done(url: str) -> None:
    """So does a signal, which is an exception too."""

    def stopped() -> None:
        with RunRecords(url, KEY, save_every_s=LONG) as records:
            records.append(record(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert batches_in(url) == {1}


@pytest.mark.parametrize("arrives", [False, True])
def test_a_signal_during_a_write_loses_nothing(counted: tuple[RecordObjects, Counted], arrives: bool) -> None:
    """Whether the object that was being written is there or not, its batches are written at the end."""
    files, store = counted
    files.append(b"first")
    files.append(b"second")
    store.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        files.flush()
    if arrives:
        store._store.put(f"{files._prefix}-000000.bin", b"firstsecond")
    store.error = None
    files.append(b"third")
    files.close()
    assert files.read(files.names()[-1]) == b"firstsecondthird"
    assert len(files.names()) == 1 + arrives


def test_objects_are_read_once(url: str) -> None:
    """A second look lists them, and gets only the new ones."""
    for batch in range(3):
        with RunRecords(url, KEY) as records:
            records.append(record(batch))
    reader = RunRecords(url, KEY)
    store = Counted(open_store(f"{url}/records"))
    reader._files._store = store  # type: ignore[union-attr]
    assert set(reader.read().by_batch) == {0, 1, 2}
    assert sorted(store.requests) == ["get", "get", "get", "list"]
    with RunRecords(url, KEY) as records:
        records.append(record(5))
    store.requests.clear()
    assert set(reader.read().by_batch) == {0, 1, 2, 5}
    assert store.requests == ["list", "get"]


def test_a_damaged_object_loses_its_batches_only(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, with the object's name."""
    for batch in range(2):
        with RunRecords(url, KEY) as records:
            records.append(record(batch))
    store = open_store(f"{url}/records")
    name = store.list()[0]
    damaged = bytearray(store.get(name))
    damaged[40] ^= 1
    store.put(name, bytes(damaged))
    assert len(batches_in(url)) == 1
    assert [message for message in caplog.messages if f"{url}/records/{name}: the record at byte 0" in message]


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """The thread ends with the records."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "records"]
