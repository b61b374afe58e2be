"""All commands: help, version, JSON, exit codes of interrupted runs, and ranks that print nothing."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
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
    import wds_real.cli

    folder = Path(wds_real.cli.__path__[0])
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "console", "main", "options"}
    assert modules == set(COMMANDS)
    assert all(f"  {name} " in run("--help").out for name in COMMANDS)


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
    """With --json, stdout is one JSON object, stderr is empty, and the exit code is 0."""
    code, out, err = in_child(*arguments, "--json")
    assert (code, err) == (0, "")
    assert isinstance(json.loads(out, parse_constant=pytest.fail), dict)


@pytest.mark.usefixtures("here")
def test_roots_default_to_shards(run: Callable[..., Ended]) -> None:
    """Without ROOT, each command uses the folder ``shards``."""
    assert run("verify").out == run("verify", "shards").out
    assert run("info").out == run("info", "shards").out
    assert run("pack", "val.tar", "--allow-partial").err.startswith("error: shards: holds a finished set")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("arguments", [JSON_COMMANDS[name] for name in ("pack", "verify", "info")])
@pytest.mark.parametrize(
    "launcher", [{"RANK": "1", "WORLD_SIZE": "2"}, {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}]
)
def test_only_rank_0_runs(arguments: list[str], launcher: dict[str, str]) -> None:
    """Under a launcher, rank 0 runs the command; the other ranks end with exit code 0 and print nothing."""
    assert in_child(*arguments, **launcher) == Ended(0, "", "")
    assert not Path("new").exists()
    first = {name: "0" if name in ("RANK", "SLURM_PROCID") else value for name, value in launcher.items()}
    code, out, _ = in_child(*arguments, **first)
    assert code == 0
    assert out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["info", "shards", "nokey"], 2), (["pack", "val.tar", "--fast"], 2), (["eval", "nope", "-m", "x"], 1)],
)
def test_only_rank_0_reports_an_error_of_all_ranks(
    run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    """An error that all ranks meet is printed once."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert messages(run(*arguments).err)
    monkeypatch.setenv("RANK", "1")
    ended = run(*arguments)
    assert (ended.out, ended.err) == ("", "")
    assert ended.code in (0, code)


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
    assert re.fullmatch(r"(wds-real: .*\n)*pack: 100 %, .* MB/s, .* s\n", piped)


@pytest.mark.usefixtures("here")
def test_interrupting_gives_130() -> None:
    """Ctrl-C ends an evaluation with exit code 130, no traceback, and a hint at --output."""
    Path("slow.py").write_text(
        "import pathlib, time, torch\n"
        "def model():\n"
        "    def forward(image):\n"
        "        pathlib.Path('running').touch()\n"
        "        time.sleep(30)\n"
        "        return torch.zeros(len(image), 1000)\n"
        "    return forward\n"
    )
    command = [sys.executable, "-m", "wds_real", "eval", "shards", "-m", "slow:model", "-b", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while not Path("running").exists():
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert out == ""
    assert messages(err) == ["no batch was saved; use --output to be able to resume", "interrupted"]


def test_help_starts_without_numpy() -> None:
    """--help needs the names of the commands only: neither numpy nor torch is imported for it."""
    code = "import sys, wds_real.cli.main; sys.exit(bool({'numpy', 'torch', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
