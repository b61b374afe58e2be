"""URLs and storage options on the command line: where a URL is taken, and how others are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.commands import MODEL, Ended, expect_one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARTIAL = "--allow-partial"


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "shards", "-m", MODEL, "--cache", "s3://me:hidden@lab/x"],
        ["eval", "shards", "-m", MODEL, "--pixel-cache", "s3://me:hidden@lab/x"],
        ["eval", "shards", "-m", MODEL, "--pixel-cache", "s3:/lab/x"],
        ["eval", "shards", "-m", "s3://me:hidden@lab/model.pt2"],
        ["eval", "shards", "-m", "hf://me:hidden@USER/MODEL"],
        ["report", "shards", "-o", "s3://me:hidden@lab/table.md"],
        ["pack", "val.tar", "new", PARTIAL, "--real-json", "https://host/real.json?sig=hidden"],
        ["demo", "--keep", "s3://me:hidden@lab/x"],
    ],
)
def test_a_url_where_only_a_path_can_be_is_refused(here: Path, run: Callable[..., Ended], arguments: list[str]) -> None:
    """No folder of the URL's name is made, and the message shows no secret."""
    before = sorted(here.iterdir())
    ended = run(*arguments)
    assert ended.code == 2
    assert "URL" in ended.err
    assert "hidden" not in ended.err
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["eval", "shards", "-m", MODEL, "-o", "https://me:hidden@host/x"],
            "https://host/x: a web server can only be read",
        ),
        (["merge", "https://me:hidden@host/x"], "https://host/x: a web server can only be read"),
        (["merge", "s3://me:hidden@lab/x"], "no user and password in the URL of an object store"),
        (["eval", "shards", "-m", MODEL, "-o", "s3://lab/x?token=hidden"], "a ? in the URL of an object store"),
    ],
)
def test_an_output_that_no_run_can_write_to_is_refused(
    here: Path, run: Callable[..., Ended], arguments: list[str], words: str
) -> None:
    """Before anything is made or evaluated, in one line without secrets."""
    before = sorted(here.iterdir())
    ended = run(*arguments)
    expect_one_line(ended, 1, words)
    assert "hidden" not in ended.err
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "minio.lab:9000", "//127.0.0.1:1", "https:/h", "http://h:1/a b"]
)
def test_an_endpoint_that_is_no_url_is_refused(run: Callable[..., Ended], endpoint: str) -> None:
    """In one line that names the option."""
    ended = run("info", "s3://lab/set", "--storage-option", f"endpoint={endpoint}")
    expect_one_line(ended, 1, "storage option endpoint")


def test_a_misspelt_storage_option_gets_the_nearest_names(run: Callable[..., Ended]) -> None:
    """In one line, without its value."""
    ended = run("info", "s3://lab/set", "--storage-option", "regoin=hidden")
    expect_one_line(ended, 1, "regoin: no such storage option. Did you mean region")
    assert "hidden" not in ended.err
