"""libjpeg-turbo for the wheels: one version, one archive of its source, built as a static library.

The archive is the one of upstream's tag, which Debian carries unchanged as libjpeg-turbo_3.1.3.orig.tar.gz. The archive
of upstream's release page, libjpeg-turbo-3.1.3.tar.gz, has another digest.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from releasing.commands import ReleaseError, require, run

__all__ = ["LICENCES", "SHA256", "VERSION", "build", "checked", "fetch"]

VERSION = "3.1.3"
SHA256 = "3a13a5ba767dc8264bc40b185e41368a80d5d5f945944d1dbaa4b2fb0099f4e5"
LICENCES = ("LICENSE.md", "README.ijg")  # in the archive, and in third_party/libjpeg-turbo/
_URL = f"https://github.com/libjpeg-turbo/libjpeg-turbo/archive/refs/tags/{VERSION}.tar.gz"
_TIMEOUT_S = 60
_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_INSTALL_LIBDIR=lib",
    "-DCMAKE_POSITION_INDEPENDENT_CODE=1",  # it becomes part of a shared object
    "-DBUILD=0",  # otherwise the date
    "-DENABLE_SHARED=0",
    "-DREQUIRE_SIMD=1",  # otherwise a build without SIMD, several times as slow, is no error
    "-DWITH_TESTS=0",
    "-DWITH_TOOLS=0",
    "-DWITH_TURBOJPEG=0",
)
# NO_GETENV: the library reads no environment variables, and needs fewer functions of the C library.
_FLAGS = "-fvisibility=hidden -g0 -DNO_GETENV"


def fetch(folder: Path) -> Path:
    """Return the archive of the source, downloaded to `folder` if it is not there: from upstream, or from Debian.

    Raises:
        ReleaseError: it cannot be downloaded, or is another file.
    """
    archive = folder / f"libjpeg-turbo-{VERSION}.tar.gz"
    if archive.is_file():
        return checked(archive)
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for source in (_from_upstream, _from_debian):
        try:
            partial = source(folder)
        except (OSError, ReleaseError) as error:
            failures.append(f"{error}".partition("\n")[0].rstrip(".:"))
        else:
            checked(partial).replace(archive)
            return archive
    raise ReleaseError(
        f"libjpeg-turbo {VERSION} could not be downloaded from {_URL} ({failures[0]}) nor from Debian ({failures[1]}). "
        "Download it elsewhere, and give the file: scripts/release --libjpeg-turbo FILE."
    )


def checked(archive: Path) -> Path:
    """Return `archive`.

    Raises:
        ReleaseError: its bytes are not the pinned ones, or it cannot be read.
    """
    try:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    except OSError as error:
        raise ReleaseError(f"{archive} cannot be read: {error.strerror}.") from error
    if digest != SHA256:
        raise ReleaseError(
            f"{archive} is not the archive of libjpeg-turbo {VERSION} that scripts/releasing/libjpeg_turbo.py names: "
            f"SHA-256 {digest}, expected {SHA256}. Delete it, and do not use it before you know where it comes from."
        )
    return archive


def build(archive: Path, folder: Path) -> Path:
    """Build the static library in `folder`, and return the folder into which it was installed.

    Raises:
        ReleaseError: a tool is missing, or the build failed.
    """
    require("cc", "build-essential")
    if platform.machine() in {"x86_64", "AMD64"}:
        require("nasm", "nasm")  # on ARM the fast code is C
    source, prefix = folder / f"libjpeg-turbo-{VERSION}", folder / "libjpeg-turbo"
    with tarfile.open(checked(archive)) as members:
        members.extractall(folder, filter="data")
    run(
        "cmake", "-S", source, "-B", source / "build", f"-DCMAKE_INSTALL_PREFIX={prefix}", f"-DCMAKE_C_FLAGS={_FLAGS}",
        *_OPTIONS, folder=folder,
    )  # fmt: skip
    run(
        "cmake",
        "--build",
        source / "build",
        "--parallel",
        str(os.cpu_count() or 1),
        "--target",
        "install",
        folder=folder,
    )
    for name in LICENCES:
        shutil.copy(source / name, prefix)
    return prefix


def _from_upstream(folder: Path) -> Path:
    partial = folder / "upstream.part"
    with urllib.request.urlopen(_URL, timeout=_TIMEOUT_S) as response, partial.open("wb") as file:
        shutil.copyfileobj(response, file)
    return partial


def _from_debian(folder: Path) -> Path:
    """Download Debian's source package from this machine's mirror; the settings of apt stay as they are."""
    key = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if shutil.which("apt-get") is None or not key.is_file():
        raise ReleaseError("this is no Debian machine")
    sites = run("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", folder=folder).split()
    mirror = next((site for site in sites if site.rstrip("/").endswith("/debian")), None)
    if mirror is None:
        raise ReleaseError("apt has no mirror of Debian")
    with tempfile.TemporaryDirectory(prefix="wds-real-apt-") as private:
        for name in ("lists", "cache"):
            (Path(private) / name / "partial").mkdir(parents=True)
        sources, settings = Path(private) / "sources.list", Path(private) / "apt.conf"
        sources.write_text(f"deb-src [signed-by={key}] {mirror} testing main\n")
        settings.write_text(
            f'Dir::State::Lists "{private}/lists";\nDir::Cache "{private}/cache";\nDir::Etc::SourceParts "/dev/null";\n'
            f'Dir::Etc::SourceList "{sources}";\nAPT::Sandbox::User "root";\n'
        )
        environment = {**os.environ, "APT_CONFIG": str(settings)}
        run("apt-get", "update", folder=Path(private), environment=environment)
        run(
            "apt-get", "source", "--download-only", "--only-source", "libjpeg-turbo",
            folder=Path(private), environment=environment,
        )  # fmt: skip
        found = sorted(Path(private).glob("libjpeg-turbo_*.orig.tar.gz"))
        if not found or found[0].name != f"libjpeg-turbo_{VERSION}.orig.tar.gz":
            raise ReleaseError(f"Debian has {found[0].name if found else 'no orig.tar.gz'}")
        return Path(shutil.move(found[0], folder / "debian.part"))
