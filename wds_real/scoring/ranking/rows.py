"""The rows of a table of models: what is read of a result folder, a result file or a prediction file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import MissingError, PredictionsError, StoreError
from wds_real.format.json_fields import parse_json
from wds_real.scoring.counts import Accuracy
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.reading.columns import MAX_BYTES
from wds_real.scoring.reading.folders import (
    expanded,
    has_file,
    inside,
    is_folder,
    model_name,
    prediction_file_in,
    store_at,
)
from wds_real.scoring.reading.places import check_place, name_of, opened, parent_of, shown
from wds_real.scoring.run.description import RUN_NAME
from wds_real.scoring.run.output import FAILED_NAME, RESULT_NAME
from wds_real.scoring.score import score
from wds_real.scoring.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from wds_real.scoring.predictions import Predictions
    from wds_real.scoring.result import Result

__all__ = ["ModelRow", "find_results", "read_model_row", "row_of_outcome"]

_ACCURACIES = ("original_top1", "original_top5", "real_top1", "real_top5")
_HEAD_BYTES = 200  # the first bytes of a result file, which name its format
_DATA = ("name", "split", "num_samples", "labels_digest")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelRow:
    """What the table needs of one result.

    Attributes:
        name: Of the model; that of the file where the result has none.
        source: The path or URL that was read, without secrets.
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
        name = name_of(self.source)
        return name_of(parent_of(self.source)) if name == RESULT_NAME else name

    @property
    def failed(self) -> int:
        """Images that could not be read."""
        return self.accuracies["original_top1"].failed


def find_results(
    places: Iterable[str | Path], *, storage_options: Mapping[str, str] | None = None
) -> tuple[list[str | Path], list[str]]:
    """Return the places of the results that paths and URLs name, and a sentence for each model without a result.

    A folder without a result of its own is the --output of several models: each result in its subfolders is taken. A
    ``*`` in the last part of a URL stands for any text in a name, as in a shell.

    Raises:
        PredictionsError: nothing fits a pattern.
        StoreError: a folder cannot be read.
    """
    results: list[str | Path] = []
    failures: list[str] = []
    for given in places:
        for place in expanded(given, storage_options=storage_options):
            models = _models_in(place, storage_options)
            finished = [folder for folder, names in models.items() if RESULT_NAME in names]
            results += finished or [place]
            failures += [_failure(folder, storage_options) for folder, names in models.items() if FAILED_NAME in names]
            failures += [
                f"{name_of(folder)}: not finished"
                for folder, names in models.items()
                if finished and RUN_NAME in names and not {RESULT_NAME, FAILED_NAME} & names
            ]
    return results, failures


def _models_in(place: str | Path, storage_options: Mapping[str, str] | None) -> dict[str | Path, set[str]]:
    """Return the subfolders of a folder that has no result, with the names of their files."""
    if not is_folder(place) or has_file(place, RESULT_NAME, storage_options=storage_options):
        return {}
    store = store_at(place, storage_options)
    if not store.listable:
        return {}
    folders = [inside(place, name) for name in store.folders()]
    return {folder: set(store_at(folder, storage_options).list()) for folder in folders}


def _failure(folder: str | Path, storage_options: Mapping[str, str] | None) -> str:
    try:
        content: Any = parse_json(store_at(folder, storage_options).get(FAILED_NAME))
        return f"{content['model']}: {content['error']}"
    except (StoreError, ValueError, KeyError, TypeError):
        return f"{name_of(folder)}: failed"


def row_of_outcome(name: str, result: Result, predictions: Predictions) -> ModelRow:
    """Return the row of a result that is not read from a file."""
    row = _row_of_result({**result.as_dict(), "model": {**result.model, "name": name}}, name)
    return _with_answers(row, predictions)


def read_model_row(place: str | Path, *, storage_options: Mapping[str, str] | None = None) -> ModelRow:
    """Read a result at a path or URL: the --output folder of ``wds-real eval``, its result.json, or a prediction file.

    Raises:
        PredictionsError: the file cannot be read, or is none of these.
        CoverageError: a prediction file lacks some of the 50,000 images.
        StoreError: the file at a URL is missing, too large or cannot be read.
    """
    check_place(place, storage_options)
    if is_folder(place):
        place = inside(place, RESULT_NAME)
    is_json = name_of(place).endswith(".json")
    data = _content(place, storage_options) if is_json else b""
    if not (name_of(place) == RESULT_NAME or b'"wds_real.result"' in data[:_HEAD_BYTES]):
        return _row_of_predictions(place, storage_options)
    row = _row_of_result(_parsed(data, place), place)
    beside = prediction_file_in(parent_of(place), storage_options=storage_options)
    return row if beside is None else _with_answers(row, read_predictions(beside, storage_options=storage_options))


def _content(place: str | Path, storage_options: Mapping[str, str] | None) -> bytes:
    """Return the content of a JSON file."""
    advice = f"{shown(parent_of(place))} is not the --output of a finished `wds-real eval`."
    try:
        with opened(place, storage_options=storage_options, max_bytes=MAX_BYTES) as file:
            return file.read()
    except MissingError as error:
        raise PredictionsError(f"{shown(place)}: no such file. {advice}") from error
    except OSError as error:
        raise PredictionsError(f"{place}: cannot be read: {error.strerror}. {advice}") from error


def _parsed(data: bytes, place: str | Path) -> dict[str, Any]:
    try:
        content: Any = parse_json(data)
    except ValueError as error:
        raise PredictionsError(f"{shown(place)}: not JSON: {error}.") from error
    if not isinstance(content, dict) or (content.get("format") or {}).get("name") != "wds_real.result":
        raise PredictionsError(f"{shown(place)}: not a result of `wds-real eval` or `wds-real score --json`.")
    result: dict[str, Any] = content
    return result


def _row_of_result(content: Mapping[str, Any], place: str | Path) -> ModelRow:
    try:
        model, dataset = content["model"], content["dataset"]
        accuracies = {
            name: Accuracy(int(value["correct"]), int(value["total"]), int(value["failed"]))
            for name, value in content["accuracy"].items()
        }
        named = model.get("name") or _name_of_result(place)
        return ModelRow(
            name=str(named),
            source=shown(place),
            data={name: dataset.get(name) for name in _DATA},
            accuracies={name: accuracies[name] for name in _ACCURACIES if name in accuracies},
            num_parameters=model.get("num_parameters"),
            preprocessing=dict(content.get("preprocessing", {})),
            precision=_joined(content.get("execution", {}).get("precision", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PredictionsError(f"{shown(place)}: a field of the result is missing or damaged: {error!r}.") from error


def _name_of_result(place: str | Path) -> str:
    """Return the folder's name of a result that lies in the folder of its run, or the file's name."""
    name = name_of(place)
    return name_of(parent_of(place)) if name == RESULT_NAME else name.removesuffix(".json")


def _row_of_predictions(place: str | Path, storage_options: Mapping[str, str] | None) -> ModelRow:
    predictions = read_predictions(place, storage_options=storage_options)
    result = score(predictions)
    return ModelRow(
        name=model_name(place),
        source=shown(place),
        data={name: result.dataset.get(name) for name in _DATA},
        accuracies={name: value for name in _ACCURACIES if (value := getattr(result, name)) is not None},
        right=_right(predictions),
    )


def _with_answers(row: ModelRow, predictions: Predictions) -> ModelRow:
    """Add which images are right, unless the counts of the result are by other labels than the released ones."""
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
