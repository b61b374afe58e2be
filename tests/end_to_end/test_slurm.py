"""Evaluations under real SLURM, in a cluster of two nodes on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commands import MODEL, in_child
from support.s3 import free_ports

if TYPE_CHECKING:
    from support.slurm import Cluster

LAUNCH = Path(__file__).parents[2] / "scripts" / "launch"
BATCH_SIZE = 7


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
        cwd=tmp_path, MASTER_ADDR="localhost", MASTER_PORT=str(free_ports(1)[0]),
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
