"""What the archives hold: exactly the files they should, and extensions that need the C library only."""

from __future__ import annotations

import re
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from releasing.commands import ReleaseError, require, run
from releasing.libjpeg_turbo import LICENCES

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OLDEST_C_LIBRARY", "check_extension", "check_licences", "check_sdist", "check_wheel"]

OLDEST_C_LIBRARY = "manylinux_2_17"  # of 2012: any Linux on which PyTorch runs has a later one
_EXTENSIONS = ("wds_real/image/_jpeg", "wds_real/image/_resample")
_C_LIBRARY = re.compile(r"(libc|libm|libpthread)\.so\.\d+|ld-linux-[\w-]+\.so\.\d+")
_DIST_INFO = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")
_EGG_INFO = ("PKG-INFO", "SOURCES.txt", "dependency_links.txt", "entry_points.txt", "requires.txt", "top_level.txt")


def check_sdist(sdist: Path, tracked: Iterable[str]) -> int:
    """Return the number of files of the source archive: those that git tracks, and what setuptools adds.

    Raises:
        ReleaseError: a file is missing, or should not be there.
    """
    top = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as members:
        found = {member.name for member in members if not member.isdir()}
    added = {"PKG-INFO", "setup.cfg", *(f"wds_real.egg-info/{name}" for name in _EGG_INFO)}
    _compare(sdist, found, {f"{top}/{name}" for name in added.union(tracked)}, "MANIFEST.in")
    return len(found)


def check_wheel(wheel: Path, tracked: Iterable[str], licences: Iterable[str]) -> int:
    """Return the number of files of the wheel: the package without C sources, two extensions, metadata and licences.

    Args:
        wheel: Its path.
        tracked: The files that git tracks.
        licences: Those of them that are licences.

    Raises:
        ReleaseError: a file is missing or should not be there, an extension needs another library, or the wheel needs a
            later C library than `OLDEST_C_LIBRARY`.
    """
    version, *_, abi, platform = wheel.name.removesuffix(".whl").split("-")[1:]
    suffix = ".abi3.so" if abi == "abi3" else None
    if not any(tag.startswith(f"{OLDEST_C_LIBRARY}_") for tag in platform.split(".")):
        raise ReleaseError(
            f"{wheel.name} needs a later C library than {OLDEST_C_LIBRARY}. `auditwheel show -v` names the functions: "
            "build with an older compiler, or avoid them."
        )
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if not name.endswith("/")}
        built = {name for name in found if name.endswith(".so")}
        with tempfile.TemporaryDirectory(prefix="wds-real-release-") as folder:
            for name in sorted(built):
                check_extension(Path(archive.extract(name, folder)))
    info = f"wds_real-{version}.dist-info"
    expected = {name for name in tracked if name.startswith("wds_real/") and not name.endswith(".c")}
    expected |= {f"{info}/{name}" for name in _DIST_INFO} | {f"{info}/licenses/{name}" for name in licences}
    expected |= {name + suffix for name in _EXTENSIONS} if suffix else built
    if len(built) != len(_EXTENSIONS):
        raise ReleaseError(f"{wheel.name} has {len(built)} extensions, expected {len(_EXTENSIONS)}.")
    _compare(wheel, found, expected, "package-data in pyproject.toml")
    return len(found)


def check_extension(path: Path) -> None:
    """Check that an extension needs only the C library, has no library search path, and exports only PyInit.

    Raises:
        ReleaseError: it does not.
    """
    readelf = require("readelf", "binutils")
    dynamic = run(readelf, "--wide", "--dynamic", path, folder=path.parent)
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
    others = [name for name in needed if not _C_LIBRARY.fullmatch(name)]
    if others or not needed:
        raise ReleaseError(f"{path.name} needs {', '.join(others) or 'nothing'}, expected the C library only.")
    if "(RPATH)" in dynamic or "(RUNPATH)" in dynamic:
        raise ReleaseError(f"{path.name} looks for libraries in a folder of the machine that built it.")
    symbols = run(readelf, "--wide", "--dyn-syms", path, folder=path.parent)
    exported = re.findall(r"(?:GLOBAL|WEAK)\s+(?:DEFAULT|PROTECTED)\s+\d+\s+(\S+)", symbols)
    if exported != [f"PyInit_{path.name.partition('.')[0]}"]:
        raise ReleaseError(
            f"{path.name} exports {', '.join(exported) or 'nothing'}, expected its PyInit function only."
        )


def check_licences(repository: Path, libjpeg_turbo: Path) -> list[str]:
    """Return the files of libjpeg-turbo's licences in the repository, which are those of the source that was built.

    Raises:
        ReleaseError: they are others.
    """
    for name in LICENCES:
        ours, theirs = repository / "third_party" / "libjpeg-turbo" / name, libjpeg_turbo / name
        if not ours.is_file() or ours.read_bytes() != theirs.read_bytes():
            raise ReleaseError(f"{ours} is not that of the source of libjpeg-turbo. Copy {theirs} and commit it.")
    return [f"third_party/libjpeg-turbo/{name}" for name in LICENCES]


def _compare(archive: Path, found: set[str], expected: set[str], where: str) -> None:
    faults = [f"{name} is missing" for name in sorted(expected - found)]
    faults += [f"{name} should not be there" for name in sorted(found - expected)]
    if faults:
        raise ReleaseError(f"{archive.name}: {'; '.join(faults[:5])} ({len(faults)} in all). Correct {where}.")
