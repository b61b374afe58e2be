"""Many models on one data set: those with the same preprocessing share one pass of loading."""

from __future__ import annotations

import contextlib
import gc
import logging
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wds_real.data.dataset import open_dataset
from wds_real.data.distributed import all_reduce, process_group
from wds_real.errors import (
    CoverageError,
    MissingError,
    ModelError,
    ModelRunError,
    PredictionsError,
    StoreError,
    WdsRealError,
)
from wds_real.evaluation.agreement import agreed
from wds_real.evaluation.device import open_device
from wds_real.evaluation.failures import forget_frames, memory_errors, model_errors, ran_out_of_memory
from wds_real.evaluation.inputs import Inputs
from wds_real.evaluation.loop import check_pixel_cache, run_pass
from wds_real.evaluation.model_run import ModelRun, own_output
from wds_real.evaluation.models.base import LoadedModel, OwnTransform, name_of
from wds_real.evaluation.models.listing import find_models
from wds_real.evaluation.models.source import ModelSource, folder_names
from wds_real.evaluation.options import choose_options
from wds_real.image.transform import EvalTransform
from wds_real.scoring.run.output import FAILED_NAME, read_output, write_failure
from wds_real.scoring.run.place import OutputPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Unpack

    from wds_real.data.dataset import Dataset
    from wds_real.data.launchers import World
    from wds_real.evaluation.options import EvalFields, EvalOptions
    from wds_real.scoring.predictions import Predictions
    from wds_real.scoring.result import Result

__all__ = ["ModelOutcome", "evaluate_many"]

_LOG = logging.getLogger(__name__)
# Errors that end the evaluation of one model. Others end all: the data is damaged, or a rank is lost.
_OF_ONE_MODEL = (ModelError, PredictionsError, CoverageError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutcome:
    """The outcome of one of several models: a result or an error.

    Attributes:
        name: Of the model.
        result: None if it failed, or if it existed in a folder that this rank does not see.
        predictions: What the result was counted from, or None.
        error: Why there is no result; None if there is one.
        folder: Path of its output folder, or its URL, or None.
        existed: Whether the result was there before, and the model was not run.
    """

    name: str
    result: Result | None = None
    predictions: Predictions | None = None
    error: WdsRealError | None = None
    folder: Path | str | None = None
    existed: bool = False


def evaluate_many(
    models: Iterable[str | LoadedModel | ModelSource],
    dataset: str | Path | Dataset,
    *,
    options: EvalOptions | None = None,
    output: str | Path | OutputPlace | None = None,
    output_options: Mapping[str, str] | None = None,
    models_at_once: int = 8,
    skip_existing: bool = False,
    progress: Callable[[int, int], None] | bool = True,
    **fields: Unpack[EvalFields],
) -> list[ModelOutcome]:
    """Evaluate several models; those with the same preprocessing share each decoded batch.

    Models are loaded in the order given. Once `models_at_once` are in memory, the largest group with the same
    preprocessing is evaluated in one pass and dropped; then loading goes on. The records, result and predictions of
    each model equal those of `wds_real.evaluate`; either function resumes in the model's folder what the other began.

    A model that fails does not stop the others. If memory runs out while several models are loaded, the model is
    evaluated alone later, from the batches that are left.

    Args:
        models: Names as for `wds_real.load_model`, ``timm:`` with wildcards, ``@FILE`` with a name a line, folders of
            model files; loaded models; or functions that load them.
        dataset: From `wds_real.open_dataset`, or the root that it takes.
        options: How to run the models.
        output: Folder, or URL of an object store, in which each model gets a folder of its own, named after it.
        output_options: Storage options of `output`, if it is a URL.
        models_at_once: Models in memory at the same time.
        skip_existing: Load no model whose folder holds a result of this data set, batch size and precision, that was
            asked for with the same options and files.
        progress: As for `wds_real.evaluate`; an image counts once for each model.
        **fields: Fields of `EvalOptions`, in place of `options`.

    Returns:
        The outcome of each model, in the order given.

    Raises:
        TypeError: both `options` and fields of it are given, or a keyword is neither.
        ModelError: a list cannot be read, or a wildcard or folder names no model.
        ShardError: a sample is damaged; finished batches are recorded in `output`.
        ValueError: `models_at_once` is less than 1.
    """
    if models_at_once < 1:
        raise ValueError(f"models_at_once is {models_at_once}, expected at least 1.")
    options = choose_options(options, **fields)
    dataset = open_dataset(dataset) if isinstance(dataset, (str, Path)) else dataset
    sources = [source for model in models for source in _sources_of(model)]
    folders = folder_names([source.name for source in sources])
    place = None if output is None else OutputPlace.of(output, output_options)
    entries = [
        _Entry(source, None if place is None else place.inside(folder))
        for source, folder in zip(sources, folders, strict=True)
    ]
    device = open_device(options.device)
    with process_group(device, timeout_s=options.timeout_s) as world, ExitStack() as stack:
        for entry in entries:
            stack.callback(entry.close)
        evaluation = _Evaluation(entries, dataset, options, device=device, world=world, progress=progress)
        evaluation.go_through(at_once=models_at_once, skip_existing=skip_existing)
    return [entry.outcome for entry in entries if entry.outcome is not None]


def _sources_of(model: str | LoadedModel | ModelSource) -> Sequence[ModelSource]:
    if isinstance(model, str):
        return find_models([model])
    if isinstance(model, LoadedModel):
        return [ModelSource(model.spec, lambda: model, asked={"preprocessing": _described(model.transform)})]
    return [model]


def _described(transform: Callable[[Any], Any]) -> object:
    return transform.describe() if isinstance(transform, EvalTransform | OwnTransform) else name_of(transform)


class _Entry:
    """One of the models, from its source to its outcome."""

    def __init__(self, source: ModelSource, folder: OutputPlace | None) -> None:
        self.source, self.folder = source, folder
        self.request = source.request()  # files may change before the result is written
        self.run: ModelRun | None = None
        self.outcome: ModelOutcome | None = None
        self.owns_folder = False
        self._stack = ExitStack()

    def own_folder(self, world: World) -> None:
        """Hold the lock of the output folder, from the first call until the end."""
        if self.folder is not None and not self.owns_folder:
            own_output(self.folder, world, self._stack)
            self.owns_folder = True

    def load(self, dataset: Dataset, options: EvalOptions, device: torch.device) -> None:
        """Load the model; if its run dropped it, the run goes on with what it has counted."""
        with model_errors(f"{self.source.name}: loading it", batch_size=options.batch_size):
            loaded = self._loaded()
            if options.pixel_cache is not None:
                check_pixel_cache(loaded)
            if self.run is not None:
                self.run.take(loaded)
                return
            inputs = Inputs.of(loaded.transform, as_pixels=loaded.takes_pixels)
            run = ModelRun(loaded, dataset, inputs=inputs, options=options, device=device, output=self.folder)
            self.run = self._stack.enter_context(run)

    def end(
        self,
        found: tuple[Result, Predictions] | None = None,
        *,
        error: WdsRealError | None = None,
        existed: bool = False,
    ) -> None:
        """Keep the outcome, close the records, release the folder and drop the model."""
        self.outcome = ModelOutcome(
            name=self.source.name,
            result=None if found is None else found[0],
            predictions=None if found is None else found[1],
            error=error,
            folder=None if self.folder is None else self.folder.folder or str(self.folder),
            existed=existed,
        )
        self.close()

    def close(self) -> None:
        self.run = None
        self._stack.close()

    def _loaded(self) -> LoadedModel:
        try:
            return self.source.load()
        except ModelError:
            raise
        except WdsRealError as error:  # of a file that the model needs
            raise ModelError(str(error)) from error


class _Evaluation:
    """Takes models through passes: loads them, groups them by pixels, and drops them."""

    def __init__(
        self,
        entries: Sequence[_Entry],
        dataset: Dataset,
        options: EvalOptions,
        *,
        device: torch.device,
        world: World,
        progress: Callable[[int, int], None] | bool,
    ) -> None:
        self._entries, self._dataset, self._options = entries, dataset, options
        self._device, self._world, self._progress = device, world, progress
        self._images_done = 0
        self._loaded: list[_Entry] = []
        self._for_later: list[_Entry] = []

    def go_through(self, *, at_once: int, skip_existing: bool) -> None:
        """Evaluate all models, and set the outcome of each."""
        for entry in self._entries:
            if not (skip_existing and self._take_existing(entry)):
                self._load(entry)
            if len(self._loaded) == at_once:
                self._pass_of_largest_group()
        self._pass_of_all()
        for entry in self._for_later:
            self._load(entry)
            self._pass_of_all()

    def _take_existing(self, entry: _Entry) -> bool:
        """Use the result in the model's folder; return False if rank 0 finds none."""
        found = None
        with contextlib.suppress(WdsRealError):  # no valid result: the model is evaluated, or its folder refused
            found = _existing(entry, self._dataset, self._options)
        exists = torch.tensor([self._world.rank == 0 and found is not None], dtype=torch.int64)
        if not all_reduce(exists, "sum").item():
            return False
        entry.end(found, existed=True)
        return True

    def _load(self, entry: _Entry) -> None:
        """Load a model; if memory runs out, evaluate those that are loaded first."""
        try:
            entry.own_folder(self._world)
            with agreed(ModelRunError(f"{entry.source.name}: cannot be loaded on another rank, which says why.")):
                entry.load(self._dataset, self._options, self._device)
        except _OF_ONE_MODEL as error:
            if not (ran_out_of_memory(error) and self._loaded):
                self._failed(entry, error)
                return
            forget_frames(error)
            self._say("%s: out of memory beside %d loaded models, which are evaluated first", entry, len(self._loaded))
        else:
            self._loaded.append(entry)
            return
        self._pass_of_all()
        self._load(entry)

    def _pass_of_all(self) -> None:
        while self._loaded:
            self._pass_of_largest_group()

    def _pass_of_largest_group(self) -> None:
        """Evaluate the largest group of loaded models whose pixels are the same, and drop them."""
        groups = [[other for other in self._loaded if _same_pixels(entry, other)] for entry in self._loaded]
        group, others = max(groups, key=len), len(self._loaded) - 1
        with torch.inference_mode():
            self._evaluate(group, others)
        self._loaded = [entry for entry in self._loaded if entry not in group]
        gc.collect()  # modules may hold each other in circles

    def _evaluate(self, group: Sequence[_Entry], others: int) -> None:
        """Evaluate a group in one pass; `others` models are in memory beside each."""
        ready = [(entry, run) for entry in group if (run := self._prepared(entry, others)) is not None]
        if ready:
            facts, errors = self._pass([run for _, run in ready])
            for (entry, run), about in zip(ready, facts, strict=True):
                self._finish(entry, run, about, errors.get(run), others)

    def _prepared(self, entry: _Entry, others: int) -> ModelRun | None:
        """Return the run of a model that is ready for a pass, or None."""
        if entry.run is None:
            return None
        try:
            entry.run.prepare(self._world)
        except _OF_ONE_MODEL as error:
            self._drop(entry, error, others)
            return None
        return entry.run

    def _pass(self, runs: Sequence[ModelRun]) -> tuple[list[dict[str, Any]], dict[ModelRun, WdsRealError]]:
        """Do a pass; return the facts of each run, and the errors of those that failed on this rank.

        If memory runs out for the batches themselves, that is the error of each run.
        """
        errors = dict[ModelRun, WdsRealError]()

        def failed(run: ModelRun, error: WdsRealError) -> None:
            forget_frames(error)
            errors.setdefault(run, error)

        facts = [dict[str, Any]() for _ in runs]
        try:
            with memory_errors(self._options.batch_size):
                facts = run_pass(
                    runs, self._dataset, options=self._options, device=self._device, world=self._world,
                    progress=self._progress_of_pass(runs), failed=failed,
                )  # fmt: skip
        except ModelRunError as error:
            for run in runs:
                failed(run, error)
        return facts, errors

    def _finish(
        self, entry: _Entry, run: ModelRun, about: dict[str, Any], failure: WdsRealError | None, others: int
    ) -> None:
        try:
            with agreed(ModelRunError(f"{entry.source.name}: failed on another rank, which says why.")):
                if failure is not None:
                    raise failure
            found = run.finish({**about, "asked": entry.request}, self._world)
        except _OF_ONE_MODEL as error:
            self._drop(entry, error, others)
        else:
            if entry.folder is not None and self._world.rank == 0:
                with contextlib.suppress(MissingError):
                    entry.folder.store.delete(FAILED_NAME)
            entry.end(found)

    def _drop(self, entry: _Entry, error: WdsRealError, others: int) -> None:
        """Evaluate a model later if memory ran out beside others; otherwise it has failed."""
        if not (ran_out_of_memory(error) and others and entry.run is not None):
            self._failed(entry, error)
            return
        forget_frames(error)
        entry.run.drop()
        self._for_later.append(entry)
        self._say("%s: out of memory beside %d other models: it is evaluated alone later", entry, others)

    def _failed(self, entry: _Entry, error: WdsRealError) -> None:
        forget_frames(error)
        if entry.folder is not None and entry.owns_folder and self._world.rank == 0:
            with contextlib.suppress(StoreError):  # the outcome holds the error too
                write_failure(entry.folder.store, entry.source.name, error)
        entry.end(error=error)

    def _say(self, text: str, entry: _Entry, number: int) -> None:
        if self._world.rank == 0:
            _LOG.warning(text, entry.source.name, number)

    def _progress_of_pass(self, runs: Sequence[ModelRun]) -> Callable[[int, int], None] | bool:
        """Return the progress of one pass, whose total covers all passes."""
        told = self._progress
        if isinstance(told, bool):
            return told
        to_come = sum(entry.outcome is None and entry.run not in runs for entry in self._entries)
        total = self._images_done + sum(run.num_left for run in runs) + to_come * len(self._dataset)

        def advance(amount: int, of_pass: int) -> None:
            del of_pass
            self._images_done += amount
            told(amount, total)

        return advance


def _same_pixels(entry: _Entry, other: _Entry) -> bool:
    return entry.run is not None and other.run is not None and entry.run.inputs.same_pixels(other.run.inputs)


def _existing(entry: _Entry, dataset: Dataset, options: EvalOptions) -> tuple[Result, Predictions] | None:
    """Return the result in a model's folder; None if it is of other, or unknown, options or files."""
    if entry.folder is None:
        return None
    found, used = read_output(entry.folder, dataset), asdict(options)
    if found[0].run.get("asked") != entry.request:
        return None
    names = ("batch_size", "amp", "amp_dtype") if options.amp else ("batch_size", "amp")
    before = found[0].run.get("options", {})
    return found if all(before.get(name) == used[name] for name in names) else None
