"""Write and read ustar archives: pure functions over 512-byte blocks.

Only regular files are written, and a header depends on name and size alone, so the same input gives the same bytes.
Reading is strict, unlike ``tarfile``: a cut or damaged archive is an error, never a shorter list of members. Archives
of other tools may hold directories, GNU long names, pax headers and hard links; the checks are the same.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "BLOCK",
    "END",
    "Member",
    "TarError",
    "UnreadEntryError",
    "encode_header",
    "iter_entries",
    "iter_members",
    "padding",
    "parse_header",
    "pax_size",
    "resolve_links",
]

BLOCK = 512
END = bytes(2 * BLOCK)

# Programs pad an archive with zeros to a multiple of a record: 10 KiB, or what `tar -b` says, usually a power of two.
# No other sizes are accepted: zeros in place of a lost end, whatever their number, would fit one of them.
_MAX_RECORD = 64 << 20
_RECORDS = (20 * BLOCK, *(1 << power for power in range(9, 27)))
_MAX_NAME = 100
_MAX_SIZE = 8**11 - 1
_MAX_EXTENSION = 1 << 20  # a pax or long-name record beyond 1 MiB is damage, not a name
_LABEL = b"V"  # GNU tar's label of a volume, which is no member
_FILES = frozenset((b"0", b"\0", b"7", _LABEL))  # 7 asks for contiguous storage; it is a file like others
_EXTENSIONS = frozenset((b"x", b"X", b"g", b"L", b"K"))  # of pax and of GNU tar; X is what Solaris writes for x
_LEAVE_OUT = "Only files and directories are read: leave it out"
_UNREAD = {
    b"2": ("is a symbolic link to {target}", "Write the tar again with `tar --dereference`"),
    b"3": ("is a character device", _LEAVE_OUT),
    b"4": ("is a block device", _LEAVE_OUT),
    b"6": ("is a named pipe", _LEAVE_OUT),
    b"M": ("goes on from another volume", "Write the tar again without --multi-volume"),
    b"S": ("is a sparse file, stored without its zeros", "Write the tar again without --sparse"),
}
_PAX_RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")


class TarError(ValueError):
    """The bytes are not a whole tar archive. Callers say which archive, and what to do."""


class UnreadEntryError(TarError):
    """The archive holds an entry of a kind that is not read. The message says what to do, without a final full stop."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: Path as stored.
        size: Bytes of data.
        offset: Where the data starts in the archive, in bytes.
        is_file: Whether this is a regular file; the only other entries let through are directories.
        link: Path of the file that a hard link names, as stored; None for other entries, and after `resolve_links`.
    """

    name: str
    size: int
    offset: int
    is_file: bool
    link: str | None = None


def _template() -> bytes:
    """Return what all headers have in common: everything but name, size and checksum."""
    header = bytearray(BLOCK)
    for offset, text in (
        (100, b"0000644"),  # mode
        (108, b"0000000"),  # uid
        (116, b"0000000"),  # gid
        (136, b"00000000000"),  # mtime
        (148, b" " * 8),  # checksum: counted as blanks
        (156, b"0"),  # regular file
        (257, b"ustar\x0000"),
        (329, b"0000000"),  # device major
        (337, b"0000000"),  # device minor
    ):
        header[offset : offset + len(text)] = text
    return bytes(header)


_TEMPLATE = _template()
_TEMPLATE_SUM = sum(_TEMPLATE)


def encode_header(name: str, size: int) -> bytes:
    """Return the 512-byte ustar header of a regular file: mode 0644, mtime, uid and gid 0, no owner names.

    >>> len(encode_header("a.jpg", 3)), parse_header(encode_header("a.jpg", 3))
    (512, ('a.jpg', 3, b'0'))

    Raises:
        TarError: the name is empty, not ASCII or longer than 100 bytes, or the size does not fit 11 octal digits.
    """
    if not name or not name.isascii() or len(name) > _MAX_NAME or "\0" in name:
        raise TarError(f"member name {name!r} is not 1..{_MAX_NAME} ASCII characters")
    if not 0 <= size <= _MAX_SIZE:
        raise TarError(f"member size {size} does not fit a ustar header (0..{_MAX_SIZE})")
    named, digits = name.encode("ascii"), b"%011o" % size
    header = bytearray(_TEMPLATE)
    header[: len(named)] = named
    header[124:135] = digits
    header[148:156] = b"%06o\x00 " % (_TEMPLATE_SUM + sum(named) + sum(digits))
    return bytes(header)


def padding(size: int) -> int:
    """Return the number of zero bytes after `size` bytes of data.

    >>> [padding(size) for size in (0, 1, 511, 512, 513)]
    [0, 511, 1, 0, 511]
    """
    return -size % BLOCK


def parse_header(block: bytes) -> tuple[str, int, bytes]:
    """Return name, size and type flag of a header block.

    Raises:
        TarError: the block is not a header, or its checksum or a number in it is damaged.
    """
    if len(block) != BLOCK:
        raise TarError(f"header is cut: {len(block)} of {BLOCK} bytes")
    stored = _octal(block[148:156], "checksum")
    found = _byte_sum(block) - sum(block[148:156]) + 8 * 0x20
    if stored != found:
        raise TarError(f"header checksum is {stored}, the header's bytes sum to {found}")
    magic = block[257:263]
    if magic not in (b"ustar\0", b"ustar ", b"\0" * 6):
        raise TarError(f"header magic is {magic!r}, expected 'ustar'")
    name = _text(block[:100])
    prefix = _text(block[345:500]) if magic == b"ustar\0" else ""
    return (f"{prefix}/{name}" if prefix else name), _number(block[124:136], "size"), block[156:157]


def iter_members(read: Callable[[int, int], bytes], num_bytes: int) -> Iterator[Member]:
    """Yield the files and directories of an archive of `num_bytes` bytes, reading headers only.

    `read(start, stop)` returns exactly the bytes of that half-open range. The archive must end with two zero blocks,
    and hold nothing but zeros after them up to the end of a record, so a cut archive is always an error. A hard link is
    yielded as the file that it names.

    Raises:
        UnreadEntryError: an entry is a symbolic link, a device or a sparse file, or a hard link without its file.
        TarError: a header is damaged, data runs past the end, or the end marker is missing.
    """
    return resolve_links(iter_entries(read, num_bytes))


def iter_entries(
    read: Callable[[int, int], bytes], num_bytes: int, *, start: int = 0, stop: int | None = None
) -> Iterator[Member]:
    """Yield the members whose headers lie in the bytes from `start` to before `stop`, hard links as they are stored.

    A header begins at `start`. Without `stop` all members up to the end marker are yielded. Errors are those of
    `iter_members`.
    """
    offset, override, extended = start, dict[str, str](), False
    while extended or stop is None or offset < stop:
        if offset + BLOCK > num_bytes:
            raise TarError(f"archive is cut: no end-of-archive marker at byte {offset} of {num_bytes}")
        block = read(offset, offset + BLOCK)
        if not any(block):
            if extended:
                raise TarError(f"byte {offset}: an extended header, but no member follows it")
            _check_end(read, offset, num_bytes)
            return
        try:
            name, size, flag = parse_header(block)
        except TarError as error:
            raise TarError(f"byte {offset}: {error}") from error
        if flag in _EXTENSIONS:
            override |= _extension(read, flag, offset, size, num_bytes)
            offset, extended = offset + BLOCK + size + padding(size), extended or flag in b"xXL"
            continue
        member = _member(block, flag, override.get("path", name), int(override.get("size", size)), offset, override)
        stored = member.size + padding(member.size)
        if member.offset + stored > num_bytes:
            where = f"{member.name} [bytes {member.offset}-{member.offset + member.size})"
            raise TarError(f"archive is cut: {where} ends after byte {num_bytes}")
        if flag != _LABEL:
            yield member
        offset, override, extended = member.offset + stored, {}, False


def resolve_links(members: Iterable[Member]) -> Iterator[Member]:
    """Yield the members with each hard link as the file that it names, which stands before it.

    Raises:
        UnreadEntryError: no such file stands before a hard link.
    """
    files: dict[str, Member] = {}
    for member in members:
        if member.link is None:
            files[member.name] = member
            yield member
            continue
        file = files.get(member.link)
        if file is None or not file.is_file:
            raise UnreadEntryError(
                f"byte {member.offset - BLOCK}: {member.name} is a hard link to {member.link}, which is not a file "
                "before it in the archive. Write the tar again with `tar --hard-dereference`"
            )
        files[member.name] = found = replace(file, name=member.name)
        yield found


def _member(block: bytes, flag: bytes, name: str, size: int, offset: int, override: dict[str, str]) -> Member:
    """Return the member whose header is at `offset`; only files have data."""
    start = offset + BLOCK
    if flag == b"5" or (flag == b"\0" and name.endswith("/")):
        return Member(name, 0, start, is_file=False)
    if flag in _FILES:
        return Member(name, size, start, is_file=True)
    target = override.get("linkpath", _text(block[157:257]))
    if flag == b"1":
        return Member(name, 0, start, is_file=True, link=target)
    what, advice = _UNREAD.get(flag, (f"has type {flag!r}", "Only files and directories are read"))
    shown = what.format(target=target)
    raise UnreadEntryError(f"byte {offset}: {name} {shown}. {advice}")


def pax_size(data: bytes) -> int | None:
    r"""Return the size that the records of a pax header give for the next member, or None if they give none.

    >>> pax_size(b"16 size=1234567\n")
    1234567

    Raises:
        TarError: the records are damaged.
    """
    size = dict(_pax_records(data, 0)).get("size")
    return None if size is None else int(size)


def _check_end(read: Callable[[int, int], bytes], offset: int, num_bytes: int) -> None:
    left = num_bytes - offset
    if left < len(END):
        raise TarError(f"archive is cut: its end-of-archive marker has {left} of {len(END)} bytes")
    if left > len(END) + _MAX_RECORD:
        raise TarError(f"end-of-archive marker at byte {offset}, but the archive goes on to byte {num_bytes}")
    if any(read(offset, num_bytes)):
        raise TarError(f"bytes that are not zero after the end-of-archive marker at byte {offset}")
    # Zeros fill at most one record. A crash or an unfinished download leaves more, in place of members.
    if left > len(END) and not any(num_bytes % size == 0 and left < len(END) + size for size in _RECORDS):
        raise UnreadEntryError(
            f"{left:,} zeros from byte {offset} to the end fill no tar record of a usual size. Either members are lost "
            "there: copy it again. Or it was written with another record size: write it again without -b, or cut it "
            f"with `truncate -s {offset + len(END)}`"
        )


def _extension(
    read: Callable[[int, int], bytes], flag: bytes, offset: int, size: int, num_bytes: int
) -> dict[str, str]:
    """Return what a pax header or a GNU long-name entry says of the next member."""
    start = offset + BLOCK
    if size > _MAX_EXTENSION or start + size > num_bytes:
        raise TarError(f"byte {offset}: extended header of {size} bytes is damaged or cut")
    data = read(start, start + size)
    if flag == b"g":  # a global header does not say where data lies
        return {}
    if flag in b"LK":
        return {"path" if flag == b"L" else "linkpath": _text(data)}
    records = dict(_pax_records(data, offset))
    if any(keyword.startswith("GNU.sparse.") for keyword in records):
        what, advice = _UNREAD[b"S"]
        raise UnreadEntryError(f"byte {offset}: {records.get('GNU.sparse.name', 'a member')} {what}. {advice}")
    return {name: records[name] for name in ("path", "linkpath", "size") if name in records}


def _pax_records(data: bytes, offset: int) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(data):
        match = _PAX_RECORD.match(data, position)
        length = int(match[1]) if match else 0
        if match is None or length <= 0 or data[position + length - 1 : position + length] != b"\n":
            raise TarError(f"byte {offset}: pax header is damaged")
        value = data[match.end() : position + length - 1].decode("utf-8", "surrogateescape")
        keyword = match[2].decode("utf-8", "surrogateescape")
        if keyword == "size" and not (value.isdecimal() and value.isascii() and len(value) < 20):
            raise TarError(f"byte {offset}: pax header gives size {value!r}")
        yield keyword, value
        position += length


def _byte_sum(block: bytes) -> int:
    """Return the sum of a header's bytes, in a twentieth of the time that `sum` takes.

    The lower half of an Adler-32 is the sum of the bytes and 1, modulo 65,521, which 256 bytes cannot reach.
    """
    return (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _number(field: bytes, what: str) -> int:
    """Parse octal digits, or GNU's base-256 where the first byte is 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _octal(field, what)


def _octal(field: bytes, what: str) -> int:
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise TarError(f"header {what} is {field!r}, expected octal digits")
    return int(digits, 8)
