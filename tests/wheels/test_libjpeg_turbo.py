"""The source of libjpeg-turbo: the pinned bytes or none, with a line that says what to do."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest
from releasing import libjpeg_turbo
from releasing.commands import ReleaseError

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = f"libjpeg-turbo-{libjpeg_turbo.VERSION}.tar.gz"


@pytest.fixture
def no_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without apt."""
    (tmp_path / "no programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that stands at the address of upstream's archive, with the pinned digest."""
    path = tmp_path / "upstream.tar.gz"
    path.write_bytes(b"the pinned bytes")
    monkeypatch.setattr(libjpeg_turbo, "_URL", path.as_uri())
    monkeypatch.setattr(libjpeg_turbo, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_another_file_is_refused(tmp_path: Path) -> None:
    """The message has the file, both digests, and what to do."""
    path = tmp_path / NAME
    path.write_bytes(b"something else")
    with pytest.raises(ReleaseError) as error:
        libjpeg_turbo.checked(path)
    assert str(error.value) == (
        f"{path} is not the archive of libjpeg-turbo {libjpeg_turbo.VERSION} that scripts/releasing/libjpeg_turbo.py "
        f"names: SHA-256 {hashlib.sha256(b'something else').hexdigest()}, expected {libjpeg_turbo.SHA256}. Delete it, "
        "and do not use it before you know where it comes from."
    )


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """A file that is not there is no traceback."""
    with pytest.raises(ReleaseError, match=r"nowhere\.tar\.gz cannot be read: No such file or directory\.$"):
        libjpeg_turbo.checked(tmp_path / "nowhere.tar.gz")


def test_the_archive_is_downloaded_once(upstream: Path, tmp_path: Path) -> None:
    """The second time the kept file is used; nothing else stays in the folder."""
    kept = libjpeg_turbo.fetch(tmp_path / "build" / "release")
    assert kept.read_bytes() == upstream.read_bytes()
    upstream.unlink()
    assert libjpeg_turbo.fetch(kept.parent) == kept
    assert [path.name for path in kept.parent.iterdir()] == [NAME]


def test_a_wrong_download_is_not_kept(upstream: Path, tmp_path: Path) -> None:
    """The address serves another file: it is refused, and not under the archive's name for the next time."""
    upstream.write_bytes(b"changed")
    with pytest.raises(ReleaseError, match="is not the archive of libjpeg-turbo"):
        libjpeg_turbo.fetch(tmp_path / "folder")
    assert not (tmp_path / "folder" / NAME).exists()


def test_a_kept_file_that_was_changed_is_refused(upstream: Path, tmp_path: Path) -> None:
    """What lies in the folder is checked as a download is."""
    (tmp_path / NAME).write_bytes(b"changed")
    with pytest.raises(ReleaseError, match="expected " + hashlib.sha256(upstream.read_bytes()).hexdigest()):
        libjpeg_turbo.fetch(tmp_path)


@pytest.mark.usefixtures("no_debian")
def test_a_machine_without_a_network_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither upstream nor Debian: one line with both reasons and the option."""
    url = (tmp_path / "nothing").as_uri()
    monkeypatch.setattr(libjpeg_turbo, "_URL", url)
    with pytest.raises(ReleaseError) as error:
        libjpeg_turbo.fetch(tmp_path / "folder")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"libjpeg-turbo {libjpeg_turbo.VERSION} could not be downloaded from {url} (")
    assert "No such file or directory" in message
    assert message.endswith(
        "nor from Debian (this is no Debian machine). Download it elsewhere, and give the file: "
        "scripts/release --libjpeg-turbo FILE."
    )


@pytest.mark.usefixtures("no_debian")
def test_a_build_without_a_compiler_is_one_line(tmp_path: Path) -> None:
    """The message names the program and Debian's package."""
    with pytest.raises(
        ReleaseError, match=r"^cc is missing\. On Debian and Ubuntu: apt-get install build-essential\.$"
    ):
        libjpeg_turbo.build(tmp_path / NAME, tmp_path)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only the x86-64 code needs an assembler")
def test_a_build_without_the_assembler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library without its assembler code would be several times as slow: it is not built."""
    (tmp_path / "cc").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReleaseError, match=r"^nasm is missing\. On Debian and Ubuntu: apt-get install nasm\.$"):
        libjpeg_turbo.build(tmp_path / NAME, tmp_path)


def test_a_build_takes_no_other_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive is compared once more before it is unpacked."""
    for name in ("cc", "nasm"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / NAME).write_bytes(b"changed meanwhile")
    with pytest.raises(ReleaseError, match="is not the archive of libjpeg-turbo"):
        libjpeg_turbo.build(tmp_path / NAME, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_the_pin_is_one_version_and_one_digest() -> None:
    """A new version needs its digest, and the licences that lie in the repository."""
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.\d+)?", libjpeg_turbo.VERSION)
    assert re.fullmatch(r"[0-9a-f]{64}", libjpeg_turbo.SHA256)
    assert f"/{libjpeg_turbo.VERSION}.tar.gz" in libjpeg_turbo._URL
    assert all((REPOSITORY / "third_party" / "libjpeg-turbo" / name).is_file() for name in libjpeg_turbo.LICENCES)
