"""TarScanner: finds the end-of-archive marker of any tar, in pieces of any size, and of no tar that is cut."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.format.tar_scanner import TarScanner


def archive(kind: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for number in range(3):
            info = tarfile.TarInfo("folder/" * (30 * number) + f"{number}.jpg")
            info.size = 700 * number
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    return file.getvalue()


ARCHIVES = {kind: archive(kind) for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)}


def ended(data: bytes, size: int) -> bool:
    scanner = TarScanner()
    for start in range(0, len(data), size):
        scanner.feed(memoryview(data)[start : start + size])
    return scanner.ended


@pytest.mark.parametrize("kind", ARCHIVES)
@given(size=st.integers(1, 3000))
def test_the_end_is_found_however_the_bytes_arrive(kind: int, size: int) -> None:
    """Long names and pax headers are followed; pieces may end anywhere."""
    assert ended(ARCHIVES[kind], size)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_is_cut_before_its_marker_has_no_end(kind: int) -> None:
    """Every cut up to the second zero block is noticed."""
    data = ARCHIVES[kind]
    marker = len(data.rstrip(b"\0")) // 512 * 512 + 512
    assert not any(ended(data[:cut], 512) for cut in range(0, marker + 512, 128))


def test_a_damaged_header_is_no_end() -> None:
    """What follows a header that cannot be read is not taken for the end."""
    data = bytearray(ARCHIVES[tarfile.GNU_FORMAT])
    data[150] ^= 1
    assert not ended(bytes(data), 512)


def test_members_of_any_kind_are_passed_over() -> None:
    """Links and devices have no data, whatever their header says; entries of other types have what it says."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for flag in (b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"V", b"D", b"0"):
            info = tarfile.TarInfo(f"{flag.decode()}.jpg")
            info.type, info.size = flag, 700 if flag in b"07VD" else 0
            tar.addfile(info, io.BytesIO(bytes([255]) * info.size))
    assert ended(file.getvalue(), 512)


def test_a_sparse_file_is_passed_over() -> None:
    """The data of GNU's sparse format in pax are as long as the header says."""
    records = b"22 GNU.sparse.major=1\n"
    header, member = tarfile.TarInfo("pax"), tarfile.TarInfo("a.jpg")
    header.type, header.size, member.size = tarfile.XHDTYPE, len(records), 600
    head = header.tobuf() + records + bytes(512 - len(records)) + member.tobuf() + b"x" * 600 + bytes(424)
    assert ended(head + bytes(1024), 512)
