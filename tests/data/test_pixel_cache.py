"""Decoded pixels kept in one file: what is read is what was written, whatever happened to the file or the writer."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wds_real.data.pixel_cache import PixelCache, cache_size
from wds_real.errors import StoreError
from wds_real.storage.files import OpenFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SHAPE = (3, 5, 3)
ROW = 45 + 16
STRIDE = 64
HEADER = 4096
IDENTITY: dict[str, Any] = {"dataset": "ab12", "transform": {"img_size": [3, 5], "crop_pct": 0.875}}

# The start of a script that works on the cache of `opened`, in the folder it is given.
SCRIPT = """
import json, logging, os, resource, sys, time
from pathlib import Path
import numpy as np
from wds_real.data.pixel_cache import PixelCache
logging.basicConfig(format="LOGGED %(message)s")
folder = Path(sys.argv[1])
identity, shape = json.loads(sys.argv[2]), tuple(json.loads(sys.argv[3]))
def opened(number=0, num_samples=8):
    return PixelCache(folder, identity={**identity, "number": number}, num_samples=num_samples, shape=shape)
"""


def opened(folder: Path, *, number: int = 0, num_samples: int = 8, shape: tuple[int, ...] = SHAPE) -> PixelCache:
    return PixelCache(folder, identity={**IDENTITY, "number": number}, num_samples=num_samples, shape=shape)


def start(script: str, folder: Path, *, shape: tuple[int, ...] = SHAPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + script, str(folder), json.dumps(IDENTITY), json.dumps(shape)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: str, folder: Path) -> tuple[Any, list[str]]:
    """Run a script; return the JSON it printed last, or None, and the lines it logged."""
    with start(script, folder) as process:
        shown, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return json.loads(shown or "null"), [line for line in errors.splitlines() if line.startswith("LOGGED")]


def pixels_of(position: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    return np.random.default_rng(position).integers(0, 256, shape, dtype=np.uint8)


def read(cache: PixelCache, position: int) -> NDArray[np.uint8] | None:
    out = np.full(cache.shape, 77, dtype=np.uint8)
    return out if cache.read(position, out) else None


def fill(cache: PixelCache) -> None:
    for position in range(cache.num_samples):
        cache.write(position, pixels_of(position, cache.shape))


def right_rows(cache: PixelCache) -> list[int]:
    """Return the positions whose row is there; each must hold the pixels of its position."""
    rows = {position: read(cache, position) for position in range(cache.num_samples)}
    there = {position: row for position, row in rows.items() if row is not None}
    for position, row in there.items():
        np.testing.assert_array_equal(row, pixels_of(position, cache.shape))
    return list(there)


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "wds_real.data.pixel_cache"]


def written(cache: PixelCache) -> int:
    """Return how many rows seem to hold pixels."""
    return sum(map(cache.has, range(cache.num_samples)))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[PixelCache]:
    """Eight rows, all written."""
    with opened(tmp_path / "cache") as made:
        fill(made)
        yield made


def test_rows_come_back(cache: PixelCache) -> None:
    """What was written is read, by the same cache and by one opened later."""
    assert right_rows(cache) == list(range(8))
    with opened(cache.path.parent) as again:
        assert right_rows(again) == list(range(8))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=30), num_samples=st.integers(1, 300))
def test_any_rows_come_back(data: st.DataObject, shape: tuple[int, ...], num_samples: int) -> None:
    """Whatever the shape, the positions, their order and the pixels: the last written is read, and nothing else."""
    positions = data.draw(st.lists(st.integers(0, num_samples - 1), max_size=8))
    rows = {position: data.draw(hnp.arrays(np.uint8, shape)) for position in positions}
    with (
        tempfile.TemporaryDirectory() as folder,
        PixelCache(folder, identity={}, num_samples=num_samples, shape=shape) as cache,
    ):
        for position in positions:
            cache.write(position, np.full(shape, position % 256, dtype=np.uint8))
        for position in positions:
            cache.write(position, rows[position])
        assert written(cache) == len(rows)
        for position in range(num_samples):
            found = read(cache, position)
            assert (found is not None) == (position in rows)
            if found is not None:
                np.testing.assert_array_equal(found, rows[position])


def test_file_is_laid_out_as_documented(cache: PixelCache) -> None:
    """Header, stride and tail can be told from the documentation alone, and do not change unnoticed."""
    transform = b'{"crop_pct":0.875,"img_size":[3,5]}'
    description = b'{"identity":{"dataset":"ab12","number":0,"transform":' + transform
    description += b'},"num_samples":8,"shape":[3,5,3]}'
    digest = hashlib.sha256(description).digest()
    assert cache.path.name == f"{digest.hex()[:32]}.pixels"
    data = cache.path.read_bytes()
    lines = b"wds_real.pixels 1\n" + description + b"\n"
    assert data[:HEADER] == (lines + xxhash.xxh3_128_hexdigest(lines).encode() + b"\n").ljust(HEADER, b"\0")
    assert len(data) == cache.num_bytes == cache_size(8, shape=SHAPE) == HEADER + 8 * STRIDE
    for position in range(8):
        pixels = pixels_of(position).tobytes()
        tail = xxhash.xxh3_128_digest(pixels, seed=(int.from_bytes(digest[:8], "big") + position) % 2**64)
        row = data[HEADER + position * STRIDE : HEADER + (position + 1) * STRIDE]
        assert row == (pixels + tail).ljust(STRIDE, b"\0")


def test_file_takes_no_room_before_rows_are_written(tmp_path: Path) -> None:
    """The file has its full size at once, but not on the disk, and nothing else is left in the folder."""
    with opened(tmp_path, num_samples=1000, shape=(224, 224, 3)) as cache:
        status = cache.path.stat()
        assert status.st_size == cache.num_bytes == HEADER + 1000 * 150592
        assert status.st_blocks * 512 < 1 << 20
        assert list(tmp_path.iterdir()) == [cache.path]


def test_hole_is_absent(tmp_path: Path) -> None:
    """A row that was not written is not taken for black pixels, and black pixels are not taken for a hole."""
    with opened(tmp_path) as cache:
        assert right_rows(cache) == []
        cache.write(3, np.zeros(SHAPE, dtype=np.uint8))
        assert [read(cache, position) is not None for position in range(8)] == [position == 3 for position in range(8)]
        assert written(cache) == 1


def test_hole_is_absent_whatever_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the checksum of black pixels were zero, a hole would not be a row."""
    with opened(tmp_path) as cache:
        monkeypatch.setattr(xxhash, "xxh3_128_digest", lambda *_: bytes(16))
        assert read(cache, 0) is None


def test_any_flipped_bit_is_noticed(cache: PixelCache) -> None:
    """No row with a wrong bit in its pixels or its tail is believed; its neighbours are."""
    start_of_row = HEADER + 3 * STRIDE
    whole = cache.path.read_bytes()[start_of_row : start_of_row + ROW]
    for byte in range(ROW):
        for bit in range(8):
            patch(cache.path, start_of_row + byte, bytes([whole[byte] ^ 1 << bit]))
            assert read(cache, 3) is None, (byte, bit)
        patch(cache.path, start_of_row + byte, whole[byte : byte + 1])
    patch(cache.path, start_of_row, bytes(ROW))
    assert right_rows(cache) == [0, 1, 2, 4, 5, 6, 7]


def test_any_cut_is_noticed(cache: PixelCache) -> None:
    """Of a file that is cut while it is open, the whole rows are read and no others; writing goes on."""
    for cut in reversed(range(HEADER + 3 * STRIDE, HEADER + 4 * STRIDE + ROW)):
        os.truncate(cache.path, cut)
        assert right_rows(cache) == list(range(4 if cut >= HEADER + 3 * STRIDE + ROW else 3)), cut
    assert written(cache) == 3
    cache.write(7, pixels_of(7))
    assert right_rows(cache) == [0, 1, 2, 7]


def test_row_of_another_place_is_not_believed(cache: PixelCache) -> None:
    """A row is right at its own position of its own file only."""
    row = cache.path.read_bytes()[HEADER + 3 * STRIDE :][:STRIDE]
    patch(cache.path, HEADER + 5 * STRIDE, row)
    assert right_rows(cache) == [0, 1, 2, 3, 4, 6, 7]
    with opened(cache.path.parent, number=1) as other:
        patch(other.path, HEADER + 3 * STRIDE, row)
        assert right_rows(other) == []


@pytest.mark.parametrize(
    ("changed", "shares_file"),
    [
        ({}, True),
        ({"identity": {"transform": {"crop_pct": 0.875, "img_size": (3, 5)}, "dataset": "ab12"}}, True),
        ({"num_rows": 1}, True),
        ({"identity": {**IDENTITY, "dataset": "ab13"}}, False),
        ({"identity": {**IDENTITY, "decoder": "3.1"}}, False),
        ({"num_samples": 9}, False),
        ({"shape": (5, 3, 3)}, False),
    ],
)
def test_other_facts_mean_another_file(tmp_path: Path, changed: dict[str, Any], *, shares_file: bool) -> None:
    """What decides the pixels or the layout decides the file; the order and spelling of the facts do not."""
    facts: dict[str, Any] = {"identity": IDENTITY, "num_samples": 8, "shape": SHAPE}
    with PixelCache(tmp_path, **facts) as cache, PixelCache(tmp_path, **facts | changed) as other:
        fill(cache)
        assert (other.path == cache.path) == shares_file
        assert bool(right_rows(other)) == shares_file
        assert right_rows(cache) == list(range(8))


@pytest.mark.parametrize("offset", [0, 17, 20, 100, HEADER - 1])
def test_damaged_header_means_a_new_file(cache: PixelCache, caplog: pytest.LogCaptureFixture, offset: int) -> None:
    """A file whose header is not as expected is replaced with a word; who had it open is not disturbed."""
    patch(cache.path, offset, bytes([cache.path.read_bytes()[offset] ^ 1]))
    with opened(cache.path.parent) as again:
        assert right_rows(again) == []
        fill(again)
        assert right_rows(again) == list(range(8))
    assert right_rows(cache) == list(range(8))
    assert len(warnings_of(caplog)) == 1
    assert f"{cache.path}: the pixel cache was damaged" in caplog.text
    assert list(cache.path.parent.iterdir()) == [cache.path]


@pytest.mark.parametrize("num_bytes", [0, 100, HEADER, HEADER + 8 * STRIDE - 1, HEADER + 8 * STRIDE + 1])
def test_wrong_size_means_a_new_file(cache: PixelCache, caplog: pytest.LogCaptureFixture, num_bytes: int) -> None:
    """A file that is shorter or longer than expected is replaced with a word."""
    os.truncate(cache.path, num_bytes)
    with opened(cache.path.parent) as again:
        assert right_rows(again) == []
        assert again.path.stat().st_size == cache.num_bytes
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize("damaged", [False, True])
def test_processes_that_open_at_once_share_one_file(tmp_path: Path, *, damaged: bool) -> None:
    """Of four processes that make a cache at once, or replace a damaged one, all get the same file."""
    paths = []
    for number in range(40):
        with opened(tmp_path, number=number) as cache:
            paths.append(cache.path)
        cache.path.unlink()
        if damaged:
            cache.path.write_bytes(b"damaged")
    script = """
print("ready", flush=True)
start, caches = float(sys.stdin.readline()), []
for number in range(40):
    time.sleep(max(0, start + 0.01 * number - time.monotonic()))
    caches.append(opened(number))
for cache in caches:
    for position in range(8):
        if position % 4 == RANK:
            pixels = np.random.default_rng(position).integers(0, 256, shape, dtype=np.uint8)
            cache.write(position, pixels)
print(json.dumps([os.fstat(cache._file.descriptor).st_ino for cache in caches]))
"""
    processes = [start(script.replace("RANK", str(rank)), tmp_path) for rank in range(4)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        at = f"{time.monotonic() + 0.05}\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(at)
            process.stdin.flush()
        shown = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    inodes = [path.stat().st_ino for path in paths]
    assert [json.loads(out) for out, _ in shown] == [inodes] * 4, shown
    assert sum(errors.count("damaged") for _, errors in shown) == (40 if damaged else 0)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    for number in range(40):
        with opened(tmp_path, number=number) as cache:
            assert right_rows(cache) == list(range(8))


def test_new_file_is_not_removed_for_the_damaged_one_before_it(tmp_path: Path) -> None:
    """Who found a damaged file waits for another process that is replacing it, and uses that one's file."""
    with opened(tmp_path) as cache:
        path = cache.path
    path.write_bytes(b"damaged")
    with path.open("rb") as damaged, ThreadPoolExecutor(1) as pool:
        fcntl.flock(damaged, fcntl.LOCK_EX)
        late = pool.submit(opened, tmp_path)
        with pytest.raises(TimeoutError):
            late.result(timeout=0.3)
        path.unlink()
        with opened(tmp_path) as replaced:
            fill(replaced)
        fcntl.flock(damaged, fcntl.LOCK_UN)
        with late.result(timeout=60) as found:
            assert right_rows(found) == list(range(8))


def test_killed_writer_leaves_no_wrong_row(tmp_path: Path) -> None:
    """While a process rewrites rows, and after it was killed doing so, a row that is there is one it wrote."""
    shape = (224, 224, 3)
    script = """
cache, value = opened(), 0
print("ready", flush=True)
while True:
    for position in range(8):
        cache.write(position, np.full(shape, value % 256, dtype=np.uint8))
        value += 1
"""
    delay = random.Random(1)  # noqa: S311 -- when to kill
    num_whole = num_torn = 0
    with opened(tmp_path, shape=shape) as cache:
        for position in range(8):
            cache.write(position, np.zeros(shape, dtype=np.uint8))
        for _ in range(8):
            with start(script, tmp_path, shape=shape) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                started, wanted = time.monotonic(), delay.uniform(0.02, 0.1)
                # The first process goes on until a row was read while it was being written.
                while (seconds := time.monotonic() - started) < wanted or (not num_torn and seconds < 60):
                    num_torn += sum(not is_one_value(cache, position) for position in range(8))
                process.send_signal(signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL
            num_whole += sum(is_one_value(cache, position) for position in range(8))
    assert num_whole > 8 * 8 / 2
    assert num_torn > 0, "no row was read while it was being written, so this has shown nothing"


def is_one_value(cache: PixelCache, position: int) -> bool:
    """Return whether the row is there; if so, it must be of one write, which has one value throughout."""
    row = read(cache, position)
    assert row is None or (row == row[0, 0, 0]).all()
    return row is not None


def test_full_disk_ends_the_writing_not_the_reading(tmp_path: Path) -> None:
    """Where the system refuses to write, one warning is given, and the rows that are there are read."""
    script = f"""
cache = opened()
limit = {HEADER} + 5 * {STRIDE} + 20
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
rows = [np.random.default_rng(position).integers(0, 256, shape, dtype=np.uint8) for position in range(8)]
for soft in (limit, unlimited[0]):  # room that comes later is left to the next run
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, unlimited[1]))
    for position in range(8):
        cache.write(position, rows[position])
out = np.empty(shape, dtype=np.uint8)
print(json.dumps([cache.read(position, out) and bool((out == rows[position]).all()) for position in range(8)]))
"""
    found, logged = run(script, tmp_path)
    assert found == [True] * 5 + [False] * 3
    assert len(logged) == 1
    assert "rows cannot be written: File too large." in logged[0]
    with opened(tmp_path) as cache:  # the torn row is written again by a run with room
        assert right_rows(cache) == [0, 1, 2, 3, 4]
        cache.write(5, pixels_of(5))
        assert right_rows(cache) == [0, 1, 2, 3, 4, 5]


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users may read; those of pytest are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        Path(folder).chmod(0o755)


def test_file_that_may_not_be_written_is_read(public_folder: Path) -> None:
    """A finished cache of somebody else's is used; what it lacks is not written, with one warning."""
    with opened(public_folder) as cache:
        for position in range(4):
            cache.write(position, pixels_of(position))
    cache.path.chmod(0o444)
    public_folder.chmod(0o555)
    script = """
rows = [np.random.default_rng(position).integers(0, 256, shape, dtype=np.uint8) for position in range(8)]
if os.geteuid() == 0: os.setuid(65534)  # root may write everything
cache = opened()
out = np.empty(shape, dtype=np.uint8)
found = [cache.read(position, out) and bool((out == rows[position]).all()) for position in range(8)]
for position in range(4, 8): cache.write(position, rows[position])
try:
    opened(number=1)
except Exception as error:
    print(json.dumps([found, cache.read(4, out), type(error).__name__, str(error)]))
"""
    (found, written, error, message), logged = run(script, public_folder)
    assert found == [True] * 4 + [False] * 4
    assert not written
    assert len(logged) == 1
    assert f"{cache.path}: rows cannot be written: Permission denied" in logged[0]
    assert error == "StoreError"
    assert message.endswith("Permission denied. Choose another folder for it, or evaluate without it.")


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """Where there is no file and no place for one, the message names both the place and the reason."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(StoreError, match=r"neither opened nor created: Not a directory. Choose another folder"):
            opened(folder)


def test_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    """A folder or a broken link of the cache's name is not removed."""
    with opened(tmp_path) as cache:
        path = cache.path
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="neither opened nor created: Is a directory"):
        opened(tmp_path)
    path.rmdir()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is a symbolic link, which is not followed here"):
        opened(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def leave_free(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=num_bytes))


def test_disk_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made, the message says what is needed and what is free."""
    leave_free(monkeypatch, 4607)
    folder = tmp_path / "new" / "folder"
    with pytest.raises(StoreError) as caught:
        opened(folder)
    assert str(caught.value) == (
        f"{folder}: not enough room for the pixel cache: 4,608 bytes are still to be written, 4,607 are free. Make "
        "room, choose another folder for it, or evaluate without it."
    )
    assert not (tmp_path / "new").exists()
    leave_free(monkeypatch, 4608)
    opened(folder).close()


def test_room_is_asked_for_what_is_still_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run over few samples needs little room, and rows that are there need none."""
    shape = (64, 64, 3)
    facts: dict[str, Any] = {"identity": IDENTITY, "num_samples": 8, "shape": shape}
    leave_free(monkeypatch, cache_size(4, shape=shape))
    with pytest.raises(StoreError, match="not enough room"):
        PixelCache(tmp_path, **facts)
    with PixelCache(tmp_path, **facts, num_rows=4) as cache:
        for position in range(4):
            cache.write(position, pixels_of(position, shape))
    with PixelCache(tmp_path, **facts) as cache:
        fill(cache)
    leave_free(monkeypatch, 0)
    with PixelCache(tmp_path, **facts) as cache:
        assert right_rows(cache) == list(range(8))


def test_pickled_cache_opens_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy in another process, wherever that works and however full the disk is, shares the rows both ways."""
    monkeypatch.chdir(tmp_path)
    shape = (64, 64, 3)
    with opened(Path("relative"), shape=shape) as cache:
        cache.write(1, pixels_of(1, shape))
        state = pickle.dumps(cache)
        monkeypatch.chdir("/")
        leave_free(monkeypatch, 0)
        with pickle.loads(state) as copy:  # noqa: S301 -- our own
            assert (copy.path, copy.shape, copy.num_samples) == (cache.path, cache.shape, cache.num_samples)
            assert copy._file.descriptor != cache._opened().descriptor
            copy.write(2, pixels_of(2, shape))
            assert right_rows(copy) == right_rows(cache) == [1, 2]


def test_forked_process_shares_the_rows(tmp_path: Path) -> None:
    """A child that inherits the cache writes what its parent reads, and its end does not close the parent's."""
    script = """
cache = opened()
row = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
child = os.fork()
if not child:
    cache.write(5, row)
    cache.close()
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
out = np.empty(shape, dtype=np.uint8)
written = sum(map(cache.has, range(cache.num_samples)))
print(json.dumps([code, cache.read(5, out) and bool((out == row).all()), written]))
"""
    assert run(script, tmp_path) == ([0, True, 1], [])


def test_threads_share_the_rows(tmp_path: Path) -> None:
    """Threads that read, miss and write at once end with every row right."""
    shape = (32, 32, 3)
    with opened(tmp_path, num_samples=200, shape=shape) as cache, ThreadPoolExecutor(8) as pool:

        def take(position: int) -> bool:
            found = read(cache, position)
            if found is None:
                cache.write(position, pixels_of(position, shape))
                return False
            np.testing.assert_array_equal(found, pixels_of(position, shape))
            return True

        assert sum(pool.map(take, [*range(200)] * 5)) > 0
        assert right_rows(cache) == list(range(200))


def test_file_that_cannot_be_read_is_said_once(cache: PixelCache, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that fails costs the time to decode, not the run."""
    cache._file = OpenFile.open(cache.path, os.O_WRONLY)
    assert [read(cache, position) for position in range(8)] == [None] * 8
    assert len(warnings_of(caplog)) == 1
    assert "rows cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("position", "pixels", "complaint"),
    [
        (-1, np.empty(SHAPE, dtype=np.uint8), r"position is -1, expected one in \[0, 8\)"),
        (8, np.empty(SHAPE, dtype=np.uint8), r"position is 8, expected one in \[0, 8\)"),
        (0, np.empty((5, 3, 3), dtype=np.uint8), r"uint8 \(5, 3, 3\), expected C-contiguous uint8 \(3, 5, 3\)"),
        (0, np.empty(45, dtype=np.uint8), r"uint8 \(45,\), expected"),
        (0, np.empty(SHAPE, dtype=np.int8), r"int8 \(3, 5, 3\), expected"),
        (0, np.empty(SHAPE, dtype=np.float32), r"float32 \(3, 5, 3\), expected"),
        (0, np.empty((3, 5, 6), dtype=np.uint8)[..., ::2], "expected C-contiguous"),
    ],
)
def test_wrong_arguments_are_refused(cache: PixelCache, position: int, pixels: NDArray[Any], complaint: str) -> None:
    """Neither a row of another form nor one outside the file is read or written."""
    before = cache.path.read_bytes()
    with pytest.raises(ValueError, match=complaint):
        cache.read(position, pixels)
    with pytest.raises(ValueError, match=complaint):
        cache.write(position, pixels)
    assert cache.path.read_bytes() == before


def test_array_that_may_not_be_written_is_not_read_into(cache: PixelCache) -> None:
    """A read-only array is refused to read into, and good to write from."""
    pixels = pixels_of(2)
    pixels.flags.writeable = False
    with pytest.raises(BufferError):
        cache.read(3, pixels)
    cache.write(2, pixels)
    assert right_rows(cache) == list(range(8))


def test_numpy_positions_are_positions(cache: PixelCache) -> None:
    """The loader's int64 positions name the same rows as Python's; a fraction names none."""
    out = np.empty(SHAPE, dtype=np.uint8)
    assert cache.read(np.int64(3), out)  # type: ignore[arg-type]
    np.testing.assert_array_equal(out, pixels_of(3))
    with pytest.raises(TypeError):
        cache.read(3.5, out)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [{"num_samples": -1}, {"num_rows": -1}, {"num_rows": 9}, {"shape": ()}, {"shape": (3, 0)},
     {"identity": {"long": "x" * HEADER}}, {"identity": {"not a number": float("nan")}}],
)  # fmt: skip
def test_impossible_caches_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    """Sizes that cannot be, and facts that JSON or the header cannot hold, are refused before a file is made."""
    facts: dict[str, Any] = {"identity": IDENTITY, "num_samples": 8, "shape": SHAPE}
    with pytest.raises(ValueError, match=r"num_rows|header|JSON"):
        PixelCache(tmp_path, **facts | changed)
    assert list(tmp_path.iterdir()) == []


def test_closed_cache_is_refused(tmp_path: Path) -> None:
    """After the end of the block nothing is read or written, and closing again does no harm."""
    with opened(tmp_path) as cache:
        descriptor = cache._opened().descriptor
        os.fstat(descriptor)
    cache.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    for act in (lambda: read(cache, 0), lambda: cache.write(0, pixels_of(0)), lambda: cache.has(0)):
        with pytest.raises(ValueError, match="the cache is closed"):
            act()


def test_closing_waits_for_a_row_in_progress(cache: PixelCache) -> None:
    """The descriptor's number is not free for another file while a thread may still write to it."""
    in_progress = cache._opened()
    cache.close()
    os.fstat(in_progress.descriptor)


def test_folder_is_private(tmp_path: Path) -> None:
    """It is made for this user alone; a link in place of the file is not followed, and nothing is made outside."""
    with opened(tmp_path / "new") as cache:
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    outside = tmp_path / "outside"
    cache.path.rename(outside)
    before = outside.read_bytes()
    cache.path.symlink_to(outside)
    with pytest.raises(StoreError, match="is a symbolic link, which is not followed here"):
        opened(tmp_path / "new")
    assert outside.read_bytes() == before


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_another_user_owns_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Its owner could forge rows or plant links."""
    with opened(tmp_path) as cache:
        path = cache.path if what == "file" else tmp_path
    if what == "folder":
        cache.path.unlink()
    if os.geteuid() == 0:  # what root owns is trusted
        os.chown(path, 4321, -1)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(StoreError, match=r"belongs to another user \(uid \d+\)"):
        opened(tmp_path)


def test_url_is_refused() -> None:
    """The cache is one file of this machine, so a URL does not become a folder of that name."""
    with pytest.raises(StoreError, match="needs a folder of this machine, not a URL"):
        PixelCache("s3://lab/cache", identity={}, num_samples=1, shape=(1, 1, 3))
