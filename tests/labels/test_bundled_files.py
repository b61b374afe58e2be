"""Bundled label files: read from the installed package; a damaged file is an error."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import wds_real
from wds_real.labels.bundled_files import read_bundled

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = Path(wds_real.__file__).parent


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the labels and of what they import, whose data a test may damage."""
    folder = tmp_path / "wds_real"
    folder.mkdir()
    for name in ("__init__.py", "errors.py"):
        shutil.copy(PACKAGE / name, folder)
    for name in ("labels", "storage"):  # what labels imports
        shutil.copytree(PACKAGE / name, folder / name)
    return folder


def load_in(installed: Path) -> subprocess.CompletedProcess[str]:
    """Load the labels of an installed copy in a new process, which prints their number or the error."""
    code = (
        "from wds_real.errors import SourceError\nfrom wds_real.labels import bundled\n"
        "try: print(len(bundled().real))\nexcept SourceError as error: print('SourceError', error)"
    )
    command = [sys.executable, "-B", "-c", code]
    return subprocess.run(command, cwd=installed.parent, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", ["real.json", "validation_labels.txt", "classes.tsv"])
def test_the_bundled_files_are_the_released_ones(name: str, real_data: Callable[[str], Path]) -> None:
    """Each text file is returned decompressed, byte for byte as released."""
    assert read_bundled(name) == real_data(name).read_bytes()


def test_the_rater_scores_are_returned_as_stored() -> None:
    """The npz file is not decompressed again: the bytes are the file's."""
    assert read_bundled("rater_scores.npz") == (PACKAGE / "labels" / "data" / "rater_scores.npz").read_bytes()


def test_an_undamaged_installation_loads(installed: Path) -> None:
    """The labels load from a copy of the package that holds them and what they import."""
    done = load_in(installed)
    assert (done.stdout, done.stderr) == ("50000\n", "")


@pytest.mark.parametrize("name", ["real.json.gz", "validation_labels.txt.gz", "classes.tsv.gz"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: gzip.compress(gzip.decompress(data).replace(b"5", b"6", 1)), id="one digit changed"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut"),
        pytest.param(lambda data: data[:1000] + bytes([data[1000] ^ 8]) + data[1001:], id="one bit flipped"),
        pytest.param(lambda _: b"", id="emptied"),
        pytest.param(lambda _: b"version https://git-lfs.github.com/spec/v1\n", id="replaced by a pointer"),
    ],
)
def test_damaged_bundled_labels_are_refused(installed: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    """However a bundled file is damaged, loading is a SourceError that names it and says to install again."""
    path = installed / "labels" / "data" / name
    path.write_bytes(damage(path.read_bytes()))
    done = load_in(installed)
    assert done.stdout.startswith(f"SourceError wds_real/labels/data/{name.removesuffix('.gz')}"), done.stderr[-500:]
    assert "install wds_real again" in done.stdout
