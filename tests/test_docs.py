"""The README says what is so: its Python runs, its commands exist, its figures come out."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from wds_real.cli.main import cli
from wds_real.labels import bundled

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text("utf-8")
DATA_CARD = (REPOSITORY / "shards" / "README.md").read_text("utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README + DATA_CARD, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if "wds-real " in line or "wds_real " in line
]


@pytest.fixture
def tiny_as_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose ``shards`` is the committed tiny set, under the names that the README uses."""
    shutil.copytree(REPOSITORY / "shards" / "tiny", tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", range(len(PYTHON_BLOCKS)))
def test_python_blocks_run(number: int, tiny_as_shards: Path) -> None:
    """Each block of Python in the README runs as it stands, with warnings as errors, and prints something."""
    if "efficientnet_lite0" in PYTHON_BLOCKS[number]:
        pytest.importorskip("efficientnet_lite_pytorch", reason="the demo extra is not installed")
    command = [sys.executable, "-W", "error", "-c", PYTHON_BLOCKS[number]]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tiny_as_shards)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_long_block_is_about_thirty_lines() -> None:
    """The way from a folder of shards to a result fits on a page."""
    assert max(len(block.splitlines()) for block in PYTHON_BLOCKS) <= 32
    for block in PYTHON_BLOCKS:
        ast.parse(block)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_the_options_they_are_shown_with(command: str) -> None:
    """Every wds-real command of the README and the data card parses: no option that does not exist."""
    words = shlex.split(command)
    place = words.index("wds-real") if "wds-real" in words else words.index("wds_real")
    name, *rest = words[place + 1 :]
    found = cli.get_command(click.Context(cli), name)
    assert found is not None, f"there is no command {name}"
    found.make_context(name, list(rest))


def test_figures_of_the_labels_come_from_the_labels() -> None:
    """The numbers under "About the labels" are those of the bundled lists."""
    lists = bundled().real
    assert f"{sum(map(bool, lists)):,} have a ReaL label, {sum(map(len, lists)):,} in all" in README
    assert f"{sum(not labels for labels in lists):,} have none" in README


def test_the_shown_result_is_the_demos(tmp_path: Path) -> None:
    """The table in the README is what `wds-real demo` prints, image rate and folder aside."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-m", "wds_real", "demo", "--keep", str(tmp_path)],
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = README.split("```\nwds_real.synthetic:known_answer_model on ")[1].split("```")[0].splitlines()[1:]
    for line in shown:
        assert line in done.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["run"]["world_size"] == 2


def test_links_lead_somewhere() -> None:
    """Files the README and the data card link to exist."""
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target
