"""Stores that refuse, fail or vanish while a run writes its records there: one line, and what was saved is kept."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commands import MODEL, Ended, expect_one_line, messages
from support.s3_gate import s3_gate
from support.trials import trial_environment

from wds_real.data.dataset import open_dataset
from wds_real.data.launchers import World
from wds_real.errors import WdsRealError
from wds_real.evaluation.loop import evaluate
from wds_real.evaluation.models.load import load_model
from wds_real.evaluation.options import EvalOptions
from wds_real.evaluation.shares import run_share
from wds_real.scoring.run import record_files
from wds_real.scoring.run.description import RunKey, read_run
from wds_real.scoring.run.place import OutputPlace
from wds_real.scoring.run.record_objects import RecordObjects
from wds_real.scoring.run.records import RunRecords
from wds_real.storage.files import write_all
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.s3 import S3Server
    from support.s3_gate import Gate
    from support.wire import Request

    from wds_real.scoring.result import Result

pytestmark = pytest.mark.usefixtures("here")
NUMBERS = itertools.count()
EVAL = ("eval", "shards", "-m", MODEL, "-b", "20")  # 6 batches
ROW_BYTES = 34
HELD_AT = 4  # the batch that the slow model does not end, in tests of signals
AT_ONCE = ("--save-every", "0")  # each of the 6 batches in an object of its own


def options(s3: S3Server, gate: Gate | None = None, **more: str) -> list[str]:
    found = s3.options | ({} if gate is None else {"endpoint": gate.endpoint}) | more
    return [word for name, value in found.items() for word in ("--output-option", f"{name}={value}")]


def num_saved(url: str, s3: S3Server) -> int:
    """Return how many batches are recorded, also of ranks that were denied something."""
    place = OutputPlace(url, s3.options)
    if "run.json" not in place.store.list():
        return 0
    return len(RunRecords(place, RunKey(read_run(place)["identity"])).read().by_batch)


def is_record(request: Request) -> bool:
    return request.method == "PUT" and "/records/" in request.path


@pytest.fixture(autouse=True)
def _each_batch_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `AT_ONCE` a batch is saved before the next one; else a thread that is late would gather some."""
    append = RecordObjects.append

    def append_and_wait(objects: RecordObjects, frame: bytes) -> None:
        append(objects, frame)
        if objects._save_every_s == 0:
            objects.flush()

    monkeypatch.setattr(RecordObjects, "append", append_and_wait)


@pytest.fixture
def url() -> str:
    return f"s3://test/faults-{next(NUMBERS)}"


@pytest.fixture
def undisturbed(run: Callable[..., Ended]) -> bytes:
    """The predictions of a run that nothing happened to."""
    assert run(*EVAL, "-q", "-o", "undisturbed").code == 0
    return Path("undisturbed/predictions.csv").read_bytes()


@pytest.fixture
def finishes(
    run: Callable[..., Ended], s3: S3Server, undisturbed: bytes, caplog: pytest.LogCaptureFixture
) -> Callable[[str], None]:
    """Return a function that runs the command again, and checks how many batches it finds done, and its predictions."""

    def check(url: str) -> None:
        num_done = num_saved(url, s3)
        caplog.clear()
        ended = run(*EVAL, "-o", url, *options(s3))
        assert ended.code == 0, ended.err
        assert [line for line in caplog.messages if "resuming" in line] == (
            [f"resuming: {num_done} of 6 batches are recorded in {url}"] if num_done else []
        )
        assert open_store(url, storage_options=s3.options).get("predictions.csv") == undisturbed

    return check


class After:
    """Refuses requests of one kind, from one of them on."""

    def __init__(self, number: int, which: Callable[[Request], bool], *refusal: int | str) -> None:
        self._left, self.which, self._refusal = number, which, refusal

    def __call__(self, request: Request) -> tuple[int, str] | None:
        if not self.which(request):
            return None
        self._left -= 1
        return None if self._left >= 0 else self._refusal  # type: ignore[return-value]


def test_a_store_that_ignores_conditions_is_said(
    run: Callable[..., Ended], s3: S3Server, url: str, finishes: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """It writes what is there already: the run goes on, with a warning; a run that differs is refused."""
    with s3_gate(s3, hide=["if-none-match"]) as gate:
        ended = run(*EVAL, "-q", "-o", url, *options(s3, gate))
        assert ended.code == 0, ended.err
        (said,) = [line for line in caplog.messages if "conditional" in line]
        assert said.startswith(f"{url}: this store cannot refuse to write what is there already")
        other = run("eval", "shards", "-m", MODEL, "-b", "21", "-q", "-o", url, *options(s3, gate))
        expect_one_line(other, 1, f"{url}: holds the records of another run: batch_size was 20, is 21")
    assert num_saved(url, s3) == 6
    finishes(url)


def test_a_store_without_conditions_is_said(
    run: Callable[..., Ended], s3: S3Server, url: str, finishes: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """It answers 501 to them: the records are written all the same."""

    def refuse(request: Request) -> tuple[int, str] | None:
        return (501, "NotImplemented") if "if-none-match" in request.headers else None

    with s3_gate(s3, refuse=refuse) as gate:
        ended = run(*EVAL, "-q", *AT_ONCE, "-o", url, *options(s3, gate))
        assert ended.code == 0, ended.err
        assert len([line for line in caplog.messages if "no conditional writes" in line]) == 1
        other = run("eval", "shards", "-m", MODEL, "-b", "21", "-q", "-o", url, *options(s3, gate))
        expect_one_line(other, 1, "batch_size was 20, is 21")
    assert num_saved(url, s3) == 6
    finishes(url)


def test_writing_is_denied_from_the_start(run: Callable[..., Ended], s3: S3Server, url: str) -> None:
    """No batch is done."""
    with s3_gate(s3, refuse=After(0, lambda request: request.method == "PUT", 403, "AccessDenied")) as gate:
        ended = run(*EVAL, "-q", "-o", url, *options(s3, gate))
    expect_one_line(ended, 1, f"{url}/run.json: write: access denied. Check", "(403 AccessDenied)")
    assert open_store(url, storage_options=s3.options).list() == []


@pytest.mark.parametrize("rank", [(), ("--rank", "0", "--world-size", "2", "--steal")])
def test_writing_is_denied_in_the_middle(
    run: Callable[..., Ended], s3: S3Server, url: str, finishes: Callable[..., None], rank: tuple[str, ...]
) -> None:
    """The records of before are there; the message says that others are lost."""
    with s3_gate(s3, refuse=After(2, is_record, 403, "AccessDenied")) as gate:
        ended = run(*EVAL, "-q", *AT_ONCE, *rank, "-o", url, *options(s3, gate))
    ended = ended._replace(err=ended.err.removeprefix("rank 0: "))
    expect_one_line(ended, 1, "/records/00000-", "access denied", "not saved: the same command evaluates ")
    assert "result.json" not in open_store(url, storage_options=s3.options).list()
    saved = run("merge", url, *options(s3))
    expect_one_line(saved, 3, "run the same `wds-real eval` again; it does only the missing batches")
    finishes(url)


def test_the_bucket_is_gone_in_the_middle(
    run: Callable[..., Ended], s3: S3Server, url: str, finishes: Callable[..., None]
) -> None:
    """All that was saved is gone with it; made again, the same command finishes."""
    after = After(2, is_record, 404, "NoSuchBucket")
    with s3_gate(s3, refuse=after) as gate:
        ended = run(*EVAL, "-q", *AT_ONCE, "-o", url, *options(s3, gate))
        expect_one_line(ended, 1, f"{url}/records/", "there is no such bucket", "not saved")
        for place in (url, f"{url}/records"):
            store = open_store(place, storage_options=s3.options)
            for name in store.list():
                store.delete(name)
        after.which = lambda _: True
        again = run(*EVAL, "-q", "-o", url, *options(s3, gate))
        expect_one_line(again, 1, f"--output {url}: list: there is no such bucket")
    finishes(url)


def test_a_bucket_that_the_store_makes_again(run: Callable[..., Ended], s3: S3Server, undisturbed: bytes) -> None:
    """SeaweedFS does: the result is right, and what was saved before is done again by the next start."""
    bucket = f"gone-{next(NUMBERS)}"
    assert s3.request("PUT", f"/{bucket}")[0] == 200
    seen = itertools.count()

    def refuse(request: Request) -> None:
        if is_record(request) and next(seen) == 2:
            assert s3.request("DELETE", f"/{bucket}")[0] == 204

    url = f"s3://{bucket}/run"
    with s3_gate(s3, refuse=refuse) as gate:
        assert run(*EVAL, "-q", *AT_ONCE, "-o", url, *options(s3, gate)).code == 0
    store = open_store(url, storage_options=s3.options)
    assert store.get("predictions.csv") == undisturbed
    assert num_saved(url, s3) == 0
    assert run(*EVAL, "-q", "-o", url, *options(s3)).code == 0
    assert store.get("predictions.csv") == undisturbed
    assert num_saved(url, s3) == 6


@pytest.mark.parametrize("number", [0, 1])
def test_a_clock_that_is_off_is_said(
    run: Callable[..., Ended], s3: S3Server, url: str, finishes: Callable[..., None], number: int
) -> None:
    """At the start, and where it is set in the middle."""
    which = is_record if number else lambda _: True
    with s3_gate(s3, refuse=After(number, which, 403, "RequestTimeTooSkewed")) as gate:
        ended = run(*EVAL, "-q", *AT_ONCE, "-o", url, *options(s3, gate))
    expect_one_line(ended, 1, url, "this machine's clock is wrong. ", "(403 RequestTimeTooSkewed)")
    finishes(url)


def test_a_store_that_is_busy_for_too_long(
    run: Callable[..., Ended], s3: S3Server, url: str, finishes: Callable[..., None]
) -> None:
    """The run gives up on it as --output-option says, and its last batches are lost."""
    with s3_gate(s3, refuse=After(1, is_record, 503, "SlowDown")) as gate:
        ended = run(*EVAL, "-q", *AT_ONCE, "-o", url, *options(s3, gate, give_up_after="5"))
        tried = sum(request.status == 503 for request in gate.counted)
    expect_one_line(ended, 1, f"{url}/records/", "the server responded with status 503; gave up after", "not saved")
    assert tried > 1
    finishes(url)


def test_a_store_that_is_busy_for_a_while(
    run: Callable[..., Ended], s3: S3Server, url: str, finishes: Callable[..., None]
) -> None:
    """The run waits for it; nothing is lost."""
    seen = itertools.count()

    def refuse(request: Request) -> tuple[int, str] | None:
        return (503, "SlowDown") if is_record(request) and 1 <= next(seen) < 4 else None

    with s3_gate(s3, refuse=refuse) as gate:
        assert run(*EVAL, "-q", *AT_ONCE, "-o", url, *options(s3, gate)).code == 0
    assert num_saved(url, s3) == 6
    finishes(url)


def test_different_runs_that_start_at_once_in_one_place(s3: S3Server) -> None:
    """One goes on, and the other is refused before it has done a batch."""
    dataset, loaded = open_dataset("shards"), load_model(MODEL)
    for _ in range(5):
        url, barrier = f"s3://test/faults-{next(NUMBERS)}", threading.Barrier(2)

        def start(size: int, url: str = url, barrier: threading.Barrier = barrier) -> Result | WdsRealError:
            barrier.wait()
            try:
                return evaluate(loaded, dataset, output=OutputPlace(url, s3.options), batch_size=size, progress=False)
            except WdsRealError as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(start, [60, 61]))
        (refused,) = [each for each in ended if isinstance(each, WdsRealError)]
        assert str(refused).startswith(f"{url}: holds the records of another run: batch_size was 6")
        (result,) = [each for each in ended if not isinstance(each, WdsRealError)]
        assert result.coverage.seen_once == 120
        records = open_store(f"{url}/records", storage_options=s3.options)
        assert sum(len(records.get(name)) for name in records.list()) < 2 * 120 * ROW_BYTES


@pytest.mark.parametrize("independent", [False, True])
def test_equal_runs_that_start_at_once_in_one_place(s3: S3Server, undisturbed: bytes, independent: bool) -> None:
    """Both end with the result; each may do each batch."""
    dataset, loaded = open_dataset("shards"), load_model(MODEL)
    url, barrier = f"s3://test/faults-{next(NUMBERS)}", threading.Barrier(2)
    options = EvalOptions(batch_size=20, save_every_s=0.0)

    def start(_: int) -> Result | None:
        barrier.wait()
        place = OutputPlace(url, s3.options)
        if not independent:
            return evaluate(loaded, dataset, output=place, options=options, progress=False)
        return run_share(loaded, dataset, place, World(0, 1), steal=True, options=options).result

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(start, range(2)))
    assert [result.coverage.seen_once for result in ended if result is not None] == [120, 120]
    assert open_store(url, storage_options=s3.options).get("predictions.csv") == undisturbed
    assert num_saved(url, s3) == 6


def test_half_of_an_array_that_never_starts(
    run: Callable[..., Ended], s3: S3Server, url: str, undisturbed: bytes
) -> None:
    """Each that ran says who is missing; merge counts the images and exits with 3; a start of another size finishes."""
    for rank in range(3):
        ended = run(*EVAL, "-q", "--rank", str(rank), "--world-size", "6", "-o", url, *options(s3))
        assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "rank 2 of 6 did 1 batch; 3 of 6 are not recorded yet, of ranks 3, 4, 5: the last rank to end makes the "
        "result.\n"
    )
    merged = run("merge", url, *options(s3))
    expect_one_line(merged, 3, f"{url}: saw 60 of 120 samples (60 missing, 0 doubled)", "only the missing batches")
    assert "result.json" not in open_store(url, storage_options=s3.options).list()
    ended = run(*EVAL, "-q", "--rank", "1", "--world-size", "2", "-o", url, *options(s3))
    assert ended.code == 0
    assert open_store(url, storage_options=s3.options).get("predictions.csv") == undisturbed


def terminate(running: subprocess.Popen[str], log: Path) -> list[str]:
    """End a command by SIGTERM while it does the fourth batch; return its messages."""
    deadline = time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < HELD_AT:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    err = running.communicate(timeout=120)[1]
    assert running.returncode == 143
    return messages(err)


def slowly(url: str, options: list[str], **more: str) -> subprocess.Popen[str]:
    """Start the slow model with 12 batches, which are saved at the end; `more` are variables of the environment."""
    command = [sys.executable, "-m", "wds_real", "eval", "shards", "-m", "slow_model:slow_model", "-b", "10", "-q",
               "--save-every", "1000", "-o", url, *options]  # fmt: skip
    environment = trial_environment(SLOW_MODEL_LOG="log", SLOW_MODEL_SECONDS="0", **more)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_termination_saves_what_is_done(s3: S3Server, url: str) -> None:
    """However long a batch may wait: all that were done are there, and none of them is done again."""
    log = Path("log")
    with slowly(url, options(s3), SLOW_MODEL_HOLDS_AT=str(HELD_AT)) as running:
        assert terminate(running, log) == [
            f"the saved batches are in {url}; run the same command to resume", "terminated",
        ]  # fmt: skip
    begun, saved = len(log.read_text().splitlines()), num_saved(url, s3)
    assert 3 <= saved < 12
    assert begun - 1 <= saved <= begun
    with slowly(url, options(s3)) as again:
        again.communicate(timeout=120)
    assert again.returncode == 0
    assert len(log.read_text().splitlines()) == begun + 12 - saved


def test_a_termination_says_what_it_cannot_save(s3: S3Server, url: str) -> None:
    """The store denies the write: the number of lost batches is told."""
    denied = s3_gate(s3, refuse=After(0, is_record, 403, "AccessDenied"))
    with denied as gate, slowly(url, options(s3, gate), SLOW_MODEL_HOLDS_AT=str(HELD_AT)) as running:
        lost, kept, word = terminate(running, Path("log"))
    assert lost.startswith(f"error: {url}/records/00000-")
    assert "access denied" in lost
    assert " batches are not saved: the same command evaluates them again." in lost
    assert (kept, word) == (
        f"the saved batches are in {url}; run the same command to resume", "terminated",
    )  # fmt: skip


def test_a_full_disk_under_independent_ranks(
    run: Callable[..., Ended], undisturbed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rank ends with the system's reason; the others' records are whole, and the same command finishes."""
    ranks = [(*EVAL, "-q", "-o", "run", "--rank", str(rank), "--world-size", "2") for rank in range(2)]
    frames = itertools.count()

    def write(descriptor: int, data: bytes, at: int) -> None:
        if next(frames) == 1:
            write_all(descriptor, data[: len(data) // 2], at)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(descriptor, data, at)

    with monkeypatch.context() as patched:
        patched.setattr(record_files, "write_all", write)
        ended = run(*ranks[0])
    ended = ended._replace(err=ended.err.removeprefix("rank 0: "))
    expect_one_line(ended, 1, "run/records/00000-000.bin: records cannot be read or written: No space left on device")
    ended = run(*ranks[1])
    assert ended.code == 0
    assert ended.out.startswith("rank 1 of 2 did 3 batches; 2 of 6 are not recorded yet, of rank 0: ")
    expect_one_line(run("merge", "run"), 3, "run: saw 80 of 120 samples (40 missing, 0 doubled)")
    assert run(*ranks[0]).code == 0
    assert Path("run/predictions.csv").read_bytes() == undisturbed
