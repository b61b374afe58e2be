"""System calls that change files, disturbed one by one: killed before, within and after, or failed.

Whatever happens, what is left is never taken for a finished set or result unless it is one, and the same command again
ends with the bytes of an undisturbed run.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.forks import FAIL, KILL_AFTER, KILL_BEFORE, KILL_WITHIN, Fault, ForkServer, fork_server
from support.http_server import http_server
from support.trials import trial_environment

from wds_real.data.dataset import open_dataset
from wds_real.errors import WdsRealError
from wds_real.packing.verification import verify
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from support.forks import Trial
    from support.tally import Tally

    Tallies = Callable[[str], AbstractContextManager[Tally]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SIGKILL = -9
FAULTS = [
    *((name, mode, 0) for name, mode in (("before", KILL_BEFORE), ("within", KILL_WITHIN), ("after", KILL_AFTER))),
    *((errno.errorcode[error], FAIL, error) for error in (errno.EIO, errno.ENOSPC, errno.EDQUOT)),
]
MODEL = "wds_real.synthetic:known_answer_model"
# Calls that change files, as strace names them; an open only if it creates or truncates.
CHANGING = ("mkdir|rmdir|unlink|rename|link|symlink|truncate|chmod|mkdirat|unlinkat|renameat|renameat2|linkat|fchmodat|"
            "utimensat|write|pwrite64|writev|pwritev|pwritev2|fsync|fdatasync|ftruncate|fallocate|fchmod|open|openat"
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command that changes files below ``FOLDER/watched``.

    Attributes:
        arguments: Of the command; FOLDER stands for the folder of the trial.
        before: Commands that prepare the folder.
        left: What a finished run leaves that must be the same each time.
        repeat: Arguments of the command that follows a disturbed one; None means `arguments` again.
        threads: Whether several threads change files, so that the order of the calls differs from run to run.
    """

    arguments: str
    left: Callable[[Path], object]
    before: tuple[str, ...] = ()
    repeat: str | None = None
    threads: bool = False


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def watched_tree(folder: Path) -> object:
    return tree(folder / "watched")


def result_in(output: Path) -> object:
    """Return the numbers and the predictions of a finished run, or None if it is not finished."""
    if not (output / "result.json").exists():
        return None
    body = json.loads((output / "result.json").read_bytes())
    return body["accuracy"], body["coverage"]["seen_once"], (output / "predictions.csv").read_bytes()


def watched_result(folder: Path) -> object:
    return result_in(folder / "watched")


def result_beside(folder: Path) -> object:
    return result_in(folder / "run")


SET = "FOLDER/../packed"
EVAL = f"eval {SET} -m {MODEL} -b 2 -j 1"
PACK = "pack FOLDER/../val.tar FOLDER/watched --allow-partial -j 1"
SCENARIOS = {
    "pack": Scenario(f"{PACK} --samples-per-shard 10", watched_tree),
    "pack --overwrite": Scenario(
        f"{PACK} --samples-per-shard 10 --overwrite", watched_tree, before=(f"{PACK} --samples-per-shard 7",)
    ),
    "index": Scenario(
        f"index {SET} -o FOLDER/watched", watched_tree, repeat=f"index {SET} -o FOLDER/watched --overwrite"
    ),
    "eval --output": Scenario(f"{EVAL} -o FOLDER/watched", watched_result),
    "merge": Scenario(f"merge FOLDER/watched --root {SET}", watched_result, before=(f"{EVAL} -o FOLDER/watched",)),
    "eval --pixel-cache": Scenario(
        f"{EVAL} -o FOLDER/run --pixel-cache FOLDER/watched", result_beside,
        repeat=f"{EVAL} -o FOLDER/again --pixel-cache FOLDER/watched",
    ),
    "eval --cache": Scenario(
        f"{EVAL.replace(SET, 'ENDPOINT/packed')} -o FOLDER/run --cache FOLDER/watched", result_beside,
        repeat=f"{EVAL.replace(SET, 'ENDPOINT/packed')} -o FOLDER/again --cache FOLDER/watched", threads=True,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that disturbs system calls, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler (Debian: apt-get install gcc libc6-dev)")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def server(faults: Path) -> Iterator[ForkServer]:
    with fork_server(faults) as server:
        yield server


@pytest.fixture(scope="module")
def place(twenty: Path, server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a source and a packed set, and the address where it is served."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copy(twenty, folder / "val.tar")
    packed = server.run("pack", folder / "val.tar", folder / "packed", "--allow-partial", "--samples-per-shard", "10")
    assert packed.code == 0, packed.err
    with http_server(folder) as site:
        yield folder, site.endpoint


class Trials:
    """Runs one scenario, each time in a new folder."""

    def __init__(self, scenario: Scenario, place: tuple[Path, str], server: ForkServer) -> None:
        self.scenario = scenario
        self._root, self._endpoint = place
        self._server = server
        self._template = self._root / "template"
        shutil.rmtree(self._template, ignore_errors=True)
        self._template.mkdir()
        for command in scenario.before:
            assert self.run(command, self._template).code == 0
        folder = self.new()
        undisturbed = self.run(scenario.arguments, folder, Fault(folder / "watched"))
        assert undisturbed.code == 0, undisturbed.err
        self.calls = undisturbed.calls
        self.expected = scenario.left(folder)
        self.digests = {open_digest(self._template / "watched"), open_digest(folder / "watched")} - {None}
        again = self.new()
        calls = self.run(scenario.arguments, again, Fault(again / "watched")).calls
        assert calls == self.calls or scenario.threads

    def new(self) -> Path:
        """Return the folder of a new trial, as the scenario's first commands left it."""
        folder = self._root / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self._template, folder))

    def run(self, arguments: str, folder: Path, fault: Fault | None = None) -> Trial:
        words = arguments.replace("FOLDER", str(folder)).replace("ENDPOINT", self._endpoint).split()
        return self._server.run(*words, fault=fault)

    def repeat(self, folder: Path) -> Trial:
        """Run the command again, as a user would after a run that was disturbed."""
        return self.run(self.scenario.repeat or self.scenario.arguments, folder)


def open_digest(root: Path) -> str | None:
    """Return the digest of a set that can be opened, and None if none can; a set that opens has no problems."""
    try:
        digest = open_dataset(root).digest
    except WdsRealError:
        return None
    problems = verify(LocalStore(root), level="decode", jobs=1).problems
    return digest if not problems else f"damaged: {problems[0]}"


def claims_nothing_wrong(trials: Trials, folder: Path) -> bool:
    """Return whether what is left is no set, or one that is whole; no result, or the right one."""
    left = watched_result(folder)
    return open_digest(folder / "watched") in {None, *trials.digests} and left in (None, trials.expected)


def ends_well(trials: Trials, folder: Path) -> str:
    """Run the command again; return what is wrong at the end, or nothing."""
    ended = trials.repeat(folder)
    finished = ended.code == 1 and "finished set" in ended.err  # the disturbed run had come to its end
    if ended.code != 0 and not finished:
        return f"the same command again ends with {ended.code}: {ended.err}"
    if trials.scenario.repeat is not None and "FOLDER/again" in trials.scenario.repeat:
        return "" if result_in(folder / "again") == trials.expected else "the next run gives another result"
    left = trials.scenario.left(folder)
    if left == trials.expected:
        return ""
    if isinstance(left, dict) and isinstance(trials.expected, dict):
        return f"files differ: {sorted({*left} ^ {*trials.expected}) or 'other bytes'}"
    return "another result is left"


def one_line(ended: Trial) -> bool:
    """Return whether a failure is one line, with exit code 1."""
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    return ended.code == 1 and len(lines) == 1 and "Traceback" not in ended.err


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_changing_system_call(name: str, place: tuple[Path, str], server: ForkServer, tally: Tallies) -> None:
    """Killed before, within and after each call, and failed with EIO, ENOSPC, EDQUOT: nothing half, nothing lost."""
    trials = Trials(SCENARIOS[name], place, server)
    with tally(f"{name}: {len(trials.calls)} system calls") as counts:
        for moment, call in enumerate(trials.calls, 1):
            for kind, mode, error in FAULTS:
                if mode == KILL_WITHIN and not re.search("write", call):
                    continue
                folder, what = trials.new(), f"{name}: call {moment} ({call}) {kind}"
                ended = trials.run(trials.scenario.arguments, folder, Fault(folder / "watched", mode, moment, error))
                counts.counts["attempts"] += 1
                counts.took(ended.seconds)
                if mode != FAIL and not (trials.scenario.threads and ended.code == 0):
                    counts.expect(what, ended.code == SIGKILL, "killed")
                elif ended.code == 0:
                    right = trials.scenario.left(folder) == trials.expected
                    counts.expect(what, right, "ended right")
                else:
                    counts.expect(f"{what} {ended.code} {ended.err}", one_line(ended), "failed with one line")
                if not claims_nothing_wrong(trials, folder):
                    counts.silent.append(f"{what}: what is left is taken for whole")
                if wrong := ends_well(trials, folder):
                    counts.silent.append(f"{what}: {wrong}")


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_library_sees_every_call(name: str, place: tuple[Path, str], server: ForkServer, tmp_path: Path) -> None:
    """Strace sees as many calls that change files below the folder as the library counts: none is left undisturbed."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace (Debian: apt-get install strace)")
    trials = Trials(SCENARIOS[name], place, server)
    folder, log = trials.new(), tmp_path / "strace"
    words = trials.scenario.arguments.replace("FOLDER", str(folder)).replace("ENDPOINT", place[1]).split()
    traced = f"trace=/^({CHANGING})$"
    command: list[str | Path] = [
        "strace",
        "-f",
        "-y",
        "-qq",
        "-s",
        "4096",
        "-e",
        traced,
        "-o",
        log,
        sys.executable,
        "-m",
        "wds_real",
        *words,
    ]
    environment = trial_environment(PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if (done.returncode and not log.exists()) or "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    seen = [line for line in log.read_text().splitlines() if _changes(line, os.fspath(folder / "watched"))]
    difference = len(seen) - len(trials.calls)
    assert difference == 0 or (trials.scenario.threads and abs(difference) < 10), "\n".join([*seen, *trials.calls])


def _changes(line: str, folder: str) -> bool:
    """Return whether a line of strace is a call that changes a file below a folder."""
    call = re.match(r"\d+\s+(\w+)\((.*)", line)
    changed = "" if call is None else call[2].partition(">")[0] + ">" if "write" in call[1] else call[2]
    if call is None or not re.search(re.escape(folder) + '[/">]', changed):
        return False
    return not call[1].startswith("open") or "O_CREAT" in call[2] or "O_TRUNC" in call[2]
