"""All commands: help, version, JSON, exit codes of interrupted runs, and ranks that print nothing."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commands import KEY, MODEL, Ended, in_child, messages, without_torch

from wds_real import __version__
from wds_real.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = cli.list_commands(None)  # type: ignore[arg-type]  # needs no context
JSON_COMMANDS = {
    "pack": ["pack", "val.tar", "new", "--allow-partial"],
    "verify": ["verify", "shards"],
    "info": ["info", "shards"],
    "info of a key": ["info", "shards", KEY],
    "eval": ["eval", "shards", "-m", MODEL, "-b", "50"],
}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], *([name, flag] for name in COMMANDS for flag in ("--help", "-h"))]
)
def test_help_works(run: Callable[..., Ended], arguments: list[str]) -> None:
    """--help prints to stdout and ends with exit code 0."""
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: wds-real {arguments[0] if arguments[0] in COMMANDS else ''}".rstrip())
    assert "--help" in out


def test_help_names_every_command(run: Callable[..., Ended]) -> None:
    """Each command module is a command that --help lists."""
    import wds_real.cli.commands

    folder = Path(wds_real.cli.commands.__path__[0])
    modules = {path.stem for path in folder.rglob("*.py")} - {"__init__"}
    assert modules == set(COMMANDS)
    assert all(f"  {name} " in run("--help").out for name in COMMANDS)


def test_help_has_a_group_for_each_folder_of_commands(run: Callable[..., Ended]) -> None:
    """--help lists the commands about data sets, which are in a folder of their own, before the others."""
    import wds_real.cli.commands.datasets

    folder = Path(wds_real.cli.commands.datasets.__path__[0])
    listed = run("--help").out.partition("Data sets:\n")[2].split("\nModels and results:\n")
    data_sets, others = (re.findall(r"^  (\w+) ", part, re.MULTILINE) for part in listed)
    assert data_sets == sorted({path.stem for path in folder.glob("*.py")} - {"__init__"})
    assert others == sorted(set(COMMANDS) - set(data_sets))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("arguments", [["--help"], *(JSON_COMMANDS[name] for name in ("pack", "verify", "info"))])
def test_commands_without_a_model_start_without_torch(arguments: list[str]) -> None:
    """--help, pack, verify and info run without importing torch."""
    assert without_torch(*arguments).code == 0


def test_version_is_that_of_the_package(run: Callable[..., Ended]) -> None:
    """--version prints the installed version."""
    assert run("--version") == Ended(0, f"wds-real, version {__version__}\n", "")


@pytest.mark.usefixtures("here")
def test_the_installed_command_runs_the_module() -> None:
    """``wds-real`` and ``python -m wds_real`` print the same."""
    command = Path(sys.executable).with_name("wds-real")
    if not command.exists():
        pytest.skip("wds-real is not installed beside this Python")
    done = subprocess.run([command, "info"], capture_output=True, text=True, check=True)
    assert done.stdout == in_child("info").out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("arguments", JSON_COMMANDS.values(), ids=JSON_COMMANDS)
def test_json_is_one_object_and_nothing_else(arguments: list[str]) -> None:
    """With --json, stdout is one JSON object, stderr has progress only, and the exit code is 0."""
    code, out, err = in_child(*arguments, "--json")
    assert (code, [line for line in messages(err) if not line.startswith("wds-real: ")]) == (0, [])
    assert isinstance(json.loads(out, parse_constant=pytest.fail), dict)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["pack", "verify", "eval"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_progress_is_shown_unless_quiet(name: str, options: list[str]) -> None:
    """With and without --json, stderr has a line at the start and one at the end; with --quiet it has none."""
    arguments = [*JSON_COMMANDS[name], *options]
    ended = in_child(*arguments)
    lines = [line for line in ended.err.splitlines() if line.startswith(f"{name}: ") and "%" in line]
    shown = [line.split(",")[0] for line in lines]
    assert (shown[0], shown[-1]) == (f"{name}: 0 %", f"{name}: 100 %")
    assert (shown.count(shown[0]), shown.count(shown[-1])) == (1, 1)  # others come where it takes more than 10 s
    more = ["--overwrite"] if name == "pack" else []
    assert in_child(*arguments, *more, "--quiet")[::2] == (0, "")


@pytest.mark.usefixtures("here")
def test_progress_is_that_of_all_ranks() -> None:
    """Two ranks print one progress, which ends at all images."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "wds_real", "eval", "shards", "-m", MODEL, "-b", "10"]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("eval")]
    assert lines[0] == "eval: 0 %, 0 of 120 images"
    assert lines[-1].startswith("eval: 100 %, 120 of 120 images, ")
    assert [line for line in lines if " left" not in line] == [lines[0], lines[-1]]


@pytest.mark.usefixtures("here")
def test_roots_default_to_shards(run: Callable[..., Ended]) -> None:
    """Without ROOT, each command uses the folder ``shards``."""
    assert run("verify").out == run("verify", "shards").out
    assert run("info").out == run("info", "shards").out
    assert run("pack", "val.tar", "--allow-partial").err.endswith("or pass --overwrite to replace it.\n")


LAUNCHERS = [{"RANK": "1", "WORLD_SIZE": "2"}, {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_commands_that_write_run_on_rank_0(launcher: dict[str, str]) -> None:
    """Other ranks do nothing, say so in one line with the way to run there, and end with exit code 0."""
    rank, world_size = launcher.values()
    names = " and ".join(launcher)
    for arguments in (["pack", "val.tar", "new", "--allow-partial"], ["index", "shards"], ["merge", "run"], ["demo"]):
        code, out, err = in_child(*arguments, **launcher)
        assert (code, out) == (0, "")
        assert err.startswith(f"rank {rank} of {world_size}: nothing done, {arguments[0]} runs on rank 0. ")
        assert f"unset {names}" in err
        assert len(err.splitlines()) == 1
    assert not Path("new").exists()
    assert in_child("pack", "val.tar", "new", "--allow-partial", **{**launcher, next(iter(launcher)): "0"}).code == 0


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_commands_that_only_read_run_on_each_rank(launcher: dict[str, str]) -> None:
    """Each rank verifies, shows or scores by itself, with its own exit code, and says so."""
    for arguments in (["verify", "shards"], ["info", "shards"]):
        ended = in_child(*arguments, **launcher)
        assert (ended.code, ended.out) == (0, in_child(*arguments).out)
        assert f": {arguments[0]} runs on each rank by itself\n" in ended.err
    for arguments, code in ((["verify", "nope"], 1), (["info", "shards", "nokey"], 2), (["score", "nope.csv"], 1)):
        ended = in_child(*arguments, **launcher)
        assert (ended.code, ended.out) == (code, "")
        assert len(messages(ended.err)) == 2


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("rank", "world_size"), [("one", "2"), ("5", "2"), ("-1", "2"), ("0", "0")])
@pytest.mark.parametrize("arguments", [["info"], ["pack", "val.tar", "--fast"]])
def test_an_impossible_rank_is_a_usage_error(
    run: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    rank: str,
    world_size: str,
    arguments: list[str],
) -> None:
    """Contradicting variables of a launcher give one message and exit code 2."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert messages(ended.err)


@pytest.mark.usefixtures("here")
def test_progress_is_a_bar_on_a_terminal_and_lines_in_a_pipe() -> None:
    """A terminal gets a bar with control characters; a pipe gets plain lines."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "wds_real", "pack", "val.tar", "new", "--allow-partial"]
    done = subprocess.run(command, stderr=follower, stdout=subprocess.PIPE, check=True)
    os.close(follower)
    drawn = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "\x1b[" in drawn
    assert "pack" in drawn
    assert done.stdout.startswith(b"packed 120 images")
    piped = in_child("pack", "val.tar", "new", "--allow-partial", "--overwrite").err
    first, between, last = r"pack: 0 %, 0.0 of .* MB", r"wds-real: .*|pack: .* left", r"pack: 100 %, .* MB/s, .* s"
    assert re.fullmatch(rf"pack: reading val.tar\n{first}\n(({between})\n)*{last}\n", piped)


def test_help_starts_without_numpy() -> None:
    """--help needs the names of the commands only: neither numpy nor torch is imported for it."""
    code = "import sys, wds_real.cli.main; sys.exit(bool({'numpy', 'torch', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
