"""A folder to serve, and a server of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.http_server import HttpServer, http_server
from support.raw_client import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "data").write_bytes(DATA)
    (tmp_path / "site" / "a name.bin").write_bytes(b"named")
    (tmp_path / "site" / "empty").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"not served")
    return tmp_path / "site"


@pytest.fixture
def site(folder: Path) -> Iterator[HttpServer]:
    with http_server(folder) as server:
        yield server
