"""RealAccuracy: predictions in, one exact result out, for our loop or any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wds_real.distributed import all_reduce_sum, current_world
from wds_real.errors import ModelError
from wds_real.labels import NUM_CLASSES
from wds_real.loader import Batch
from wds_real.result import Result, Targets, tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wds_real.dataset import Dataset

__all__ = ["TOP", "RealAccuracy", "targets_of", "top_classes"]

TOP = 5


class RealAccuracy:
    """Original and ReaL accuracy of one pass, exact over any number of processes.

    The state is a table with one row a sample: how often it was seen, and its top-5 classes. No communication happens
    before `compute`, which adds the tables of all ranks in one reduction of integers and refuses to give a number
    unless each sample was seen exactly once.

    Args:
        dataset: What is evaluated; None means all 50,000 validation images with the released labels.
        sync_on_compute: Add the tables of all ranks in `compute`.
    """

    def __init__(self, dataset: Dataset | None = None, *, sync_on_compute: bool = True) -> None:
        self.targets = Targets.bundled() if dataset is None else targets_of(dataset)
        self.sync_on_compute = sync_on_compute
        self._row_of = {key: row for row, key in enumerate(self.targets.keys)}
        # Columns: times seen, times failed, then the top-5 classes plus one, so that 0 means none and tables add up.
        self._table = np.zeros((len(self.targets.keys), 2 + TOP), dtype=np.int64)

    def update(self, predictions: torch.Tensor | NDArray[Any], batch: Batch | Sequence[str]) -> None:
        """Count the predictions of one batch.

        Args:
            predictions: Scores float (B, 1000), classes int (B,), or classes int (B, 5), best first. Equal scores rank
                by class index.
            batch: The `Batch` they were made from (rows that are not valid are passed over), or the keys or file names
                of B samples.

        Raises:
            ModelError: the predictions have another shape, a score is NaN, or a class is not 0..999.
            ValueError: a sample is not part of the data set.
        """
        if isinstance(batch, Batch):
            rows, valid = self._rows_of_batch(batch), batch.valid.numpy()
            failed = rows[~valid & (batch.index.numpy() >= 0)]
            np.add.at(self._table[:, 1], failed, 1)
        else:
            rows, valid = self._rows_of_keys(batch), np.ones(len(batch), dtype=np.bool_)
        scores = torch.as_tensor(predictions)
        if len(scores) != len(rows):
            raise ModelError(f"{len(scores)} predictions for a batch of {len(rows)}: expected one row each.")
        self.add(rows[valid], top_classes(scores[torch.from_numpy(valid).to(scores.device)]))

    def add(self, rows: NDArray[np.int64], classes: NDArray[np.int64]) -> None:
        """Count samples by their place in the data set: rows int64 (B,), classes int64 (B, 5), -1 for none."""
        np.add.at(self._table[:, 0], rows, 1)
        np.add.at(self._table[:, 2:], rows, classes + 1)

    def compute(self) -> Result:
        """Return the result, over all ranks.

        Raises:
            CoverageError: a sample is missing or was counted twice.
        """
        table, world_size = self._table, 1
        if self.sync_on_compute:
            table = all_reduce_sum(torch.from_numpy(self._table.copy())).numpy()
            world_size = current_world().world_size
        return tally(self.targets, top5=table[:, 2:] - 1, seen=table[:, 0], failed=table[:, 1], world_size=world_size)

    def reset(self) -> None:
        """Forget all predictions."""
        self._table[:] = 0

    def merge_state(self, metrics: Sequence[RealAccuracy]) -> RealAccuracy:
        """Add what other metrics of the same data set have seen, and return this one."""
        for metric in metrics:
            if metric.targets.identity != self.targets.identity:
                raise ValueError("the metrics are of different data sets: merge those of one data set only.")
            self._table += metric._table  # noqa: SLF001 -- our own class
        return self

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the table, int64 (N, 7)."""
        return {"table": torch.from_numpy(self._table.copy())}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Replace the table with one from `state_dict`.

        Raises:
            ValueError: the table is of a data set of another size.
        """
        table = state["table"].numpy()
        if table.shape != self._table.shape or table.dtype != self._table.dtype:
            raise ValueError(f"the state is {table.dtype} {table.shape}, expected int64 {self._table.shape}.")
        self._table[:] = table

    def _rows_of_batch(self, batch: Batch) -> NDArray[np.int64]:
        rows: NDArray[np.int64] = batch.index.numpy()
        for row, key in zip(rows.tolist(), batch.key, strict=True):
            if row >= 0 and not (row < len(self.targets.keys) and self.targets.keys[row] == key):
                raise ValueError(
                    f"{key} is sample {row} of the batch's data set, but not of this metric's. Give the metric the "
                    "data set: RealAccuracy(dataset)."
                )
        self._check_expected(rows[rows >= 0])
        return rows

    def _rows_of_keys(self, keys: Sequence[str]) -> NDArray[np.int64]:
        unknown = [key for key in keys if key.removesuffix(".JPEG") not in self._row_of]
        if unknown:
            raise ValueError(f"{unknown[0]} is not a sample of the data set ({len(unknown):,} such keys).")
        rows = np.array([self._row_of[key.removesuffix(".JPEG")] for key in keys], dtype=np.int64)
        self._check_expected(rows)
        return rows

    def _check_expected(self, rows: NDArray[np.int64]) -> None:
        outside = rows[~self.targets.expected[rows]]
        if len(outside):
            raise ValueError(
                f"{self.targets.keys[outside[0]]} is not in split {self.targets.identity.get('split')!r} "
                f"({len(outside):,} such samples). Give the metric the data set that the batches come from."
            )


def targets_of(dataset: Dataset) -> Targets:
    """Return the labels of a data set; of a split or slice, with only its samples expected."""
    index = dataset.index
    expected = np.zeros(len(index), dtype=np.bool_)
    expected[dataset.positions] = True
    identity = {
        "name": dataset.manifest.dataset,
        "split": dataset.split,
        "digest": dataset.digest,
        "labels_digest": dataset.manifest.labels_digest,
    }
    return Targets.of(index.keys, index.original_label, index.real_label, expected=expected, identity=identity)


def top_classes(predictions: torch.Tensor) -> NDArray[np.int64]:
    """Return the five best classes of each row: int64 (B, 5), on the CPU; -1 behind a single class.

    Args:
        predictions: Scores float (B, 1000), classes int (B,) or (B, 5).

    Raises:
        ModelError: another shape or dtype, a NaN among the scores, or a class that is not 0..999.
    """
    if not predictions.is_floating_point():
        return _given_classes(predictions)
    if predictions.ndim != 2 or predictions.shape[1] != NUM_CLASSES:
        raise ModelError(
            f"the model returned a tensor of shape {tuple(predictions.shape)}, expected ({len(predictions)}, "
            f"{NUM_CLASSES}): one score for each class of ILSVRC2012. Give a model with the 1,000-class head."
        )
    values, classes = torch.sort(predictions, dim=1, descending=True, stable=True)
    if bool(values[:, :TOP].isnan().any()):  # sorting puts NaN first
        raise ModelError("the model returned NaN scores. Evaluate without --amp, or check the weights.")
    top: NDArray[np.int64] = classes[:, :TOP].cpu().numpy()
    return top


def _given_classes(predictions: torch.Tensor) -> NDArray[np.int64]:
    classes = predictions.detach().to(device="cpu", dtype=torch.int64).numpy()
    if classes.ndim == 1:
        classes = np.concatenate([classes[:, None], np.full((len(classes), TOP - 1), -1)], axis=1)
        given = classes[:, 0]
    else:
        given = classes
    if classes.ndim != 2 or classes.shape[1] != TOP or bool(((given < 0) | (given >= NUM_CLASSES)).any()):
        raise ModelError(
            f"expected classes 0..{NUM_CLASSES - 1} of shape (B,) or (B, {TOP}), got shape {tuple(predictions.shape)}."
        )
    return classes
