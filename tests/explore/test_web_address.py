"""Where browsers find the shards of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wds_real.explore.page.web_address import web_address

if TYPE_CHECKING:
    from pathlib import Path


def test_folders_are_addressed_from_the_page(tmp_path: Path) -> None:
    """A local data set is addressed relative to the page, with characters escaped."""
    page, shards = tmp_path / "site" / "page", tmp_path / "my shards#1"
    assert web_address(str(shards), str(page), {}) == "../../my%20shards%231"
    assert web_address(str(page), str(page), {}) == "."
    assert web_address(str(shards), None, {}) is None


@pytest.mark.parametrize(
    ("root", "options", "expected"),
    [
        ("https://host/a/b", {}, "https://host/a/b"),
        ("s3://lab/real", {}, "https://lab.s3.us-east-1.amazonaws.com/real"),
        ("s3://lab/real", {"region": "eu-west-1"}, "https://lab.s3.eu-west-1.amazonaws.com/real"),
        ("s3://lab.org/real", {}, "https://s3.us-east-1.amazonaws.com/lab.org/real"),
        ("s3://lab", {"endpoint": "https://minio.lab:9000/"}, "https://minio.lab:9000/lab"),
        ("s3://lab/a b", {"endpoint": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000/lab/a%20b"),
        ("gs://lab/real", {}, "https://storage.googleapis.com/lab/real"),
        ("memory://x", {}, None),
    ],
)
def test_buckets_have_web_addresses(root: str, options: dict[str, str], expected: str | None) -> None:
    """Of an object store, the address at which it serves public objects."""
    assert web_address(root, "page", options) == expected
