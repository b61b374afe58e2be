"""From positions to bytes: what is read is what was packed, or an error that says where."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wds_real.data.reader import SampleReader
from wds_real.errors import ManifestError, ShardError, StoreError, UnavailableError
from wds_real.format.root import read_index, read_manifest
from wds_real.storage.buffers import Buffers
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class ScriptedStore(LocalStore):
    """A folder whose n-th range read goes wrong as a script says; after the script it is sound."""

    def __init__(self, root: Path, script: Sequence[Callable[[bytes], bytes]] = ()) -> None:
        super().__init__(root)
        self.script = list(script)
        self.reads = 0

    def get_range(self, name: str, start: int, stop: int, *, size: int | None = None, fresh: bool = False) -> bytes:
        data = super().get_range(name, start, stop, size=size, fresh=fresh)
        self.reads += 1
        return self.script.pop(0)(data) if self.script else data


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 0x80]) + data[1:]


def shortened(data: bytes) -> bytes:
    return data[:-1]


def refused(data: bytes) -> bytes:
    raise StoreError(f"refused {len(data)} bytes")


def open_reader(store: LocalStore) -> SampleReader:
    manifest = read_manifest(store)
    return SampleReader(store, manifest, read_index(store, manifest))


@pytest.fixture(scope="module")
def pictures(made_tar: Path) -> list[bytes]:
    """The source's JPEG bytes in key order, as the standard library reads them."""
    with tarfile.open(made_tar) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return [file.read() for _, file in sorted(files.items()) if file is not None]


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    """A packed set to damage."""
    return Path(shutil.copytree(packed, tmp_path / "set"))


def test_every_sample_is_the_sources_bytes(packed: Path, pictures: list[bytes]) -> None:
    """Each position gives the JPEG that was packed there."""
    reader = open_reader(LocalStore(packed))
    assert [reader.read(position) for position in range(120)] == pictures


def test_threads_and_processes_share_a_reader(packed: Path, pictures: list[bytes]) -> None:
    """A reader that went through pickle, read from eight threads at once, gives the same."""
    reader = pickle.loads(pickle.dumps(open_reader(LocalStore(packed))))  # noqa: S301 -- our own bytes
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(reader.read, list(range(120)) * 5)) == pictures * 5


@pytest.mark.parametrize("fault", [flipped, shortened])
def test_a_passing_fault_is_read_again(packed: Path, pictures: list[bytes], fault: Callable[[bytes], bytes]) -> None:
    """Bytes that are wrong once and right the second time are no error."""
    store = ScriptedStore(packed)
    reader = open_reader(store)
    store.script, store.reads = [fault], 0
    assert reader.read(70) == pictures[70]
    assert store.reads == 2


@pytest.mark.parametrize("script", [[flipped, flipped], [shortened, flipped], [refused], [flipped, refused]])
def test_a_lasting_fault_is_an_error_that_says_where(packed: Path, script: list[Callable[[bytes], bytes]]) -> None:
    """Wrong twice, or refused: the error has shard, key and byte range, and says what to do."""
    store = ScriptedStore(packed)
    reader = open_reader(store)
    store.script = script
    with pytest.raises(ShardError) as caught:
        reader.read(70)
    error = caught.value
    assert error.shard == "imagenet2012_real-validation-000001.tar"
    assert error.key == "ILSVRC2012_val_00000071.jpg"
    with tarfile.open(packed / error.shard) as tar:
        member = tar.getmember(error.key)
    assert error.byte_range == (member.offset_data, member.offset_data + member.size)
    assert error.exit_code == 4
    message = str(error)
    assert message.startswith(f"{error.shard}: {error.key} [bytes {member.offset_data}-")
    assert f"wds-real verify {packed}" in message
    assert str(pickle.loads(pickle.dumps(error))) == message  # noqa: S301 -- our own bytes


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_never_handed_on(copied: Path, pictures: list[bytes], data: st.DataObject) -> None:
    """One wrong bit anywhere in a shard: each sample is its own bytes, or an error if the bit is in it."""
    number = data.draw(st.integers(0, 2))
    shard = copied / f"imagenet2012_real-validation-{number:06d}.tar"
    whole = shard.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    shard.write_bytes(changed)
    store = LocalStore(copied)
    reader, index = open_reader(store), read_index(store, read_manifest(store))
    try:
        for position in range(50 * number, min(50 * number + 50, 120)):
            start = int(index.offset[position])
            if start <= place < start + index.num_bytes[position]:
                with pytest.raises(ShardError, match=index.keys[position]):
                    reader.read(position)
            else:
                assert reader.read(position) == pictures[position]
    finally:
        shard.write_bytes(whole)


@pytest.mark.parametrize("damage", ["cut", "deleted"])
def test_bytes_that_are_not_there_are_an_error(copied: Path, damage: str) -> None:
    """A shard that ends early or is gone is an error for the samples it lacks, not an end of the data."""
    shard = copied / "imagenet2012_real-validation-000001.tar"
    first, last = open_reader(LocalStore(copied)).read(50), 99
    reader = open_reader(LocalStore(copied))
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-4096])
        assert reader.read(50) == first
    else:
        shard.unlink()
    with pytest.raises(ShardError, match=r"000001\.tar: ILSVRC2012_val_00000100\.jpg .*cannot be read"):
        reader.read(last)


def test_a_folder_without_manifest_is_not_a_data_set(tmp_path: Path) -> None:
    """An empty folder is named, with what may have happened; one that is not there is said to be missing."""
    with pytest.raises(ManifestError, match=rf"{tmp_path}: no manifest.json.*wds-real pack"):
        read_manifest(LocalStore(tmp_path))
    with pytest.raises(StoreError, match="missing: no such folder"):
        read_manifest(LocalStore(tmp_path / "missing"))


def test_shards_without_manifest_are_not_a_data_set(copied: Path) -> None:
    """A packing that never finished is not read as a smaller set."""
    (copied / "manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"no manifest\.json"):
        read_manifest(LocalStore(copied))


@pytest.mark.parametrize("change", [None, b"", b"x", b"\n"], ids=["missing", "empty", "other", "a newline more"])
def test_an_index_that_is_not_the_manifests_is_refused(copied: Path, change: bytes | None) -> None:
    """index.json is checked byte for byte before a position of it is believed."""
    path = copied / "index.json"
    whole = path.read_bytes()
    path.unlink()
    if change is not None:
        path.write_bytes(whole + change if change == b"\n" else change)
    store = LocalStore(copied)
    with pytest.raises(ManifestError, match=r"index\.json"):
        read_index(store, read_manifest(store))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_what_the_machine_lacks_is_no_damage(packed: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The error is the machine's: it is neither a ShardError nor returned in place of a sample."""
    reader = open_reader(LocalStore(packed))

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    for call in ("pread", "preadv"):
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(UnavailableError, match=os.strerror(code)):
        reader.read(0)
    with pytest.raises(UnavailableError, match=os.strerror(code)):
        reader.read_many([0, 1], Buffers(max_kept=1))
