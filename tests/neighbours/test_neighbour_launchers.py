"""The recipes of scripts/launch beside the engines that they are for: Ray runs its recipe, SkyPilot takes its file."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support import SUPPORT
from support.commands import MODEL, in_child

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.neighbours, pytest.mark.filterwarnings("ignore")]  # the other libraries' warnings

LAUNCH = Path(__file__).parents[2] / "scripts" / "launch"
SKYPILOT = LAUNCH / "skypilot.yaml"
# SkyPilot keeps its state in the home folder, and starts threads: it gets a process of its own. A task is checked by
# the schemas of SkyPilot when it is parsed.
PARSE = """
    import json, sys
    import sky

    found = []
    for config in json.load(sys.stdin):
        secrets = [(name, "of the shell") for name in config["secrets"]]
        try:
            task = sky.Task.from_yaml_config(config, secrets_overrides=secrets)
        except (sky.exceptions.InvalidSkyPilotConfigError, ValueError) as error:
            found.append(str(error))
        else:
            [place] = task.resources
            found.append([task.num_nodes, place.use_spot, place.job_recovery["max_restarts_on_errors"], task.run])
    print(json.dumps([sky.__version__, *found]))
"""


def run(command: list[str], *, folder: Path, given: str = "", **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"HOME": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=280, cwd=folder, input=given,
        env={**environment, "OMP_NUM_THREADS": "1", **more},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("model", [MODEL, "slow_model:mortal_model"], ids=["alive", "a worker dies"])
def test_ray(packed: Path, tmp_path: Path, model: str, record_property: Callable[[str, object], None]) -> None:
    """ray_shares.py runs four tasks, and they write the predictions of one process, also where a worker is killed."""
    pytest.importorskip("ray")
    alone = in_child("eval", packed, "-m", MODEL, "-b", "10", "-o", tmp_path / "alone")
    assert alone.code == 0, alone.err
    command = [sys.executable, str(LAUNCH / "ray_shares.py"), str(packed), model, str(tmp_path / "run")]
    died = tmp_path / "died"
    path = os.pathsep.join((str(SUPPORT), os.environ.get("PYTHONPATH", "")))
    shown = run(
        [*command, "--shares", "4", "--batch-size", "10", "--gpus", "0", "--cpus", "0.25"],
        folder=tmp_path, PYTHONPATH=path, MORTAL_MODEL_DIED=str(died),
    )  # fmt: skip
    assert died.exists() == (model != MODEL)
    assert "120 expected, 120 seen once, 0 missing, 0 twice" in shown
    digests = [
        hashlib.sha256((tmp_path / name / "predictions.csv").read_bytes()).hexdigest() for name in ("alone", "run")
    ]
    assert digests[0] == digests[1]
    what = "ray_shares.py, 4 tasks" + ", a worker killed" * died.exists()
    record_property("launcher", ("ray", version("ray"), what, "predictions.csv of one process", "yes, bytes"))


def test_skypilot(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """SkyPilot's own schema and parser take skypilot.yaml, and refuse it with a misspelt field or a wrong value."""
    python = os.environ.get("SKYPILOT_PYTHON")
    if not python:
        pytest.skip("SKYPILOT_PYTHON is not set: scripts/neighbours makes an environment for SkyPilot")
    config = yaml.safe_load(SKYPILOT.read_text("utf-8"))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({**config, "num_node": 4}, "num_node"),
        ({**config, "num_nodes": "four"}, "four"),
        ({**config, "resources": {**config["resources"], "use_spots": True}}, "use_spots"),
    ]
    given = json.dumps([config, *(each for each, _ in wrong)])
    shown = run([python, "-c", textwrap.dedent(PARSE)], folder=tmp_path, given=given)
    sky_version, taken, *refused = json.loads(shown.splitlines()[-1])
    assert taken == [4, True, 3, config["run"]]
    assert [word for message, (_, word) in zip(refused, wrong, strict=True) if word not in message] == [], refused
    record_property("launcher", ("skypilot", sky_version, "Task.from_yaml_config(skypilot.yaml)", "its fields", "yes"))
