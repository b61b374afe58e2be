"""Paths and URLs of prediction files: names, parents, what is shown of them, and reading at any position."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.http_server import http_server

from wds_real.errors import MissingError, PredictionsError, StoreError
from wds_real.scoring.reading.places import check_place, is_remote, name_of, opened, parent_of, shown
from wds_real.storage.store import open_store
from wds_real.storage.url import join_url

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = itertools.count()
SIGNED = "https://me:hidden@host:8443/run%201/a%20b.csv?X-Amz-Signature=hidden&x=1"


@pytest.mark.parametrize(
    ("place", "parent", "name", "said"),
    [
        ("run/a.csv", Path("run"), "a.csv", "run/a.csv"),
        (Path("a.csv"), Path(), "a.csv", "a.csv"),
        ("s3://lab/run/a.csv", "s3://lab/run", "a.csv", "s3://lab/run/a.csv"),
        ("s3://lab/a.csv", "s3://lab", "a.csv", "s3://lab/a.csv"),
        ("s3://lab/run.v2/", "s3://lab", "run.v2", "s3://lab/run.v2"),
        ("gs://lab/50%25/a#1.csv", "gs://lab/50%25", "a#1.csv", "gs://lab/50%25/a#1.csv"),
        ("hf://datasets/me/set@v1/a.csv", "hf://datasets/me/set@v1", "a.csv", "hf://datasets/me/set@v1/a.csv"),
        (SIGNED, "https://me:hidden@host:8443/run%201?X-Amz-Signature=hidden&x=1", "a b.csv",
         "https://host:8443/run%201/a%20b.csv"),
    ],
)  # fmt: skip
def test_a_place_has_a_parent_and_a_name(place: str | Path, parent: str | Path, name: str, said: str) -> None:
    """Of a web server's URL, the name is decoded and the query stays with the parent; no secret is shown."""
    assert (parent_of(place), name_of(place), shown(place)) == (parent, name, said)
    if is_remote(place) and not str(place).endswith("/"):
        assert join_url(str(parent_of(place)), name_of(place)) == place


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("s3:/lab/a.csv", "not a URL. Write s3://"),
        (Path("s3://lab/a.csv"), "in Python give a str, not a Path"),
        ("s3://lab/a.csv?X-Amz-Signature=hidden", "a . in the URL of an object store is not taken"),
        ("ftp://host/a.csv", "no such kind of store"),
        ("http://other.example/a.csv", "allow_http=true"),
        ("s3://lab//a.csv", "cannot be part of a key"),
    ],
)
def test_what_is_no_place_is_refused_before_a_request(place: str | Path, words: str) -> None:
    """In words, without what may be a secret."""
    with pytest.raises(StoreError, match=words) as caught:
        check_place(place, None)
    assert "hidden" not in str(caught.value)


def test_options_are_for_urls(tmp_path: Path) -> None:
    """A path that stands beside a URL is read without them; a URL refuses those that it does not know."""
    check_place(tmp_path, {"region": "eu-west-1"})
    with pytest.raises(StoreError, match="regoin: no such storage option"):
        check_place("s3://lab/a.csv", {"regoin": "hidden"})


@pytest.fixture(params=["path", "memory", "web", "web without ranges"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | Path]:
    """A file of ten bytes in a folder, in memory and on web servers."""
    (tmp_path / "a b.csv").write_bytes(b"0123456789")
    if request.param == "path":
        yield tmp_path / "a b.csv"
    elif request.param == "memory":
        url = f"memory://places-{next(NUMBERS)}/run"
        open_store(url).put("a b.csv", b"0123456789")
        yield f"{url}/a b.csv"
    else:
        with http_server(tmp_path, ranges=request.param == "web") as web:
            yield f"{web.endpoint}/a%20b.csv?sig=hidden"


def test_a_file_is_read_at_any_position(place: str | Path) -> None:
    """As zip and Parquet files need; it has a length, and ends where it ends."""
    with opened(place, storage_options=None, max_bytes=10) as file:
        assert file.read(3) == b"012"
        assert file.seek(-2, 2) == 8
        assert file.read() == b"89"
        file.seek(0)
        assert file.read() == b"0123456789"


def test_a_file_has_a_largest_length(place: str | Path) -> None:
    """What is larger is refused, with both numbers."""
    with (
        pytest.raises((PredictionsError, StoreError), match="has 10 bytes, expected at most 9"),
        opened(place, storage_options=None, max_bytes=9),
    ):
        pass


def test_a_missing_file_is_missing(place: str | Path) -> None:
    """At a path it is the system's error, at a URL a MissingError without the query."""
    folder = parent_of(place)
    other = folder / "b.csv" if isinstance(folder, Path) else join_url(folder, "b.csv")
    with (
        pytest.raises((FileNotFoundError, MissingError)) as caught,
        opened(other, storage_options=None, max_bytes=9),
    ):
        pass
    assert "hidden" not in str(caught.value)
