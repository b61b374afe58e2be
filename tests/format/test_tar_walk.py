"""Walking an archive from many places at once: the members are those of a walk from the start, or the error is."""

from __future__ import annotations

import io
import random
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.format import tar_walk
from wds_real.format.tar import BLOCK, END, TarError, encode_header, iter_members, padding
from wds_real.format.tar_walk import walk_members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wds_real.format.tar import Member

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
Entry = tuple[str, bytes, bytes]  # name, type, data


@pytest.fixture(autouse=True)
def _small_parts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Cut archives of a few KiB into parts, but for the tests that are about large ones."""
    with pytest.MonkeyPatch.context() as patch:
        if "large" not in request.keywords.get("usefixtures", pytest.mark.usefixtures()).args:
            patch.setattr(tar_walk, "_PART_BYTES", 4 * BLOCK)
            patch.setattr(tar_walk, "_LOOKED_AT", 3 * BLOCK)
        yield


@pytest.fixture
def large() -> None:
    """Say that a test walks a large archive, in parts of the usual size."""


def archive_of(entries: Sequence[Entry], kind: str) -> bytes:
    """Return what Python's tarfile makes of the entries."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=FORMATS[kind], encoding="utf-8") as archive:
        for name, flag, data in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size = flag, len(data)
            info.linkname = {tarfile.SYMTYPE: "elsewhere", tarfile.LNKTYPE: "val/b.jpg"}.get(flag, "")
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def outcome(find: Callable[[], Sequence[Member]]) -> list[Member] | str:
    """Return the members, or what the error says."""
    try:
        return list(find())
    except TarError as error:
        return str(error)


def reader(archive: bytes) -> Callable[[int, int], bytes]:
    def read(start: int, stop: int) -> bytes:
        assert 0 <= start <= stop <= len(archive), "asked for bytes that are not there"
        return archive[start:stop]

    return read


def assert_walked_alike(archive: bytes, *, chains: int) -> list[Member] | str:
    read = reader(archive)
    expected = outcome(lambda: list(iter_members(read, len(archive))))
    assert outcome(lambda: walk_members(read, len(archive), chains=chains)) == expected
    return expected


def like_headers(seed: int, blocks: int) -> bytes:
    """Return data made of whole headers, of blocks that are nearly some, and of zeros: a wrong chain at every turn."""
    draws = random.Random(seed)  # noqa: S311 -- test data
    data = b""
    while len(data) < blocks * BLOCK:
        size = draws.choice((0, 1, 500, 512, 700, 1024, 5000, blocks * BLOCK - len(data) - BLOCK))
        header = encode_header(f"no-member-{draws.randrange(10)}.jpg", max(0, size))
        choice = draws.randrange(5)
        if choice == 0:
            header = header[:100] + b"9" + header[101:]
        elif choice == 1:
            header = bytes(BLOCK)
        data += header
    return data[: blocks * BLOCK - draws.choice((0, 0, 1, 300))]


NAMES = st.sampled_from(["a.jpg", "val/b.jpg", "n" * 99 + "/" + "x" * 40, "d" * 180, "ä.jpg", "./c"])
DATA = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    st.integers(0, 9000).map(bytes),
    st.integers(0, 9000).map(lambda length: b"\xff\xd8" * (length // 2)),
    st.builds(like_headers, st.integers(0, 10**6), st.integers(1, 30)),
    st.builds(lambda data: archive_of([("inner.jpg", tarfile.REGTYPE, data)], "gnu"), st.binary(max_size=3000)),
)
FILES = st.tuples(NAMES, st.just(tarfile.REGTYPE), DATA)
FOLDERS = st.tuples(NAMES, st.just(tarfile.DIRTYPE), st.just(b""))
LINKS = st.tuples(NAMES, st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE]), st.just(b""))
KINDS = st.sampled_from(sorted(FORMATS))


def is_ustar_name(entry: Entry) -> bool:
    return len(entry[0]) < 150 and entry[0].isascii()


@settings(max_examples=250, deadline=None)
@given(entries=st.lists(FILES | FOLDERS, max_size=14), kind=KINDS, chains=st.integers(1, 9))
def test_members_are_those_of_a_walk_from_the_start(entries: list[Entry], kind: str, chains: int) -> None:
    """Any files and folders, of any length and name, with data that looks like headers, in all three formats."""
    if kind == "ustar":
        entries = [entry for entry in entries if is_ustar_name(entry)]
    found = assert_walked_alike(archive_of(entries, kind), chains=chains)
    assert [(member.size, member.is_file) for member in found if not isinstance(member, str)] == [
        (len(data), flag == tarfile.REGTYPE) for _, flag, data in entries
    ]


@settings(max_examples=250, deadline=None)
@given(
    entries=st.lists(FILES | FILES | FOLDERS | LINKS, min_size=1, max_size=10),
    chains=st.integers(1, 9),
    start=st.integers(0, 30_000),
    damage=st.binary(max_size=20),
    cut=st.integers(0, 1500),
)
def test_the_error_is_that_of_a_walk_from_the_start(
    entries: list[Entry], chains: int, start: int, damage: bytes, cut: int
) -> None:
    """Bytes overwritten or lost anywhere, links among the members: the same list or, word for word, the same error."""
    archive = archive_of(entries, "gnu")
    start %= len(archive)
    assert_walked_alike(archive[:start] + damage + archive[start + len(damage) + cut :], chains=chains)


def cuts(kind: str) -> tuple[bytes, dict[bool, list[int]]]:
    """Return an archive, and all lengths below that of its members in blocks, by whether a member ends there."""
    entries = [(f"{'f' * 90}{number}.jpg", tarfile.REGTYPE, bytes([number]) * (number * 397)) for number in range(16)]
    archive = archive_of(entries, kind)
    found = assert_walked_alike(archive, chains=1)
    assert not isinstance(found, str)
    ends = {member.offset + member.size + padding(member.size) for member in found}
    lengths = range(0, max(ends) + BLOCK + 1, BLOCK)
    return archive, {
        at_an_end: [length for length in lengths if (length in ends) == at_an_end] for at_an_end in (False, True)
    }


@pytest.mark.parametrize("kind", sorted(FORMATS))
@pytest.mark.parametrize("chains", [2, 5, 32])
@pytest.mark.parametrize("at_an_end", [False, True])
def test_every_truncated_archive_is_an_error(kind: str, chains: int, at_an_end: bool) -> None:
    """Cut at any block, also exactly behind a member, an archive is an error."""
    archive, lengths = cuts(kind)
    assert lengths[at_an_end]
    for length in lengths[at_an_end]:
        assert isinstance(assert_walked_alike(archive[:length], chains=chains), str), length


def test_a_chain_of_false_headers_that_ends_at_a_true_one_is_not_believed() -> None:
    """Data of false headers, each of which leads to the true header behind the data, gives no member."""
    length = 40 * BLOCK
    false = b"".join(encode_header(f"false-{left}.jpg", left) for left in range(length - BLOCK, -1, -BLOCK))
    files = [("a.jpg", tarfile.REGTYPE, false), ("b.jpg", tarfile.REGTYPE, b"b"), ("c.jpg", tarfile.REGTYPE, false)]
    archive = archive_of(files, "gnu")
    for chains in range(2, 20):
        found = assert_walked_alike(archive, chains=chains)
        assert [member.name for member in found if not isinstance(member, str)] == ["a.jpg", "b.jpg", "c.jpg"]


def test_an_archive_in_an_archive_is_data() -> None:
    """The members of a tar within the tar are not listed, though each is whole and the inner end marker is one."""
    inner = archive_of([(f"in-{n}.jpg", tarfile.REGTYPE, bytes(n * 100)) for n in range(20)], "ustar")
    archive = archive_of([("a.tar", tarfile.REGTYPE, inner), ("b.tar", tarfile.REGTYPE, inner)], "ustar")
    for chains in range(2, 20):
        found = assert_walked_alike(archive, chains=chains)
        assert [member.name for member in found if not isinstance(member, str)] == ["a.tar", "b.tar"]


def test_global_headers_between_members_are_passed_over() -> None:
    """What pax says of all that follows is no member, wherever the parts are cut."""
    record = b"22 comment=some words\n".ljust(BLOCK, b"\0")
    said = bytearray(encode_header("pax_global_header", 22))
    said[156:157] = b"g"
    said[148:156] = b" " * 8
    said[148:156] = b"%06o\x00 " % sum(said)
    archive = b"".join(
        bytes(said) + record + encode_header(f"{n}.jpg", n * 300) + bytes(n * 300 + padding(n * 300)) for n in range(12)
    )
    for chains in range(2, 20):
        assert len(assert_walked_alike(archive + bytes(said) + record + END, chains=chains)) == 12


@pytest.mark.parametrize("size", [0, 1, BLOCK, 5000, 50_000])
def test_what_is_no_archive_is_refused_alike(size: int) -> None:
    """Nothing, noise and a web page, of any length, are the error that a walk from the start gives."""
    noise = random.Random(size).randbytes(size)  # noqa: S311 -- test data
    for data in (noise, (b"<!DOCTYPE html>" * size)[:size], bytes(size + BLOCK)):
        assert_walked_alike(data, chains=7)


def test_what_reading_raises_is_raised() -> None:
    """An outage within a chain is not taken for damage of the archive."""
    archive = archive_of([(f"{n}.jpg", tarfile.REGTYPE, bytes(3000)) for n in range(20)], "gnu")

    def read(start: int, stop: int) -> bytes:
        if start > len(archive) // 2:
            raise ConnectionError("gone")
        return archive[start:stop]

    with pytest.raises(ConnectionError, match="gone"):
        walk_members(read, len(archive), chains=5)


# --- Large archives ---------------------------------------------------------------------------------------------------


class Large:
    """An archive of pictures of the usual size, which counts what is read of it; the data is made when it is asked for.

    Args:
        members: How many; their sizes vary about 110 KB.
    """

    def __init__(self, members: int) -> None:
        draws = random.Random(members)  # noqa: S311 -- test data
        self.headers: dict[int, bytes] = {}
        self.sizes: list[int] = []
        self.num_bytes = 0
        for number in range(members):
            size = draws.randrange(40_000, 180_000)
            self.headers[self.num_bytes] = encode_header(f"ILSVRC2012_val_{number + 1:08d}.JPEG", size)
            self.sizes.append(size)
            self.num_bytes += BLOCK + size + padding(size)
        self.num_bytes += len(END)
        self.read_bytes = 0
        self.requests = 0
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> bytes:
        with self._lock:
            self.read_bytes += stop - start
            self.requests += 1
        end = self.num_bytes - len(END)
        return b"".join(
            self.headers.get(at, bytes(BLOCK) if at >= end else b"\x37" * BLOCK)
            for at in range(start // BLOCK * BLOCK, stop, BLOCK)
        )[: stop - start]


@pytest.mark.usefixtures("large")
def test_little_of_a_large_archive_is_read() -> None:
    """About 0.5 GB of pictures: their headers once, and a small piece of each part to find its first header in."""
    archive = Large(5000)
    found = walk_members(archive.read, archive.num_bytes)
    assert [member.size for member in found] == archive.sizes
    searched = 31 * (256 << 10)
    assert archive.read_bytes <= (5000 + 31) * BLOCK + searched + BLOCK + len(END)
    assert archive.requests <= 5000 + 31 + 2


@pytest.mark.usefixtures("large")
def test_all_chains_are_walked_at_the_same_time() -> None:
    """Each of the 32 has its first request under way before any has been answered."""
    archive = Large(1000)
    all_there = threading.Barrier(32)
    first = threading.local()

    def read(start: int, stop: int) -> bytes:
        if not hasattr(first, "done"):
            first.done = True
            all_there.wait(60)
        return archive.read(start, stop)

    assert len(walk_members(read, archive.num_bytes)) == 1000


@pytest.mark.usefixtures("large")
def test_a_small_archive_is_walked_in_one_chain() -> None:
    """Below two parts there is nothing to search for: headers and the end marker are all that is read."""
    archive = Large(20)
    found = walk_members(archive.read, archive.num_bytes)
    assert [member.size for member in found] == archive.sizes
    assert archive.read_bytes == 20 * BLOCK + BLOCK + len(END)
    assert archive.requests == 22


@pytest.mark.usefixtures("large")
def test_large_archives_of_any_order_of_sizes_are_walked_alike() -> None:
    """Members longer than a part, members of nothing, cut anywhere: with parts of the usual size too."""
    draws = random.Random(5)  # noqa: S311 -- test data
    entries = [
        (f"{n}.jpg", tarfile.REGTYPE, b"\x37" * draws.choice((0, 0, 700, 5000, 90_000, 3 << 20))) for n in range(40)
    ]
    archive = archive_of(entries, "gnu")
    assert len(archive) > 8 << 20
    assert len(assert_walked_alike(archive, chains=32)) == 40
    for _ in range(20):
        assert isinstance(assert_walked_alike(archive[: draws.randrange(len(archive) - 11_000)], chains=32), str)
