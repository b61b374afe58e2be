"""The evaluation loop: model, data set and transform in, `Result` out."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from wds_real.data import plan
from wds_real.data.batch import output_shape
from wds_real.data.distributed import all_reduce, process_group
from wds_real.data.loader import Loader
from wds_real.errors import ModelError
from wds_real.evaluation.device import Normalize, default_device, device_name, on_device
from wds_real.evaluation.metric import RealAccuracy
from wds_real.evaluation.models.base import LoadedModel, name_of
from wds_real.image.backends import describe
from wds_real.image.transform import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
from wds_real.scoring.output import write_output
from wds_real.scoring.records import Record, RunKey, RunRecords
from wds_real.scoring.result import joined_execution
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wds_real.data.batch import Batch
    from wds_real.data.dataset import Dataset
    from wds_real.data.distributed import World
    from wds_real.scoring.result import Result

__all__ = ["EvalOptions", "evaluate", "versions"]

_LOG = logging.getLogger(__name__)

Model = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """How to run the model.

    `batch_size` and the precision (`amp` with `amp_dtype`) belong to the identity of a run: records of another batch
    size or precision are not reused. `device`, `torchcompile` and `channels_last` can change the last bits of scores,
    and so a prediction where two classes are nearly equal; the result says them. The others change no prediction.

    Attributes:
        batch_size: Images per batch on each rank.
        threads: Decoding threads of a process; None means one for each core, divided between the processes of a node.
        device: Where the model runs; None means this rank's accelerator, or the CPU.
        amp: Run the model under autocast.
        amp_dtype: ``float16`` or ``bfloat16``.
        channels_last: Give the model channels-last memory.
        torchcompile: Compile the model with ``torch.compile``.
        on_error: ``raise``, or ``record``: count unreadable images as wrong, and give the best possible accuracy too.
        pixel_cache: Folder for transformed pixels, which the next evaluation reads instead of decoding; see `Loader`.
        timeout_s: How long a rank waits for the others at the end, in seconds.
    """

    batch_size: int = 256
    threads: int | None = None
    device: str | None = None
    amp: bool = False
    amp_dtype: str = "float16"
    channels_last: bool = False
    torchcompile: bool = False
    on_error: Literal["raise", "record"] = "raise"
    pixel_cache: str | None = None
    timeout_s: float = 1800.0


def evaluate(
    model: Model | LoadedModel,
    dataset: Dataset,
    *,
    transform: EvalTransform | Callable[[Any], Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    options: EvalOptions | None = None,
    output: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Evaluate `model` on each sample of `dataset` exactly once, on this process or with all ranks of a launch.

    With `output`, each finished batch is recorded there at once. The same call again, with any number of ranks, does
    only what is missing and ends with the same result; ``result.json`` and ``predictions.csv`` are written at the end.

    Args:
        model: Takes float (B, 3, H, W), returns scores (B, 1000); or what `wds_real.load_model` returned.
        dataset: From `wds_real.open_dataset`.
        transform: As for `Loader`; None means the loaded model's own.
        mean: Per channel, of values in 0..1; None means the transform's.
        std: As `mean`.
        options: How to run.
        output: Folder for records, result and predictions.
        progress: Called after each batch with the samples it held and the samples this rank has in all.

    Raises:
        CoverageError: a sample was missed or counted twice.
        ShardError: a sample is damaged.
        ModelError: the model does not return (B, 1000) finite scores.
        PredictionsError: `output` holds the records of another run.
    """
    options = options or EvalOptions()
    loaded = model if isinstance(model, LoadedModel) else LoadedModel(name_of(model), model)
    transform = transform or loaded.transform
    if isinstance(transform, EvalTransform):
        mean, std = mean or transform.mean, std or transform.std
    mean, std = mean or IMAGENET_MEAN, std or IMAGENET_STD
    device = default_device() if options.device is None else torch.device(options.device)
    preprocessing = _describe(transform)
    if not output_shape(transform)[1].is_floating_point:  # else the transform has normalised
        preprocessing |= {"mean": list(mean), "std": list(std)}
    key = _run_key(loaded, dataset, preprocessing, options)
    execution = {"device": device.type, "compile": options.torchcompile, "channels_last": options.channels_last}
    with process_group(device, timeout_s=options.timeout_s) as world, torch.inference_mode(), ExitStack() as stack:
        metric = RealAccuracy(dataset)
        total = plan.num_batches(len(dataset), options.batch_size)
        remaining, records = list(range(total)), None
        if output is not None:
            records = stack.enter_context(RunRecords(output, key, about={"root": dataset.root}, rank=world.rank))
            records.add_execution(execution)
            remaining = _resume(records, metric, total=total, world=world)
        loader = Loader(
            dataset,
            batch_size=options.batch_size,
            transform=transform,
            threads=options.threads,
            batches=remaining,
            on_error=options.on_error,
            pixel_cache=options.pixel_cache,
        )
        forward = _prepared(loaded.module, Normalize(mean, std, device=device), device, options)
        watch, mine = _Watch(), loader.num_samples
        for batch, image in on_device(watch.waiting_for(loader), device):
            ranked = metric.rank_classes(forward(image), batch)
            if records is not None and batch.number >= 0:
                records.append(Record(batch.number, ranked.positions, ranked.classes, ranked.probabilities))
            metric.add(ranked.positions, ranked.classes, ranked.probabilities)
            if progress is not None:
                progress(len(ranked.positions), mine)
        result, predictions = metric.compute_with_predictions()
        executions = (records.executions() if records is not None else []) or [execution]
    sizes = (len(plan.batch(dataset.positions, number, batch_size=options.batch_size)) for number in remaining)
    run = {
        "options": asdict(options),
        "device": device_name(device),
        "threads": loader.threads,
        "batches_done_before": total - len(remaining),
        "timings": watch.timings(sum(sizes), loader),
        **describe(),
        "versions": versions(),
    }
    result = replace(
        result,
        model=key.identity["model"],
        preprocessing=key.identity["preprocessing"],
        execution=joined_execution(key.identity["dtype"], options.batch_size, executions),
        run=run,
    )
    if output is not None and world.rank == 0:
        write_output(LocalStore(Path(output)), result, predictions)
    return result


def versions() -> dict[str, str]:
    """Return the versions of what can change a result."""
    names = ("wds_real", "torch", "numpy", "pillow", "simplejpeg")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _run_key(loaded: LoadedModel, dataset: Dataset, preprocessing: dict[str, Any], options: EvalOptions) -> RunKey:
    """Return what the records of a run must agree on: whatever changes what a batch is or what the model says of it."""
    return RunKey(
        {
            "dataset": dataset.digest,
            "split": dataset.split,
            "model": loaded.identity(),
            "preprocessing": preprocessing,
            "dtype": options.amp_dtype if options.amp else "float32",
            "batch_size": options.batch_size,
        }
    )


def _resume(run: RunRecords, metric: RealAccuracy, *, total: int, world: World) -> list[int]:
    """Count the records of earlier starts, and return the batches that are left to do, the same list on all ranks.

    If several ranks see a record, because they share the folder, the lowest one counts it. The reduction also makes
    every rank read before any rank appends.
    """
    records = {number: record for number, record in run.read().by_batch.items() if number < total}
    holder = torch.full((total,), world.world_size, dtype=torch.int64)
    holder[list(records)] = world.rank
    holder = all_reduce(holder, "min")
    for number, record in records.items():
        if holder[number] == world.rank:
            metric.add(record.index, record.classes, record.probabilities)
    left: list[int] = torch.nonzero(holder == world.world_size).flatten().tolist()
    if len(left) < total and world.rank == 0:
        _LOG.info("resuming: %d of %d batches are recorded in %s", total - len(left), total, run.folder)
    return left


def _prepared(model: Model, normalize: Normalize, device: torch.device, options: EvalOptions) -> Model:
    """Return a function from a batch's image on the device to scores."""
    if isinstance(model, torch.nn.Module):
        model = _in_eval_mode(model).to(device)
        if options.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    if options.torchcompile:
        model = torch.compile(model)
    memory_format = torch.channels_last if options.channels_last else torch.contiguous_format
    amp_dtype = getattr(torch, options.amp_dtype)

    def forward(image: torch.Tensor) -> torch.Tensor:
        pixels = normalize(image).contiguous(memory_format=memory_format)
        with torch.autocast(device.type, dtype=amp_dtype, enabled=options.amp):
            scores = model(pixels)
        if not isinstance(scores, torch.Tensor):
            raise ModelError(
                f"the model returned a {type(scores).__name__}, expected a tensor of scores (B, 1000). Wrap it in a "
                "function that returns the logits."
            )
        return scores

    return forward


def _in_eval_mode(model: torch.nn.Module) -> torch.nn.Module:
    try:
        return model.eval()
    except NotImplementedError:  # a module from torch.export was fixed in its mode when it was exported
        return model


class _Watch:
    """Measures where the loop's time goes."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._waited = 0.0

    def waiting_for(self, loader: Loader) -> Iterator[Batch]:
        """Yield the batches, adding up how long each took to come."""
        asked = time.perf_counter()
        for batch in loader:
            self._waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def timings(self, num_samples: int, loader: Loader) -> dict[str, float | str]:
        """Return where this rank's time went, and the rate of all ranks together.

        The loop waits for data or computes; where it waits for more than a tenth of the time, data is the bottleneck:
        reading or decoding, whichever took the loader's threads longer.
        """
        total = time.perf_counter() - self._started
        slower = "reading" if loader.read_s > loader.decode_s else "decoding"
        return {
            "total_s": round(total, 3),
            "waited_for_data_s": round(self._waited, 3),
            "reading_thread_s": round(loader.read_s, 3),
            "decoding_thread_s": round(loader.decode_s, 3),
            "bottleneck": "model" if self._waited <= total / 10 else slower,
            "images_per_s": round(num_samples / total, 1),
        }


def _describe(transform: EvalTransform | Callable[[Any], Any]) -> dict[str, Any]:
    return transform.describe() if isinstance(transform, EvalTransform) else {"name": name_of(transform)}
