"""Side files of a set that is replaced: removed with a line, or refused, and those of other tools stay."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
from support.commands import Ended, expect_one_line

from wds_real import StoreError, open_dataset, open_source, write_shards
from wds_real.format.side_files import refuse_old_card, remove_side_files
from wds_real.interop.exports import side_files, write_side_files
from wds_real.packing.indexer import index_shards
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OF_SHARDS = [f"imagenet2012_real-validation-00000{number}.idx" for number in range(3)]
MACHINE_MADE = sorted([*OF_SHARDS, "_info.json", "croissant.json"])


def exported(root: Path, *forms: str) -> None:
    for form in forms:
        write_side_files(LocalStore(root), side_files(open_dataset(root), form))  # type: ignore[arg-type]


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


@pytest.fixture
def shards(here: Path) -> Path:
    """A packed set with the files for timm, DALI and Croissant."""
    exported(here / "shards", "timm", "dali", "croissant")
    assert names(here / "shards") >= set(MACHINE_MADE)
    return here / "shards"


def test_pack_removes_what_described_the_replaced_set(
    shards: Path, run: Callable[..., Ended], caplog: pytest.LogCaptureFixture
) -> None:
    """Fewer and longer shards: no index of a shard that is gone is left, and a line says what was removed."""
    ended = run(
        "pack", shards.parent / "val.tar", shards, "--allow-partial", "--overwrite", "--samples-per-shard", "100"
    )
    assert ended.code == 0
    assert names(shards).isdisjoint(MACHINE_MADE)
    (line,) = [line for line in caplog.messages if "side files" in line]
    assert "_info.json" in line
    assert "wds-real export" in line
    exported(shards, "timm", "dali", "croissant")
    listed = json.loads((shards / "_info.json").read_text())
    assert "000002" not in json.dumps(listed)


def test_files_of_others_stay(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An index of another tar, timm's list of another set, a page of one's own, and a description of another set."""
    root = here / "shards"
    others = {
        "train-000000.idx": "v1.2 0\n",
        "_info.json": '{"splits": {"train": {"filenames": ["train-0.tar"]}}}',
        "README.md": "# My notes\n",
        "croissant.json": '{"name": "another set"}',
    }
    for name, text in others.items():
        (root / name).write_text(text)
    with caplog.at_level(logging.WARNING):
        remove_side_files(LocalStore(root))
    refuse_old_card(LocalStore(root))
    assert {name: (root / name).read_text() for name in others} == others
    assert not caplog.records


def test_a_card_that_people_may_have_added_to_is_refused(here: Path, run: Callable[..., Ended]) -> None:
    """Before the source is read, and nothing is changed; without the card it goes on."""
    root = here / "shards"
    exported(root, "hf", "timm")
    before = {path.name: path.read_bytes() for path in root.iterdir()}
    arguments = ("pack", "val.tar", "shards", "--allow-partial", "--overwrite", "-q")
    expect_one_line(run(*arguments), 1, "README.md describes the set that would be replaced", "--format hf")
    assert {path.name: path.read_bytes() for path in root.iterdir()} == before
    with open_source("val.tar", allow_partial=True) as source, pytest.raises(StoreError, match=r"README\.md"):
        write_shards(source, LocalStore(root), overwrite=True)
    assert {path.name: path.read_bytes() for path in root.iterdir()} == before
    (root / "README.md").unlink()
    assert run(*arguments).code == 0


def test_a_new_index_leaves_what_describes_the_shards(shards: Path) -> None:
    """The shards stay, and so do the files for timm and DALI; Croissant has the digest of the old index."""
    index_shards(str(shards), overwrite=True)
    assert names(shards) >= {*OF_SHARDS, "_info.json"}
    assert "croissant.json" not in names(shards)


def test_a_card_is_refused_by_index_too(here: Path) -> None:
    """It has the digest of the set that is replaced."""
    exported(here / "shards", "hf")
    manifest = (here / "shards" / "manifest.json").read_bytes()
    with pytest.raises(StoreError, match=r"README\.md describes"):
        index_shards(str(here / "shards"), overwrite=True)
    assert (here / "shards" / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize(
    "manifest", [b"{", b"[]", b'{"shards": 5, "index": 3, "digest": 7}', b'{"shards": [1, {"name": 2}]}']
)
def test_a_damaged_manifest_does_not_keep_files_alive(shards: Path, manifest: bytes) -> None:
    """Files that name shards by name go without it; a set that cannot be read is replaced all the same."""
    (shards / "manifest.json").write_bytes(manifest)
    refuse_old_card(LocalStore(shards))
    remove_side_files(LocalStore(shards))
    assert names(shards).isdisjoint([*OF_SHARDS, "_info.json"])
