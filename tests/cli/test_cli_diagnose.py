"""``wds-real diagnose``, and what ``score`` says of an absurd accuracy."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.commands import Ended, expect_one_line, without_torch

from wds_real.cli.options import ORDER_CHOICE
from wds_real.labels import NUM_IMAGES, bundled
from wds_real.labels.class_maps import background_map, devkit_map, read_class_map
from wds_real.scoring.diagnosis import CLASS_MISTAKES
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.reading.order import ORDERS
from wds_real.scoring.run.output import write_output
from wds_real.scoring.score import score
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wds_real.scoring.diagnosis import Mistake

    Run = Callable[..., Ended]

ORIGINAL = np.array(bundled().original)


def named(path: Path, classes: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    rows = (f"ILSVRC2012_val_{number:08d}.JPEG,{label}\n" for number, label in enumerate(classes.tolist(), start=1))
    path.write_text("filename,pred\n" + "".join(rows))
    return str(path)


def test_class_numbers_outside_the_range_are_diagnosed(run: Run, tmp_path: Path) -> None:
    """The development kit's 1..1000, which no command scores, are named, and what to do."""
    path = named(tmp_path / "devkit.csv", np.argsort(devkit_map())[ORIGINAL] + 1)
    assert run("score", path).code == 1
    ended = run("diagnose", path)
    assert (ended.code, ended.err) == (0, "")
    assert " verdict: ILSVRC2012_ID 1..1000 of the development kit: 100.00 % instead" in ended.out


def test_rows_without_names_are_diagnosed_as_they_stand(run: Run, tmp_path: Path) -> None:
    """A file in class-folder order is said to be so, and JSON gives every trial."""
    order = np.lexsort((np.arange(NUM_IMAGES), ORIGINAL))
    np.save(tmp_path / "folders.npy", ORIGINAL[order])
    found = json.loads(run("diagnose", str(tmp_path / "folders.npy"), "--json").out)
    assert found["explanation"] == ["predictions in class-folder (ImageFolder) order"]
    assert max(trial["correct"] for trial in found["trials"]) == NUM_IMAGES


def test_score_names_the_mistake(run: Run, tmp_path: Path) -> None:
    """Under 2 %, the likely mistake and the command that shows all are on stderr; the result is printed too."""
    shifted = np.where(ORIGINAL < 999, ORIGINAL + 1, 0)
    path = named(tmp_path / "shifted.csv", shifted)
    ended = run("score", path)
    assert ended.code == 0
    assert "classes counted from 1" in ended.err
    assert f"wds-real diagnose {path}" in ended.err
    assert "ReaL top-1" in ended.out


def test_sound_predictions_have_no_mistake(run: Run, tmp_path: Path) -> None:
    """The verdict says that nothing known is wrong; an output folder is taken too."""
    predictions = read_predictions(ORIGINAL)
    write_output(LocalStore(tmp_path), score(predictions), predictions)
    assert "no known mistake of order or class numbers" in run("diagnose", str(tmp_path)).out


@pytest.mark.parametrize(("content", "phrase"), [
    ("filename,pred\nILSVRC2012_test_00000001.JPEG,5\n", "not of validation images"),
    ("", "pred.csv"),
])  # fmt: skip
def test_other_files_are_one_line(run: Run, tmp_path: Path, content: str, phrase: str) -> None:
    """Names of another split and an empty file are named as such."""
    path = tmp_path / "pred.csv"
    path.write_text(content)
    expect_one_line(run("diagnose", str(path)), 1, phrase)


def test_a_folder_without_predictions_is_named(run: Run, tmp_path: Path) -> None:
    """The message says what an output folder holds."""
    expect_one_line(run("diagnose", str(tmp_path)), 1, "not the --output of a finished")


def test_it_needs_no_torch(tmp_path: Path) -> None:
    """The command starts without torch."""
    np.save(tmp_path / "a.npy", ORIGINAL)
    assert without_torch("diagnose", str(tmp_path / "a.npy")).code == 0


def test_score_compares_with_what_is_published(run: Run, tmp_path: Path) -> None:
    """The file's name, or --model, finds the row; an unknown name has no line."""
    np.save(tmp_path / "vgg16.npy", ORIGINAL)
    assert (
        " published vgg16.tv_in1k (224 px, crop 0.875, bilinear): 35,797 original"
        in run("score", str(tmp_path / "vgg16.npy")).out
    )
    assert " published resnet18." in run("score", str(tmp_path / "vgg16.npy"), "--model", "resnet18").out
    np.save(tmp_path / "mine.npy", ORIGINAL)
    assert "published" not in run("score", str(tmp_path / "mine.npy")).out


def test_the_order_that_is_found_can_be_given(run: Run, tmp_path: Path) -> None:
    """The command that `diagnose` prints scores the sound predictions; each order it may name is one of --order."""
    assert {"names", *ORDERS} == set(ORDER_CHOICE.choices)
    right = np.where(np.arange(NUM_IMAGES) % 4 > 0, ORIGINAL, 0)
    path = tmp_path / "my folders.csv"
    rows = zip(range(1, NUM_IMAGES + 1), right[ORDERS["folders-as-text"](ORIGINAL)].tolist(), strict=True)
    path.write_text("image,mine,label\n" + "".join(f"ILSVRC2012_val_{n:08d}.JPEG,{c},5\n" for n, c in rows))
    printed = run("diagnose", str(path), "--class-column", "mine").out
    assert "order of class folders named 0, 1, 10, 100" in printed
    command = shlex.split(next(line for line in printed.splitlines() if line.startswith(" or: "))[5:])
    assert command[:3] == ["wds-real", "score", str(path)]
    expected = int((right == ORIGINAL).sum())
    assert f" {expected:,} / " in run(*command[1:]).out


def test_compare_takes_an_order_for_each_file(run: Run, tmp_path: Path) -> None:
    """A in class-folder order and B by its names are compared image by image."""
    wrong = np.where(np.arange(NUM_IMAGES) % 4 > 0, ORIGINAL, 0)
    np.save(tmp_path / "a.npy", wrong[ORDERS["reversed"](ORIGINAL)])
    other = named(tmp_path / "b.csv", wrong)
    ended = run("compare", str(tmp_path / "a.npy"), other, "--order", "reversed", "--order-b", "names")
    assert "only in A 0, only in B 0" in ended.out


PROPOSED = [mistake for mistake in CLASS_MISTAKES if mistake.options]


@pytest.mark.parametrize("mistake", PROPOSED, ids=lambda mistake: " ".join(mistake.options))
def test_the_numbering_that_is_found_can_be_given(run: Run, tmp_path: Path, mistake: Mistake) -> None:
    """Predictions in each numbering, in class-folder order too, are scored soundly by the command that is printed."""
    name = mistake.options[1]
    class_map = background_map("first") if mistake.options[0] == "--background" else read_class_map(name)
    right = np.where(np.arange(NUM_IMAGES) % 4 > 0, ORIGINAL, (ORIGINAL + 7) % 1000)
    order = ORDERS["numbers-as-text"](ORIGINAL)
    np.save(tmp_path / "other.npy", class_map.outputs[right][order])
    printed = run("diagnose", str(tmp_path / "other.npy")).out
    assert mistake.name in printed
    command = shlex.split(next(line for line in printed.splitlines() if line.startswith(" or: "))[5:])
    assert f" {int((right == ORIGINAL).sum()):,} / " in run(*command[1:]).out
