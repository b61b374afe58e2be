"""Install the wheel as a user without a compiler does, and run it.

The commands run in an empty folder, with a PATH of the new virtual environment only. Where the machine permits it, they
run in a mount namespace in which the folders of headers are empty and no libjpeg can be loaded.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from releasing.commands import ReleaseError, run

__all__ = ["Trial", "install_and_try"]

_HEADERS = (Path("/usr/include"), Path("/usr/local/include"))
_LIBRARIES = ("/usr/lib", "/lib", "/usr/local/lib")
_COMPILERS = ("cc", "gcc", "clang", "c99", "tcc", "icx")
_HIDE = """
mount=$1 empty=$2
for path in $3; do "$mount" --bind "$empty" "$path" || exit; done
for path in $4; do "$mount" --bind /dev/null "$path" || exit; done
shift 4
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was seen.

    Attributes:
        hidden: Whether headers and libjpeg were hidden too, not just the compiler.
        facts: What ``wds-real info --env --json`` printed.
        demo: The last line of ``wds-real demo``.
    """

    hidden: bool
    facts: dict[str, Any]
    demo: str


def install_and_try(wheel: Path, constraints: Path, folder: Path, *, python: str | None = None) -> Trial:
    """Install a wheel and its dependencies from wheels only, and run ``info --env`` and ``demo``.

    Args:
        wheel: Its path.
        constraints: Versions of the dependencies.
        folder: A new folder.
        python: The Python that the wheel is for, if not this one.

    Raises:
        ReleaseError: a command failed, or the installation would decode whole images.
    """
    empty, venv = folder / "empty", folder / "venv"
    empty.mkdir(parents=True)
    run(python or _base_python(), "-m", "venv", venv, folder=folder)
    environment = {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "LANG", "LC_"))
    }
    environment |= {"PATH": str(venv / "bin"), "HOME": str(folder), "CC": "false", "TMPDIR": str(folder)}
    found = [name for name in _COMPILERS if shutil.which(name, path=environment["PATH"])]
    if found:
        raise ReleaseError(f"{found[0]} is in the new virtual environment {venv}.")
    before = _hiding(folder)

    def runs(*command: str | Path) -> str:
        return run(*before, *command, folder=empty, environment=environment)

    pip = (venv / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check")
    runs(*pip, "install", "--only-binary", ":all:", "--constraint", constraints, wheel)
    facts = json.loads(runs(venv / "bin" / "wds-real", "info", "--env", "--json"))
    if (facts["decode"], facts["resize"]) != ("part", "extension"):
        raise ReleaseError(
            f"the installed {wheel.name} has decode {facts['decode']} and resize {facts['resize']}, expected part and "
            "extension. Build with the pinned libjpeg-turbo, and look at what `info --env` logs."
        )
    demo = runs(venv / "bin" / "wds-real", "demo").strip().splitlines()
    return Trial(bool(before), facts, demo[-1])


def _hiding(folder: Path) -> list[str]:
    """Return the words before a command that hide headers and libjpeg from it, or none if this is not permitted."""
    unshare, mount = shutil.which("unshare"), shutil.which("mount")
    if unshare is None or mount is None:
        return []
    nothing = folder / "nothing"
    nothing.mkdir()
    headers = [str(path) for path in _HEADERS if path.is_dir()]
    libraries = sorted(
        str(path)
        for place in {Path(place).resolve() for place in _LIBRARIES}
        for path in (*place.glob("libjpeg.so*"), *place.glob("*/libjpeg.so*"))
        if path.is_file() and not path.is_symlink()
    )
    for rights in ([], ["--map-root-user"]):
        words = [unshare, "--mount", *rights, "/bin/sh", "-c", _HIDE, "hide", mount, str(nothing)]
        words += [" ".join(headers), " ".join(libraries)]
        try:
            listed = run(*words, "/bin/ls", *headers, folder=folder)
        except ReleaseError:
            continue
        if ".h" not in listed:
            return words
    return []


def _base_python() -> Path:
    """Return the Python that made this virtual environment."""
    name = f"python{sysconfig.get_python_version()}{sys.abiflags}"
    return next(path for path in (Path(sys.base_prefix) / "bin" / name, Path(sys.executable)) if path.exists())
