"""The output of a run, and how to make result and predictions from its records alone. Runs without torch.

run.json, records/    while it runs: see `wds_real.scoring.run.records`
predictions.csv       at the end: top-5 classes and probabilities, in key order
result.json           last
failed.json           in place of a result: why one of several models has none
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import CoverageError, MissingError, PredictionsError
from wds_real.format.json_fields import parse_json
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.predictions import TOP
from wds_real.scoring.result import joined_execution
from wds_real.scoring.run.description import RunKey, encode_json, read_run, world_size_of
from wds_real.scoring.run.place import OutputPlace
from wds_real.scoring.run.records import RunRecords
from wds_real.scoring.table import PredictionTable
from wds_real.scoring.targets import Targets

if TYPE_CHECKING:
    from pathlib import Path

    from wds_real.data.dataset import Dataset
    from wds_real.errors import WdsRealError
    from wds_real.scoring.predictions import Format, Predictions
    from wds_real.scoring.result import Result
    from wds_real.storage.base import Store

__all__ = [
    "FAILED_NAME",
    "RESULT_NAME",
    "merge",
    "read_output",
    "write_failure",
    "write_output",
]

FAILED_NAME, RESULT_NAME = "failed.json", "result.json"


def write_output(store: Store, result: Result, predictions: Predictions, *, form: Format = "csv") -> None:
    """Write the prediction file and, last, ``result.json``, each atomically."""
    store.put(f"predictions.{form}", predictions.encode(form))
    store.put(RESULT_NAME, encode_json(result.as_dict()))


def write_failure(store: Store, name: str, error: WdsRealError) -> None:
    """Write why a model has no result."""
    content = {"format": {"name": "wds_real.failure", "version": 1}, "model": name, "error": str(error)}
    store.put(FAILED_NAME, encode_json(content))


def read_output(output: str | Path | OutputPlace, dataset: Dataset) -> tuple[Result, Predictions]:
    """Return result and predictions of a finished run from its output; the result is counted again.

    Raises:
        PredictionsError: there is no result, it is of another data set or split, or it does not match the predictions.
        CoverageError: predictions are missing.
    """
    place, targets = OutputPlace.of(output), Targets.of_dataset(dataset)
    path = f"{place}/{RESULT_NAME}"
    try:
        content: Any = parse_json(place.store.get(RESULT_NAME, fresh=True))
        found = {name: content["dataset"].get(name) for name in ("digest", "split")}
        if found != {"digest": dataset.digest, "split": dataset.split}:
            raise PredictionsError(f"{path}: the result is of another data set: {found}.")
        table = PredictionTable(targets)
        predictions = read_predictions(place.place, storage_options=place.options)
        positions = targets.positions_of(predictions)
        position_of = {key: at for at, key in enumerate(targets.keys)}
        warned = np.isin(positions, [position_of[key] for key in content.get("decoded_with_warnings", [])])
        table.add(positions, predictions.classes, predictions.probabilities, warned=warned)
        failed = np.array([position_of[key] for key in content["coverage"]["failed"]], dtype=np.int64)
        table.add(failed, np.full((len(failed), TOP), -1, dtype=np.int64))
        run = dict(content["run"])
        result = replace(
            table.result(world_size=run.pop("world_size")),
            model=content["model"],
            preprocessing=content["preprocessing"],
            execution=content.get("execution", {}),
            run=run,
        )
    except MissingError as error:
        raise PredictionsError(f"{path}: no such file: {place} is not the --output of a finished run.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PredictionsError(f"{path}: cannot be read, or is damaged: {error!r}.") from error
    if json.loads(json.dumps(result.as_dict())) != content:
        raise PredictionsError(f"{path}: does not match the predictions beside it.")
    return result, predictions


def merge(
    output: str | Path | OutputPlace, dataset: Dataset, *, records: RunRecords | None = None
) -> tuple[Result, Predictions]:
    """Return result and predictions from the records in a place, equal to those of the run itself.

    Args:
        output: The place.
        dataset: The data set of the run.
        records: The open records of that run, if there are any: objects that they have read are not read again.

    Raises:
        PredictionsError: there is no run, the run is of another data set, or a batch has two different records.
        CoverageError: the run was not finished: some batches have no record.
        UnavailableError: the object store denies access, or gave up.
    """
    place = OutputPlace.of(output)
    run = (records and records.run()) or read_run(place)
    key = RunKey(run["identity"])
    if (key.identity.get("dataset"), key.identity.get("split")) != (dataset.digest, dataset.split):
        raise PredictionsError(
            f"{place}: the run is of data set {str(key.identity.get('dataset'))[:16]}..., split "
            f"{key.identity.get('split')!r}; {dataset.root} is {dataset.digest[:16]}..., split {dataset.split!r}."
        )
    records = records or RunRecords(place, key)
    found = records.read()
    table = PredictionTable(Targets.of_dataset(dataset))
    for record in found.by_batch.values():
        table.add(record.index, record.classes, record.probabilities, warned=record.warned)
    try:
        result = table.result(world_size=world_size_of(run, found.ranks))
    except CoverageError as error:
        raise CoverageError(
            f"{place}: {error} The run was not finished: run the same `wds-real eval` again; it does only the missing "
            "batches.",
            missing=error.missing,
            doubled=error.doubled,
        ) from error
    execution = joined_execution(key.identity["dtype"], key.identity["batch_size"], records.executions())
    model, preprocessing = key.identity["model"], key.identity["preprocessing"]
    return replace(result, model=model, preprocessing=preprocessing, execution=execution), table.predictions()
