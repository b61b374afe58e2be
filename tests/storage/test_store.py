"""open_store: a path opens a folder, a URL an object store or a web server."""

from __future__ import annotations

from pathlib import Path

import pytest

from wds_real.errors import StoreError
from wds_real.storage.store import open_store


def test_a_path_opens_a_folder(tmp_path: Path) -> None:
    """Text and path objects open the same store; its `url` is the path as given."""
    open_store(tmp_path / "x").put("a", b"1")
    assert open_store(str(tmp_path / "x")).get("a") == b"1"
    assert open_store("shards").url == open_store(Path("shards")).url == "shards"


def test_a_folder_takes_no_storage_options(tmp_path: Path) -> None:
    """An option that would have no effect is an error."""
    with pytest.raises(StoreError, match="a folder takes none"):
        open_store(tmp_path, storage_options={"region": "x"})


@pytest.mark.parametrize("url", ["ftp://key:secret@lab/set?token=secret", "hdfs://host/x?sig=secret", "S4://lab/x"])
def test_an_unknown_url_scheme_is_an_error(url: str) -> None:
    """The error names the scheme, and no part of the URL that may be secret."""
    with pytest.raises(StoreError, match="no such kind of store") as caught:
        open_store(url)
    assert str(caught.value).lower().startswith(url.lower().split("//")[0])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "listable"),
    [("s3://lab/set", True), ("gs://lab/set", True), ("memory://set", True), ("https://host/set", False)],
)
def test_a_url_opens_a_remote_store(url: str, *, listable: bool) -> None:
    """No request is made yet; only web servers have no listing."""
    store = open_store(url)
    assert (store.url, store.remote, store.listable, store.file_reader) == (url, True, listable, None)
