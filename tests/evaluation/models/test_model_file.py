"""Files of models: their digest, and what is no such file."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from support.exported import write_lfs_pointer

from wds_real import ModelError
from wds_real.evaluation.models.model_file import file_digest

if TYPE_CHECKING:
    from pathlib import Path


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    """SHA-256 of the whole file, as sha256sum prints it."""
    (tmp_path / "m").write_bytes(b"abc" * 100_000)
    assert file_digest(str(tmp_path / "m"), "a model") == hashlib.sha256(b"abc" * 100_000).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no such file\. Expected a model\."),
        ("folder", r"a folder\. Expected a model\."),
        (b"", r"the file is empty\. Expected a model\."),
        (
            "lfs",
            r"a Git LFS pointer, not the file itself\. Run `git lfs pull` where it was cloned\. Expected a model\.",
        ),
        (b"\n<!doctype HTML><p>Sign in", r"looks like a web page, .*\. Expected a model\."),
        (b"<html lang=en>", "looks like a web page"),
    ],
)
def test_what_is_no_file_of_a_model(content: bytes | str | None, message: str, tmp_path: Path) -> None:
    """What downloads and clones leave in place of a file is told apart."""
    path = tmp_path / "m"
    if content == "folder":
        path.mkdir()
    elif content == "lfs":
        write_lfs_pointer(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"m: {message}"):
        file_digest(str(path), "a model")


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason is given."""
    path = tmp_path / "m"
    path.write_bytes(b"abc")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(ModelError, match=r"m: cannot be read: Permission denied\."):
        file_digest(str(path), "a model")
