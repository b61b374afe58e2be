"""The tested versions are those that pyproject.toml allows: its lowest ones, and pinned ones within its ranges."""

from __future__ import annotations

import itertools
import os
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
RUN_ELSEWHERE = {"docs", "neighbours", "hf", "open-clip", "timm"}
"""Extras that the default suite does not use: scripts/docs and scripts/neighbours do."""
LOWEST = [*PROJECT["dependencies"], *(line for name in EXTRAS.keys() - RUN_ELSEWHERE for line in EXTRAS[name])]
ALL = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
CAPPED = {"mkdocs", "obstore"}
"""Packages whose next minor or major release is known to break what is used of them; pyproject.toml says how."""


def pins(name: str) -> dict[str, Version]:
    """Return the version of each package in a file of constraints."""
    lines = (REPOSITORY / name).read_text("utf-8").splitlines()
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    assert all(str(one.specifier).startswith("==") and len(one.specifier) == 1 for one in found)
    assert len({canonicalize_name(one.name) for one in found}) == len(found)
    return {canonicalize_name(one.name): Version(str(one.specifier)[2:]) for one in found}


def bound(requirement: Requirement) -> Version:
    """Return the lowest version that a requirement allows."""
    (found,) = (one.version for one in requirement.specifier if one.operator in {">=", "=="})
    return Version(found)


def ours(line: str) -> bool:
    return canonicalize_name(Requirement(line).name) == "wds-real"


@pytest.mark.parametrize("line", sorted({*ALL}))
def test_requirements_have_a_lower_bound_and_no_needless_cap(line: str) -> None:
    """Each requirement says the lowest version that works. Only packages that break their callers have a cap."""
    if ours(line):
        return
    requirement = Requirement(line)
    assert bound(requirement) > Version("0")
    capped = {one.operator for one in requirement.specifier} & {"<", "<=", "~=", "!=", "==="}
    assert bool(capped) == (requirement.name in CAPPED)


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    """constraints-lowest.txt pins each requirement of the suite at exactly the bound of pyproject.toml."""
    pinned = pins("constraints-lowest.txt")
    wanted = {canonicalize_name(one.name): bound(one) for one in map(Requirement, LOWEST)}
    assert {name: pinned.get(name) for name in wanted} == wanted, "write it again with the command at its top"


def test_the_command_for_the_lowest_versions_names_the_extras() -> None:
    """The command at the top of constraints-lowest.txt, by which it is written again, has every extra of the suite."""
    lines = (REPOSITORY / "constraints-lowest.txt").read_text("utf-8").splitlines()
    (command,) = (line.split() for line in lines if "uv pip compile" in line)
    named = {after for before, after in itertools.pairwise(command) if before == "--extra"}
    assert named == EXTRAS.keys() - RUN_ELSEWHERE
    assert {"--resolution", "lowest-direct", "pyproject.toml"} <= set(command)
    assert command[command.index("--python-version") + 1] == PROJECT["requires-python"].removeprefix(">=")


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-neighbours.txt", "constraints-lowest.txt"])
def test_pinned_versions_are_within_the_ranges(name: str) -> None:
    """A file of constraints holds no version that pyproject.toml refuses."""
    extras = {
        "constraints.txt": EXTRAS.keys() - {"neighbours", "hf", "open-clip", "timm"},
        "constraints-neighbours.txt": {"neighbours", "hf", "open-clip", "timm", "demo"},
        "constraints-lowest.txt": EXTRAS.keys() - RUN_ELSEWHERE,
    }[name]
    pinned = pins(name)
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    wanted = [Requirement(line) for line in lines if not ours(line)]
    assert len(wanted) > 10
    assert [str(one) for one in wanted if pinned.get(canonicalize_name(one.name)) is None] == []
    assert [str(one) for one in wanted if not one.specifier.contains(pinned[canonicalize_name(one.name)])] == []


def test_words_of_the_script_are_checked(tmp_path: Path) -> None:
    """scripts/test-versions takes lowest or newest; the lowest have wheels for one Python only, which is said."""
    script = REPOSITORY / "scripts" / "test-versions"
    for words in ([], ["oldest"]):
        done = subprocess.run([script, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr == "usage: scripts/test-versions lowest|newest [ARGUMENTS OF PYTEST]\n"
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\nexit 1\n", "utf-8")
    other.chmod(0o755)
    done = subprocess.run(
        [script, "lowest"], capture_output=True, text=True, check=False, env={**os.environ, "PYTHON": str(other)}
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Python 3.11" in done.stderr
    assert str(other) in done.stderr
