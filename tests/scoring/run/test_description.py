"""run.json in a place that many write to: made once, by whoever comes first, and never changed."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from wds_real.errors import PredictionsError, StoreError, UnavailableError
from wds_real.scoring.run.description import RUN_NAME, RunKey, read_run, world_size_of
from wds_real.scoring.run.place import OutputPlace
from wds_real.scoring.run.records import RunRecords
from wds_real.storage.remote import RemoteStore
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from support.s3 import S3Server

NUMBERS = itertools.count()
KEY = RunKey({"dataset": "d" * 64, "split": "validation", "model": {"name": "m"}, "batch_size": 2})
OTHER = RunKey({**KEY.identity, "batch_size": 3})


@pytest.fixture(params=["memory", "folder"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for independent ranks."""
    return f"memory://description-{next(NUMBERS)}" if request.param == "memory" else str(tmp_path / "run")


def join(place: str, key: RunKey = KEY, **others: Any) -> RunRecords:
    return RunRecords(place, key, shared=True, **others)


def test_any_rank_makes_it_and_none_changes_it(shared: str) -> None:
    """The facts of the first start stay; later starts with others are the same run."""
    join(shared, rank=5, about={"root": "/a"})
    store = OutputPlace(shared).store
    first = store.get(RUN_NAME)
    for rank, root in ((0, "/b"), (5, "/a"), (1, "s3://c")):
        join(shared, rank=rank, about={"root": root})
    assert store.get(RUN_NAME) == first
    assert store.list() == [RUN_NAME]
    assert (read_run(shared)["root"], read_run(shared)["digest"]) == ("/a", KEY.digest)


def test_of_two_runs_that_start_at_once_one_is_refused(shared: str) -> None:
    """Many times over: one of the two always goes on, and the other one is told what differs."""
    with ThreadPoolExecutor(2) as pool:
        for number in range(30):
            place = str(OutputPlace(shared).inside(str(number)))
            outcomes = [pool.submit(join, place, key) for key in (KEY, OTHER)]
            errors = [error for each in outcomes if (error := each.exception(20)) is not None]
            assert [type(error) for error in errors] == [PredictionsError]
            assert "holds the records of another run: batch_size was" in str(errors[0])
            assert read_run(place)["identity"] in (KEY.identity, OTHER.identity)


def test_many_equal_ranks_may_start_at_once(shared: str) -> None:
    """None is refused, and all note their execution."""
    executions = [{"device": f"d{number % 3}"} for number in range(12)]

    def start(rank: int) -> None:
        join(shared, rank=rank).add_execution(executions[rank])

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(start, range(12)))
    found = join(shared).executions()
    assert sorted(each["device"] for each in found) == ["d0", "d1", "d2"]
    assert len(OutputPlace(shared).store.list()) == 4


def test_an_execution_file_that_was_edited_is_refused(shared: str) -> None:
    """Its name holds the digest of what is in it."""
    join(shared).add_execution({"device": "cpu"})
    store = OutputPlace(shared).store
    (name,) = (name for name in store.list() if name != RUN_NAME)
    content = json.loads(store.get(name))
    edits: list[Any] = [
        {**content, "execution": {"device": "cuda"}},
        {**content, "format": 1},
        {"format": content["format"]},
        [],
    ]
    for damaged in edits:
        store.put(name, json.dumps(damaged).encode())
        with pytest.raises(PredictionsError, match=rf"{name}: cannot be read: "):
            join(shared).executions()


def test_a_folder_with_one_writer_goes_on_with_independent_ranks(tmp_path: Path) -> None:
    """What run.json lists comes first; the number of ranks is then what it says."""
    RunRecords(tmp_path, KEY, about={"world_size": 4}).add_execution({"device": "cpu"})
    join(str(tmp_path), rank=2).add_execution({"device": "cuda"})
    join(str(tmp_path), rank=3).add_execution({"device": "cpu"})
    assert join(str(tmp_path)).executions() == [{"device": "cpu"}, {"device": "cuda"}]
    assert world_size_of(read_run(tmp_path), [1, 2]) == 4


def test_the_ranks_of_a_shared_place_are_those_with_records(shared: str) -> None:
    """Nobody knows how many there are."""
    join(shared, about={"root": "/a"})
    assert world_size_of(read_run(shared), [1, 2, 7]) == 3


class Unconditional(RemoteStore):
    """A server that takes no notice of If-None-Match."""

    def put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        del exclusive
        super().put(name, data)


class Refusing(RemoteStore):
    """A server that knows no If-None-Match and says so."""

    def put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        if exclusive:
            self._put_if_missing(name, data)
        else:
            super().put(name, data)


@pytest.mark.parametrize("kind", [Unconditional, Refusing])
def test_a_store_without_conditional_writes_is_said(kind: type[RemoteStore], caplog: pytest.LogCaptureFixture) -> None:
    """One line, by the start that made run.json; the run goes on, and another one is refused all the same."""
    place = OutputPlace(f"memory://description-{next(NUMBERS)}")
    location = place.store._location  # type: ignore[attr-defined]
    place.store = kind(location, {})
    RunRecords(place, KEY)
    (line,) = caplog.messages
    assert line.startswith(f"{place}: this store cannot refuse to write what is there already (no conditional writes).")
    RunRecords(place, KEY)
    assert len(caplog.messages) == 1
    with pytest.raises(PredictionsError, match="batch_size was 2, is 3"):
        RunRecords(place, OTHER)


def test_a_real_server_has_conditional_writes(s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said, and the second of two different runs is refused."""
    place = OutputPlace(f"s3://test/description-{next(NUMBERS)}", s3.options)
    RunRecords(place, KEY)
    assert caplog.messages == []
    with pytest.raises(PredictionsError, match="batch_size was 2, is 3"):
        RunRecords(place, OTHER)
    assert open_store(str(place), storage_options=s3.options).list() == [RUN_NAME]


def test_a_denied_start_is_one_of_our_errors(s3: S3Server) -> None:
    """A bucket that can only be read is named, with what to do."""
    place = OutputPlace(
        "s3://public/denied", {"endpoint": s3.endpoint, "region": "us-east-1", "skip_signature": "true"}
    )
    with pytest.raises(UnavailableError, match=r"s3://public/denied/run\.json: "):
        RunRecords(place, KEY)


def test_a_missing_bucket_is_one_of_our_errors(s3: S3Server) -> None:
    """It is named."""
    options = {**s3.options, "give_up_after": "3"}
    with pytest.raises(StoreError, match="s3://no-such-bucket"):
        read_run(OutputPlace("s3://no-such-bucket/run", options))
