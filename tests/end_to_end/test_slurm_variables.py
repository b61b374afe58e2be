"""Which rank a process has under real SLURM: with srun, without it, in arrays, and in jobs of several components."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support import SUPPORT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from support.slurm import Cluster

SHOW = (sys.executable, str(SUPPORT / "show_world.py"))
COMMAND = shlex.join(SHOW)
NO_RANK = "no launcher set one"


def shown(text: str) -> list[dict[str, Any]]:
    return sorted((json.loads(line) for line in text.splitlines() if line.startswith("{")), key=str)


def places(text: str, kind: str) -> list[str]:
    return sorted(place[kind] for place in shown(text))


def batch(slurm: Cluster, folder: Path, options: Sequence[str], script: str) -> str:
    """Submit a script, wait for it, and return what its tasks printed."""
    job = slurm.submit(*options, "--output=%A-%a.log", "--wrap", script, cwd=folder)
    states = slurm.wait(job)
    text = "".join(path.read_text() for path in folder.glob(f"{job}-*.log"))
    assert set(states.values()) == {"COMPLETED"}, text
    return text


@pytest.mark.parametrize("launch", [(), ("salloc", "-N", "2", "--ntasks-per-node=2")], ids=["srun", "salloc"])
def test_tasks_of_srun(slurm: Cluster, launch: tuple[str, ...]) -> None:
    """Tasks on two nodes have their global rank, and their number on their node, whoever asked for the nodes."""
    ended = slurm.run(*launch, "srun", "-N", "2", "--ntasks-per-node=2", *SHOW)
    assert [(place["together"], place["local"]) for place in shown(ended.out)] == [
        ("0 of 4", 0), ("1 of 4", 1), ("2 of 4", 0), ("3 of 4", 1)
    ]  # fmt: skip
    assert places(ended.out, "alone") == ["0 of 4", "1 of 4", "2 of 4", "3 of 4"]


def test_a_step_is_smaller_than_its_allocation(slurm: Cluster) -> None:
    """In an allocation for four, srun -n 1 is one rank: the tasks of the step count, not those of the job."""
    ended = slurm.run("salloc", "-n", "4", "srun", "-n", "1", *SHOW)
    assert places(ended.out, "together") == places(ended.out, "alone") == ["0 of 1"]


def test_a_command_that_salloc_or_sbatch_starts_is_alone(slurm: Cluster, tmp_path: Path) -> None:
    """Without srun one process runs, whatever was asked for: it is no rank of several, and has no independent place."""
    for text in (slurm.run("salloc", "-n", "2", *SHOW).out, batch(slurm, tmp_path, ("-n", "2"), COMMAND)):
        (place,) = shown(text)
        assert place["together"] == "0 of 1"
        assert NO_RANK in place["alone"]


@pytest.mark.parametrize(
    ("indices", "size"), [("0-6", 7), ("1-7", 7), ("0-12:2", 7), ("10-16%3", 7), ("5", 1)], ids=str
)
def test_arrays(slurm: Cluster, tmp_path: Path, indices: str, size: int) -> None:
    """Each task of an array is one independent rank, wherever the indices start and whatever their step."""
    text = batch(slurm, tmp_path, (f"--array={indices}",), COMMAND)
    assert places(text, "alone") == [f"{rank} of {size}" for rank in range(size)]
    assert places(text, "together") == ["0 of 1"] * size


@pytest.mark.parametrize("indices", ["3,7", "0-1,10-12"])
def test_an_array_of_separate_indices_is_refused(slurm: Cluster, tmp_path: Path, indices: str) -> None:
    """SLURM tells a task no list of the indices, so its rank is not known: it is told what to do."""
    for place in shown(batch(slurm, tmp_path, (f"--array={indices}",), COMMAND)):
        assert "are not evenly spaced" in place["alone"]
        assert "Give --rank and --world-size" in place["alone"]


def test_srun_in_a_task_of_an_array(slurm: Cluster, tmp_path: Path) -> None:
    """One task of srun is the array's rank; with two it is not certain which number counts, and both are named."""
    text = batch(slurm, tmp_path, ("--array=0-2",), f"srun --ntasks=1 {COMMAND}")
    assert places(text, "alone") == ["0 of 3", "1 of 3", "2 of 3"]
    text = batch(slurm, tmp_path, ("--array=0-1", "-n", "2"), f"srun {COMMAND}")
    assert places(text, "together") == ["0 of 2", "0 of 2", "1 of 2", "1 of 2"]
    for place in shown(text):
        assert "SLURM_PROCID" in place["alone"]
        assert "SLURM_ARRAY_TASK_ID" in place["alone"]


def test_an_array_submitted_in_an_interactive_step(slurm: Cluster, tmp_path: Path) -> None:
    """What sbatch hands on of the step in which it is typed, srun --ntasks=1 replaces, as the recipe does."""
    outer = ("srun", "-n", "2", "bash", "-c")
    inner = f"sbatch --wait --array=0-1 --output=%a.log --wrap {shlex.quote(f'srun --ntasks=1 {COMMAND}')}"
    ended = slurm.run(*outer, f"test $SLURM_PROCID != 1 || {inner}", cwd=tmp_path)
    assert ended.code == 0, ended.err
    text = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert places(text, "alone") == ["0 of 2", "1 of 2"]
    assert places(text, "together") == ["0 of 1", "0 of 1"]


def test_a_step_over_two_components(slurm: Cluster) -> None:
    """Tasks of a heterogeneous step are ranks of one run, counted over all its components."""
    ended = slurm.run("srun", "-n", "1", *SHOW, ":", "-n", "2", *SHOW)
    assert ended.code == 0, ended.err
    assert places(ended.out, "together") == ["0 of 3", "1 of 3", "2 of 3"]


@pytest.mark.slow
def test_a_requeued_task_keeps_its_rank(slurm: Cluster, tmp_path: Path) -> None:
    """A task that SLURM starts again has the variables that it had before."""
    job = slurm.submit(
        "--array=0-1", "--output=%a.log", "--open-mode=append", "--wrap",
        f'{COMMAND}; test $SLURM_ARRAY_TASK_ID = 0 -o -n "${{SLURM_RESTART_COUNT:-}}" || sleep 600', cwd=tmp_path,
    )  # fmt: skip
    slurm.wait(job, "RUNNING")
    log = tmp_path / "1.log"
    slurm.wait_until(lambda: log.exists() and "alone" in log.read_text(), "line in the log")
    assert slurm.run("scontrol", "requeue", f"{job}_1").code == 0
    assert slurm.wait(job) == {"0": "COMPLETED", "1": "COMPLETED"}
    places_of = shown(log.read_text())
    assert [(place["alone"], place["restarts"]) for place in places_of] == [("1 of 2", "0"), ("1 of 2", "1")]
