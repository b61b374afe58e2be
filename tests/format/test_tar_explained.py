"""What a file is that is no tar: said first, with what to do; only a damaged tar is to be copied again."""

from __future__ import annotations

import gzip
import lzma
import re

import pytest

from wds_real.format.tar import END, TarError, UnreadEntryError, encode_header, iter_members
from wds_real.format.tar_explained import explain_tar_error

AGAIN = "Copy it again."
TAR = encode_header("a.jpg", 3) + b"abc" + bytes(509) + END


def explained(data: bytes) -> str:
    """Return what is said of these bytes, which are not a whole tar."""
    with pytest.raises(TarError) as caught:
        list(iter_members(lambda start, stop: data[start:stop], len(data)))
    return explain_tar_error(caught.value, data[:512], len(data), if_damaged=AGAIN)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(gzip.compress(TAR), "compressed with gzip, .*: run gunzip", id="gzip"),
        pytest.param(lzma.compress(TAR), "compressed with xz, .*: run unxz", id="xz"),
        pytest.param(b"\x28\xb5\x2f\xfd" + bytes(600), "compressed with zstd, .*: run unzstd", id="zstd"),
        pytest.param(b"BZh91AY" + bytes(600), "compressed with bzip2, .*: run bunzip2", id="bzip2"),
        pytest.param(b"PK\x03\x04" + bytes(600), "a zip archive", id="zip"),
        pytest.param(b" \n<html>" + bytes(600), "looks like a web page", id="web page"),
        pytest.param(b"\xff\xd8\xff\xe0" + bytes(600), "an image, not a tar", id="JPEG"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ".*git lfs pull", id="Git LFS"),
    ],
)
def test_another_kind_of_file_is_named(data: bytes, says: str) -> None:
    """Copying it again would not help, so that is not advised."""
    assert re.match(says, explained(data))
    assert AGAIN not in explained(data)


@pytest.mark.parametrize("data", [b"", TAR[:700], TAR[:-1], b"\0" * 100, b"noise" * 200], ids=len)
def test_what_is_cut_or_damaged_is_to_be_copied_again(data: bytes) -> None:
    """The error says where it ends, or what is wrong."""
    assert explained(data).startswith("not a whole tar: ")
    assert explained(data).endswith(AGAIN)


def test_a_whole_tar_with_entries_that_are_not_read_is_not_damaged() -> None:
    """The entry's own advice is given."""
    said = explain_tar_error(UnreadEntryError("byte 0: a is a named pipe. Leave it out"), TAR, 9, if_damaged=AGAIN)
    assert said == "cannot be read whole: byte 0: a is a named pipe. Leave it out."


@pytest.mark.parametrize("name", ["BZh.jpg", "PK\x03\x04.jpg", "<a>.jpg", "version https://git-lfs"])
def test_a_tar_is_a_tar_whatever_its_first_name(name: str) -> None:
    """A member's name may look like the start of another kind of file."""
    assert explained((encode_header(name, 3) + b"abc" + bytes(509) + END)[:-1]).startswith("not a whole tar: ")
