"""The SLURM cluster of the tests: nothing of it is left, and it listens on loopback only."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import pytest

from support import slurm

pytestmark = pytest.mark.skipif(bool(slurm.missing_programs()), reason=slurm.missing_programs())

LISTENS = "0A"  # the state, in /proc/net/tcp
LOOPBACK = "0100007F"  # 127.0.0.1, in the order of bytes of /proc/net/tcp


def test_nothing_is_left_of_a_cluster_with_jobs(tmp_path: Path) -> None:
    """At the end of the block running tasks, waiting jobs, the daemons and a waiting srun have ended."""
    with slurm.cluster(tmp_path / "cluster") as cluster:
        job = cluster.submit("--array=0-20", "--cpus-per-task=8", "--wrap", "sleep 600")
        cluster.wait(job, "RUNNING")
        assert "PENDING" in cluster.tasks(job).values()
        waiting = subprocess.Popen(["srun", "-n", "2", "sleep", "600"], env=cluster.environment())
        assert any("sleep" in command for command in processes_of(tmp_path / "cluster").values())
    assert waiting.wait(60) != 0
    assert processes_of(tmp_path / "cluster") == {}


def test_a_folder_with_a_long_path_will_do(tmp_path: Path) -> None:
    """Sockets have short paths, and lie elsewhere."""
    with slurm.cluster(tmp_path / ("long" * 25)) as cluster:
        assert cluster.run("srun", "-n", "2", "true").code == 0


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    """The controller, both nodes and an srun that runs listen at 127.0.0.1 and nowhere else."""
    with slurm.cluster(tmp_path / "cluster") as cluster:
        running = subprocess.Popen(["srun", "sleep", "600"], env=cluster.environment())
        deadline = time.monotonic() + 60
        while not (addresses := listening(running.pid)):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for pid in processes_of(tmp_path / "cluster"):
            addresses += listening(pid)
    running.wait(60)
    assert len(addresses) >= 4
    assert set(addresses) == {LOOPBACK}


def test_a_cluster_that_cannot_start_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that ends at once is an error with the end of its log, and nothing is left."""

    def states(cluster: slurm.Cluster) -> list[str]:
        if "CPUs" in (cluster.folder / "slurmctld.out").read_text():
            monkeypatch.setattr(slurm, "READY_S", 0.0)
        return []

    monkeypatch.setattr(slurm, "_states", states)
    monkeypatch.setattr(slurm, "CPUS", -1)
    with pytest.raises(RuntimeError, match=r"slurmctld\.out: .*CPUs"), slurm.cluster(tmp_path / "cluster"):
        pass
    assert processes_of(tmp_path / "cluster") == {}


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that need SLURM skip with a reason that says what to install."""
    which = slurm._which
    monkeypatch.setattr(slurm, "_which", lambda program: None if program == "slurmctld" else which(program))
    assert slurm.missing_programs() == (
        "slurmctld: not installed (apt-get install slurmctld slurmd slurm-client munge)"
    )


def processes_of(folder: Path) -> dict[int, str]:
    """Return the command lines of the processes that have the cluster's variable in their environment."""
    variable = f"SLURM_CONF={folder}/slurm.conf".encode()
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
    return found


def listening(pid: int) -> list[str]:
    """Return the addresses, as hexadecimal digits, at which a process listens for TCP."""
    sockets: set[str] = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(descriptor.readlink()))
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].split(":")[0] for row in rows if row[3] == LISTENS and f"socket:[{row[9]}]" in sockets]
