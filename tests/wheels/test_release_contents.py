"""What the archives must hold: no file less, no file more, and extensions that need the C library only."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from releasing import contents
from releasing.commands import ReleaseError
from releasing.contents import check_extension, check_licences, check_sdist, check_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Compile = Callable[..., Path]

TRACKED = ("LICENSE", "setup.py", "wds_real/__init__.py", "wds_real/image/_jpeg.c", "wds_real/labels/data/real.json.gz")
LICENCES = ("LICENSE", "third_party/libjpeg-turbo/LICENSE.md")
WHEEL = "wds_real-1.0-cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
INFO = "wds_real-1.0.dist-info"
NAMES = (
    "wds_real/__init__.py",
    "wds_real/labels/data/real.json.gz",
    *(f"{INFO}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")),
    *(f"{INFO}/licenses/{name}" for name in LICENCES),
)


@pytest.fixture(scope="module")
def shared_object() -> Compile:
    """A function that compiles a line of C to a shared object."""
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("readelf") is None:
        pytest.skip("no C compiler, or no readelf: apt-get install build-essential")

    def compile_to(path: Path, code: str, *options: str | Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        source = path.with_suffix(".c")
        source.write_text(code + "\n")
        command = [compiler, "-shared", "-fPIC", "-nostartfiles", "-o", path, source, *options]
        subprocess.run(command, check=True, env={**os.environ, "LC_ALL": "C"})
        source.unlink()
        return path

    return compile_to


@pytest.fixture(scope="module")
def extension(shared_object: Compile, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """A function that returns a good extension's bytes."""
    folder = tmp_path_factory.mktemp("extensions")

    def built(name: str) -> bytes:
        code = f'#include <stdlib.h>\nvoid *PyInit_{name}(void) {{ return getenv("X"); }}'
        return shared_object(folder / f"{name}.abi3.so", code).read_bytes()

    return built


@pytest.fixture
def wheel(extension: Callable[[str], bytes], tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a wheel, a good one unless it is told otherwise."""

    def write(
        name: str = WHEEL, names: Iterable[str] = NAMES, extensions: Iterable[str] = ("_jpeg", "_resample")
    ) -> Path:
        path = tmp_path / name
        suffix = ".abi3.so" if "abi3" in name else ".cpython-314t-x86_64-linux-gnu.so"
        with zipfile.ZipFile(path, "w") as archive:
            for member in names:
                archive.writestr(member, b"")
            for member in extensions:
                archive.writestr(f"wds_real/image/{member}{suffix}", extension(member))
        return path

    return write


def test_a_good_wheel_passes(wheel: Callable[..., Path]) -> None:
    """The files are counted."""
    assert check_wheel(wheel(), TRACKED, LICENCES) == len(NAMES) + 2


def test_a_good_wheel_of_a_free_threaded_python_passes(wheel: Callable[..., Path]) -> None:
    """Its extensions have the name of the one Python that they are for."""
    assert check_wheel(wheel(WHEEL.replace("cp311-abi3", "cp314-cp314t")), TRACKED, LICENCES) == len(NAMES) + 2


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_found(wheel: Callable[..., Path], name: str) -> None:
    """Code, data, metadata and licences are all needed."""
    with pytest.raises(
        ReleaseError, match=rf": {name} is missing \(1 in all\)\. Correct package-data in pyproject\.toml"
    ):
        check_wheel(wheel(names=[other for other in NAMES if other != name]), TRACKED, LICENCES)


@pytest.mark.parametrize("name", ["wds_real/image/_jpeg.c", "tests/test_docs.py", "wds_real/labels/data/notes.txt"])
def test_a_stray_file_is_found(wheel: Callable[..., Path], name: str) -> None:
    """C sources, tests and files that git does not track have no place in a wheel."""
    with pytest.raises(ReleaseError, match=rf": {name} should not be there \(1 in all\)"):
        check_wheel(wheel(names=[*NAMES, name]), TRACKED, LICENCES)


@pytest.mark.parametrize("names", [[], ["_jpeg"]])
def test_a_wheel_without_an_extension_is_refused(wheel: Callable[..., Path], names: list[str]) -> None:
    """Extensions are optional for those who build from source, not here."""
    with pytest.raises(ReleaseError, match=rf"{WHEEL} has {len(names)} extensions, expected 2\."):
        check_wheel(wheel(extensions=names), TRACKED, LICENCES)


@pytest.mark.parametrize("tag", ["linux_x86_64", "manylinux_2_38_x86_64", "manylinux_2_170_x86_64"])
def test_a_wheel_for_later_machines_only_is_refused(wheel: Callable[..., Path], tag: str) -> None:
    """The tag that auditwheel found is later than promised, or there is none."""
    with pytest.raises(ReleaseError, match=f"{tag}.whl needs a later C library than manylinux_2_17"):
        check_wheel(wheel(f"wds_real-1.0-cp311-abi3-{tag}.whl"), TRACKED, LICENCES)


def test_an_extension_that_needs_another_library_is_refused(shared_object: Compile, tmp_path: Path) -> None:
    """Such as the machine's libjpeg."""
    library = shared_object(tmp_path / "libjpeg.so.62", "void *decode(void) { return 0; }", "-Wl,-soname,libjpeg.so.62")
    path = shared_object(
        tmp_path / "_jpeg.abi3.so", "void *decode(void); void *PyInit__jpeg(void) { return decode(); }", library
    )
    with pytest.raises(ReleaseError, match=r"_jpeg\.abi3\.so needs libjpeg\.so\.62, expected the C library only"):
        check_extension(path)


@pytest.mark.parametrize("option", ["-Wl,-rpath,/opt/python/lib", "-Wl,--disable-new-dtags,-rpath,/opt/python/lib"])
def test_an_extension_that_looks_for_libraries_elsewhere_is_refused(
    shared_object: Compile, tmp_path: Path, option: str
) -> None:
    """A path of the builder's machine could exist on the user's, and belong to somebody else."""
    path = shared_object(
        tmp_path / "_jpeg.abi3.so", "void *PyInit__jpeg(void) { return 0; }", "-lc", "-Wl,--no-as-needed", option
    )
    with pytest.raises(ReleaseError, match=r"looks for libraries in a folder of the machine that built it"):
        check_extension(path)


def test_an_extension_that_exports_the_library_is_refused(shared_object: Compile, tmp_path: Path) -> None:
    """Another libjpeg of the same process must not be taken for this one."""
    code = (
        "#include <stdlib.h>\nvoid *PyInit__jpeg(void) { return malloc(1); }\nint jpeg_read_header(void) { return 1; }"
    )
    path = shared_object(tmp_path / "_jpeg.abi3.so", code)
    with pytest.raises(ReleaseError, match=r"exports .*jpeg_read_header.*, expected its PyInit function only"):
        check_extension(path)


def test_the_source_archive_has_what_git_tracks(tmp_path: Path) -> None:
    """And what setuptools adds; one file more or less is named."""

    def sdist(*names: str) -> Path:
        path = tmp_path / "wds_real-1.0.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(f"wds_real-1.0/{name}"), io.BytesIO())
        return path

    added = ("PKG-INFO", "setup.cfg", *(f"wds_real.egg-info/{name}" for name in contents._EGG_INFO))
    assert check_sdist(sdist(*TRACKED, *added), TRACKED) == len(TRACKED) + len(added)
    with pytest.raises(ReleaseError, match=r"wds_real-1\.0/setup\.py is missing \(1 in all\)\. Correct MANIFEST\.in"):
        check_sdist(sdist(*(name for name in (*TRACKED, *added) if name != "setup.py")), TRACKED)
    with pytest.raises(ReleaseError, match=r"wds_real-1\.0/shards/000000\.tar should not be there \(1 in all\)"):
        check_sdist(sdist(*TRACKED, *added, "shards/000000.tar"), TRACKED)


def test_the_licences_are_those_of_the_source(tmp_path: Path) -> None:
    """A new version of libjpeg-turbo may have others: they are copied and committed first."""
    ours, theirs = tmp_path / "third_party" / "libjpeg-turbo", tmp_path / "built"
    for folder in (ours, theirs):
        folder.mkdir(parents=True)
        for name in ("LICENSE.md", "README.ijg"):
            (folder / name).write_text(name)
    assert check_licences(tmp_path, theirs) == [
        f"third_party/libjpeg-turbo/{name}" for name in ("LICENSE.md", "README.ijg")
    ]
    (theirs / "LICENSE.md").write_text("other terms")
    with pytest.raises(ReleaseError, match=r"LICENSE\.md is not that of the source of libjpeg-turbo\. Copy "):
        check_licences(tmp_path, theirs)
    shutil.rmtree(ours)
    with pytest.raises(ReleaseError, match="is not that of the source"):
        check_licences(tmp_path, theirs)
