"""Loops of other libraries: what the page says works as it stands, and an error names the setting that is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.environments import FAST

from wds_real.errors import CoverageError
from wds_real.evaluation.loop_advice import loop_advice

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "own-loop.md").read_text("utf-8")
STAND_INS = REPOSITORY / "tests" / "support" / "stand_ins"

needs_accelerate = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed"
)


def blocks(library: str) -> list[str]:
    """Return the page's blocks for a library."""
    return re.findall(rf"<!-- needs: {library} -->\n```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(REPOSITORY / "shards" / "tiny", tmp_path / "shards")
    return tmp_path


def ended(code: str, folder: Path, *launcher: str, stand_in: bool = False) -> subprocess.CompletedProcess[str]:
    (folder / "loop.py").write_text(code)
    paths = [str(REPOSITORY), *([str(STAND_INS)] if stand_in else [])]
    return subprocess.run(
        [sys.executable, "-W", "ignore", *launcher, "loop.py"],
        check=False, capture_output=True, text=True, cwd=folder, timeout=240,
        env={**os.environ, **FAST, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip


def fitted(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block for Lightning, with the stand-in of the tests where Lightning is not installed."""
    return ended(code, folder, stand_in=importlib.util.find_spec("lightning") is None)


def message(done: subprocess.CompletedProcess[str]) -> str:
    """Return the message of the CoverageError that a loop ended with; tracebacks name the same settings."""
    assert done.returncode != 0
    return done.stderr.rsplit("CoverageError: ", 1)[1]


def test_the_pages_lightning_module_validates_each_epoch_exactly_once(folder: Path) -> None:
    """Word for word, over two epochs of training: two results, each of all 60 images."""
    code = blocks("lightning")[1]
    done = fitted(code, folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("60 expected, 60 seen once, 0 missing, 0 twice") == 2


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        ("    num_sanity_val_steps=0,\n", ["num_sanity_val_steps=0", "reset()", "20 missing, 0 doubled"]),
        ("        self.metric.reset()\n", ["reset()", "0 missing, 60 doubled"]),
    ],
)
def test_a_setting_that_is_left_out_is_named_by_the_error(folder: Path, left_out: str, words: list[str]) -> None:
    """Without one of the page's lines the loop ends with a CoverageError that says what to add."""
    code = blocks("lightning")[1]
    assert left_out in code
    said = message(fitted(code.replace(left_out, ""), folder))
    assert [word for word in words if word not in said] == []


def test_reset_alone_does_not_survive_the_sanity_check(folder: Path) -> None:
    """A metric that is reset in the right place fails before the first epoch, with both remedies in one message."""
    code = blocks("lightning")[1]
    said = message(fitted(code.replace("num_sanity_val_steps=0", "num_sanity_val_steps=1"), folder))
    assert "saw 20 of 60 samples" in said
    assert "Trainer(num_sanity_val_steps=0)" in said


@needs_accelerate
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("place", [0, 1])
def test_the_pages_accelerate_loops_see_each_image_once(folder: Path, place: int, ranks: int) -> None:
    """A `Loader` and a `DataLoader` that went through prepare() give all 60 images, on one process and on two."""
    code = blocks("accelerate")[place].replace("Accelerator(", "Accelerator(cpu=True, ", 1)
    launcher = () if ranks == 1 else ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = ended(code, folder, *launcher)
    assert done.returncode == 0, done.stderr
    assert "60 expected, 60 seen once, 0 missing, 0 twice" in done.stdout


@needs_accelerate
def test_accelerates_padding_is_named_by_the_error(folder: Path) -> None:
    """With even_batches as it is by default, two processes see images twice; the error names the setting."""
    code = blocks("accelerate")[1].replace("Accelerator(dataloader_config=exact)", "Accelerator(cpu=True)")
    done = ended(code, folder, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert done.returncode != 0
    assert "DataLoaderConfiguration(even_batches=False)" in done.stderr


@pytest.mark.parametrize(
    ("modules", "error", "gathered", "expected"),
    [
        ([], CoverageError("", missing=["a"]), False, []),
        ([], CoverageError("", doubled=["a"]), False, ["Call reset()"]),
        ([], CoverageError("", doubled=["a"]), True, ["Call reset()", "Give update()"]),
        (["lightning"], CoverageError("", missing=["a"]), False, ["Lightning's sanity check"]),
        (["pytorch_lightning"], CoverageError("", doubled=["a"]), False, ["Call reset()", "Lightning's sampler"]),
        (["accelerate"], CoverageError("", missing=["a"]), False, []),
        (["accelerate"], CoverageError("", doubled=["a"]), False, ["Call reset()", "Accelerate's prepare()"]),
    ],
)
def test_advice_is_of_the_libraries_that_are_loaded(
    monkeypatch: pytest.MonkeyPatch, modules: list[str], error: CoverageError, gathered: bool, expected: list[str]
) -> None:
    """Each sentence has its cause: the library is imported, and images are missing or doubled."""
    for name in ("lightning", "pytorch_lightning", "accelerate"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, sys)
    starts = (
        "Call reset()",
        "Give update()",
        "Lightning's sanity check",
        "Lightning's sampler",
        "Accelerate's prepare()",
    )
    advice = loop_advice(error, gathered=gathered)
    assert [start for start in starts if start in advice] == expected
    assert bool(advice) == bool(expected)
