"""TarReader: the members of a tar in a folder and in an object store, and their bytes."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest

from wds_real.errors import MissingError, StoreError
from wds_real.format.tar import TarError
from wds_real.format.tar_reader import TarReader
from wds_real.storage.local import LocalStore
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("remote", [False, True])
def test_members_are_those_tarfile_finds(made_tar: Path, *, remote: bool) -> None:
    """Names, sizes and bytes, read where the tar is."""
    store = open_store("memory://tar-reader") if remote else LocalStore(made_tar.parent)
    if remote:
        store.put(made_tar.name, made_tar.read_bytes())
    reader = TarReader(store, made_tar.name)
    with tarfile.open(made_tar) as tar:
        expected = [(member.name, member.size, member.offset_data) for member in tar]
    assert [(member.name, member.size, member.offset) for member in reader.members()] == expected
    name, size, offset = expected[7]
    assert reader.read(offset, offset + size) == made_tar.read_bytes()[offset : offset + size], name
    assert reader.first_block() == made_tar.read_bytes()[:512]


def test_a_tar_that_is_missing_cut_or_changed_is_an_error(made_tar: Path, tmp_path: Path) -> None:
    """No file, no end-of-archive marker, and another length than at the start are told apart."""
    store = LocalStore(tmp_path)
    with pytest.raises(MissingError):
        TarReader(store, "val.tar")
    whole = made_tar.read_bytes()
    (tmp_path / "val.tar").write_bytes(whole[:2000])
    with pytest.raises(TarError, match="cut"):
        TarReader(store, "val.tar").members()
    reader = TarReader(store, "val.tar")
    with (tmp_path / "val.tar").open("ab") as file:
        file.write(b"x")
    with pytest.raises(StoreError, match="2,001 bytes, expected 2,000"):
        reader.read(0, 10)
