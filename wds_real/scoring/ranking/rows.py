"""The rows of a table of models: what is read of a result folder, a result file or a prediction file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import PredictionsError
from wds_real.format.json_fields import parse_json
from wds_real.scoring.counts import Accuracy
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.run.description import RUN_NAME
from wds_real.scoring.run.output import FAILED_NAME, RESULT_NAME, prediction_file_in
from wds_real.scoring.score import score
from wds_real.scoring.targets import Targets
from wds_real.storage.files import os_errors_as, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from wds_real.scoring.predictions import Predictions
    from wds_real.scoring.result import Result

__all__ = ["ModelRow", "find_results", "read_model_row", "row_of_outcome"]

_ACCURACIES = ("original_top1", "original_top5", "real_top1", "real_top5")
_DATA = ("name", "split", "num_samples", "labels_digest")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelRow:
    """What the table needs of one result.

    Attributes:
        name: Of the model; that of the file where the result has none.
        source: The path that was read.
        data: Name, split, number of images and digest of the labels: equal in results that can be compared.
        accuracies: ``original_top1``, ``original_top5``, ``real_top1``, ``real_top5``, as far as known.
        num_parameters: Of the model, or None.
        preprocessing: As in the result; empty where unknown.
        precision: ``float32`` or another; "" where unknown.
        right: bool (N,), whether ReaL accepts the answer, for all images of the labels; None without predictions.
    """

    name: str
    source: str
    data: dict[str, Any]
    accuracies: dict[str, Accuracy]
    num_parameters: int | None = None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    precision: str = ""
    right: NDArray[np.bool_] | None = None

    @property
    def place(self) -> str:
        """The last part of the source that tells it from others: the folder of a result, or the name of a file."""
        path = Path(self.source)
        return path.parent.name if path.name == RESULT_NAME else path.name

    @property
    def failed(self) -> int:
        """Images that could not be read."""
        return self.accuracies["original_top1"].failed


def find_results(paths: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """Return the results that paths name, and why models in them have none.

    A folder that has results only in its folders is the --output of an evaluation of many models: each is taken.

    Raises:
        PredictionsError: a folder cannot be read.
    """
    results, failures = list[Path](), list[str]()
    for path in map(Path, paths):
        if not path.is_dir() or (path / RESULT_NAME).is_file():
            results.append(path)
            continue
        with os_errors_as(lambda error: PredictionsError(f"{path}: cannot be read: {reason_of(error)}")):  # noqa: B023 -- called at once
            inside = sorted(folder for folder in path.iterdir() if folder.is_dir())
        finished = [folder for folder in inside if (folder / RESULT_NAME).is_file()]
        results += finished or [path]
        failures += [_failure(folder) for folder in inside if (folder / FAILED_NAME).is_file()]
        failures += [
            f"{folder.name}: not finished"
            for folder in inside
            if finished and (folder / RUN_NAME).is_file() and not any(
                (folder / name).is_file() for name in (RESULT_NAME, FAILED_NAME)
            )
        ]  # fmt: skip
    return results, failures


def _failure(folder: Path) -> str:
    try:
        content: Any = parse_json((folder / FAILED_NAME).read_bytes())
        return f"{content['model']}: {content['error']}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{folder.name}: failed"


def row_of_outcome(name: str, result: Result, predictions: Predictions) -> ModelRow:
    """Return the row of a result that is not read from a file."""
    row = _row_of_result({**result.as_dict(), "model": {**result.model, "name": name}}, Path(name))
    return _with_answers(row, predictions)


def read_model_row(path: str | Path) -> ModelRow:
    """Read a result: the --output folder of ``wds-real eval``, its result.json, or a prediction file.

    Raises:
        PredictionsError: the file cannot be read, or is neither.
        CoverageError: a prediction file lacks some of the 50,000 images.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RESULT_NAME
    if path.suffix != ".json" or not _is_result(path):
        return _row_of_predictions(path)
    content = _read_result(path)
    row, beside = _row_of_result(content, path), prediction_file_in(path.parent)
    return row if beside is None else _with_answers(row, read_predictions(beside))


def _is_result(path: Path) -> bool:
    return path.name == RESULT_NAME or b'"wds_real.result"' in _head(path)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(200)
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be read: {error.strerror}.") from error


def _read_result(path: Path) -> dict[str, Any]:
    try:
        content: Any = parse_json(path.read_bytes())
    except OSError as error:
        advice = f"{path.parent} is not the --output of a finished `wds-real eval`."
        raise PredictionsError(f"{path}: cannot be read: {error.strerror}. {advice}") from error
    except ValueError as error:
        raise PredictionsError(f"{path}: not JSON: {error}.") from error
    if not isinstance(content, dict) or (content.get("format") or {}).get("name") != "wds_real.result":
        raise PredictionsError(f"{path}: not a result of `wds-real eval` or `wds-real score --json`.")
    result: dict[str, Any] = content
    return result


def _row_of_result(content: Mapping[str, Any], path: Path) -> ModelRow:
    try:
        model, dataset = content["model"], content["dataset"]
        accuracies = {
            name: Accuracy(int(value["correct"]), int(value["total"]), int(value["failed"]))
            for name, value in content["accuracy"].items()
        }
        named = model.get("name") or (path.parent.name if path.name == RESULT_NAME else path.stem)
        return ModelRow(
            name=str(named),
            source=str(path),
            data={name: dataset.get(name) for name in _DATA},
            accuracies={name: accuracies[name] for name in _ACCURACIES if name in accuracies},
            num_parameters=model.get("num_parameters"),
            preprocessing=dict(content.get("preprocessing", {})),
            precision=_joined(content.get("execution", {}).get("precision", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PredictionsError(f"{path}: a field of the result is missing or damaged: {error!r}.") from error


def _row_of_predictions(path: Path) -> ModelRow:
    predictions = read_predictions(path)
    result = score(predictions)
    return ModelRow(
        name=path.stem,
        source=str(path),
        data={name: result.dataset.get(name) for name in _DATA},
        accuracies={name: value for name in _ACCURACIES if (value := getattr(result, name)) is not None},
        right=_right(predictions),
    )


def _with_answers(row: ModelRow, predictions: Predictions) -> ModelRow:
    """Add which images are right; not where the counts are of other labels than the released ones."""
    right = _right(predictions)
    return replace(row, right=right if int(right.sum()) == row.accuracies["real_top1"].correct else None)


def _right(predictions: Predictions) -> NDArray[np.bool_]:
    """Return for each validation image whether ReaL accepts its predicted class; False where there is none."""
    targets = Targets.of_labels()
    top1 = np.full(len(targets.keys), -2, dtype=np.int64)
    top1[targets.positions_of(predictions)] = predictions.classes[:, 0]
    right: NDArray[np.bool_] = ((targets.real_label == top1[:, None]) & (targets.real_label >= 0)).any(axis=1)
    return right


def _joined(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "+".join(value)
