"""The storage protocols: each kind of store and reader implements them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from wds_real.storage.cache import ByteCache, CachedRanges
from wds_real.storage.local import LocalStore
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from wds_real.storage.base import RangeReader, Store

DATA = b"0123456789"


def stores(folder: Path) -> list[Store]:
    return [LocalStore(folder / "local"), open_store(f"memory://{folder.name}")]


@pytest.mark.parametrize("number", range(3))
def test_a_range_reader_returns_exact_ranges(number: int, tmp_path: Path) -> None:
    """So do folders, object stores, and object stores behind a cache."""
    local, remote = stores(tmp_path)
    shards = {"a": (hashlib.sha256(DATA).hexdigest(), len(DATA))}
    readers: list[RangeReader] = [local, remote, CachedRanges(remote, ByteCache(tmp_path / "cache"), shards)]
    for store in (local, remote):
        store.put("a", DATA)
    reader = readers[number]
    assert bytes(reader.get_range("a", 2, 5)) == b"234"
    assert bytes(reader.get_range("a", 2, 5, size=10, fresh=True)) == b"234"
    assert reader.remote == (reader is not local)
    assert reader.url


def test_only_files_of_this_machine_have_a_file_reader(tmp_path: Path) -> None:
    """It reads into given memory, and maps; other readers have None."""
    local, remote = stores(tmp_path)
    local.put("a", DATA)
    files, out = local.file_reader, bytearray(3)
    assert files is not None
    assert files.read_into("a", 2, memoryview(out))
    assert (bytes(out), bytes(files.view("a", 2, 5))) == (b"234", b"234")
    assert not files.read_into("a", 8, memoryview(out))
    assert remote.file_reader is None
    assert CachedRanges(remote, ByteCache(tmp_path), {}).file_reader is None


def test_a_store_writes_what_it_reads(tmp_path: Path) -> None:
    """All methods of `Store` agree with each other."""
    for store in stores(tmp_path):
        store.put("b", DATA)
        with store.create("a") as file:
            file.write(DATA[:5])
        assert store.exists()
        assert store.listable
        assert store.list() == ["a", "b"]
        assert (store.head("a"), store.get("a")) == (5, DATA[:5])
        store.delete("a")
        assert store.list() == ["b"]
        assert store.delete_leftovers() == []
