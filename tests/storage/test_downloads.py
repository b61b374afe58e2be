"""Downloads: whole objects in files without names, the most recently used of them kept."""

from __future__ import annotations

import gc
import os
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_server import http_server

from wds_real.errors import MissingError, StoreError
from wds_real.storage.downloads import _MAX_KEPT, Downloads, TemporaryFile, download
from wds_real.storage.prefetch import BLOCK_BYTES
from wds_real.storage.store import open_store

OPEN_FILES = Path("/proc/self/fd")


def num_open_files(folder: Path) -> int:
    """Return how many descriptors of this process are of files in a folder, also of files without a name."""
    return sum(os.path.realpath(link).startswith(f"{folder}/") for link in OPEN_FILES.iterdir())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a folder of the test for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@given(pieces=st.lists(st.binary(max_size=50), max_size=8), start=st.integers(0, 300), length=st.integers(0, 300))
def test_written_bytes_are_read(pieces: list[bytes], start: int, length: int) -> None:
    """Any range of the pieces in their order, cut at the end of the file."""
    file = TemporaryFile()
    for piece in pieces:
        file.write(memoryview(piece))
    whole = b"".join(pieces)
    assert file.num_bytes == len(whole)
    assert file.read(start, start + length) == whole[start : start + length]


def test_a_temporary_file_has_no_name(folder: Path) -> None:
    """No file is left, however the process ends."""
    file = TemporaryFile()
    file.write(b"x" * 100_000)
    assert list(folder.iterdir()) == []
    assert file.read(99_998, 100_005) == b"xx"


def test_the_least_recently_used_file_is_dropped() -> None:
    """Finding a file counts as use."""
    downloads = Downloads()
    for number in range(_MAX_KEPT):
        downloads.add(str(number), TemporaryFile())
    assert downloads.find("0") is not None
    downloads.add("new", TemporaryFile())
    assert downloads.find("1") is None
    assert all(downloads.find(name) is not None for name in ("0", "2", "new"))


def test_a_newer_file_replaces_one_of_the_same_name() -> None:
    """The last one added is found."""
    downloads = Downloads()
    first, second = TemporaryFile(), TemporaryFile()
    downloads.add("a", first)
    downloads.add("a", second)
    assert downloads.find("a") is second


def test_a_dropped_file_can_still_be_read() -> None:
    """Dropping does not close a file that is still referenced."""
    downloads = Downloads()
    file = TemporaryFile()
    file.write(b"mine")
    downloads.add("mine", file)
    for number in range(_MAX_KEPT):
        downloads.add(str(number), TemporaryFile())
    assert downloads.find("mine") is None
    assert file.read(0, 4) == b"mine"


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="this system does not list a process's open files")
def test_dropped_files_are_closed(folder: Path) -> None:
    """No more files are open than are kept."""
    gc.collect()
    downloads = Downloads()
    for number in range(5 * _MAX_KEPT):
        downloads.add(str(number), TemporaryFile())
    assert num_open_files(folder) == _MAX_KEPT
    del downloads
    gc.collect()
    assert num_open_files(folder) == 0


def test_threads_can_share_downloads() -> None:
    """Files added, found and read at the same time hold their own bytes."""
    downloads = Downloads()

    def work(number: int) -> bool:
        name = str(number % 12)
        found = downloads.find(name)
        if found is None:
            found = TemporaryFile()
            found.write(name.encode() * 1000)
            downloads.add(name, found)
        return found.read(0, 5000) == name.encode() * 1000

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(500)))


def test_a_file_can_be_opened_for_each_upload() -> None:
    """Each opening starts at the beginning; closing it leaves the others open."""
    file = TemporaryFile()
    file.write(b"to be sent")
    for _ in range(2):
        with file.opened() as opened:
            opened.seek(0)
            assert opened.read() == b"to be sent"
    assert file.read(0, 5) == b"to be"


def test_a_file_that_cannot_be_made_is_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names folder and reason; no second error comes from the destructor."""
    heard: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "missing"))
    with pytest.raises(StoreError, match=r"/missing: a temporary file cannot be written: No such file.*Set TMPDIR"):
        TemporaryFile()
    gc.collect()
    assert heard == []


# --- download ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(folder: Path) -> Path:
    """A folder to serve, apart from that of the temporary files."""
    path = folder / "served"
    path.mkdir()
    return path


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("num_bytes", [0, 1, 2 * BLOCK_BYTES + 5])
def test_a_download_is_the_file_at_its_start(served: Path, num_bytes: int, *, ranges: bool) -> None:
    """Whole and in order, also in several requests and from a server without ranges; nothing is left on the disk."""
    data = random.Random(num_bytes).randbytes(num_bytes)  # noqa: S311 -- made-up data
    (served / "a.csv").write_bytes(data)
    with (
        http_server(served, ranges=ranges) as web,
        download(open_store(web.endpoint), "a.csv", max_bytes=num_bytes) as file,
    ):
        assert file.read(-1) == data
        assert file.seek(max(0, num_bytes - 2)) == max(0, num_bytes - 2)
        assert file.read(-1) == data[-2:]
    assert [path.name for path in served.parent.iterdir()] == ["served"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_is_too_large_is_not_downloaded(served: Path, *, ranges: bool) -> None:
    """Its length is looked at first; a server that ignores ranges is not read to the end for it."""
    (served / "a.csv").write_bytes(bytes(3 * BLOCK_BYTES))
    with http_server(served, ranges=ranges) as web:
        store = open_store(web.endpoint)
        with pytest.raises(StoreError, match=r"a\.csv: the file has 25,165,824 bytes, expected at most 1,000"):
            download(store, "a.csv", max_bytes=1000)
        wanted = [request.headers.get("range") for request in web.requests]
        assert wanted == (["bytes=0-0"] if ranges else ["bytes=0-0"] * 3 + [None])


def test_a_local_file_is_copied_too(served: Path) -> None:
    """Any store will do; what is missing is a MissingError."""
    (served / "a.csv").write_bytes(b"abc")
    store = open_store(served)
    with download(store, "a.csv", max_bytes=3) as file:
        assert file.read() == b"abc"
    with pytest.raises(MissingError):
        download(store, "b.csv", max_bytes=3)
