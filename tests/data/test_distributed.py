"""The process group, and reductions over real processes."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.distributed as dist
from support.s3 import free_ports
from torch.distributed import HashStore  # type: ignore[attr-defined]  # torch's stubs lack it

from wds_real import PlanError, StoreError
from wds_real.data.distributed import (
    SharedCount,
    agree_on_backend,
    agree_on_start,
    all_reduce,
    current_world,
    device_identity,
    process_group,
)
from wds_real.data.launchers import World

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}


def test_a_process_group_wins_over_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank and world size are those of the process group if there is one, else those of the launcher."""
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
    """With one process, no group is created, and a reduction returns its input."""
    with process_group(CPU) as world:
        assert world == World()
        assert not dist.is_initialized()
        assert all_reduce(torch.tensor([3, 4]), "min").tolist() == [3, 4]


@pytest.mark.parametrize("known", [{}, {"MASTER_ADDR": "localhost"}])
def test_several_processes_need_an_address(known: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the address of rank 0, the error names the missing variables and how to set them under SLURM."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**SRUN, **known}.items():
        monkeypatch.setenv(name, value)
    missing = " and ".join(name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in known)
    alone = "unset SLURM_PROCID and SLURM_STEP_NUM_TASKS .*srun -n 1"
    says = rf"4 processes were launched, but {missing} (is|are) not set\. To run alone, {alone}.*scontrol"
    with (
        pytest.raises(PlanError, match=says),
        process_group(CPU),
    ):
        pass


def test_each_start_agrees_on_a_new_name() -> None:
    """All ranks of a start get the same name, which no earlier start in the same store had."""
    store, timeout, names = HashStore(), dt.timedelta(seconds=30), list[str]()
    store.set("wds_real/token/2", "of an earlier start")
    for _ in range(3):
        with ThreadPoolExecutor(3) as ranks:
            found = set(ranks.map(lambda rank: agree_on_start(store, World(rank, 3), timeout), range(3)))
        assert len(found) == 1
        names += found
    assert len(set(names)) == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_missing_rank_is_an_error_after_the_timeout(rank: int) -> None:
    """Rank 0 and the others raise StoreError when a rank does not join within the timeout."""
    with pytest.raises(StoreError, match="did not join within"):
        agree_on_start(HashStore(), World(rank, 2), dt.timedelta(seconds=0.2))


@pytest.mark.parametrize(
    ("devices", "own", "expected", "says"),
    [
        (["GPU-a", "GPU-b", "GPU-c"], "nccl", "nccl", ""),
        (["GPU-a", "GPU-a"], "nccl", "gloo", "2 processes share 1 device: gloo connects them, as nccl takes one"),
        (["GPU-a", "GPU-b", "GPU-b"], "xccl", "gloo", "3 processes share 2 devices"),
        (["host mps:0", "host mps:0"], "gloo", "gloo", ""),
        (["GPU-a"], "nccl", "nccl", ""),
    ],
)
def test_ranks_that_share_a_device_are_connected_by_gloo(
    devices: list[str], own: str, expected: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All ranks agree on the backend of their devices; if two share one, on gloo, and rank 0 says so once."""
    store, size = HashStore(), len(devices)
    with ThreadPoolExecutor(size) as ranks:
        found = ranks.map(lambda rank: agree_on_backend(store, World(rank, size), devices[rank], own=own), range(size))
        assert set(found) == {expected}
    assert says in caplog.text
    assert len(caplog.records) == bool(says)


def test_a_rank_whose_device_is_not_known_ends_the_wait() -> None:
    """Rank 0 waits for the devices of all ranks no longer than the store's timeout."""
    store = HashStore()
    store.set_timeout(dt.timedelta(seconds=0.2))
    with pytest.raises(RuntimeError):
        agree_on_backend(store, World(0, 2), "GPU-a", own="nccl")


def test_a_device_is_told_from_others_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by its number, which is 0 in each process that sees only its own; without a uuid by host and number."""
    module = SimpleNamespace(get_device_properties=lambda device: SimpleNamespace(uuid=f"GPU-{device.index}"))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module if device.type == "cuda" else None)
    assert device_identity(torch.device("cuda", 3)) == "GPU-3"
    assert device_identity(torch.device("mps", 0)) == f"{socket.gethostname()} mps:0"
    module.get_device_properties = lambda _: SimpleNamespace(name="without")
    assert device_identity(torch.device("cuda", 1)) == f"{socket.gethostname()} cuda:1"


# Each process writes its findings to DIR/RANK.json, which the tests below read.
SCRIPT = """
    import json, sys
    from pathlib import Path

    import torch
    import torch.distributed as dist

    from wds_real import CoverageError, EvalTransform, Loader, RealAccuracy, open_dataset
    from wds_real.data.distributed import all_reduce, current_world, process_group
    from wds_real.evaluation.loop import evaluate
    from wds_real.evaluation.options import EvalOptions
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
        found["evaluated in the group"] = comparable(evaluate(model, ds, transform=transform, options=options))
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
    """The findings of two processes under torchrun."""
    folder = tmp_path_factory.mktemp("torchrun")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(packed), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_reductions_over_processes(under_torchrun: list[dict[str, Any]]) -> None:
    """Sum and minimum over all ranks are equal on each rank; the input is unchanged."""
    assert [found["world"] for found in under_torchrun] == [[0, 2], [1, 2]]
    for rank, found in enumerate(under_torchrun):
        assert found["reduced"] == [[3, -1], [1, -1], [rank + 1, -rank]]


def test_evaluate_ends_only_the_group_it_created(under_torchrun: list[dict[str, Any]]) -> None:
    """`evaluate` destroys its own process group, keeps the caller's, and gives the same result with both."""
    for found in under_torchrun:
        assert (found["group left"], found["group kept"]) == (False, True)
        first, second = found["evaluated"]
        assert first == second == found["evaluated in the group"] == under_torchrun[0]["evaluated"][0]
        assert first["coverage"]["seen_once"] == 120


def test_the_metric_in_a_custom_loop(under_torchrun: list[dict[str, Any]]) -> None:
    """compute() gives the result of all ranks on each rank, repeatedly; without sync, that of one rank."""
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
    """An image that no rank or two ranks counted is a CoverageError on every rank."""
    for found in under_torchrun:
        message, missing, doubled = found["not summed"]
        assert message.startswith("saw 50 of 120 samples (70 missing, 0 doubled) over 2 ranks.")
        assert (len(missing), doubled) == (70, [])
        message, missing, doubled = found["doubled"]
        assert message.startswith("saw 120 of 120 samples (0 missing, 1 doubled) over 2 ranks.")
        assert (missing, doubled) == ([], ["ILSVRC2012_val_00000001"])


def test_srun_without_torchrun(packed: Path, tmp_path: Path) -> None:
    """Under srun, with MASTER_ADDR set, each image is evaluated once, and rank 0 prints one result."""
    command = [sys.executable, "-m", "wds_real", "eval", str(packed), "-m", "wds_real.synthetic:known_answer_model"]
    environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0])}
    environ["SLURM_STEP_NUM_TASKS"] = "2"
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
    (printed, problems), (nothing, others) = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], problems + others
    assert nothing == ""
    assert json.loads(printed)["coverage"]["seen_once"] == 120
    assert json.loads(printed)["run"]["world_size"] == 2


# A process whose device the process group takes for one of CUDA; the arguments are the device's uuid and a folder. The
# backends go to FOLDER/RANK.json: processes under torchrun share its stdout, where their lines can mix.
SHARING = """
    import json, logging, sys
    from pathlib import Path
    from types import SimpleNamespace

    import torch
    import torch.distributed as dist

    from wds_real.data.distributed import all_reduce, process_group

    properties = SimpleNamespace(uuid=sys.argv[1])
    torch.get_device_module = lambda device: SimpleNamespace(get_device_properties=lambda device: properties)
    torch.accelerator.set_device_index = lambda device: None
    logging.basicConfig(format="%(message)s")
    backends = []
    for start in range(3):
        with process_group(torch.device("cuda", 0), timeout_s=60) as world:
            backends.append(dist.get_backend())
            assert all_reduce(torch.tensor([world.rank + start]), "sum").tolist() == [1 + 2 * start]
    Path(sys.argv[2], f"{world.rank}.json").write_text(json.dumps(backends))
"""


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_processes_that_share_a_device_reduce_over_gloo(launcher: str, tmp_path: Path) -> None:
    """Under either launcher, and in each of several groups, they agree on gloo, and rank 0 says so each time."""
    script = tmp_path / "sharing.py"
    script.write_text(textwrap.dedent(SHARING))
    arguments = [str(script), "GPU-a", str(tmp_path)]
    if launcher == "torchrun":
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
        environs = [dict(os.environ)]
    else:
        command = arguments
        environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0])}
        environ["SLURM_STEP_NUM_TASKS"] = "2"
        environs = [{**environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, *command], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for environ in environs
    ]
    shown = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), shown
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [["gloo"] * 3] * 2
    assert sum(problems.count("2 processes share 1 device: gloo connects them") for _, problems in shown) == 3


def two_ranks(code: str, redirected: str = "") -> list[tuple[str, str]]:
    """Run code that joins a process group on two ranks, and return what each printed on stdout and stderr."""
    environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0]), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, code],
            env={**environ, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [rank.communicate(timeout=240) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], ended
    return ended


def test_stdout_is_for_results() -> None:
    """What a backend prints on stdout while it connects goes to stderr; what follows is on stdout again."""
    code = (
        "import os, torch, torch.distributed as dist\n"
        "from wds_real.data.distributed import process_group\n"
        "create = dist.init_process_group\n"
        "def noisy(*arguments, **options):\n"
        "    os.write(1, b'a peer is connected\\n')\n"
        "    create(*arguments, **options)\n"
        "dist.init_process_group = noisy\n"
        "with process_group(torch.device('cpu')):\n"
        "    os.write(1, b'result\\n')\n"
    )
    for printed, problems in two_ranks(code):
        assert printed == "result\n"
        assert "a peer is connected\n" in problems


def test_ranks_without_stdout_and_stderr_connect(tmp_path: Path) -> None:
    """Closed at the start, their numbers are those of sockets by then, which are left alone."""
    code = (
        "import torch\n"
        "from wds_real.data.distributed import all_reduce, process_group\n"
        "with process_group(torch.device('cpu')) as world:\n"
        "    total = all_reduce(torch.tensor([world.rank + 1]), 'sum').item()\n"
        f"    open({str(tmp_path)!r} + f'/{{world.rank}}', 'x').write(str(total))\n"
    )
    assert two_ranks(code, ">&- 2>&-") == [("", ""), ("", "")]
    assert [(tmp_path / name).read_text("utf-8") for name in "01"] == ["3", "3"]


def test_a_shared_count_adds_up_over_the_ranks() -> None:
    """All ranks add to one number in the group's store; the next count of the same name begins at 0 again."""
    store = HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        count = SharedCount("test")
        assert [count.add(amount) for amount in (0, 3, 4, 0)] == [0, 3, 7, 7]
        assert SharedCount("test").add(0) == 0
        assert count.add(0) == 7
    finally:
        dist.destroy_process_group()


def test_a_count_of_one_process_is_its_own() -> None:
    """Without a process group there is nothing to share."""
    count = SharedCount("test")
    assert [count.add(amount) for amount in (0, 3, 4)] == [0, 3, 7]


def test_a_count_without_its_store_stays_as_it_was() -> None:
    """A store that fails, because rank 0 ended, fails no evaluation."""

    class Broken:
        def add(self, key: str, amount: int) -> int:
            raise RuntimeError(f"no connection for {key}, {amount}")

    count = SharedCount("test")
    count.add(5)
    count._store = Broken()
    assert [count.add(1), count.add(0)] == [5, 5]
