"""Compare a result with the one that is published for the model. Runs without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wds_real.labels import NUM_IMAGES
from wds_real.labels.published import find_published
from wds_real.scoring.counts import Z_95

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wds_real.labels.published import PublishedResult
    from wds_real.scoring.result import Result

__all__ = ["SAME_WEIGHTS_IMAGES", "PublishedComparison", "compare_with_published", "published_name"]

SAME_WEIGHTS_IMAGES = 15  # largest difference of the same weights between libraries, devices and precisions


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedComparison:
    """A result beside the published one. Print it for one line, or two if another row of the table fits better.

    Attributes:
        published: The row of the published table: that with the same preprocessing, or the nearest.
        same_setting: Whether the row has the size, crop and interpolation of the result; None where the result does not
            say how its images were preprocessed.
        differences: Correct images of the result minus the published ones, for each count that the result has:
            ``original_top1``, ``original_top5``, ``real_top1``, ``real_top5``.
        interval: 95 % interval of the difference of ``original_top1``, in percentage points, for two independent sets
            of images. A paired interval would be narrower, but needs the published predictions.
        better: Another row, of the same model or another tag of it, whose counts fit; None if there is none or if
            `published` fits.
    """

    published: PublishedResult
    same_setting: bool | None
    differences: dict[str, int]
    interval: tuple[float, float]
    better: PublishedResult | None

    @property
    def reproduced(self) -> bool:
        """Whether every count is within `SAME_WEIGHTS_IMAGES` of the published one."""
        return _fits(self.differences)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return {
            "model": self.published.model,
            "setting": self.published.setting,
            "same_setting": self.same_setting,
            "differences": self.differences,
            "interval_95_points": [round(bound, 4) for bound in self.interval],
            "reproduced": self.reproduced,
            "better": None if self.better is None else {"model": self.better.model, "setting": self.better.setting},
        }

    def __str__(self) -> str:
        row, (low, high), changes = self.published, self.interval, self.differences
        line = (
            f" published {row.model} ({row.setting}): {row.original_top1:,} original, {row.real_top1:,} ReaL; here "
            f"{changes['original_top1']:+,} (95 %: {low:+.2f} to {high:+.2f} points) and {changes['real_top1']:+,}"
        )
        if self.reproduced:
            return f"{line}: reproduced, within {SAME_WEIGHTS_IMAGES} images"
        reason = {
            True: "other weights, precision or decoder",
            False: "another size, crop or interpolation here",
            None: "other weights, size, crop or interpolation",
        }[self.same_setting]
        line += f": not reproduced, more than {SAME_WEIGHTS_IMAGES} images apart ({reason})"
        if self.better is not None:
            line += f"\n published: {self.better.model} at {self.better.setting} fits this result"
        return line


def published_name(model: Mapping[str, Any]) -> str:
    """Return the name of a result's model in the published table, from its own name; "" with a checkpoint.

    >>> published_name({"name": "timm:resnet18.a1_in1k"}), published_name({"name": "torchvision:resnet50"})
    ('resnet18.a1_in1k', 'resnet50.tv_in1k')
    """
    if "checkpoint" in model:
        return ""
    source, separator, name = str(model.get("published_as") or model.get("name", "")).partition(":")
    if not separator:
        return source
    return f"{name}.tv_in1k" if source == "torchvision" and "." not in name else name


def compare_with_published(
    result: Result, name: str, *, preprocessing: Mapping[str, Any] | None = None
) -> PublishedComparison | None:
    """Return how a result compares with the published one of a model; None if it cannot be compared.

    Only a result over all 50,000 images with the released labels, none of which was unreadable, is compared.

    Args:
        result: From `wds_real.evaluate` or `wds_real.score`.
        name: timm's name, with or without its tag, ``resnet50`` or ``resnet50.a1_in1k``.
        preprocessing: Of the result, as `EvalTransform.describe` gives it; None where it is not known.
    """
    rows = find_published(name)
    total = result.original_top1.total
    if not rows or total != NUM_IMAGES or result.original_top1.failed or "threshold" in result.dataset:
        return None
    setting = None if preprocessing is None else _setting(preprocessing)
    nearest = min(rows, key=lambda row: _distance(_differences(result, row)))
    same = [] if setting is None else [row for row in rows if _setting_of(row) == setting]
    chosen = min(same, key=lambda row: _distance(_differences(result, row))) if same else nearest
    differences = _differences(result, chosen)
    fitting = nearest is not chosen and not _fits(differences) and _fits(_differences(result, nearest))
    return PublishedComparison(
        published=chosen,
        same_setting=None if setting is None else bool(same),
        differences=differences,
        interval=_interval(result.original_top1.correct, chosen.original_top1, total),
        better=nearest if fitting else None,
    )


def _differences(result: Result, row: PublishedResult) -> dict[str, int]:
    counts = {name: getattr(result, name) for name in ("original_top1", "original_top5", "real_top1", "real_top5")}
    return {name: count.correct - getattr(row, name) for name, count in counts.items() if count is not None}


def _distance(differences: Mapping[str, int]) -> int:
    return max(map(abs, differences.values()))


def _fits(differences: Mapping[str, int]) -> bool:
    return _distance(differences) <= SAME_WEIGHTS_IMAGES


def _setting(preprocessing: Mapping[str, Any]) -> tuple[int, float, str] | None:
    size = preprocessing.get("img_size")
    height: Sequence[int] | int | None = size[0] if isinstance(size, (list, tuple)) else size
    crop, interpolation = preprocessing.get("crop_pct"), preprocessing.get("interpolation")
    if not isinstance(height, int) or not isinstance(crop, (int, float)) or interpolation is None:
        return None
    return height, round(float(crop), 3), str(interpolation)


def _setting_of(row: PublishedResult) -> tuple[int, float, str]:
    return row.img_size, round(row.crop_pct, 3), row.interpolation


def _interval(a: int, b: int, total: int) -> tuple[float, float]:
    p, q = a / total, b / total
    half = Z_95 * math.sqrt((p * (1 - p) + q * (1 - q)) / total)
    return 100 * (p - q - half), 100 * (p - q + half)
