"""Fixtures of all tests: data sets, the command line, an S3 server, an environment without launcher or cloud."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from support.commands import Ended
from support.s3 import S3Server, seaweedfs, weed_binary
from support.slurm import Cluster, cluster, missing_programs

from wds_real.cli.main import main
from wds_real.data import launchers
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A busy machine must not fail a test, neither in its examples nor while they are drawn.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_DATA = Path(os.environ.get("WDS_REAL_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


# What scripts/neighbours prints at the end, and scripts/check-accelerator ("proved"): a table for each kind of property
# that tests record.
_TABLES = {
    "neighbour": ("loops of other libraries", ("library", "version", "what was run", "data", "same integers as eval")),
    "launcher": ("recipes for clusters", ("engine", "version", "what was run", "what was compared", "equal")),
    "proved": ("what was proved", ("check", "device", "outcome")),
    "reader": ("other libraries on the shards", ("library", "version", "what was read", "samples", "equal bytes")),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which scripts/check-accelerator gets its report."""
    parser.addoption("--proved", action="store_true", help="print what the tests in tests/accelerator proved")


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return a function that finds a file of real images or labels by name, and skips the test if it is missing."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"{name} is not in {REAL_DATA} (set WDS_REAL_TEST_DATA to the folder that has it)")
        return path

    return find


@pytest.fixture(scope="session")
def made_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source tar with generated images under the first 120 validation names, unsorted like the official one."""
    path = tmp_path_factory.mktemp("source") / "ILSVRC2012_img_val.tar"
    write_source_tar(path, range(1, 121))
    return path


@pytest.fixture(scope="session")
def packed(made_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images packed, 50 per shard: two full shards and a short one. Read only."""
    root = tmp_path_factory.mktemp("packed")
    with open_source(made_tar, allow_partial=True) as source:
        write_shards(source, LocalStore(root), samples_per_shard=50)
    return root


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return a function that runs a command in this process; the test fails unless the command ends by sys.exit."""

    def command(*arguments: str | Path) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        assert isinstance(left.value.code, int)
        return Ended(left.value.code, *capfd.readouterr())

    return command


@pytest.fixture
def here(packed: Path, made_tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a packed data set in ``shards`` and its source in ``val.tar``."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(packed, "shards")
    shutil.copy(made_tar, "val.tar")
    return tmp_path


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the launchers' variables, so that no test inherits a rank."""
    for launcher in launchers._INDEPENDENT:
        for name in filter(None, (launcher.rank, launcher.world_size, *launcher.local, *launcher.span)):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GROUP_WORLD_SIZE", raising=False)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, one per process of the test run; each test uses its own prefix."""
    try:
        weed_binary()
    except RuntimeError as error:
        if sys.platform == "linux":
            raise  # on Linux it is among the packages for tests, so its absence is an error
        pytest.skip(str(error))
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real SLURM cluster of two nodes, one per process of the test run; each test waits for its own jobs."""
    reason = missing_programs()
    if reason:
        pytest.skip(reason)
    with cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from metadata services and from the credentials of the user who runs them."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "GOOGLE_", "AZURE_", "HF_"))]:
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
    """Collect the files that webdataset leaves open at the end of the test, without their warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts of the campaigns, and the tables of the neighbours and of an accelerator."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    lines = [str(value) for report in reports for name, value in report.user_properties if name == "counts"]
    if lines:
        terminalreporter.section("counts of the campaigns")
        for line in dict.fromkeys(lines):
            terminalreporter.write_line(line)
    for kind, (title, header) in _TABLES.items():
        rows = [value for report in reports for name, value in report.user_properties if name == kind]
        if not rows or (kind == "proved" and not terminalreporter.config.getoption("--proved")):
            continue
        terminalreporter.section(title)
        table = [header, *rows]
        widths = [max(len(str(row[place])) for row in table) for place in range(len(header))]
        for row in table:
            cells = (str(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
            terminalreporter.write_line("  ".join(cells).rstrip())
