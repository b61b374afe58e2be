"""The evaluation of one model: what identifies it, its records, the batches that are left, and its result."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from wds_real.data import plan
from wds_real.data.distributed import all_reduce
from wds_real.errors import ModelRunError, PredictionsError
from wds_real.evaluation.agreement import agreed
from wds_real.evaluation.device import Normalize, device_name
from wds_real.evaluation.failures import check_batch_fits, model_errors
from wds_real.evaluation.forward import input_dtype, place, prepare_forward
from wds_real.evaluation.metric import RealAccuracy
from wds_real.evaluation.outputs import Outputs, check_labels
from wds_real.evaluation.progress.stopwatch import ModelStopwatch
from wds_real.evaluation.readback import LateReadback
from wds_real.image.backends import describe
from wds_real.scoring.result import joined_execution
from wds_real.scoring.run.description import RunKey
from wds_real.scoring.run.frame import Record
from wds_real.scoring.run.output import merge, write_output
from wds_real.scoring.run.records import RunRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from wds_real.data.batch import Batch
    from wds_real.data.dataset import Dataset
    from wds_real.data.launchers import World
    from wds_real.evaluation.inputs import Inputs
    from wds_real.evaluation.metric import Ranking
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.evaluation.options import EvalOptions
    from wds_real.scoring.predictions import Predictions
    from wds_real.scoring.result import Result
    from wds_real.scoring.run.place import OutputPlace

__all__ = ["ModelRun", "own_output", "versions"]

_LOG = logging.getLogger(__name__)


class ModelRun:
    """One model's way through a pass: `prepare`, a `step` for each batch in `left`, `finish`.

    `prepare` and `finish` communicate: all ranks call them, for the same runs in the same order. An independent rank
    calls `prepare_share`, `choose`, a `step` for each batch in `left`, and `finish_share`, which do not. A run is a
    context manager, which closes the records.

    Args:
        loaded: The model.
        dataset: What it is evaluated on.
        inputs: How images become its input.
        options: How to run it.
        device: Where.
        output: Place for records, result and predictions, which rank 0 owns (`own_output`); or None.

    Attributes:
        inputs: As given.
        key: The identity of the run.
        left: Numbers of the batches that no rank has finished, ascending, the same on all ranks, set by `prepare`; for
            an independent rank, the batches that it does next, set by `choose`.
        stopwatch: The times of this model's steps.

    Raises:
        ModelError: the model takes no batches of this size, or images of this size, or does not run on this device or
            with these options; or its outputs have names that are not those of the classes in their order.
        ModelRunError: a batch is larger than the memory of this machine.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        dataset: Dataset,
        *,
        inputs: Inputs,
        options: EvalOptions,
        device: torch.device,
        output: OutputPlace | None,
    ) -> None:
        loaded = place(loaded, device, options)
        shape = (options.batch_size, *inputs.shape)
        if loaded.accepts is not None:
            loaded.accepts.check(loaded.spec, shape)
        check_labels(loaded)
        check_batch_fits(shape)
        self.inputs, self.left = inputs, tuple[int, ...]()
        self.key = _run_key(loaded, dataset, inputs.description, options)
        self._loaded, self._dataset, self._options, self._device = loaded, dataset, options, device
        self._output = output
        self._execution = {
            "device": device.type, "compile": options.torchcompile, "channels_last": options.channels_last
        }  # fmt: skip
        self._total = plan.num_batches(len(dataset), options.batch_size)
        self._metric, self._counted = RealAccuracy(dataset), set[int]()
        self._records: RunRecords | None = None
        self._stack = ExitStack()
        self.stopwatch, self._outputs = ModelStopwatch(), Outputs(loaded.classes)
        self._forward: Callable[[torch.Tensor], Any] = _no_model
        self._readback = LateReadback(self._finish_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def num_left(self) -> int:
        """Samples in the batches that are left, of all ranks."""
        return self.num_samples(self.left)

    def drop(self) -> None:
        """Release the model, but keep what was counted; `take` goes on."""
        del self._loaded
        self._forward = _no_model

    def take(self, loaded: LoadedModel) -> None:
        """Go on with the same model, loaded again."""
        self._loaded = place(loaded, self._device, self._options)

    def num_samples(self, batches: Iterable[int]) -> int:
        """Return the number of samples in some batches."""
        positions, size = self._dataset.positions, self._options.batch_size
        return sum(len(plan.batch(positions, number, batch_size=size)) for number in batches)

    def prepare(self, world: World) -> None:
        """Read the records of earlier starts, move the model to its device, and find the batches that are left.

        Raises:
            ModelError: on all ranks, if a function uses a module in training mode on one of them.
            ModelRunError: on all ranks, if memory ran out on one, or the model cannot be moved or compiled there.
            PredictionsError: on all ranks, if the output folder holds the records of another run.
        """
        found = dict[int, Record]()
        with agreed(ModelRunError(f"{self._loaded.spec}: cannot be run on another rank, which says why.")):
            if self._records is None and self._output is not None:
                records = self._open_records(self._output, world, shared=False)
                if self._output.folder is not None or world.rank == 0:  # all ranks see the same object store
                    found = self._read(records)
                    if len(found) < self._total:
                        records.add_execution(self._execution)
            self._prepare_forward()
        self._share_out(found, world)

    def prepare_share(self, world: World) -> None:
        """Open the output of an independent rank, and move the model to its device.

        Raises:
            ModelError: a function uses a module in training mode.
            ModelRunError: memory ran out, or the model cannot be moved or compiled.
            PredictionsError: the output holds the records of another run.
            StoreError: the output cannot be read or written.
        """
        if self._output is not None:
            self._open_records(self._output, world, shared=True).add_execution(self._execution)
        self._prepare_forward()

    def recorded(self) -> frozenset[int]:
        """Return the numbers of all batches whose records any rank has saved; those of this process are saved first."""
        if self._records is None:
            return frozenset()
        self._records.flush()
        return frozenset(self._read(self._records))

    def choose(self, batches: Iterable[int]) -> None:
        """Set `left`, the batches that this independent rank does next."""
        self.left = tuple(sorted(batches))

    def step(self, batch: Batch, image: torch.Tensor) -> int:
        """Queue the model's work on a batch, whose `image` is on the device; then finish the batch before.

        To finish a batch is to wait for its predictions, record and count them. `catch_up` finishes the last one, and
        the batch before one that fails.

        Returns:
            The number of samples in the batches that were finished.

        Raises:
            ModelError: the model does not return scores.
            ModelRunError: the model raised an error, or memory ran out.
            PredictionsError: the record cannot be written.
        """
        with self._running():
            ranking = self._metric.start_ranking(self._outputs.scores(self._forward(image)), batch)
        return self._readback.add(_Step(batch.number, ranking))

    def catch_up(self) -> int:
        """Finish the batch that is in flight, if there is one; return the number of its samples."""
        return self._readback.catch_up()

    def finish(self, facts: dict[str, Any], world: World) -> tuple[Result, Predictions]:
        """Return result and predictions over all ranks, and write them to the output folder.

        Args:
            facts: Of the pass, for `Result.run`: threads and timings.
            world: The place of this process.

        Raises:
            CoverageError: a sample was missed or counted twice.
            StoreError: the output cannot be written.
        """
        if self._records is not None:
            with agreed(ModelRunError(f"{self._loaded.spec}: records cannot be saved on another rank; it says why.")):
                self._records.flush()
        result, predictions = self._metric.compute_with_predictions()
        executions = [self._execution] if self._records is None else self._records.executions()
        identity, batch_size = self.key.identity, self._options.batch_size
        result = replace(
            result,
            model=identity["model"],
            preprocessing=identity["preprocessing"],
            execution=joined_execution(identity["dtype"], batch_size, executions),
            run=self._run_facts(facts, done_before=self._total - len(self.left)),
        )
        if self._output is not None and world.rank == 0:
            write_output(self._output.store, result, predictions)
        return result, predictions

    def finish_share(self, output: OutputPlace, facts: dict[str, Any], *, num_done: int) -> Result:
        """Return the result that the records of all ranks give, and write it with the predictions.

        Args:
            output: The place of the output.
            facts: As for `finish`.
            num_done: Batches that this process did.

        Raises:
            CoverageError: a sample is missing or was counted twice.
            StoreError: the output cannot be read or written.
        """
        result, predictions = merge(output, self._dataset, records=self._records)
        result = replace(result, run=self._run_facts(facts, done_before=self._total - num_done))
        write_output(output.store, result, predictions)
        return result

    def _open_records(self, output: OutputPlace, world: World, *, shared: bool) -> RunRecords:
        about: dict[str, Any] = {"root": self._dataset.root}
        if not shared and output.folder is not None:  # in a shared place no start may change run.json
            about["world_size"] = world.world_size
        records = RunRecords(
            output, self.key, about=about, rank=world.rank, shared=shared, save_every_s=self._options.save_every_s
        )
        self._records = self._stack.enter_context(records)
        return records

    def _read(self, records: RunRecords) -> dict[int, Record]:
        return {number: one for number, one in records.read().by_batch.items() if number < self._total}

    def _prepare_forward(self) -> None:
        channels_last = self._options.channels_last
        normalize = Normalize(self.inputs.mean, self.inputs.std, device=self._device, channels_last=channels_last)
        self._forward = prepare_forward(self._loaded, normalize, self._device, self._options, self.stopwatch)

    def _run_facts(self, facts: dict[str, Any], *, done_before: int) -> dict[str, Any]:
        return {
            "options": asdict(self._options),
            "device": device_name(self._device),
            "batches_done_before": done_before,
            **facts,
            **describe(),
            "versions": versions(),
        }

    def _finish_step(self, step: _Step) -> int:
        with self._running():
            ranked = step.ranking.finish()
        if self._records is not None and step.number >= 0:
            self._records.append(
                Record(step.number, ranked.positions, ranked.classes, ranked.probabilities, ranked.warned)
            )
        self._metric.add(ranked.positions, ranked.classes, ranked.probabilities, warned=ranked.warned)
        self._counted.add(step.number)
        return len(ranked.positions)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Measure the block as the model's time, and name its errors: an accelerator may report an earlier one here."""
        with self.stopwatch.running(), model_errors("the model", batch_size=self._options.batch_size):
            yield

    def _share_out(self, found: dict[int, Record], world: World) -> None:
        """Count the records that were found, and set `left`, the same on all ranks.

        If several ranks see a record, because they share the folder, the lowest one counts it. The reduction also
        ensures that every rank has read, and rank 0 has added the execution to ``run.json``, before any rank appends.
        """
        holder = torch.full((self._total,), world.world_size, dtype=torch.int64)
        holder[[number for number in {*found, *self._counted} if number >= 0]] = world.rank
        holder = all_reduce(holder, "min")
        for number, record in found.items():
            if holder[number] == world.rank:
                self._metric.add(record.index, record.classes, record.probabilities, warned=record.warned)
                self._counted.add(number)
        self.left = tuple(torch.nonzero(holder == world.world_size).flatten().tolist())
        done = self._total - len(self.left)
        if done and self._records is not None and world.rank == 0:
            _LOG.info("resuming: %d of %d batches are recorded in %s", done, self._total, self._records.place)


@dataclass(frozen=True, slots=True)
class _Step:
    """A batch whose predictions are on their way to the host."""

    number: int
    ranking: Ranking

    @property
    def arrived(self) -> bool:
        return self.ranking.arrived


def _no_model(image: torch.Tensor) -> NoReturn:
    raise RuntimeError(f"prepare() comes before the first step, here of {len(image)} images")


def own_output(output: OutputPlace, world: World, stack: ExitStack) -> None:
    """Lock the output on rank 0 until the stack closes.

    Raises:
        PredictionsError: on all ranks, if rank 0 cannot.
    """
    with agreed(PredictionsError(f"{output}: rank 0 cannot use this --output; it says why.")):
        if world.rank == 0:
            stack.enter_context(output.owned("eval" if world.world_size == 1 else f"eval on {world.world_size} ranks"))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that can change a result."""
    names = ("wds_real", "torch", "numpy", "pillow", "simplejpeg")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _run_key(loaded: LoadedModel, dataset: Dataset, preprocessing: dict[str, Any], options: EvalOptions) -> RunKey:
    """Return the identity of the run: records are reused only by a run of the same data, model, inputs and batches."""
    return RunKey(
        {
            "dataset": dataset.digest,
            "split": dataset.split,
            "model": loaded.identity(),
            "preprocessing": preprocessing,
            "dtype": options.amp_dtype if options.amp else str(input_dtype(loaded)).removeprefix("torch."),
            "batch_size": options.batch_size,
        }
    )
