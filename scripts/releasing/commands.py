"""Running other programs, with their output shown only if they fail."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ReleaseError", "require", "run"]

_SHOWN = 30  # lines of a program that failed


class ReleaseError(Exception):
    """A step of the release failed, or what it made is not as it should be."""


def run(*command: str | Path, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a program in `folder` and return what it printed.

    Raises:
        ReleaseError: it failed; the message ends with its last lines.
    """
    done = subprocess.run(  # noqa: S603 -- fixed commands
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        name = Path(command[0]).name
        last = "\n".join(done.stdout.splitlines()[-_SHOWN:])
        raise ReleaseError(f"{name} failed in {folder} with exit code {done.returncode}:\n{last}")
    return done.stdout


def require(name: str, package: str) -> str:
    """Return the path of a program.

    Raises:
        ReleaseError: it is not there; the message names the Debian package that has it.
    """
    path = shutil.which(name)
    if path is None:
        raise ReleaseError(f"{name} is missing. On Debian and Ubuntu: apt-get install {package}.")
    return path
