"""Rank and world size from launchers, and reductions between real processes."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]  # torch's stubs lack it

from wds_real import PlanError, StoreError
from wds_real.data.distributed import World, agree_on_start, all_reduce, current_world, launched_world, process_group

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, World(0, 1, 0, 1)),
        (TORCHRUN, World(5, 8, 1, 4)),
        (SRUN, World(3, 4, 1, 1)),
        (SRUN | TORCHRUN, World(5, 8, 1, 4)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, World(1, 2, 0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, World(1, 2, 0, 2)),
        ({"RANK": "1"}, World(0, 1, 0, 1)),
        ({"WORLD_SIZE": "4"}, World(0, 1, 0, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, World(0, 1, 0, 1)),
    ],
)
def test_the_launcher_says_the_place(environ: dict[str, str], expected: World) -> None:
    """What torchrun says wins over srun; tasks that were not started do not count; nothing said is one process."""
    assert launched_world(environ) == expected


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK, WORLD_SIZE: invalid literal"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK, WORLD_SIZE: invalid literal"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK=2 is not in \[0, WORLD_SIZE=2\)"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({**TORCHRUN, "LOCAL_RANK": "one"}, "invalid literal"),
        ({**SRUN, "SLURM_PROCID": "9"}, "SLURM_PROCID=9"),
    ],
)
def test_an_impossible_place_is_a_plan_error(environ: dict[str, str], says: str) -> None:
    """The error names the variables."""
    with pytest.raises(PlanError, match=says):
        launched_world(environ)


def test_a_process_group_wins_over_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank and world size are the group's where there is one, and the launcher's again when it is gone."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert current_world() == World(5, 8, 1, 4)
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        assert current_world() == World(0, 1, 1, 4)
        with process_group(CPU) as world:
            assert world.world_size == 1
        assert dist.is_initialized()
        assert all_reduce(torch.tensor([3]), "sum").tolist() == [3]
    finally:
        dist.destroy_process_group()
    assert current_world() == World(5, 8, 1, 4)


def test_one_process_needs_no_group() -> None:
    """Alone, no group is made and a reduction gives back what it was given."""
    with process_group(CPU) as world:
        assert world == World()
        assert not dist.is_initialized()
        assert all_reduce(torch.tensor([3, 4]), "min").tolist() == [3, 4]


@pytest.mark.parametrize("known", [{}, {"MASTER_ADDR": "localhost"}])
def test_several_processes_need_an_address(known: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the address of rank 0 the error names what is not set, and how to set it under SLURM."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**SRUN, **known}.items():
        monkeypatch.setenv(name, value)
    missing = " and ".join(name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in known)
    with (
        pytest.raises(PlanError, match=f"4 processes were launched, but {missing} is not set.*scontrol"),
        process_group(CPU),
    ):
        pass


def test_each_start_agrees_on_a_name_of_its_own() -> None:
    """Over a store that keeps the traces of earlier starts, all ranks of a start get one name, and a new one."""
    store, timeout, names = HashStore(), dt.timedelta(seconds=30), list[str]()
    store.set("wds_real/token/2", "of a start that died")
    for _ in range(3):
        with ThreadPoolExecutor(3) as ranks:
            found = set(ranks.map(lambda rank: agree_on_start(store, World(rank, 3), timeout), range(3)))
        assert len(found) == 1
        names += found
    assert len(set(names)) == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_does_not_come_is_an_error(rank: int) -> None:
    """Whoever waits for another rank stops after the timeout with a StoreError."""
    with pytest.raises(StoreError, match="did not come within"):
        agree_on_start(HashStore(), World(rank, 2), dt.timedelta(seconds=0.2))


# Each process writes what it found to DIR/RANK.json; the tests below look at it.
SCRIPT = """
    import json, sys
    from pathlib import Path

    import torch
    import torch.distributed as dist

    from wds_real import CoverageError, EvalTransform, Loader, RealAccuracy, open_dataset
    from wds_real.data.distributed import all_reduce, current_world, process_group
    from wds_real.evaluation.loop import EvalOptions, evaluate
    from wds_real.synthetic import known_answer_model

    ds, folder = open_dataset(sys.argv[1]), Path(sys.argv[2])
    model, transform = known_answer_model()
    options = EvalOptions(batch_size=25, device="cpu")
    found = {}


    def comparable(result):
        found = result.as_dict()
        return {name: found[name] for name in found if name not in ("run", "model")}


    def error_of(metric):
        try:
            metric.compute()
        except CoverageError as error:
            return [str(error), list(error.missing), list(error.doubled)]


    found["evaluated"] = [comparable(evaluate(model, ds, transform=transform, options=options)) for _ in range(2)]
    found["group left"] = dist.is_initialized()
    with process_group(torch.device("cpu")) as world:
        found["world"] = [world.rank, world.world_size]
        mine = torch.tensor([world.rank + 1, -world.rank])
        found["reduced"] = [all_reduce(mine, "sum").tolist(), all_reduce(mine, "min").tolist(), mine.tolist()]
        found["evaluated in our group"] = comparable(evaluate(model, ds, transform=transform, options=options))
        found["group kept"] = dist.is_initialized()

        loader, metric = Loader(ds, batch_size=25, transform=EvalTransform(8)), RealAccuracy(ds)
        for batch in loader:
            metric.update(batch.original_label.clamp(min=0), batch)
        found["metric"] = metric.compute().as_dict()
        found["metric again"] = metric.compute().as_dict()
        found["not summed"] = error_of(metric.merge_state([]) if world.rank == 0 else RealAccuracy(ds))
        if world.rank == 1:
            metric.update(torch.tensor([0]), [ds.keys[0]])
        found["doubled"] = error_of(metric)
        alone = RealAccuracy(ds, sync_on_compute=False)
        alone.update(torch.zeros(120, dtype=torch.int64), ds.keys)
        found["alone"] = alone.compute().receipt
    (folder / f"{world.rank}.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "ranks.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


@pytest.fixture(scope="module")
def under_torchrun(script: Path, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes found that torchrun started."""
    folder = tmp_path_factory.mktemp("torchrun")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(packed), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_reductions_between_processes(under_torchrun: list[dict[str, Any]]) -> None:
    """Sum and minimum are over all ranks, the same on each, and leave what was given as it was."""
    assert [found["world"] for found in under_torchrun] == [[0, 2], [1, 2]]
    for rank, found in enumerate(under_torchrun):
        assert found["reduced"] == [[3, -1], [1, -1], [rank + 1, -rank]]


def test_a_group_is_left_as_it_was(under_torchrun: list[dict[str, Any]]) -> None:
    """`evaluate` ends the group it made, so that it can be called again, and keeps the caller's; results are equal."""
    for found in under_torchrun:
        assert (found["group left"], found["group kept"]) == (False, True)
        first, second = found["evaluated"]
        assert first == second == found["evaluated in our group"] == under_torchrun[0]["evaluated"][0]
        assert first["coverage"]["seen_once"] == 120


def test_metrics_in_a_loop_of_ones_own(under_torchrun: list[dict[str, Any]]) -> None:
    """Every rank computes the result of all, as often as it is asked; one that does not sync is by itself."""
    for found in under_torchrun:
        assert found["metric"]["accuracy"]["original_top1"]["correct"] == 120
        assert found["metric"]["coverage"] == {
            "expected": 120,
            "seen_once": 120,
            "missing": 0,
            "doubled": 0,
            "failed": [],
        }
        assert found["metric again"] == found["metric"] == under_torchrun[0]["metric"]
        assert found["alone"] == "120 expected, 120 seen once, 0 missing, 0 twice, 1 rank"


def test_missing_and_doubled_samples_are_found_over_ranks(under_torchrun: list[dict[str, Any]]) -> None:
    """What one rank left out, or counted though another did, is a CoverageError on every rank."""
    for found in under_torchrun:
        message, missing, doubled = found["not summed"]
        assert message.startswith("saw 50 of 120 samples (70 missing, 0 doubled) over 2 ranks.")
        assert (len(missing), doubled) == (70, [])
        message, missing, doubled = found["doubled"]
        assert message.startswith("saw 120 of 120 samples (0 missing, 1 doubled) over 2 ranks.")
        assert (missing, doubled) == ([], ["ILSVRC2012_val_00000001"])


def test_srun_without_torchrun(packed: Path, tmp_path: Path) -> None:
    """Processes that srun started and an address are enough: each image once, one result, told by rank 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "wds_real", "eval", str(packed), "-m", "wds_real.synthetic:known_answer_model"]
    environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "SLURM_STEP_NUM_TASKS": "2"}
    processes = [
        subprocess.Popen(
            [*command, "-b", "25", "--json"],
            env={**environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    (told, problems), (silent, others) = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], problems + others
    assert silent == ""
    assert json.loads(told)["coverage"]["seen_once"] == 120
    assert json.loads(told)["run"]["world_size"] == 2
