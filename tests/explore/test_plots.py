"""Figures of results: their points, bars and words are the numbers of the results."""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wds_real
from wds_real.explore.plots import _spaced, plot_comparison, plot_pairs, plot_ranking
from wds_real.labels import bundled, classes
from wds_real.scoring.ranking.pairwise import compare_many
from wds_real.scoring.ranking.rank import rank_models
from wds_real.scoring.ranking.rows import read_model_row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes
    from support.commands import Ended

ORIGINAL = np.array(bundled().original)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three models that answer with the original labels, but for some: <good>, best$1 and bad."""
    folder = tmp_path_factory.mktemp("predictions")
    wrong = {"<good>": 20_000, "best$1": 10_000, "bad": 40_000}
    for name, count in wrong.items():
        answers = ORIGINAL.copy()
        answers[:count] = (answers[:count] + 1) % 1000
        np.save(folder / f"{name}.npy", answers)
    return {name: folder / f"{name}.npy" for name in wrong}


def named(axes: Axes) -> list[tuple[str, float]]:
    """Return the names beside the points, from top to bottom, with their heights."""
    texts: list[Any] = [text for text in axes.texts if text.get_text()]
    return [(text.get_text(), float(text.xyann[1])) for text in texts]


def test_models_are_at_their_accuracies(files: dict[str, Path]) -> None:
    """With intervals around them, and the original labels as a star."""
    rows = [read_model_row(path) for path in files.values()]
    figure = plot_ranking(rank_models(rows))
    (axes,) = figure.axes
    points, star = axes.lines[0], axes.lines[-1]
    ranked = sorted(rows, key=lambda row: -row.accuracies["real_top1"].value)
    for accuracy, values in (("original_top1", points.get_xdata()), ("real_top1", points.get_ydata())):
        assert np.allclose(np.asarray(values, dtype=float), [100 * row.accuracies[accuracy].value for row in ranked])
    assert np.asarray(star.get_xydata(), dtype=float).round(3).tolist() == [[100, 90.023]]
    assert axes.get_title(loc="left") == "imagenet2012_real, validation: 50,000 images"
    assert [name for name, _ in named(axes)] == ["best$1", "<good>", "bad"]
    bars = [collection.get_segments() for collection in axes.collections]  # type: ignore[attr-defined]  # of lines
    (low, high) = ranked[0].accuracies["real_top1"].interval
    assert np.allclose(sorted(point[1] for point in bars[1][0]), [100 * low, 100 * high])


def test_the_original_labels_are_left_out_on_a_part(tmp_path: Path) -> None:
    """What they reach there was not computed."""
    keys = [f"ILSVRC2012_val_{number:08d}" for number in range(1, 201)]
    result = wds_real.score(dict(zip(keys, ORIGINAL[:200].tolist(), strict=True)), allow_partial=True)
    (tmp_path / "result.json").write_text(json.dumps(result.as_dict()))
    (axes,) = plot_ranking(rank_models([read_model_row(tmp_path)])).axes
    assert "star" not in str([line.get_label() for line in axes.lines])
    assert not [line for line in axes.lines if "original labels" in str(line.get_label())]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_names_do_not_overlap(heights: list[float]) -> None:
    """They keep their order and stay beside the axes, whatever the points."""
    gap = min(0.045, 1 / len(heights))
    places = _spaced(sorted(heights, reverse=True), gap=gap)
    assert all(upper - lower >= gap * 0.999 for upper, lower in itertools.pairwise(places))
    assert min(places) >= 0
    assert max(places) <= 1 + 1e-9


def test_a_comparison_shows_images_and_classes(files: dict[str, Path]) -> None:
    """Every bar has the number that it stands for."""
    comparison = wds_real.compare(files["<good>"], files["best$1"])
    figure = plot_comparison(comparison, ("<good>", "best$1"))
    images, per_class = figure.axes
    assert [bar.get_width() for bar in images.patches] == [  # type: ignore[attr-defined]  # rectangles
        comparison.both, comparison.only_a, comparison.only_b, comparison.neither
    ]  # fmt: skip
    assert [text.get_text() for text in images.texts] == [
        f"{count:,}" for count in (comparison.both, comparison.only_a, comparison.only_b, comparison.neither)
    ]
    change_of = {classes()[change.label].name: change.correct_b - change.correct_a for change in comparison.per_class}
    names = [label.get_text() for label in per_class.get_yticklabels()]
    widths = [bar.get_width() for bar in per_class.patches]  # type: ignore[attr-defined]  # rectangles
    assert 0 < len(names) <= 20
    assert widths == [change_of[name] for name in names]
    assert widths == sorted(widths)
    assert max(widths) == max(change_of.values())
    title = figure.get_suptitle()
    assert "A <good>, B best$1" in title
    assert f"{comparison.difference:+.3f} points of real top-1" in title


def test_equal_models_have_no_classes_to_show(files: dict[str, Path]) -> None:
    """The figure is drawn all the same."""
    path = files["bad"]
    _, per_class = plot_comparison(wds_real.compare(path, path), ("bad", "bad")).axes
    assert not per_class.patches


def test_every_pair_has_its_difference(files: dict[str, Path]) -> None:
    """Row minus column, twice with both signs; what cannot be told apart is grey."""
    read = {name: wds_real.read_predictions(path) for name, path in files.items()}
    comparison = compare_many({**read, "twin": read["bad"]})
    (axes,) = plot_pairs(comparison).axes
    names = list(comparison.accuracies)
    fields = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(fields) == 4 * 3
    for pair in comparison.pairs:
        a, b = names.index(pair.a), names.index(pair.b)
        assert fields[b, a] == f"{pair.difference:+.2f}"
        assert fields[a, b] == f"{-pair.difference:+.2f}"
    assert [{*pair} for pair in comparison.close] == [{"bad", "twin"}]
    assert len(axes.patches) == 2
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"{name}  {one.percent:.2f} %" for name, one in comparison.accuracies.items()]


@pytest.mark.parametrize("count", [2, 3])
def test_compare_draws(run: Callable[..., Ended], files: dict[str, Path], tmp_path: Path, count: int) -> None:
    """Of two models or more, beside what it prints."""
    path, chosen = tmp_path / "plot.svg", list(files.values())[:count]
    code, out, err = run("compare", *chosen, "--plot", path)
    assert (code, err) == (0, "")
    assert out == run("compare", *chosen).out
    assert path.read_text().startswith("<?xml")


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_report_draws(run: Callable[..., Ended], files: dict[str, Path], tmp_path: Path, ending: str) -> None:
    """Beside its table; names are text also where they look like markup or formulas."""
    path = tmp_path / f"plot.{ending}"
    code, out, err = run("report", *files.values(), "--plot", path)
    assert (code, err) == (0, "")
    assert out == run("report", *files.values()).out
    assert path.stat().st_size > 5_000
    if ending == "svg":
        assert not re.search(r"<(good|script)>", path.read_text())


@pytest.mark.parametrize(
    ("plot", "message"), [("plot.bmp", "expected a file that ends in .png"), ("s3://lab/plot.png", "is a URL")]
)
def test_a_plot_that_cannot_be_written_is_said(
    run: Callable[..., Ended], files: dict[str, Path], plot: str, message: str
) -> None:
    """In one line."""
    code, _, err = run("report", files["bad"], "--plot", plot)
    assert code == 2
    assert message in err.splitlines()[-1]
