"""The lines of a printed result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from wds_real.labels import NUM_IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wds_real.scoring.counts import Accuracy, Coverage

__all__ = [
    "HEADER",
    "accuracy_line",
    "bridge_line",
    "coverage_lines",
    "execution_line",
    "model_lines",
    "receipt",
    "title_line",
    "warned_line",
]

_MAX_KEYS_SHOWN = 5
HEADER = f"{'correct':>35} / {'n':>7}  {'accuracy':>9}   95 % interval"


def title_line(dataset: Mapping[str, Any], model: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> str:
    """Return what is known of the model, the data and the preprocessing, as one line."""
    where = ", ".join(str(dataset[name]) for name in ("name", "split") if name in dataset)
    title = f"{model['name']} on {where}" if "name" in model else where
    names = ("img_size", "crop_pct", "crop_mode", "interpolation")
    how = {name: preprocessing[name] for name in names if name in preprocessing}
    if "img_size" in how:
        height, width = how["img_size"]
        how["img_size"] = f"{height}x{width}"
    if "settings" in preprocessing:  # of another library, which calls its settings by other names
        return f"{title}: preprocessed by {preprocessing['name']}"
    return f"{title}: {', '.join(f'{name} {value}' for name, value in how.items())}" if how else title


def model_lines(model: Mapping[str, Any]) -> list[str]:
    """Return the checkpoint and the class map of the model, if it has them."""
    checkpoint, classes = model.get("checkpoint"), model.get("class_map")
    lines = []
    if checkpoint:
        place = checkpoint["state_dict"]
        lines.append(f" checkpoint {checkpoint['file']}, weights from {place}, sha256 {checkpoint['sha256']}")
    if classes:
        lines.append(f" classes of the outputs: {', '.join(f'{name} {value}' for name, value in classes.items())}")
    return lines


def execution_line(execution: Mapping[str, Any]) -> str:
    """Return how the model was run; "" if that is not known."""
    if not execution:
        return ""
    line = f" {_all_of(execution['precision'])}"
    if "device" in execution:
        line += f" on {_all_of(execution['device'])}"
    line += f", batch size {execution['batch_size']}"
    for name, text in (("compile", "torch.compile"), ("channels_last", "channels_last")):
        if execution.get(name):
            line += f", {text}" + (" for a part" if isinstance(execution[name], list) else "")
    return line


def accuracy_line(title: str, accuracy: Accuracy) -> str:
    """Return the row of the table: correct / n, percent, interval, and the best case if samples were unreadable."""
    start = f" {title:<25}{accuracy.correct:>9,} / {accuracy.total:>7,}"
    if not accuracy.total:
        return f"{start}          -   (no image)"
    low, high = (100 * bound for bound in accuracy.interval)
    line = f"{start}  {100 * accuracy.value:>9.3f}   {low:.2f} - {high:.2f}"
    if accuracy.failed:
        line += f"   (up to {100 * accuracy.best_case:.3f} if all {accuracy.failed:,} unreadable were right)"
    return line


def bridge_line(excluded: float, relabelled: float, *, forgiven: int, newly_wrong: int) -> str:
    """Return how the original accuracy becomes ReaL accuracy; effects in percentage points, NaN shown as a dash."""
    return (
        f" from original to ReaL: {_points(excluded)} unlabelled images excluded, {_points(relabelled)} relabelled "
        f"({forgiven:,} forgiven, {newly_wrong:,} newly wrong)"
    )


def receipt(coverage: Coverage, world_size: int) -> str:
    """Return how often the samples were seen."""
    text = f"{coverage.expected:,} expected, {coverage.seen_once:,} seen once, "
    text += f"{coverage.missing:,} missing, {coverage.doubled:,} twice"
    if coverage.failed:
        text += f", {len(coverage.failed):,} unreadable"
    return f"{text}, {world_size} {'rank' if world_size == 1 else 'ranks'}"


def coverage_lines(coverage: Coverage, world_size: int) -> list[str]:
    """Return the receipt, and a note if it is of a part of the validation images."""
    lines = [f" coverage: {receipt(coverage, world_size)}"]
    if coverage.expected < NUM_IMAGES:
        lines.append(
            f" partial: {coverage.expected:,} of the {NUM_IMAGES:,} validation images; not an ImageNet accuracy"
        )
    return lines


def warned_line(keys: Sequence[str]) -> str:
    """Return which images were decoded with warnings; "" if there is none."""
    if not keys:
        return ""
    images = f"{len(keys):,} image{'s' * (len(keys) > 1)}"
    more = f" ... ({len(keys):,})" if len(keys) > _MAX_KEYS_SHOWN else ""
    return f" {images} decoded with warnings, perhaps damaged: {', '.join(keys[:_MAX_KEYS_SHOWN])}{more}"


def _all_of(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " and ".join(value)


def _points(points: float) -> str:
    return "-" if math.isnan(points) else f"{points:+.3f}"
