"""LocalStore: files appear complete or not at all, ranges are exact, and errors name the path and the reason."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from wds_real.errors import MissingError, StoreError, UnavailableError
from wds_real.storage import local
from wds_real.storage.files import OpenFile
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from wds_real.storage.base import Store

DATA = bytes(range(256)) * 40
NOBODY = 65534
OPEN_FILES = Path("/proc/self/fd")


class Interrupted(BaseException):
    """Stands for anything that ends a block early: Ctrl-C, an exit, an error of the caller."""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


def names_on_disk(store: LocalStore) -> list[str]:
    """Return every name in the folder, hidden and temporary ones included."""
    return sorted(path.name for path in store.root.iterdir()) if store.root.exists() else []


def run_in(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in another process, where `store` is a LocalStore of its working folder."""
    start = "import os, signal, sys\nfrom pathlib import Path\nfrom wds_real.errors import StoreError\n"
    start += "from wds_real.storage.local import LocalStore\n"
    start += "store = LocalStore(Path('.'))\n"
    return subprocess.run(
        [sys.executable, "-c", start + code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def killed_while_writing(store: LocalStore, name: str) -> str:
    """Kill a writer of `name` within its block; return the name of the temporary file that it leaves."""
    store.root.mkdir(exist_ok=True)
    before = names_on_disk(store)
    code = (
        "with store.create(sys.argv[1]) as file:\n file.write(b'x' * 3_000_000)\n os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert run_in(store.root, code, name).returncode == -signal.SIGKILL
    (left,) = set(names_on_disk(store)) - set(before)
    return left


def write_and_fail(store: LocalStore, error: BaseException) -> None:
    with store.create("a") as file:
        file.write(DATA)
        raise error


def test_put_and_read(store: LocalStore) -> None:
    """All methods agree on a file's name, length and bytes; the first write creates the folder and its parents."""
    store = LocalStore(store.root / "deep" / "down")
    store.put("b.json", b"{}")
    store.put("a.tar", DATA)
    store.put("empty", b"")
    assert store.list() == ["a.tar", "b.json", "empty"]
    assert [store.head(name) for name in store.list()] == [len(DATA), 2, 0]
    assert [store.get(name) for name in store.list()] == [DATA, b"{}", b""]
    assert names_on_disk(store) == store.list()


def test_create_publishes_the_file_when_the_block_ends(store: LocalStore) -> None:
    """Before that the name does not exist; then it holds all bytes."""
    with store.create("a.tar") as file:
        for start in range(0, len(DATA), 1000):
            file.write(DATA[start : start + 1000])
        assert store.list() == []
        with pytest.raises(StoreError):
            store.head("a.tar")
    assert store.get("a.tar") == DATA
    assert names_on_disk(store) == ["a.tar"]


def test_put_replaces_the_whole_file(store: LocalStore) -> None:
    """A shorter file leaves no bytes of the longer one, and a reader that has opened the old file still reads it."""
    store.put("a", DATA)
    with (store.root / "a").open("rb") as reader:
        store.put("a", b"new")
        assert reader.read() == DATA
    assert store.get("a") == b"new"


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, Interrupted, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, b"old"], ids=["no file before", "a file before"])
def test_a_failed_block_changes_nothing(store: LocalStore, error: type[BaseException], before: bytes | None) -> None:
    """The error passes through unchanged; there is no temporary file, and an old file stays."""
    if before is not None:
        store.put("a", before)
    old = names_on_disk(store)
    with pytest.raises(error, match="mine"):
        write_and_fail(store, error("mine"))
    assert names_on_disk(store) == old
    assert before is None or store.get("a") == before


def test_two_writers_of_one_name_do_not_mix(store: LocalStore) -> None:
    """Each writes a complete file, and the one that finishes last stays."""
    with store.create("a") as first:
        first.write(b"first, and longer")
        with store.create("a") as second:
            second.write(b"second")
        assert store.get("a") == b"second"
        first.write(b", to the end")
    assert store.get("a") == b"first, and longer, to the end"
    assert names_on_disk(store) == ["a"]


def test_threads_can_put_the_same_name(store: LocalStore) -> None:
    """None fails, and readers always find one complete file."""
    contents = [bytes([number]) * (10_000 + number) for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as pool:
        for done in [pool.submit(store.put, "a", content) for content in contents * 3]:
            done.result()
            assert store.get("a") in contents
    assert names_on_disk(store) == ["a"]


def test_other_processes_see_complete_files(store: LocalStore) -> None:
    """While a process replaces a file again and again, every read returns one version."""
    store.put("a", b"0" * 50_000)
    code = "for n in range(1, 60): store.put('a', str(n % 10).encode() * (50_000 + n))"
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(run_in, store.root, code)
        while not writer.done():
            found = store.get("a")
            assert len(set(found)) == 1
            assert len(found) >= 50_000
    assert (writer.result().returncode, writer.result().stderr) == (0, "")
    assert store.get("a") == b"9" * 50_059


def test_leftovers_of_killed_writers_are_removed(store: LocalStore) -> None:
    """After SIGKILL within a write the name does not exist; `delete_leftovers` removes and names the temporary file."""
    store.put("b.tar", DATA)
    left = sorted([killed_while_writing(store, "a.tar"), killed_while_writing(store, "b.tar")])
    assert store.list() == ["b.tar"]
    assert store.get("b.tar") == DATA
    assert store.delete_leftovers() == left
    assert store.delete_leftovers() == []
    assert names_on_disk(store) == ["b.tar"]


def test_a_file_written_by_another_process_is_not_a_leftover(store: LocalStore) -> None:
    """The other process is not disturbed, and finishes."""
    store.root.mkdir()
    code = (
        "import sys\nfrom pathlib import Path\nfrom wds_real.storage.local import LocalStore\n"
        "with LocalStore(Path('.')).create('a') as file:\n"
        " file.write(b'begun, ')\n print('ready', flush=True)\n sys.stdin.read()\n file.write(b'finished')"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], cwd=store.root, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert store.delete_leftovers() == []
        assert len(names_on_disk(store)) == 1
        process.communicate()
    assert process.returncode == 0
    assert store.get("a") == b"begun, finished"
    assert names_on_disk(store) == ["a"]


def test_a_file_written_by_this_process_is_not_a_leftover(store: LocalStore) -> None:
    """An open block keeps its temporary file."""
    with store.create("a") as file:
        assert store.delete_leftovers() == []
        file.write(DATA)
    assert store.get("a") == DATA


@pytest.mark.parametrize(
    ("limit", "pieces"),
    [(1000, [2000]), (3_000_000, [6_000_000]), (3_000_000, [100_000] * 40), (1000, [600, 600])],
    ids=["at the end", "in one large write", "in the middle of many writes", "at the end of small writes"],
)
def test_a_full_disk_is_an_error_that_leaves_nothing(store: LocalStore, limit: int, pieces: list[int]) -> None:
    """The error is a StoreError with the system's reason, and no file is left."""
    store.root.mkdir()
    code = (
        "import resource\nlimit, *pieces = map(int, sys.argv[1:])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "try:\n with store.create('a') as file:\n  for piece in pieces: file.write(bytes(piece))\n"
        "except StoreError as error: print(error)"
    )
    done = run_in(store.root, code, str(limit), *map(str, pieces))
    assert (done.stdout, done.stderr) == ("a: File too large.\n", "")
    assert names_on_disk(store) == []


@pytest.mark.parametrize(
    "name",
    [
        ".a.tar.tmp",
        ".hidden",
        ".a.tar.abc.tmp",
        "a.tar.123.tmp",
        ".nfs000000012345",
        ".backup.1700000000000.tmp",
        f".a.tar.{10**30}.tmp",
        ".a.tar.123.tmp",
    ],
)
def test_other_hidden_files_are_kept(store: LocalStore, name: str) -> None:
    """Files whose names cannot be temporary files of this package are not removed."""
    store.put("a.tar", DATA)
    (store.root / name).write_bytes(b"theirs")
    assert store.delete_leftovers() == []
    assert (store.root / name).read_bytes() == b"theirs"


def test_hidden_files_and_folders_are_not_listed(store: LocalStore) -> None:
    """Only finished files are, not folders, temporary files, hidden files or dangling links."""
    store.put("b", b"")
    store.put("a", b"")
    (store.root / "folder").mkdir()
    (store.root / ".hidden").write_bytes(b"")
    (store.root / "dangling").symlink_to("nowhere")
    (store.root / "link").symlink_to("a")
    killed_while_writing(store, "c")
    assert store.list() == ["a", "b", "link"]


def test_a_missing_folder_is_empty(store: LocalStore) -> None:
    """Listing and clearing work before the first write, and create nothing."""
    assert (store.list(), store.delete_leftovers()) == ([], [])
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 0), (0, 1), (0, len(DATA)), (5, 700), (len(DATA) - 1, len(DATA)), (len(DATA), len(DATA))]
)
def test_a_range_is_half_open(store: LocalStore, start: int, stop: int) -> None:
    """It has the bytes of the same slice, up to the end of the file."""
    store.put("a", DATA)
    assert store.get_range("a", start, stop) == DATA[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (9, 12), (10, 11), (11, 12), (100, 110), (2**40, 2**40 + 1)])
def test_a_range_beyond_the_end_is_an_error(store: LocalStore, start: int, stop: int) -> None:
    """Never fewer bytes than requested; the error names file, range and the file's length."""
    store.put("a", bytes(10))
    with pytest.raises(StoreError) as caught:
        store.get_range("a", start, stop)
    assert str(caught.value).startswith(f"{store.root / 'a'}: bytes {start}-{stop} requested")
    assert "ends at 10." in str(caught.value)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (-5, -1), (5, 3)])
def test_an_impossible_range_is_an_error(store: LocalStore, start: int, stop: int) -> None:
    """Negative bounds and reversed ranges are not read from the end, as Python's slices are."""
    store.put("a", bytes(10))
    with pytest.raises(StoreError):
        store.get_range("a", start, stop)


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(lambda store: store.head("gone"), id="head"),
        pytest.param(lambda store: store.get("gone"), id="get"),
        pytest.param(lambda store: store.get_range("gone", 0, 1), id="get_range"),
        pytest.param(lambda store: store.delete("gone"), id="delete"),
    ],
)
def test_a_missing_file_is_an_error_that_names_it(store: LocalStore, verb: Callable[[Store], object]) -> None:
    """Every method gives the path and the system's reason, with the system's error as the cause."""
    store.put("there", b"")
    with pytest.raises(StoreError) as caught:
        verb(store)
    assert str(caught.value) == f"{store.root / 'gone'}: No such file or directory."
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_delete_removes_one_file(store: LocalStore) -> None:
    """Other files stay."""
    store.put("a", b"")
    store.put("b", b"")
    store.delete("a")
    assert store.list() == ["b"]


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(lambda store: store.list(), id="list"),
        pytest.param(lambda store: store.put("a", b""), id="put"),
        pytest.param(lambda store: store.get("a"), id="get"),
        pytest.param(lambda store: store.get_range("a", 0, 1), id="get_range"),
        pytest.param(lambda store: store.head("a"), id="head"),
        pytest.param(lambda store: store.delete("a"), id="delete"),
    ],
)
def test_a_root_that_is_a_file_is_an_error(tmp_path: Path, verb: Callable[[Store], object]) -> None:
    """Every method fails, and the file stays."""
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"file.*: (is a file|Not a directory|File exists)"):
        verb(LocalStore(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_name_taken_by_a_folder_is_an_error(store: LocalStore) -> None:
    """Both writing and reading fail, and leave no temporary file."""
    (store.root / "a").mkdir(parents=True)
    for verb in (lambda: store.put("a", b"x"), lambda: store.get("a"), lambda: store.get_range("a", 0, 1)):
        with pytest.raises(StoreError, match="Is a directory"):
            verb()
    assert names_on_disk(store) == ["a"]


def test_denied_access_is_an_error(tmp_path: Path) -> None:
    """Without permission to read, list or write: StoreErrors with the reason, and no temporary files."""
    tmp_path.chmod(0o755)
    for folder, mode in (("no list", 0o311), ("no write", 0o555), ("no entry", 0o000)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_bytes(b"")
        (tmp_path / folder / "file").chmod(0)
        (tmp_path / folder).chmod(mode)
    code = f"""
if os.getuid() == 0: os.setuid({NOBODY})
def at(folder): return LocalStore(Path(folder))
for verb in (
    lambda: at('no list').list(), lambda: at('no write').put('a', b''), lambda: at('no write').get('file'),
    lambda: at('no write').get_range('file', 0, 1), lambda: at('no write').delete('file'),
    lambda: at('no entry').head('file'), lambda: at('no entry').list(), lambda: at('no write/below').put('a', b''),
):
    try: print('no error:', verb())
    except StoreError as error: print(str(error).split(': ')[-1])
"""
    done = run_in(tmp_path, code)
    (tmp_path / "no list").chmod(0o755)
    (tmp_path / "no entry").chmod(0o755)
    assert (done.stdout, done.stderr) == ("Permission denied.\n" * 8, "")
    assert names_on_disk(LocalStore(tmp_path / "no write")) == ["file"]


def test_a_temporary_file_without_permission_is_kept(store: LocalStore) -> None:
    """An unfinished file of another user, which cannot be opened, stays, and does not prevent writing."""
    left = killed_while_writing(store, "a")
    (store.root / left).chmod(0)
    store.root.chmod(0o777)
    store.root.parent.chmod(0o755)
    code = f"if os.getuid() == 0: os.setuid({NOBODY})\nprint(store.delete_leftovers())\nstore.put('b', b'')"
    done = run_in(store.root, code)
    assert (done.stdout, done.stderr[-300:]) == ("[]\n", "")
    assert names_on_disk(store) == [left, "b"]


def test_many_threads_read_ranges_of_one_file(store: LocalStore) -> None:
    """The store keeps no file position, so concurrent reads are right."""
    store.put("a", DATA)
    ranges = [(start, min(len(DATA), start + 100)) for start in range(0, len(DATA), 37)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda r: store.get_range("a", *r), ranges * 4))
    assert found == [DATA[start:stop] for start, stop in ranges * 4]


def test_a_forked_process_shares_the_store(store: LocalStore) -> None:
    """The child reads and writes with the inherited store, and the parent sees its complete file."""
    code = """
store.put('a', bytes(1000))
if os.fork() == 0:
    ok = store.get_range('a', 10, 20) == bytes(10)
    store.put('from child', b'1' * 1000 if ok else b'')
    os._exit(0)
assert os.wait()[1] == 0
print(store.list(), store.head('from child'), sorted(os.listdir('.')))
"""
    store.root.mkdir()
    done = run_in(store.root, code)
    assert (done.stdout, done.stderr) == ("['a', 'from child'] 1000 ['a', 'from child']\n", "")


def test_a_store_can_be_pickled(store: LocalStore) -> None:
    """The copy reads the same folder."""
    store.put("a", DATA)
    again: LocalStore = pickle.loads(pickle.dumps(store))  # noqa: S301 -- our own bytes
    assert (again.url, again.get("a")) == (store.url, DATA)


def num_open(folder: Path) -> int:
    """Return how many descriptors of this process are of files in a folder, also of files without a name by now."""
    return sum(os.path.realpath(link).startswith(f"{folder}/") for link in OPEN_FILES.iterdir())


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="the system does not list a process's open files")
def test_only_read_files_stay_open(tmp_path: Path) -> None:
    """One descriptor for each file that was read, at most 128, closed with the store; none after writes and errors."""
    gc.collect()
    store = LocalStore(tmp_path)
    store.put("a", DATA)
    for _ in range(20):
        store.put("b", DATA)
        store.get_range("a", 0, 100)
        with contextlib.suppress(StoreError):
            store.get_range("a", 0, len(DATA) + 1)
        with contextlib.suppress(StoreError):
            store.get_range("missing", 0, 1)
        with contextlib.suppress(ValueError), store.create("c"):
            raise ValueError
    assert num_open(tmp_path) == 1
    for number in range(300):
        store.put(str(number), b"x")
        assert store.get_range(str(number), 0, 1) == b"x"
    assert 1 < num_open(tmp_path) <= 128
    del store
    gc.collect()
    assert num_open(tmp_path) == 0


def test_a_file_replaced_by_this_store_is_opened_again(store: LocalStore) -> None:
    """After a put, create or delete, reads return what was written last."""
    store.put("a", b"old")
    assert store.get_range("a", 0, 3) == b"old"
    store.put("a", b"new")
    assert store.get_range("a", 0, 3) == b"new"
    with store.create("a") as file:
        file.write(b"newer")
    assert store.get_range("a", 0, 5) == b"newer"
    store.delete("a")
    with pytest.raises(MissingError):
        store.get_range("a", 0, 1)


def test_a_file_replaced_by_another_process_stays_open(store: LocalStore) -> None:
    """Reads go on with the version that was read first, never with a mixture."""
    store.put("a", b"old and long")
    assert store.get_range("a", 0, 3) == b"old"
    LocalStore(store.root).put("a", b"new")
    assert store.get_range("a", 4, 12) == b"and long"
    assert LocalStore(store.root).get_range("a", 0, 3) == b"new"


def test_a_file_of_another_length_than_expected_is_an_error(store: LocalStore) -> None:
    """With an expected size, a longer file is as wrong as a shorter one."""
    store.put("a", DATA)
    assert store.get_range("a", 5, 9, size=len(DATA)) == DATA[5:9]
    for size in (len(DATA) - 1, len(DATA) + 1):
        with pytest.raises(StoreError, match=rf"has {len(DATA):,} bytes, expected {size:,}"):
            store.get_range("a", 5, 9, size=size)


def test_an_exclusive_put_does_not_replace(store: LocalStore) -> None:
    """The second put fails, and leaves no file."""
    store.put("a", b"first", exclusive=True)
    with pytest.raises(StoreError, match="is there already"):
        store.put("a", b"second", exclusive=True)
    assert store.get("a") == b"first"
    assert names_on_disk(store) == ["a"]


def test_a_missing_file_is_a_missing_error(store: LocalStore) -> None:
    """Every method that reads raises MissingError."""
    store.put("a", b"")
    for verb in (store.get, store.head, store.delete, lambda name: store.get_range(name, 0, 1)):
        with pytest.raises(MissingError, match="b: No such file"):
            verb("b")


def test_a_view_is_read_only_and_outlives_the_name(store: LocalStore) -> None:
    """It has the same bytes as `get`, and all views share one mapping."""
    store.put("a", b"0123456789")
    view = store.view("a", 1, 10)
    assert bytes(view) == b"123456789"
    assert view.readonly
    assert store.view("a", 3, 5).obj is view.obj
    store.delete("a")
    assert bytes(view[3:5]) == b"45"
    with pytest.raises(MissingError, match="a"):
        store.view("a", 1, 10)


def test_a_view_beyond_the_end_is_an_error(store: LocalStore) -> None:
    """This holds also where the file was truncated after it was mapped."""
    store.put("a", b"0123456789")
    assert bytes(store.view("a", 8, 10)) == b"89"
    with pytest.raises(StoreError, match="bytes 8-11 requested, the file ends at 10"):
        store.view("a", 8, 11)
    os.truncate(store.root / "a", 9)
    with pytest.raises(StoreError, match="bytes 8-10 requested, the file ends at 9"):
        store.view("a", 8, 10)
    assert bytes(store.view("a", 8, 9)) == b"8"
    os.truncate(store.root / "a", 20)
    with pytest.raises(StoreError, match="bytes 8-11 requested, the file ends at 10"):  # as far as it is mapped
        store.view("a", 8, 11)


def test_an_empty_file_cannot_be_mapped(store: LocalStore) -> None:
    """The error names the file and the reason."""
    store.put("empty", b"")
    with pytest.raises(StoreError, match=r"empty: cannot mmap an empty file\."):
        store.view("empty", 0, 0)


@pytest.mark.parametrize("advice", [True, False])
def test_a_long_file_is_flushed_while_it_is_written(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, *, advice: bool
) -> None:
    """The system is told to start writing before the end; the bytes are the same."""
    advised: list[tuple[int, int]] = []
    if advice:
        monkeypatch.setattr(os, "posix_fadvise", lambda _file, start, size, _what: advised.append((start, size)))
    else:
        monkeypatch.delattr(os, "posix_fadvise")
    piece = bytearray(5 << 20)
    with store.create("long") as file:
        for number in range(5):
            piece[:] = bytes([number]) * len(piece)
            file.write(memoryview(piece))
    assert store.get("long") == b"".join(bytes([number]) * (5 << 20) for number in range(5))
    assert advised == ([(0, 10 << 20), (10 << 20, 10 << 20)] if advice else [])


def test_failing_advice_is_not_an_error(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing early only saves time."""

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    with store.create("long") as file:
        file.write(bytes(9 << 20))
    assert store.head("long") == 9 << 20


@pytest.mark.parametrize("limit", [24, 64])
def test_few_descriptors_are_enough(store: LocalStore, limit: int) -> None:
    """The files kept open follow the limit of the process; any number of files is read, by any number of threads."""
    store.root.mkdir()
    for number in range(150):
        (store.root / f"{number}.tar").write_bytes(b"%03d" % number)
    script = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from wds_real.storage.local import LocalStore
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
store = LocalStore(Path(sys.argv[1]))
read = lambda number: store.get_range(f'{number}.tar', 0, 3) == b'%03d' % number
with ThreadPoolExecutor(4) as pool: print(all(pool.map(read, [*range(150)] * 3)))
"""
    command = [sys.executable, "-c", script, str(store.root), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_the_least_recently_used_file_is_closed(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is read again and again stays open while others come and go."""
    opened: list[str] = []
    real_open = OpenFile.open

    def counted_open(path: Path, flags: int = os.O_RDONLY) -> OpenFile:
        opened.append(path.name)
        return real_open(path, flags)

    for name in "abcdef":
        store.put(name, b"x")
    monkeypatch.setattr("wds_real.storage.local.max_kept_files", lambda: 2)
    monkeypatch.setattr(OpenFile, "open", counted_open)
    for name in "abacadaeaf":
        store.get_range(name, 0, 1)
    assert opened == list("abcdef")


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("verb", ["get", "get_range", "read_into", "view"])
def test_what_the_machine_lacks_is_said_as_it_is(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, code: int, verb: str
) -> None:
    """It says nothing of the file, so it is an UnavailableError with the system's reason."""
    store.put("a", b"0123")

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fail)
    verbs: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("a"),
        "get_range": lambda: store.get_range("a", 0, 2),
        "read_into": lambda: store.read_into("a", 0, memoryview(bytearray(2))),
        "view": lambda: store.view("a", 0, 2),
    }
    with pytest.raises(UnavailableError, match=rf"/a: {os.strerror(code)}\."):
        verbs[verb]()


@pytest.mark.parametrize("verb", ["get", "get_range"])
def test_a_named_pipe_is_no_file(store: LocalStore, verb: str) -> None:
    """Reading it does not wait for a writer."""
    store.root.mkdir()
    os.mkfifo(store.root / "a")
    with pytest.raises(StoreError, match="a: is a named pipe, expected a regular file") as caught:
        store.get("a") if verb == "get" else store.get_range("a", 0, 1)
    assert type(caught.value) is StoreError


def _failing(number: int) -> object:
    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture(params=["renameat2", "link", "lock", "nothing"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a file system has for a rename that replaces nothing; each lacks what comes before."""
    kinds = ["renameat2", "link", "lock", "nothing"]
    lacks = kinds[: kinds.index(request.param)]
    if "renameat2" in lacks:
        monkeypatch.setattr(local, "_renameat2", lambda: None)
    if "link" in lacks:
        monkeypatch.setattr(os, "link", _failing(errno.EPERM))
    if "lock" in lacks:
        monkeypatch.setattr(fcntl, "flock", _failing(errno.EOPNOTSUPP))
    return str(request.param)


def test_a_new_name_is_given_once(tmp_path: Path, file_system: str) -> None:
    """The second rename is an error that changes nothing, whatever the file system has for it."""
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(name.encode())
    local._rename_new(tmp_path / "first", tmp_path / "there")
    with pytest.raises(FileExistsError):
        local._rename_new(tmp_path / "second", tmp_path / "there")
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"there": b"first", "second": b"second"}, file_system


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_any_answer_that_there_are_no_links_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """exFAT, SMB and FUSE file systems answer differently."""
    monkeypatch.setattr(local, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "link", _failing(number))
    (tmp_path / "a").touch()
    local._rename_new(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_other_errors_of_a_rename_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is not taken for a file system without links."""
    (tmp_path / "a").touch()
    with pytest.raises(FileNotFoundError):
        local._rename_new(tmp_path / "missing", tmp_path / "b")
    monkeypatch.setattr(local, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "link", _failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        local._rename_new(tmp_path / "a", tmp_path / "b")


def test_one_of_many_threads_gives_a_new_name(tmp_path: Path, file_system: str) -> None:
    """All others fail, except where the file system has neither links nor locks."""
    if file_system == "nothing":
        pytest.skip("nothing excludes two writers there but the claim of the whole folder")

    def give(number: int) -> bool:
        path = tmp_path / str(number)
        path.touch()
        try:
            local._rename_new(path, tmp_path / "there")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(give, range(64))) == 1
