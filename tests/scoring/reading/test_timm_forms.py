"""All that timm's ``inference.py`` writes: five kinds of files of classes, names or scores, in one or more columns.

The tables are made as the script makes them, and written by the same calls of pandas.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_CLASSES, classes
from wds_real.scoring.prediction_reader import read_predictions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pandas = pytest.importorskip("pandas")

NAMES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 9)]
LOGITS = np.random.default_rng(0).normal(size=(8, NUM_CLASSES)).astype(np.float32)
LOGITS[0, 0] = LOGITS[1, 896] = LOGITS[2, 282] = LOGITS[3, 2] = 50  # tench; washbasin, handbasin, ...; tiger cat; shark
LOGITS[:, [index for index, info in enumerate(classes()) if info.lemmas in ("crane", "maillot")]] = -50
BEST = np.argsort(-LOGITS, axis=1)[:, :5]
LABELS: dict[str, Callable[[int], str]] = {
    "name": lambda index: classes()[index].wnid,
    "description": lambda index: classes()[index].lemmas,
    "detailed": lambda index: f"{classes()[index].lemmas}: {classes()[index].definition}",
}
WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "csv": lambda table, path: table.to_csv(path, index=False),
    "json": lambda table, path: table.set_index("filename").to_json(path, indent=4, orient="index"),
    "records.json": lambda table, path: table.to_json(path, lines=True, orient="records"),
    "split.json": lambda table, path: table.to_json(path, indent=4, orient="split", index=False),
    "parquet": lambda table, path: table.set_index("filename").to_parquet(path),
}
SHOWN = [("index",), *((label,) for label in LABELS), *(("index", label) for label in LABELS)]


def table(shown: tuple[str, ...], topk: int, *, separate: bool) -> Any:
    """Return the script's table of the best `topk` classes, or of all scores where `topk` is 0."""
    best = BEST[:, :topk]
    parts: dict[str, Any] = {}
    for kind in shown if topk else ():
        named = best if kind == "index" else np.vectorize(LABELS[kind], otypes=[object])(best)
        parts["index" if kind == "index" else "label"] = named
    parts["prob"] = np.take_along_axis(LOGITS, best, axis=1) if topk else LOGITS
    columns: dict[str, Any] = {"filename": NAMES}
    for name, values in parts.items():
        if values.shape[1] == 1:
            columns[name] = list(values[:, 0])
        elif separate:
            columns |= {f"{name}_{place}": values[:, place] for place in range(values.shape[1])}
        else:
            columns[name] = list(values)
    return pandas.DataFrame(columns)


@pytest.fixture(autouse=True)
def _whole_arrays() -> Any:
    """NumPy prints arrays in full, as the script sets it."""
    with np.printoptions(threshold=sys.maxsize):
        yield


@pytest.mark.parametrize("kind", WRITERS)
def test_every_form_is_read(kind: str, tmp_path: Path) -> None:
    """Classes, wnids, names, and both, of the best or the best five, in one column or in several."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    for shown, topk, separate in itertools.product(SHOWN, (1, 5), (False, True)):
        path = tmp_path / f"{'-'.join(shown)}-{topk}-{separate}.{kind}"
        WRITERS[kind](table(shown, topk, separate=separate), path)
        assert read_predictions(path).classes[:, :topk].tolist() == BEST[:, :topk].tolist(), path.name


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("separate", [False, True])
def test_all_scores_are_read(kind: str, separate: bool, tmp_path: Path) -> None:
    """With --topk 0 the file has 1,000 probabilities or logits, in one column or in 1,000."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"scores.{kind}"
    WRITERS[kind](table((), 0, separate=separate), path)
    assert read_predictions(path).classes.tolist() == BEST.tolist()


def test_a_name_of_two_classes_is_refused_with_both(tmp_path: Path) -> None:
    """A crane is a bird or a machine: the message lists both, and the option of the script that says which."""
    path = tmp_path / "crane.csv"
    pandas.DataFrame({"filename": NAMES, "label": ["crane"] * 8, "prob": [0.5] * 8}).to_csv(path, index=False)
    words = r"'crane' names several classes: 134 \(n02012849: crane\), 517 \(n03126707: crane\)\..*--include-index"
    with pytest.raises(PredictionsError, match=words):
        read_predictions(path)


def test_the_class_number_decides_between_two_of_a_name(tmp_path: Path) -> None:
    """With --include-index, an ambiguous description beside the number does no harm."""
    path = tmp_path / "both.csv"
    rows = {"filename": NAMES, "index": [134] * 8, "label": ["crane"] * 8, "prob": [0.5] * 8}
    pandas.DataFrame(rows).to_csv(path, index=False)
    assert set(read_predictions(path).classes[:, 0]) == {134}
