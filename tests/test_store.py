"""open_store: a path is a folder, a URL is an object store or a web server, and anything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from wds_real.errors import StoreError
from wds_real.store import open_store


def test_a_path_opens_a_folder(tmp_path: Path) -> None:
    """Text and path objects name the same store, which remembers the path as given."""
    open_store(tmp_path / "x").put("a", b"1")
    assert open_store(str(tmp_path / "x")).get("a") == b"1"
    assert open_store("shards").url == open_store(Path("shards")).url == "shards"


def test_a_folder_takes_no_storage_options(tmp_path: Path) -> None:
    """An option that would have no effect is an error."""
    with pytest.raises(StoreError, match="a folder takes none"):
        open_store(tmp_path, storage_options={"region": "x"})


@pytest.mark.parametrize("url", ["ftp://key:secret@lab/set?token=secret", "hdfs://host/x?sig=secret", "S4://lab/x"])
def test_a_url_of_an_unknown_kind_is_refused_without_showing_it(url: str) -> None:
    """No URL is mistaken for a folder; the error names the scheme and nothing that may be secret."""
    with pytest.raises(StoreError, match="no such kind of store") as caught:
        open_store(url)
    assert str(caught.value).lower().startswith(url.lower().split("//")[0])
    assert "secret" not in str(caught.value)
