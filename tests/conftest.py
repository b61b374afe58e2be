"""Data sets the tests share. Real images are used where they are; the tests that need them say why they skip."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.s3 import S3Server, seaweedfs, weed_binary

from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, one for each process of the test run; tests use prefixes of their own."""
    try:
        weed_binary()
    except RuntimeError as error:
        if sys.platform == "linux":
            raise  # it is among the packages for tests there: a missing one is a broken environment
        pytest.skip(str(error))
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test ask the machine's metadata service, or use the credentials of whoever runs it."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "GOOGLE_", "AZURE_"))]:
        monkeypatch.delenv(name)
    closed = "127.0.0.1:1"
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_METADATA_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        monkeypatch.setenv(name, f"http://{closed}")
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"):
        monkeypatch.setenv(name, closed)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)


@pytest.fixture
def _files_left_open() -> Iterator[None]:
    """Let the garbage collector close what webdataset leaves open, here and now, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
