"""The evaluation loop."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wds_real.data.dataset import open_dataset
from wds_real.data.distributed import process_group
from wds_real.data.loader import Loader
from wds_real.errors import ModelError, WdsRealError
from wds_real.evaluation.device import on_device
from wds_real.evaluation.failures import memory_errors
from wds_real.evaluation.forward import choose_device
from wds_real.evaluation.inputs import Inputs
from wds_real.evaluation.model_run import ModelRun, own_output
from wds_real.evaluation.models.base import as_loaded
from wds_real.evaluation.models.load import load_model
from wds_real.evaluation.options import choose_options
from wds_real.evaluation.progress.ranks import reported
from wds_real.evaluation.progress.stopwatch import Stopwatch
from wds_real.image.transform import EvalTransform
from wds_real.scoring.run.place import OutputPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Unpack

    from wds_real.data.dataset import Dataset
    from wds_real.data.launchers import World
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.evaluation.options import EvalFields, EvalOptions
    from wds_real.scoring.result import Result

__all__ = ["check_pixel_cache", "evaluate", "run_pass"]


def evaluate(  # noqa: PLR0913 -- what users expect to set here
    model: str | Callable[[torch.Tensor], torch.Tensor] | LoadedModel,
    dataset: str | Path | Dataset,
    *,
    transform: EvalTransform | Callable[[Any], Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    options: EvalOptions | None = None,
    output: str | Path | OutputPlace | None = None,
    output_options: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | bool = True,
    **fields: Unpack[EvalFields],
) -> Result:
    """Evaluate `model` on each sample of `dataset` exactly once, in this process or with all ranks of a launcher.

    With `output`, each finished batch is recorded there at once. The same call again, with any number of ranks,
    evaluates only the missing batches and gives the same result. ``result.json`` and ``predictions.csv`` are written at
    the end.

    Args:
        model: Takes float (B, 3, H, W), returns scores (B, 1000), also as `logits` of a dict or dataclass or as the
            first of a tuple; or what `wds_real.load_model` returned, or the name that it takes, such as
            ``timm:resnet18``.
        dataset: From `wds_real.open_dataset`, or the root that it takes.
        transform: As for `Loader`; None means the loaded model's own.
        mean: Per channel, of values in 0..1; None means the transform's.
        std: As `mean`.
        options: How to run the model.
        output: Folder, or URL of an object store, for records, result and predictions.
        output_options: Storage options of `output`, if it is a URL.
        progress: True shows a bar on rank 0 if stderr is a terminal or a notebook's, False shows nothing. A function is
            called on rank 0, from any thread, with the number of samples that all ranks finished since its last call,
            and the total.
        **fields: Fields of `EvalOptions`, in place of `options`: ``evaluate(model, dataset, batch_size=64)``.

    Raises:
        TypeError: both `options` and fields of it are given, or a keyword is neither.
        CoverageError: a sample was missed or counted twice.
        ShardError: a sample is damaged.
        ModelError: the model does not return (B, 1000) finite scores, takes no batches of this size or images of this
            size, or is a function that uses a module in training mode.
        ModelRunError: the model raised an error, which is the ``__cause__``, or memory ran out.
        PredictionsError: `output` holds the records of another run, another process writes there, or it cannot be
            written to.
        StoreError: `output` is in an object store that cannot be read or written.
    """
    options = choose_options(options, **fields)
    loaded = load_model(model) if isinstance(model, str) else as_loaded(model)
    dataset = open_dataset(dataset) if isinstance(dataset, (str, Path)) else dataset
    device = choose_device(loaded, options)
    inputs = Inputs.of(transform or loaded.transform, mean, std, as_pixels=loaded.takes_pixels)
    place = None if output is None else OutputPlace.of(output, output_options)
    run = ModelRun(loaded, dataset, inputs=inputs, options=options, device=device, output=place)
    with process_group(device, timeout_s=options.timeout_s) as world, torch.inference_mode(), ExitStack() as stack:
        stack.enter_context(memory_errors(options.batch_size))
        if place is not None:
            own_output(place, world, stack)
        stack.enter_context(run).prepare(world)
        [facts] = run_pass([run], dataset, options=options, device=device, world=world, progress=progress)
        result, _ = run.finish(facts, world)
    return result


def run_pass(
    runs: Sequence[ModelRun],
    dataset: Dataset,
    *,
    options: EvalOptions,
    device: torch.device,
    world: World,
    progress: Callable[[int, int], None] | bool = False,
    failed: Callable[[ModelRun, WdsRealError], None] | None = None,
) -> list[dict[str, Any]]:
    """Load each batch that is left once, and do the step of each run that needs it.

    Args:
        runs: Prepared runs of one data set, whose inputs have the same pixels.
        dataset: The data set.
        options: Of all runs.
        device: Of all runs.
        world: The rank of this process, and the number of ranks that divide the batches.
        progress: As for `evaluate`; an image counts once for each run.
        failed: Called with a run whose step fails, and the error; the run leaves the pass, and the others go on. None
            means that the error is raised.

    Returns:
        The threads and timings of the pass, for each run.

    Raises:
        ShardError: a sample is damaged.
        ModelError: a model failed, and `failed` is None.
        PredictionsError: a record cannot be written to a folder, and `failed` is None.
        StoreError: a record cannot be written to an object store.
    """
    loader = Loader(
        dataset,
        batch_size=options.batch_size,
        transform=runs[0].inputs.transform,
        threads=options.threads,
        batches=sorted({number for run in runs for number in run.left}),
        rank=world.rank,
        world_size=world.world_size,
        on_error=options.on_error,
        pixel_cache=options.pixel_cache,
        check_files=True,
    )
    # Number -1 is a batch of padding. Every run does its step, so that a model runs equally often on all ranks.
    going = {run: {*run.left, -1} for run in runs if run.left}
    share = loader.schedule.share()
    own = sum(run.num_samples(left.intersection(share)) for run, left in going.items())
    stopwatch = Stopwatch()
    with reported(progress, sum(run.num_left for run in runs), own=own, world=world) as advance:
        try:
            for batch, image in on_device(stopwatch.waiting_for(loader), device):
                for run in [run for run, left in going.items() if batch.number in left]:
                    if not _goes_on(run, functools.partial(run.step, batch, image), advance, failed):
                        del going[run]
                if not going:
                    break
        finally:  # also if the data is damaged, or the user interrupts: what is finished is recorded
            for run in going:
                _goes_on(run, run.catch_up, advance, failed)
    return [
        {
            "threads": loader.threads,
            "timings": stopwatch.timings(run.num_left, loader, run.stopwatch, num_models=len(runs)),
        }
        for run in runs
    ]


def _goes_on(
    run: ModelRun,
    work: Callable[[], int],
    advance: Callable[[int], None],
    failed: Callable[[ModelRun, WdsRealError], None] | None,
) -> bool:
    """Call `work` of a run, and return whether it succeeded; `failed` is as for `run_pass`.

    If it fails, the batch in flight is finished too. That batch is the earlier one: if it fails, its error is reported.
    """

    def report(num_samples: int) -> None:
        if num_samples:  # the first step finishes nothing
            advance(num_samples)

    try:
        try:
            report(work())
        except BaseException:
            report(run.catch_up())
            raise
    except WdsRealError as error:
        if failed is None:
            raise
        failed(run, error)
        return False
    return True


def check_pixel_cache(model: LoadedModel) -> None:
    """Refuse a pixel cache for a model whose preprocessing is another library's.

    Raises:
        ModelError: its pixels cannot be kept.
    """
    if not isinstance(model.transform, EvalTransform):
        raise ModelError(
            f"{model.spec} is preprocessed by {model.transform.name}: --pixel-cache cannot keep its pixels."
        )
