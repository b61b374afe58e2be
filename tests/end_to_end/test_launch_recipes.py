"""The recipes of scripts/launch, run as they stand: each gives the predictions of one process, byte for byte."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml
from support import SUPPORT
from support.commands import MODEL, in_child
from support.s3 import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from support.s3 import S3Server
    from support.slurm import Cluster

LAUNCH = Path(__file__).parents[2] / "scripts" / "launch"
KUBERNETES = yaml.safe_load((LAUNCH / "kubernetes-job.yaml").read_text("utf-8"))
SKYPILOT = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def expected(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the predictions that one process writes."""
    output = tmp_path_factory.mktemp("alone") / "run"
    ended = in_child("eval", packed, "-m", MODEL, "-b", "10", "-o", output)
    assert ended.code == 0, ended.err
    return digest((output / "predictions.csv").read_bytes())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with the commands of its virtual environment first on PATH."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **more}


def run(command: Sequence[str], *, cwd: Path, **more: str) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=200, cwd=cwd, env=environment(**more)
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def run_all(commands: Iterable[tuple[Sequence[str], Mapping[str, str]]], *, cwd: Path) -> list[tuple[int, str]]:
    """Run commands at the same time, each with variables of its own; return exit codes and what each printed."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd,
                    env=environment(**more),
                )
            )
            for command, more in commands
        ]  # fmt: skip
        shown = [process.communicate(timeout=200)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, shown, strict=True)]


def test_torchrun(packed: Path, tmp_path: Path, expected: str) -> None:
    """torchrun.sh starts the processes of one machine, and hands further options on to eval."""
    command = ["sh", str(LAUNCH / "torchrun.sh"), str(packed), MODEL, "run", "-b", "10"]
    shown = run(command, cwd=tmp_path, PROCESSES="2")
    assert "120 seen once, 0 missing, 0 twice, 2 ranks" in shown
    assert digest((tmp_path / "run" / "predictions.csv").read_bytes()) == expected


def test_torchrun_on_two_machines(packed: Path, tmp_path: Path, expected: str) -> None:
    """With NODES and HEAD, the same line on each machine makes one run of both; the other machine prints nothing."""
    command = ["sh", str(LAUNCH / "torchrun.sh"), str(packed), MODEL, "run", "-b", "10"]
    place = {"NODES": "2", "HEAD": "localhost", "PROCESSES": "1", "PORT": str(free_ports(1)[0])}
    ended = run_all([(command, place)] * 2, cwd=tmp_path)
    assert [code for code, _ in ended] == [0, 0], ended
    assert "".join(text for _, text in ended).count("120 seen once, 0 missing, 0 twice, 2 ranks") == 1
    assert digest((tmp_path / "run" / "predictions.csv").read_bytes()) == expected


@pytest.mark.parametrize("model", [MODEL, "slow_model:mortal_model"], ids=["alive", "a job dies"])
def test_submitit(packed: Path, tmp_path: Path, expected: str, model: str) -> None:
    """submitit_shares.py runs four jobs, here processes of this machine; if one is killed, the others do its share."""
    command = [sys.executable, str(LAUNCH / "submitit_shares.py"), str(packed), model, "run", "--batch-size", "10"]
    died = tmp_path / "died"
    shown = run(
        [*command, "--shares", "4", "--gpus", "0", "--cluster", "local"],
        cwd=tmp_path, PYTHONPATH=os.pathsep.join((str(SUPPORT), os.environ.get("PYTHONPATH", ""))),
        MORTAL_MODEL_DIED=str(died),
    )  # fmt: skip
    assert died.exists() == (model != MODEL)
    assert "120 expected, 120 seen once, 0 missing, 0 twice" in shown
    assert digest((tmp_path / "run" / "predictions.csv").read_bytes()) == expected
    assert len(list((tmp_path / "submitit").glob("*_result.pkl"))) == 4 - died.exists()


def test_submitit_in_an_array_of_slurm(slurm: Cluster, packed: Path, tmp_path: Path, expected: str) -> None:
    """Under SLURM the jobs of submitit_shares.py are one array, whose tasks evaluate the shares."""
    ended = slurm.run(
        sys.executable, LAUNCH / "submitit_shares.py", packed, MODEL, tmp_path / "run", "--batch-size", "10",
        "--shares", "3", "--gpus", "1", "--cpus", "2", "--minutes", "5", "--cluster", "slurm",
        cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "120 expected, 120 seen once, 0 missing, 0 twice" in ended.out
    assert digest((tmp_path / "run" / "predictions.csv").read_bytes()) == expected
    logs = [path.name for path in (tmp_path / "submitit").glob("*_0_log.out")]
    assert sorted(name.split("_")[1] for name in logs) == ["0", "1", "2"]


def test_the_kubernetes_manifest_is_valid() -> None:
    """The API server would take the manifest, and refuse it with a misspelt field."""
    kubernetes_validate.validate(KUBERNETES, kubernetes_validate.latest_version(), strict=True)
    spec = KUBERNETES["spec"]
    wrong = {**KUBERNETES, "spec": {**spec, "completion": spec["completions"]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_the_numbers_of_the_kubernetes_manifest_agree() -> None:
    """As many shares as pods; pods are started anew by the Job; what another try cannot mend fails the Job."""
    spec = KUBERNETES["spec"]
    arguments = container()["args"]
    assert spec["completionMode"] == "Indexed"
    assert [spec["completions"], spec["parallelism"]] == [4, 4]
    assert f"--world-size={spec['completions']}" in arguments
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert f"--threads={container()['resources']['requests']['cpu']}" in arguments
    [failing] = [rule for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert failing["onExitCodes"]["values"] == [2, 4]


def container() -> dict[str, Any]:
    [found] = KUBERNETES["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def pod_command(**options: str) -> list[str]:
    """Return the command of a pod, on another root, and with other values for some options."""
    root = options.pop("root")
    replaced = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    command = [*container()["command"], *container()["args"]]
    at = command.index("s3://lab/imagenet-real")
    command[at] = root
    names = [part.partition("=")[0] for part in command]
    assert set(replaced) <= set(names)
    given = [
        f"{name}={replaced[name]}" if name in replaced else part for name, part in zip(names, command, strict=True)
    ]
    return [part for part in given if part != "--amp"]  # which needs an accelerator


def secret(server: S3Server) -> dict[str, str]:
    """Return what the Secret of the manifest holds, for a server that is not Amazon's."""
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ALLOW_HTTP": "true",
    }


def objects(server: S3Server, folder: str) -> dict[str, bytes]:
    """Return the result and the predictions in a folder of the bucket `test`."""
    return {name: server.request("GET", f"/test/{folder}/{name}")[2] for name in ("result.json", "predictions.csv")}


def test_the_pods_of_the_kubernetes_manifest(packed: Path, tmp_path: Path, s3: S3Server, expected: str) -> None:
    """Four pods with the variable that Kubernetes sets record in a bucket; the last to end writes the result there."""
    command = pod_command(root=str(packed), model=MODEL, batch_size="10", output="s3://test/pods")
    ended = run_all([(command, {**secret(s3), "JOB_COMPLETION_INDEX": str(index)}) for index in range(4)], cwd=tmp_path)
    assert [code for code, _ in ended] == [0, 0, 0, 0], ended
    assert any("120 expected, 120 seen once, 0 missing, 0 twice" in text for _, text in ended)
    assert digest(objects(s3, "pods")["predictions.csv"]) == expected
    assert not any(tmp_path.iterdir())


def test_a_pod_that_is_evicted_saves_what_it_did(packed: Path, tmp_path: Path, s3: S3Server, expected: str) -> None:
    """On SIGTERM a pod saves its finished batches, and the next one with its index does the others only."""
    log = tmp_path / "log"
    log.touch()
    command = pod_command(root=str(packed), model="slow_model:slow_model", batch_size="10", output="s3://test/evicted")
    more = {
        **secret(s3), "JOB_COMPLETION_INDEX": "1", "SLOW_MODEL_LOG": str(log), "SLOW_MODEL_HOLDS_AT": "5",
        "PYTHONPATH": os.pathsep.join((str(SUPPORT), os.environ.get("PYTHONPATH", ""))),
    }  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(**more)) as pod:
        deadline = time.monotonic() + 120
        while len(log.read_text().splitlines()) < 5 and pod.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pod.terminate()
        said = pod.communicate(timeout=120)[1]
    log.with_suffix(".go").touch()
    assert pod.returncode == 128 + signal.SIGTERM, said
    started = len(log.read_text().splitlines())
    [(code, text)] = run_all([(command, more)], cwd=tmp_path)
    assert code == 0, text
    saved = started + 12 - len(log.read_text().splitlines())
    assert started - 2 <= saved <= started  # the batch in work, and one whose scores were not read back yet
    assert digest(objects(s3, "evicted")["predictions.csv"]) == expected


def test_a_pod_beyond_the_shares_is_refused(packed: Path, tmp_path: Path, s3: S3Server) -> None:
    """If completions was changed and --world-size was not, the pod fails with the exit code that fails the Job."""
    command = pod_command(root=str(packed), model=MODEL, output="s3://test/beyond")
    [(code, text)] = run_all([(command, {**secret(s3), "JOB_COMPLETION_INDEX": "4"})], cwd=tmp_path)
    assert code == 2
    assert "JOB_COMPLETION_INDEX is 4, expected 0 <= rank < 4, which is --world-size" in text


def test_the_machines_of_skypilot(packed: Path, tmp_path: Path, s3: S3Server, expected: str) -> None:
    """The block `run` on four machines, with the variables that SkyPilot sets, records in a bucket."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    command = ["bash", "-euc", SKYPILOT["run"].replace("--amp --batch-size 256", "--batch-size 10")]
    assert command[-1] != SKYPILOT["run"]
    envs = {**SKYPILOT["envs"], "ROOT": str(packed), "MODEL": MODEL, "OUTPUT": "s3://test/sky", **secret(s3)}
    nodes = SKYPILOT["num_nodes"]
    place = {"SKYPILOT_NUM_NODES": str(nodes), "SKYPILOT_NUM_GPUS_PER_NODE": "1", "SKYPILOT_JOB_RANK": "0"}
    ended = run_all(
        [(command, {**envs, **place, "SKYPILOT_NODE_RANK": str(rank)}) for rank in range(nodes)], cwd=tmp_path
    )
    assert [code for code, _ in ended] == [0] * nodes, ended
    assert digest(objects(s3, "sky")["predictions.csv"]) == expected


def test_skypilot_starts_again_from_the_bucket() -> None:
    """Nothing of a run stays on a machine: the output is a bucket, on spot machines with as many ranks as machines."""
    assert SKYPILOT["resources"]["use_spot"] is True
    assert SKYPILOT["envs"]["OUTPUT"].startswith("s3://")
    assert "--independent --steal" in SKYPILOT["run"]
