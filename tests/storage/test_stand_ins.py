"""Files that only stand in for others: one place knows them, for tars, weights and exported models."""

from __future__ import annotations

from pathlib import Path

import pytest

from wds_real.storage.files import stand_in

PACKAGE = Path(__file__).parents[2] / "wds_real"


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n <!DOCTYPE html><title>Sign in", "looks like a web page"),
        (b"<HTML>", "looks like a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "looks like a web page"),
    ],
)
def test_a_stand_in_is_named_with_what_to_do(start: bytes, words: str) -> None:
    """The text of a pointer, a page, and a server's error."""
    assert words in str(stand_in(start))


@pytest.mark.parametrize("start", [b"", b"PK\x03\x04", b"versions", b"\x89PNG", b"a < b"])
def test_other_files_are_themselves(start: bytes) -> None:
    """Nothing is said of them."""
    assert stand_in(start) is None


def test_xml_may_be_the_file_itself() -> None:
    """As of OpenVINO's models; a page is still a page."""
    assert stand_in(b'<?xml version="1.0"?><net name="a">', may_be_xml=True) is None
    assert stand_in(b"<html>", may_be_xml=True) is not None


def test_no_other_module_knows_the_pointers_of_git_lfs() -> None:
    """One place, so that one message is given."""
    found = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "git-lfs" in path.read_text()]
    assert found == ["storage/files.py"]
