"""``wds-real report`` and ``reference``: tables of models, and of what is published."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.commands import Ended, expect_one_line, without_torch

from wds_real.labels import bundled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prediction files: the original labels, and these with 5,000 answers replaced. Read only."""
    path = tmp_path_factory.mktemp("models")
    original = np.array(bundled().original)
    np.save(path / "good.npy", original)
    worse = original.copy()
    worse[::10] = (worse[::10] + 500) % 1000
    np.save(path / "worse.npy", worse)
    return path


def test_a_table_is_printed(run: Run, folder: Path) -> None:
    """The best model is the first row, whatever the order of the arguments."""
    ended = run("report", str(folder / "worse.npy"), str(folder / "good.npy"))
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split()[:2] == ["rank", "model"]
    assert [line.split()[1] for line in lines[1:3]] == ["good", "worse"]
    assert "90.023 (89.75-90.29)" in lines[1]


@pytest.mark.parametrize(("suffix", "start"), [
    (".md", "| rank |"), (".csv", "rank,"), (".html", "<!doctype"), (".tex", r"\begin{tabular}"), (".txt", "rank"),
])  # fmt: skip
def test_the_suffix_of_the_output_chooses_the_format(
    run: Run, folder: Path, tmp_path: Path, suffix: str, start: str
) -> None:
    """The file holds the table; stdout is empty."""
    target = tmp_path / f"table{suffix}"
    ended = run("report", str(folder / "good.npy"), "-o", str(target))
    assert (ended.code, ended.out) == (0, "")
    assert target.read_text().startswith(start)


def test_the_format_can_be_named(run: Run, folder: Path, tmp_path: Path) -> None:
    """--format goes before the suffix; timm's columns have the original accuracy."""
    target = tmp_path / "results.md"
    assert run("report", str(folder / "worse.npy"), "-o", str(target), "--format", "timm").code == 0
    row = next(csv.DictReader(target.read_text().splitlines()))
    assert (row["model"], row["top1"], row["top1_err"]) == ("worse", "90.000", "10.000")


@pytest.mark.parametrize(("arguments", "code", "phrase"), [
    (["none.npy"], 1, "none.npy"),
    (["good.npy", "-o", "table.xyz"], 2, "--output table.xyz: the suffix names no format"),
    (["good.npy", "-o", "missing/table.md"], 1, "missing/table.md: cannot be written"),
    ([], 2, "RESULT"),
    (["."], 1, "is not the --output of a finished"),
])  # fmt: skip
def test_wrong_use_is_one_line(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, phrase: str
) -> None:
    """A missing file, an unknown suffix and a folder without a result are named."""
    monkeypatch.chdir(folder)
    expect_one_line(run("report", *arguments), code, phrase)


def test_published_results_are_listed(run: Run) -> None:
    """A name lists its tags at every size, with counts and percentages; --json gives fields."""
    ended = run("reference", "resnet18")
    assert ended.code == 0
    row = next(line for line in ended.out.splitlines() if line.startswith("resnet18.tv_in1k"))
    assert "34,876 (69.752)" in row
    assert "36,201 (77.291)" in row
    found = json.loads(run("reference", "vgg16", "--json").out)["results"]
    assert [(one["model"], one["real_top1"]) for one in found] == [("vgg16.tv_in1k", 37_015)]


def test_an_unknown_name_gets_similar_ones(run: Run) -> None:
    """The message names models whose names are near."""
    expect_one_line(run("reference", "resnet1x"), 1, "Similar: resnet18")


def test_the_commands_need_no_torch(folder: Path) -> None:
    """A table and the published results start without torch."""
    assert without_torch("report", str(folder / "good.npy")).code == 0
    assert without_torch("reference", "vgg16").code == 0
