"""Ranks that fail together: the reason is printed once, and before the launcher ends the rank that prints it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commands import MODEL, Ended, messages

from wds_real.cli import ranks
from wds_real.cli.console import speak_for_rank
from wds_real.errors import CoverageError, ManifestError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

EVAL = ["eval", "shards", "-b", "32", "-j", "1", "--device", "cpu", "-q"]
FACTORIES = """
import os, time

RANK = os.environ.get("RANK")

def late():
    if RANK == "0":
        time.sleep(2)  # torchrun ends all ranks 0.1 s after one of them has left
    raise OSError("no checkpoint")

def missing_on_1():
    if RANK == "1":
        raise OSError("no checkpoint")
    return good()

def good():
    from wds_real.cli import several
    from wds_real.synthetic import known_answer_model

    print_table = several._print_table
    def print_late(*arguments):
        time.sleep(2)
        print_table(*arguments)
    several._print_table = print_late
    return known_answer_model()
"""


def on_two_ranks(*arguments: str) -> Ended:
    """Run ``eval`` under torchrun on two ranks; `err` has the lines of the ranks only."""
    Path("factories.py").write_text(FACTORIES)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "wds_real",
         *EVAL, *arguments],
        capture_output=True, text=True, check=False, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return Ended(
        done.returncode, done.stdout, "\n".join(line for line in done.stderr.splitlines() if line.startswith("rank "))
    )


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the waiting: the seconds that were asked for."""
    asked = list[float]()
    monkeypatch.setattr("wds_real.cli.ranks.time.sleep", asked.append)
    return asked


@pytest.fixture
def ended_by_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the launcher end each rank that waits."""

    def end(seconds: float) -> None:
        raise KeyboardInterrupt(seconds)

    monkeypatch.setattr("wds_real.cli.ranks.time.sleep", end)


@pytest.mark.usefixtures("here")
def test_a_late_rank_0_still_reports() -> None:
    """An error of all ranks that rank 0 meets last is printed by it, and by no other rank."""
    code, out, err = on_two_ranks("-m", "factories:late")
    assert (code, out) == (1, "")
    assert err == "rank 0: error: factories:late: the factory raised OSError: no checkpoint (factories.py:9)."


@pytest.mark.usefixtures("here")
def test_an_error_of_another_rank_is_reported_there() -> None:
    """A file that is missing on one node only: its rank says so, as rank 0 does not."""
    code, out, err = on_two_ranks("-m", "factories:missing_on_1")
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == (
        "rank 1: error: factories:missing_on_1: the factory raised OSError: no checkpoint (factories.py:13)."
    )


@pytest.mark.usefixtures("here")
def test_a_late_rank_0_still_prints_the_table() -> None:
    """Of several models one fails: the other ranks have nothing to print, and let rank 0 print the rest."""
    code, out, err = on_two_ranks("-m", "factories:good", "-m", "factories:late")
    assert code == 1
    assert out.count("rank  model") == 1
    assert "0 twice, 2 ranks" in out
    assert err == "rank 0: error: factories:late: the factory raised OSError: no checkpoint (factories.py:9)."


@pytest.mark.usefixtures("here")
def test_of_several_models_one_that_fails_elsewhere_is_reported_there() -> None:
    """Rank 0 says that another rank knows why, and leaves that rank the time to say it."""
    code, out, err = on_two_ranks("-m", "factories:good", "-m", "factories:missing_on_1")
    assert code == 1
    assert out.count("rank  model") == 1
    assert err.splitlines()[:2] == [
        "rank 0: error: factories:missing_on_1: cannot be loaded on another rank, which says why.",
        "rank 1: error: factories:missing_on_1: the factory raised OSError: no checkpoint (factories.py:13).",
    ]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("arguments", "code"), [(["nope", "-m", "x"], 1), (["shards", "--fast"], 2)])
def test_an_error_of_all_ranks_is_reported_by_rank_0(
    run: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    sleeps: list[float],
    arguments: list[str],
    code: int,
) -> None:
    """Rank 0 reports at once; another rank waits, and reports only if it is not ended meanwhile."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    alone = run("eval", *arguments)
    assert (alone.code, alone.out, len(messages(alone.err)), sleeps) == (code, "", 1, [])
    monkeypatch.setenv("RANK", "1")
    other = run("eval", *arguments)
    assert other == Ended(code, "", alone.err.replace("rank 0: ", "rank 1: "))
    assert sleeps == [15.0]


@pytest.mark.usefixtures("here", "ended_by_launcher")
@pytest.mark.parametrize(("arguments", "code"), [(["nope", "-m", "x"], 1), (["shards", "--fast"], 2)])
def test_a_rank_that_is_ended_while_it_waits_prints_nothing(
    run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    """Its exit code is that of the error, not that of the signal."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run("eval", *arguments) == Ended(code, "", "")


@pytest.mark.usefixtures("here")
def test_a_process_alone_waits_for_nobody(run: Callable[..., Ended], sleeps: list[float]) -> None:
    """An evaluation without a launcher, and an independent rank, report at once."""
    assert run("eval", "nope", "-m", "x").code == 1
    independent = ("--rank", "1", "--world-size", "2", "-o", "run")
    assert run("eval", "nope", "-m", MODEL, *independent).code == 1
    assert sleeps == []


def test_only_errors_of_the_kinds_that_all_ranks_meet_wait(
    monkeypatch: pytest.MonkeyPatch, sleeps: list[float]
) -> None:
    """During the evaluation an error of one rank's own disk is reported at once."""
    speak_for_rank(None)  # a command that ran in this process before may have been an independent rank
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    for error in (StoreError("of this rank"), ValueError("unexpected")):
        with pytest.raises(type(error)), ranks.same_on_all_ranks(ranks.SAME_IN_EVALUATION):
            raise error
    assert sleeps == []
    for same in (CoverageError("missing"), ManifestError("damaged")):
        with pytest.raises(type(same)), ranks.same_on_all_ranks(ranks.SAME_IN_EVALUATION):
            raise same
    assert sleeps == [15.0, 15.0]
