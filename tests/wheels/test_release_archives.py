"""The archives depend on the commit only: not on the time, the owner, the folder, or what lies about in it."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from releasing.archives import head, make_sdist, normalise
from releasing.commands import ReleaseError, require, run

REPOSITORY = Path(__file__).resolve().parents[2]
TIME = 1_700_000_000


def source_archive(path: Path, names: tuple[str, ...], *, uid: int, mtime: float, mode: int) -> Path:
    """Write a .tar.gz as setuptools does, with what this machine gives the files."""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        folder = tarfile.TarInfo("wds_real-1.0")
        folder.type, folder.mode, folder.mtime, folder.uname = tarfile.DIRTYPE, 0o700, mtime, f"user {uid}"
        archive.addfile(folder)
        for name in names:
            member = tarfile.TarInfo(f"wds_real-1.0/{name}")
            member.size, member.uid, member.gid, member.mtime, member.mode = len(name), uid, uid, mtime, mode
            if name == "scripts/release":
                member.mode |= 0o100
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


def test_source_archives_of_two_machines_have_the_same_bytes(tmp_path: Path) -> None:
    """Order, owner, time and umask do not show; content and executable files stay as they are."""
    names = ("setup.py", "scripts/release", "PKG-INFO")
    one = source_archive(tmp_path / "one.tar.gz", names, uid=0, mtime=1.25, mode=0o644)
    other = source_archive(tmp_path / "other.tar.gz", names[::-1], uid=1000, mtime=2e9, mode=0o600)
    assert one.read_bytes() != other.read_bytes()
    for path in (one, other):
        normalise(path, TIME)
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [
            "wds_real-1.0",
            *sorted(f"wds_real-1.0/{name}" for name in names),
        ]
        assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {(0, 0, "", TIME)}
        modes = {member.name.rpartition("/")[2]: member.mode for member in members}
        assert modes == {"wds_real-1.0": 0o755, "PKG-INFO": 0o644, "release": 0o755, "setup.py": 0o644}
        for member in members[1:]:
            content = archive.extractfile(member)
            assert content is not None
            assert content.read().decode() == member.name.partition("/")[2]
    assert int.from_bytes(one.read_bytes()[4:8], "little") == TIME
    gzip.decompress(one.read_bytes())


def git(folder: Path, *words: str) -> None:
    identity = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{TIME} +0900")
    environment = {**os.environ, **identity, **dates, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *words], cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a small package, a commit, and files that do not belong to it."""
    if shutil.which("git") is None:
        pytest.skip("git is missing")
    folder = tmp_path / "clone"
    (folder / "wds_real").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "wds_real"\nversion = "1.0"\n[tool.setuptools]\npackages = ["wds_real"]\n'
    )
    (folder / "wds_real" / "__init__.py").write_text("")
    (folder / "wds_real" / "zwölf.txt").write_text("")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    (folder / "wds_real" / "stray.py").write_text("")
    return folder


def test_the_commit_is_what_is_released(repository: Path) -> None:
    """Its hash, its time in any zone, the files that git tracks; changes are noticed, files beside them are not."""
    commit = head(repository)
    assert len(commit.name) == 40
    assert (commit.time, commit.changed) == (TIME, False)
    assert commit.files == ("pyproject.toml", "wds_real/__init__.py", "wds_real/zwölf.txt")
    (repository / "pyproject.toml").write_text("changed")
    assert head(repository).changed


def test_a_folder_without_git_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release is made of a commit; the message has git's own words."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ReleaseError, match="not a git repository"):
        head(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReleaseError, match=r"^git is missing\. On Debian and Ubuntu: apt-get install git\.$"):
        head(tmp_path)


def test_the_source_archive_is_of_the_commit(repository: Path, tmp_path: Path) -> None:
    """Stray files and changes in the working tree are not in it, and two builds have the same bytes."""
    pytest.importorskip("build", reason="the package build is missing: scripts/release has it")
    commit = head(repository)
    (repository / "wds_real" / "__init__.py").write_text("changed = True\n")
    one, other = (make_sdist(repository, commit, tmp_path / name) for name in ("one", "another"))
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as archive:
        names = archive.getnames()
        module = archive.extractfile("wds_real-1.0/wds_real/__init__.py")
        assert module is not None
        assert module.read() == b""
    assert not [name for name in names if "stray" in name]


def test_a_failed_program_shows_its_last_lines(tmp_path: Path) -> None:
    """What it printed before is left out; what a good one printed is returned."""
    failing = "import sys; print(*range(100), sep='\\n', flush=True); sys.exit('why it failed')"
    with pytest.raises(ReleaseError) as error:
        run(sys.executable, "-c", failing, folder=tmp_path)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{Path(sys.executable).name} failed in {tmp_path} with exit code 1:"
    assert lines[1:] == [*map(str, range(71, 100)), "why it failed"]
    assert run(sys.executable, "-c", "print('well')", folder=tmp_path) == "well\n"


def test_a_missing_program_is_one_line_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is there is returned with its path."""
    assert require("git", "git") == shutil.which("git")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReleaseError, match=r"^readelf is missing\. On Debian and Ubuntu: apt-get install binutils\.$"):
        require("readelf", "binutils")
