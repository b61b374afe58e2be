"""The result: counts, intervals, the bridge from original to ReaL, and the receipt.

All totals are integers; a division happens only where a number is shown. Runs without torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from wds_real.labels import NUM_IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wds_real.scoring.breakdown import Breakdown

__all__ = ["Accuracy", "Coverage", "Result", "joined_execution"]

_Z = 1.959963984540054  # the normal distribution's 97.5 % point: two-sided 95 %


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A count of correct samples.

    Attributes:
        correct: Samples predicted right.
        total: Samples counted, failed ones included.
        failed: Samples of `total` that could not be read; they are not in `correct`.
    """

    correct: int
    total: int
    failed: int = 0

    @property
    def value(self) -> float:
        """Share of correct samples in 0..1; NaN where there is no sample. With failures, the worst case."""
        return self.correct / self.total if self.total else math.nan

    @property
    def best_case(self) -> float:
        """The share if every failed sample had been right."""
        return (self.correct + self.failed) / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % score interval (Wilson 1927), in 0..1.

        >>> [round(100 * bound, 2) for bound in Accuracy(38_860, 46_837).interval]
        [82.63, 83.31]
        """
        if not self.total:
            return (math.nan, math.nan)
        n, p, z2 = self.total, self.value, _Z * _Z
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return (max(0.0, centre - half), min(1.0, centre + half))

    def as_dict(self) -> dict[str, Any]:
        """Return counts, share in percent and interval in percent, JSON-ready."""
        if not self.total:
            return {"correct": 0, "total": 0, "failed": 0, "percent": None, "interval_95_percent": None}
        interval = [round(100 * bound, 4) for bound in self.interval]
        percents: dict[str, Any] = {"percent": round(100 * self.value, 4), "interval_95_percent": interval}
        if self.failed:
            percents["best_case_percent"] = round(100 * self.best_case, 4)
        return {**asdict(self), **percents}


@dataclass(frozen=True, slots=True)
class Coverage:
    """The receipt: how often the samples were seen, counted sample by sample.

    Attributes:
        expected: Samples that must be seen.
        seen_once: Expected samples that were predicted exactly once.
        missing: Expected samples that were never seen.
        doubled: Samples that were seen more than once.
        failed: Keys of the samples that could not be read (``on_error="record"``).
    """

    expected: int
    seen_once: int
    missing: int
    doubled: int
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Both accuracies of one pass, how they differ and why, and the receipt. Print it for the table.

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
        preprocessing: How images became the model's input.
        execution: How the model was run, where it can change a prediction: ``precision``, ``device``, ``batch_size``,
            ``compile`` and ``channels_last``; a list where parts of the run differed. Empty where no model was run, and
            without the last three for records of earlier versions.
        run: What may differ between two runs of the same evaluation: timings, machine, versions.
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
    world_size: int = 1
    dataset: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def excluded_effect(self) -> float:
        """Percentage points gained because images without a ReaL label are left out."""
        return 100 * (self.original_top1_labelled.value - self.original_top1.value)

    @property
    def relabelled_effect(self) -> float:
        """Percentage points gained because the remaining images have other labels."""
        return 100 * (self.real_top1.value - self.original_top1_labelled.value)

    @property
    def receipt(self) -> str:
        """One line that says what was seen."""
        seen = self.coverage
        text = f"{seen.expected:,} expected, {seen.seen_once:,} seen once, "
        text += f"{seen.missing:,} missing, {seen.doubled:,} twice"
        if seen.failed:
            text += f", {len(seen.failed):,} unreadable"
        return f"{text}, {self.world_size} {'rank' if self.world_size == 1 else 'ranks'}"

    def as_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready; all but ``run`` is the same for every world size."""
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
            **self.breakdown.as_dict(),
            "run": {"world_size": self.world_size, **self.run},
        }

    def __str__(self) -> str:
        lines = [line for line in (self._title(), self._execution_line()) if line]
        lines += [f"{'correct':>35} / {'n':>7}  {'accuracy':>9}   95 % interval"]
        for name, title in _ACCURACIES.items():
            accuracy: Accuracy | None = getattr(self, name)
            if accuracy is not None:
                lines.append(_row(title, accuracy))
        lines.append(
            f" from original to ReaL: {_points(self.excluded_effect)} unlabelled images excluded, "
            f"{_points(self.relabelled_effect)} relabelled "
            f"({self.forgiven:,} forgiven, {self.newly_wrong:,} newly wrong)"
        )
        lines.append(f" coverage: {self.receipt}")
        if self.coverage.expected < NUM_IMAGES:
            lines.append(
                f" partial: {self.coverage.expected:,} of the {NUM_IMAGES:,} validation images; "
                "not an ImageNet accuracy"
            )
        if "digest" in self.dataset:
            lines.append(f" data set {self.dataset['digest']}")
        return "\n".join(lines)

    def _title(self) -> str:
        """Return a line that says what was evaluated, on what, and how, as far as that is known."""
        where = ", ".join(str(self.dataset[name]) for name in ("name", "split") if name in self.dataset)
        title = f"{self.model['name']} on {where}" if "name" in self.model else where
        names = ("img_size", "crop_pct", "crop_mode", "interpolation")
        how = {name: self.preprocessing[name] for name in names if name in self.preprocessing}
        if "img_size" in how:
            height, width = how["img_size"]
            how["img_size"] = f"{height}x{width}"
        return f"{title}: {', '.join(f'{name} {value}' for name, value in how.items())}" if how else title

    def _execution_line(self) -> str:
        """Return a line that says how the model was run, as far as that is known."""
        how = self.execution
        if not how:
            return ""
        line = f" {_all_of(how['precision'])}"
        if "device" in how:
            line += f" on {_all_of(how['device'])}"
        line += f", batch size {how['batch_size']}"
        for name, text in (("compile", "torch.compile"), ("channels_last", "channels_last")):
            if how.get(name):
                line += f", {text}" + (" for a part" if isinstance(how[name], list) else "")
        return line


def joined_execution(precision: str, batch_size: int, executions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `Result.execution` of a run that was started once or several times; what is not known of all is left out.

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


def _all_of(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " and ".join(value)


def _points(points: float) -> str:
    return "-" if math.isnan(points) else f"{points:+.3f}"


def _rounded(points: float) -> float | None:
    return None if math.isnan(points) else round(points, 4)


def _row(title: str, accuracy: Accuracy) -> str:
    start = f" {title:<25}{accuracy.correct:>9,} / {accuracy.total:>7,}"
    if not accuracy.total:
        return f"{start}          -   (no image)"
    low, high = (100 * bound for bound in accuracy.interval)
    line = f"{start}  {100 * accuracy.value:>9.3f}   {low:.2f} - {high:.2f}"
    if accuracy.failed:
        line += f"   (up to {100 * accuracy.best_case:.3f} if all {accuracy.failed:,} unreadable were right)"
    return line
