"""Tables of a result and of a comparison: the rows, the files, and the DataFrames."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.commands import expect_one_line
from support.prediction_files import KEYS, NAMES, ORIGINAL, made, needs_pyarrow

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_CLASSES, NUM_IMAGES, bundled
from wds_real.scoring.comparison import Comparison, classes_compared, compare, flip_columns
from wds_real.scoring.export import class_columns, write_table
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.commands import Ended

    Run = Callable[..., Ended]

A = list(ORIGINAL[:4])  # 65, 970, 230, 809
B = [65, 970, 231, 1]


@pytest.fixture
def comparison() -> Comparison:
    a, b = (made(KEYS[:4], [[label, -1, -1, -1, -1] for label in labels]) for labels in (A, B))
    return compare(a, b, against="original")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_flip_is_a_row(comparison: Comparison) -> None:
    """The image, who is right, both predictions with their names, and its labels."""
    columns = flip_columns(comparison)
    assert list(columns["file_name"]) == [NAMES[2], NAMES[3]]
    assert list(columns["right_only_in"]) == ["a", "a"]
    assert (list(columns["prediction_a"]), list(columns["prediction_b"])) == ([230, 809], [231, 1])
    assert list(columns["name_b"]) == ["collie", "goldfish"]
    assert list(columns["original_label"]) == [230, 809]
    assert columns["real_label"][0] == " ".join(map(str, bundled().real[2]))


def test_flips_are_the_lost_and_gained_images() -> None:
    """Together, and sorted by name; their sides are those of the two lists."""
    shuffled = np.random.default_rng(0).permutation(ORIGINAL)
    found = compare(read_predictions(np.array(ORIGINAL)), read_predictions(np.where(shuffled < 500, ORIGINAL, 7)))
    flips = {flip.key: flip.right_only_in for flip in found.flips}
    assert list(flips) == sorted((*found.lost, *found.gained))
    assert [key for key, side in flips.items() if side == "a"] == list(found.lost)
    assert found.gained


def test_each_class_is_a_row(comparison: Comparison) -> None:
    """All 1,000 of a result, with empty percentages where there is no image; those compared of a comparison."""
    columns = class_columns(score({NAMES[1]: 795, NAMES[2]: 1}, allow_partial=True).breakdown)
    assert list(columns["class"]) == list(range(NUM_CLASSES))
    assert (columns["wnid"][795], columns["name"][795]) == ("n04228054", "ski")
    assert sum(columns["total"]) == sum(len(bundled().real[image]) for image in (1, 2))
    assert columns["percent"][795] == 100
    compared = classes_compared(comparison)
    assert (list(compared["class"]), list(compared["difference"])) == ([65, 230, 809, 970], [0, -1, -1, 0])


@pytest.mark.parametrize("kind", ["csv", pytest.param("parquet", marks=needs_pyarrow)])
def test_files_hold_the_columns(kind: str, comparison: Comparison, tmp_path: Path) -> None:
    """CSV and Parquet have the same rows; a file that is there is replaced."""
    path = tmp_path / f"flips.{kind}"
    path.write_text("old")
    write_table(path, flip_columns(comparison))
    if kind == "csv":
        assert [row["prediction_b"] for row in rows_of(path)] == ["231", "1"]
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(path).to_pydict()
        assert table == {name: list(column) for name, column in flip_columns(comparison).items()}


def test_files_that_cannot_be_written_are_errors(tmp_path: Path) -> None:
    """Another ending, a missing folder and a folder in its place are named."""
    (tmp_path / "folder.csv").mkdir()
    for name, words in {"a.xlsx": "csv or .parquet", "none/a.csv": "No such file", "folder.csv": "directory"}.items():
        with pytest.raises(PredictionsError, match=words):
            write_table(tmp_path / name, {"a": [1]})


def test_dataframes_have_the_same_rows(comparison: Comparison) -> None:
    """Of a result, its classes, its predictions, a comparison and its classes."""
    pytest.importorskip("pandas")
    result = score(ORIGINAL)
    frame = result.as_dataframe().set_index("accuracy")
    assert frame.loc["real_top1", "correct"] == result.real_top1.correct
    assert frame.loc["real_top1", "percent"] == result.real_top1.percent == 100 * float(result.real_top1)
    assert "original_top5" not in frame.index
    assert len(result.as_dataframe(per_class=True)) == NUM_CLASSES
    assert comparison.as_dataframe()["prediction_b"].tolist() == [231, 1]
    assert comparison.as_dataframe(per_class=True)["correct_b"].tolist() == [1, 0, 0, 1]
    read = read_predictions(ORIGINAL)
    assert read_predictions(read.as_dataframe()).classes[:, 0].tolist() == list(ORIGINAL)


def test_without_pandas_the_message_says_so(monkeypatch: pytest.MonkeyPatch, comparison: Comparison) -> None:
    """Pandas is an extra."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(PredictionsError, match="pip install pandas"):
        comparison.as_dataframe()


def test_commands_write_the_tables(run: Run, tmp_path: Path) -> None:
    """``score --export-classes``, ``compare --export-flips`` and ``--export-classes``; a wrong ending is one line."""
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(a, ORIGINAL)
    np.save(b, np.where(np.arange(NUM_IMAGES) < 10, 7, ORIGINAL))
    assert run("score", a, "--export-classes", tmp_path / "classes.csv").code == 0
    assert len(rows_of(tmp_path / "classes.csv")) == NUM_CLASSES
    flips, classes = tmp_path / "flips.csv", tmp_path / "compared.csv"
    ended = run("compare", a, b, "--against", "original", "--export-flips", flips, "--export-classes", classes)
    assert ended.code == 0
    assert [row["file_name"] for row in rows_of(flips)] == list(NAMES[:10])
    assert sum(int(row["difference"]) for row in rows_of(classes)) == -10
    expect_one_line(run("score", a, "--export-classes", tmp_path / "a.txt"), 1, "csv or .parquet")


def test_printing_an_object_is_short(comparison: Comparison) -> None:
    """In a notebook, 50,000 predictions are a line, and so is a comparison."""
    read: Any = read_predictions(ORIGINAL)
    assert repr(read) == f"<Predictions of 50,000 images, {KEYS[0]} ... {KEYS[-1]}, from the array>"
    assert repr(made([], [])) == "<Predictions of 0 images, none>"
    assert repr(comparison) == "<Comparison against='original', a=4, b=2, total=4, lost=2, gained=0>"


def test_predictions_are_found_by_name() -> None:
    """By the key or any spelling of the file name; what is not there is a KeyError with the name."""
    read = read_predictions({NAMES[1]: [795, 970], NAMES[2]: 230})
    for name in (KEYS[1], NAMES[1], f"val/{NAMES[1]}", NAMES[1].encode()):
        assert read[name] == (795, 970)
        assert name in read
    assert list(read) == list(KEYS[1:3])
    assert KEYS[0] not in read
    assert 0 not in read
    with pytest.raises(KeyError, match="ILSVRC2012_val_00000001 is not among the 2 predictions"):
        read[KEYS[0]]
