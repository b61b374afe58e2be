"""Evaluate one rank's share without communication: what other ranks have finished is read from the output.

    1. the batches of plan.share(K, rank, W) that have no record
    2. with `steal`, parts of all batches that have no record, until none is missing
    3. if no batch is missing, result and predictions from the records of all ranks

Two ranks may evaluate the same batch. If their predictions differ, reading the records raises an error.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wds_real.data import plan
from wds_real.data.dataset import open_dataset
from wds_real.data.launchers import independent_world
from wds_real.evaluation.failures import memory_errors
from wds_real.evaluation.forward import choose_device
from wds_real.evaluation.inputs import Inputs
from wds_real.evaluation.loop import run_pass
from wds_real.evaluation.model_run import ModelRun
from wds_real.evaluation.models.base import as_loaded
from wds_real.evaluation.models.load import load_model
from wds_real.evaluation.options import choose_options
from wds_real.scoring.run.place import OutputPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Unpack

    from wds_real.data.dataset import Dataset
    from wds_real.data.launchers import World
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.evaluation.options import EvalFields, EvalOptions
    from wds_real.image.transform import EvalTransform
    from wds_real.scoring.result import Result

__all__ = ["Share", "evaluate_share", "run_share"]

_LOG = logging.getLogger(__name__)
_MAX_NAMED = 10  # ranks in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The outcome of one rank's share.

    Attributes:
        world: The rank, and the number of ranks.
        num_batches: Batches of the whole run.
        done: Numbers of the batches that this process evaluated.
        missing: Numbers of the batches without a record when this rank ended.
        result: Of the whole run; None while batches are missing.
    """

    world: World
    num_batches: int
    done: tuple[int, ...]
    missing: tuple[int, ...]
    result: Result | None

    def as_dict(self) -> dict[str, Any]:
        """Return what this rank did, and what is missing, JSON-ready."""
        return {
            "rank": self.world.rank,
            "world_size": self.world.world_size,
            "batches": self.num_batches,
            "batches_done": len(self.done),
            "batches_missing": list(self.missing),
        }

    def __str__(self) -> str:
        rank, world_size = self.world.rank, self.world.world_size
        text = f"rank {rank} of {world_size} did {len(self.done):,} batch{'es' * (len(self.done) != 1)}"
        if not self.missing:
            return f"{text}; all {self.num_batches:,} are recorded"
        ranks = [
            str(each)
            for each in range(world_size)
            if set(self.missing).intersection(plan.share(self.num_batches, rank=each, world_size=world_size))
        ]
        named = ", ".join(ranks[:_MAX_NAMED]) + ", ..." * (len(ranks) > _MAX_NAMED)
        whose = f"rank{'s' * (len(ranks) > 1)} {named}"
        missing = f"{len(self.missing):,} of {self.num_batches:,} {'is' if len(self.missing) == 1 else 'are'}"
        return f"{text}; {missing} not recorded yet, of {whose}: the last rank to end makes the result"


def evaluate_share(  # noqa: PLR0913 -- what users expect to set here
    model: str | Callable[[torch.Tensor], torch.Tensor] | LoadedModel,
    dataset: str | Path | Dataset,
    *,
    output: str | Path,
    output_options: Mapping[str, str] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    steal: bool = False,
    transform: EvalTransform | Callable[[Any], Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    options: EvalOptions | None = None,
    progress: Callable[[int, int], None] | bool = True,
    **fields: Unpack[EvalFields],
) -> Result | None:
    """Evaluate one rank's share of `dataset`, without communicating with other ranks.

    All ranks have the same `output` and record their batches there. A rank that finds all batches recorded when it ends
    writes ``result.json`` and ``predictions.csv``; ``wds-real merge`` writes them too. Ranks may start at any time, in
    any order, more than once, and with another number of ranks.

    Args:
        model: As for `wds_real.evaluate`.
        dataset: As for `wds_real.evaluate`.
        output: A folder that all ranks see, or the URL of an object store.
        output_options: Storage options of `output`, if it is a URL.
        rank: In [0, world_size); None takes it from the launcher's variables: SLURM arrays, Kubernetes Indexed Jobs,
            AWS Batch arrays, SkyPilot, torchrun, srun; see `wds_real.data.launchers.independent_world`.
        world_size: Number of ranks; None as for `rank`.
        steal: After its own share, evaluate batches of other ranks that are not recorded yet, until none is missing.
        transform: As for `wds_real.evaluate`.
        mean: As for `wds_real.evaluate`.
        std: As for `wds_real.evaluate`.
        options: How to run the model.
        progress: As for `wds_real.evaluate`, but for the samples of this rank.
        **fields: Fields of `EvalOptions`, in place of `options`.

    Returns:
        The result of the whole run, or None while batches of other ranks are missing.

    Raises:
        PlanError: the rank is not in [0, world_size), or no launcher gives one.
        PredictionsError: `output` holds the records of another run, or two records of a batch differ.
        StoreError: `output` cannot be read or written.
        ModelError: as for `wds_real.evaluate`, as are the other errors.
    """
    options = choose_options(options, **fields)
    loaded = load_model(model) if isinstance(model, str) else as_loaded(model)
    dataset = open_dataset(dataset) if isinstance(dataset, (str, Path)) else dataset
    inputs = Inputs.of(transform or loaded.transform, mean, std, as_pixels=loaded.takes_pixels)
    place, world = OutputPlace(output, output_options), independent_world(rank=rank, world_size=world_size)
    share = run_share(loaded, dataset, place, world, inputs=inputs, steal=steal, options=options, progress=progress)
    _LOG.info("%s", share)
    return share.result


def run_share(
    loaded: LoadedModel,
    dataset: Dataset,
    output: OutputPlace,
    world: World,
    *,
    steal: bool,
    options: EvalOptions,
    inputs: Inputs | None = None,
    progress: Callable[[int, int], None] | bool = False,
) -> Share:
    """Evaluate one rank's share; as `evaluate_share`, but also return what is missing."""
    device = choose_device(loaded, options)
    inputs = inputs or Inputs.of(loaded.transform, as_pixels=loaded.takes_pixels)
    run = ModelRun(loaded, dataset, inputs=inputs, options=options, device=device, output=output)
    total = plan.num_batches(len(dataset), options.batch_size)
    alone = replace(world, rank=0, world_size=1)
    done, facts = list[int](), dict[str, Any]()
    with torch.inference_mode(), ExitStack() as stack:
        stack.enter_context(memory_errors(options.batch_size))
        if output.folder is not None:
            output.check()
        stack.enter_context(run).prepare_share(world)
        for batches in _parts(run, total, world, steal=steal):
            run.choose(batches)
            told = _after(run.num_samples(done), progress)
            [facts] = run_pass([run], dataset, options=options, device=device, world=alone, progress=told)
            done += batches
        missing = _missing(run, total)
        result = None if missing else run.finish_share(output, facts, num_done=len(done))
    return Share(world=world, num_batches=total, done=tuple(done), missing=tuple(missing), result=result)


def _parts(run: ModelRun, total: int, world: World, *, steal: bool) -> Iterator[list[int]]:
    """Yield the batches to do next: this rank's own, then with `steal` parts of all that have no record."""
    own = plan.share(total, rank=world.rank, world_size=world.world_size)
    yield [batch for batch in _missing(run, total) if batch in own]
    while steal and (missing := _missing(run, total)):
        part = plan.share(len(missing), rank=world.rank, world_size=world.world_size)
        # Ranks that steal at the same time take different parts; with fewer batches than ranks, some take the same one.
        yield missing[part.start : part.stop] or [missing[world.rank % len(missing)]]


def _after(num_done: int, progress: Callable[[int, int], None] | bool) -> Callable[[int, int], None] | bool:
    """Return the progress of one pass, whose total includes the samples of earlier passes."""
    if isinstance(progress, bool):
        return progress
    return lambda amount, of_pass: progress(amount, num_done + of_pass)


def _missing(run: ModelRun, total: int) -> list[int]:
    recorded = run.recorded()
    return [batch for batch in range(total) if batch not in recorded]
