"""Figures of results: models by original and ReaL accuracy, two models side by side, and every pair of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wds_real.labels import bundled, classes
from wds_real.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from wds_real.scoring.comparison import Comparison
    from wds_real.scoring.counts import Accuracy
    from wds_real.scoring.ranking.pairwise import PairwiseComparison
    from wds_real.scoring.ranking.rank import Ranking

__all__ = ["plot_comparison", "plot_pairs", "plot_ranking"]

_DPI = 150
_LINE_INCHES = 0.2
_SHOWN_CLASSES = 10  # on each side
# Of Okabe and Ito; told apart by most colour-blind people, and in print by their lightness.
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#888888"


def plot_ranking(ranking: Ranking) -> Figure:
    """Return a figure of original against ReaL top-1 accuracy, one point a model, with 95 % intervals.

    A star marks the accuracy of the original labels, scored as predictions. It is drawn for results on all 50,000
    images with the released labels.
    """
    rows = [model.row for model in ranking.models]
    original = [row.accuracies["original_top1"] for row in rows]
    real = [row.accuracies["real_top1"] for row in rows]
    figure = Figure(figsize=(7.5, max(4.5, len(rows) * _LINE_INCHES + 1.2)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.errorbar(
        _percent(original), _percent(real), xerr=_bars(original), yerr=_bars(real),
        fmt="o", color=_BLUE, ecolor=_GREY, elinewidth=0.8, markersize=4, label="models, with 95 % intervals",
    )  # fmt: skip
    star = _original_labels(ranking)
    if star is not None:
        axes.plot([100], [star], "*", color=_ORANGE, markersize=11, label=f"the original labels: {star:.2f} %")
    axes.set_xlabel("top-1 accuracy by the original labels, %")
    axes.set_ylabel("top-1 accuracy by the ReaL labels, %")
    data = rows[0].data
    axes.set_title(f"{data['name']}, {data['split']}: {data['num_samples']:,} images", loc="left", fontsize=10)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    _name_points(axes, _percent(original), _percent(real), [row.name for row in rows])
    return figure


def plot_comparison(comparison: Comparison, names: tuple[str, str]) -> Figure:
    """Return a figure of two models: the images that one of them alone gets right, and the classes that differ most.

    Args:
        comparison: Of `wds_real.compare`.
        names: Of A and B, for the titles.
    """
    changes = sorted(comparison.per_class, key=lambda change: (change.correct_b - change.correct_a, change.label))
    lost = [change for change in changes[:_SHOWN_CLASSES] if change.correct_b < change.correct_a]
    gained = [change for change in changes[-_SHOWN_CLASSES:] if change.correct_b > change.correct_a]
    shown = lost + gained
    height = max(3.2, len(shown) * _LINE_INCHES + 1.6)
    figure = Figure(figsize=(9.0, height), dpi=_DPI, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    low, high = comparison.interval
    figure.suptitle(
        f"A {names[0]}, B {names[1]}: B - A = {comparison.difference:+.3f} points of {comparison.against} top-1\n"
        f"(95 % interval {low:+.3f} to {high:+.3f}) on {comparison.total:,} images",
        fontsize=10, parse_math=False,
    )  # fmt: skip
    _bars_of_counts(
        left,
        ["right in both", "right only in A", "right only in B", "wrong in both"],
        [comparison.both, comparison.only_a, comparison.only_b, comparison.neither],
        [_GREY, _ORANGE, _BLUE, _GREY],
    )
    left.set_title("images", fontsize=9, loc="left")
    _bars_of_counts(
        right,
        [classes()[change.label].name for change in shown],
        [change.correct_b - change.correct_a for change in shown],
        [_BLUE if change.correct_b > change.correct_a else _ORANGE for change in shown],
    )
    right.axvline(0, color="black", linewidth=0.8)
    right.set_title("classes: images right in B, less those right in A", fontsize=9, loc="left")
    return figure


def plot_pairs(comparison: PairwiseComparison) -> Figure:
    """Return a figure of many models: the difference of every pair in percentage points, row minus column.

    The field of a pair that cannot be told apart on these images is grey.
    """
    names = list(comparison.accuracies)
    place = {name: at for at, name in enumerate(names)}
    differences = np.full((len(names), len(names)), np.nan)
    for pair in comparison.pairs:
        a, b = place[pair.a], place[pair.b]
        differences[a, b], differences[b, a] = pair.difference, -pair.difference
    side = max(4.5, len(names) * 0.55 + 2.2)
    figure = Figure(figsize=(side + 0.6, side), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    largest = float(np.nanmax(np.abs(differences))) or 1.0
    axes.imshow(differences, cmap="RdBu", vmin=-1.6 * largest, vmax=1.6 * largest)  # pale enough for black numbers
    for pair in comparison.pairs:
        for row, column in ((place[pair.a], place[pair.b]), (place[pair.b], place[pair.a])):
            if not pair.told_apart:
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color="#cccccc"))
            axes.text(column, row, f"{differences[row, column]:+.2f}", ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8, parse_math=False)
    labels = [f"{name}  {100 * one.value:.2f} %" for name, one in comparison.accuracies.items()]
    axes.set_yticks(range(len(names)), labels, fontsize=8, parse_math=False)
    title = "ReaL" if comparison.against == "real" else "original"
    axes.set_title(
        f"{title} top-1, row - column in points, on {comparison.total:,} images\ngrey: cannot be told apart",
        fontsize=9, loc="left",
    )  # fmt: skip
    return figure


def _percent(accuracies: Sequence[Accuracy]) -> list[float]:
    return [100 * accuracy.value for accuracy in accuracies]


def _bars(accuracies: Sequence[Accuracy]) -> list[list[float]]:
    """Return the lengths of the error bars below and above, in percentage points."""
    below = [100 * (accuracy.value - accuracy.interval[0]) for accuracy in accuracies]
    above = [100 * (accuracy.interval[1] - accuracy.value) for accuracy in accuracies]
    return [below, above]


def _original_labels(ranking: Ranking) -> float | None:
    """Return the ReaL top-1 accuracy of the original labels in percent, on the data of the models; None if unknown."""
    result = score(bundled().original)
    data = ranking.models[0].row.data
    same = all(result.dataset.get(name) == data[name] for name in ("num_samples", "labels_digest"))
    return 100 * result.real_top1.value if same else None


def _name_points(axes: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str]) -> None:
    """Write the names beside the axes, each at the height of its point or near it, with a line to the point."""
    low, high = axes.get_ylim()
    order = np.argsort([-value for value in y], kind="stable").tolist()
    places = _spaced([(y[at] - low) / (high - low) for at in order], gap=min(0.045, 1 / len(names)))
    for place, at in zip(places, order, strict=True):
        axes.annotate(
            names[at], (x[at], y[at]), xytext=(1.02, place), textcoords="axes fraction", va="center", fontsize=8,
            arrowprops={"arrowstyle": "-", "color": _GREY, "linewidth": 0.4}, parse_math=False, annotation_clip=False,
        )  # fmt: skip


def _spaced(heights: Sequence[float], *, gap: float) -> list[float]:
    """Return descending heights in 0..1 that are at least `gap` apart, each near the given one.

    >>> [round(height, 2) for height in _spaced([0.9, 0.89, 0.1, 0.01], gap=0.1)]
    [0.9, 0.8, 0.1, 0.0]
    """
    places: list[float] = []
    for height in heights:
        places.append(min(height, places[-1] - gap) if places else min(height, 1.0))
    for at in reversed(range(len(places))):
        floor = 0.0 if at + 1 == len(places) else places[at + 1] + gap
        places[at] = max(places[at], floor)
    return places


def _bars_of_counts(axes: Axes, names: Sequence[str], counts: Sequence[int], colors: Sequence[str]) -> None:
    """Draw horizontal bars from top to bottom, each with its number."""
    bars = axes.barh(range(len(names)), counts, color=colors)
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
