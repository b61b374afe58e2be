"""Pairs of packers on one target, forked from one process so that many pairs take little time.

python packers.py SEED COUNT JOB... runs pairs and prints one JSON line for each. A job is the arguments of one packer,
as JSON; both jobs of a pair start within a few milliseconds of each other. "TARGET" in an argument is replaced by the
target's number. Nothing here uses an object store before it forks.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import NoReturn

import wds_real.cli.commands.datasets.pack
import wds_real.labels
from wds_real.cli.main import main


def start(arguments: list[str], output: Path, delay_s: float) -> int:
    """Fork a packer and return its process id; what it prints goes to a file."""
    pid = os.fork()
    if pid == 0:
        _be_packer(arguments, output, delay_s)
    return pid


def _be_packer(arguments: list[str], output: Path, delay_s: float) -> NoReturn:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    time.sleep(delay_s)
    try:
        main(arguments)
    except SystemExit as done:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(done.code or 0))
    finally:
        os._exit(70)


def pair(number: int, jobs: list[list[str]], chance: random.Random, folder: Path) -> dict[str, object]:
    """Run both packers on one target, and say how they ended."""
    outputs = [folder / f"{number}-{job}.txt" for job in range(len(jobs))]
    delays = [0.0, chance.choice((0.0, chance.uniform(0.0, 0.02), chance.uniform(0.0, 0.3)))]
    chance.shuffle(delays)
    pids = []
    for arguments, output, delay_s in zip(jobs, outputs, delays, strict=True):
        pids.append(start([word.replace("TARGET", str(number)) for word in arguments], output, delay_s))
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return {"number": number, "codes": codes, "printed": [output.read_text() for output in outputs]}


if __name__ == "__main__":
    wds_real.labels.bundled()
    seed, count, place = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    given = [json.loads(argument) for argument in sys.argv[4:]]
    for pair_number in range(count):
        report = pair(pair_number, given, random.Random(f"{seed} {pair_number}"), place)  # noqa: S311 -- not for secrets
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
