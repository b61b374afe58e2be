"""ustar bytes in and out: pure functions over 512-byte blocks.

Writing knows one kind of member: a regular file whose header is a function of its name and size alone, so the same
input gives the same bytes. Reading is strict, because ``tarfile`` is not: a cut or damaged archive is an error here,
never a shorter list of members. Foreign archives may carry directories, GNU long names and pax headers; the checks are
the same.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["BLOCK", "END", "Member", "TarError", "encode_header", "iter_members", "padding", "parse_header", "pax_size"]

BLOCK = 512
END = bytes(2 * BLOCK)

_RECORD = 20 * BLOCK  # GNU tar and Python's tarfile pad an archive with zeros to a multiple of this
_MAX_NAME = 100
_MAX_SIZE = 8**11 - 1
_MAX_EXTENSION = 1 << 20  # a pax or long-name record beyond 1 MiB is damage, not a name
_PAX_RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")


class TarError(ValueError):
    """The bytes are not a whole tar archive. Callers say which archive, and what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: Path as stored.
        size: Bytes of data.
        offset: Where the data starts in the archive, in bytes.
        is_file: Whether this is a regular file; the only other entries let through are directories.
    """

    name: str
    size: int
    offset: int
    is_file: bool


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


def iter_members(
    read: Callable[[int, int], bytes], num_bytes: int, *, start: int = 0, stop: int | None = None
) -> Iterator[Member]:
    """Yield the files and directories of an archive of `num_bytes` bytes, reading headers only.

    `read(start, stop)` returns exactly the bytes of that half-open range. The archive must end with two zero blocks,
    and hold nothing but zeros after them up to the next 10 KiB record (GNU tar pads to it), so a cut never goes unseen.
    A part of an archive is what the headers from `start` to before `stop` name; `start` is the place of a header.

    Raises:
        TarError: a header is damaged, data runs past the end, an entry is a link or device, or the end marker is
            missing.
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
        if flag in b"xgLK":
            override |= _extension(read, flag, offset, size, num_bytes)
            offset, extended = offset + BLOCK + size + padding(size), extended or flag in b"xL"
            continue
        name = override.get("path", name)
        size = int(override.get("size", size))
        data_start = offset + BLOCK
        if flag not in (b"0", b"\0", b"5"):
            raise TarError(f"byte {offset}: {name} has type {flag!r}; only regular files and directories are read")
        if flag == b"5" or (flag == b"\0" and name.endswith("/")):
            size, is_file = 0, False
        else:
            is_file = True
        if data_start + size + padding(size) > num_bytes:
            where = f"{name} [bytes {data_start}-{data_start + size})"
            raise TarError(f"archive is cut: {where} ends after byte {num_bytes}")
        yield Member(name, size, data_start, is_file)
        offset, override, extended = data_start + size + padding(size), {}, False


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
    if num_bytes - offset < len(END):
        raise TarError(f"archive is cut: its end-of-archive marker has {num_bytes - offset} of {len(END)} bytes")
    padded_to_a_record = num_bytes % _RECORD == 0 and num_bytes - offset < len(END) + _RECORD
    if num_bytes - offset > len(END) and not padded_to_a_record:
        raise TarError(f"end-of-archive marker at byte {offset}, but the archive goes on to byte {num_bytes}")
    if any(read(offset, num_bytes)):
        raise TarError(f"bytes that are not zero after the end-of-archive marker at byte {offset}")


def _extension(
    read: Callable[[int, int], bytes], flag: bytes, offset: int, size: int, num_bytes: int
) -> dict[str, str]:
    """Return what a pax header or a GNU long-name entry says of the next member."""
    start = offset + BLOCK
    if size > _MAX_EXTENSION or start + size > num_bytes:
        raise TarError(f"byte {offset}: extended header of {size} bytes is damaged or cut")
    data = read(start, start + size)
    if flag in b"gK":  # global headers and long link names say nothing of where data lies
        return {}
    if flag == b"L":
        return {"path": _text(data)}
    records = dict(_pax_records(data, offset))
    return {name: records[name] for name in ("path", "size") if name in records}


def _pax_records(data: bytes, offset: int) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(data):
        match = _PAX_RECORD.match(data, position)
        length = int(match[1]) if match else 0
        if match is None or length <= 0 or data[position + length - 1 : position + length] != b"\n":
            raise TarError(f"byte {offset}: pax header is damaged")
        value = data[match.end() : position + length - 1].decode("utf-8", "surrogateescape")
        keyword = match[2].decode("utf-8", "surrogateescape")
        if keyword.startswith("GNU.sparse."):
            raise TarError(f"byte {offset}: a sparse file; only whole regular files are read")
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
