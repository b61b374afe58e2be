"""The evaluation loop."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wds_real.data import plan
from wds_real.data.batch import output_shape
from wds_real.data.distributed import all_reduce, process_group
from wds_real.data.loader import Loader
from wds_real.errors import ModelError, PredictionsError
from wds_real.evaluation.device import Normalize, device_name, on_device, open_device
from wds_real.evaluation.failures import check_batch_fits, memory_errors
from wds_real.evaluation.forward import input_dtype, prepare_forward
from wds_real.evaluation.metric import RealAccuracy
from wds_real.evaluation.models.base import LoadedModel, name_of
from wds_real.evaluation.options import EvalOptions
from wds_real.evaluation.outputs import Outputs
from wds_real.evaluation.rank_progress import reported
from wds_real.evaluation.stopwatch import Stopwatch
from wds_real.image.backends import describe
from wds_real.image.transform import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
from wds_real.scoring.output import write_output
from wds_real.scoring.output_folder import owned
from wds_real.scoring.records import Record, RunKey, RunRecords
from wds_real.scoring.result import joined_execution
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wds_real.data.dataset import Dataset
    from wds_real.data.distributed import World
    from wds_real.scoring.result import Result

__all__ = ["evaluate", "versions"]

_LOG = logging.getLogger(__name__)

Model = Callable[[torch.Tensor], torch.Tensor]


def evaluate(
    model: Model | LoadedModel,
    dataset: Dataset,
    *,
    transform: EvalTransform | Callable[[Any], Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    options: EvalOptions | None = None,
    output: str | Path | None = None,
    progress: Callable[[int, int], None] | bool = True,
) -> Result:
    """Evaluate `model` on each sample of `dataset` exactly once, on this process or with all ranks of a launch.

    With `output`, each finished batch is recorded there at once. The same call again, with any number of ranks,
    evaluates only the missing batches and gives the same result. ``result.json`` and ``predictions.csv`` are written at
    the end.

    Args:
        model: Takes float (B, 3, H, W), returns scores (B, 1000), also as `logits` of a dict or dataclass or as the
            first of a tuple; or what `wds_real.load_model` returned.
        dataset: From `wds_real.open_dataset`.
        transform: As for `Loader`; None means the loaded model's own.
        mean: Per channel, of values in 0..1; None means the transform's.
        std: As `mean`.
        options: How to run the model.
        output: Folder for records, result and predictions.
        progress: True shows a bar on rank 0 if stderr is a terminal or a notebook's, False shows nothing. A function is
            called on rank 0, from any thread, with the number of samples that all ranks did since its last call, and
            the total.

    Raises:
        CoverageError: a sample was missed or counted twice.
        ShardError: a sample is damaged.
        ModelError: the model does not return (B, 1000) finite scores, takes no batches of this size or images of this
            size, or is a function that uses a module in training mode.
        ModelRunError: the model raised an error, which is the ``__cause__``, or memory ran out.
        PredictionsError: `output` holds the records of another run, another process writes there, or it cannot be
            written to.
    """
    options = options or EvalOptions()
    loaded = model if isinstance(model, LoadedModel) else LoadedModel(name_of(model), model)
    device = open_device(options.device)
    inputs = _Inputs.of(transform or loaded.transform, mean, std, as_pixels=loaded.takes_pixels)
    shape = (options.batch_size, *inputs.shape)
    if loaded.accepts is not None:
        loaded.accepts.check(loaded.spec, shape)
    check_batch_fits(shape)
    key = _run_key(loaded, dataset, inputs.description, options)
    execution = {"device": device.type, "compile": options.torchcompile, "channels_last": options.channels_last}
    with process_group(device, timeout_s=options.timeout_s) as world, torch.inference_mode(), ExitStack() as stack:
        stack.enter_context(memory_errors(options.batch_size))
        metric, records = RealAccuracy(dataset), None
        total = plan.num_batches(len(dataset), options.batch_size)
        remaining = list(range(total))
        if output is not None:
            _own(output, world, stack)
            about = {"root": dataset.root, "world_size": world.world_size}
            records = stack.enter_context(RunRecords(output, key, about=about, rank=world.rank))
            remaining = _resume(records, metric, execution, total=total, world=world)
        loader = Loader(
            dataset,
            batch_size=options.batch_size,
            transform=inputs.transform,
            threads=options.threads,
            batches=remaining,
            on_error=options.on_error,
            pixel_cache=options.pixel_cache,
            check_files=True,
        )
        normalize = Normalize(inputs.mean, inputs.std, device=device, channels_last=options.channels_last)
        stopwatch = Stopwatch()
        forward, outputs = prepare_forward(loaded, normalize, device, options, stopwatch), Outputs(loaded.classes)
        num_samples = _num_samples(dataset, remaining, options.batch_size)
        advance = stack.enter_context(reported(progress, num_samples, own=loader.num_samples, world=world))
        for batch, image in on_device(stopwatch.waiting_for(loader), device):
            ranked = metric.rank_classes(outputs.scores(forward(image)), batch)
            if records is not None and batch.number >= 0:
                records.append(
                    Record(batch.number, ranked.positions, ranked.classes, ranked.probabilities, ranked.warned)
                )
            metric.add(ranked.positions, ranked.classes, ranked.probabilities, warned=ranked.warned)
            advance(len(ranked.positions))
        result, predictions = metric.compute_with_predictions()
        executions = [execution] if records is None else records.executions()
        result = replace(
            result,
            model=key.identity["model"],
            preprocessing=key.identity["preprocessing"],
            execution=joined_execution(key.identity["dtype"], options.batch_size, executions),
            run={
                "options": asdict(options),
                "device": device_name(device),
                "threads": loader.threads,
                "batches_done_before": total - len(remaining),
                "timings": stopwatch.timings(num_samples, loader),
                **describe(),
                "versions": versions(),
            },
        )
        if output is not None and world.rank == 0:
            write_output(LocalStore(Path(output)), result, predictions)
    return result


@dataclass(frozen=True, slots=True)
class _Inputs:
    """How images become the model's input.

    Attributes:
        transform: From a Pillow image to pixels.
        mean: Per channel, of values in 0..1.
        std: As `mean`.
        shape: Channels, height and width.
        description: The same, JSON-ready, for the run's identity and the result.
    """

    transform: EvalTransform | Callable[[Any], Any]
    mean: Sequence[float]
    std: Sequence[float]
    shape: tuple[int, int, int]
    description: dict[str, Any]

    @classmethod
    def of(
        cls,
        transform: EvalTransform | Callable[[Any], Any],
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        *,
        as_pixels: bool = False,
    ) -> _Inputs:
        """Take mean and std from the transform, or those of ImageNet, where they are not given.

        Raises:
            ModelError: the model takes pixels, but the transform returns floats.
        """
        if isinstance(transform, EvalTransform):
            mean, std = mean or transform.mean, std or transform.std
            description = transform.describe()
        else:
            description = {"name": name_of(transform)}
        mean, std = mean or IMAGENET_MEAN, std or IMAGENET_STD
        (height, width, channels), dtype = output_shape(transform)
        if as_pixels and dtype.is_floating_point:
            raise ModelError("the model takes uint8 pixels, but the transform returns floats. Return uint8 from it.")
        if as_pixels:
            unused = (
                ("std",) if description.get("crop_mode") == "border" else ("mean", "std")
            )  # the border has the mean
            description = {name: value for name, value in description.items() if name not in unused}
        elif not dtype.is_floating_point:  # floats are normalised by the transform
            description |= {"mean": list(mean), "std": list(std)}
        return cls(transform, mean, std, (channels, height, width), description)


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


def _num_samples(dataset: Dataset, batches: Sequence[int], batch_size: int) -> int:
    return sum(len(plan.batch(dataset.positions, number, batch_size=batch_size)) for number in batches)


def _own(output: str | Path, world: World, stack: ExitStack) -> None:
    """Let rank 0 own the output folder until the stack ends; all ranks stop if it cannot."""
    refused: PredictionsError | None = None
    if world.rank == 0:
        work = "eval" if world.world_size == 1 else f"eval on {world.world_size} ranks"
        try:
            stack.enter_context(owned(output, work))
        except PredictionsError as error:
            refused = error
    if all_reduce(torch.tensor([refused is not None], dtype=torch.int64), "sum").item():
        raise refused or PredictionsError(f"{output}: rank 0 cannot use this --output; it says why.")


def _resume(run: RunRecords, metric: RealAccuracy, execution: dict[str, Any], *, total: int, world: World) -> list[int]:
    """Count the records of earlier starts, and return the batches that are left to do, the same list on all ranks.

    If several ranks see a record, because they share the folder, the lowest one counts it. The reduction also
    ensures that every rank has read, and rank 0 has added the execution to ``run.json``, before any rank appends.
    """
    records = {number: record for number, record in run.read().by_batch.items() if number < total}
    if len(records) < total:
        run.add_execution(execution)
    holder = torch.full((total,), world.world_size, dtype=torch.int64)
    holder[list(records)] = world.rank
    holder = all_reduce(holder, "min")
    for number, record in records.items():
        if holder[number] == world.rank:
            metric.add(record.index, record.classes, record.probabilities, warned=record.warned)
    left: list[int] = torch.nonzero(holder == world.world_size).flatten().tolist()
    if len(left) < total and world.rank == 0:
        _LOG.info("resuming: %d of %d batches are recorded in %s", total - len(left), total, run.folder)
    return left
