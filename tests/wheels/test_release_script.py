"""scripts/release: what it refuses before it builds, what it pins, and a whole release."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from releasing import libjpeg_turbo, trial
from releasing.commands import ReleaseError, run

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["version"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="releases are built on Linux")


def release(*arguments: str | Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ if path is None else {"PATH": path}
    return subprocess.run(
        [sys.executable, "scripts/release.py", *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def with_git(tmp_path: Path) -> Path:
    """A folder of programs that has git, and so far nothing else."""
    folder, program = tmp_path / "programs", shutil.which("git")
    if program is None or not (REPOSITORY / ".git").exists():
        pytest.skip("git is missing, or this is not a clone")
    folder.mkdir()
    (folder / "git").symlink_to(program)
    return folder


def test_a_tag_of_another_version_is_refused() -> None:
    """A tag that does not say what is built ends the release before it begins."""
    done = release("--tag", "v99.0")
    assert done.returncode == 1
    assert done.stderr == (
        f"scripts/release: the tag is v99.0, but the version in pyproject.toml is {VERSION}: expected v{VERSION}.\n"
    )


def test_a_missing_compiler_is_one_line(with_git: Path) -> None:
    """No traceback, and no half of a release."""
    done = release("--no-trial", path=str(with_git))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "scripts/release: cc is missing. On Debian and Ubuntu: apt-get install build-essential.\n"


def test_another_libjpeg_turbo_is_refused(with_git: Path, tmp_path: Path) -> None:
    """A file with another digest is not built, and the line names both digests."""
    (with_git / "cc").write_text("#!/bin/sh\necho cc 1.0\n")
    (with_git / "cc").chmod(0o755)
    wrong = tmp_path / "libjpeg-turbo.tar.gz"
    wrong.write_bytes(b"wrong")
    done = release("--libjpeg-turbo", wrong, "--output", tmp_path / "dist", path=f"{with_git}:/bin")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        f"scripts/release: {wrong} is not the archive of libjpeg-turbo {libjpeg_turbo.VERSION}"
    )
    assert hashlib.sha256(b"wrong").hexdigest() in done.stderr
    assert libjpeg_turbo.SHA256 in done.stderr
    assert not (tmp_path / "dist").exists()


def test_the_tools_of_a_release_are_pinned() -> None:
    """Each line of the requirements names one version."""
    lines = (REPOSITORY / "scripts" / "releasing" / "requirements.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins == sorted(pins)
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in pins)
    assert {"auditwheel", "build", "setuptools", "twine"} <= {line.partition("==")[0] for line in pins}


def steps(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_pinned_actions_and_scripts_that_exist(path: Path) -> None:
    """Actions are named by commit, with their version; only the upload may ask for an identity; scripts are ours."""
    text = path.read_text("utf-8")
    workflow = yaml.safe_load(text)
    used = re.findall(r"uses: (.+)", text)
    assert len(used) == len([step for step in steps(workflow) if "uses" in step])
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)
    assert all(token not in text for token in ("secrets.", "password", "pull_request_target"))
    scripts = re.findall(r"(?:scripts|\.ci)/\w+", "\n".join(str(step.get("run", "")) for step in steps(workflow)))
    assert scripts
    assert all((REPOSITORY / name).is_file() for name in scripts)
    asking = [name for name, job in workflow["jobs"].items() if "id-token" in (job.get("permissions") or {})]
    assert asking == (["publish"] if path.name == "release.yml" else [])


def test_only_a_tag_is_uploaded() -> None:
    """A release from a branch builds and checks; the upload needs a tag, whose version scripts/release compares."""
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "release.yml").read_text("utf-8"))
    assert workflow["jobs"]["publish"]["if"] == "github.ref_type == 'tag'"
    assert workflow["jobs"]["publish"]["needs"] == "digests"
    assert workflow["jobs"]["digests"]["needs"] == "build"
    assert len(workflow["jobs"]["build"]["strategy"]["matrix"]["runner"]) == 2
    assert any('--tag "$TAG"' in step.get("run", "") for step in steps(workflow))


def test_the_trial_hides_headers(tmp_path: Path) -> None:
    """In the trial no header of the machine can be seen, and none of the words of a command is lost."""
    words = trial._hiding(tmp_path)
    if not words:
        pytest.skip("mount namespaces are not permitted here")
    shown = run(
        *words, "/bin/sh", "-c", 'ls -A /usr/include; printf "%s|" "$@"', "sh", "two words", "", folder=tmp_path
    )
    assert shown == "two words||"
    (tmp_path / "nothing").rmdir()  # empty: what was mounted over headers is a folder of the trial


def installable(folder: Path, *, decode: str, demo: str = "all counts are right") -> Path:
    """Write a wheel whose wds-real prints what the trial reads, and fails if it finds a compiler or files."""
    program = f"""
import json, os, shutil, sys
def main():
    assert os.listdir() == [], os.listdir()
    assert not shutil.which("cc") and not shutil.which("gcc"), os.environ["PATH"]
    assert "WDS_REAL_LIBJPEG_TURBO" not in os.environ and os.environ["CC"] == "false"
    print(json.dumps({{"decode": {decode!r}, "resize": "extension"}}) if sys.argv[1:2] == ["info"] else {demo!r})
"""
    wheel, info = folder / "wds_real-0-py3-none-any.whl", "wds_real-0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("trial_program.py", program)
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nwds-real = trial_program:main\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: wds_real\nVersion: 0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def test_the_trial_runs_where_there_is_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel is installed and run in an empty folder, without the compiler and the variables of this shell."""
    monkeypatch.setenv("WDS_REAL_LIBJPEG_TURBO", "/nowhere")
    wheel = installable(tmp_path, decode="part")
    done = trial.install_and_try(wheel, REPOSITORY / "constraints.txt", tmp_path / "trial")
    assert (done.facts["decode"], done.demo) == ("part", "all counts are right")


def test_a_wheel_that_decodes_whole_images_is_refused(tmp_path: Path) -> None:
    """An extension that cannot be loaded, or fails its self-test, ends the release."""
    wheel = installable(tmp_path, decode="whole")
    with pytest.raises(ReleaseError, match=f"{wheel.name} has decode whole and resize extension, expected part and"):
        trial.install_and_try(wheel, REPOSITORY / "constraints.txt", tmp_path / "trial")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_release(tmp_path: Path) -> None:
    """scripts/release builds the same bytes twice, and the wheel decodes parts where there is no compiler."""
    for program, package in (("cc", "build-essential"), ("readelf", "binutils"), ("git", "git")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install {package}")
    if os.uname().machine == "x86_64" and shutil.which("nasm") is None:
        pytest.skip("nasm is missing: apt-get install nasm")
    done = subprocess.run(
        ["scripts/release", "--output", tmp_path], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if "could not be downloaded" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    digests = dict(line.split()[::-1] for line in re.findall(r"^[0-9a-f]{64}  .+$", done.stdout, re.MULTILINE))
    assert digests == {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    sdist, wheel = sorted(tmp_path.iterdir(), key=lambda path: path.suffix)
    assert (sdist.name, len(digests)) == (f"wds_real-{VERSION}.tar.gz", 2)
    assert re.search(r"^installed with no compiler.*: decode part, resize extension$", done.stdout, re.MULTILINE)
    assert "built twice with the same bytes" in done.stdout
    with zipfile.ZipFile(wheel) as archive:
        licence = archive.read(f"wds_real-{VERSION}.dist-info/licenses/third_party/libjpeg-turbo/LICENSE.md")
        decoder = archive.read(next(name for name in archive.namelist() if "/_jpeg." in name and name.endswith(".so")))
    assert licence == (REPOSITORY / "third_party" / "libjpeg-turbo" / "LICENSE.md").read_bytes()
    assert b"The libjpeg-turbo Project" in decoder
