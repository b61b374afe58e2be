"""Data sets the tests share. Real images are used where they are; the tests that need them say why they skip."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wds_real.source import open_source
from wds_real.store import LocalStore
from wds_real.synthetic import write_source_tar
from wds_real.writer import write_shards

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_DATA = Path(os.environ.get("WDS_REAL_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return a function that gives the path of a file of real images or labels, or skips the test."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"{name} is not in {REAL_DATA} (set WDS_REAL_TEST_DATA to the folder that has it)")
        return path

    return find


@pytest.fixture(scope="session")
def made_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up source tar of the first 120 validation images, unsorted like the official one."""
    path = tmp_path_factory.mktemp("source") / "ILSVRC2012_img_val.tar"
    write_source_tar(path, range(1, 121))
    return path


@pytest.fixture(scope="session")
def packed(made_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images packed, 50 samples a shard: two full shards and a short one. Read only."""
    root = tmp_path_factory.mktemp("packed")
    with open_source(made_tar, allow_partial=True) as source:
        write_shards(source, LocalStore(root), samples_per_shard=50)
    return root


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test inherit a rank from the environment it is run in."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
