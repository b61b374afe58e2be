"""RealAccuracy: an exact metric for the loop of this package and for any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wds_real.data.batch import Batch
from wds_real.data.distributed import all_reduce, current_world, is_initialized
from wds_real.data.notebook import facts_table
from wds_real.errors import CoverageError, ModelError
from wds_real.evaluation.loop_advice import loop_advice
from wds_real.evaluation.readback import HostCopies
from wds_real.labels import NUM_CLASSES
from wds_real.labels.file_names import sample_key
from wds_real.scoring.predictions import TOP
from wds_real.scoring.table import PredictionTable
from wds_real.scoring.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.labels.file_names import Name
    from wds_real.scoring.predictions import Predictions
    from wds_real.scoring.result import Result

__all__ = ["RankedClasses", "Ranking", "RealAccuracy"]


@dataclass(frozen=True, slots=True, eq=False)
class RankedClasses:
    """The five best classes of some samples.

    Attributes:
        positions: int64 (n,), of the samples in the data set.
        classes: int64 (n, 5), best first; all -1 for a sample that could not be read.
        probabilities: float32 (n, 5), NaN where unknown.
        warned: bool (n,), True where the decoder warned about the file.
    """

    positions: NDArray[np.int64]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    warned: NDArray[np.bool_]


class Ranking:
    """The five best classes of a batch, on their way from the device to the host; see `RealAccuracy.start_ranking`.

    Attributes:
        batch: As given. It is held until the ranking is finished, so that its memory is not reused while the device
            may read it.
    """

    def __init__(
        self,
        copies: HostCopies,
        rows: NDArray[np.int64],
        valid: NDArray[np.bool_],
        warned: NDArray[np.bool_],
        batch: Batch | Sequence[Name] | NDArray[Any],
    ) -> None:
        self.batch = batch
        self._copies, self._rows, self._valid, self._warned = copies, rows, valid, warned

    @property
    def arrived(self) -> bool:
        """Whether `finish` would not wait."""
        return self._copies.arrived

    def finish(self) -> RankedClasses:
        """Wait for the device, and return the classes of the samples.

        Raises:
            ModelError: a score of a valid row is NaN or +inf, or a class is not 0..999.
        """
        found, *rest = (copy.numpy() for copy in self._copies.wait())
        valid, is_sample = self._valid, self._rows >= 0
        classes = np.full((len(valid), TOP), -1, dtype=np.int64)
        probabilities = np.full((len(valid), TOP), np.nan, dtype=np.float32)
        if rest:
            classes[valid], probabilities[valid] = found[valid], rest[0][valid]
            if np.isnan(probabilities[valid]).any():
                raise ModelError(
                    "the model returned NaN or infinite scores. Check the weights; if it ran under autocast (--amp), "
                    "run it without."
                )
        else:
            classes[valid] = _check_classes(found[valid], found.shape)
        return RankedClasses(
            self._rows[is_sample], classes[is_sample], probabilities[is_sample], self._warned[is_sample]
        )


class RealAccuracy:
    """Original and ReaL accuracy of one pass, exact over any number of processes.

    The state is a `wds_real.scoring.table.PredictionTable`. The processes do not communicate before `compute`, which
    sums the tables of all ranks in one reduction of integers and raises unless each sample was seen exactly once.

    Args:
        dataset: What is evaluated; None means all 50,000 validation images with the released labels.
        sync_on_compute: Sum the tables of all ranks in `compute`.
    """

    def __init__(self, dataset: Dataset | None = None, *, sync_on_compute: bool = True) -> None:
        self.targets = Targets.of_labels() if dataset is None else Targets.of_dataset(dataset)
        self.sync_on_compute = sync_on_compute
        self._position_of = {key: position for position, key in enumerate(self.targets.keys)}
        self._table = PredictionTable(self.targets)

    def __repr__(self) -> str:
        return f"<RealAccuracy: {self._counted()} images counted on this rank>"

    def _repr_html_(self) -> str:
        return facts_table("RealAccuracy", {"images counted on this rank": self._counted()})

    def _counted(self) -> str:
        return f"{self._table.num_counted:,} of {len(self.targets.keys):,}"

    def update(self, predictions: torch.Tensor | NDArray[Any], batch: Batch | Sequence[Name] | NDArray[Any]) -> None:
        """Count the predictions of one batch.

        Args:
            predictions: Scores float (B, 1000), classes int (B,), or classes int (B, 5), best first. Equal scores rank
                by class index.
            batch: The `Batch` they were made from (rows that are not valid are ignored), or the names of B samples:
                keys, file names or paths in any spelling that `wds_real.score` takes, as text, bytes or `Path`.

        Raises:
            ModelError: the predictions have another shape, a score is NaN or +inf, or a class is not 0..999.
            ValueError: a sample is not part of the data set.
        """
        ranked = self.rank_classes(predictions, batch)
        self.add(ranked.positions, ranked.classes, ranked.probabilities, warned=ranked.warned)

    def rank_classes(
        self, predictions: torch.Tensor | NDArray[Any], batch: Batch | Sequence[Name] | NDArray[Any]
    ) -> RankedClasses:
        """Return the five best classes of each sample of a batch, without counting them; `update` also counts them."""
        return self.start_ranking(predictions, batch).finish()

    def start_ranking(
        self, predictions: torch.Tensor | NDArray[Any], batch: Batch | Sequence[Name] | NDArray[Any]
    ) -> Ranking:
        """Rank the predictions of a batch on their device, and start to copy the five best classes to the host.

        Nothing here waits for an accelerator. All rows are ranked; `Ranking.finish` selects the valid ones.
        """
        if isinstance(batch, torch.Tensor):
            raise ValueError("expected the Batch, or the keys or file names of its samples, not labels.")  # noqa: TRY004
        if isinstance(batch, Batch):
            rows, valid = self._rows_of_batch(batch), batch.valid.numpy()
        else:
            rows, valid = self._rows_of_names(batch), np.ones(len(batch), dtype=np.bool_)
        if isinstance(predictions, np.ndarray):
            predictions = torch.from_numpy(np.require(predictions, requirements="W"))
        if not isinstance(predictions, torch.Tensor):
            raise ModelError(f"predictions are a {type(predictions).__name__}, expected a tensor or an array.")
        if not predictions.ndim or len(predictions) != len(rows):
            given = len(predictions) if predictions.ndim else "a single number as"
            raise ModelError(f"{given} predictions for a batch of {len(rows)}: expected one row each.")
        warned = np.zeros(len(rows), dtype=np.bool_)
        warned[list(batch.warned) if isinstance(batch, Batch) else []] = True
        return Ranking(_top_predictions(predictions), rows, valid, warned, batch)

    def add(
        self,
        positions: NDArray[np.int64],
        classes: NDArray[np.int64],
        probabilities: NDArray[np.float32] | None = None,
        *,
        warned: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count samples by their position in the data set; see `PredictionTable.add`."""
        self._table.add(positions, classes, probabilities, warned=warned)

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
                summed = all_reduce(torch.from_numpy(self._table.array), "sum").numpy()
                table = PredictionTable(self.targets, summed)
        try:
            return table.result(world_size=world_size), table.predictions()
        except CoverageError as error:
            advice = loop_advice(error, gathered=world_size > 1 and len(error.doubled) == self.targets.expected.sum())
            if self.sync_on_compute and world_size > 1 and table is self._table:
                advice = (
                    " torch.distributed is not initialised, so only this rank's samples were counted: call "
                    "torch.distributed.init_process_group() first."
                )
            raise CoverageError(f"{error}{advice}", missing=error.missing, doubled=error.doubled) from error

    def reset(self) -> None:
        """Forget all predictions."""
        self._table.array[:] = 0

    def merge_state(self, metrics: Sequence[RealAccuracy]) -> RealAccuracy:
        """Add the counts of other metrics of the same data set, and return this metric."""
        for metric in metrics:
            if metric.targets.identity != self.targets.identity:
                raise ValueError("the metrics are of different data sets. Merge metrics of one data set.")
            self._table.array += metric._table.array  # noqa: SLF001 -- the same class
        return self

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the table, int64 (N, 13)."""
        return {"table": torch.from_numpy(self._table.array.copy())}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Replace the table with one from `state_dict`.

        Raises:
            ValueError: the table is of a data set of another size, or has samples that are not in the split.
        """
        table = state["table"].numpy()
        if table.shape == (len(self.targets.keys), 12):  # of an earlier version, without the decoder's warnings
            table = np.pad(table, ((0, 0), (0, 1)))
        if table.shape != self._table.array.shape or table.dtype != self._table.array.dtype:
            raise ValueError(f"the state is {table.dtype} {table.shape}, expected int64 {self._table.array.shape}.")
        if bool(table[~self.targets.expected].any()):
            raise ValueError("the state holds samples that are not in this metric's split.")
        self._table.array[:] = table

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

    def _rows_of_names(self, names: Sequence[Name] | NDArray[Any]) -> NDArray[np.int64]:
        if isinstance(names, (str, bytes)):
            raise ValueError(f"expected the names of the batch's samples in a list, not one name: {names!r}.")  # noqa: TRY004
        rows = np.array([self._row_of(name) for name in names], dtype=np.int64)
        unknown = np.flatnonzero(rows < 0)
        if len(unknown):
            raise ValueError(f"{names[unknown[0]]} is not a sample of the data set ({len(unknown):,} such names).")
        self._check_expected(rows)
        return rows

    def _row_of(self, name: Name) -> int:
        """Return the position of a sample by its key, which may hold folders, or by any spelling of its name; or -1."""
        key = name.removesuffix(".JPEG") if isinstance(name, str) else ""
        found = self._position_of.get(key)
        return self._position_of.get(sample_key(name), -1) if found is None else found

    def _check_expected(self, rows: NDArray[np.int64]) -> None:
        outside = rows[~self.targets.expected[rows]]
        if len(outside):
            raise ValueError(
                f"{self.targets.keys[outside[0]]} is not in split {self.targets.identity.get('split')!r} "
                f"({len(outside):,} such samples). Give the metric the data set that the batches come from."
            )


def _top_predictions(predictions: torch.Tensor) -> HostCopies:
    """Return the five best classes of each row, int64 (B, 5), and their softmax probabilities, float32 (B, 5).

    For predictions that are classes, (B,) or (B, 5), only these are returned.

    Raises:
        ModelError: another shape or dtype.
    """
    predictions = predictions.detach()
    if not predictions.is_floating_point():
        if predictions.ndim != 1 and (predictions.ndim != 2 or predictions.shape[1] != TOP):
            raise _not_classes(predictions.shape)
        return HostCopies(predictions.to(torch.int64))
    if predictions.ndim != 2 or predictions.shape[1] != NUM_CLASSES:
        raise ModelError(
            f"the model returned a tensor of shape {tuple(predictions.shape)}, expected ({len(predictions)}, "
            f"{NUM_CLASSES}): one score for each class of ILSVRC2012. Give a model with the 1,000-class head."
        )
    ranked = torch.sort(predictions, dim=1, descending=True, stable=True).indices[:, :TOP].contiguous()
    precision = torch.promote_types(predictions.dtype, torch.float32)
    return HostCopies(ranked, torch.softmax(predictions, dim=1, dtype=precision).gather(1, ranked).float())


def _check_classes(classes: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return a model's classes as (n, 5), padded with -1, after a check; `shape` is that of its whole output."""
    given = classes if classes.ndim == 2 else classes[:, None]
    if bool(((given < 0) | (given >= NUM_CLASSES)).any()):
        raise _not_classes(shape)
    return np.pad(given, ((0, 0), (0, TOP - given.shape[1])), constant_values=-1)


def _not_classes(shape: tuple[int, ...]) -> ModelError:
    return ModelError(f"expected classes 0..{NUM_CLASSES - 1} of shape (B,) or (B, {TOP}), got shape {tuple(shape)}.")
