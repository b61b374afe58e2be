"""`wds-real explore`: what it writes and serves, and what it refuses."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from support.explorer import data_of, made_predictions

from wds_real.cli.commands.explore import _repeated
from wds_real.explore.page.content import Content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.commands import Ended


@pytest.fixture
def files(here: Path) -> list[str]:
    """Two prediction files of all validation images."""
    content = Content.of_labels()
    for seed, name in enumerate(("a.csv", "b.csv"), 1):
        (here / name).write_bytes(made_predictions(content, right=0.6, seed=seed).encode())
    return ["a.csv", "b.csv"]


def page_of(here: Path, folder: str = "page") -> bytes:
    return (here / folder / "index.html").read_bytes()


def test_a_page_is_written(run: Callable[..., Ended], here: Path, files: list[str]) -> None:
    """Several files may follow --predictions; the page has their models and the data set's images."""
    ended = run("explore", "shards", "--predictions", *files, "-o", "page")
    assert ended.code == 0
    assert "wrote page/index.html: 120 images, 2 models, " in ended.err
    header, columns = data_of(page_of(here))
    assert [model["name"] for model in header["models"]] == ["a", "b"]
    assert len(columns["offset"]) == 120
    assert b'<meta name="shards" content="../shards">' in page_of(here)
    assert run("explore", "shards", "-o", "page").code == 0  # a page of ours is replaced


def test_without_root_all_validation_images_are_shown(run: Callable[..., Ended], here: Path, files: list[str]) -> None:
    """Labels and predictions alone make a page without images."""
    ended = run("explore", "--predictions", files[0], "-o", "page")
    assert (ended.code, "50,000 images, 1 model" in ended.err) == (0, True)
    header, _ = data_of(page_of(here))
    assert header["shards"] is None
    assert b'<meta name="shards" content="">' in page_of(here)


def test_options_choose_the_start(run: Callable[..., Ended], here: Path, files: list[str]) -> None:
    """--threshold sets where the slider starts, --shards-url where browsers find the shards."""
    arguments = ("--threshold", "0.5", "--shards-url", "https://host/data/", "--predictions", files[0])
    assert run("explore", "shards", *arguments, "-o", "page").code == 0
    assert data_of(page_of(here))[0]["threshold"] == 500
    assert b'<meta name="shards" content="https://host/data">' in page_of(here)


def test_equal_names_get_numbers(run: Callable[..., Ended], here: Path, files: list[str]) -> None:
    """Two files of one name are two models."""
    (here / "other").mkdir()
    shutil.copy(files[0], here / "other" / "a.csv")
    assert run("explore", "shards", "--predictions", "a.csv", "other/a.csv", "-o", "page").code == 0
    assert [model["name"] for model in data_of(page_of(here))[0]["models"]] == ["a", "a (2)"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("shards",), 2, "nothing to do. Write the page with -o DIR, or show it with --serve."),
        (("shards", "--real-json", "x.json", "-o", "page"), 2, "--real-json is for a page without ROOT"),
        (("--shards-url", "https://h", "-o", "page"), 2, "--shards-url is for a page that is written"),
        (("shards", "--shards-url", "https://h", "--serve", "0"), 2, "--shards-url is for a page that is written"),
        (("shards", "--shards-url", "https://me:x@h", "-o", "page"), 1, "holds a user name, a password or a query"),
        (("shards", "--threshold", "0.12345", "-o", "page"), 1, "at most three decimals"),
        (("missing", "-o", "page"), 1, "no such folder"),
        (("shards", "--predictions", "missing.csv", "-o", "page"), 1, "missing.csv"),
        (("shards", "-o", "s3://bucket/page"), 2, "is a URL, expected a path on this machine"),
        (("shards", "-o", "val.tar"), 1, "val.tar/index.html: cannot be written"),
        (("shards", "--serve", "70000"), 2, "70000"),
    ],
)
@pytest.mark.usefixtures("here")
def test_wrong_use_is_refused(run: Callable[..., Ended], arguments: tuple[str, ...], status: int, message: str) -> None:
    """Each mistake has its message and exit code."""
    ended = run("explore", *arguments)
    assert (ended.code, message in ended.err.replace("\n", " ")) == (status, True), ended.err


def test_another_file_is_not_replaced(run: Callable[..., Ended], here: Path) -> None:
    """A page of somebody else stays."""
    (here / "page").mkdir()
    (here / "page" / "index.html").write_text("<title>mine</title>")
    ended = run("explore", "shards", "-o", "page")
    assert ended.code == 1
    assert "page/index.html: exists, and is not a page of wds-real" in ended.err
    assert page_of(here) == b"<title>mine</title>"


def test_missing_predictions_are_refused_unless_allowed(run: Callable[..., Ended], here: Path) -> None:
    """A file of some of the images needs --allow-partial; the exit code is that of score."""
    content = Content.of_labels()
    (here / "some.csv").write_bytes(made_predictions(content, right=0.6, seed=1, rows=range(50)).encode())
    ended = run("explore", "shards", "--predictions", "some.csv", "-o", "page")
    assert (ended.code, "70 of 120 images have no prediction" in ended.err) == (3, True)
    assert run("explore", "shards", "--predictions", "some.csv", "--allow-partial", "-o", "page").code == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--predictions", "a", "b", "--serve"], ["--predictions", "a", "--predictions", "b", "--serve"]),
        (["r", "--predictions", "a", "-o", "d", "x"], ["r", "--predictions", "a", "-o", "d", "x"]),
        (["--predictions=a", "b"], ["--predictions=a", "b"]),
        ([], []),
    ],
)
def test_files_follow_predictions(given: list[str], expected: list[str]) -> None:
    """Only files directly behind --predictions are taken for predictions."""
    assert _repeated(given) == expected


def test_the_page_is_served_until_interrupted(here: Path) -> None:
    """--serve shows page and shards on this machine, and Ctrl-C ends it with exit code 130."""
    command = [sys.executable, "-m", "wds_real", "explore", "shards", "--serve", "0"]
    with subprocess.Popen(command, cwd=here, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        try:
            url = said.split()[1]
            assert said == f"serving {url} on this machine only; Ctrl-C ends it\n"
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
            connection.request("GET", "/")
            header, columns = data_of(connection.getresponse().read())
            shard = header["shards"][0]["name"]
            start, length = int(columns["offset"][0]), int(columns["num_bytes"][0])
            connection.request("GET", f"/shards/{shard}", headers={"Range": f"bytes={start}-{start + length - 1}"})
            body = connection.getresponse().read()
            assert (body[:2], len(body)) == (b"\xff\xd8", length)
            connection.close()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "the page is no longer served" in process.stderr.read()
