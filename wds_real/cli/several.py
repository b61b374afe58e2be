"""``wds-real eval`` with more than one model: which models, the table at the end, and a line for each failure."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wds_real.cli.console import (
    counted,
    is_main_rank,
    print_json,
    print_lines,
    print_message,
    progress_bar,
    rank_prefix,
)
from wds_real.cli.failures import print_traceback
from wds_real.cli.output_options import kept_in
from wds_real.cli.ranks import SAME_IN_EVALUATION, same_on_all_ranks, wait_for_rank_0, wait_for_reports
from wds_real.cli.signals import kept_if_stopped
from wds_real.errors import ModelRunError, PredictionsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wds_real.cli.model_options import ModelOptions
    from wds_real.data.dataset import Dataset
    from wds_real.errors import WdsRealError
    from wds_real.evaluation.many import ModelOutcome
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.evaluation.models.source import ModelSource
    from wds_real.evaluation.options import EvalOptions
    from wds_real.scoring.run.place import OutputPlace

__all__ = ["SeveralOptions", "evaluate_several", "named_models"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralOptions:
    """What `evaluate_several` does with the models, and what it prints."""

    output: OutputPlace | None
    models_at_once: int
    skip_existing: bool
    quiet: bool
    as_json: bool


def named_models(
    specs: Sequence[str],
    options: ModelOptions,
    change: Callable[[LoadedModel], LoadedModel],
    *,
    asked: Mapping[str, Any] | None = None,
) -> tuple[list[ModelSource], bool]:
    """Return the models that -m and --checkpoint name, and whether they count as several even if one is found.

    Args:
        specs: The values of -m.
        options: Weights and classes; a folder as --checkpoint stands for each file of weights in it.
        change: Applied to each model that is loaded.
        asked: The options that `change` applies, JSON-ready; --skip-existing compares them with those of a result.

    Raises:
        ModelError: a list, a folder or a wildcard names no model.
    """
    from wds_real.evaluation.models.listing import find_models, names_several, weights_files
    from wds_real.evaluation.models.source import ModelSource

    asked = {**(asked or {}), **options.given()}
    found = find_models(specs, load=lambda spec: change(options.load(spec)))
    sources = [replace(source, asked=asked) for source in found]
    if options.checkpoint is None or not Path(options.checkpoint).is_dir():
        return sources, len(specs) > 1 or names_several(specs[0])

    def load(spec: str, file: Path) -> LoadedModel:
        return change(replace(options, checkpoint=str(file)).load(spec))

    files = weights_files(options.checkpoint)
    return [
        ModelSource(
            f"{source.name} {file.name}",
            functools.partial(load, source.name, file),
            source.where,
            {**asked, "checkpoint": str(file)},
        )
        for source in sources
        for file in files
    ], True


def evaluate_several(
    sources: Sequence[ModelSource], dataset: Dataset, options: EvalOptions, several: SeveralOptions
) -> None:
    """Evaluate models and print a table of them; exit with 1 if one failed."""
    from wds_real.evaluation.many import evaluate_many

    output = several.output
    saved = "no batch was saved; use --output to be able to resume"
    if output is not None:
        saved = kept_in(output)
    total = len(sources) * len(dataset)
    with (
        same_on_all_ranks(SAME_IN_EVALUATION),
        kept_if_stopped(saved),
        progress_bar("eval", total, unit="images", quiet=several.quiet or not is_main_rank()) as progress,
    ):
        outcomes = evaluate_many(
            sources,
            dataset,
            options=options,
            output=output,
            models_at_once=several.models_at_once,
            skip_existing=several.skip_existing,
            progress=progress,
        )
    if is_main_rank():
        if several.as_json:
            print_json([_as_dict(outcome) for outcome in outcomes])
        else:
            _print_table(outcomes, output)
    failures = [
        _Failure(outcome.name, source.where, outcome.error)
        for outcome, source in zip(outcomes, sources, strict=True)
        if outcome.error is not None
    ]
    if failures:
        _print_failures(failures)
        sys.exit(1)


def _as_dict(outcome: ModelOutcome) -> dict[str, Any]:
    found: dict[str, Any] = {"name": outcome.name}
    if outcome.folder is not None:
        found["folder"] = str(outcome.folder)
    if outcome.error is not None:
        return {**found, "error": str(outcome.error)}
    return {**found, "existed": outcome.existed, "result": None if outcome.result is None else outcome.result.as_dict()}


def _print_table(outcomes: Sequence[ModelOutcome], output: OutputPlace | None) -> None:
    """Print the table of `wds-real report`, published results, coverage, and what was written."""
    from wds_real.scoring.ranking.formats import format_ranking
    from wds_real.scoring.ranking.rank import rank_models
    from wds_real.scoring.ranking.rows import row_of_outcome
    from wds_real.scoring.reproduction import compare_with_published, published_name

    found = [
        (one, one.result, one.predictions) for one in outcomes if one.result is not None and one.predictions is not None
    ]
    if not found:
        return
    rows = [row_of_outcome(one.name, result, predictions) for one, result, predictions in found]
    print_lines(*format_ranking(rank_models(rows), "text").rstrip("\n").split("\n"))
    for _, result, _ in found:
        published = compare_with_published(result, published_name(result.model), preprocessing=result.preprocessing)
        if published is not None:
            print_lines(*str(published).split("\n"))
    print_lines(*_first_result_lines(found[0][1]))
    existed = sum(one.existed for one in outcomes)
    if existed:
        print_lines(
            f" {counted(existed, 'model')} had a result before, and {'was' if existed == 1 else 'were'} not run"
        )
    if output is not None:
        print_lines(f"wrote result.json and predictions.csv of {counted(len(found) - existed, 'model')} to {output}")


def _first_result_lines(result: Any) -> list[str]:
    """Return the lines on coverage and data set, which are the same for all models."""
    from wds_real.scoring.report import coverage_lines

    return [*coverage_lines(result.coverage, result.world_size), f" data set {result.dataset['digest']}"]


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a model has no result; `where` is the line of a list that names the model, or empty."""

    name: str
    where: str
    error: WdsRealError

    @property
    def is_own(self) -> bool:
        """Whether it happened on this rank while the model ran; other errors happen on rank 0 too, or elsewhere."""
        return isinstance(self.error, (ModelRunError, PredictionsError)) and not self.error.reported_elsewhere

    def print(self) -> None:
        print_traceback(self.error)
        where = f"{self.where}: " if self.where else ""
        name = "" if self.name in str(self.error) else f"{self.name}: "
        print_message(f"{rank_prefix()}error: {where}{name}{self.error}")


def _print_failures(failures: Sequence[_Failure]) -> None:
    """Print why models have no result, and leave the ranks that print the rest the time to do so.

    Rank 0 prints every failure; another rank prints those of models that ran on it, and the rest if rank 0 does not.
    """
    for failure in failures:
        if is_main_rank() or failure.is_own:
            failure.print()
    if is_main_rank():
        if any(failure.error.reported_elsewhere for failure in failures):
            wait_for_reports(1)
        return
    wait_for_rank_0(1)
    for failure in failures:
        if not failure.is_own and not failure.error.reported_elsewhere:
            failure.print()
