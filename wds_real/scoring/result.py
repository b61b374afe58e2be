"""The result: counts, intervals, the steps from original to ReaL accuracy, and the coverage.

All totals are integers; a division happens only where a number is shown. Runs without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wds_real.data.notebook import facts_table, rows_table
from wds_real.errors import printable
from wds_real.scoring import report
from wds_real.scoring.export import class_columns
from wds_real.scoring.predictions import dataframe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from wds_real.scoring.breakdown import Breakdown
    from wds_real.scoring.counts import Accuracy, Coverage

__all__ = ["Result", "joined_execution"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Result:
    """Original and ReaL accuracy of one pass, why they differ, and the receipt. Print it for the table.

    Attributes:
        original_top1: Against the original labels, all images.
        original_top5: The same, right if among the five highest; None if the model gave single classes.
        original_top1_labelled: Against the original labels, on the images that have a ReaL label.
        real_top1: Against the ReaL labels, on the images that have one: right if the class is among them.
        real_top5: The same, right if any of the five highest is.
        forgiven: Images wrong by the original label and right by ReaL.
        newly_wrong: Images with a ReaL label, right by the original label and wrong by ReaL.
        coverage: The receipt.
        breakdown: ReaL top-1 by slice and class.
        world_size: Processes that took part.
        dataset: Name, split, size and digests of what was evaluated.
        model: What was evaluated.
        preprocessing: How images are made the model's input.
        execution: How the model was run, as far as it can change a prediction: ``precision``, ``batch_size``,
            ``device``, ``compile`` and ``channels_last``. A value is a list if parts of the run differed. Empty if no
            model was run. The last three are missing if an earlier version wrote some of the records.
        warned: Keys of the images whose file the decoder warned about, most often because it is damaged. They are
            counted with the pixels that the decoder gave.
        run: Facts that may differ between two runs of the same evaluation: timings, machine, versions.
    """

    original_top1: Accuracy
    original_top5: Accuracy | None
    original_top1_labelled: Accuracy
    real_top1: Accuracy
    real_top5: Accuracy | None
    forgiven: int
    newly_wrong: int
    coverage: Coverage
    breakdown: Breakdown
    world_size: int
    dataset: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    warned: tuple[str, ...] = ()
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def excluded_effect(self) -> float:
        """Change in percentage points because images without a ReaL label are left out."""
        return 100 * (self.original_top1_labelled.value - self.original_top1.value)

    @property
    def relabelled_effect(self) -> float:
        """Change in percentage points because the remaining images have other labels."""
        return 100 * (self.real_top1.value - self.original_top1_labelled.value)

    @property
    def receipt(self) -> str:
        """How often the samples were seen, in one line."""
        return report.receipt(self.coverage, self.world_size)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready; all but ``run`` is the same for every world size."""
        accuracies = {name: getattr(self, name) for name in _ACCURACIES}
        return {
            "format": {"name": "wds_real.result", "version": 1},
            "dataset": self.dataset,
            "model": self.model,
            "preprocessing": self.preprocessing,
            **({"execution": self.execution} if self.execution else {}),
            "accuracy": {name: value.as_dict() for name, value in accuracies.items() if value is not None},
            "bridge": {
                "excluded_points": _rounded(self.excluded_effect),
                "relabelled_points": _rounded(self.relabelled_effect),
                "forgiven": self.forgiven,
                "newly_wrong": self.newly_wrong,
            },
            "coverage": {
                "expected": self.coverage.expected,
                "seen_once": self.coverage.seen_once,
                "missing": self.coverage.missing,
                "doubled": self.coverage.doubled,
                "failed": list(self.coverage.failed),
            },
            **({"decoded_with_warnings": list(self.warned)} if self.warned else {}),
            **self.breakdown.as_dict(),
            "run": {"world_size": self.world_size, **self.run},
        }

    def as_dataframe(self, *, per_class: bool = False) -> pd.DataFrame:
        """Return the accuracies, one row each, or ReaL top-1 of the 1,000 classes, one row each (needs pandas).

        Args:
            per_class: Return the classes.
        """
        if per_class:
            return dataframe(class_columns(self.breakdown))
        shown = {name: getattr(self, name) for name in _ACCURACIES if getattr(self, name) is not None}
        low, high = zip(*(value.interval for value in shown.values()), strict=True)
        return dataframe(
            {
                "accuracy": list(shown),
                "correct": [value.correct for value in shown.values()],
                "total": [value.total for value in shown.values()],
                "percent": [value.percent for value in shown.values()],
                "percent_low": [100 * bound for bound in low],
                "percent_high": [100 * bound for bound in high],
            }
        )

    def __repr__(self) -> str:
        name = f" of {self.model['name']}" if self.model.get("name") else ""
        return (
            f"<Result{name} on {self.coverage.expected:,} images: original top-1 {self.original_top1.percent:.3f} %, "
            f"ReaL top-1 {self.real_top1.percent:.3f} %>"
        )

    def _repr_html_(self) -> str:
        found = {title: getattr(self, name) for name, title in _ACCURACIES.items()}
        rows = [
            (title, f"{value.correct:,}", f"{value.total:,}", f"{value.percent:.3f} %",
             " - ".join(f"{100 * bound:.2f}" for bound in value.interval))
            for title, value in found.items()
            if value is not None
        ]  # fmt: skip
        header = ("accuracy", "correct", "of", "percent", "95 % interval")
        title = report.title_line(self.dataset, self.model, self.preprocessing)
        return rows_table(title, header, rows) + facts_table("receipt", {"coverage": self.receipt})

    def __str__(self) -> str:
        accuracies = {title: getattr(self, name) for name, title in _ACCURACIES.items()}
        lines = [
            report.title_line(self.dataset, self.model, self.preprocessing),
            *report.model_lines(self.model),
            report.execution_line(self.execution),
            report.HEADER,
            *(report.accuracy_line(title, value) for title, value in accuracies.items() if value is not None),
            report.bridge_line(
                self.excluded_effect, self.relabelled_effect, forgiven=self.forgiven, newly_wrong=self.newly_wrong
            ),
            *report.coverage_lines(self.coverage, self.world_size),
            report.warned_line(self.warned),
            f" data set {self.dataset['digest']}" if "digest" in self.dataset else "",
            f" source: {self.dataset['source']}" if "source" in self.dataset else "",
        ]
        return "\n".join(printable(line) for line in lines if line)  # a model may have any name


def joined_execution(precision: str, batch_size: int, executions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `Result.execution` of a run with one or several starts; a field that some start lacks is left out.

    >>> joined_execution("float32", 256, [{"device": "cpu", "compile": False}, {"device": "cuda", "compile": False}])
    {'precision': 'float32', 'batch_size': 256, 'device': ['cpu', 'cuda'], 'compile': False}
    """
    joined: dict[str, Any] = {"precision": precision, "batch_size": batch_size}
    for name in ("device", "compile", "channels_last"):
        values = list(dict.fromkeys(one.get(name) for one in executions))
        if values and None not in values:
            joined[name] = values[0] if len(values) == 1 else values
    return joined


_ACCURACIES = {
    "original_top1": "original top-1",
    "original_top5": "original top-5",
    "original_top1_labelled": "original top-1, labelled",
    "real_top1": "ReaL top-1",
    "real_top5": "ReaL top-5",
}


def _rounded(points: float) -> float | None:
    return None if math.isnan(points) else round(points, 4)
