"""What reaches the terminal: names from archives, prediction files and records are escaped."""

from __future__ import annotations

import ast
import io
import json
import logging
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commands import MODEL, Ended, in_child

import wds_real.cli
from wds_real.cli.console import LogHandler, print_lines, print_message
from wds_real.labels import bundled
from wds_real.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HOSTILE = "a\x1b[2J\nerror: all is well\u202e"
ESCAPED = r"a\x1b[2J\nerror: all is well\u202e"


def expect_clean(ended: Ended) -> None:
    """Assert that a command printed no control character, and no line that begins as the hostile name wants."""
    assert "Traceback" not in ended.err
    for line in [*ended.out.split("\n"), *ended.err.split("\n")]:
        assert line.isprintable(), line
        assert not line.startswith("error: all is well")


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_only_the_console_prints() -> None:
    """No module of the command line but console.py calls click.echo, click.secho, print or sys.stdout.write."""
    for path in Path(wds_real.cli.__path__[0]).glob("*.py"):
        called = {
            ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        }
        printing = called & {"click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write"}
        assert not printing or path.stem == "console", path


def test_lines_and_messages_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """A line on stdout, a message on stderr and a log record are one line each, whatever they hold."""
    print_lines(HOSTILE, "plain é")
    print_message(HOSTILE)
    record = logging.LogRecord("n", logging.WARNING, "f", 1, "%s: kept", (HOSTILE,), None)
    LogHandler().handle(record)
    assert capsys.readouterr() == (f"{ESCAPED}\nplain é\n", f"{ESCAPED}\nwds-real: {ESCAPED}: kept\n")


@pytest.mark.usefixtures("here")
def test_member_names_are_escaped(run: Callable[..., Ended]) -> None:
    """`pack` and `index` name a member of an archive without its control characters."""
    write_tar(Path("source.tar"), {f"{HOSTILE}.JPEG": b"x"})
    ended = run("pack", "source.tar", "new", "--allow-partial")
    expect_clean(ended)
    assert ended.code == 1
    assert ESCAPED in ended.err
    Path("others").mkdir()
    write_tar(Path("others/s.tar"), {f"{HOSTILE}.jpg": b"x", f"{HOSTILE}.cls": b"y"})
    ended = run("index", "others")
    expect_clean(ended)
    assert ended.code != 0
    assert ESCAPED in ended.err


@pytest.mark.usefixtures("here")
def test_shard_names_are_escaped(run: Callable[..., Ended]) -> None:
    """`index` and `verify` name a shard without its control characters."""
    Path("others").mkdir()
    Path(f"others/{HOSTILE}.tar").write_bytes(b"no tar" * 1000)
    ended = run("index", "others")
    expect_clean(ended)
    assert ended.code != 0
    assert ESCAPED in ended.err


@pytest.mark.usefixtures("here")
def test_paths_and_options_of_the_user_are_escaped(run: Callable[..., Ended]) -> None:
    """Roots, model specs, splits and options that are not known are named without their control characters."""
    for arguments in (
        ["verify", HOSTILE],
        ["info", "shards", HOSTILE],
        ["eval", "shards", "-m", HOSTILE],
        ["eval", "shards", "-m", MODEL, "--split", HOSTILE],
        ["eval", "shards", "-m", MODEL, f"--{HOSTILE}"],
        ["score", HOSTILE],
        [HOSTILE],
    ):
        ended = run(*arguments)
        expect_clean(ended)
        assert ended.code in (1, 2)
        assert "all is well" in ended.err


@pytest.mark.usefixtures("here")
def test_predictions_are_escaped(run: Callable[..., Ended]) -> None:
    """`score` names an image or a column of a prediction file without its control characters."""
    Path("names.csv").write_text(f'file_name,class\n"{HOSTILE}",1\n')
    ended = run("score", "names.csv", "--allow-partial")
    expect_clean(ended)
    assert ended.code != 0
    Path("columns.csv").write_text(f'"{HOSTILE}","{HOSTILE}2"\nx,y\n')
    ended = run("score", "columns.csv", "--allow-partial")
    expect_clean(ended)
    assert ended.code != 0
    Path(f"{HOSTILE}.csv").write_text("file_name,class\nILSVRC2012_val_00000001.JPEG,65\n")
    ended = run("score", f"{HOSTILE}.csv", "--allow-partial")
    expect_clean(ended)
    assert ended.code == 0
    assert ESCAPED in ended.out


@pytest.mark.usefixtures("here")
def test_the_names_of_a_record_are_escaped(run: Callable[..., Ended]) -> None:
    """`eval` and `merge` name the model and the data set of another run's run.json without control characters."""
    assert run("eval", "shards", "-m", MODEL, "-b", "50", "-o", "run").code == 0
    path = Path("run/run.json")
    found = json.loads(path.read_bytes())
    found["identity"]["model"]["name"] = HOSTILE
    found["root"] = HOSTILE
    path.write_text(json.dumps(found))
    merge = ["merge", "run"]
    for arguments in (merge, [*merge, "--root", "shards"], ["eval", "shards", "-m", MODEL, "-b", "50", "-o", "run"]):
        ended = run(*arguments)
        expect_clean(ended)
        assert ended.code != 0


def test_a_result_is_printed_escaped_and_written_as_it_is() -> None:
    """The table has the model's name escaped, in one line; its JSON keeps the name."""
    result = score(bundled().original)
    named = replace(result, model={"name": HOSTILE})
    assert len(str(named).split("\n")) == len(str(result).split("\n"))
    assert ESCAPED in str(named)
    assert named.as_dict()["model"]["name"] == HOSTILE


@pytest.mark.usefixtures("here")
def test_names_that_an_encoding_lacks_are_escaped() -> None:
    """Where stdout or the locale has no such character, it is escaped, and the command ends as it should."""
    shutil.copytree("shards", "樹")
    c_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for variables, shown in (
        ({"PYTHONIOENCODING": "latin-1"}, r"\u6a39"),
        ({"PYTHONIOENCODING": "ascii"}, "樹"),  # click writes UTF-8 where it is told ASCII
        (c_locale, r"\udce6\udca8\udcb9"),
    ):
        ended = in_child("info", "樹", **variables)
        assert (ended.code, ended.err) == (0, "")
        assert shown in ended.out
