"""Two packers on one target at once: one packs a set that is right, and the other is refused."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support import SUPPORT

from wds_real.packing.verification import verify
from wds_real.storage.local import LocalStore
from wds_real.storage.store import open_store
from wds_real.synthetic import write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.s3 import S3Server

    from wds_real.storage.base import Store

NUMBERS = itertools.count()
REFUSED = re.compile(r"error: .*(is being written by pack \(process \d+ of |holds a finished set already)")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tars with other images under the same names."""
    folder = tmp_path_factory.mktemp("sources")
    paths = [folder / "a.tar", folder / "b.tar"]
    for number, path in enumerate(paths):
        write_source_tar(path, range(1, 31), side=48 + 8 * number)
    return paths


def run_pairs(folder: Path, jobs: list[list[str]], *, seed: int, count: int) -> list[dict[str, list[object]]]:
    """Run pairs of packers and return how each pair ended."""
    command = [sys.executable, str(SUPPORT / "packers.py"), str(seed), str(count), str(folder), *map(json.dumps, jobs)]
    environment = {**os.environ, "PYTHONPATH": f"{SUPPORT}:{SUPPORT.parent}"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=30 * count)
    assert done.returncode == 0, done.stderr
    pairs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(pairs) == count
    return pairs


def check_pairs(pairs: list[dict[str, list[object]]], open_target: Callable[[int], Store]) -> str:
    """Assert that each pair left one right set, of the packer that says so, and one refusal; return the counts."""
    meanwhile = 0
    for number, pair in enumerate(pairs):
        codes, printed = pair["codes"], [str(text) for text in pair["printed"]]
        winners = [text for code, text in zip(codes, printed, strict=True) if code == 0]
        refused = [text for code, text in zip(codes, printed, strict=True) if code == 1]
        assert len(winners) == 1, pair
        assert len(winners) + len(refused) == 2, pair
        assert all(REFUSED.search(text) for text in refused), refused
        report = verify(open_target(number))
        assert report.problems == (), pair
        assert f"digest {report.manifest.digest}" in winners[0], pair
        names = [*(shard.name for shard in report.manifest.shards), "index.json", "manifest.json"]
        assert open_target(number).list() == names
        meanwhile += "is being written by" in refused[0]
    assert meanwhile, "no two packers were at work at the same time"
    return (
        f"{len(pairs)} pairs, each with one right set and one refusal, {meanwhile} of these while the other one wrote"
    )


def folder_pairs(tmp_path: Path, sources: list[Path], *, count: int) -> str:
    jobs = [
        ["pack", str(source), str(tmp_path / "set-TARGET"), "--allow-partial", "--samples-per-shard", str(size)]
        for source, size in zip(sources, (5, 8), strict=True)
    ]
    pairs = run_pairs(tmp_path, jobs, seed=count, count=count)
    for number in range(count):
        hidden = [path.name for path in (tmp_path / f"set-{number}").iterdir() if path.name.startswith(".")]
        assert hidden == []
    return check_pairs(pairs, lambda number: LocalStore(tmp_path / f"set-{number}"))


def object_pairs(s3: S3Server, tmp_path: Path, sources: list[Path], *, count: int) -> str:
    prefix = f"s3://test/two-writers-{next(NUMBERS)}"
    options = [word for name, value in s3.options.items() for word in ("--storage-option", f"{name}={value}")]
    jobs = [
        ["pack", str(source), f"{prefix}/TARGET", "--allow-partial", "--samples-per-shard", str(size), *options]
        for source, size in zip(sources, (5, 8), strict=True)
    ]
    pairs = run_pairs(tmp_path, jobs, seed=count, count=count)
    return check_pairs(pairs, lambda number: open_store(f"{prefix}/{number}", storage_options=s3.options))


def test_of_two_packers_on_a_folder_one_is_refused(tmp_path: Path, sources: list[Path]) -> None:
    """The other one's set is right, and nothing else is left."""
    folder_pairs(tmp_path, sources, count=12)


def test_of_two_packers_on_an_object_store_one_is_refused(s3: S3Server, tmp_path: Path, sources: list[Path]) -> None:
    """The other one's set is right, and nothing else is left."""
    object_pairs(s3, tmp_path, sources, count=3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_two_packers_on_a_folder_one_is_refused_many_times(
    tmp_path: Path, sources: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two hundred pairs."""
    line = folder_pairs(tmp_path, sources, count=200)
    with capsys.disabled():
        sys.stdout.write(f"\nfolder: {line}\n")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_two_packers_on_an_object_store_one_is_refused_many_times(
    s3: S3Server, tmp_path: Path, sources: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty pairs."""
    line = object_pairs(s3, tmp_path, sources, count=40)
    with capsys.disabled():
        sys.stdout.write(f"\nobject store: {line}\n")
