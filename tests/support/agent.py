"""A small launcher that kills: forks ranks from one process, so that many launches take little time.

python agent.py ROOT FOLDER SEED TRIALS MOST_RANKS SIGNAL ... runs so many trials and prints one JSON line for each. A
trial launches an evaluation of a random number of ranks, sends one of the signals, in turn, at a random moment, and
runs the same command again with another number of ranks until it is done.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import wds_real.evaluation.loop
import wds_real.labels
from support import slow_model  # noqa: F401 -- imported before the forks, so that each rank starts at once
from support.forks import fork_command
from support.s3 import free_ports

DEADLINE_S = 120.0


def launch(arguments: list[str], world_size: int, *, log: Path) -> dict[int, int]:
    """Fork the ranks of one run and return their process ids by rank."""
    port = free_ports(1)[0]
    with Path(os.devnull).open("w") as null:
        return {
            rank: fork_command(arguments, environment=_rank(rank, world_size, port, log), out=null.fileno(), err=2)
            for rank in range(world_size)
        }


def wait(pids: dict[int, int], deadline: float, *, patient: bool = False) -> list[int]:
    """Wait for all ranks and return their exit codes by rank; those that still run at the deadline are killed.

    Unless `patient`, the others are killed once one fails, as launchers do.
    """
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        for rank, pid in pids.items():
            if rank not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[rank] = os.waitstatus_to_exitcode(status)
        if (any(codes.values()) and not patient) or time.monotonic() > deadline:
            for rank, pid in pids.items():
                if rank not in codes:
                    os.kill(pid, signal.SIGKILL)
                    codes[rank] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.002)
    return [codes[rank] for rank in sorted(codes)]


def trial(root: str, folder: Path, chance: random.Random, sent: signal.Signals, most_ranks: int) -> dict[str, object]:
    """End a run by a signal, run it again, and say what happened.

    SIGKILL reaches one rank, and the launcher kills the others. SIGINT and SIGTERM reach all, as from a terminal or a
    scheduler.
    """
    output, log = folder / "run", folder / "log"
    log.touch()
    arguments = ["eval", root, "-m", "slow_model:slow_model", "-b", "10", "-j", "1", "-o", str(output)]
    started = time.monotonic()
    world_sizes, codes_of_ended, lost = [], list[int](), 0
    for _ in range(chance.choice((1, 1, 2))):
        world_sizes.append(chance.randint(1, most_ranks))
        pids = launch(arguments, world_sizes[-1], log=log)
        _wait_for_the_moment(chance, log, pids)
        killed = sent == signal.SIGKILL
        for rank in [chance.randrange(world_sizes[-1])] if killed else pids:
            os.kill(pids[rank], sent)
        ended = wait(pids, time.monotonic() + DEADLINE_S, patient=not killed)
        codes_of_ended += ended
        lost += sum(code != 0 for code in ended)
    done_before = len(log.read_text().splitlines())
    world_sizes.append(chance.randint(1, most_ranks))
    codes = wait(launch(arguments, world_sizes[-1], log=log), time.monotonic() + DEADLINE_S)
    return {
        "signal": sent.name,
        "world_sizes": world_sizes,
        "codes_of_ended": codes_of_ended,
        "codes": codes,
        "lost_ranks": lost,
        "batches_before": done_before,
        "batches_in_all": len(log.read_text().splitlines()),
        "predictions": (output / "predictions.csv").read_text() if not any(codes) else None,
        "seconds": time.monotonic() - started,
    }


def _wait_for_the_moment(chance: random.Random, log: Path, pids: dict[int, int]) -> None:
    """Wait for a while of the start, or until some more batches are done and a little longer, or the run has ended."""
    if chance.random() < 0.25:
        time.sleep(chance.uniform(0.0, 0.3))
        return
    wanted = len(log.read_text().splitlines()) + chance.randint(1, 8)
    deadline = time.monotonic() + DEADLINE_S
    while len(log.read_text().splitlines()) < wanted and time.monotonic() < deadline and _any_runs(pids):
        time.sleep(0.001)
    time.sleep(chance.uniform(0.0, 0.02))


def _any_runs(pids: dict[int, int]) -> bool:
    return any(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for pid in pids.values())


def _rank(rank: int, world_size: int, port: int, log: Path) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "SLOW_MODEL_LOG": str(log),
        "SLOW_MODEL_SECONDS": "0.02",
    }


if __name__ == "__main__":
    wds_real.labels.bundled()
    trials_root, trials_folder, seed, count, most, *names = sys.argv[1:]
    for number in range(int(count)):
        place = Path(trials_folder) / f"{seed}-{number}"
        place.mkdir(parents=True)
        chance_of_trial = random.Random(f"{seed} {number}")  # noqa: S311 -- not for secrets
        report = trial(trials_root, place, chance_of_trial, signal.Signals[names[number % len(names)]], int(most))
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
