"""Side files lie beside the shards, change nothing of the data set, and replace no other file unasked."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wds_real
from wds_real import interop
from wds_real.storage.local import LocalStore
from wds_real.storage.store import open_store

FORMS: tuple[Any, ...] = ("timm", "dali", "hf", "croissant")


@pytest.fixture
def root(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def digests(root: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.iterdir()}


def test_the_data_set_is_the_same_beside_its_side_files(root: Path) -> None:
    """With all side files, no file of the set has changed, its digest is the same, and `verify` finds nothing."""
    before, dataset = digests(root), wds_real.open_dataset(root)
    for form in FORMS:
        files = interop.side_files(dataset, form)
        assert interop.write_side_files(LocalStore(root), files) == list(files)
    assert before.items() <= digests(root).items()
    assert len(digests(root)) == len(before) + 3 + 3
    assert wds_real.open_dataset(root).digest == dataset.digest
    assert wds_real.verify(LocalStore(root), level="decode").problems == ()


@pytest.mark.parametrize("form", FORMS)
def test_side_files_are_a_function_of_the_data_set(root: Path, form: Any) -> None:
    """The same set gives the same bytes, wherever it lies and whichever part of it is open."""
    dataset = wds_real.open_dataset(root)
    moved = wds_real.open_dataset(shutil.copytree(root, root.parent / "moved"))
    assert interop.side_files(moved, form) == interop.side_files(dataset[:7], form)


def test_what_is_there_already_is_not_written_again(root: Path) -> None:
    """A second export finds its files and leaves them alone."""
    files = interop.side_files(wds_real.open_dataset(root), "dali")
    interop.write_side_files(LocalStore(root), files)
    times = {name: (root / name).stat().st_mtime_ns for name in files}
    (root / list(files)[1]).unlink()
    assert interop.write_side_files(LocalStore(root), files) == [list(files)[1]]
    del times[list(files)[1]]
    assert times == {name: (root / name).stat().st_mtime_ns for name in times}


def test_another_file_is_not_replaced_unasked(root: Path) -> None:
    """A README of one's own stays, and no other file of the export is written either; `overwrite` replaces it."""
    dataset = wds_real.open_dataset(root)
    indexes = interop.side_files(dataset, "dali")
    last = list(indexes)[-1]
    (root / last).write_text("mine")
    with pytest.raises(wds_real.StoreError, match=f"holds other files under these names: {last}. Nothing was written"):
        interop.write_side_files(LocalStore(root), indexes)
    assert [path.name for path in root.glob("*.idx")] == [last]
    assert (root / last).read_text() == "mine"
    assert interop.write_side_files(LocalStore(root), indexes, overwrite=True) == list(indexes)
    assert (root / last).read_bytes() == indexes[last]


def test_side_files_can_be_put_into_an_object_store(root: Path) -> None:
    """Any store takes them, such as the one that holds the shards."""
    store = open_store("memory://side-files")
    files = interop.side_files(wds_real.open_dataset(root), "timm")
    assert interop.write_side_files(store, files) == ["_info.json"]
    assert store.get("_info.json") == files["_info.json"]


def test_cards_and_side_files_need_neither_torch_nor_the_other_libraries(root: Path) -> None:
    """All forms are made without torch, webdataset, datasets or mlcroissant."""
    code = (
        "import sys, wds_real; from wds_real import interop; ds = wds_real.open_dataset(sys.argv[1])\n"
        f"for form in {FORMS}: interop.side_files(ds, form)\n"
        "sys.exit(bool({'torch', 'webdataset', 'datasets', 'mlcroissant', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, root], check=False).returncode == 0
