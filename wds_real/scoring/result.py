"""What the number means: counts, intervals, the bridge from original to ReaL, and the receipt.

Everything is counted from one table, the top-5 classes of each sample. All totals are integers; a division happens only
where a number is shown. Runs without torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import CoverageError
from wds_real.labels import NUM_IMAGES, Labels, bundled, digest_labels
from wds_real.scoring.breakdown import Breakdown, break_down

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset

__all__ = ["Accuracy", "Coverage", "Result", "Targets", "tally"]

_Z = 1.959963984540054  # the normal distribution's 97.5 % point: two-sided 95 %
_NO_LABEL = -2  # equal to no prediction, not even to the -1 of none
_SHOWN = 5  # keys listed in an error


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The labels predictions are held against.

    Attributes:
        keys: N strings, ascending.
        original_label: int64 (N,), class index 0..999.
        real_label: int64 (N, M), ReaL class indices padded with -1.
        expected: bool (N,), the samples a run is to see; a split sees a part.
        identity: What is known of the data set: name, split, digests; goes into the result.
    """

    keys: tuple[str, ...]
    original_label: NDArray[np.int64]
    real_label: NDArray[np.int64]
    expected: NDArray[np.bool_]
    identity: dict[str, Any]

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        original_label: Sequence[int] | NDArray[np.int64],
        real_label: Sequence[Sequence[int]],
        *,
        expected: NDArray[np.bool_] | None = None,
        identity: dict[str, Any] | None = None,
    ) -> Targets:
        """Build targets from lists of labels; without `expected`, all are."""
        columns = max((len(labels) for labels in real_label), default=0)
        padded = np.full((len(keys), max(1, columns)), -1, dtype=np.int64)
        for row, labels in enumerate(real_label):
            padded[row, : len(labels)] = labels
        if expected is None:
            expected = np.ones(len(keys), dtype=np.bool_)
        return cls(tuple(keys), np.asarray(original_label, dtype=np.int64), padded, expected, identity or {})

    @classmethod
    def of_labels(cls, labels: Labels | None = None) -> Targets:
        """Return all 50,000 validation images with `labels`, or with the released ones."""
        labels = labels or bundled()
        keys = [f"ILSVRC2012_val_{number:08d}" for number in range(1, len(labels.original) + 1)]
        digest = digest_labels(zip(keys, labels.original, labels.real, strict=True))
        identity = {"name": "imagenet2012_real", "split": "validation", "labels_digest": digest}
        return cls.of(keys, labels.original, labels.real, identity=identity)

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> Targets:
        """Return the labels of a data set; of a split or slice, with only its samples expected."""
        index = dataset.index
        expected = np.zeros(len(index), dtype=np.bool_)
        expected[dataset.positions] = True
        identity = {
            "name": dataset.manifest.dataset,
            "split": dataset.split,
            "digest": dataset.digest,
            "labels_digest": dataset.manifest.labels_digest,
        }
        return cls.of(index.keys, index.original_label, index.real_label, expected=expected, identity=identity)

    def only(self, expected: NDArray[np.bool_]) -> Targets:
        """Return the same labels with other samples expected, bool (N,)."""
        return replace(self, expected=expected)


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
    """The receipt: which samples were seen.

    Attributes:
        expected: Samples that were to be seen.
        seen_once: Samples predicted exactly once.
        failed: Keys that could not be read (``on_error="record"``).
    """

    expected: int
    seen_once: int
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
        missing = seen.expected - seen.seen_once - len(seen.failed)
        text = f"{seen.expected:,} expected, {seen.seen_once:,} seen once, {missing:,} missing, 0 twice"
        if seen.failed:
            text += f", {len(seen.failed):,} unreadable"
        return f"{text}, {self.world_size} {'rank' if self.world_size == 1 else 'ranks'}"

    def named(
        self, *, model: dict[str, Any], preprocessing: dict[str, Any], run: dict[str, Any] | None = None
    ) -> Result:
        """Return the same result with what was evaluated, and how."""
        return replace(self, model=model, preprocessing=preprocessing, run=run or {})

    def as_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready; all but ``run`` is the same for every world size."""
        accuracies = {name: getattr(self, name) for name in _ACCURACIES}
        return {
            "format": {"name": "wds_real.result", "version": 1},
            "dataset": self.dataset,
            "model": self.model,
            "preprocessing": self.preprocessing,
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
                "missing": 0,
                "doubled": 0,
                "failed": list(self.coverage.failed),
            },
            **self.breakdown.as_dict(),
            "run": {"world_size": self.world_size, **self.run},
        }

    def __str__(self) -> str:
        lines = [title] if (title := self._title()) else []
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
        names = ("img_size", "crop_pct", "crop_mode", "interpolation", "dtype")
        how = {name: self.preprocessing[name] for name in names if name in self.preprocessing}
        if "img_size" in how:
            height, width = how["img_size"]
            how["img_size"] = f"{height}x{width}"
        return f"{title}: {', '.join(f'{name} {value}' for name, value in how.items())}" if how else title


_ACCURACIES = {
    "original_top1": "original top-1",
    "original_top5": "original top-5",
    "original_top1_labelled": "original top-1, labelled",
    "real_top1": "ReaL top-1",
    "real_top5": "ReaL top-5",
}


def tally(
    targets: Targets,
    *,
    top5: NDArray[np.int64],
    seen: NDArray[np.int64],
    failed: NDArray[np.int64] | None = None,
    world_size: int = 1,
) -> Result:
    """Count a table of predictions.

    Args:
        targets: The labels.
        top5: int64 (N, 5), class indices, best first; -1 where the model gave fewer.
        seen: int64 (N,), how often each sample was predicted.
        failed: int64 (N,), how often each sample could not be read.
        world_size: Processes that took part, for the receipt.

    Raises:
        CoverageError: a sample is missing, or was seen more than once.
    """
    failed = np.zeros_like(seen) if failed is None else failed
    coverage = _check_coverage(targets, seen, failed, world_size)
    in_scope = targets.expected
    labelled = in_scope & (targets.real_label[:, 0] >= 0)
    read = seen == 1
    original1 = read & (top5[:, 0] == targets.original_label)
    original5 = read & (top5 == targets.original_label[:, None]).any(axis=1)
    accepted = np.where(targets.real_label >= 0, targets.real_label, _NO_LABEL)
    real1 = read & (accepted == top5[:, :1]).any(axis=1)
    real5 = read & (accepted[:, :, None] == top5[:, None, :]).any(axis=(1, 2))
    has_top5 = bool((top5[read] >= 0).all())

    def accuracy(correct: NDArray[np.bool_], scope: NDArray[np.bool_]) -> Accuracy:
        unread = scope & ~read
        return Accuracy(int((correct & scope).sum()), int(scope.sum()), int(unread.sum()))

    return Result(
        original_top1=accuracy(original1, in_scope),
        original_top5=accuracy(original5, in_scope) if has_top5 else None,
        original_top1_labelled=accuracy(original1, labelled),
        real_top1=accuracy(real1, labelled),
        real_top5=accuracy(real5, labelled) if has_top5 else None,
        forgiven=int((labelled & read & ~original1 & real1).sum()),
        newly_wrong=int((labelled & original1 & ~real1).sum()),
        coverage=coverage,
        breakdown=break_down(
            np.where(read, top5[:, 0], -1),
            real1,
            original_label=targets.original_label,
            real_label=targets.real_label,
            scope=labelled,
        ),
        world_size=world_size,
        dataset={**targets.identity, "num_samples": coverage.expected},
    )


def _check_coverage(targets: Targets, seen: NDArray[np.int64], failed: NDArray[np.int64], world_size: int) -> Coverage:
    times = seen + failed
    missing = [targets.keys[row] for row in np.flatnonzero(targets.expected & (times == 0))]
    doubled = [targets.keys[row] for row in np.flatnonzero(times > 1)]
    foreign = [targets.keys[row] for row in np.flatnonzero(~targets.expected & (times > 0))]
    expected = int(targets.expected.sum())
    if missing or doubled or foreign:
        titles = {"Missing": missing, "Seen twice or more": doubled, "Not expected": foreign}
        named = [f" {title}: {_some(keys)}." for title, keys in titles.items() if keys]
        raise CoverageError(
            f"saw {expected - len(missing):,} of {expected:,} samples ({len(missing):,} missing, {len(doubled):,} "
            f"doubled) over {world_size} {'rank' if world_size == 1 else 'ranks'}. Accuracy was not computed."
            + "".join(named),
            missing=missing,
            doubled=doubled,
        )
    unreadable = tuple(targets.keys[row] for row in np.flatnonzero(failed))
    return Coverage(expected, int((seen == 1).sum()), unreadable)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (f" ... ({len(keys):,})" if len(keys) > _SHOWN else "")


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
