"""setup.py: optional extensions against the machine's library, or obligatory ones with a static libjpeg-turbo."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

setuptools = pytest.importorskip("setuptools", reason="setuptools is missing: pip install setuptools")

REPOSITORY = Path(__file__).resolve().parents[2]
VARIABLE = "WDS_REAL_LIBJPEG_TURBO"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A folder like one into which libjpeg-turbo was installed."""
    for name in ("include/jpeglib.h", "lib/libjpeg.a"):
        path = tmp_path / "prefix" / name
        path.parent.mkdir(parents=True)
        path.touch()
    return tmp_path / "prefix"


def extensions(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run setup.py up to its call of setup(), and return the extensions by the last part of their name."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", asked.update)
    runpy.run_path(str(REPOSITORY / "setup.py"))
    return {extension.name.rpartition(".")[2]: extension for extension in asked["ext_modules"]}


def test_without_the_variable_the_machines_library_is_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both extensions are optional, the decoder is linked against the machine's libjpeg; an empty variable is none."""
    for value in (None, ""):
        monkeypatch.delenv(VARIABLE, raising=False) if value is None else monkeypatch.setenv(VARIABLE, value)
        found = extensions(monkeypatch)
        assert [extension.optional for extension in found.values()] == [True, True]
        assert found["_jpeg"].libraries == ["jpeg"]
        assert found["_jpeg"].extra_objects == []
        assert found["_resample"].libraries == []


def test_with_the_variable_the_static_library_is_linked(monkeypatch: pytest.MonkeyPatch, prefix: Path) -> None:
    """No library of the machine is asked for, its symbols are hidden, and an extension that fails stops the build."""
    monkeypatch.setenv(VARIABLE, str(prefix))
    found = extensions(monkeypatch)
    assert [extension.optional for extension in found.values()] == [False, False]
    assert found["_jpeg"].libraries == []
    assert found["_jpeg"].extra_objects == [str(prefix / "lib" / "libjpeg.a")]
    assert found["_jpeg"].include_dirs == [str(prefix / "include")]
    assert found["_jpeg"].extra_link_args == (["-Wl,--exclude-libs,ALL"] if sys.platform == "linux" else [])
    assert found["_resample"].extra_objects == []


def test_a_path_from_here_becomes_a_whole_one(monkeypatch: pytest.MonkeyPatch, prefix: Path) -> None:
    """Builds run in another folder than the one in which the variable was set."""
    monkeypatch.chdir(prefix.parent)
    monkeypatch.setenv(VARIABLE, "prefix")
    assert extensions(monkeypatch)["_jpeg"].extra_objects == [str(prefix / "lib" / "libjpeg.a")]


@pytest.mark.parametrize("name", ["include/jpeglib.h", "lib/libjpeg.a"])
def test_a_folder_without_the_library_is_refused(prefix: Path, name: str) -> None:
    """The build stops with one line that names the missing file: a wheel never lacks the decoder silently."""
    (prefix / name).unlink()
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=REPOSITORY,
        env={VARIABLE: str(prefix)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"{VARIABLE}: {prefix / name} is missing. Give the folder into which libjpeg-turbo was installed, with "
        "include/jpeglib.h and lib/libjpeg.a, or unset the variable to link the machine's library.\n"
    )


def test_the_licences_of_what_is_in_the_wheel_are_named() -> None:
    """Each pattern of license-files matches, and the texts of libjpeg-turbo are among them."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    found = [sorted(path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob(pattern))
             for pattern in project["license-files"]]  # fmt: skip
    assert all(found)
    assert ["third_party/libjpeg-turbo/LICENSE.md", "third_party/libjpeg-turbo/README.ijg"] in found
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    assert "based in part on the work of the Independent JPEG Group" in " ".join(readme.split())


@pytest.mark.parametrize("source", ["_jpeg.c", "_resample.c"])
@pytest.mark.parametrize(("settings", "seen"), [("", "0x030B0000"), ("#define Py_GIL_DISABLED 1\n", "Py_LIMITED_API")])
def test_the_stable_abi_is_left_out_for_free_threaded_pythons(
    tmp_path: Path, source: str, settings: str, seen: str
) -> None:
    """It is a setting of pyconfig.h that says for which kind of Python is compiled."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler: apt-get install build-essential")
    (tmp_path / "pyconfig.h").write_text(settings)
    (tmp_path / "Python.h").write_text('#include "pyconfig.h"\nlimited to Py_LIMITED_API\n')
    (tmp_path / "jpeglib.h").write_text("#define LIBJPEG_TURBO_VERSION_NUMBER 3001003\n")
    command = [compiler, "-E", "-P", "-I", str(tmp_path), str(REPOSITORY / "wds_real" / "image" / source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"limited to {seen}\n" in done.stdout
