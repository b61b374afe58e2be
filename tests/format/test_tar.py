"""tar.py against ``tarfile``, in both directions, and against damage: a cut archive is never a shorter list."""

from __future__ import annotations

import contextlib
import io
import tarfile
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.format.tar import (
    BLOCK,
    END,
    Member,
    TarError,
    UnreadEntryError,
    encode_header,
    iter_members,
    padding,
    parse_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Entries = Iterable[tuple[str, bytes]]

FORMATS: dict[str, Literal[0, 1, 2]] = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}
SMALL = [("a.jpg", b"\xff" * 700), ("a.json", b"{}"), ("empty", b""), ("b.jpg", b"\x00" * 512)]

# The checksum is octal digits, NUL, blank. These bits turn one filler into another, so the number stays what it was.
HARMLESS_BITS = {(148, 0x10): "the leading 0 becomes a blank", (154, 0x20): "NUL to blank", (155, 0x20): "blank to NUL"}

names = st.text(st.characters(min_codepoint=1, max_codepoint=127), min_size=1, max_size=100)
blobs = st.binary(max_size=1100)


def ours(entries: Entries) -> bytes:
    """Return the archive that the writer makes of these members."""
    return b"".join(encode_header(name, len(data)) + data + bytes(padding(len(data))) for name, data in entries) + END


def theirs(
    entries: Entries, kind: Literal[0, 1, 2], *, pax_headers: Mapping[str, str] | None = None, mtime: float = 0
) -> bytes:
    """Return the archive that ``tarfile`` makes of these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind, pax_headers=pax_headers) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def members(archive: bytes) -> list[Member]:
    return list(iter_members(lambda start, stop: archive[start:stop], len(archive)))


def members_until_error(archive: bytes) -> tuple[list[Member], bool]:
    """Return the members given out before an error, and whether there was none."""
    found: list[Member] = []
    try:
        for member in iter_members(lambda start, stop: archive[start:stop], len(archive)):
            found.append(member)  # noqa: PERF402 -- what came before the error counts
    except TarError:
        return found, False
    return found, True


def contents(archive: bytes) -> list[tuple[str, bytes]]:
    """Return name and data of each regular file we find."""
    return [(m.name, archive[m.offset : m.offset + m.size]) for m in members(archive) if m.is_file]


def special(kind: bytes, *, name: str = "special", body: bytes = b"") -> bytes:
    """Return a header block of type `kind`, and its data in whole blocks."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(padding(len(body)))


def pax_record(keyword: str, value: str) -> bytes:
    """Return one ``LENGTH KEYWORD=VALUE`` line, whose length counts itself."""
    rest = f" {keyword}={value}\n".encode()
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def reads_as(archive: bytes, expected: list[Member]) -> bool:
    """Whether the archive is listed, as `expected`; False if it is refused. Any other list fails the test."""
    try:
        found = members(archive)
    except TarError:
        return False
    assert found == expected
    return True


@given(st.lists(st.tuples(names, blobs), max_size=5))
def test_tarfile_reads_what_we_write(entries: list[tuple[str, bytes]]) -> None:
    """The standard library finds the same members, with every field of the header as documented."""
    archive = ours(entries)
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", errorlevel=2) as tar:
        infos = tar.getmembers()
        assert [(info.name, info.size, info.offset_data) for info in infos] == [
            (member.name, member.size, member.offset) for member in members(archive)
        ]
        for info, (name, data) in zip(infos, entries, strict=True):
            file = tar.extractfile(info)
            assert file is not None
            assert (info.name, file.read()) == (name, data)
            assert (info.mode, info.mtime, info.uid, info.gid, info.uname, info.gname) == (0o644, 0, 0, 0, "", "")
            assert info.type == tarfile.REGTYPE


@given(st.lists(st.tuples(names, blobs), max_size=5))
def test_our_archives_read_back(entries: list[tuple[str, bytes]]) -> None:
    """What was written is found again, at offsets that hold the data."""
    assert contents(ours(entries)) == entries


@given(name=names, size=st.integers(0, 8**11 - 1))
def test_a_header_equals_tarfiles(name: str, size: int) -> None:
    """Our header is the one tarfile writes, but for the device fields, where GNU tar's zeros stand, and the sum."""
    info = tarfile.TarInfo(name)
    info.size = size
    ours_, theirs_ = encode_header(name, size), info.tobuf(tarfile.USTAR_FORMAT)
    for part in (slice(0, 148), slice(156, 329), slice(345, BLOCK)):
        assert ours_[part] == theirs_[part]
    assert ours_[329:345] == b"0000000\0" * 2
    assert parse_header(encode_header(name, size)) == (name, size, b"0")


@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data())
def test_we_list_what_tarfile_writes(kind: str, data: st.DataObject) -> None:
    """USTAR, GNU and pax archives with plain names are read whole."""
    entries = data.draw(st.lists(st.tuples(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,60}){0,2}", fullmatch=True), blobs)))
    assert contents(theirs(entries, FORMATS[kind])) == entries


@pytest.mark.parametrize("kind", ["gnu", "pax"])
@pytest.mark.parametrize(
    "name",
    ["x" * 101, "folder/" * 40 + "file.jpg", "größe.jpg", "画像" * 60 + ".jpg", "a" * 5000, "x" * 99 + "é"],
    ids=["101 bytes", "deep", "not ASCII", "long and not ASCII", "5,000 bytes", "101 bytes by its last letter"],
)
def test_long_and_foreign_names_are_read(kind: str, name: str) -> None:
    """GNU long names and pax paths replace the name of their own member only."""
    entries = [("before", b"1"), (name, b"22"), ("after", b"333")]
    assert contents(theirs(entries, FORMATS[kind])) == entries


def test_ustar_prefixes_are_joined_to_names() -> None:
    """A path split over the prefix and name fields is read as one."""
    name = "/".join(["d" * 50, "e" * 60, "f" * 80])
    archive = theirs([(name, b"x")], tarfile.USTAR_FORMAT)
    assert archive[345:500].rstrip(b"\0") == f"{'d' * 50}/{'e' * 60}".encode()
    assert contents(archive) == [(name, b"x")]


def test_pax_records_we_do_not_use_are_passed_over() -> None:
    """Float times, owners beyond the header's range and global comments change neither names nor places."""
    entries = [("a.jpg", b"abc"), ("b.jpg", b"defg")]
    archive = theirs(entries, tarfile.PAX_FORMAT, pax_headers={"comment": "made = for\na test"}, mtime=1342171521.25)
    assert b"mtime=1342171521.25\n" in archive
    assert b"comment=made = for\na test\n" in archive
    assert contents(archive) == entries


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_sizes_beyond_8_gib_are_read(kind: str) -> None:
    """Base-256 sizes of GNU and size records of pax place the next member right."""
    huge = tarfile.TarInfo("huge.bin")
    huge.size = 2**33 + 513
    head, last = huge.tobuf(FORMATS[kind]), ours([("last.jpg", b"x" * 9)])
    start = len(head) + huge.size + padding(huge.size)

    def read(begin: int, stop: int) -> bytes:
        return head[begin:stop] if stop <= len(head) else last[begin - start : stop - start]

    assert list(iter_members(read, start + len(last))) == [
        Member("huge.bin", huge.size, len(head), is_file=True),
        Member("last.jpg", 9, start + BLOCK, is_file=True),
    ]


def test_directories_are_listed_as_such() -> None:
    """A directory has no data and is not a file, in the notation of today and of the seventies."""
    v7 = bytearray(special(tarfile.AREGTYPE, name="old/"))
    archive = special(tarfile.DIRTYPE, name="val/") + bytes(v7) + ours([("val/a.jpg", b"abc")])
    assert [(member.name, member.size, member.is_file) for member in members(archive)] == [
        ("val/", 0, False),
        ("old/", 0, False),
        ("val/a.jpg", 3, True),
    ]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (tarfile.SYMTYPE, r"is a symbolic link to other\.jpg\. Write the tar again with `tar --dereference`"),
        (tarfile.CHRTYPE, "is a character device.*leave it out"),
        (tarfile.BLKTYPE, "is a block device.*leave it out"),
        (tarfile.FIFOTYPE, "is a named pipe.*leave it out"),
        (tarfile.GNUTYPE_SPARSE, "is a sparse file.*without --sparse"),
        (b"M", "goes on from another volume.*without --multi-volume"),
        (b"D", "has type b'D'"),
        (b"\xff", "has type b'\\\\xff'"),
    ],
)
def test_what_is_no_file_and_no_directory_is_named(kind: bytes, says: str) -> None:
    """The archive may be whole: the error says what the entry is and what to do, and is of its own class."""
    info = tarfile.TarInfo("special")
    info.type, info.linkname = kind, "other.jpg"
    with pytest.raises(UnreadEntryError, match=f"byte 0: special {says}"):
        members(info.tobuf(tarfile.USTAR_FORMAT) + END)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["b.jpg", "d/" * 40 + "é.jpg", "x" * 90 + "/" + "y" * 90])
def test_a_hard_link_is_the_file_that_it_names(kind: str, name: str) -> None:
    """As GNU tar stores the second name of a file: the member has the bytes of the first, under its own name."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=FORMATS[kind], encoding="utf-8") as tar:
        for path, target in ((name, None), ("link.jpg", name), ("again.jpg", "link.jpg"), ("last.jpg", None)):
            info = tarfile.TarInfo(path)
            if kind == "ustar" and not (path.isascii() and len(path) < 100 and len(target or "") < 100):
                return
            info.type, info.linkname = (tarfile.REGTYPE, "") if target is None else (tarfile.LNKTYPE, target)
            info.size = 5 if target is None else 0
            tar.addfile(info, io.BytesIO(path.encode()[-5:]))
    end = name.encode()[-5:]
    expected = [(name, end), ("link.jpg", end), ("again.jpg", end), ("last.jpg", b"t.jpg")]
    assert contents(file.getvalue()) == expected


@pytest.mark.parametrize("target", ["none.jpg", "", "link.jpg", "later.jpg", "folder/", "./a.jpg"])
def test_a_hard_link_to_no_file_before_it_is_named(target: str) -> None:
    """Which bytes are meant is not known: the error says what to do."""
    info = tarfile.TarInfo("link.jpg")
    info.type, info.linkname = tarfile.LNKTYPE, target
    archive = ours([("a.jpg", b"1")]).removesuffix(END) + special(tarfile.DIRTYPE, name="folder/")
    archive += info.tobuf(tarfile.USTAR_FORMAT) + ours([("later.jpg", b"2")])
    with pytest.raises(UnreadEntryError, match=f"link.jpg is a hard link to {target}, .*--hard-dereference"):
        members(archive)


def test_the_file_before_a_hard_link_is_the_last_of_its_name() -> None:
    """As when the archive is unpacked: a file that is there twice is the later one."""
    info = tarfile.TarInfo("link.jpg")
    info.type, info.linkname = tarfile.LNKTYPE, "a.jpg"
    archive = ours([("a.jpg", b"1"), ("a.jpg", b"2")]).removesuffix(END) + info.tobuf(tarfile.USTAR_FORMAT) + END
    assert contents(archive) == [("a.jpg", b"1"), ("a.jpg", b"2"), ("link.jpg", b"2")]


def test_contiguous_files_and_volume_labels_are_read() -> None:
    """Type 7 is a file like others; the label that `tar --label` writes first is no member."""
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = tarfile.CONTTYPE, 3
    archive = special(b"V", name="validation images") + info.tobuf(tarfile.USTAR_FORMAT) + b"abc" + bytes(509) + END
    assert contents(archive) == [("a.jpg", b"abc")]


@pytest.mark.parametrize("blocks", [1, 2, 4, 16, 20, 64, 128, 256, 2048, 8192])
def test_zeros_up_to_a_record_are_read(blocks: int) -> None:
    """Archives of `tar -b BLOCKS` end with zeros up to a multiple of BLOCKS x 512 bytes: they are whole."""
    archive = ours(SMALL)
    record = blocks * BLOCK
    padded = archive + bytes(-len(archive) % record)
    assert contents(padded) == SMALL
    if blocks > 20:
        with pytest.raises(TarError, match="zeros"):
            members(padded[:-BLOCK])


@pytest.mark.parametrize("blocks", [100, 126, 1000])
def test_zeros_up_to_an_unusual_record_are_named(blocks: int) -> None:
    """They may be what is left of lost members, so both causes are said, and the length to cut to."""
    archive = ours(SMALL)
    padded = archive + bytes(-len(archive) % (blocks * BLOCK))
    with pytest.raises(UnreadEntryError, match=rf"zeros from byte .*truncate -s {len(archive)}") as caught:
        members(padded)
    assert "copy it again" in str(caught.value)
    assert contents(padded[: len(archive)]) == SMALL


def test_an_archive_that_goes_on_is_not_read_to_its_end() -> None:
    """However long the rest is, at most one record of it is read."""
    archive = ours(SMALL)

    def read(start: int, stop: int) -> bytes:
        assert stop - start <= 65 << 20
        return archive[start:stop]

    with pytest.raises(TarError, match="goes on"):
        list(iter_members(read, 1 << 40))


def test_a_sparse_pax_member_is_refused() -> None:
    """GNU's sparse format in pax stores a map and fragments: its bytes are not the file's."""
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a", "GNU.sparse.realsize": "9000"}
    body = b"".join(pax_record(keyword, value) for keyword, value in records.items())
    with pytest.raises(TarError, match="sparse"):
        members(special(b"x", body=body) + ours([("GNUSparseFile.0/a", bytes(1024))]))


def test_every_cut_of_our_archive_is_an_error() -> None:
    """There is no length at which a cut archive reads as a shorter one, and no cut member is given out."""
    archive = ours(SMALL)
    whole = members(archive)
    for stop in range(len(archive)):
        found, is_whole = members_until_error(archive[:stop])
        assert not is_whole
        assert found == [member for member in whole if member.offset + member.size <= stop][: len(found)]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_cut_of_tarfiles_archive_is_an_error(kind: str) -> None:
    """Only behind the end marker, where some of the filling is gone and no member, may a cut archive be read."""
    archive = theirs([*SMALL, ("n" * (100 if kind == "ustar" else 130), b"z")], FORMATS[kind])
    whole = members(archive)
    end = whole[-1].offset + BLOCK + len(END)
    assert len(whole) == len(SMALL) + 1
    cuts = [stop for stop in range(len(archive)) if reads_as(archive[:stop], whole)]
    assert cuts == [end, 8192]  # the latter is a record of `tar -b 16`


def test_every_bit_flip_in_a_header_is_an_error() -> None:
    """One changed bit in any header is seen, save three that swap one filler of the checksum field for another."""
    archive = ours(SMALL)
    whole = members(archive)
    for member in whole:
        start = member.offset - BLOCK
        for place in range(BLOCK):
            for bit in (1 << n for n in range(8)):
                damaged = bytearray(archive)
                damaged[start + place] ^= bit
                assert reads_as(bytes(damaged), whole) == ((place, bit) in HARMLESS_BITS), (member.name, place, bit)


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_every_bit_flip_in_an_extended_header_block_is_an_error(kind: str) -> None:
    """The header blocks of long names and pax records are checked as strictly as those of files."""
    archive = theirs([("n" * 120, b"z")], FORMATS[kind])
    whole = members(archive)
    for place in range(BLOCK):
        for bit in (1 << n for n in range(8)):
            damaged = bytearray(archive)
            damaged[place] ^= bit
            assert reads_as(bytes(damaged), whole) == ((place, bit) in HARMLESS_BITS), (place, bit)


def test_every_bit_flip_in_the_end_marker_is_an_error() -> None:
    """A single bit that is set among the closing zeros is seen."""
    archive = ours(SMALL)
    for place in range(len(archive) - len(END), len(archive)):
        damaged = bytearray(archive)
        damaged[place] |= 0x10
        with pytest.raises(TarError):
            members(bytes(damaged))


@pytest.mark.parametrize("first_lost", range(1, len(SMALL)))
def test_a_tail_of_zeros_is_not_an_end(first_lost: int) -> None:
    """Members overwritten by zeros, as a crash leaves them, are not the filling of a 10 KiB record."""
    archive = ours(SMALL)
    start = members(archive)[first_lost].offset - BLOCK
    with pytest.raises(TarError):
        members(archive[:start] + bytes(len(archive) - start))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        pytest.param(bytes(BLOCK) * 30, "fill no tar record", id="more zeros than a record"),
        pytest.param(bytes(10239 - len(ours(SMALL))) + b"x", "not zero", id="something in the filling"),
        pytest.param(ours(SMALL), "not zero", id="a second archive"),
        pytest.param(ours(SMALL * 3), "not zero", id="a second, long archive"),
    ],
)
def test_nothing_hides_behind_the_end_marker(extra: bytes, expected: str) -> None:
    """What follows the end marker is an error: tarfile would not see it."""
    with pytest.raises(TarError, match=expected):
        members(ours(SMALL) + extra)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(pax_record("path", "lost.jpg"), id="pax path"),
        pytest.param(pax_record("mtime", "1.5"), id="pax mtime"),
    ],
)
def test_an_extended_header_without_its_member_is_an_error(body: bytes) -> None:
    """A pax header announces a member; an end marker in its place means that the member is lost."""
    archive = ours(SMALL).removesuffix(END) + special(b"x", body=body) + END
    with pytest.raises(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.getnames()
    with pytest.raises(TarError):
        members(archive)


def test_a_long_name_without_its_member_is_an_error() -> None:
    """A GNU long name announces a member; an end marker in its place means that the member is lost."""
    with pytest.raises(TarError):
        members(special(b"L", body=b"n" * 120 + b"\0") + END)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"path=x\n", id="no length"),
        pytest.param(b"0 path=x\n", id="length zero"),
        pytest.param(b"8 path=x\n", id="length short by one"),
        pytest.param(b"99 path=x\n", id="length beyond the data"),
        pytest.param(b"5 a\n\n", id="no equals sign"),
        pytest.param(b"10 path=x\nrubbish", id="rubbish at the end"),
        pytest.param(pax_record("size", "-5"), id="negative size"),
        pytest.param(pax_record("size", "1.5"), id="size not whole"),
        pytest.param(pax_record("size", ""), id="size empty"),
        pytest.param(pax_record("size", "9" * 30), id="size beyond the archive"),
        pytest.param(pax_record("size", "9" * 4300), id="size of 4,300 digits"),
        pytest.param(pax_record("size", "9" * 5000), id="size of 5,000 digits"),
        pytest.param(b"9" * 5000 + b" path=x\n", id="length of 5,000 digits"),
    ],
)
def test_damaged_pax_records_are_an_error(body: bytes) -> None:
    """A pax header that cannot be parsed, or gives an impossible size, is a TarError and nothing else."""
    with pytest.raises(TarError):
        members(special(b"x", body=body) + ours(SMALL))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_huge_extended_header_is_an_error(kind: bytes) -> None:
    """A record of more than 1 MiB is damage; it is not read into memory."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = kind, 2**30

    def read(start: int, stop: int) -> bytes:
        assert stop - start <= 1 << 20
        return header.tobuf(tarfile.USTAR_FORMAT)[start:stop]

    with pytest.raises(TarError, match="damaged or cut"):
        list(iter_members(read, 2**31))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda h: h[:511], "cut: 511 of 512", id="short"),
        pytest.param(lambda h: h + b"\0", "cut: 513 of 512", id="long"),
        pytest.param(lambda h: h[:148] + b"99999999" + h[156:], "checksum is b'99999999'", id="checksum not octal"),
        pytest.param(lambda h: h[:148] + b" " * 8 + h[156:], "expected octal digits", id="checksum blank"),
        pytest.param(lambda h: h[:257] + b"xstar\0" + h[263:], "header checksum", id="other magic"),
        pytest.param(lambda _: bytes(BLOCK), "expected octal digits", id="zeros"),
        pytest.param(lambda _: b"\xff\xd8\xff\xe0" * 128, "expected octal digits", id="a picture"),
    ],
)
def test_what_is_not_a_header_is_refused(change: Callable[[bytes], bytes], expected: str) -> None:
    """A block of another length, sum or kind is an error that says what was found."""
    with pytest.raises(TarError, match=expected):
        parse_header(change(encode_header("a.jpg", 3)))


@pytest.mark.parametrize("size", [b"-0000000010\0", b"0000000009x\0", b"00000 00010\0", b"\xff" * 12, b" " * 12])
def test_a_size_that_is_not_octal_is_refused(size: bytes) -> None:
    """A size field with a right checksum but no octal number is an error, not a guess."""
    header = bytearray(encode_header("a.jpg", 3))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(TarError, match="size is"):
        parse_header(bytes(header))


@pytest.mark.parametrize(
    ("name", "size"),
    [("", 1), ("x" * 101, 1), ("é.jpg", 1), ("a\0b", 1), ("a", -1), ("a", 8**11)],
    ids=["no name", "long name", "not ASCII", "NUL in the name", "negative", "8 GiB"],
)
def test_what_a_ustar_header_cannot_say_is_refused(name: str, size: int) -> None:
    """Names and sizes that would be cut or wrapped are errors when writing."""
    with pytest.raises(TarError):
        encode_header(name, size)


@pytest.mark.parametrize("archive", [b"", b"\0", bytes(BLOCK), bytes(2 * BLOCK - 1), b"<!DOCTYPE html>" * 100])
def test_what_is_no_archive_is_refused(archive: bytes) -> None:
    """Nothing, a single zero block and a web page are errors, not empty archives."""
    with pytest.raises(TarError):
        members(archive)


def test_an_archive_without_members_is_whole() -> None:
    """An end marker alone is an archive of nothing, as for tarfile."""
    assert members(END) == members(theirs([], tarfile.GNU_FORMAT)) == []


@given(
    kind=st.sampled_from(sorted(FORMATS)),
    start=st.integers(0, 4000),
    damage=st.binary(min_size=1, max_size=40),
    cut=st.integers(0, 600),
)
def test_damage_anywhere_gives_members_within_the_archive_or_an_error(
    kind: str, start: int, damage: bytes, cut: int
) -> None:
    """Bytes overwritten or taken out raise TarError and nothing else, or leave members that lie in order inside."""
    archive = theirs([*SMALL, ("n" * 90, b"z" * 600)], FORMATS[kind], pax_headers={"comment": "x"}, mtime=1.5)
    damaged = archive[:start] + damage + archive[start + len(damage) + cut :]
    end = 0
    for member in members_until_error(damaged)[0]:
        assert end <= member.offset - BLOCK
        end = member.offset + member.size
        assert end <= len(damaged)


@given(st.binary(max_size=300).flatmap(lambda body: st.sampled_from([(b"x", body), (b"L", body), (b"g", body)])))
def test_any_bytes_in_an_extended_header_are_read_or_refused(entry: tuple[bytes, bytes]) -> None:
    """Whatever an extended header holds, the outcome is a list or a TarError."""
    kind, body = entry
    with contextlib.suppress(TarError):
        members(special(kind, body=body) + ours(SMALL))


@given(st.integers(0, 2**40))
def test_padding_fills_the_last_block(size: int) -> None:
    """Data and padding together are whole blocks, with less than one block of padding."""
    assert (size + padding(size)) % BLOCK == 0
    assert 0 <= padding(size) < BLOCK


def test_only_headers_are_read() -> None:
    """Listing asks for headers and the end marker, never for the data between them."""
    archive = ours(SMALL)
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return archive[start:stop]

    found = list(iter_members(read, len(archive)))
    end = len(archive) - len(END)
    assert set(asked) == {(m.offset - BLOCK, m.offset) for m in found} | {(end, end + BLOCK), (end, len(archive))}
