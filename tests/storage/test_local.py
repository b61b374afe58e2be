"""LocalStore: whole files or none under their names, exact ranges, and errors that say where and why."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wds_real.errors import MissingError, StoreError
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from wds_real.storage.base import Store

DATA = bytes(range(256)) * 40
NOBODY = 65534
OPEN_FILES = Path("/proc/self/fd")


class Interrupted(BaseException):
    """Stands for whatever ends a block: Ctrl-C, an exit, an error of the caller."""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


def names_on_disk(store: LocalStore) -> list[str]:
    """Return every name in the folder, hidden and temporary ones included."""
    return sorted(path.name for path in store.root.iterdir()) if store.root.exists() else []


def run_in(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in another process, with a LocalStore of its working folder at hand as `store`."""
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
    """Leave behind what a writer leaves that is killed in the middle of `name`; return what that is called."""
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


def test_what_was_put_is_read_back(store: LocalStore) -> None:
    """All verbs agree on a file's name, length and bytes; the first write makes the folder, with its parents."""
    store = LocalStore(store.root / "deep" / "down")
    store.put("b.json", b"{}")
    store.put("a.tar", DATA)
    store.put("empty", b"")
    assert store.list() == ["a.tar", "b.json", "empty"]
    assert [store.head(name) for name in store.list()] == [len(DATA), 2, 0]
    assert [store.get(name) for name in store.list()] == [DATA, b"{}", b""]
    assert names_on_disk(store) == store.list()


def test_create_shows_the_file_when_the_block_ends(store: LocalStore) -> None:
    """Until the block ends the name does not exist; then it holds all that was written."""
    with store.create("a.tar") as file:
        for start in range(0, len(DATA), 1000):
            file.write(DATA[start : start + 1000])
        assert store.list() == []
        with pytest.raises(StoreError):
            store.head("a.tar")
    assert store.get("a.tar") == DATA
    assert names_on_disk(store) == ["a.tar"]


def test_put_replaces_a_file_whole(store: LocalStore) -> None:
    """A shorter new file leaves nothing of the longer old one, and a reader that had opened it still reads the old."""
    store.put("a", DATA)
    with (store.root / "a").open("rb") as reader:
        store.put("a", b"new")
        assert reader.read() == DATA
    assert store.get("a") == b"new"


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, Interrupted, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, b"old"], ids=["no file before", "a file before"])
def test_a_block_that_fails_leaves_things_as_they_were(
    store: LocalStore, error: type[BaseException], before: bytes | None
) -> None:
    """An error inside the block passes unchanged; no file, no temporary, and the old file as it was."""
    if before is not None:
        store.put("a", before)
    old = names_on_disk(store)
    with pytest.raises(error, match="mine"):
        write_and_fail(store, error("mine"))
    assert names_on_disk(store) == old
    assert before is None or store.get("a") == before


def test_two_writers_of_one_name_do_not_mix(store: LocalStore) -> None:
    """While one writes a file, another writes and finishes it: each result is whole, the last to finish stays."""
    with store.create("a") as first:
        first.write(b"first, and longer")
        with store.create("a") as second:
            second.write(b"second")
        assert store.get("a") == b"second"
        first.write(b", to the end")
    assert store.get("a") == b"first, and longer, to the end"
    assert names_on_disk(store) == ["a"]


def test_threads_that_put_one_name_leave_one_of_their_files(store: LocalStore) -> None:
    """Writers of the same name at the same time never fail, and whoever reads finds one whole file."""
    contents = [bytes([number]) * (10_000 + number) for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as pool:
        for done in [pool.submit(store.put, "a", content) for content in contents * 3]:
            done.result()
            assert store.get("a") in contents
    assert names_on_disk(store) == ["a"]


def test_a_file_is_whole_whenever_another_process_sees_it(store: LocalStore) -> None:
    """While a process replaces a file again and again, every read finds one version, whole."""
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
    """SIGKILL in the middle of a write: nothing has the name; the next writer clears what is left, and names it."""
    store.put("b.tar", DATA)
    left = sorted([killed_while_writing(store, "a.tar"), killed_while_writing(store, "b.tar")])
    assert store.list() == ["b.tar"]
    assert store.get("b.tar") == DATA
    assert store.delete_leftovers() == left
    assert store.delete_leftovers() == []
    assert names_on_disk(store) == ["b.tar"]


def test_a_file_being_written_elsewhere_is_no_leftover(store: LocalStore) -> None:
    """Another process at work is not disturbed, and finishes."""
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


def test_a_file_being_written_here_is_no_leftover(store: LocalStore) -> None:
    """This process is not gone: a block that is open keeps its file."""
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
    """Where the system takes no more bytes, the error is a StoreError with its reason, and nothing stays behind."""
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
def test_files_of_others_are_kept(store: LocalStore, name: str) -> None:
    """Hidden files that no writer of this package can have left are not removed, and do no harm."""
    store.put("a.tar", DATA)
    (store.root / name).write_bytes(b"theirs")
    assert store.delete_leftovers() == []
    assert (store.root / name).read_bytes() == b"theirs"


def test_hidden_files_and_folders_are_not_listed(store: LocalStore) -> None:
    """Only finished files are, not folders, temporaries, hidden files or dangling links."""
    store.put("b", b"")
    store.put("a", b"")
    (store.root / "folder").mkdir()
    (store.root / ".hidden").write_bytes(b"")
    (store.root / "dangling").symlink_to("nowhere")
    (store.root / "link").symlink_to("a")
    killed_while_writing(store, "c")
    assert store.list() == ["a", "b", "link"]


def test_a_folder_that_is_not_there_is_empty(store: LocalStore) -> None:
    """Before the first write there is nothing to list or to clear, and looking makes nothing."""
    assert (store.list(), store.delete_leftovers()) == ([], [])
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 0), (0, 1), (0, len(DATA)), (5, 700), (len(DATA) - 1, len(DATA)), (len(DATA), len(DATA))]
)
def test_a_range_is_half_open(store: LocalStore, start: int, stop: int) -> None:
    """The bytes are those of a slice, up to the very end of the file."""
    store.put("a", DATA)
    assert store.get_range("a", start, stop) == DATA[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (9, 12), (10, 11), (11, 12), (100, 110), (2**40, 2**40 + 1)])
def test_a_range_beyond_the_end_is_an_error(store: LocalStore, start: int, stop: int) -> None:
    """Fewer bytes than asked for are never returned; the error names file and range, and where the file ends."""
    store.put("a", bytes(10))
    with pytest.raises(StoreError) as caught:
        store.get_range("a", start, stop)
    assert str(caught.value).startswith(f"{store.root / 'a'}: bytes {start}-{stop} asked for")
    assert "ends at 10." in str(caught.value)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (-5, -1), (5, 3)])
def test_a_range_that_cannot_be_is_an_error(store: LocalStore, start: int, stop: int) -> None:
    """Negative places and backward ranges are not read from the other end."""
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
    """Every verb gives the path and the system's reason, and keeps the system's error as the cause."""
    store.put("there", b"")
    with pytest.raises(StoreError) as caught:
        verb(store)
    assert str(caught.value) == f"{store.root / 'gone'}: No such file or directory."
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_delete_removes_one_file(store: LocalStore) -> None:
    """The others stay."""
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
    """A store in the place of a file refuses every verb, and the file stays."""
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"file.*: (is a file|Not a directory|File exists)"):
        verb(LocalStore(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_name_taken_by_a_folder_is_an_error_that_leaves_nothing(store: LocalStore) -> None:
    """Neither writing nor reading mistakes a folder for a file."""
    (store.root / "a").mkdir(parents=True)
    for verb in (lambda: store.put("a", b"x"), lambda: store.get("a"), lambda: store.get_range("a", 0, 1)):
        with pytest.raises(StoreError, match="Is a directory"):
            verb()
    assert names_on_disk(store) == ["a"]


def test_refused_access_is_an_error_with_the_systems_reason(tmp_path: Path) -> None:
    """A file, a folder to list and a folder to write in that we may not touch: StoreErrors, and no traces."""
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


def test_a_temporary_we_may_not_open_is_kept(store: LocalStore) -> None:
    """Another user's unfinished file, closed to us, is not ours to judge: it stays, and does not stop our writing."""
    left = killed_while_writing(store, "a")
    (store.root / left).chmod(0)
    store.root.chmod(0o777)
    store.root.parent.chmod(0o755)
    code = f"if os.getuid() == 0: os.setuid({NOBODY})\nprint(store.delete_leftovers())\nstore.put('b', b'')"
    done = run_in(store.root, code)
    assert (done.stdout, done.stderr[-300:]) == ("[]\n", "")
    assert names_on_disk(store) == [left, "b"]


def test_many_threads_read_ranges_of_one_file(store: LocalStore) -> None:
    """A store has no place in a file to lose: ranges read at the same time are each right."""
    store.put("a", DATA)
    ranges = [(start, min(len(DATA), start + 100)) for start in range(0, len(DATA), 37)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda r: store.get_range("a", *r), ranges * 4))
    assert found == [DATA[start:stop] for start, stop in ranges * 4]


def test_a_forked_process_shares_the_store(store: LocalStore) -> None:
    """A child reads and writes with the store it inherited, and the parent sees its file, whole."""
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


def test_a_store_survives_pickling(store: LocalStore) -> None:
    """It can be sent to another process."""
    store.put("a", DATA)
    again: LocalStore = pickle.loads(pickle.dumps(store))  # noqa: S301 -- our own bytes
    assert (again.url, again.get("a")) == (store.url, DATA)


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="the system does not list a process's open files")
def test_only_files_that_are_read_are_kept_open_and_not_for_ever(tmp_path: Path) -> None:
    """One descriptor a file that was read, none for writing or failing; bounded, and gone with the store."""
    gc.collect()
    store, before = LocalStore(tmp_path), len(list(OPEN_FILES.iterdir()))
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
    assert len(list(OPEN_FILES.iterdir())) == before + 1
    for number in range(300):
        store.put(str(number), b"x")
        assert store.get_range(str(number), 0, 1) == b"x"
    assert len(list(OPEN_FILES.iterdir())) <= before + 128
    del store
    gc.collect()
    assert len(list(OPEN_FILES.iterdir())) == before


def test_a_file_that_is_replaced_by_this_store_is_read_anew(store: LocalStore) -> None:
    """After a put, a create or a delete, what is read is what was written last."""
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


def test_a_file_that_another_process_replaces_is_read_on(store: LocalStore) -> None:
    """Never a mixture: the version that was read first is read to the end."""
    store.put("a", b"old and long")
    assert store.get_range("a", 0, 3) == b"old"
    LocalStore(store.root).put("a", b"new")
    assert store.get_range("a", 4, 12) == b"and long"
    assert LocalStore(store.root).get_range("a", 0, 3) == b"new"


def test_a_file_of_another_length_than_expected_is_an_error(store: LocalStore) -> None:
    """Where the caller knows how long the file must be, a longer one is as wrong as a shorter one."""
    store.put("a", DATA)
    assert store.get_range("a", 5, 9, size=len(DATA)) == DATA[5:9]
    for size in (len(DATA) - 1, len(DATA) + 1):
        with pytest.raises(StoreError, match=rf"has {len(DATA):,} bytes, expected {size:,}"):
            store.get_range("a", 5, 9, size=size)


def test_an_exclusive_put_replaces_nothing(store: LocalStore) -> None:
    """The first one gets the name; the second one is an error, and leaves nothing behind."""
    store.put("a", b"first", exclusive=True)
    with pytest.raises(StoreError, match="is there already"):
        store.put("a", b"second", exclusive=True)
    assert store.get("a") == b"first"
    assert names_on_disk(store) == ["a"]


def test_a_file_that_is_not_there_is_a_missing_one(store: LocalStore) -> None:
    """Every verb that reads says so with the same error."""
    store.put("a", b"")
    for verb in (store.get, store.head, store.delete, lambda name: store.get_range(name, 0, 1)):
        with pytest.raises(MissingError, match="b: No such file"):
            verb("b")


def test_a_mapped_file_is_read_only_and_stays_when_its_name_is_gone(store: LocalStore) -> None:
    """The same bytes as `get`, the same mapping for all who ask, and no way to write to it."""
    store.put("a", b"0123456789")
    view = store.view("a", 1, 10)
    assert bytes(view) == b"123456789"
    assert view.readonly
    assert store.view("a", 3, 5).obj is view.obj
    store.delete("a")
    assert bytes(view[3:5]) == b"45"
    with pytest.raises(MissingError, match="a"):
        store.view("a", 1, 10)


def test_a_view_is_within_the_file_as_it_is_now(store: LocalStore) -> None:
    """What ends behind the file is an error, also where it was cut after it was mapped."""
    store.put("a", b"0123456789")
    assert bytes(store.view("a", 8, 10)) == b"89"
    with pytest.raises(StoreError, match="bytes 8-11 asked for, the file ends at 10"):
        store.view("a", 8, 11)
    os.truncate(store.root / "a", 9)
    with pytest.raises(StoreError, match="bytes 8-10 asked for, the file ends at 9"):
        store.view("a", 8, 10)
    assert bytes(store.view("a", 8, 9)) == b"8"
    os.truncate(store.root / "a", 20)
    with pytest.raises(StoreError, match="bytes 8-11 asked for, the file ends at 10"):  # as far as it is mapped
        store.view("a", 8, 11)


def test_an_empty_file_cannot_be_mapped(store: LocalStore) -> None:
    """The message says which file and why."""
    store.put("empty", b"")
    with pytest.raises(StoreError, match=r"empty: cannot mmap an empty file\."):
        store.view("empty", 0, 0)


@pytest.mark.parametrize("advice", [True, False])
def test_a_long_file_is_written_in_many_pieces(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, *, advice: bool
) -> None:
    """The disk begins before the end, where the system takes such advice, and the bytes are the same."""
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


def test_refused_advice_is_no_error(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would only have been faster."""

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    with store.create("long") as file:
        file.write(bytes(9 << 20))
    assert store.head("long") == 9 << 20
