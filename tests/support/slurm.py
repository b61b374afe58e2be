"""A SLURM cluster on this machine, as a context manager: the real munged, slurmctld and two slurmd.

Everything listens on loopback only and lies in one folder; nothing of a SLURM that is installed here is read or
changed. The nodes have more CPUs and GPUs than the machine: SLURM counts them, nothing uses them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.commands import Ended
from support.s3 import DIE_WITH_PARENT, free_ports
from support.wire import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["NODES", "Cluster", "cluster", "missing_programs"]

# The first is where tasks meet, so its name is one that resolves.
NODES = ("127.0.0.1", "127.0.0.2")
CPUS = 64
GPUS = 8
READY_S = 120.0
STOP_S = 60.0
COMMAND_S = 400.0
POLL_S = 0.1
_PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "scancel", "scontrol")
_SYSTEM = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # where daemons are, which is not in every user's PATH

# No cgroups, no accounting and no limits of memory. A requeued job waits until its credential has expired
# (2 minutes, unless set).
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost({loopback})
SlurmctldPort={controller_port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={short}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={short}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
ReturnToService=2
KillWait=10
GresTypes=gpu
{nodes}
PartitionName=test Nodes=ALL Default=YES State=UP
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster with two nodes of 64 CPUs and 8 GPUs, all of them this machine.

    Attributes:
        folder: Its configuration, state and logs.
    """

    folder: Path

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of commands: this one without a job's variables, and ``wds-real`` of this Python."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return {
            **kept,
            "PATH": programs,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "OMP_NUM_THREADS": "1",
            **(more or {}),
        }

    def run(self, *command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> Ended:
        """Run one of SLURM's commands, with variables to add, and return how it ended."""
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=False, cwd=cwd or self.folder,
            env=self.environment(environment),
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def submit(
        self, *arguments: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> str:
        """Submit a script with sbatch, which hands on the environment, and return the number of the job."""
        done = self.run("sbatch", "--parsable", *arguments, cwd=cwd, environment=environment)
        assert done.code == 0, done.err
        return done.out.strip()

    def tasks(self, job: str) -> dict[str, str]:
        """Return the state of each task of a job by its array index, or of the job itself by ``N/A``."""
        done = self.run("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%K %T")
        assert done.code == 0, done.err
        return dict(line.split() for line in done.out.splitlines())

    def wait(self, job: str, state: str = "", *, timeout_s: float = 400.0) -> dict[str, str]:
        """Wait until all tasks of a job have ended, or one of them is in `state`; return the states of all."""
        deadline = time.monotonic() + timeout_s
        while True:
            tasks = self.tasks(job)
            if state in tasks.values() if state else not _ACTIVE.intersection(tasks.values()):
                return tasks
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"after {timeout_s:.0f} s the tasks of job {job} are {tasks}, not {state or 'ended'}"
                )
            time.sleep(POLL_S)

    def wait_until(self, is_so: Callable[[], bool], what: str, *, timeout_s: float = 240.0) -> None:
        """Wait for something that a job does."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} after {timeout_s:.0f} s; the queue is {self.run('squeue').out}")
            time.sleep(POLL_S)


_ACTIVE = frozenset({"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED", "STAGE_OUT"})


def missing_programs() -> str:
    """Return why no cluster can run here, fit for a skip; empty if it can."""
    missing = [name for name in _PROGRAMS if _which(name) is None]
    if sys.platform != "linux":
        return "SLURM runs on Linux"
    if missing:
        return f"{', '.join(missing)}: not installed (apt-get install slurmctld slurmd slurm-client munge)"
    return ""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run SLURM on an empty `folder`; its nodes are idle when this yields, and nothing of it is left at the end.

    Enter it from a thread that lives as long as the cluster (the main thread): its daemons die with that thread.

    Raises:
        RuntimeError: it was not ready in time; the message has the ends of the logs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    running = Cluster(folder)
    with contextlib.ExitStack() as daemons:
        # For sockets, whose paths may have 107 characters: a test's folder can be too long for them.
        short = Path(daemons.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        _configure(folder, short)
        munge = [f"--socket={short / 'munge.socket'}"]
        munge += [f"--{name}={folder / file}" for name, file in _MUNGE_FILES.items()]
        # --force: the socket lies in a folder of the user who runs the tests, which munged does not like.
        daemons.enter_context(_daemon(running, "munged", "--foreground", "--force", "--num-threads=2", *munge))
        _wait_for(folder, "munged's socket", (short / "munge.socket").exists)
        daemons.enter_context(_daemon(running, "slurmctld", "-D", "-f", folder / "slurm.conf"))
        for node in NODES:
            daemons.enter_context(_daemon(running, "slurmd", "-D", "-N", node, "-f", folder / "slurm.conf"))
        _wait_for(folder, "idle nodes", lambda: _states(running) == ["idle"] * len(NODES))
        try:
            yield running
        finally:
            _cancel_all(running)
    for pid in _left(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


_MUNGE_FILES = {
    "key-file": "munge.key",
    "pid-file": "munged.pid",
    "seed-file": "munged.seed",
    "log-file": "munged.log",
}


def _configure(folder: Path, short: Path) -> None:
    controller_port, *node_ports = free_ports(1 + len(NODES))
    host = socket.gethostname().split(".")[0]
    nodes = [
        f"NodeName={node} NodeHostname={host} NodeAddr={LOOPBACK} Port={port} CPUs={CPUS} Gres=gpu:{GPUS}"
        for node, port in zip(NODES, node_ports, strict=True)
    ]
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            loopback=LOOPBACK, controller_port=controller_port, folder=folder, short=short, user=folder.owner(),
            nodes="\n".join(nodes),
        )
    )  # fmt: skip
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
    for number in range(GPUS):
        (folder / f"gpu{number}").touch()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    for path in (folder / "state", *(short / node for node in NODES)):
        path.mkdir()


@contextlib.contextmanager
def _daemon(running: Cluster, program: str, *arguments: str | Path) -> Iterator[None]:
    command: Sequence[str | Path] = (_which(program) or program, *arguments)
    with (running.folder / f"{program}.out").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, *command],
            cwd=running.folder, env=running.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cancel_all(running: Cluster) -> None:
    """Cancel all jobs, and wait until SLURM has ended their processes."""
    jobs = running.run("squeue", "--noheader", "--format=%A").out.split()
    if jobs:
        running.run("scancel", *dict.fromkeys(jobs))
    deadline = time.monotonic() + STOP_S
    while running.run("squeue", "--noheader").out.strip() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _left(folder: Path) -> list[int]:
    """Return the processes that belong to the cluster of `folder`: its variable is in their environment."""
    variable = f"SLURM_CONF={folder / 'slurm.conf'}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended, or of another user
            if variable in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def _states(running: Cluster) -> list[str]:
    return running.run("sinfo", "--noheader", "--Node", "--format=%t").out.split()


def _wait_for(folder: Path, what: str, is_ready: Callable[[], bool]) -> None:
    started = time.monotonic()
    while not is_ready():
        if time.monotonic() > started + READY_S:
            logs = "; ".join(f"{path.name}: {path.read_text(errors='replace')[-600:]}" for path in folder.glob("*.out"))
            raise RuntimeError(f"SLURM: no {what} after {READY_S:.0f} s. {logs}")
        time.sleep(POLL_S)


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM)))
