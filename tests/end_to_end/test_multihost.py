"""Real launches: torchrun at several world sizes, and two hosts with addresses of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from support import SUPPORT
from support.s3 import free_ports

from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import known_answer, labels_of, write_source_tar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
MODEL = "wds_real.synthetic:known_answer_model"


def evaluate(launcher: tuple[str, ...], root: Path, output: Path, *, batch_size: int = 7, model: str = MODEL) -> None:
    command = [*launcher, "-m", "wds_real", "eval", str(root), "-m", model, "-b", str(batch_size), "-o", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stderr


def outcome(output: Path) -> tuple[dict[str, object], str]:
    """Return the result without what may differ between runs, and the predictions."""
    result = json.loads((output / "result.json").read_text())
    del result["run"]
    return result, (output / "predictions.csv").read_text()


def check_known(result: dict[str, object], numbers: range) -> None:
    known = known_answer(labels_of(numbers))
    accuracy = result["accuracy"]
    assert isinstance(accuracy, dict)
    assert {name: accuracy[name]["correct"] for name in accuracy} == {name: known[name] for name in accuracy}
    assert accuracy["real_top1"]["total"] == known["labelled"]


def test_every_world_size_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    """With 2, 3 and 7 processes torchrun writes what one process does; at 7 not every rank has a batch each step."""
    evaluate((sys.executable,), packed, tmp_path / "1")
    expected = outcome(tmp_path / "1")
    check_known(expected[0], range(1, 121))
    for world_size in (2, 3, 7):
        evaluate((*TORCHRUN, "--standalone", "--nproc-per-node", str(world_size)), packed, tmp_path / str(world_size))
        assert outcome(tmp_path / str(world_size)) == expected


def test_a_model_that_communicates_in_forward_does_not_hang(packed: Path, tmp_path: Path) -> None:
    """All ranks take the same number of steps, padding included: 5 batches over 3 ranks, one of them padded."""
    evaluate((sys.executable,), packed, tmp_path / "1", batch_size=24)
    launcher = (*TORCHRUN, "--standalone", "--nproc-per-node", "3")
    evaluate(launcher, packed, tmp_path / "3", batch_size=24, model="slow_model:communicating_model")
    assert outcome(tmp_path / "3")[1] == outcome(tmp_path / "1")[1]


@pytest.fixture(scope="module")
def whole_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 50,000 names, with made-up pictures."""
    folder = tmp_path_factory.mktemp("whole")
    tar = folder / "ILSVRC2012_img_val.tar"
    write_source_tar(tar, range(1, 50_001), side=32)
    with open_source(tar) as source:
        write_shards(source, LocalStore(folder / "shards"))
    tar.unlink()
    return folder / "shards"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_fifty_thousand_at_every_world_size(whole_set: Path, tmp_path: Path) -> None:
    """50,000 samples with 1, 2, 3, 4 and 7 processes: the same totals, the same prediction bytes, a whole receipt."""
    evaluate((sys.executable,), whole_set, tmp_path / "1", batch_size=250)
    expected = outcome(tmp_path / "1")
    check_known(expected[0], range(1, 50_001))
    assert expected[0]["coverage"] == {
        "expected": 50_000, "seen_once": 50_000, "missing": 0, "doubled": 0, "failed": []
    }  # fmt: skip
    for world_size in (2, 3, 4, 7):
        launcher = (*TORCHRUN, "--standalone", "--nproc-per-node", str(world_size))
        evaluate(launcher, whole_set, tmp_path / str(world_size), batch_size=250)
        assert outcome(tmp_path / str(world_size)) == expected


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces that see each other at 10.77.0.1 and 10.77.0.2, and nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("the ip command (iproute2) is not installed")
    names = (f"wds{os.getpid()}a", f"wds{os.getpid()}b")
    commands = [
        *(f"ip netns add {name}" for name in names),
        f"ip link add {names[0]} type veth peer name {names[1]}",
        *(f"ip link set {name} netns {name}" for name in names),
        *(f"ip -n {name} addr add 10.77.0.{place}/24 dev {name}" for place, name in enumerate(names, start=1)),
        *(f"ip -n {name} link set {device} up" for name in names for device in (name, "lo")),
    ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"network namespaces are not allowed here: {command}: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_two_hosts_give_the_same_bytes(packed: Path, tmp_path: Path, two_hosts: tuple[str, str]) -> None:
    """Two torchrun agents, each on a host of its own, meet at a rendezvous and give what one process gives."""
    evaluate((sys.executable,), packed, tmp_path / "alone")
    with contextlib.ExitStack() as stack:
        agents = []
        for place, host in enumerate(two_hosts, start=1):
            command = [
                "ip", "netns", "exec", host, *TORCHRUN, "--nnodes", "2", "--nproc-per-node", "2",
                "--rdzv-backend", "c10d", "--rdzv-endpoint", "10.77.0.1:29555", "--rdzv-id", "test",
                "--local-addr", f"10.77.0.{place}", "--rdzv-conf", f"is_host={int(place == 1)}",
                "-m", "wds_real", "eval", str(packed), "-m", MODEL, "-b", "7", "-o", str(tmp_path / "run"),
            ]  # fmt: skip
            environment = {**os.environ, "GLOO_SOCKET_IFNAME": host, "OMP_NUM_THREADS": "1"}
            agent = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            agents.append(stack.enter_context(agent))
        shown = [agent.communicate(timeout=120)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], shown
    assert outcome(tmp_path / "run") == outcome(tmp_path / "alone")
    assert "120 seen once, 0 missing, 0 twice, 4 ranks" in "".join(shown)


@pytest.mark.parametrize("late", ["start", "end"])
def test_a_missing_rank_is_said_within_the_deadline(packed: Path, tmp_path: Path, late: str) -> None:
    """Without a launcher that notices: a rank that never comes, or dies, costs the others one line, not a hang."""
    log = tmp_path / "log"
    log.touch()
    command = [sys.executable, "-m", "wds_real", "eval", str(packed), "-m", "slow_model:slow_model", "-b", "20",
               "--timeout", "20" if late == "end" else "3"]  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": str(SUPPORT), "SLOW_MODEL_LOG": str(log), "WORLD_SIZE": "2",
        "SLOW_MODEL_HOLDS_AT": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0]),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        ranks = [
            stack.enter_context(
                subprocess.Popen(
                    command, env={**environment, "RANK": str(rank)}, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for rank in range(1 if late == "start" else 2)
        ]  # fmt: skip
        if late == "end":
            deadline = time.monotonic() + 120
            while len(log.read_text().splitlines()) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            ranks[1].kill()
            log.with_suffix(".go").touch()
        shown, said = ranks[0].communicate(timeout=120)
    assert ranks[0].returncode == 1
    assert "error: " in said
    assert ("not all of the 2 ranks joined within 3 s" if late == "start" else "a rank was lost") in said
    assert "Traceback" not in said
    assert "ReaL top-1" not in shown
