"""Reading predictions: every accepted spelling means the same, and the rest is refused."""

from __future__ import annotations

import io
import json
import pickle
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.prediction_files import CERTAIN, needs_pyarrow, npy, npz, parquet, read

from wds_real.errors import CoverageError, PredictionsError
from wds_real.labels import NUM_CLASSES, NUM_IMAGES, bundled, classes
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.predictions import TOP, Predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

KEYS = tuple(f"ILSVRC2012_val_{number:08d}" for number in (1, 293, NUM_IMAGES))
ROWS = ((65, 4, 3, 2, 1), (970, 999, 0, 5, 6), (0, 7, 8, 9, 10))
ORDER = (1, 2, 0)  # files below are not in key order
NAMES = tuple(f"{KEYS[place]}.JPEG" for place in ORDER)
NAN = float("nan")


def wnid(label: int) -> str:
    return classes()[label].wnid


def scores(row: tuple[int, ...]) -> list[float]:
    """Return 1,000 scores whose five highest are the classes of `row`, in this order."""
    values = [-1.0] * NUM_CLASSES
    for place, label in enumerate(row):
        values[label] = 9.5 - place
    return values


def text(cells: Callable[[tuple[int, ...]], Iterable[Any]], header: str = "", *, by: str = ",", end: str = "\n") -> str:
    """Return a table of the three images: the name, then the cells that `cells` makes of the five classes."""
    lines = [by.join((name, *map(str, cells(ROWS[place])))) for name, place in zip(NAMES, ORDER, strict=True)]
    return "".join(f"{line}{end}" for line in ([header] if header else []) + lines)


def records(make: Callable[[tuple[int, ...]], Any]) -> list[Any]:
    return [{"file_name": name, **make(ROWS[place])} for name, place in zip(NAMES, ORDER, strict=True)]


def mapping(make: Callable[[tuple[int, ...]], Any]) -> dict[str, Any]:
    return {name: make(ROWS[place]) for name, place in zip(NAMES, ORDER, strict=True)}


def first(row: tuple[int, ...]) -> tuple[int, ...]:
    return row[:1]


def ranked(row: tuple[int, ...]) -> dict[str, int]:
    return {f"top{place + 1}": label for place, label in enumerate(row)}


TOP_COLUMNS = "top1,top2,top3,top4,top5"
TABLE = np.array([ROWS[place] for place in ORDER])

# What a file of this name and content says: the number of classes an image.
NAMED: dict[str, tuple[str, str | bytes, int]] = {
    "CSV": ("p.csv", text(first, "file_name,top1"), 1),
    "CSV without header": ("p.csv", text(first), 1),
    "CSV, upper case": ("P.CSV", text(first, "FILE_NAME,Top1"), 1),
    "CSV, header with spaces": ("p.csv", text(first, "file_name, prediction "), 1),
    "CSV with a byte order mark": ("p.csv", b"\xef\xbb\xbf" + text(first, "file_name,top1").encode(), 1),
    "CSV with a byte order mark, no header": ("p.csv", b"\xef\xbb\xbf" + text(first).encode(), 1),
    "CSV with CRLF and blank lines": ("p.csv", text(first, "file_name,top1", end="\r\n\r\n"), 1),
    "CSV without a last newline": ("p.csv", text(first, "file_name,top1").rstrip(), 1),
    "CSV, names last": ("p.csv", "top1,file_name\n" + "".join(f"{ROWS[p][0]},{KEYS[p]}\n" for p in ORDER), 1),
    "CSV with more columns": ("p.csv", text(lambda row: (0.5, row[0], "x"), "file_name,loss,pred,remark"), 1),
    "CSV, top 5": ("p.csv", text(lambda row: row, f"file_name,{TOP_COLUMNS}"), 5),
    "CSV, top 5 without header": ("p.csv", text(lambda row: row), 5),
    "CSV, top 2": ("p.csv", text(lambda row: row[:2], "file_name,top1,top2"), 2),
    "CSV, top 2 of 5": ("p.csv", text(lambda row: (*row[:2], "", "", ""), f"file_name,{TOP_COLUMNS}"), 2),
    "CSV, quoted": ("p.csv", text(lambda row: [f'"{row[0]}"'], '"file_name","top1"'), 1),
    "CSV, quoted list": ("p.csv", text(lambda row: [f'"{",".join(map(str, row))}"'], "file_name,top5"), 5),
    "CSV, list with spaces": ("p.csv", text(lambda row: [" ".join(map(str, row))], "file_name,predictions"), 5),
    "CSV, list with spaces, no header": ("p.csv", text(lambda row: [" ".join(map(str, row))]), 5),
    "CSV, wnids": ("p.csv", text(lambda row: map(wnid, row), f"file_name,{TOP_COLUMNS}"), 5),
    "CSV, wnids and indices": ("p.csv", text(lambda row: (wnid(row[0]), row[1]), "file_name,top1,top2"), 2),
    "CSV, 1,000 scores": ("p.csv", text(scores), 5),
    "CSV, 1,000 scores in a cell": ("p.csv", text(lambda row: [" ".join(map(str, scores(row)))], "id,logits"), 5),
    "TSV": ("p.tsv", text(lambda row: row, f"file_name\t{TOP_COLUMNS}".replace(",", "\t"), by="\t"), 5),
    "TSV without header": ("p.tsv", text(lambda row: row, by="\t"), 5),
    "TSV, upper case": ("P.TSV", text(first, "file_name\ttop1", by="\t"), 1),
    "JSON mapping": ("p.json", json.dumps(mapping(lambda row: row[0])), 1),
    "JSON mapping to lists": ("p.json", json.dumps(mapping(list)), 5),
    "JSON mapping to wnids": ("p.json", json.dumps(mapping(lambda row: wnid(row[0]))), 1),
    "JSON mapping to whole floats": ("p.json", json.dumps(mapping(lambda row: float(row[0]))), 1),
    "JSON mapping to text": ("p.json", json.dumps(mapping(lambda row: " ".join(map(wnid, row)))), 5),
    "JSON mapping to scores": ("p.json", json.dumps(mapping(scores)), 5),
    "JSON with a byte order mark": ("p.json", b"\xef\xbb\xbf" + json.dumps(mapping(list)).encode(), 5),
    "JSON list": ("p.json", json.dumps(records(lambda row: {"label": row[0]})), 1),
    "JSON list, top 5": ("p.json", json.dumps(records(lambda row: {"top5": row})), 5),
    "JSON list, ranked": ("p.json", json.dumps(records(ranked)), 5),
    "JSONL": ("p.jsonl", "\n".join(map(json.dumps, records(lambda row: {"Prediction": row[0]}))), 1),
    "JSONL, blank lines": ("p.jsonl", "\n\n".join(map(json.dumps, records(lambda row: {"pred": row}))) + "\n\n", 5),
    "JSONL, ranked": ("p.jsonl", "\n".join(map(json.dumps, records(ranked))), 5),
    "JSONL, top 1": ("p.jsonl", "\n".join(map(json.dumps, records(lambda row: {"top1": row[0]}))), 1),
    "JSONL, scores": ("p.jsonl", "\n".join(map(json.dumps, records(lambda row: {"scores": scores(row)}))), 5),
    "JSONL with a byte order mark": (
        "p.jsonl",
        b"\xef\xbb\xbf" + "\n".join(map(json.dumps, records(lambda row: {"pred": row}))).encode(),
        5,
    ),
    "NPZ": ("p.npz", npz(key=NAMES, classes=TABLE[:, 0]), 1),
    "NPZ, column": ("p.npz", npz(keys=NAMES, predictions=TABLE[:, :1].astype(np.int16)), 1),
    "NPZ, top 5": ("p.npz", npz(file_names=NAMES, top5=TABLE.astype(np.uint16)), 5),
    "NPZ, wnids": ("p.npz", npz(file_name=NAMES, classes=[[wnid(label) for label in row] for row in TABLE]), 5),
    "NPZ, scores": ("p.npz", npz(key=NAMES, scores=np.array([scores(row) for row in TABLE], np.float32)), 5),
    "NPZ, scores of 16 bits": ("p.npz", npz(key=NAMES, logits=np.array([scores(row) for row in TABLE], np.float16)), 5),
    "NPZ, integer scores": ("p.npz", npz(key=NAMES, logits=2 * np.array([scores(row) for row in TABLE], np.int8)), 5),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predictions")


def expected(depth: int) -> list[list[int]]:
    return [[*row[:depth], *[-1] * (TOP - depth)] for row in ROWS]


def is_valid(found: Predictions) -> bool:
    """Return whether predictions keep every promise of their class."""
    table: NDArray[np.int64] = found.classes
    return (
        list(found.keys) == sorted(set(found.keys))
        and all(isinstance(key, str) for key in found.keys)
        and (table.dtype.str, table.shape) == ("<i8", (len(found), TOP))
        and bool(((table >= -1) & (table < NUM_CLASSES)).all())
        and bool((table[:, 0] >= 0).all())
        and (found.probabilities.dtype.str, found.probabilities.shape) == ("<f4", table.shape)
    )


# --- every spelling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", NAMED)
def test_named_predictions_are_read_in_every_form(folder: Path, form: str) -> None:
    """Whatever the kind of file, its order and the way classes are written, the same predictions come out, by key."""
    name, content, depth = NAMED[form]
    found = read(folder, name, content)
    assert found.keys == KEYS
    assert found.classes.tolist() == expected(depth)
    assert is_valid(found)
    assert np.isnan(found.probabilities).all()


@needs_pyarrow
@pytest.mark.parametrize(
    ("columns", "depth"),
    [
        ({"file_name": NAMES, "prediction": TABLE[:, 0]}, 1),
        ({"Key": NAMES, "Prediction": [wnid(label) for label in TABLE[:, 0]]}, 1),
        ({"id": NAMES, "top5": TABLE.tolist()}, 5),
        ({"file_name": NAMES, **{f"top{place + 1}": TABLE[:, place].astype(np.int16) for place in range(5)}}, 5),
        ({"file_name": NAMES, "logits": [scores(row) for row in TABLE]}, 5),
    ],
)
def test_named_predictions_are_read_from_parquet(folder: Path, columns: dict[str, Any], depth: int) -> None:
    """Parquet columns of numbers, wnids, lists and scores mean the same as in other files."""
    found = read(folder, "p.parquet", parquet(**columns))
    assert found.keys == KEYS
    assert found.classes.tolist() == expected(depth)


@pytest.mark.parametrize(
    "header",
    [
        *(
            f"{name},prediction"
            for name in ("file_name", "filename", "file", "key", "image", "image_id", "ImageId", "id", "name", "path")
        ),
        *(
            f"key,{name}"
            for name in ("top1", "classes", "class", "predictions", "prediction", "pred", "label", "logits", "scores")
        ),
    ],
)
def test_usual_column_names_are_known(folder: Path, header: str) -> None:
    """The names that people give to these two columns are understood, in any case of letters."""
    assert read(folder, "p.csv", text(first, header)).classes.tolist() == expected(1)


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        ("ILSVRC2012_val_00000001.JPEG", KEYS[0]),
        ("ILSVRC2012_val_00000001", KEYS[0]),
        ("ILSVRC2012_val_00000001.jpg", KEYS[0]),
        ("ILSVRC2012_val_00000001.png", KEYS[0]),
        ("ILSVRC2012_val_00000001_n01751748.JPEG", KEYS[0]),
        ("ILSVRC2012_val_00000001_n01751748", KEYS[0]),
        ("/data/val/n01751748/ILSVRC2012_val_00000001.JPEG", KEYS[0]),
        ("val/ILSVRC2012_val_00000001_n01751748.JPEG", KEYS[0]),
        ("ILSVRC2012_val_00050000.JPEG", KEYS[2]),
        ("dog.jpeg", "dog"),
        ("ILSVRC2012_val_00050001.JPEG", "ILSVRC2012_val_00050001"),
        ("n01440764_10026.JPEG", "n01440764_10026"),
    ],
)
def test_names_are_known_in_every_spelling(folder: Path, spelling: str, key: str) -> None:
    """File name, key, path and the Hugging Face spelling name the same image; other names keep their stem."""
    assert read_predictions({spelling: 5}).keys == (key,)
    assert read(folder, "p.csv", f"{spelling},5\n").keys == (key,)


def in_order(values: Any) -> dict[str, tuple[str, Callable[[], str | bytes]]]:
    """Return files that say these 50,000 classes without a name."""
    return {
        "CSV": ("p.csv", lambda: "".join(f"{label}\n" for label in values)),
        "CSV with header": ("p.csv", lambda: "prediction\n" + "".join(f"{label}\n" for label in values)),
        "CSV with header top1": ("p.csv", lambda: "top1\n" + "".join(f"{label}\n" for label in values)),
        "CSV, lists": ("p.csv", lambda: "".join(f'"{label} 3 4"\n' for label in values)),
        "CSV, ranked": ("p.csv", lambda: "top1,top2,top3\n" + "".join(f"{label},3,4\n" for label in values)),
        "TSV, wnids": ("p.tsv", lambda: "".join(f"{wnid(label)}\n" for label in values)),
        "JSON": ("p.json", lambda: json.dumps(values)),
        "JSON, lists": ("p.json", lambda: json.dumps([[label, 3, 4] for label in values])),
        "JSONL": ("p.jsonl", lambda: "".join(f"{label}\n" for label in values)),
        "NPY": ("p.npy", lambda: npy(values)),
        "NPY, 16 bits": ("p.npy", lambda: npy(np.array(values, np.uint16))),
        "NPY, big endian column": ("p.npy", lambda: npy(np.array(values, ">i4")[:, None])),
        "NPY, top 3, column order": ("p.npy", lambda: npy(np.asfortranarray([[label, 3, 4] for label in values]))),
        "NPY, wnids": ("p.npy", lambda: npy([wnid(label) for label in values])),
        "NPZ": ("p.npz", lambda: npz(classes=values)),
    }


@pytest.mark.parametrize("form", in_order([]))
def test_the_50000_in_order_need_no_names(folder: Path, form: str) -> None:
    """Without names the 50,000 predictions are those of the sorted file names."""
    name, content = in_order(list(bundled().original))[form]
    found = read(folder, name, content())
    assert found.keys[:: NUM_IMAGES - 1] == (KEYS[0], KEYS[2])
    assert tuple(found.classes[:, 0].tolist()) == bundled().original
    assert (
        found.classes[:, 1:] == ([3, 4, -1, -1] if "3" in form or "lists" in form or "ranked" in form else -1)
    ).all()


def test_the_50000_in_order_may_be_scores(folder: Path) -> None:
    """A matrix (50000, 1000) is scores; equal ones rank by class index."""
    matrix = np.zeros((NUM_IMAGES, NUM_CLASSES), np.int8)
    matrix[np.arange(NUM_IMAGES), bundled().original] = 2
    matrix[:, 500] += 1
    np.save(folder / "p.npy", matrix)
    found = read_predictions(folder / "p.npy")
    assert tuple(found.classes[:, 0].tolist()) == bundled().original
    assert found.classes[0].tolist() == [65, 500, 0, 1, 2]


@pytest.mark.parametrize("make", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_sequences_and_mappings_of_python_are_read(make: Callable[[Any], Any]) -> None:
    """What is at hand in Python needs no file."""
    assert tuple(read_predictions(make(bundled().original)).classes[:, 0].tolist()) == bundled().original
    found = read_predictions({name: make(ROWS[place]) for name, place in zip(NAMES, ORDER, strict=True)})
    assert (found.keys, found.classes.tolist()) == (KEYS, expected(5))


@pytest.mark.parametrize("value", [np.int64(65), np.array(65), np.uint8(65), "65", wnid(65), [65], (65,), 65.0])
def test_one_class_may_be_any_kind_of_number(value: Any) -> None:
    """Scalars of NumPy are numbers like others."""
    assert read_predictions({KEYS[0]: value}).classes.tolist() == expected(1)[:1]


def test_equal_scores_rank_by_class_index() -> None:
    """As in the metric, so that a tie means the same in a file of scores as in the run."""
    assert read_predictions({KEYS[0]: [0.0] * 999 + [1.0]}).classes.tolist() == [[999, 0, 1, 2, 3]]


def test_a_label_beside_ranked_predictions_is_not_the_prediction(folder: Path) -> None:
    """A column with the truth beside top1 ... is ignored, in a table and in records."""
    table = read(folder, "p.csv", text(lambda row: (7, *row), f"file_name,label,{TOP_COLUMNS}"))
    listed = read(folder, "p.json", json.dumps(records(lambda row: {"label": 7, **ranked(row)})))
    assert table.classes.tolist() == listed.classes.tolist() == expected(5)


# --- refused ----------------------------------------------------------------------------------------------------------

KEY = KEYS[0]
OF_KEY = [KEY]
HUGE_SHAPE = npy([1]).replace(b"'shape': (1,), }" + b" " * 15, b"'shape': (999999999999999,), }" + b" ", 1)
DEFLATED = io.BytesIO()
np.savez_compressed(DEFLATED, classes=np.arange(1000), key=np.array([f"key{number}" for number in range(1000)]))
ODD_BLOCK = DEFLATED.getvalue()[:60] + b"\xff" * 20 + DEFLATED.getvalue()[80:]
STORED = npz(key=OF_KEY, classes=[1])

# A file of this name and content is refused with these words, after its path.
BAD: dict[str, tuple[str, str | bytes, list[str]]] = {
    **{
        f"class {value} in a CSV": ("p.csv", f"file_name,top1\n{KEY},{value}\n", [KEY, value, "0..999"])
        for value in ("1000", "-1", "1.5", "nan", "inf", "1e-2", "1e3", "1.5e0", "0x41",
                      "snake", "n00000000", "1_0",
                      "\u0663")
    },
    **{
        f"class {value[:12]} in JSON": ("p.json", f'{{"{KEY}": {value}}}', [KEY, "is not a class"])
        for value in ("1000", "-1", "1.5", "NaN", "Infinity", "-Infinity", "1e999", "1" * 400, "null", "true", "{}",
                      '"dog"', "[[1]]", "[null]", "[1, 1000]", "[1, 1.5]")
    },
    "no class in a CSV": ("p.csv", f"file_name,top1\n{KEY},\n", [KEY]),
    "no class in JSON": ("p.json", f'{{"{KEY}": []}}', [KEY, "not a class"]),
    "six classes": ("p.json", f'{{"{KEY}": [1, 2, 3, 4, 5, 6]}}', [KEY, "6 classes"]),
    "999 scores": ("p.json", json.dumps({KEY: [0.5] * 999}), [KEY]),
    "NaN among scores": ("p.json", json.dumps({KEY: [NAN] * 1000}), [KEY, "NaN"]),
    "words for scores": ("p.json", json.dumps({KEY: ["x"] * 1000}), [KEY]),
    "objects for scores": ("p.json", json.dumps({KEY: [{}] * 1000}), [KEY]),
    "lists for scores": ("p.json", json.dumps({KEY: [[1]] * 1000}), [KEY]),
    "the development kit's numbers": ("p.json", json.dumps([1000] + [1] * 49_999), [KEY, "1000", "1..1000"]),
    "doubled column": ("p.csv", f"key,top1,top1\n{KEY},1,2\n", ["top1"]),
    "short row under a header": ("p.csv", f"key,top1,top2\n{KEY},1,2\n{KEYS[1]},1\n", ["3"]),
    "long row under a header": ("p.csv", f"key,top1\n{KEY},1\n{KEYS[1]},1,2\n", ["3"]),
    "short row": ("p.csv", f"{KEY},1\n{KEYS[1]}\n", [KEYS[1]]),
    "a row of two among rows of one": ("p.csv", "1\n2,3\n" + "1\n" * 49_998, ["2"]),
    "49,999 without names": ("p.csv", "1\n" * 49_999, ["49,999", "50,000"]),
    "50,001 without names": ("p.json", json.dumps([1] * 50_001), ["50,001", "50,000"]),
    "49,999 in an array": ("p.npy", npy(np.ones(49_999, int)), ["49,999", "50,000"]),
    "fewer names than classes": ("p.npz", npz(key=OF_KEY, classes=[1, 2]), ["1", "2"]),
    "more names than classes": ("p.npz", npz(key=KEYS, classes=[1, 2]), ["3", "2"]),
    "more names than wnids": ("p.npz", npz(key=KEYS, classes=[wnid(1)]), ["3", "1"]),
    "one name that is no array": ("p.npz", npz(key=KEY, classes=[1]), ["key"]),
    "one class that is no array": ("p.npz", npz(key=OF_KEY, classes=1), ["classes"]),
    "a number": ("p.npy", npy(5), []),
    "no column": ("p.npy", npy(np.ones((50_000, 0), int)), ["(50000, 0)"]),
    "six columns": ("p.npy", npy(np.ones((50_000, 6), int)), ["(50000, 6)"]),
    "three axes": ("p.npy", npy(np.ones((50_000, 1, 1), int)), ["(50000, 1, 1)"]),
    "floats": ("p.npy", npy(np.full(50_000, 0.5)), ["row 0", "0.5"]),
    "float columns": ("p.npy", npy(np.full((50_000, 5), 0.5)), ["row 0", "0.5"]),
    "complex": ("p.npy", npy(np.ones(50_000, complex)), []),
    "truth values": ("p.npy", npy(np.ones(50_000, bool)), []),
    "dates": ("p.npy", npy(np.ones(50_000, "M8[D]")), []),
    "structures": ("p.npy", npy(np.ones(50_000, [("a", int)])), []),
    "class 1000 in an array": ("p.npz", npz(key=KEYS, classes=[1, 1000, 2]), ["row 1", "1000"]),
    "class -1 in an array": ("p.npz", npz(key=KEYS, classes=[[1, 2], [2, 3], [-1, 5]]), ["row 2", "-1"]),
    "class -2 behind": ("p.npz", npz(key=KEYS, classes=[[1, -2], [2, 3], [2, 5]]), ["row 0", "-2"]),
    "class 2**64 - 1": ("p.npz", npz(key=OF_KEY, classes=np.array([[1, 2**64 - 1]], np.uint64)), ["row 0"]),
    "NaN among an array's scores": ("p.npz", npz(key=OF_KEY, scores=[[NAN] + [1.0] * 999]), ["NaN"]),
    "too few probabilities": ("p.npz", npz(key=KEYS, classes=TABLE, probabilities=[0.5]), ["probabilities"]),
    "a probability an image": ("p.npz", npz(key=KEYS, classes=TABLE, probabilities=[0.5] * 3), ["probabilities"]),
    "words for probabilities": ("p.npz", npz(key=OF_KEY, classes=[1], probabilities=[["a"] * 5]), ["probabilities"]),
    "a word for a probability": ("p.csv", f"key,top1,prob1,prob2,prob3,prob4,prob5\n{KEY},1,x,0,0,0,0\n", ["'x'"]),
    "no classes in an NPZ": ("p.npz", npz(key=OF_KEY, loss=[1.0]), ["classes", "loss"]),
    "no classes in a CSV": ("p.csv", f"file_name,loss\n{KEY},1\n", ["loss"]),
    "no prediction in a record": ("p.jsonl", f'{{"key": "{KEY}"}}\n', ["no column of classes", "key"]),
    "no name in a record": ("p.json", '[{"key": "a", "pred": 1}, {"pred": 1}]', ["record 1"]),
    "a number among records": ("p.json", '[{"key": "a", "pred": 1}, 5]', ["record 1"]),
    "a JSON number": ("p.json", "5", ["int"]),
    "JSON of no end": ("p.json", f'{{"{KEY}": 1', []),
    "deep JSON": ("p.json", "[" * 100_000, []),
    "deep JSONL": ("p.jsonl", '{"a":' * 100_000, []),
    "a byte that is no text": ("p.csv", b"\xff\xfe1\n", []),
    "an array of another kind": ("p.npy", npz(loss=[1.0]), ["array"]),
    "pickle": ("p.npy", pickle.dumps(list(range(50_000))), ["not an array that NumPy wrote"]),
    "array of pickles": ("p.npy", npy(np.array([{}] * 3, object)), ["Python objects, which are not loaded"]),
    "array of pickles in an NPZ": (
        "p.npz", npz(key=OF_KEY, classes=np.array([{}], object)), ["'classes' holds Python objects"],
    ),
    "a shape that fits no memory": ("p.npy", HUGE_SHAPE, []),
    "a member that is no array": ("p.npz", STORED.replace(b"\x93NUMPY", b"\x93NUMPX"), []),
    "a damaged deflated member": ("p.npz", ODD_BLOCK, []),
    "unknown kind of file": ("p.xlsx", "1\n", [".csv", ".parquet"]),
    "no kind of file": ("predictions", "1\n", ["unknown kind"]),
    **{f"empty {kind}": (f"p.{kind}", b"", []) for kind in ("csv", "tsv", "json", "jsonl", "npy", "npz")},
    **{
        f"garbage as {kind}": (f"p.{kind}", bytes(range(256)) * 4, [])
        for kind in ("csv", "tsv", "json", "jsonl", "npy", "npz")
    },
}  # fmt: skip


def refused(folder: Path, name: str, content: str | bytes) -> str:
    """Return the message a file is refused with, after its path."""
    with pytest.raises(PredictionsError) as caught:
        read(folder, name, content)
    message = str(caught.value)
    assert message.startswith(f"{folder / name}: ")
    return message.removeprefix(f"{folder / name}: ")


@pytest.mark.parametrize("fault", BAD)
def test_a_wrong_file_is_a_predictions_error_that_says_where(folder: Path, fault: str) -> None:
    """Each kind of fault names the file and, where there is one, the image or row, and what was found."""
    name, content, words = BAD[fault]
    message = refused(folder, name, content)
    assert [word for word in words if word not in message] == []


DOUBLED: dict[str, tuple[str, str | bytes]] = {
    "CSV": ("p.csv", f"key,top1\n{KEY},1\n{KEYS[1]},1\n{KEY},1\n"),
    "CSV, spelled otherwise": ("p.csv", f"{KEY},1\nval/{KEY}_n01751748.jpg,2\n"),
    "JSON mapping": ("p.json", f'{{"{KEY}": 1, "{KEY}": 2}}'),
    "JSON mapping, spelled otherwise": ("p.json", f'{{"{KEY}": 1, "{KEY}.JPEG": 2}}'),
    "JSONL": ("p.jsonl", f'{{"key": "{KEY}", "pred": 1}}\n' * 2),
    "NPZ": ("p.npz", npz(key=OF_KEY * 2, classes=[1, 2])),
}


@pytest.mark.parametrize("form", DOUBLED)
def test_a_doubled_image_is_a_coverage_error(folder: Path, form: str) -> None:
    """Two predictions for one image, under one spelling of its name or two, are refused by its key."""
    name, content = DOUBLED[form]
    words = rf"{re.escape(name)}: 1 image has more than one prediction: {KEY}"
    with pytest.raises(CoverageError, match=words) as caught:
        read(folder, name, content)
    assert (caught.value.doubled, caught.value.missing) == ((KEY,), ())


@needs_pyarrow
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"key": [KEY], "pred": [1000]}, [KEY, "1000"]),
        ({"key": [KEY], "pred": [1.5]}, [KEY, "1.5"]),
        ({"key": [KEY], "pred": [None]}, [KEY, "None"]),
        ({"key": [KEY], "pred": [True]}, [KEY, "True"]),
        ({"key": [KEY], "top5": [[1, 2, 3, 4, 5, 6]]}, [KEY, "6 classes"]),
        ({"key": [KEY], "pred": [1], "Pred": [2]}, ["pred"]),
        ({"key": [KEY], "loss": [1.0]}, ["loss"]),
        ({"pred": [1, 2]}, ["2 predictions without names"]),
        ({"key": [KEY], "pred": [1], **{f"prob{place}": [[0.5]] for place in range(1, 6)}}, []),
        ({"key": [KEY], "pred": [1], **{f"prob{place}": ["x"] for place in range(1, 6)}}, ["'x'"]),
    ],
)
def test_a_wrong_parquet_is_a_predictions_error(folder: Path, columns: dict[str, Any], words: list[str]) -> None:
    """Parquet is checked as the others are."""
    message = refused(folder, "p.parquet", parquet(**columns))
    assert [word for word in words if word not in message] == []


@needs_pyarrow
@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(range(256)) + b"PAR1", b"not parquet" * 9])
def test_what_is_no_parquet_is_a_predictions_error(folder: Path, content: bytes) -> None:
    """A cut Parquet file, and other bytes under its name, are refused."""
    refused(folder, "p.parquet", content)


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "npy", "npz", pytest.param("parquet", marks=needs_pyarrow)])
def test_missing_files_and_folders_are_predictions_errors(tmp_path: Path, kind: str) -> None:
    """Where there is no file to read, the error says so."""
    with pytest.raises(PredictionsError, match=r"nope\.\w+: no such file"):
        read_predictions(tmp_path / f"nope.{kind}")
    (tmp_path / f"folder.{kind}").mkdir()
    with pytest.raises(PredictionsError, match=rf"folder\.{kind}: "):
        read_predictions(str(tmp_path / f"folder.{kind}"))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({KEY: float("inf")}, id="infinity"),
        pytest.param({KEY: 10**400}, id="a huge number"),
        pytest.param({KEY: None}, id="None"),
        pytest.param({KEY: {1, 2}}, id="a set"),
        pytest.param({KEY: np.array([[1, 2]])}, id="a matrix"),
        pytest.param({KEY: np.array(["x"] * 1000)}, id="words"),
        pytest.param([1, 2, 3], id="a short list"),
        pytest.param(np.ones((3, 5), int), id="a short array"),
        pytest.param(np.full(NUM_IMAGES, 0.5), id="floats"),
        pytest.param([None] * NUM_IMAGES, id="nothing"),
    ],
)
def test_a_wrong_mapping_or_array_is_a_predictions_error(content: Any) -> None:
    """Without a file the error says that the mapping or the array is meant."""
    with pytest.raises(PredictionsError, match=r"^the (mapping|array): "):
        read_predictions(content)


def read_or_refuse(folder: Path, name: str, content: bytes) -> None:
    try:
        found = read(folder, name, content)
    except (PredictionsError, CoverageError) as error:
        assert str(error).startswith(f"{folder / name}: ")  # noqa: PT017 -- either outcome is right
    else:
        assert is_valid(found)


KINDS = ["csv", "tsv", "json", "jsonl", "npy", "npz", pytest.param("parquet", marks=needs_pyarrow)]


@pytest.mark.parametrize("kind", KINDS)
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(lambda drawn: drawn.encode("utf-8", "replace")))
@settings(max_examples=60)
def test_any_bytes_are_refused_or_valid(folder: Path, kind: str, content: bytes) -> None:
    """Whatever is in a file, reading it gives valid predictions, or a PredictionsError or CoverageError."""
    read_or_refuse(folder, f"any.{kind}", content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([KEY, wnid(5), "", "1 2", "pred", "key"]),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.sampled_from([*KEYS, "key", "pred", "top1", "file_name", "classes"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(content=json_values)
@settings(max_examples=150)
def test_any_json_is_refused_or_valid(folder: Path, content: Any) -> None:
    """Every shape of JSON, as a document and as a line."""
    for kind in ("json", "jsonl"):
        read_or_refuse(folder, f"any.{kind}", json.dumps(content).encode())


VALID = {
    "csv": CERTAIN.encode(),
    "tsv": text(lambda row: row, f"file_name\t{TOP_COLUMNS}".replace(",", "\t"), by="\t").encode(),
    "json": json.dumps(mapping(list)).encode(),
    "jsonl": "\n".join(map(json.dumps, records(lambda row: {"top5": row}))).encode(),
    "npy": npy(TABLE),
    "npz": npz(key=NAMES, classes=TABLE, probabilities=np.ones((3, 5), np.float32)),
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=120)
def test_damaged_files_are_refused_or_valid(folder: Path, kind: str, data: st.DataObject) -> None:
    """A file with bytes changed, removed, inserted or cut off gives valid predictions or one of the two errors."""
    content = bytearray(CERTAIN.encode("parquet") if kind == "parquet" else VALID[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        length = data.draw(st.sampled_from([0, 1, 1, 1, 4, len(content)]))
        content[place : place + length] = data.draw(st.binary(max_size=4))
    read_or_refuse(folder, f"damaged.{kind}", bytes(content))


def test_names_are_found_by_what_they_are(folder: Path) -> None:
    """A column of validation images' names is the names', whatever it is called, also an index without a name."""
    for header in ("img,top1", "img_path,top1", ",top1", "filepath,top1"):
        path = folder / "named.csv"
        path.write_text(text(first, header))
        found = read_predictions(path)
        assert found.keys == KEYS
        assert found.classes[:, 0].tolist() == [row[0] for row in ROWS]
        assert "names from" in found.origin


def test_a_file_with_an_unexplained_column_is_not_taken_to_be_in_order(folder: Path) -> None:
    """Only a file of nothing but predictions is read by row order; another column could be names we do not know."""
    path = folder / "shuffled.csv"
    path.write_text("photo,pred\n" + "".join(f"img{number},{number % 1000}\n" for number in range(NUM_IMAGES)))
    with pytest.raises(PredictionsError, match="is known to hold the images' names"):
        read_predictions(path)
    path.write_text("pred\n" + "".join(f"{number % 1000}\n" for number in range(NUM_IMAGES)))
    assert read_predictions(path).origin == "in the order of the sorted file names, classes from 'pred'"


def test_columns_can_be_named(folder: Path) -> None:
    """Where names do not tell, or two columns could be meant, the caller says which."""
    path = folder / "odd.csv"
    path.write_text(text(lambda row: (row[1], row[0]), "who,label,guess"))
    assert read_predictions(path, class_column="guess").classes[0, 0] == ROWS[0][0]
    path.write_text(text(lambda row: (row[1], row[0]), "who,pred,class"))
    with pytest.raises(PredictionsError, match="could hold the classes"):
        read_predictions(path)
    with pytest.raises(PredictionsError, match="no column 'nope' among who, pred, class"):
        read_predictions(path, class_column="nope")
    assert read_predictions(path, name_column="who", class_column="class").classes[0, 0] == ROWS[0][0]


@pytest.mark.parametrize(
    "content",
    [
        "filename,index,prob\n" + "".join(f'{name},"[65, 4, 3, 2, 1]",0.5\n' for name in NAMES),
        "filename,index_0,index_1,index_2,index_3,index_4\n" + "".join(f"{name},65,4,3,2,1\n" for name in NAMES),
        "ImageId,PredictionString\n"
        + "".join(f"{name[:-5]},{' '.join(f'{wnid(label)} 1 2 3 4' for label in ROWS[0])}\n" for name in NAMES),
        "file_name;top1;top2;top3;top4;top5\n" + "".join(f"{name};65;4;3;2;1\n" for name in NAMES),
    ],
    ids=["list in a cell", "numbered columns", "wnids with boxes", "semicolons"],
)
def test_spellings_of_other_tools_are_read(folder: Path, content: str) -> None:
    """What timm's inference script, Kaggle and spreadsheets write."""
    path = folder / "other.csv"
    path.write_text(content)
    assert read_predictions(path).classes.tolist() == [list(ROWS[0])] * 3
