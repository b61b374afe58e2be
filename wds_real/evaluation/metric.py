"""RealAccuracy: predictions in, one exact result out, for our loop or any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wds_real.data.batch import Batch
from wds_real.data.distributed import all_reduce, current_world, is_initialized
from wds_real.errors import CoverageError, ModelError
from wds_real.labels import NUM_CLASSES
from wds_real.scoring.predictions import TOP, Predictions
from wds_real.scoring.result import Result, Targets, tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset

__all__ = ["RealAccuracy", "top_predictions"]


class RealAccuracy:
    """Original and ReaL accuracy of one pass, exact over any number of processes.

    The state is a table with one row a sample: how often it was seen, its top-5 classes and their probabilities. No
    communication happens before `compute`, which adds the tables of all ranks in one reduction of integers and refuses
    to give a number unless each sample was seen exactly once.

    Args:
        dataset: What is evaluated; None means all 50,000 validation images with the released labels.
        sync_on_compute: Add the tables of all ranks in `compute`.
    """

    def __init__(self, dataset: Dataset | None = None, *, sync_on_compute: bool = True) -> None:
        self.targets = Targets.of_labels() if dataset is None else Targets.of_dataset(dataset)
        self.sync_on_compute = sync_on_compute
        self._row_of = {key: row for row, key in enumerate(self.targets.keys)}
        # Integers that are 0 where nothing was seen, so that tables of different ranks add up: times seen, times
        # failed, the top-5 classes plus one, and the bits of their probabilities.
        self._table = np.zeros((len(self.targets.keys), 2 + 2 * TOP), dtype=np.int64)

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
        self.add(*self.read(predictions, batch))

    def read(
        self, predictions: torch.Tensor | NDArray[Any], batch: Batch | Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return what `update` would `add`, for those who keep records."""
        if isinstance(batch, torch.Tensor):
            raise ValueError("give the Batch, or the keys or file names of the samples: labels are looked up by these.")  # noqa: TRY004
        if isinstance(batch, Batch):
            rows, valid = self._rows_of_batch(batch), batch.valid.numpy()
        else:
            rows, valid = self._rows_of_keys(batch), np.ones(len(batch), dtype=np.bool_)
        if isinstance(predictions, np.ndarray):
            predictions = torch.from_numpy(np.require(predictions, requirements="W"))
        if not isinstance(predictions, torch.Tensor):
            raise ModelError(f"predictions are a {type(predictions).__name__}, expected a tensor or an array.")
        scores = predictions
        if not scores.ndim or len(scores) != len(rows):
            given = len(scores) if scores.ndim else "a single number as"
            raise ModelError(f"{given} predictions for a batch of {len(rows)}: expected one row each.")
        is_sample = rows >= 0
        classes = np.full((len(rows), TOP), -1, dtype=np.int64)
        probabilities = np.full((len(rows), TOP), np.nan, dtype=np.float32)
        classes[valid], probabilities[valid] = top_predictions(scores[torch.from_numpy(valid).to(scores.device)])
        return rows[is_sample], classes[is_sample], probabilities[is_sample]

    def add(
        self, rows: NDArray[np.int64], classes: NDArray[np.int64], probabilities: NDArray[np.float32] | None = None
    ) -> None:
        """Count samples by their place in the data set.

        Args:
            rows: int64 (B,), positions in the whole data set.
            classes: int64 (B, 5), best first, -1 for none; a row of only -1 is a sample that could not be read.
            probabilities: float32 (B, 5) of these classes; None where unknown.
        """
        failed = classes[:, 0] < 0
        np.add.at(self._table[:, 0], rows[~failed], 1)
        np.add.at(self._table[:, 1], rows[failed], 1)
        np.add.at(self._table[:, 2 : 2 + TOP], rows, classes + 1)
        if probabilities is not None:
            bits = np.ascontiguousarray(probabilities, dtype=np.float32).view(np.int32)
            np.add.at(self._table[:, 2 + TOP :], rows, bits)

    def compute(self) -> Result:
        """Return the result, over all ranks.

        Raises:
            CoverageError: a sample is missing or was counted twice.
        """
        return self.compute_with_predictions()[0]

    def compute_with_predictions(self) -> tuple[Result, Predictions]:
        """Return the result and the predictions it was counted from, over all ranks, in key order.

        Raises:
            CoverageError: a sample is missing or was counted twice.
        """
        table, world_size = self._table, 1
        if self.sync_on_compute:
            world_size = current_world().world_size
            if is_initialized():
                table = all_reduce(torch.from_numpy(self._table), "sum").numpy()
        classes = table[:, 2 : 2 + TOP] - 1
        try:
            result = tally(self.targets, top5=classes, seen=table[:, 0], failed=table[:, 1], world_size=world_size)
        except CoverageError as error:
            if not (self.sync_on_compute and world_size > 1 and table is self._table):
                raise
            raise CoverageError(
                f"{error} torch.distributed is not initialised, so only this rank's samples were counted: call "
                "torch.distributed.init_process_group() first.",
                missing=error.missing,
                doubled=error.doubled,
            ) from error
        read = np.flatnonzero(table[:, 0])
        probabilities = table[read, 2 + TOP :].astype(np.int32).view(np.float32)
        return result, Predictions(tuple(self.targets.keys[row] for row in read), classes[read], probabilities)

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
        """Return the table, int64 (N, 12)."""
        return {"table": torch.from_numpy(self._table.copy())}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Replace the table with one from `state_dict`.

        Raises:
            ValueError: the table is of a data set of another size.
        """
        table = state["table"].numpy()
        if table.shape != self._table.shape or table.dtype != self._table.dtype:
            raise ValueError(f"the state is {table.dtype} {table.shape}, expected int64 {self._table.shape}.")
        if bool(table[~self.targets.expected].any()):
            raise ValueError("the state holds samples that are not in this metric's split.")
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


def top_predictions(predictions: torch.Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the five best classes of each row and their probabilities, on the CPU.

    Args:
        predictions: Scores float (B, 1000), classes int (B,) or (B, 5).

    Returns:
        Classes int64 (B, 5), best first, -1 behind a single class; softmax probabilities float32 (B, 5), NaN if classes
        were given.

    Raises:
        ModelError: another shape or dtype, a score that is NaN or +inf, or a class that is not 0..999.
    """
    if not predictions.is_floating_point():
        classes = _given_classes(predictions)
        return classes, np.full(classes.shape, np.nan, dtype=np.float32)
    if predictions.ndim != 2 or predictions.shape[1] != NUM_CLASSES:
        raise ModelError(
            f"the model returned a tensor of shape {tuple(predictions.shape)}, expected ({len(predictions)}, "
            f"{NUM_CLASSES}): one score for each class of ILSVRC2012. Give a model with the 1,000-class head."
        )
    scores = predictions.detach()
    ranked = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :TOP]
    probabilities = (
        torch.softmax(scores, dim=1, dtype=torch.promote_types(scores.dtype, torch.float32))
        .gather(1, ranked)
        .float()
        .cpu()
        .numpy()
    )
    if np.isnan(probabilities).any():
        raise ModelError(
            "the model returned NaN or infinite scores. Check the weights; if it ran under autocast (--amp), run it "
            "without."
        )
    return ranked.cpu().numpy(), probabilities


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
