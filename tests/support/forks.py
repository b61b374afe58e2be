"""Commands in forks of one process that has imported the package: a run takes a fraction of the time of a start.

`python -m support.forks` reads one JSON object a line, runs it, and prints one JSON line; `ForkServer` talks to it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from support import SUPPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = [
    "COUNT",
    "DIED",
    "FAIL",
    "KILL_AFTER",
    "KILL_BEFORE",
    "KILL_WITHIN",
    "Fault",
    "ForkServer",
    "Trial",
    "fork_command",
    "fork_server",
]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TERMINATED = 143
DIED = 70  # the exit code of a fork that did not end by sys.exit, as `main` always does

# What `faults.c` does at the moment.
COUNT, KILL_BEFORE, KILL_WITHIN, KILL_AFTER, FAIL = range(5)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one of the system calls that change files below `folder`.

    Attributes:
        folder: Absolute path.
        mode: COUNT, KILL_BEFORE, KILL_WITHIN, KILL_AFTER or FAIL.
        moment: Number of the call, from 1.
        error: The errno of FAIL.
    """

    folder: Path
    mode: int = COUNT
    moment: int = 0
    error: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """How a command in a fork ended; `calls` names the system calls that were counted."""

    code: int
    out: str
    err: str
    seconds: float
    calls: list[str]


class ForkServer:
    """A process that runs commands in forks, one at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self,
        *arguments: str | Path,
        fault: Fault | None = None,
        limits: Mapping[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Trial:
        """Run a command; after `timeout_s` it is killed, and its exit code is -9.

        Args:
            arguments: Of ``wds-real``.
            fault: What happens to it; needs the server to be started with `faults.c`.
            limits: Soft and hard limits by their names in `resource`, such as ``RLIMIT_FSIZE``.
            environment: Variables to add.
            timeout_s: Seconds that the command may take.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        body = {
            "arguments": [str(argument) for argument in arguments],
            "fault": fault and [str(fault.folder), fault.mode, fault.moment, fault.error],
            "limits": dict(limits or {}),
            "environment": dict(environment or {}),
            "timeout_s": timeout_s,
        }
        self._process.stdin.write(json.dumps(body) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the fork server has ended"
        return Trial(**json.loads(line))


@contextmanager
def fork_server(preload: Path | None = None) -> Iterator[ForkServer]:
    """Start a server of forks, with a library of `faults.c` if one is given."""
    environment = {**os.environ, "PYTHONPATH": f"{SUPPORT}:{SUPPORT.parent}", "OMP_NUM_THREADS": "1"}
    if preload is not None:
        environment |= {"LD_PRELOAD": str(preload), "WDS_REAL_FAULTS": str(preload)}
    with subprocess.Popen(
        [sys.executable, "-m", "support.forks"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            yield ForkServer(process)
        finally:
            process.kill()


def fork_command(
    arguments: list[str],
    *,
    environment: Mapping[str, str],
    out: int,
    err: int,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> int:
    """Run a command in a fork and return its process id.

    Args:
        arguments: Of ``wds-real``.
        environment: Variables to add.
        out: The descriptor that becomes its stdout.
        err: The descriptor that becomes its stderr.
        before: Called in the fork before the command.
        after: Called in the fork after the command, unless that is killed.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # one that comes early is received by the command
    pid = os.fork()
    if pid == 0:
        code = DIED
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started this in the background
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.environ.update(environment)
            before()
            code = _exit_code(arguments)
            after()
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    return pid


def _exit_code(arguments: list[str]) -> int:
    from wds_real.cli.main import main

    try:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            main(arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    except SystemExit as done:
        sys.stdout.flush()
        sys.stderr.flush()
        return done.code if isinstance(done.code, int) else DIED
    except KeyboardInterrupt:  # before `main` takes over
        return 130
    except BaseException:  # noqa: BLE001 -- shown as the interpreter would
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    return DIED


def _serve(requests: IO[str]) -> None:
    library = os.environ.get("WDS_REAL_FAULTS")
    faults = None if library is None else ctypes.CDLL(library)
    if faults is not None:
        faults.faults_names.restype = ctypes.c_void_p
    for line in requests:
        sys.stdout.write(json.dumps(_trial(json.loads(line), faults)) + "\n")
        sys.stdout.flush()


def _trial(request: dict[str, Any], faults: ctypes.CDLL | None) -> dict[str, Any]:
    pipes = {name: os.pipe() for name in ("out", "err", "calls")}

    def before() -> None:
        for name, value in request["limits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        if faults is not None and request["fault"] is not None:
            folder, mode, moment, error = request["fault"]
            faults.faults_arm(os.fsencode(folder), mode, ctypes.c_long(moment), error)

    def after() -> None:
        if faults is not None:
            os.write(pipes["calls"][1], ctypes.string_at(faults.faults_names()))

    started = time.monotonic()
    pid = fork_command(
        request["arguments"],
        environment=request["environment"],
        out=pipes["out"][1], err=pipes["err"][1],
        before=before, after=after,
    )  # fmt: skip
    for _, write in pipes.values():
        os.close(write)
    read = _read_all({name: read for name, (read, _) in pipes.items()}, pid, started + request["timeout_s"])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"code": code, "seconds": time.monotonic() - started, **read, "calls": read["calls"].split()}


def _read_all(descriptors: dict[str, int], pid: int, deadline: float) -> dict[str, str]:
    """Read the pipes to their ends; kill the process at the deadline."""
    read = dict.fromkeys(descriptors, b"")
    with selectors.DefaultSelector() as selector:
        for name, descriptor in descriptors.items():
            selector.register(descriptor, selectors.EVENT_READ, name)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                os.kill(pid, signal.SIGKILL)
                deadline = time.monotonic() + 10.0
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                read[key.data] += data
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return {name: data.decode("utf-8", "replace") for name, data in read.items()}


if __name__ == "__main__":
    import importlib

    from wds_real.labels import bundled, classes

    for command in (
        "compare",
        "eval",
        "merge",
        "score",
        *(f"datasets.{name}" for name in ("index", "info", "pack", "verify")),
    ):
        importlib.import_module(f"wds_real.cli.commands.{command}")
    for module in ("wds_real.evaluation.loop", "wds_real.packing.verification", "support.slow_model"):
        importlib.import_module(module)
    bundled(), classes()
    gc.collect()
    gc.freeze()
    _serve(sys.stdin)
