"""The rows of a table of models: result folders, result files and prediction files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wds_real.errors import CoverageError, PredictionsError
from wds_real.labels import bundled
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.ranking.rows import read_model_row
from wds_real.scoring.run.output import write_output
from wds_real.scoring.score import score
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run whose answers are the original labels."""
    path = tmp_path_factory.mktemp("run")
    predictions = read_predictions(list(bundled().original))
    write_output(LocalStore(path), score(predictions), predictions)
    return path


def changed(folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Write the folder's result, changed, and return its path."""
    content = json.loads((folder / "result.json").read_text())
    change(content)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    return path


def test_a_folder_has_counts_and_answers(folder: Path) -> None:
    """The result's counts, and for each image whether ReaL accepts the answer."""
    row = read_model_row(folder)
    assert row.accuracies["real_top1"].correct == 42_164
    assert row.accuracies["original_top1"].correct == 50_000
    assert "original_top5" not in row.accuracies
    assert row.right is not None
    assert int(row.right.sum()) == 42_164
    assert row.failed == 0


def test_a_result_file_alone_has_no_answers(folder: Path, tmp_path: Path) -> None:
    """Without a prediction file beside it, a result can be compared by its interval only."""
    row = read_model_row(changed(folder, tmp_path, lambda content: content["model"].update(name="timm:resnet50")))
    assert (row.name, row.right) == ("timm:resnet50", None)
    assert row.data["split"] == "validation"


def test_facts_of_the_model_are_read(folder: Path, tmp_path: Path) -> None:
    """Parameters, preprocessing and precision are those of the result; several precisions are joined."""

    def change(content: dict[str, Any]) -> None:
        content["model"] = {"name": "m", "num_parameters": 25_557_032}
        content["preprocessing"] = {"img_size": [224, 224], "crop_pct": 0.875}
        content["execution"] = {"precision": ["float32", "bfloat16"], "batch_size": 256}

    row = read_model_row(changed(folder, tmp_path, change))
    assert row.num_parameters == 25_557_032
    assert row.preprocessing["crop_pct"] == 0.875
    assert row.precision == "float32+bfloat16"


def test_a_prediction_file_is_scored(tmp_path: Path) -> None:
    """The row of a prediction file has its name, and the counts that `score` gives."""
    np.save(tmp_path / "mine.npy", np.array(bundled().original))
    row = read_model_row(tmp_path / "mine.npy")
    assert row.name == "mine"
    assert row.accuracies["real_top1"].correct == 42_164
    assert row.data["num_samples"] == 50_000


def test_a_file_and_a_folder_of_the_same_data_agree(folder: Path, tmp_path: Path) -> None:
    """What must be equal in results that are compared is the same for both."""
    np.save(tmp_path / "mine.npy", np.array(bundled().original))
    assert read_model_row(tmp_path / "mine.npy").data == read_model_row(folder).data


def test_a_file_of_a_part_of_the_images_is_refused(tmp_path: Path) -> None:
    """An accuracy of other images has no place in the table."""
    (tmp_path / "part.csv").write_text("file_name,prediction\nILSVRC2012_val_00000001.JPEG,65\n")
    with pytest.raises(CoverageError):
        read_model_row(tmp_path / "part.csv")


@pytest.mark.parametrize(("content", "message"), [
    (b"", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"[1]", "not a result of"),
    (b'{"format": {"name": "wds_real.comparison"}}', "not a result of"),
    (b'{"format": {"name": "wds_real.result"}}', "a field of the result is missing or damaged"),
    (b'{"format": {"name": "wds_real.result"}, "model": 3, "dataset": {}, "accuracy": {}}', "damaged"),
    (b'{"format": {"name": "wds_real.result"}, "model": {}, "dataset": {}, "accuracy": {"a": 3}}', "damaged"),
])  # fmt: skip
def test_a_damaged_result_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """One line that names the file and what is wrong in it."""
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(PredictionsError, match=message) as caught:
        read_model_row(tmp_path)
    assert str(tmp_path / "result.json") in str(caught.value)


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    """An unfinished run has no result; a missing path is named."""
    with pytest.raises(PredictionsError, match="is not the --output of a finished"):
        read_model_row(tmp_path)
    with pytest.raises(PredictionsError, match=r"none\.json"):
        read_model_row(tmp_path / "none.json")
