"""What a run leaves in its output folder, and how to make it from records alone. Runs without torch.

DIR/run.json, DIR/records/    while it runs: see `wds_real.scoring.records`
DIR/predictions.csv           at the end: top-5 classes and probabilities, in key order
DIR/result.json               last
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import CoverageError, PredictionsError
from wds_real.scoring.predictions import TOP, Predictions
from wds_real.scoring.records import Ledger, RunKey, read_run
from wds_real.scoring.result import Result, Targets, tally

if TYPE_CHECKING:
    from pathlib import Path

    from wds_real.data.dataset import Dataset
    from wds_real.scoring.predictions import Format
    from wds_real.storage.base import Store

__all__ = ["merge", "write_output"]


def write_output(store: Store, result: Result, predictions: Predictions, *, form: Format = "csv") -> None:
    """Write the prediction file and, last, ``result.json``, each atomically."""
    store.put(f"predictions.{form}", predictions.encode(form))
    store.put("result.json", (json.dumps(result.as_dict(), indent=1) + "\n").encode("ascii"))


def merge(folder: str | Path, dataset: Dataset) -> tuple[Result, Predictions]:
    """Return result and predictions from the records in `folder`, as the run itself would have.

    Raises:
        PredictionsError: the folder holds no records, or those of another data set.
        CoverageError: some batches are not recorded: the run was not finished.
    """
    run = read_run(folder)
    key = RunKey(run["identity"])
    if (key.identity.get("dataset"), key.identity.get("split")) != (dataset.digest, dataset.split):
        raise PredictionsError(
            f"{folder}: the run is of data set {str(key.identity.get('dataset'))[:16]}..., split "
            f"{key.identity.get('split')!r}; {dataset.root} is {dataset.digest[:16]}..., split {dataset.split!r}."
        )
    targets = Targets.of_dataset(dataset)
    seen, failed = np.zeros((2, len(targets.keys)), dtype=np.int64)
    classes = np.full((len(targets.keys), TOP), -1, dtype=np.int64)
    probabilities = np.full((len(targets.keys), TOP), np.nan, dtype=np.float32)
    for record in Ledger(folder, key).records().values():
        unread = record.classes[:, 0] < 0
        np.add.at(seen, record.index[~unread], 1)
        np.add.at(failed, record.index[unread], 1)
        classes[record.index], probabilities[record.index] = record.classes, record.probabilities
    try:
        result = tally(targets, top5=classes, seen=seen, failed=failed)
    except CoverageError as error:
        raise CoverageError(
            f"{folder}: {error} The run was not finished: run the same `wds-real eval` again, it does what is missing.",
            missing=error.missing,
            doubled=error.doubled,
        ) from error
    read = np.flatnonzero(seen)
    predictions = Predictions(tuple(targets.keys[row] for row in read), classes[read], probabilities[read])
    return result.named(model=key.identity["model"], preprocessing=key.identity["preprocessing"]), predictions
