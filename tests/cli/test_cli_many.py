"""``wds-real eval`` with several models: the table, a folder each, a line for each failure, and what goes together."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from support.commands import MODEL, Ended, expect_one_line, messages

from wds_real.synthetic import known_answer, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Ended]

MODELS = """
import torch
from wds_real import EvalTransform
from wds_real.synthetic import KnownAnswerModel, known_answer_model

TRANSFORM = known_answer_model()[1]

class Constant(torch.nn.Module):
    def forward(self, image):
        scores = torch.zeros(len(image), 1000)
        scores[:, 65] = 1
        return scores

class Late(KnownAnswerModel):
    calls = 0
    def forward(self, image):
        self.calls += 1
        if self.calls == 3:
            raise ValueError("third batch")
        return super().forward(image)

class Biased(KnownAnswerModel):
    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1000))
    def forward(self, image):
        return super().forward(image) + self.bias

def biased(): return Biased(), TRANSFORM
def good(): return KnownAnswerModel(), TRANSFORM
def constant(): return Constant(), TRANSFORM
def late(): return Late(), TRANSFORM
def few(): return lambda image: image.mean((2, 3)), TRANSFORM
def raises(): raise OSError("no checkpoint")
"""
EVAL = ["eval", "shards", "-b", "32", "-j", "1", "--device", "cpu", "-q"]
CORRECT = known_answer(labels_of(range(1, 121)))["real_top1"]


@pytest.fixture
def models(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with shards and my_models.py."""
    (here / "my_models.py").write_text(MODELS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return here


def folders(output: Path) -> dict[str, set[str]]:
    return {
        folder.name: {path.name for path in folder.iterdir()} - {"records", ".wds_real.lock"}
        for folder in output.iterdir()
    }


def test_models_get_a_row_and_a_folder_each(run: Run, models: Path) -> None:
    """The table is sorted by ReaL top-1; each folder holds what a run alone writes."""
    ended = run(*EVAL, "-m", "my_models:constant", "-m", "my_models:good", "-o", "out")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split()[:2] == ["rank", "model"]
    assert [line.split()[1] for line in lines[1:3]] == ["my_models:good", "my_models:constant"]
    assert " coverage: 120 expected, 120 seen once, 0 missing, 0 twice, 1 rank" in lines
    assert lines[-1] == "wrote result.json and predictions.csv of 2 models to out"
    written = {"run.json", "result.json", "predictions.csv"}
    assert folders(models / "out") == {"my_models-constant": written, "my_models-good": written}
    assert run(*EVAL, "-m", "my_models:good", "-o", "alone").code == 0
    predictions = [Path(folder, "predictions.csv").read_bytes() for folder in ("alone", "out/my_models-good")]
    assert predictions[0] == predictions[1]


def test_a_failed_model_is_a_line_and_the_rest_goes_on(run: Run, models: Path) -> None:
    """Exit code 1 and one line for each failure, also in its folder; after a repair the same command does the rest."""
    names = ["my_models:good", "my_models:raises", "my_models:few", "my_models:late", "my_models:absent"]
    ended = run(*EVAL, *(part for name in names for part in ("-m", name)), "-o", "out")
    assert ended.code == 1
    lines = messages(ended.err)
    assert len(lines) == 4
    for line, words in zip(
        lines, ["OSError: no checkpoint", "has 3 outputs", "ValueError: third batch", "'absent'"], strict=True
    ):
        assert line.startswith("error: ")
        assert words in line
    assert [line for line in ended.out.splitlines() if "my_models:" in line] == [
        line for line in ended.out.splitlines() if "my_models:good" in line
    ]
    found = folders(models / "out")
    assert [name for name, inside in found.items() if "failed.json" in inside] == [
        name for name in found if name != "my_models-good"
    ]
    Path("my_models.py").write_text(
        MODELS.replace("raise ValueError", "str").replace('raise OSError("no', 'return good() and ("no')
    )
    code = "import sys; from wds_real.cli.main import main; main(sys.argv[1:])"
    arguments = [*EVAL, "-m", "my_models:good", "-m", "my_models:late", "-o", "out", "--skip-existing"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " 1 model had a result before, and was not run" in done.stdout
    assert "failed.json" not in folders(models / "out")["my_models-late"]


@pytest.mark.parametrize("options", [["--crop-pct", "0.5"], ["--mean", "0", "0", "0"], ["--interpolation", "nearest"]])
def test_an_existing_result_of_other_preprocessing_is_not_taken(run: Run, models: Path, options: list[str]) -> None:
    """Neither with options that the result is without, nor without those that it has; the folder is refused."""
    del models
    named = [*EVAL, "-m", "my_models:good", "-m", MODEL]
    for name, made, asked in (("plain", [], options), ("changed", options, [])):
        assert run(*named, "-o", name, *made).code == 0
        assert " 2 models had a result before" in run(*named, "-o", name, *made, "--skip-existing").out
        ended = run(*named, "-o", name, *asked, "--skip-existing")
        assert ended.code == 1
        assert ended.err.count("another run: preprocessing.") == 2
        assert "had a result before" not in ended.out


def test_json_is_a_list(run: Run, models: Path) -> None:
    """One object a model, in the order given: its result, or its error."""
    del models
    ended = run(*EVAL, "-m", "my_models:good", "-m", "my_models:raises", "--json")
    assert ended.code == 1
    first, second = json.loads(ended.out)
    assert (first["name"], first["existed"]) == ("my_models:good", False)
    assert first["result"]["accuracy"]["real_top1"]["correct"] == CORRECT
    assert second == {"name": "my_models:raises", "error": second["error"]}
    assert "no checkpoint" in second["error"]


def test_lists_and_folders_name_models(run: Run, models: Path) -> None:
    """A list with one model is still a list: its model gets a folder of its own."""
    Path("models.txt").write_text("# mine\nmy_models:good\n")
    assert run(*EVAL, "-m", "@models.txt", "-o", "out").code == 0
    assert set(folders(models / "out")) == {"my_models-good"}
    Path("bad.txt").write_text("my_models:good\n\nmy_models:raises # later\n")
    ended = run(*EVAL, "-m", "@bad.txt")
    assert ended.code == 1
    [line] = messages(ended.err)
    assert line.startswith("error: bad.txt:3: my_models:raises: ")


def test_a_folder_of_checkpoints_is_a_model_for_each_file(run: Run, models: Path) -> None:
    """Each file has a row, a folder and its own weights; a broken one fails alone; a run alone has the same bytes."""
    (models / "epochs").mkdir()
    for epoch, bias in (("1", torch.zeros(1000)), ("2", torch.arange(1000) / 10)):
        torch.save({"state_dict": {"bias": bias}}, models / "epochs" / f"epoch-{epoch}.pth")
    (models / "epochs" / "epoch-3.pth").write_bytes(b"PK\x03\x04 torn")
    (models / "epochs" / "args.yaml").touch()
    ended = run(*EVAL, "-m", "my_models:biased", "--checkpoint", "epochs", "-o", "out")
    assert ended.code == 1
    [line] = messages(ended.err)
    assert "epoch-3.pth" in line
    rows = [line.split() for line in ended.out.splitlines() if "epoch-" in line][:2]
    assert [row[2] for row in rows] == ["epoch-1.pth", "epoch-2.pth"]
    names = {f"my_models-biased-epoch-{epoch}.pth" for epoch in "123"}
    assert set(folders(models / "out")) == names
    assert run(*EVAL, "-m", "my_models:biased", "--checkpoint", "epochs/epoch-2.pth", "-o", "alone").code == 0
    for name in ("predictions.csv", "records/00000-000.bin", "run.json"):
        assert Path("alone", name).read_bytes() == Path("out/my_models-biased-epoch-2.pth", name).read_bytes()
    table = run("report", "out", "--format", "csv").out.splitlines()
    assert "my_models:biased (my_models-biased-epoch-1.pth)" in table[1]


def test_the_output_of_many_models_is_reported_and_compared(run: Run, models: Path) -> None:
    """`report` and `compare` take the folder of all: each model in it is a row, and a failed one is named."""
    del models
    specs = ["-m", "my_models:good", "-m", "my_models:constant", "-m", "my_models:late", "-m", MODEL]
    assert run(*EVAL, *specs, "-o", "out").code == 1
    ended = run("report", "out", "--format", "csv")
    assert ended.code == 0
    rows = list(csv.DictReader(ended.out.splitlines()))
    assert [row["model"] for row in rows][2:] == ["my_models:constant"]
    assert {row["model"] for row in rows[:2]} == {"my_models:good", MODEL}
    assert ended.err.startswith("not in the table: my_models:late: ")
    compared = run("compare", "out")
    assert compared.code == 0
    assert "the 112 images that all 3 scored" in compared.out
    assert len([line for line in compared.out.splitlines() if " to " in line]) == 3
    found = json.loads(run("compare", "out", "--json").out)
    assert len(found["pairs"]) == 3
    assert run("compare", "out/my_models-good", "out/my_models-constant").out.startswith("A out/my_models-good\nB ")


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-m", "@none.txt"], 2, ["none.txt: the list of models cannot be read"]),
        (["-m", "@models.txt"], 2, ["models.txt:2: @x is a list in a list"]),
        (["-m", "my_models:good", "--skip-existing"], 2, ["--skip-existing is for several models"]),
        (["-m", MODEL, "-m", "my_models:good", "--skip-existing"], 2, ["in --output: add it"]),
        (["-m", MODEL, "-m", "my_models:good", "--per-class"], 2, ["--per-class is for one model"]),
        (["-m", MODEL, "-m", "my_models:good", "--models-at-once", "0"], 2, ["--models-at-once"]),
        (["-m", MODEL, "-m", "my_models:good", "-o", "val.tar"], 1, ["val.tar: is not a folder"]),
        (["-m", "shards"], 2, ["shards: a folder with no model file in it"]),
        (["-m", MODEL, "-m", "my_models:good", "--crop-pct", "0.00001"], 1, ["crop_pct is 1e-05"]),
        ([], 2, ["-m"]),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line(run: Run, arguments: list[str], code: int, words: list[str]) -> None:
    """What does not go together, and what names no model, is said before any model is loaded."""
    Path("models.txt").write_text("a:b\n@x\n")
    ended = run(*EVAL, *arguments)
    if "--crop-pct" in arguments:  # each model has a transform of its own
        assert ended.code == code
        assert all(words[0] in line for line in messages(ended.err))
        assert len(messages(ended.err)) == 2
        return
    expect_one_line(ended, code, *words)


def test_two_ranks_print_one_table_and_one_line_for_a_failure(models: Path) -> None:
    """Under torchrun rank 0 prints; a model that cannot be loaded on any rank is said once."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "wds_real", *EVAL, "-m", "my_models:good", "-m", "my_models:raises", "-o", "out"],
        capture_output=True, text=True, check=False, timeout=280,
        env={**os.environ, "PYTHONPATH": str(models), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.count("rank  model") == 1
    assert "0 twice, 2 ranks" in done.stdout
    assert len([line for line in done.stderr.splitlines() if "no checkpoint" in line]) == 1
    assert json.loads((models / "out/my_models-good/result.json").read_bytes())["run"]["world_size"] == 2
