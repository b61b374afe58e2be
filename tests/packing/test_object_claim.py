"""Claims in object stores: of writers that start together at most one goes on, and a dead one's claim ends."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from wds_real.errors import StoreError, UnavailableError
from wds_real.format.owner import Owner
from wds_real.packing import object_claim as module
from wds_real.packing.object_claim import object_claim
from wds_real.storage.local import LocalStore
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.s3 import S3Server

    from wds_real.storage.base import Store

NUMBERS = itertools.count()
NAME = re.compile(r"wds_real-claim-(\d+)-([0-9a-f]{16})-(\d+)\.json")


@pytest.fixture
def url() -> str:
    return f"memory://object-claims-{next(NUMBERS)}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All periods are 50 times shorter."""
    for name in ("_LEASE_S", "_RENEWED_S", "_WATCHED_S", "_POLL_S"):
        monkeypatch.setattr(module, name, getattr(module, name) / 50)


def elsewhere() -> Owner:
    """A process of another machine."""
    return replace(Owner.this_process("pack"), machine="another", host="node7")


def write_claim(root: Store, owner: Owner, *, started_s: float, ends_s: float) -> str:
    name = f"wds_real-claim-{int(started_s * 1000)}-{next(NUMBERS):016x}-{int(ends_s)}.json"
    root.put(name, owner.to_json())
    return name


def enter(root: Store) -> None:
    with object_claim(root, Owner.this_process("pack"), advice="Choose another place."):
        pass


def check_for_a_minute(claim: module.Claim) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        claim.check()
        time.sleep(0.05)


def test_a_claim_says_when_it_ends(url: str) -> None:
    """Its name holds the times; the message for others names them too."""
    root = open_store(url)
    with object_claim(root, Owner.this_process("pack"), advice=""):
        (name,) = root.list()
        match = NAME.fullmatch(name)
        assert match is not None
        assert 80 < int(match[3]) - time.time() <= 90
        with pytest.raises(StoreError, match=r"If it was killed, its claim ends at \d\d:\d\d:\d\d UTC"):
            enter(open_store(url))
        assert root.list() == [name]
    assert root.list() == []


def test_at_most_one_of_many_that_start_together_goes_on(url: str) -> None:
    """And one does: nobody is refused because of somebody who was refused."""
    barrier, all_refused = threading.Barrier(6), threading.Event()
    outcomes, inside, most = list[str](), [0], [0]
    lock = threading.Lock()

    def write() -> None:
        barrier.wait()
        try:
            with object_claim(open_store(url), Owner.this_process("pack"), advice=""):
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                all_refused.wait(60)
                with lock:
                    inside[0] -= 1
            outcomes.append("wrote")
        except StoreError as error:
            outcomes.append(str(error))
            if len(outcomes) == 5:
                all_refused.set()

    for _ in range(5):
        all_refused.clear()
        threads = [threading.Thread(target=write) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1]
        assert outcomes.count("wrote") == 1
        assert sum("is being written by" in outcome for outcome in outcomes) == 5
        assert open_store(url).list() == []
        outcomes.clear()


def test_the_claim_of_a_process_of_this_machine_ends_with_it(url: str) -> None:
    """Nobody waits for the end of its lease."""
    code = "from wds_real.format.owner import Owner\nprint(Owner.this_process('pack').to_json().decode())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    owner = Owner.from_json(done.stdout)
    assert owner is not None
    if not owner.machine:
        pytest.skip("this system does not say which processes run")
    root = open_store(url)
    write_claim(root, owner, started_s=time.time(), ends_s=time.time() + 80)
    started = time.monotonic()
    enter(root)
    assert time.monotonic() - started < 60
    assert root.list() == []


def test_the_claim_of_another_machine_lasts_until_it_ends(url: str) -> None:
    """Before that, others are refused at once."""
    root = open_store(url)
    name = write_claim(root, elsewhere(), started_s=time.time() - 60, ends_s=time.time() + 60)
    started = time.monotonic()
    with pytest.raises(StoreError, match="on node7"):
        enter(root)
    assert time.monotonic() - started < 50
    assert root.list() == [name]


@pytest.mark.usefixtures("quick")
def test_a_claim_that_ended_is_watched_and_then_removed(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log says why nothing happens for a while."""
    root = open_store(url)
    write_claim(root, elsewhere(), started_s=time.time() - 3600, ends_s=time.time() - 3500)
    started = time.monotonic()
    enter(root)
    assert time.monotonic() - started > module._WATCHED_S
    assert root.list() == []
    (line,) = caplog.messages
    assert "the claim of pack (process" in line
    assert "has ended" in line


@pytest.mark.usefixtures("quick")
def test_a_writer_whose_clock_is_behind_is_not_taken_over(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its claims seem to have ended, but it renews them while it is watched."""
    root, looked, now = open_store(url), threading.Semaphore(0), [1000.0]
    names = [write_claim(root, elsewhere(), started_s=1, ends_s=2)]
    others = module._ObjectClaim._others

    def noted(claim: module._ObjectClaim) -> list[module._Holder]:
        looked.release()
        return others(claim)

    def wait_for_looks(number: int) -> None:
        for _ in range(number):
            assert looked.acquire(timeout=60)

    monkeypatch.setattr(module._ObjectClaim, "_others", noted)
    monkeypatch.setattr(module, "_clock", lambda: now[0])
    other = threading.Thread(target=enter, args=(open_store(url),), daemon=True)
    other.start()
    for number in range(10):
        word = NAME.fullmatch(names[-1])
        assert word is not None
        names.append(f"wds_real-claim-1-{word[2]}-{number + 3}.json")
        root.put(names[-1], elsewhere().to_json())
        root.delete(names[-2])
        while looked.acquire(blocking=False):
            pass
        wait_for_looks(2)  # the other one has seen the claim, and goes on to watch it
        now[0] += module._RENEWED_S
    assert other.is_alive()
    assert root.list()[0] == names[-1]
    now[0] += 2 * module._WATCHED_S
    other.join(60)
    assert not other.is_alive()
    assert root.list() == []


@pytest.mark.usefixtures("quick")
def test_a_claim_is_renewed_while_it_is_held(url: str) -> None:
    """Long work is not taken over, and there is one object at a time but for moments."""
    root = open_store(url)
    with object_claim(root, elsewhere(), advice="") as claim:
        first = root.list()
        deadline = time.monotonic() + 60
        while set(root.list()) & set(first):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(StoreError, match="is being written by"):
            enter(open_store(url))
        claim.check()
    assert root.list() == []


@pytest.mark.usefixtures("quick")
def test_a_writer_that_was_taken_over_finds_out(url: str) -> None:
    """A process that stood still must not go on."""
    root = open_store(url)
    with object_claim(root, elsewhere(), advice="") as claim:
        for name in root.list():
            root.delete(name)  # as another writer does
        with pytest.raises(StoreError, match="took over"):
            check_for_a_minute(claim)


def test_a_web_server_is_refused_without_a_request() -> None:
    """There is nothing at that port."""
    with (
        pytest.raises(UnavailableError, match=r"can only be read. Pass --output"),
        object_claim(open_store("http://127.0.0.1:9/set"), elsewhere(), advice="Pass --output."),
    ):
        pass


def test_other_objects_are_no_claims(url: str) -> None:
    """Names that only look like one are left alone."""
    root = open_store(url)
    names = ["wds_real-claim-.json", "wds_real-claim-1-x-2.json", "manifest.json", "wds_real-claim-1.json"]
    for name in names:
        root.put(name, b"x")
    enter(root)
    assert root.list() == sorted(names)


def test_a_claim_that_cannot_be_read_is_still_one(url: str) -> None:
    """Somebody writes there, whoever it is."""
    root = open_store(url)
    root.put(f"wds_real-claim-1-{0:016x}-{int(time.time()) + 60}.json", b"x" * 100_000)
    with pytest.raises(StoreError, match="is being written by another process"):
        enter(root)


class NoDelete(LocalStore):
    """A folder that nothing is removed from, as some buckets are."""

    def delete(self, name: str) -> None:
        raise UnavailableError(f"{self.root / name}: access denied.")


def test_a_claim_that_cannot_be_removed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The work is done by then: it is a warning, which names the object."""
    enter(NoDelete(tmp_path))
    (path,) = tmp_path.iterdir()
    (line,) = caplog.messages
    assert line.startswith(f"{path.name} stays there")
    enter(NoDelete(tmp_path))


def test_a_real_server_holds_claims(s3: S3Server) -> None:
    """Without conditional writes; the refused one leaves no object."""
    url = f"s3://test/object-claim-{next(NUMBERS)}"
    root = open_store(url, storage_options=s3.options)
    with object_claim(root, Owner.this_process("pack"), advice=""):
        with pytest.raises(StoreError, match="is being written by pack"):
            enter(open_store(url, storage_options=s3.options))
        assert len(root.list()) == 1
    assert root.list() == []


def test_a_claim_may_be_released_while_it_is_looked_at(s3: S3Server) -> None:
    """Its content then changes between two reads: it has ended, which is no error."""
    url = f"s3://test/object-claim-{next(NUMBERS)}"
    root, other = (open_store(url, storage_options=s3.options) for _ in range(2))
    name = write_claim(other, elsewhere(), started_s=time.time(), ends_s=time.time() + 80)
    claim = module._ObjectClaim(root, Owner.this_process("pack"), "")
    assert [holder.name for holder in claim._others()] == [name]
    other.put(name, module._RELEASED)
    assert claim._others() == []
    assert root.list() == []


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """No claim is renewed after its end."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "claim"]
