"""The source archive and the wheel of a commit, with bytes that depend on the commit and the compiler only."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from releasing.commands import ReleaseError, require, run

__all__ = ["Commit", "head", "make_sdist", "make_wheel", "normalise"]

_PINS = Path(__file__).with_name("requirements.txt")


@dataclass(frozen=True, slots=True)
class Commit:
    """What is released.

    Attributes:
        name: The hash.
        time: Seconds since 1970: the time of everything in the archives.
        files: The files that git tracks.
        changed: Whether the working tree differs from the commit.
    """

    name: str
    time: int
    files: tuple[str, ...]
    changed: bool


def head(repository: Path) -> Commit:
    """Return the current commit.

    Raises:
        ReleaseError: git is missing, or this is no repository.
    """
    require("git", "git")
    name, time = run("git", "log", "-1", "--format=%H %ct", folder=repository).split()
    files = run("git", "ls-tree", "-r", "-z", "--name-only", "HEAD", folder=repository).split("\0")[:-1]
    changed = run("git", "status", "--porcelain", "--untracked-files=no", folder=repository)
    return Commit(name, int(time), tuple(files), bool(changed))


def make_sdist(repository: Path, commit: Commit, folder: Path) -> Path:
    """Build the source archive from the commit, not from the working tree, and return its path."""
    tree = folder / "tree"
    tree.mkdir(parents=True)
    exported = folder / "commit.tar"
    run("git", "archive", "--format=tar", f"--output={exported}", commit.name, folder=repository)
    with tarfile.open(exported) as members:
        members.extractall(tree, filter="data")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(commit.time)}
    _build("--sdist", tree, folder, environment)
    sdist = _only(folder, "*.tar.gz")
    normalise(sdist, commit.time)
    return sdist


def make_wheel(sdist: Path, libjpeg_turbo: Path, commit: Commit, folder: Path, *, python: str | None = None) -> Path:
    """Build the wheel from the source archive and return its path; its tag is the oldest C library that it runs on.

    Args:
        sdist: The source archive.
        libjpeg_turbo: The folder into which libjpeg-turbo was installed.
        commit: Gives the time of the files.
        folder: A new folder.
        python: The Python that the wheel is for, if not any from 3.11; it gets the pinned tools first.
    """
    folder.mkdir(parents=True)
    with tarfile.open(sdist) as members:
        members.extractall(folder, filter="data")
    tree = folder / sdist.name.removesuffix(".tar.gz")
    compiler = os.environ.get("CC", "cc")
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": str(commit.time),
        "WDS_REAL_LIBJPEG_TURBO": str(libjpeg_turbo),
        "CC": compiler,
        "CFLAGS": "-g0",
        "LDSHARED": f"{compiler} -shared -Wl,-s",  # Python's own would add its path, to look for libraries
    }
    _build("--wheel", tree, folder, environment, python=sys.executable if python is None else _tools(python, folder))
    built = _only(folder, "*.whl")
    run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", folder / "repaired", built,
        folder=folder, environment=environment)  # fmt: skip
    return _only(folder / "repaired", "*.whl")


def normalise(sdist: Path, time: int) -> None:
    """Rewrite a .tar.gz with sorted members and fixed times, owners and modes; setuptools keeps this machine's."""
    packed = io.BytesIO()
    with tarfile.open(sdist) as old, tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = time, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with sdist.open("wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=time) as compressed:
        compressed.write(packed.getbuffer())


def _tools(python: str, folder: Path) -> str:
    """Return the Python of a new virtual environment with the tools that build a wheel."""
    venv = folder / "python"
    run(python, "-m", "venv", venv, folder=folder)
    builder = str(venv / "bin" / "python")
    run(builder, "-m", "pip", "install", "--constraint", _PINS, "build", "setuptools", folder=folder)
    return builder


def _build(kind: str, tree: Path, folder: Path, environment: dict[str, str], *, python: str = sys.executable) -> None:
    run(python, "-m", "build", "--no-isolation", kind, "--outdir", folder, tree,
        folder=tree, environment=environment)  # fmt: skip


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ReleaseError(f"{folder} has {len(found)} files {pattern}, expected one.")
    return found[0]
