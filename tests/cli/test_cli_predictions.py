"""``wds-real score``, ``compare`` and ``merge``: file formats, exit codes, and one clear line for wrong input."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.commands import MODEL, Ended, expect_one_line, without_torch

from wds_real.data.dataset import open_dataset
from wds_real.errors import ModelRunError
from wds_real.evaluation.loop import evaluate
from wds_real.evaluation.models.base import LoadedModel
from wds_real.evaluation.models.load import load_model
from wds_real.evaluation.options import EvalOptions
from wds_real.labels import NUM_CLASSES, NUM_IMAGES, bundled, classes
from wds_real.scoring.prediction_reader import read_predictions

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

ORIGINAL = bundled().original
KEY = "ILSVRC2012_val_00000002"
OPTIONS = EvalOptions(batch_size=20, threads=1, device="cpu")


def printed(ended: Ended) -> dict[str, Any]:
    """Return the JSON object that a successful command printed."""
    assert (ended.code, ended.err) == (0, "")
    found: dict[str, Any] = json.loads(ended.out)
    return found


def named(labels: Any = ORIGINAL) -> dict[str, int]:
    return {f"ILSVRC2012_val_{number:08d}.JPEG": label for number, label in enumerate(labels, start=1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original labels as predictions in each file format, worse predictions, and a partial file. Read only."""
    folder = tmp_path_factory.mktemp("predictions")
    predictions = read_predictions(ORIGINAL)
    (folder / "original.csv").write_bytes(predictions.encode())
    (folder / "original.npz").write_bytes(predictions.encode("npz"))
    if importlib.util.find_spec("pyarrow") is not None:
        (folder / "original.parquet").write_bytes(predictions.encode("parquet"))
    (folder / "original.tsv").write_text("".join(f"{name}\t{classes()[c].wnid}\n" for name, c in named().items()))
    (folder / "original.json").write_text(json.dumps(named()))
    (folder / "original.jsonl").write_text("".join(f'{{"key": "{k}", "pred": {c}}}\n' for k, c in named().items()))
    np.save(folder / "original.npy", np.array(ORIGINAL, np.int16))
    shifted = [(label + 1) % NUM_CLASSES if number % 3 else label for number, label in enumerate(ORIGINAL)]
    np.save(folder / "worse.npy", np.array(shifted))
    (folder / "part.json").write_text(json.dumps(dict(list(named().items())[1:100])))
    return folder


@pytest.fixture(scope="module")
def finished(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a finished run. Read only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    evaluate(load_model(MODEL), open_dataset(packed), options=OPTIONS, output=folder)
    return folder


@pytest.fixture(scope="module")
def unfinished(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run whose model failed at the fourth of six batches. Read only."""
    folder = tmp_path_factory.mktemp("runs") / "unfinished"
    loaded, calls = load_model(MODEL), iter(range(3))

    def failing(image: torch.Tensor) -> Any:
        next(calls)
        return loaded.module(image)

    with pytest.raises(ModelRunError):
        evaluate(
            LoadedModel("failing", failing, loaded.transform), open_dataset(packed), options=OPTIONS, output=folder
        )
    return folder


def without_run(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "run"}


# --- score ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl", "npy", "npz", "parquet"])
def test_score_reads_every_format(run: Callable[..., Ended], folder: Path, form: str) -> None:
    """The same predictions give the same counts in each file format."""
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    found = printed(run("score", folder / f"original.{form}", "--json"))
    assert found["accuracy"]["real_top1"]["correct"] == 42_164
    assert found["accuracy"]["real_top1"]["percent"] == 90.0228
    assert found["coverage"] == {"expected": 50_000, "seen_once": 50_000, "missing": 0, "doubled": 0, "failed": []}
    assert "original_top5" not in found["accuracy"]


def test_score_prints_the_table_and_the_receipt(run: Callable[..., Ended], folder: Path) -> None:
    """Stdout has what was scored, the counts and the receipt; stderr is empty."""
    ended = run("score", folder / "original.npz")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == (f"{folder / 'original.npz'}: 50,000 predictions, names from 'key', classes from 'classes'")
    assert any(line.split()[:6] == ["ReaL", "top-1", "42,164", "/", "46,837", "90.023"] for line in lines)
    assert lines[-1] == " coverage: 50,000 expected, 50,000 seen once, 0 missing, 0 twice, 1 rank"


@pytest.mark.parametrize(("threshold", "percent", "total"), [("0.5", 90.707, 48_070), ("0.8", 90.023, 46_837)])
def test_score_takes_another_threshold(
    run: Callable[..., Ended], folder: Path, threshold: str, percent: float, total: int
) -> None:
    """--threshold changes the ReaL labels, and the output names the threshold."""
    found = printed(run("score", folder / "original.npy", "--threshold", threshold, "--json"))
    real = found["accuracy"]["real_top1"]
    assert (round(real["percent"], 3), real["total"]) == (percent, total)
    assert found["dataset"]["threshold"] == float(threshold)
    assert (
        f"ReaL labels with rater scores above {threshold}"
        in run("score", folder / "original.npy", "--threshold", threshold).out
    )


def test_score_takes_a_partial_file_only_with_allow_partial(run: Callable[..., Ended], folder: Path) -> None:
    """Missing images give exit code 3; with --allow-partial the other images are scored, and marked as partial."""
    expect_one_line(run("score", folder / "part.json"), 3, "saw 99 of 50,000", "49,901 missing", "not computed")
    ended = run("score", folder / "part.json", "--allow-partial")
    assert (ended.code, ended.err) == (0, "")
    assert "partial: 99 of the 50,000 validation images; not an ImageNet accuracy" in ended.out
    assert "99 expected, 99 seen once" in ended.out


def test_score_per_class_adds_groups_and_worst_classes(run: Callable[..., Ended], folder: Path) -> None:
    """--per-class adds them to the text; JSON always has them."""
    plain, detailed = (run("score", folder / "worse.npy", *extra).out for extra in ([], ["--per-class"]))
    assert "worst classes" not in plain
    assert detailed.startswith(plain.rstrip("\n"))
    assert "original label rejected" in detailed
    assert "taken for" in detailed
    found = printed(run("score", folder / "worse.npy", "--json"))
    assert sum(found["per_class"]["total"]) == 57_553
    assert len(found["worst_classes"]) == 20


def test_score_takes_other_real_labels(run: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    """--real-json replaces the bundled labels."""
    (tmp_path / "real.json").write_text(json.dumps([[label] for label in ORIGINAL]))
    found = printed(run("score", folder / "original.npy", "--real-json", tmp_path / "real.json", "--json"))
    assert found["accuracy"]["real_top1"]["correct"] == NUM_IMAGES


# --- compare ----------------------------------------------------------------------------------------------------------


def test_compare_prints_difference_test_and_flips(run: Callable[..., Ended], folder: Path) -> None:
    """The output names both files, the signed difference, the test and the counts; swapping the files mirrors it."""
    a, b = folder / "worse.npy", folder / "original.npz"
    ended = run("compare", a, b)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[:2] == [f"A {a}", f"B {b}"]
    found = printed(run("compare", a, b, "--json"))
    assert found["files"] == {"a": str(a), "b": str(b)}
    assert found["total"] == 46_837
    assert found["b"]["correct"] == 42_164
    assert f"B - A {found['difference_points']:+.3f} points" in ended.out
    assert f"only in B {found['right_only_in_b']:,}" in ended.out
    mirrored = printed(run("compare", b, a, "--json"))
    assert mirrored["difference_points"] == -found["difference_points"]
    assert mirrored["lost"] == found["gained"]


def test_compare_chooses_labels(run: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    """--against original compares on all images; --real-json replaces the bundled labels."""
    files = folder / "worse.npy", folder / "original.npy"
    found = printed(run("compare", *files, "--against", "original", "--json"))
    assert (found["against"], found["total"], found["b"]["correct"]) == ("original", NUM_IMAGES, NUM_IMAGES)
    (tmp_path / "real.json").write_text(json.dumps([[label] for label in ORIGINAL]))
    found = printed(run("compare", *files, "--real-json", tmp_path / "real.json", "--json"))
    assert (found["against"], found["total"], found["b"]["correct"]) == ("real", NUM_IMAGES, NUM_IMAGES)


def test_compare_uses_the_images_in_both_files(run: Callable[..., Ended], folder: Path) -> None:
    """A partial and a whole file are compared on the partial one's images; equal predictions show no difference."""
    found = printed(run("compare", folder / "part.json", folder / "original.npy", "--json"))
    assert found["total"] == sum(bool(real) for real in bundled().real[1:100])
    assert (found["difference_points"], found["mcnemar_exact_p"], found["lost"], found["gained"]) == (0, 1, [], [])


# --- merge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "npz", "parquet"])
def test_merge_writes_what_the_run_wrote(run: Callable[..., Ended], finished: Path, tmp_path: Path, form: str) -> None:
    """The records alone give the same result, without the facts of the run, and the same predictions in each format."""
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    shutil.copytree(finished / "records", tmp_path / "records")
    shutil.copy(finished / "run.json", tmp_path)
    found = printed(run("merge", tmp_path, "--format", form, "--json"))
    written = json.loads((finished / "result.json").read_text())
    assert without_run(found) == without_run(written)
    assert found == json.loads((tmp_path / "result.json").read_text())
    ours, theirs = (read_predictions(path) for path in (tmp_path / f"predictions.{form}", finished / "predictions.csv"))
    assert ours.encode() == theirs.encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"predictions.{form}", "records", "result.json", "run.json"]
    )


def test_merge_prints_the_table_and_takes_a_moved_data_set(
    run: Callable[..., Ended], packed: Path, finished: Path, tmp_path: Path
) -> None:
    """Merge prints the table as eval does, with --per-class too; --root names a data set that was moved."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(packed, tmp_path / "moved")
    ended = run("merge", tmp_path / "run", "--root", tmp_path / "moved", "--per-class")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{MODEL} on imagenet2012_real, validation: img_size 64x64")
    assert "120 expected, 120 seen once, 0 missing, 0 twice" in ended.out
    assert "worst classes" in ended.out


def test_merge_of_an_unfinished_run_writes_nothing(run: Callable[..., Ended], unfinished: Path) -> None:
    """An unfinished run gives exit code 3 and the missing images; the folder is unchanged."""
    before = sorted(path.name for path in unfinished.rglob("*"))
    ended = run("merge", unfinished)
    expect_one_line(ended, 3, "saw 60 of 120 samples", "60 missing", "ILSVRC2012_val_00000061", "not computed")
    assert sorted(path.name for path in unfinished.rglob("*")) == before == ["00000-000.bin", "records", "run.json"]


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.fixture
def _in_wrong(wrong: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the folder of wrong files."""
    monkeypatch.chdir(wrong)


@pytest.fixture(scope="module")
def wrong(folder: Path, finished: Path, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one wrong file of each kind, and some correct ones. Read only."""
    place = tmp_path_factory.mktemp("wrong")
    shutil.copy(folder / "part.json", place)
    texts = {
        "empty.csv": "",
        "header.csv": "file_name,top1\n",
        "kind.xlsx": "1\n",
        "thousand.csv": f"{KEY},1000\n",
        "word.csv": f"{KEY},snake\n",
        "short.csv": f"file_name,top1,top2\n{KEY},1\n",
        "twice.csv": f"{KEY},1\nval/{KEY}.JPEG,1\n",
        "twice.json": f'{{"{KEY}": 1, "{KEY}": 2}}',
        "others.csv": f"{KEY},1\ndog.jpg,5\n",
        "infinite.json": f'{{"{KEY}": Infinity}}',
        "deep.json": "[" * 100_000,
        "page.json": "<html>",
        "single.json": f'{{"{KEY}": 1}}',
        "other.json": '{"ILSVRC2012_val_00000004": 1}',
        "real.json": "[[1]]",
    }
    for name, text in texts.items():
        (place / name).write_text(text)
    (place / "garbage.npz").write_bytes(bytes(range(256)))
    np.save(place / "scalar.npy", np.array(5))
    np.savez(place / "uneven.npz", key=np.array([KEY]), classes=np.array([1, 2]))
    (place / "nothing").mkdir()
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "run": lambda _: None,
        "version": lambda content: content["format"].update(version=2),
        "rootless": lambda content: content.pop("root"),
        "gone": lambda content: content.update(root="/nowhere/shards"),
        "splitless": lambda content: content["identity"].pop("split"),
        "changed": lambda content: content["identity"].update(batch_size=7),
    }
    for name, change in changes.items():
        shutil.copytree(finished, place / name)
        content = json.loads((finished / "run.json").read_text())
        change(content)
        (place / name / "run.json").write_text(json.dumps(content))
    shutil.copytree(finished, place / "damaged")
    (place / "damaged" / "run.json").write_bytes(b"{")
    shutil.copytree(finished, place / "torn")
    records = place / "torn" / "records" / "00000-000.bin"
    records.write_bytes(records.read_bytes()[:-1])
    shutil.copytree(packed, place / "unfinished_root")
    (place / "unfinished_root" / "manifest.json").unlink()
    return place


WRONG: dict[str, tuple[list[str], int, list[str]]] = {
    "no file": (["score", "nope.csv"], 1, ["nope.csv: no such file"]),
    "a folder": (["score", "nothing"], 1, ["nothing: this folder has no predictions.csv"]),
    "unknown kind": (["score", "kind.xlsx"], 1, ["kind.xlsx: unknown kind of file", ".parquet"]),
    "empty file": (["score", "empty.csv"], 1, ["empty.csv: the file is empty"]),
    "header only": (["score", "header.csv"], 3, ["saw 0 of 50,000"]),
    "class 1000": (["score", "thousand.csv"], 1, ["thousand.csv", KEY, "1000", "0..999"]),
    "a word": (["score", "word.csv"], 1, ["word.csv", KEY, "snake"]),
    "a short row": (["score", "short.csv"], 1, ["short.csv"]),
    "an infinite class": (["score", "infinite.json"], 1, ["infinite.json", KEY]),
    "deep JSON": (["score", "deep.json"], 1, ["deep.json"]),
    "a web page": (["score", "page.json"], 1, ["page.json: cannot be read as JSON"]),
    "garbage NPZ": (["score", "garbage.npz"], 1, ["garbage.npz: cannot be read as NPZ"]),
    "scalar NPY": (["score", "scalar.npy"], 1, ["scalar.npy"]),
    "uneven NPZ": (["score", "uneven.npz"], 1, ["uneven.npz"]),
    "one image twice": (["score", "twice.csv"], 3, ["twice.csv", KEY, "twice"]),
    "one image twice in JSON": (["score", "twice.json"], 3, ["twice.json", KEY, "twice"]),
    "other names": (["score", "others.csv"], 1, ["others.csv", "dog"]),
    "other names in a part": (["score", "others.csv", "--allow-partial"], 1, ["others.csv", "dog"]),
    "missing images": (["score", "single.json"], 3, ["saw 1 of 50,000", "49,999 missing", "ILSVRC2012_val_00000001"]),
    "missing images, as JSON": (["score", "single.json", "--json"], 3, ["saw 1 of 50,000"]),
    "threshold of 1": (["score", "part.json", "--threshold", "1"], 1, ["threshold is 1.0", "0 <= threshold < 1"]),
    "threshold too fine": (["score", "part.json", "--threshold", "0.12345"], 1, ["three decimals"]),
    "threshold nan": (["score", "part.json", "--threshold", "nan"], 1, ["threshold is nan"]),
    "threshold that is no number": (["score", "part.json", "--threshold", "half"], 2, ["half"]),
    "threshold and labels": (
        ["score", "part.json", "--threshold", "0.5", "--real-json", "real.json"], 2, ["exclude each other"],
    ),
    "wrong labels": (["score", "part.json", "--real-json", "real.json"], 1, ["real.json", "50,000 lists"]),
    "missing labels": (["compare", "part.json", "part.json", "--real-json", "no.json"], 1, ["no.json"]),
    "no predictions": (["score"], 2, ["PREDICTIONS"]),
    "one file to compare": (["compare", "part.json"], 2, ["two or more"]),
    "missing file to compare": (["compare", "part.json", "nope.npz"], 1, ["nope.npz: no such file"]),
    "other names to compare": (["compare", "part.json", "others.csv"], 1, ["others.csv", "dog"]),
    "nothing in common": (["compare", "single.json", "other.json"], 1, ["no image with a label in common"]),
    "unknown labels": (["compare", "part.json", "part.json", "--against", "truth"], 2, ["truth"]),
    "no folder to merge": (["merge", "nope"], 1, ["nope/run.json: no such file", "--output"]),
    "no run in the folder": (["merge", "nothing"], 1, ["nothing/run.json: no such file"]),
    "no folder given": (["merge"], 2, ["DIR"]),
    "damaged run.json": (["merge", "damaged"], 1, ["damaged/run.json: cannot be read"]),
    "run.json of another version": (["merge", "version"], 1, ["version/run.json: not written by this version"]),
    "run.json without root": (["merge", "rootless"], 1, ["rootless", "--root"]),
    "run.json without split": (["merge", "splitless"], 1, ["splitless"]),
    "run.json of other records": (["merge", "changed"], 1, ["00000-000.bin: holds records of another run"]),
    "data set that is gone": (["merge", "gone"], 1, ["/nowhere/shards", "no such folder"]),
    "unfinished data set": (["merge", "run", "--root", "unfinished_root"], 4, ["unfinished_root", "manifest.json"]),
    "unknown format": (["merge", "run", "--format", "xlsx"], 2, ["xlsx"]),
}  # fmt: skip


@pytest.mark.usefixtures("_in_wrong")
@pytest.mark.parametrize("fault", WRONG)
def test_wrong_input_gives_one_line_and_its_exit_code(run: Callable[..., Ended], fault: str) -> None:
    """Stdout is empty; stderr is one line with the file, what was found and what was expected."""
    arguments, code, words = WRONG[fault]
    expect_one_line(run(*arguments), code, *words)


@pytest.mark.usefixtures("_in_wrong")
def test_the_batch_of_a_torn_record_is_missing(run: Callable[..., Ended]) -> None:
    """A torn record counts as missing images: exit code 3; the files are unchanged."""
    before = Path("torn/result.json").read_bytes()
    ended = run("merge", "torn")
    assert ended.code == 3
    assert "saw 100 of 120 samples (20 missing" in ended.err
    assert Path("torn/result.json").read_bytes() == before


@pytest.mark.parametrize("parts", [(slice(60),), (slice(None, None, 2),), (slice(100), slice(40, None))])
def test_a_sliced_data_set_is_merged(
    run: Callable[..., Ended], packed: Path, tmp_path: Path, parts: tuple[slice, ...]
) -> None:
    """A run over slices of a data set, from Python, is merged from the command line."""
    ds = open_dataset(packed)
    for part in parts:
        ds = ds[part]
    evaluate(load_model(MODEL), ds, options=OPTIONS, output=tmp_path)
    assert printed(run("merge", tmp_path, "--json"))["coverage"]["expected"] == 60


# --- without torch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["score", "--help"], ["compare", "--help"], ["merge", "--help"], ["score", "nope.csv"]),
        ["score", "part.json", "--allow-partial", "--per-class"],
        ["compare", "part.json", "part.json"],
        ["merge", "run"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("_in_wrong")
def test_no_torch_is_imported(arguments: list[str]) -> None:
    """Commands on prediction files and records run without importing torch."""
    assert without_torch(*arguments).code in (0, 1)


# --- columns that could be meant --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_columns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the truth, as `label`, and the predictions, as `output`: right on two thirds of the images."""
    path = tmp_path_factory.mktemp("columns") / "answers.csv"
    rows = (f"{name},{c},{c if place % 3 else (c + 1) % 1000}\n" for place, (name, c) in enumerate(named().items()))
    path.write_text("filename,label,output\n" + "".join(rows))
    return path


def test_score_refuses_to_choose_between_truth_and_prediction(run: Callable[..., Ended], two_columns: Path) -> None:
    """The message says which column is the truth and names the option; with it the predictions are scored."""
    expect_one_line(
        run("score", two_columns), 1, "'label' equals the original labels everywhere", "--class-column output"
    )
    found = printed(run("score", two_columns, "--class-column", "output", "--json"))
    assert found["accuracy"]["original_top1"]["correct"] == 33_333
    assert "notes" not in found["run"]


def test_score_says_if_the_truth_was_scored(run: Callable[..., Ended], two_columns: Path) -> None:
    """A column that equals the original labels everywhere gets a line, and a field in JSON."""
    ended = run("score", two_columns, "--class-column", "label")
    assert ended.out.splitlines()[1].startswith(" note: the classes in 'label' equal the original labels of all 50,000")
    (note,) = printed(run("score", two_columns, "--class-column", "label", "--json"))["run"]["notes"]
    assert "--class-column" in note


def test_compare_takes_the_columns_and_labels_that_score_takes(run: Callable[..., Ended], two_columns: Path) -> None:
    """Two columns of one file are compared; one column option holds for both files; a threshold changes the labels."""
    columns = ("--class-column", "label", "--class-column-b", "output", "--name-column", "filename")
    both = printed(run("compare", two_columns, two_columns, *columns, "--against", "original", "--json"))
    assert (both["total"], both["right_only_in_a"], both["right_only_in_b"]) == (50_000, 16_667, 0)
    one = printed(run("compare", two_columns, two_columns, "--class-column", "output", "--threshold", "0.5", "--json"))
    assert (one["total"], one["right_only_in_a"]) == (48_070, 0)
    ended = run("compare", two_columns, two_columns, "--threshold", "0.5", "--real-json", "x")
    assert (ended.code, "exclude each other" in ended.err) == (2, True)


def test_score_of_a_part_names_the_file_and_the_option(run: Callable[..., Ended], folder: Path) -> None:
    """Missing images: the message begins with the file and ends with --allow-partial."""
    expect_one_line(run("score", folder / "part.json"), 3, f"{folder / 'part.json'}: saw 99 of", "--allow-partial")


def test_score_does_not_wait_for_a_pipe_nor_take_a_url_for_a_path(run: Callable[..., Ended], tmp_path: Path) -> None:
    """A named pipe is refused in words; a URL is looked up where it leads."""
    os.mkfifo(tmp_path / "pipe.csv")
    expect_one_line(run("score", tmp_path / "pipe.csv"), 1, "is a named pipe, expected a regular file")
    expect_one_line(run("score", "s3://lab/p.csv"), 1, "s3://lab: no credentials were found")
