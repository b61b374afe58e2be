"""The scripts people copy, and the one that makes the tiny set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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
    """scripts/write_shards.py writes a whole set and says so."""
    shown = run("scripts/write_shards.py", str(made_tar), str(tmp_path / "shards"), "--allow-partial")
    assert shown.startswith("120 samples, digest ")
    assert shown.endswith(" 0 problems\n")
    assert not verify(LocalStore(tmp_path / "shards"), level="decode").problems
    assert not verify(LocalStore(packed), level="quick").problems


def test_evaluate_gives_the_known_answer_under_torchrun(packed: Path) -> None:
    """scripts/evaluate.py, run by two processes, prints one table with the known counts."""
    shown = run(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "scripts/evaluate.py", str(packed),
        "wds_real.synthetic:known_answer_model", "--batch-size", "16",
    )  # fmt: skip
    known = known_answer(labels_of(range(1, 121)))
    assert f" {known['real_top1']:,} /     {known['labelled']:,}" in shown
    assert shown.count("coverage: 120 expected, 120 seen once, 0 missing, 0 twice, 2 ranks") == 1


def test_the_tiny_set_is_small_and_made_again_byte_for_byte(tmp_path: Path) -> None:
    """shards/tiny is what scripts/make_tiny.py makes, and stays under 300 KB."""
    run("scripts/make_tiny.py", str(tmp_path))
    committed = {path.name: path.read_bytes() for path in TINY.iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == committed
    assert sum(map(len, committed.values())) < 300_000


def test_the_tiny_set_holds_what_its_card_says() -> None:
    """60 samples, whole, with empty ReaL lists and with the longest one."""
    report = verify(LocalStore(TINY), level="decode")
    assert not report.problems
    assert (report.manifest.num_samples, report.manifest.partial) == (60, True)
    labels = json.loads((TINY / "index.json").read_text())["real_label"]
    assert {0, 1, 9} <= {len(entry) for entry in labels}


def test_rater_scores_are_made_from_the_released_ones(real_data: Callable[[str], Path]) -> None:
    """scripts/make_rater_scores.py gives the bundled file again, byte for byte."""
    bundled = REPOSITORY / "wds_real" / "labels" / "data" / "rater_scores.npz"
    before = bundled.read_bytes()
    try:
        run("scripts/make_rater_scores.py", str(real_data("scores.npz")))
        assert bundled.read_bytes() == before
    finally:
        bundled.write_bytes(before)
