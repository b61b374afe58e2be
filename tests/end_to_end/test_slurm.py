"""Evaluations under real SLURM, in a cluster of two nodes on this machine."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import SUPPORT
from support.commands import MODEL, in_child
from support.s3 import free_ports

if TYPE_CHECKING:
    from support.s3 import S3Server
    from support.slurm import Cluster

LAUNCH = Path(__file__).parents[2] / "scripts" / "launch"
SLOW_MODEL = "slow_model:slow_model"
BATCH_SIZE = 7
NUM_BATCHES = 18  # of 120 images

pytestmark = pytest.mark.timeout(900)  # each test starts up to ten processes that import torch


@pytest.fixture(scope="module")
def alone(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the predictions of one process."""
    output = tmp_path_factory.mktemp("alone")
    ended = in_child("eval", packed, "-m", MODEL, "-b", str(BATCH_SIZE), "-o", output)
    assert ended.code == 0, ended.err
    return digest(output)


def digest(output: Path) -> str:
    return hashlib.sha256((output / "predictions.csv").read_bytes()).hexdigest()


def test_two_tasks_of_srun_meet(slurm: Cluster, packed: Path, alone: str, tmp_path: Path) -> None:
    """With MASTER_ADDR and MASTER_PORT, srun -n 2 is one run of two ranks: the predictions of one process."""
    ended = slurm.run(
        "srun", "-n", "2", "wds-real", "eval", packed, "-m", MODEL, "-b", str(BATCH_SIZE), "-o", "run",
        cwd=tmp_path, environment={"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_ports(1)[0])},
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert ended.out.count("coverage: 120 expected, 120 seen once, 0 missing, 0 twice, 2 ranks") == 1
    assert digest(tmp_path / "run") == alone


@pytest.mark.slow
def test_the_recipe_of_one_job(slurm: Cluster, packed: Path, alone: str, tmp_path: Path) -> None:
    """The recipe slurm.sh on two nodes with two tasks each is one run of four: the predictions of one process."""
    job = slurm.submit(
        "--nodes=2", "--ntasks-per-node=2", LAUNCH / "slurm.sh", packed, MODEL, "run", "-b", str(BATCH_SIZE),
        cwd=tmp_path,
    )  # fmt: skip
    states = slurm.wait(job)
    log = (tmp_path / f"wds-real-{job}.log").read_text()
    assert states == {"N/A": "COMPLETED"}, log
    assert "120 seen once, 0 missing, 0 twice, 4 ranks" in log
    assert digest(tmp_path / "run") == alone


@pytest.mark.slow
def test_a_job_whose_task_dies_goes_on_with_other_tasks(
    slurm: Cluster, packed: Path, alone: str, tmp_path: Path
) -> None:
    """The other tasks end with the one that is killed; the same line again, of another size, does what is missing."""
    log = tmp_path / "batches"
    arguments = (LAUNCH / "slurm.sh", packed, SLOW_MODEL, "run", "-b", str(BATCH_SIZE), "--timeout", "1800")
    job = slurm.submit("--ntasks-per-node=2", *arguments, cwd=tmp_path, environment=slow(log, held_at=2))
    os.kill(int(batches_of(slurm, log, 4)[-1].split()[1]), signal.SIGKILL)
    log.with_suffix(".go").touch()
    assert slurm.wait(job) == {"N/A": "FAILED"}
    done = len(log.read_text().splitlines())
    assert done < NUM_BATCHES
    job = slurm.submit("--ntasks-per-node=3", *arguments, cwd=tmp_path, environment=slow(log))
    assert slurm.wait(job) == {"N/A": "COMPLETED"}
    assert len(log.read_text().splitlines()) <= NUM_BATCHES + 2 * 2
    assert digest(tmp_path / "run") == alone


@pytest.mark.slow
def test_a_requeued_job_does_only_what_is_missing(slurm: Cluster, packed: Path, alone: str, tmp_path: Path) -> None:
    """SLURM starts a preempted job again by itself; it goes on from the records."""
    log = tmp_path / "batches"
    job = slurm.submit(
        "--ntasks-per-node=2", LAUNCH / "slurm.sh", packed, SLOW_MODEL, "run", "-b", str(BATCH_SIZE),
        cwd=tmp_path, environment=slow(log, held_at=2),
    )  # fmt: skip
    tasks = {line.split()[1] for line in batches_of(slurm, log, 4)}
    assert slurm.run("scontrol", "requeue", job).code == 0
    slurm.wait_until(lambda: not any(map(runs, tasks)), "end of both tasks")
    log.with_suffix(".go").touch()
    assert slurm.wait(job) == {"N/A": "COMPLETED"}
    assert 4 < len(log.read_text().splitlines()) <= NUM_BATCHES + 2 * 2
    assert digest(tmp_path / "run") == alone


def test_an_array_of_seven(slurm: Cluster, packed: Path, alone: str, tmp_path: Path) -> None:
    """The recipe slurm_array.sh, as it is: seven tasks, none waits for another, one of them makes the result."""
    job = slurm.submit(LAUNCH / "slurm_array.sh", packed, MODEL, "run", "-b", str(BATCH_SIZE), cwd=tmp_path)
    states, logs = slurm.wait(job), logs_of(tmp_path, job)
    assert states == dict.fromkeys(map(str, range(7)), "COMPLETED"), logs
    assert any("120 seen once, 0 missing, 0 twice" in text for text in logs.values())
    assert digest(tmp_path / "run") == alone


@pytest.mark.slow
def test_an_array_into_a_bucket(slurm: Cluster, packed: Path, alone: str, tmp_path: Path, s3: S3Server) -> None:
    """Seven tasks that share no folder, but a bucket: the same predictions."""
    secrets = {
        "AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key, "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3.endpoint,
    }  # fmt: skip
    url = "s3://test/slurm/array"
    job = slurm.submit(
        LAUNCH / "slurm_array.sh", packed, MODEL, url, "-b", str(BATCH_SIZE), "--output-option", "allow_http=true",
        cwd=tmp_path, environment=secrets,
    )  # fmt: skip
    states, logs = slurm.wait(job), logs_of(tmp_path, job)
    assert set(states.values()) == {"COMPLETED"}, logs
    status, _, body = s3.request("GET", "/test/slurm/array/predictions.csv")
    assert status == 200
    assert hashlib.sha256(body).hexdigest() == alone


@pytest.mark.slow
@pytest.mark.parametrize("rest", [("--array=0-1",), ("--array=0-0", "--steal")], ids=["another size", "steal"])
def test_an_array_of_which_half_never_started(
    slurm: Cluster, packed: Path, alone: str, tmp_path: Path, rest: tuple[str, ...]
) -> None:
    """The tasks that ran and merge say what is missing, and there is no result; a later array makes it."""
    arguments = (LAUNCH / "slurm_array.sh", packed, MODEL, "run", "-b", str(BATCH_SIZE))
    job = slurm.submit("--array=0-6%1", *arguments, cwd=tmp_path)
    slurm.wait(job, "RUNNING")
    after = ("--dependency", f"afterany:{job}", "--output", "merge.log")
    merge = slurm.submit(*after, "--wrap", "wds-real merge run", cwd=tmp_path)
    assert slurm.run("scancel", f"{job}_[3-6]").code == 0
    states, logs = slurm.wait(job), logs_of(tmp_path, job)
    assert states == dict.fromkeys("012", "COMPLETED"), logs  # SLURM forgets tasks that it never started
    assert "11 of 18 are not recorded yet, of ranks 3, 4, 5, 6" in logs["2"]
    assert not (tmp_path / "run" / "result.json").exists()
    assert slurm.wait(merge) == {"N/A": "FAILED"}
    assert "ExitCode=3:0" in slurm.run("scontrol", "show", "job", merge).out
    assert "120 samples (71 missing, 0 doubled)" in (tmp_path / "merge.log").read_text()
    array, *steal = rest
    job = slurm.submit(array, *arguments, *steal, cwd=tmp_path)
    states, logs = slurm.wait(job), logs_of(tmp_path, job)
    assert set(states.values()) == {"COMPLETED"}, logs
    assert digest(tmp_path / "run") == alone


@pytest.mark.slow
def test_a_cancelled_task_keeps_its_finished_batches(slurm: Cluster, packed: Path, alone: str, tmp_path: Path) -> None:
    """After scancel of one task the other one ends; the same array again does only what was not finished."""
    log = tmp_path / "batches"
    arguments = ("--array=0-1", LAUNCH / "slurm_array.sh", packed, SLOW_MODEL, "run", "-b", str(BATCH_SIZE))
    job = slurm.submit(*arguments, cwd=tmp_path, environment=slow(log, held_at=3))
    tasks = {line.split()[1] for line in batches_of(slurm, log, 6)}
    assert slurm.run("scancel", f"{job}_1").code == 0
    slurm.wait_until(lambda: sum(map(runs, tasks)) == 1, "end of one task")
    log.with_suffix(".go").touch()
    assert slurm.wait(job) == {"0": "COMPLETED", "1": "CANCELLED"}
    assert "finished batches are saved in run" in logs_of(tmp_path, job)["1"]
    assert len(log.read_text().splitlines()) < NUM_BATCHES
    job = slurm.submit(*arguments, cwd=tmp_path, environment=slow(log))
    assert slurm.wait(job) == {"0": "COMPLETED", "1": "COMPLETED"}
    assert len(log.read_text().splitlines()) <= NUM_BATCHES + 2
    assert digest(tmp_path / "run") == alone


def slow(log: Path, *, held_at: int = 0) -> dict[str, str]:
    """Return the variables of a model that notes each batch in `log`; each task waits in its batch `held_at`."""
    log.touch()
    return {"PYTHONPATH": str(SUPPORT), "SLOW_MODEL_LOG": str(log), "SLOW_MODEL_HOLDS_AT": str(held_at)}


def batches_of(slurm: Cluster, log: Path, count: int) -> list[str]:
    """Wait until so many batches are noted in `log`, and return its lines."""
    slurm.wait_until(lambda: len(log.read_text().splitlines()) >= count, f"{count} batches")
    return log.read_text().splitlines()


def runs(pid: str) -> bool:
    return Path("/proc", pid).exists()


def logs_of(folder: Path, job: str) -> dict[str, str]:
    """Return what each task of an array printed, by its index."""
    return {path.stem.split("_")[-1]: path.read_text() for path in folder.glob(f"wds-real-{job}_*.log")}
