"""Predictions of models with other outputs become those of the 1,000 classes, or it is said why not."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.prediction_files import KEYS, needs_pyarrow, npz, parquet

from wds_real import PredictionsError, SourceError, read_predictions
from wds_real.labels import NUM_CLASSES, classes
from wds_real.labels.class_maps import background_map, read_class_map

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wds_real.labels.class_maps import ClassMap

COUNT = 30
NAMES = [f"{key}.JPEG" for key in KEYS[:COUNT]]
TOP5 = np.random.default_rng(1).permuted(np.tile(np.arange(NUM_CLASSES), (COUNT, 1)), axis=1)[:, :5]


def table(**columns: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["filename", *columns])
    writer.writerows(zip(NAMES, *columns.values(), strict=True))
    return text.getvalue()


@pytest.fixture(params=["first", "last", "permuted", "21k"])
def class_map(request: pytest.FixtureRequest, tmp_path: Path) -> ClassMap:
    """Maps of four kinds of models."""
    if request.param in ("first", "last"):
        return background_map(request.param)
    lines = [info.wnid for info in classes()] + [f"n9{number:07d}" for number in range(2000 * (request.param == "21k"))]
    path = tmp_path / "map.txt"
    path.write_text("\n".join(np.random.default_rng(2).permutation(lines).tolist()))
    return read_class_map(path)


def scores_of(class_map: ClassMap) -> NDArray[np.float32]:
    """Return scores of all outputs: the five best classes in order, beaten only by outputs that are no class."""
    scores = np.where(class_map.class_of_output() < 0, 9.0, -1.0)[None].repeat(COUNT, axis=0)
    scores[np.arange(COUNT)[:, None], class_map.outputs[TOP5]] = [5, 4, 3, 2, 1]
    return scores.astype(np.float32)


def expect(found: Any, expected: NDArray[np.int64] = TOP5) -> None:
    assert found.keys == KEYS[:COUNT]
    assert found.classes[:, : expected.shape[1]].tolist() == expected.tolist()
    assert (found.classes[:, expected.shape[1] :] == -1).all()


@pytest.mark.parametrize(
    "form", ["npz", "json", "csv of text", "csv of columns", pytest.param("parquet", marks=needs_pyarrow)]
)
def test_scores_of_all_outputs_are_those_of_the_classes(class_map: ClassMap, form: str, tmp_path: Path) -> None:
    """In every kind of file; outputs that are no class are left out, as in an evaluation."""
    scores = scores_of(class_map)
    if form == "npz":
        name, content = "p.npz", npz(filename=np.array(NAMES), logits=scores)
    elif form == "json":
        name, content = "p.json", json.dumps(dict(zip(NAMES, scores.tolist(), strict=True))).encode()
    elif form == "csv of text":
        name, content = "p.csv", table(logits=[str(row) for row in scores.tolist()]).encode()
    elif form == "parquet":
        name, content = "p.parquet", parquet(filename=NAMES, logits=scores.tolist())
    else:
        columns = {f"prob_{output}": column.tolist() for output, column in enumerate(scores.T)}
        name, content = "p.csv", table(**columns).encode()
    (tmp_path / name).write_bytes(content)
    found = read_predictions(tmp_path / name, class_map=class_map)
    expect(found)
    assert f"of {class_map.num_outputs:,} outputs" in found.origin
    assert not found.notes


@pytest.mark.parametrize("form", ["npz", "one column", "five columns", "lists"])
@pytest.mark.parametrize("width", [1, 5])
def test_numbers_of_outputs_become_classes(class_map: ClassMap, form: str, width: int, tmp_path: Path) -> None:
    """Of the best output, or of the five best; padding of -1 stays."""
    outputs = class_map.outputs[TOP5[:, :width]]
    if form == "npz":
        name, content = "p.npz", npz(filename=np.array(NAMES), pred=outputs[:, 0] if width == 1 else outputs)
    elif form == "five columns":
        padded = np.pad(outputs, ((0, 0), (0, 5 - width)), constant_values=-1)
        name, content = "p.csv", table(**{f"top{rank + 1}": padded[:, rank].tolist() for rank in range(5)}).encode()
    elif form == "lists":
        name, content = "p.json", json.dumps(dict(zip(NAMES, outputs.tolist(), strict=True))).encode()
    else:
        name, content = "p.csv", table(pred=[" ".join(map(str, row)) for row in outputs.tolist()]).encode()
    (tmp_path / name).write_bytes(content)
    expect(read_predictions(tmp_path / name, class_map=class_map, class_column=None), TOP5[:, :width])


def test_wnids_are_no_numbers_of_outputs(class_map: ClassMap, tmp_path: Path) -> None:
    """They name their class, whatever the outputs are."""
    (tmp_path / "p.csv").write_text(table(pred=[classes()[label].wnid for label in TOP5[:, 0].tolist()]))
    expect(read_predictions(tmp_path / "p.csv", class_map=class_map), TOP5[:, :1])


@pytest.mark.parametrize("form", ["columns", "lists"])
def test_a_background_among_the_best_is_left_out_and_noted(form: str, tmp_path: Path) -> None:
    """The next best class takes its place; probabilities, which would be of other ranks, are not kept."""
    outputs = TOP5 + 1
    outputs[3, 1:] = outputs[3, :-1].copy()
    outputs[3, 0] = 0
    expected = TOP5.copy()
    expected[3] = [*TOP5[3, :4], -1]
    columns = {f"top{rank + 1}": outputs[:, rank].tolist() for rank in range(5)}
    columns |= {f"prob{rank + 1}": [0.1] * COUNT for rank in range(5)}
    path = tmp_path / "p.csv"
    path.write_text(table(**columns) if form == "columns" else table(pred=[str(row) for row in outputs.tolist()]))
    found = read_predictions(path, background="first")
    assert found.classes.tolist() == expected.tolist()
    assert found.notes == ("1 rows hold answers that are none of the 1,000 classes; the next best ones count.",)
    assert np.isnan(found.probabilities).all()


def test_what_does_not_go_with_the_map_is_refused(tmp_path: Path) -> None:
    """In one line that names the row."""
    path = tmp_path / "p.csv"
    for values, text in [
        ([0] + [5] * (COUNT - 1), "row 0 has only answers that are none of the 1,000 classes, such as the background"),
        ([5] * (COUNT - 1) + [1001], "row 29 is 1001, but the class map is for outputs 0 to 1000"),
        ([5, "tabby-ish"] + [5] * (COUNT - 2), "'tabby-ish' is not a class"),
        ([str([0.5] * 1000)] * COUNT, "row 0 has 1,000 values, but the class map is for 1,001 outputs"),
        ([str([0.5] * 1001)] * (COUNT - 1) + ["[0.5]"], "row 29 has 1 scores, expected 1,001"),
    ]:
        path.write_text(table(pred=values))
        with pytest.raises(PredictionsError, match=rf"p\.csv: .*{text}"):
            read_predictions(path, background="first")
    with pytest.raises(SourceError, match="No such file"):
        read_predictions(path, class_map=tmp_path / "none.txt")
    with pytest.raises(ValueError, match="exclude each other"):
        read_predictions(path, class_map=background_map("last"), background="last")


def test_scores_without_a_map_have_the_option_to_add(tmp_path: Path) -> None:
    """1,001 may hold the background; more need a map."""
    path = tmp_path / "p.npz"
    for width, text in [(1001, "--background first, or --background last"), (21_843, "--class-map FILE")]:
        path.write_bytes(npz(filename=np.array(NAMES[:2]), logits=np.zeros((2, width), dtype=np.float32)))
        with pytest.raises(PredictionsError, match=text):
            read_predictions(path)
        (tmp_path / "p.csv").write_text(f"{NAMES[0]},{','.join(['0.5'] * width)}\n")
        with pytest.raises(PredictionsError, match=text):
            read_predictions(tmp_path / "p.csv")
        (tmp_path / "p.json").write_text(json.dumps({NAMES[0]: [0.5] * width}))
        with pytest.raises(PredictionsError, match=text):
            read_predictions(tmp_path / "p.json")


@pytest.mark.parametrize("separator", [",", "\t"])
def test_scores_under_their_wnids_need_no_map(separator: str, tmp_path: Path) -> None:
    """The header says which is which, so a map does not change them."""
    order = np.random.default_rng(4).permutation(NUM_CLASSES)
    path = tmp_path / "p.csv"
    scores = np.zeros((COUNT, NUM_CLASSES))
    scores[np.arange(COUNT)[:, None], TOP5] = [5, 4, 3, 2, 1]
    rows = [["filename", *(classes()[label].wnid for label in order.tolist())]]
    rows += [[name, *map(str, row)] for name, row in zip(NAMES, scores[:, order].tolist(), strict=True)]
    path.write_text("\n".join(separator.join(row) for row in rows))
    expect(read_predictions(path))
    expect(read_predictions(path, background="first"))
