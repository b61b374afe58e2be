"""A scheduler of unreliable machines: forks ranks of one run, kills some, loses their disks, and takes others for dead.

python -m support.spot CONFIG, a JSON object, runs so many trials and prints one JSON line for each. A trial starts the
same evaluation again and again, as ranks of other numbers and kinds, until it has had all its accidents:

    kill       SIGKILL of one rank
    lose       the same, and the folder that is its machine's disk is deleted
    suspend    SIGSTOP: taken for dead; once others were started in its place, and were done, it goes on

Ranks that had no accident go on beside those of later starts. At the end one more start finishes what is left. Nothing
here uses an object store: a process that has used one must not fork.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import obstore.store  # noqa: F401 -- imported before the forks, as are the others, so that each rank starts at once

import wds_real.cli.commands.eval
import wds_real.evaluation.loop
import wds_real.evaluation.models.load
import wds_real.evaluation.shares
import wds_real.labels
from support.agent import DEADLINE_S
from support.forks import fork_command
from support.s3 import free_ports

MOST_STARTS = 60


@dataclass(slots=True)
class Machine:
    """A rank, and the folder that is its disk.

    Attributes:
        pid: Of the rank.
        disk: Its working folder, with a copy of the data set.
        err: Where its messages go.
        together: The other ranks that it works with, which a launcher kills with it.
        code: Its exit code, once it has ended.
        killed: Whether it was made to end.
    """

    pid: int
    disk: Path
    err: Path
    together: list[Machine] = field(default_factory=list)
    code: int | None = None
    killed: bool = False

    @property
    def runs(self) -> bool:
        if self.code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.code, self.killed = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), True


class Trial:
    """One run, from its first start to its result.

    Args:
        config: What all trials have: `root`, `folder`, `url`, `options`, `endpoints`, `accidents`, `batch_size`.
        number: Of the trial.
        chance: Draws what happens.
    """

    def __init__(self, config: dict[str, Any], number: int, chance: random.Random) -> None:
        self._config, self._chance = config, chance
        self._url, self._folder = f"{config['url']}-{number}", Path(config["folder"]) / str(number)
        self._folder.mkdir(parents=True)
        self._log = self._folder / "log"
        self._log.touch()
        self._names, self._endpoints = itertools.count(), itertools.cycle(config["endpoints"])
        self._machines = list[Machine]()
        self._suspended = list[Machine]()
        self._counts: Counter[str] = Counter()
        self._world_sizes = list[int]()
        self._idle = False  # whether the latest start found nothing to do, or did not live long enough

    def run(self) -> dict[str, Any]:
        """Go through all accidents and a last start, and say what happened."""
        started = time.monotonic()
        accidents = self._accidents()
        while accidents and self._counts["starts"] < MOST_STARTS:
            num_done = self._num_done()
            ranks = self._start()
            for machine in self._chance.sample(ranks, min(len(ranks), self._chance.choice((1, 1, 2)))):
                if accidents:
                    self._wait_for_the_moment(machine)
                    if self._happens(accidents[0], machine):
                        accidents.pop(0)
            self._idle = self._num_done() == num_done
        for machine in self._suspended:
            os.kill(machine.pid, signal.SIGCONT)
        survivors = [machine for machine in self._machines if not machine.killed]
        self._wait_for(survivors)
        last = self._start(gathered=False)
        self._wait_for(last)
        codes = [machine.code for machine in (*survivors, *last)]
        errors = [machine.err.read_text() for machine in self._machines]
        shutil.rmtree(self._folder)
        return {
            **self._counts,
            "left": accidents,
            "url": self._url,
            "world_sizes": self._world_sizes,
            "codes": codes,
            "errors": [text[-2000:] for text in errors if "error" in text.lower() or "Traceback" in text],
            "seconds": time.monotonic() - started,
        }

    def _accidents(self) -> list[str]:
        """Return what is to happen, in order; ranks that are taken for dead come first, with most work before them."""
        counts = self._config["accidents"]
        others = ["kill"] * counts["kill"] + ["lose"] * counts["lose"]
        self._chance.shuffle(others)
        return ["suspend"] * counts["suspend"] + others

    def _start(self, *, gathered: bool | None = None) -> list[Machine]:
        """Start ranks of a random number and kind."""
        if gathered is None:
            gathered = self._chance.random() < 0.25
        world_size = 2 if gathered else self._chance.randint(1, 4)
        steal = not gathered and self._chance.random() < 0.5
        self._counts["starts"] += 1
        self._counts["gathered"] += gathered
        self._counts["stealing"] += steal
        self._world_sizes.append(world_size)
        port = str(free_ports(1)[0])
        ranks = list[Machine]()
        for rank in range(world_size):
            place = {"RANK": str(rank), "WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            independent = ["--rank", str(rank), "--world-size", str(world_size), *["--steal"] * steal]
            ranks.append(self._rank([] if gathered else independent, place if gathered else {}))
        if gathered:
            for machine in ranks:
                machine.together = [other for other in ranks if other is not machine]
        self._machines += ranks
        return ranks

    def _rank(self, arguments: list[str], environment: dict[str, str]) -> Machine:
        """Fork a rank on a machine of its own."""
        disk, err = (self._folder / f"{kind}-{next(self._names)}" for kind in ("disk", "err"))
        shutil.copytree(self._config["root"], disk / "shards")
        options = self._config["options"] | {"endpoint": next(self._endpoints)}
        arguments = [
            "eval", "shards", "-m", "slow_model:slow_model", "-b", str(self._config["batch_size"]), "-j", "1", "-q",
            "-o", self._url, "--save-every", self._chance.choice(("0", "0.05", "10")), *arguments,
            *["--pixel-cache", "pixels"][: 2 * (self._chance.random() < 0.2)],
        ]  # fmt: skip
        for name, value in options.items():
            arguments += ["--output-option", f"{name}={value}"]
        environment |= {"SLOW_MODEL_LOG": str(self._log), "SLOW_MODEL_SECONDS": "0.03", "TMPDIR": str(disk)}
        with Path(os.devnull).open("w") as null, err.open("w") as messages:
            pid = fork_command(
                arguments, environment=environment, out=null.fileno(), err=messages.fileno(),
                before=lambda: os.chdir(disk),
            )  # fmt: skip
        return Machine(pid, disk, err)

    def _happens(self, accident: str, machine: Machine) -> bool:
        """Let an accident happen to a rank; return False if that has ended, or if it is not one for such a rank."""
        if not machine.runs or machine in self._suspended:
            return False
        if accident == "suspend":
            if machine.together:  # the launcher would wait for it
                return False
            os.kill(machine.pid, signal.SIGSTOP)
            self._suspended.append(machine)
        else:
            machine.kill()
            for other in machine.together:
                if other.runs:
                    other.kill()
                    self._counts["killed by the launcher"] += 1
                other.killed = True  # it may have ended by itself meanwhile, because it lost this one
        if accident == "lose":
            shutil.rmtree(machine.disk)
        self._counts[accident] += 1
        return True

    def _wait_for_the_moment(self, machine: Machine) -> None:
        """Wait for some time of the start, or until some more batches are done and a little longer."""
        if self._chance.random() < 0.3 or self._idle:
            time.sleep(self._chance.uniform(0.0, 0.3))
            return
        wanted, deadline = self._num_done() + self._chance.randint(1, 4), time.monotonic() + DEADLINE_S
        while self._num_done() < wanted and machine.runs and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(self._chance.uniform(0.0, 0.02))

    def _num_done(self) -> int:
        return self._log.read_bytes().count(b"\n")

    def _wait_for(self, machines: list[Machine]) -> None:
        """Wait until all have ended; what then still runs is killed, and has no good exit code."""
        deadline = time.monotonic() + DEADLINE_S
        while any([machine.runs for machine in machines]):  # noqa: C419 -- each of them is looked at
            time.sleep(0.005)
            if time.monotonic() > deadline:
                for machine in machines:
                    if machine.runs:
                        machine.kill()


def main() -> None:
    """Run the trials of the configuration."""
    wds_real.labels.bundled()
    importlib.import_module("slow_model")
    config = json.loads(sys.argv[1])
    for number in range(config["trials"]):
        chance = random.Random(f"{config['seed']} {number}")  # noqa: S311 -- not for secrets
        sys.stdout.write(json.dumps(Trial(config, number, chance).run()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
