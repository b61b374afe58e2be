"""Failures that no command expects: one line each, which says what they are; a traceback only where it is asked for."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, NoReturn

import click
import pytest

import wds_real.cli.commands.datasets.verify
from wds_real import __version__
from wds_real.cli.failures import describe
from wds_real.errors import StoreError
from wds_real.synthetic import write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.commands import Ended

BUG = KeyError("a\nb\x1b[2J")
FAILURES: dict[str, tuple[BaseException, int, list[str]]] = {
    "bug": (BUG, 1, ["unexpected KeyError", r"a\nb\x1b[2J", "This is a bug in wds-real", __version__, "TRACEBACK=1"]),
    "bug without words": (AssertionError(), 1, ["unexpected AssertionError (", "test_cli_failures.py:"]),
    "memory": (MemoryError(), 1, ["out of memory", "--batch-size"]),
    "threads": (RuntimeError("can't start new thread"), 1, ["no more threads", "--threads"]),
    "full disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "f"), 1, ["f: No space left on device"]),
    "descriptors": (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "g"), 1, ["g: Too many open files"]),
    "end of file": (EOFError("cut"), 1, ["unexpected EOFError: cut"]),
    "ours": (StoreError("as expected"), 1, ["error: as expected"]),
}


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Return a function that makes `verify` raise."""

    def let(error: BaseException) -> None:
        def command() -> NoReturn:
            raise error

        monkeypatch.setattr(wds_real.cli.commands.datasets.verify, "command", click.command("verify")(command))

    return let


@pytest.mark.parametrize(("error", "code", "words"), FAILURES.values(), ids=FAILURES)
def test_any_failure_is_one_line(
    run: Callable[..., Ended],
    fails: Callable[[BaseException], None],
    error: BaseException,
    code: int,
    words: list[str],
) -> None:
    """Exit code 1 and one line, whatever is raised: what it is, where, and what to do."""
    fails(error)
    ended = run("verify")
    assert (ended.code, ended.out) == (code, "")
    assert len(ended.err.splitlines()) == 1
    assert [word for word in words if word not in ended.err] == [], ended.err


def test_the_traceback_is_printed_on_request(
    run: Callable[..., Ended], fails: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """WDS_REAL_TRACEBACK=1 prints the traceback before the line, also of the errors of this package; 0 does not."""
    for error in (BUG, StoreError("as expected")):
        fails(error)
        monkeypatch.setenv("WDS_REAL_TRACEBACK", "1")
        lines = run("verify").err.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[-1].startswith("error: ")
        assert all(line.isprintable() for line in lines)
        monkeypatch.setenv("WDS_REAL_TRACEBACK", "0")
        assert len(run("verify").err.splitlines()) == 1


def test_the_place_is_that_of_the_package_too() -> None:
    """Where another library raises, the line of this package that called it is named as well."""
    with pytest.raises((TypeError, OSError)) as caught:
        write_source_tar(b"no/such/folder/val.tar", range(1, 2))  # type: ignore[arg-type]
    assert re.search(r"\(.*\.py:\d+, called from wds_real/synthetic\.py:\d+\)", describe(caught.value))
    assert "called from" not in describe(BUG.with_traceback(None))


def test_a_removed_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Ended]) -> None:
    """`eval` in a folder that was removed says that, before it imports anything."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    ended = run("eval", str(tmp_path), "-m", "wds_real.synthetic:known_answer_model")
    assert ended == (1, "", "error: the current folder was removed. Change to another one.\n")
