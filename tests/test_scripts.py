"""The scripts that users copy, those that write bundled files, and the table of the benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from wds_real.packing.verification import verify
from wds_real.storage.local import LocalStore
from wds_real.synthetic import known_answer, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).parent.parent
TINY = REPOSITORY / "shards" / "tiny"


def run(*command: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], check=False, capture_output=True, text=True, cwd=REPOSITORY, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_write_shards_packs_and_verifies(made_tar: Path, packed: Path, tmp_path: Path) -> None:
    """scripts/write_shards.py writes a complete data set and reports no problems."""
    shown = run("scripts/write_shards.py", str(made_tar), str(tmp_path / "shards"), "--allow-partial")
    assert shown.startswith("120 samples, digest ")
    assert shown.endswith(" 0 problems\n")
    assert not verify(LocalStore(tmp_path / "shards"), level="decode").problems
    assert not verify(LocalStore(packed), level="quick").problems


def test_evaluate_gives_the_known_answer_under_torchrun(packed: Path) -> None:
    """scripts/evaluate.py on two processes prints one table with the known counts."""
    shown = run(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "scripts/evaluate.py", str(packed),
        "wds_real.synthetic:known_answer_model", "--batch-size", "16",
    )  # fmt: skip
    known = known_answer(labels_of(range(1, 121)))
    assert f" {known['real_top1']:,} /     {known['labelled']:,}" in shown
    assert shown.count("coverage: 120 expected, 120 seen once, 0 missing, 0 twice, 2 ranks") == 1


def test_the_tiny_set_is_small_and_reproducible(tmp_path: Path) -> None:
    """scripts/make_tiny.py writes shards/tiny again byte for byte; it is smaller than 300 KB."""
    run("scripts/make_tiny.py", str(tmp_path))
    committed = {path.name: path.read_bytes() for path in TINY.iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == committed
    assert sum(map(len, committed.values())) < 300_000


def test_the_tiny_set_has_all_kinds_of_labels() -> None:
    """shards/tiny has 60 valid samples, with empty ReaL lists and the longest one among them."""
    report = verify(LocalStore(TINY), level="decode")
    assert not report.problems
    assert (report.manifest.num_samples, report.manifest.partial) == (60, True)
    labels = json.loads((TINY / "index.json").read_text())["real_label"]
    assert {0, 1, 9} <= {len(entry) for entry in labels}


def test_rater_scores_are_reproducible(real_data: Callable[[str], Path]) -> None:
    """scripts/make_rater_scores.py writes the bundled file again byte for byte."""
    bundled = REPOSITORY / "wds_real" / "labels" / "data" / "rater_scores.npz"
    before = bundled.read_bytes()
    try:
        run("scripts/make_rater_scores.py", str(real_data("scores.npz")))
        assert bundled.read_bytes() == before
    finally:
        bundled.write_bytes(before)


def test_the_benchmark_table_shows_units_and_spreads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing is shown in seconds, loading in images/s; a spread is that of the ratio, or of a single value."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    from benchmarks.figures import Figure
    from benchmarks.report import Comparison, Measured, Pair, as_table
    from benchmarks.rows import Timing

    def measured(comparison: Comparison) -> Measured:
        rounds = [Pair(Timing(4000, 2.0), Timing(4000, 4.0)), Pair(Timing(4000, 2.0), Timing(4000, 2.5))]
        return Measured(comparison, rounds)

    loading, packing = Comparison("load", "limit", 0.7), Comparison("pack", "cp", 0.5, unit="s")
    memory = Figure("memory gained", 0.25, "MiB", 32, [0.125, 0.5, 0.25])
    table = as_table([measured(loading), measured(packing)], [memory], markdown=True)
    assert table.splitlines()[2:] == [
        "| load | images/s | 2,000 | limit | 1,300 | 1.62 | 1.25 .. 2.00 | >= 0.7 |  |",
        "| pack | s | 2 | cp | 3.25 | 0.65 | 0.50 .. 0.80 | <= 0.5 | missed |",
        "| memory gained | MiB | 0.25 |  |  |  | 0.125 .. 0.5 | <= 32 MiB |  |",
    ]


# --- check-accelerator ------------------------------------------------------------------------------------------------


@pytest.fixture
def accelerator_check(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """The main function of scripts/check_accelerator.py."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import check_accelerator

    return check_accelerator.main


@pytest.mark.parametrize(
    ("built_for", "says"),
    [
        (None, "was built for no accelerator (looked for CUDA, ROCm, XPU, MPS)"),
        ("cuda", "was built for cuda, and finds no such device"),
        ("xpu", "was built for xpu, and finds no such device"),
    ],
)
def test_without_an_accelerator_nothing_is_proved(
    built_for: str | None,
    says: str,
    accelerator_check: Callable[[list[str]], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line says what was looked for, and the exit code is neither that of success nor of failure."""

    def current_accelerator(check_available: bool = False) -> torch.device | None:
        return None if check_available or built_for is None else torch.device(built_for)

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current_accelerator)
    assert accelerator_check([]) == 77
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("not run: torch ")
    assert says in shown.err


def test_the_report_names_device_and_versions(
    accelerator_check: Callable[[list[str]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two devices of CUDA are shown with name and CUDA's version; Apple's, which has no properties, by its kind."""
    import check_accelerator

    properties = SimpleNamespace(get_device_properties=lambda _: SimpleNamespace(name="Some GPU 80GB"))
    monkeypatch.setattr(torch, "get_device_module", lambda one: properties if one.type == "cuda" else SimpleNamespace())
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    assert accelerator_check is check_accelerator.main
    assert check_accelerator.about(torch.device("cuda"))[1].startswith("2 x Some GPU 80GB (CUDA 12.9); ")
    assert check_accelerator.about(torch.device("mps"))[1].startswith("2 x mps (mps); ")
    assert f"torch {torch.__version__}" in check_accelerator.about(torch.device("mps"))[0]


def test_the_cpu_stands_in_where_it_is_asked_for() -> None:
    """--cpu runs the checks on the CPU, prints what each found, and says that this proves nothing of an accelerator."""
    shown = run("scripts/check_accelerator.py", "--cpu", "-k", "copies")
    assert "the CPU in place of an accelerator" in shown
    assert "This proves nothing about an accelerator." in shown
    lines = shown[shown.index("what was proved") :].splitlines()
    assert [line.split()[:3] for line in lines if " cpu " in line] == [
        ["copies", "to", "the"],
        ["copies", "of", "results"],
    ]
    assert "100 of 100 right" in shown


def test_a_check_that_fails_is_the_exit_code() -> None:
    """Where pytest fails, here because no test is chosen, the exit code is 1."""
    command = [sys.executable, "scripts/check_accelerator.py", "--cpu", "-k", "no_such_check"]
    assert subprocess.run(command, check=False, capture_output=True, cwd=REPOSITORY).returncode == 1


@pytest.mark.slow
def test_the_benchmark_runs() -> None:
    """scripts/bench.py --quick prints a line for each figure, and import time is not negative."""
    shown = run("scripts/bench.py", "--quick", "--markdown")
    values = {cells[1].strip(): cells[3].strip() for line in shown.splitlines() if len(cells := line.split("|")) > 8}
    assert float(values["import wds_real"]) > 0
    assert {"pack", "wds-real --help", "first batch after iter()", "undecoded, mmap, 2 threads"} <= values.keys()


@pytest.mark.usefixtures("s3")  # skipped, or an error, where there is no server
def test_an_output_in_s3_is_measured_against_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides evaluate every image in each round; requests and bytes of one evaluation are counted."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    from benchmarks.outputs import measure

    found = measure(tmp_path, samples=60, rounds=2, batch_size=20)
    assert [line.comparison.row for line in found.lines] == ["output in S3, by time", "output in S3, by CPU time"]
    assert [[pair.row.samples for pair in line.pairs] for line in found.lines] == [[60, 60]] * 2
    assert all(timing.seconds > 0 for line in found.lines for pair in line.pairs for timing in pair)
    written = {path.name: path.stat().st_size for path in (tmp_path / "run-0").rglob("*") if path.is_file()}
    assert found.requests["put"] == 6  # run.json twice, execution, records, predictions and result
    assert sum(written[name] for name in ("predictions.csv", "result.json")) < found.sent < 2 * sum(written.values())
    assert 0 < found.received < found.sent
    assert f"{sum(found.requests.values())} requests (" in str(found)


def test_a_wheel_is_measured_against_this_build(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each side uses the package of its own folder, loads every image in each round, and reports its CPU time too."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    from benchmarks.installations import compare

    wheel = tmp_path / "wds_real-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in sorted((REPOSITORY / "wds_real").rglob("*")):
            if path.suffix != ".pyc":
                archive.write(path, path.relative_to(REPOSITORY))
    lines, about, others = compare(wheel, packed, tmp_path / "wheel", rounds=2, batch_size=16, threads=1)
    assert [line.comparison.row for line in lines] == ["wheel, by time", "wheel, by CPU time"]
    assert [[pair.row.samples for pair in line.pairs] for line in lines] == [[120, 120]] * 2
    assert all(timing.seconds > 0 for line in lines for pair in line.pairs for timing in pair)
    assert [text.partition(" decodes ")[0] for text in about] == [
        str(tmp_path / "wheel" / "wds_real"), str(REPOSITORY / "wds_real")
    ]  # fmt: skip
    assert len(others) == 2


def test_a_wheel_that_cannot_be_imported_ends_the_measurement(packed: Path, tmp_path: Path) -> None:
    """A process that ends is an error, not a round without end."""
    from benchmarks.installations import Installation

    (tmp_path / "wds_real").mkdir()
    (tmp_path / "wds_real" / "__init__.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(RuntimeError, match=r"^the process that loads ended with exit code 3\.$"):
        Installation(tmp_path, packed, batch_size=16, threads=1)
