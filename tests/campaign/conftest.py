"""Small sets to damage, and the counts of the campaigns."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.tally import Tally, tallied

from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """Log nothing: pytest keeps the records, and with them the errors of each attempt and the files that these hold."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str], AbstractContextManager[Tally]]:
    """Return a function that makes a `Tally` with a title; its counts are printed at the end of the test run."""
    return lambda title: tallied(title, record_property)


@pytest.fixture(scope="session")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source tar of 20 members, all of them small images. Read only."""
    path = tmp_path_factory.mktemp("twenty") / "val.tar"
    write_source_tar(path, range(1, 21), side=16)
    return path


@pytest.fixture
def shard_of_twenty(twenty: Path, tmp_path: Path) -> Path:
    """A set of one shard with 20 members: ten images and their labels."""
    root = tmp_path / "set"
    with open_source(twenty, allow_partial=True) as source:
        source.images = source.images[:10]
        write_shards(source, LocalStore(root))
    return root


@pytest.fixture
def copy_of_twenty(twenty: Path, tmp_path: Path) -> Path:
    """A copy of the source tar, to be damaged."""
    return Path(shutil.copy(twenty, tmp_path / "val.tar"))
