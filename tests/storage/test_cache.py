"""The byte cache: it returns the bytes of the store, keeps to its size, and never makes reading fail."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.http_server import http_server

from wds_real.data.dataset import open_dataset
from wds_real.errors import MissingError, ShardError, StoreError, UnavailableError
from wds_real.storage.cache import ByteCache, CachedRanges

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wds_real.data.dataset import Dataset

PIECE = 8 << 20
OVERHEAD = 16  # bytes of checksum at the end of each piece


@functools.cache
def shard_bytes(seed: int, num_bytes: int) -> bytes:
    return random.Random(seed).randbytes(num_bytes)  # noqa: S311 -- test data


class Scripted:
    """Files in memory; records the ranges that are read, and calls `before` ahead of each read."""

    remote = True
    file_reader = None

    def __init__(self, files: Mapping[str, bytes], *, url: str = "memory://scripted") -> None:
        self.files = dict(files)
        self.url = url
        self.requested: list[tuple[str, int, int]] = []
        self.fresh: list[bool] = []
        self.before: Callable[[], None] = lambda: None

    def get_range(
        self, name: str, start: int, stop: int, *, size: int | None = None, fresh: bool = False
    ) -> bytes | memoryview:
        self.requested.append((name, start, stop))
        self.fresh.append(fresh)
        self.before()
        if name not in self.files:
            raise MissingError(f"{self.url}/{name}: no such file.")
        data = self.files[name]
        assert 0 <= start <= stop <= len(data)
        assert size in (None, len(data))
        return memoryview(data)[start:stop]


def cached(store: Scripted, folder: Path, *, max_bytes: int = 1 << 30) -> CachedRanges:
    """Read through a cache; all files of the store are shards."""
    shards = {name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in store.files.items()}
    return CachedRanges(store, ByteCache(folder, max_bytes), shards)


def read(front: CachedRanges, name: str, start: int = 0, stop: int | None = None) -> bytes:
    return bytes(front.get_range(name, start, front._shards[name][1] if stop is None else stop))


def pieces(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.piece"))


def litter(folder: Path) -> list[str]:
    """Return the names of files in the folder that are neither pieces nor the lock."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".piece" and path.name != ".lock")


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in pieces(folder))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- Ranges -----------------------------------------------------------------------------------------------------------


def test_ranges_are_exact(tmp_path: Path) -> None:
    """Within a piece, at its edges and across pieces, on the first read and later, when the store is not used any more.

    Each piece is asked for once, whole, and the last one as far as the shard goes.
    """
    size = 2 * PIECE + 12_345
    store = Scripted({"a.tar": shard_bytes(1, size)})
    front = cached(store, tmp_path)
    draws = random.Random(2)  # noqa: S311 -- test data
    edges = (0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, size - 1, size)
    bounds = list(itertools.combinations(edges, 2))
    bounds += [(start, min(size, start + draws.randrange(200_000))) for start in draws.sample(range(size), 40)]
    draws.shuffle(bounds)
    for start, stop in bounds:
        assert bytes(front.get_range("a.tar", start, stop, size=size)) == store.files["a.tar"][start:stop]
    assert sorted(store.requested) == [("a.tar", 0, PIECE), ("a.tar", PIECE, 2 * PIECE), ("a.tar", 2 * PIECE, size)]
    assert total(tmp_path) == size + 3 * OVERHEAD
    again = cached(store, tmp_path)
    assert read(again, "a.tar") == store.files["a.tar"]
    assert len(store.requested) == 3
    assert litter(tmp_path) == []


def test_only_needed_pieces_are_fetched(tmp_path: Path) -> None:
    """A range fetches the pieces that hold it; an empty range fetches at most one."""
    store = Scripted({"a.tar": shard_bytes(1, 3 * PIECE)})
    front = cached(store, tmp_path)
    assert bytes(front.get_range("a.tar", PIECE + 5, PIECE + 9)) == store.files["a.tar"][PIECE + 5 : PIECE + 9]
    assert store.requested == [("a.tar", PIECE, 2 * PIECE)]
    assert bytes(front.get_range("a.tar", PIECE + 5, PIECE + 5)) == b""
    assert len(store.requested) == 1


def test_ranges_of_other_files_are_not_cached(tmp_path: Path) -> None:
    """They are read from the store each time; the folder is not created."""
    store = Scripted({"a.tar": b"tar"})
    front = cached(store, tmp_path / "cache")
    store.files["b.json"] = b"[1]"
    for _ in range(2):
        assert bytes(front.get_range("b.json", 1, 2)) == b"1"
    assert store.requested == [("b.json", 1, 2)] * 2
    assert (front.url, front.remote, front.file_reader) == (store.url, True, None)
    assert not (tmp_path / "cache").exists()


def test_a_range_beyond_the_shard_is_an_error(tmp_path: Path) -> None:
    """So is another expected length; the store is not read, and the folder is not created."""
    store = Scripted({"a.tar": shard_bytes(1, 1000)})
    front = cached(store, tmp_path / "cache")
    with pytest.raises(StoreError, match=r"a\.tar: bytes 5-1001 .* has 1,000"):
        front.get_range("a.tar", 5, 1001)
    with pytest.raises(StoreError, match=r"a\.tar"):
        front.get_range("a.tar", 5, 10, size=999)
    assert store.requested == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", [MissingError, StoreError, UnavailableError])
def test_errors_of_the_store_are_raised(tmp_path: Path, kind: type[StoreError]) -> None:
    """The next read uses the store again, and the failed one leaves no files."""
    store = Scripted({"a.tar": shard_bytes(1, 1000)})
    front = cached(store, tmp_path)

    def refuse() -> None:
        raise kind("not now")

    store.before = refuse
    with pytest.raises(kind, match="not now"):
        read(front, "a.tar")
    assert litter(tmp_path) == []
    store.before = lambda: None
    assert read(front, "a.tar") == store.files["a.tar"]
    assert len(pieces(tmp_path)) == 1


# --- By content -------------------------------------------------------------------------------------------------------


def test_the_same_shard_is_cached_once(tmp_path: Path) -> None:
    """A mirror with another URL and name needs no request."""
    one = Scripted({"a.tar": shard_bytes(1, 5000)}, url="memory://one")
    mirror = Scripted({"b.tar": shard_bytes(1, 5000)}, url="memory://mirror")
    read(cached(one, tmp_path), "a.tar")
    assert read(cached(mirror, tmp_path), "b.tar") == shard_bytes(1, 5000)
    assert mirror.requested == []
    assert len(pieces(tmp_path)) == 1


def test_shards_are_told_apart_by_content(tmp_path: Path) -> None:
    """After packing again, a shard of the same URL and length is fetched."""
    old, new = (Scripted({"a.tar": shard_bytes(seed, 5000)}) for seed in (1, 2))
    read(cached(old, tmp_path), "a.tar")
    assert read(cached(new, tmp_path), "a.tar") == shard_bytes(2, 5000)
    assert read(cached(old, tmp_path), "a.tar") == shard_bytes(1, 5000)
    assert (len(old.requested), len(new.requested), len(pieces(tmp_path))) == (1, 1, 2)


def test_shards_without_a_digest_are_not_cached(packed: Path, tmp_path: Path) -> None:
    """Without its SHA-256 in the manifest, a shard is read from the server each time."""
    local = open_dataset(packed)
    with http_server(packed) as server, pytest.MonkeyPatch.context() as patch:
        dataset = open_dataset(server.endpoint, cache=ByteCache(tmp_path / "cache"))
        assert dataset.reader.read(0) == local.reader.read(0)
        assert len(pieces(tmp_path / "cache")) == 1
        unknown = replace(local.manifest, shards=tuple(replace(shard, sha256="") for shard in local.manifest.shards))
        patch.setattr("wds_real.data.dataset.read_manifest", lambda _: unknown)
        dataset = open_dataset(server.endpoint, cache=ByteCache(tmp_path / "other"))
        assert dataset.reader.read(0) == local.reader.read(0)
        assert not (tmp_path / "other").exists()


def test_cached_ranges_can_be_pickled(tmp_path: Path, packed: Path) -> None:
    """The copy reads from the same folder."""
    with http_server(packed) as server:
        dataset = open_dataset(server.endpoint, cache=ByteCache(tmp_path))
        before = [bytes(dataset.reader.read(position)) for position in range(len(dataset))]
        requests = len(server.requests)
        again: Dataset = pickle.loads(pickle.dumps(dataset))  # noqa: S301 -- our own
        assert [bytes(again.reader.read(position)) for position in range(len(again))] == before
        assert len(server.requests) == requests


# --- Damage -----------------------------------------------------------------------------------------------------------

SMALL = 3000
DAMAGES = st.one_of(
    st.integers(0, SMALL + OVERHEAD - 1).flatmap(
        lambda at: st.integers(0, 7).map(lambda bit: (f"flip bit {bit} of byte {at}", at, 1 << bit))
    ),
    st.integers(0, SMALL + OVERHEAD - 1).map(lambda length: (f"cut to {length}", length, None)),
    st.integers(1, 5000).map(lambda more: (f"extend by {more}", more, -1)),
)


def damage(path: Path, at: int, how: int | None) -> None:
    data = bytearray(path.read_bytes())
    if how is None:
        del data[at:]
    elif how < 0:
        data += bytes(at)
    else:
        data[at] ^= how
    path.write_bytes(data)


@settings(max_examples=150, deadline=None)
@given(kind=DAMAGES, start=st.integers(0, SMALL - 1))
def test_a_damaged_piece_is_replaced(kind: tuple[str, int, int | None], start: int) -> None:
    """With any flipped bit or another length it is removed with one warning, and fetched again."""
    heard = Heard()
    store = Scripted({"a.tar": shard_bytes(1, SMALL)})
    with tempfile.TemporaryDirectory() as name, heard:
        folder = Path(name)
        read(cached(store, folder), "a.tar")
        (piece,) = pieces(folder)
        whole = piece.read_bytes()
        damage(piece, *kind[1:])
        front = cached(store, folder)
        assert read(front, "a.tar", start) == store.files["a.tar"][start:]
        assert read(front, "a.tar") == store.files["a.tar"]
        assert len(store.requested) == 2
        assert piece.read_bytes() == whole
    assert [f"{piece}: a damaged piece was removed from the cache"] == heard.messages


class Heard(logging.Handler):
    """Collects the messages of the cache's log within a block."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> Self:
        logging.getLogger("wds_real.storage.cache").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("wds_real.storage.cache").removeHandler(self)


def test_fresh_reads_replace_a_wrong_piece(tmp_path: Path) -> None:
    """A piece overwritten by another one of the same length passes its own check; the samples' checks find it."""
    store = Scripted({"a.tar": shard_bytes(1, SMALL), "b.tar": shard_bytes(2, SMALL)})
    front = cached(store, tmp_path)
    for name in store.files:
        read(front, name)
    one, other = pieces(tmp_path)
    one.write_bytes(other.read_bytes())
    again = cached(store, tmp_path)
    for name in store.files:
        assert bytes(again.get_range(name, 5, 50, fresh=True)) == store.files[name][5:50]
    assert store.fresh[-2:] == [True, True]
    assert pieces(tmp_path) == []
    assert [read(again, name) for name in store.files] == list(store.files.values())


def test_damage_after_the_check_is_found_by_the_samples(packed: Path, tmp_path: Path) -> None:
    """Samples are right even if pieces are damaged while they are in use, and the next process finds correct pieces."""
    with http_server(packed) as server:
        dataset = open_dataset(server.endpoint, cache=ByteCache(tmp_path))
        expected = [bytes(dataset.reader.read(position)) for position in range(len(dataset))]
        for piece in pieces(tmp_path):
            data = bytearray(piece.read_bytes())
            for at in range(700, len(data), 900):
                data[at] ^= 1
            with piece.open("r+b") as file:  # the same file, which a reader may have open
                file.write(data)
        assert [bytes(dataset.reader.read(position)) for position in range(len(dataset))] == expected
        requests = len(server.requests)
        again = open_dataset(server.endpoint, cache=ByteCache(tmp_path))
        assert [bytes(again.reader.read(position)) for position in range(len(again))] == expected
        assert len(server.requests) == requests + 4  # manifest and index, each looked up and read


def test_a_piece_truncated_in_use_is_not_an_error(tmp_path: Path) -> None:
    """A piece truncated or removed after its check costs a request."""
    store = Scripted({"a.tar": shard_bytes(1, SMALL)})
    front = cached(store, tmp_path)
    read(front, "a.tar")
    (piece,) = pieces(tmp_path)
    os.truncate(piece, 1000)
    assert read(front, "a.tar", 900) == store.files["a.tar"][900:]
    assert read(front, "a.tar", 0, 10) == store.files["a.tar"][:10]
    piece.unlink()
    assert read(front, "a.tar", 900) == store.files["a.tar"][900:]
    assert total(tmp_path) == SMALL + OVERHEAD


def test_a_damaged_shard_is_an_error_with_a_cache_too(packed: Path, tmp_path: Path) -> None:
    """The error of the sample says that the shard is damaged."""
    damaged = tmp_path / "set"
    damaged.mkdir()
    for path in packed.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    index = open_dataset(packed).index
    name = open_dataset(packed).manifest.shards[0].name
    data = bytearray((damaged / name).read_bytes())
    data[int(index.offset[3]) + 100] ^= 1
    (damaged / name).write_bytes(data)
    with http_server(damaged) as server:
        dataset = open_dataset(server.endpoint, cache=ByteCache(tmp_path / "cache"))
        for _ in range(2):
            with pytest.raises(ShardError, match="read twice"):
                dataset.reader.read(3)
            assert len(dataset.reader.read(4)) == int(index.num_bytes[4])


# --- Size -------------------------------------------------------------------------------------------------------------


def test_pieces_of_the_data_set_in_use_are_not_evicted(tmp_path: Path) -> None:
    """Ranges that do not fit are read from the store each time; the pieces that fit stay."""
    store = Scripted({f"{n}.tar": shard_bytes(n, 5000) for n in range(4)})
    bound = 2 * (5000 + OVERHEAD) + 100
    front = cached(store, tmp_path, max_bytes=bound)
    for _ in range(3):
        for name in store.files:
            assert read(front, name, 10, 4000) == store.files[name][10:4000]
            assert total(tmp_path) <= bound
    asked = Counter(name for name, _, _ in store.requested)
    assert asked == {"0.tar": 1, "1.tar": 1, "2.tar": 3, "3.tar": 3}
    assert {bounds[1:] for bounds in store.requested if bounds[0] == "3.tar"} == {(10, 4000)}


def test_the_least_recently_used_piece_of_other_data_sets_is_evicted(tmp_path: Path) -> None:
    """Use by a later process counts; no more is evicted than necessary."""
    others = [Scripted({"a.tar": shard_bytes(n, 5000)}) for n in range(4)]
    bound = 4 * (5000 + OVERHEAD)
    for number, store in enumerate(others):
        read(cached(store, tmp_path, max_bytes=bound), "a.tar")
        os.utime(pieces_of(tmp_path, store), (number, number))
    read(cached(others[0], tmp_path, max_bytes=bound), "a.tar")
    own = Scripted({"a.tar": shard_bytes(10, 6000)})
    front = cached(own, tmp_path, max_bytes=bound)
    read(front, "a.tar")
    assert [pieces_of(tmp_path, store).exists() for store in others] == [True, False, False, True]
    assert total(tmp_path) <= bound
    assert read(front, "a.tar") == own.files["a.tar"]
    assert len(own.requested) == 1


def pieces_of(folder: Path, store: Scripted) -> Path:
    (data,) = store.files.values()
    return folder / f"{hashlib.sha256(data).hexdigest()}-0-{len(data)}.piece"


@settings(max_examples=60, deadline=None)
@given(
    reads=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 4000)), max_size=30),
    bound=st.integers(0, 40_000),
)
def test_the_size_is_bounded(reads: list[tuple[int, int, int]], bound: int) -> None:
    """Several data sets share a folder in any order; it never exceeds its size, and all bytes are right."""
    sets = [
        Scripted({f"{n}.tar": shard_bytes(10 * number + n, 4001 + 1000 * n) for n in range(3)}) for number in range(4)
    ]
    with tempfile.TemporaryDirectory() as name:
        fronts = [cached(store, Path(name), max_bytes=bound) for store in sets]
        for number, shard, start in reads:
            assert read(fronts[number], f"{shard}.tar", start) == sets[number].files[f"{shard}.tar"][start:]
            assert total(Path(name)) <= bound
            assert litter(Path(name)) == []


def test_the_size_is_bounded_for_concurrent_reads(tmp_path: Path) -> None:
    """Threads or processes that fetch different pieces at the same time do not reserve the same bytes."""
    store = Scripted({f"{n}.tar": shard_bytes(n, 5000) for n in range(4)})
    bound = 2 * (5000 + OVERHEAD)
    all_there = threading.Barrier(4)

    def wait() -> None:
        all_there.wait(60)

    store.before = wait
    front = cached(store, tmp_path, max_bytes=bound)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(functools.partial(read, front), store.files)) == list(store.files.values())
    assert total(tmp_path) <= bound


def test_unfinished_pieces_count(tmp_path: Path) -> None:
    """An unfinished piece of another data set is removed, or counted."""
    bound = 6000
    other = pieces_of(tmp_path, Scripted({"a.tar": shard_bytes(1, 5000)}))
    (tmp_path / f".{other.name}.part").write_bytes(bytes(5000))
    store = Scripted({"a.tar": shard_bytes(2, 5000)})
    assert read(cached(store, tmp_path, max_bytes=bound), "a.tar") == store.files["a.tar"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= bound


# --- A folder that cannot be used -------------------------------------------------------------------------------------

PRELUDE = """
import hashlib, json, logging, os, random, resource, sys
from pathlib import Path
sys.path[:0] = TESTS
from test_cache import Scripted, cached, read, shard_bytes
logging.basicConfig(format="%(levelname)s %(message)s")
folder = Path(sys.argv[1])
store = Scripted({f"{n}.tar": shard_bytes(n, 300_000) for n in range(3)})
"""


def script(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(text, *arguments), capture_output=True, text=True, timeout=200, check=False)


def command(text: str, *arguments: object) -> list[str]:
    prelude = PRELUDE.replace("TESTS", repr([str(Path(__file__).parent), str(Path(__file__).parents[1])]))
    return [sys.executable, "-c", prelude + text, *map(str, arguments)]


READ_ALL = """
front = cached(store, folder)
for _ in range(2):
    for name, data in store.files.items():
        assert read(front, name) == data
        assert read(front, name, 7, 20) == data[7:20]
print(len(store.requested))
"""


def test_a_full_disk_disables_writing(tmp_path: Path) -> None:
    """With one warning; everything else comes from the store, and existing pieces are used."""
    done = script(
        """
first = cached(store, folder)
assert read(first, "0.tar") == store.files["0.tar"]
store.requested.clear()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
"""
        + READ_ALL,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"WARNING {tmp_path}: not used as a cache any more: File too large"]
    assert int(done.stdout) == 8  # two ranges of each of the two other shards, twice
    assert [path.stat().st_size for path in pieces(tmp_path)] == [300_000 + OVERHEAD]
    assert litter(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="changes the user for a part of a process")
def test_a_read_only_folder_disables_the_cache() -> None:
    """With one warning; everything comes from the store, in the requested ranges, and the folder stays empty."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        done = script("if os.geteuid() == 0:\n    os.seteuid(65534)\n" + READ_ALL, folder)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines() == [f"WARNING {folder}: not used as a cache any more: Permission denied"]
        assert int(done.stdout) == 12
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["a file", "below a file", "a piece is a folder", "a lock is a folder"])
def test_an_impossible_folder_disables_the_cache(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """With one warning and right bytes, whatever exists at the path of the folder or of a file in it."""
    store = Scripted({"a.tar": shard_bytes(1, 5000)})
    folder = tmp_path / "cache" / "below" if kind == "below a file" else tmp_path / "cache"
    if kind == "a piece is a folder":
        pieces_of(folder, store).mkdir(parents=True)
    elif kind == "a lock is a folder":
        (folder / ".lock").mkdir(parents=True)
    else:
        (tmp_path / "cache").write_bytes(b"mine")
    front = cached(store, folder)
    for _ in range(3):
        assert read(front, "a.tar", 5, 500) == store.files["a.tar"][5:500]
    assert len(store.requested) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(folder) in caplog.text
    if "file" in kind:
        assert (tmp_path / "cache").read_bytes() == b"mine"


def test_a_loader_works_without_a_usable_cache(packed: Path, tmp_path: Path) -> None:
    """It returns the same batches as without a cache."""
    from wds_real.data.undecoded import UndecodedLoader

    (tmp_path / "cache").write_bytes(b"mine")
    with http_server(packed) as server, Heard() as heard:
        dataset = open_dataset(server.endpoint, cache=ByteCache(tmp_path / "cache"))
        found = [bytes(data) for batch in UndecodedLoader(dataset, pad=False, threads=2) for data in batch.jpeg]
    local = open_dataset(packed)
    assert found == [bytes(local.reader.read(position)) for position in range(len(local))]
    assert len(heard.messages) == 1


# --- Concurrency ------------------------------------------------------------------------------------------------------


def test_threads_fetch_each_piece_once(tmp_path: Path) -> None:
    """Sixteen threads that read the same shards at the same moment make one request for each piece."""
    store = Scripted({"a.tar": shard_bytes(1, PIECE + 5000), "b.tar": shard_bytes(2, 5000)})
    store.before = lambda: time.sleep(0.05)
    front, gate = cached(store, tmp_path), threading.Barrier(16)

    def work(number: int) -> bool:
        gate.wait(60)
        name = "ab"[number % 2] + ".tar"
        return read(front, name) == store.files[name]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))
    assert sorted(store.requested) == [("a.tar", 0, PIECE), ("a.tar", PIECE, PIECE + 5000), ("b.tar", 0, 5000)]
    assert litter(tmp_path) == []


PROCESS = """
import json, sys
from pathlib import Path
from wds_real.storage.cache import ByteCache
from wds_real.data.dataset import open_dataset

url, folder = sys.argv[1:]
dataset = open_dataset(url, cache=ByteCache(Path(folder)))
print("ready", flush=True)
sys.stdin.readline()
import hashlib
digest = hashlib.sha256()
for position in range(len(dataset)):
    digest.update(dataset.reader.read(position))
print(digest.hexdigest())
"""


def test_processes_fetch_each_piece_once(packed: Path, tmp_path: Path) -> None:
    """Four processes that read the same data set through one folder make one request for each shard."""
    local = open_dataset(packed)
    expected = hashlib.sha256(b"".join(local.reader.read(position) for position in range(len(local)))).hexdigest()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            http_server(packed, on_request=lambda request: time.sleep(0.1 if ".tar" in request.path else 0))
        )
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", PROCESS, server.endpoint, str(tmp_path)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )
            for _ in range(4)
        ]  # fmt: skip
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        ended = [process.communicate("go\n", timeout=200)[0].strip() for process in processes]
        asked = Counter(request.path for request in server.requests if request.path.endswith(".tar"))
    assert ended == [expected] * 4
    assert asked == {f"/{shard.name}": 1 for shard in local.manifest.shards}
    assert litter(tmp_path) == []


def test_a_killed_process_releases_its_piece(tmp_path: Path) -> None:
    """One of those that wait fetches the piece; no unfinished file is left."""
    holder = subprocess.Popen(
        command(
            """
import time
def hold():
    print("holding", flush=True)
    time.sleep(60)
store.before = hold
read(cached(store, folder), "0.tar")
""",
            tmp_path,
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    store = Scripted({"0.tar": shard_bytes(0, 300_000)})
    front = cached(store, tmp_path)
    with holder, ThreadPoolExecutor(4) as pool:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "holding\n"
            waiting = [pool.submit(read, front, "0.tar") for _ in range(4)]
            time.sleep(0.3)
            assert not any(future.done() for future in waiting)
            assert store.requested == []
        finally:
            holder.kill()
        assert [future.result(timeout=60) for future in waiting] == [store.files["0.tar"]] * 4
    assert len(store.requested) == 1
    assert litter(tmp_path) == []


KILLED = """
# Child processes read all pieces again and again, and remove some, until they are killed.
import signal, time
store = Scripted({f"{n}.tar": shard_bytes(n, 300_000) for n in range(6)})
draws = random.Random(int(sys.argv[2]))
for trial in range(int(sys.argv[3])):
    children = []
    for number in range(2):
        if not (child := os.fork()):
            while True:
                front = cached(store, folder)
                for name in store.files:
                    assert read(front, name) == store.files[name]
                for path in folder.glob("*.piece"):
                    if hash((path.name, number)) % 2:
                        path.unlink(missing_ok=True)
        children.append(child)
    time.sleep(draws.uniform(0.0, 0.03))
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    front = cached(store, folder)
    for path in folder.glob("*.piece"):
        digest, start, stop = path.stem.split("-")
        name = next(name for name, (sha, _) in front._shards.items() if sha == digest)
        assert path.read_bytes()[:-16] == store.files[name], path
for name in store.files:
    assert read(front, name) == store.files[name]
print(json.dumps([path.name for path in folder.iterdir() if not path.name.endswith(".piece")]))
"""


@pytest.mark.parametrize("trials", [25, pytest.param(1000, marks=pytest.mark.slow)])
def test_pieces_are_complete_after_kills(tmp_path: Path, trials: int) -> None:
    """Two writers are killed at random moments, again and again: all pieces are complete, and readers do not wait."""
    with subprocess.Popen(
        command(KILLED, tmp_path, 1, trials), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=280)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its children too
    assert process.returncode == 0, err
    assert "damaged" not in err
    assert json.loads(out) == [".lock"]


def test_planted_links_are_not_followed(tmp_path: Path) -> None:
    """Neither in place of a piece, nor of an unfinished one, nor of the lock: no file outside is made or changed."""
    store = Scripted({"a.tar": shard_bytes(1, 5000)})
    piece = pieces_of(tmp_path / "template", store)
    for number, name in enumerate((piece.name, f".{piece.name}.part", ".lock")):
        for target in (tmp_path / f"there {number}", tmp_path / f"missing {number}"):
            folder = tmp_path / f"cache of {target.name}"
            folder.mkdir()
            (folder / name).symlink_to(target)
            if target.name.startswith("there"):
                target.write_bytes(b"mine")
            front = cached(store, folder)
            for _ in range(2):
                assert read(front, "a.tar", 5, 500) == store.files["a.tar"][5:500]
            if target.name.startswith("there"):
                assert target.read_bytes() == b"mine"
            else:
                assert not target.exists()


def test_the_folder_is_private(tmp_path: Path) -> None:
    """It is made for this user alone."""
    store = Scripted({"a.tar": shard_bytes(1, 5000)})
    assert read(cached(store, tmp_path / "new"), "a.tar", 5, 500) == store.files["a.tar"][5:500]
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_folder_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its owner could plant links: everything comes from the store, with one warning."""
    store = Scripted({"a.tar": shard_bytes(1, 5000)})
    if os.geteuid() == 0:  # what root owns is trusted
        os.chown(tmp_path, 4321, -1)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    front = cached(store, tmp_path)
    for _ in range(2):
        assert read(front, "a.tar", 5, 500) == store.files["a.tar"][5:500]
    assert [*tmp_path.iterdir()] == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: not used as a cache any more: belongs to another user (uid {tmp_path.stat().st_uid})"
    ]
