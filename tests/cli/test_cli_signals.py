"""SIGINT and SIGTERM at any moment: exit code 130 or 143, one line, no traceback, and a run that resumes to the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import SUPPORT
from support.commands import messages

from wds_real.synthetic import write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable

EVAL = ["eval", "shards", "-m", "slow_model:slow_model", "-b", "10"]
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
DEADLINE_S = 240.0

# Sends this process a signal when a module is about to be imported, then runs the command line.
_AT_IMPORT = """
import os, sys
from importlib.abc import MetaPathFinder

module, number, *sys.argv[1:] = sys.argv[1:]

class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            os.kill(os.getpid(), int(number))

sys.meta_path.insert(0, Finder())
from wds_real.__main__ import main
main()
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{SUPPORT}:{SUPPORT.parent}", "OMP_NUM_THREADS": "1", **more}


def start(*arguments: str, launcher: tuple[str, ...] = (), held_at: int | None = None) -> subprocess.Popen[str]:
    """Start a command; each process of the slow model waits for a signal in its batch `held_at`."""
    command = [sys.executable, *launcher, "-m", "wds_real", *arguments]
    held = {} if held_at is None else {"SLOW_MODEL_HOLDS_AT": str(held_at)}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(SLOW_MODEL_LOG="log", SLOW_MODEL_SECONDS="0", **held),
    )


def stop(running: subprocess.Popen[str], number: int, *, when: Callable[[], bool]) -> tuple[str, str]:
    """Send a signal once `when` holds; return what the process printed, once it has ended."""
    with running:
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not when():
                assert running.poll() is None, running.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.005)
            running.send_signal(number)
            return running.communicate(timeout=DEADLINE_S)
        finally:
            running.kill()


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("number", WORDS)
@pytest.mark.parametrize("module", ["click", "wds_real.cli.commands.eval", "torch", "wds_real.evaluation.loop"])
def test_a_signal_while_modules_are_imported(module: str, number: int) -> None:
    """From the first import of the package on, a signal ends the command with its word and no traceback."""
    done = subprocess.run(
        [sys.executable, "-c", _AT_IMPORT, module, str(int(number)), *EVAL],
        check=False, capture_output=True, text=True, timeout=DEADLINE_S, env=environment(SLOW_MODEL_LOG="log"),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", f"{WORDS[signal.Signals(number)]}\n")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("number", WORDS)
def test_a_signal_during_an_evaluation(number: int) -> None:
    """The records are kept and named; the same command then does the remaining batches only."""
    log = Path("log")
    out, err = stop(running := start(*EVAL, held_at=2), number, when=lambda: lines_of(log) == 2)
    assert (running.returncode, out) == (128 + number, "")
    said = "no batch was saved; use --output to be able to resume"
    assert messages(err) == [said, WORDS[signal.Signals(number)]]
    log.unlink()
    out, err = stop(running := start(*EVAL, "-o", "run", held_at=5), number, when=lambda: lines_of(log) == 5)
    assert (running.returncode, out) == (128 + number, "")
    said = "the finished batches are saved in run; run the same command to resume"
    assert messages(err) == [said, WORDS[signal.Signals(number)]]
    with start(*EVAL, "-o", "run") as again:
        assert "120 seen once" in again.communicate(timeout=DEADLINE_S)[0]
    assert lines_of(log) in (12, 13)
    with start(*EVAL, "-o", "undisturbed") as other:
        other.communicate(timeout=DEADLINE_S)
    assert Path("run/predictions.csv").read_bytes() == Path("undisturbed/predictions.csv").read_bytes()


@pytest.mark.usefixtures("here")
def test_a_signal_under_torchrun() -> None:
    """SIGTERM to torchrun reaches the ranks: each says that it ends, rank 0 what is kept, and the run resumes."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    log = Path("log")
    running = start(*EVAL, "-o", "run", launcher=torchrun, held_at=2)
    _, err = stop(running, signal.SIGTERM, when=lambda: lines_of(log) == 4)
    assert running.returncode != 0
    for line in ("rank 0: terminated", "rank 1: terminated", "the finished batches are saved in run"):
        assert err.count(line) == 1, err
    with start(*EVAL, "-o", "run") as again:
        assert "120 seen once" in again.communicate(timeout=DEADLINE_S)[0]
    assert lines_of(log) <= 12 + 2


@pytest.mark.usefixtures("here")
def test_a_signal_to_the_demo_reaches_the_ranks_that_it_started() -> None:
    """None of them goes on: both say that they end, and no result is written."""
    folder = Path("demo")
    running = start("demo", "--num-images", "15000", "--keep", str(folder))
    _, err = stop(running, signal.SIGTERM, when=(folder / "run" / "run.json").exists)
    assert running.returncode == 128 + signal.SIGTERM
    assert {"rank 0: terminated", "rank 1: terminated", "terminated"} <= set(err.splitlines())
    assert not (folder / "run" / "result.json").exists()


@pytest.mark.parametrize("number", WORDS)
def test_a_signal_while_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The finished shards are kept and named; the same command ends with the bytes of an undisturbed run."""
    monkeypatch.chdir(tmp_path)
    write_source_tar(Path("val.tar"), range(1, 1501))
    arguments = ["pack", "val.tar", "new", "--allow-partial", "--samples-per-shard", "1", "-j", "1"]
    running = start(*arguments)
    out, err = stop(running, number, when=lambda: Path("new/imagenet2012_real-validation-000020.tar").exists())
    assert (running.returncode, out) == (128 + number, "")
    said = "the finished shards are kept in new; run the same command to resume"
    assert messages(err) == [said, WORDS[signal.Signals(number)]]
    assert not Path("new/manifest.json").exists()
    assert not [*Path("new").glob(".*.tmp")]
    with start(*arguments) as again:
        assert "1,500 images" in again.communicate(timeout=DEADLINE_S)[0]
    arguments[2] = "undisturbed"
    with start(*arguments) as other:
        other.communicate(timeout=DEADLINE_S)
    for path in Path("undisturbed").iterdir():
        assert Path("new", path.name).read_bytes() == path.read_bytes()


_BLOCKED = """
import hashlib, sys, threading
import wds_real.cli.signals as signals
signals._GRACE_S = 0.5
with signals.SignalHandling() as handling:
    handling.kept = "the records are kept"
    threading.Timer(0.5, print, ["blocked"], {"flush": True}).start()  # when the main thread has left Python code
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)  # runs for minutes in C, without the interpreter's lock
"""


def test_a_command_that_is_blocked_ends_some_time_after_the_signal() -> None:
    """Where the main thread runs no Python code, as in a reduction that waits for a rank, a thread ends the process."""
    command = [sys.executable, "-c", _BLOCKED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "blocked\n"
        running.send_signal(signal.SIGTERM)
        assert running.communicate(timeout=DEADLINE_S) == ("", "the records are kept\nterminated\n")
    assert running.returncode == 143


_FORKED = """
import os, signal, sys, threading, time
import wds_real.cli.signals as signals
signals._GRACE_S = 0.2
with signals.SignalHandling():
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, b"x")
            time.sleep(60)
        except signals.Stopped:
            os.write(write, b"y")
            time.sleep(10)
        os._exit(0)
    os.read(read, 1)
    os.kill(child, signal.SIGTERM)  # as a data loader ends its workers
    os.read(read, 1)  # the child goes on, and has the pipe of its parent's signals still open, if it inherits it
    [watching] = [thread for thread in threading.enumerate() if thread.name == "signals"]
    watching.join(1.0)
    print("watching" if watching.is_alive() else "not watching")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
watching.join(60)
print("not watching" if not watching.is_alive() else "watching")
"""


def test_a_signal_to_a_forked_process_does_not_end_its_parent() -> None:
    """A process that forks while a command runs, such as a data loader, may end its workers by SIGTERM."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKED], capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "watching\nnot watching\n", "")


@pytest.mark.usefixtures("here")
def test_a_second_signal_ends_at_once() -> None:
    """A command that does not stop on Ctrl-C, because its model swallows it, stops on the next one."""
    Path("deaf.py").write_text(
        "import pathlib, time, torch\n"
        "def model():\n"
        "    def forward(image):\n"
        "        for name in ('running', 'deaf'):\n"
        "            try:\n"
        "                pathlib.Path(name).touch()\n"
        "                time.sleep(60)\n"
        "            except KeyboardInterrupt:\n"
        "                pass\n"
        "        return torch.zeros(len(image), 1000)\n"
        "    return forward\n"
    )
    running = start("eval", "shards", "-m", "deaf:model", "-b", "10")
    with running:
        for name in ("running", "deaf"):
            while not Path(name).exists():
                assert running.poll() is None
                time.sleep(0.01)
            running.send_signal(signal.SIGINT)
        running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 130


@pytest.mark.usefixtures("here")
def test_an_ignored_signal_stays_ignored() -> None:
    """A command that a shell starts in the background, with SIGINT ignored, goes on after Ctrl-C."""
    running = subprocess.Popen(
        ["sh", "-c", f'trap "" INT; exec "{sys.executable}" -m wds_real {" ".join(EVAL)}'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(SLOW_MODEL_LOG="log", SLOW_MODEL_SECONDS="0.1"),
    )
    out, _ = stop(running, signal.SIGINT, when=lambda: lines_of(Path("log")) > 1)
    assert running.returncode == 0
    assert "120 seen once" in out
