"""The progress of all ranks, on rank 0: exact sums, a bar by default, and nothing on other ranks."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest
from torch import distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]  # torch's stubs lack it

from wds_real.data.distributed import SharedCount
from wds_real.data.launchers import World
from wds_real.evaluation.progress import ranks
from wds_real.evaluation.progress.ranks import reported

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of this process, whose store stands for that of two ranks."""
    monkeypatch.setattr(ranks, "_INTERVAL_S", 0.01)
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_one_process_reports_each_batch() -> None:
    """Alone, the function is called for each batch, in this thread."""
    calls: list[tuple[int, int]] = []
    with reported(lambda done, total: calls.append((done, total)), 7, own=7, world=World()) as add:
        add(5)
        add(2)
    assert calls == [(5, 7), (2, 7)]


@pytest.mark.usefixtures("group")
def test_rank_0_reports_what_all_ranks_did() -> None:
    """What other ranks add to the shared count is reported too, also while rank 0 waits; the sum is the total."""
    calls: list[int] = []
    with reported(lambda done, _: calls.append(done), 100, own=50, world=World(0, 2)) as add:
        other = SharedCount("progress")
        other._key = "wds_real/progress/1"  # that of the first count, as on another rank
        other.add(30)
        while sum(calls) < 30:
            pass
        add(50)
        while sum(calls) < 80:
            pass
    assert sum(calls) == 100


@pytest.mark.usefixtures("group")
def test_other_ranks_report_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """On another rank the function is never called; its last samples are made known at once."""
    with reported(lambda done, _: pytest.fail(f"{done} reported"), 100, own=50, world=World(1, 2)) as add:
        for _ in range(50):
            add(1)
        other = SharedCount("progress")
        other._key = "wds_real/progress/1"
        assert other.add(0) == 50
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("group")
def test_a_failed_run_reports_no_total() -> None:
    """After an error, the samples that are missing are not reported as done."""
    calls: list[int] = []
    with (
        pytest.raises(TypeError),
        reported(lambda done, _: calls.append(done), 100, own=50, world=World(0, 2)) as add,
    ):
        add("ten")  # type: ignore[arg-type]
    assert calls == []


@pytest.mark.parametrize(
    ("is_terminal", "progress", "shown"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_a_bar_is_shown_on_terminals(
    monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool, progress: bool, shown: bool
) -> None:
    """True shows a bar on a terminal and nothing in a file; False shows nothing."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with reported(progress, 7, own=7, world=World()) as add:
        add(7)
    assert ("eval" in stream.getvalue()) == shown
    assert bool(stream.getvalue()) == shown
