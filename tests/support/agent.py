"""A small launcher that kills: forks ranks from one process, so that many launches take little time.

python agent.py ROOT FOLDER SEED TRIALS runs so many trials and prints one JSON line for each. A trial launches an
evaluation of a random number of ranks, kills a random rank at a random moment with SIGKILL, kills the rest as
torchrun's agent does, and runs the same command again with another number of ranks until it is done.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

import wds_real.evaluation.loop
import wds_real.labels
from support import slow_model  # noqa: F401 -- imported before the forks, so that each rank starts at once
from wds_real.cli.main import main

DEADLINE_S = 60.0


def launch(arguments: list[str], world_size: int, *, log: Path) -> dict[int, int]:
    """Fork the ranks of one run and return their process ids by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = {}
    for rank in range(world_size):
        pid = os.fork()
        if pid == 0:
            _be_rank(arguments, rank, world_size, port, log)
        pids[rank] = pid
    return pids


def wait(pids: dict[int, int], deadline: float) -> list[int]:
    """Wait for all ranks; once one fails, or the deadline passes, kill the others. Return their exit codes by rank."""
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        for rank, pid in pids.items():
            if rank not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[rank] = os.waitstatus_to_exitcode(status)
        if any(codes.values()) or time.monotonic() > deadline:
            for rank, pid in pids.items():
                if rank not in codes:
                    os.kill(pid, signal.SIGKILL)
                    codes[rank] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.002)
    return [codes[rank] for rank in sorted(codes)]


def trial(root: str, folder: Path, chance: random.Random) -> dict[str, object]:
    """Kill, run again, and say what happened."""
    output, log = folder / "run", folder / "log"
    log.touch()
    arguments = ["eval", root, "-m", "slow_model:slow_model", "-b", "10", "-j", "1", "-o", str(output)]
    started = time.monotonic()
    world_sizes, lost = [], 0
    for _ in range(chance.choice((1, 1, 2))):
        world_sizes.append(chance.randint(1, 4))
        pids = launch(arguments, world_sizes[-1], log=log)
        _wait_for_the_moment(chance, log)
        os.kill(pids[chance.randrange(world_sizes[-1])], signal.SIGKILL)
        lost += sum(code != 0 for code in wait(pids, time.monotonic() + DEADLINE_S))
    done_before = len(log.read_text().splitlines())
    world_sizes.append(chance.randint(1, 4))
    codes = wait(launch(arguments, world_sizes[-1], log=log), time.monotonic() + DEADLINE_S)
    return {
        "world_sizes": world_sizes,
        "codes": codes,
        "lost_ranks": lost,
        "batches_before": done_before,
        "batches_in_all": len(log.read_text().splitlines()),
        "predictions": (output / "predictions.csv").read_text() if not any(codes) else None,
        "seconds": time.monotonic() - started,
    }


def _wait_for_the_moment(chance: random.Random, log: Path) -> None:
    """Wait for a while of the start, or until some more batches are done and a little longer."""
    if chance.random() < 0.25:
        time.sleep(chance.uniform(0.0, 0.3))
        return
    wanted = len(log.read_text().splitlines()) + chance.randint(1, 8)
    deadline = time.monotonic() + 1.0  # the launch may have ended, or have less left to do
    while len(log.read_text().splitlines()) < wanted and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(chance.uniform(0.0, 0.02))


def _be_rank(arguments: list[str], rank: int, world_size: int, port: int, log: Path) -> NoReturn:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        SLOW_MODEL_LOG=str(log),
    )
    try:
        main(arguments)
    except SystemExit as done:
        sys.stderr.flush()
        os._exit(int(done.code or 0))
    finally:
        os._exit(70)


if __name__ == "__main__":
    wds_real.labels.bundled()
    trials_root, trials_folder, seed, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    for number in range(count):
        place = trials_folder / f"{seed}-{number}"
        place.mkdir(parents=True)
        report = trial(trials_root, place, random.Random(f"{seed} {number}"))  # noqa: S311 -- not for secrets
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
