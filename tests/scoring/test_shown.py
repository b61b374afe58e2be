"""What terminals and notebooks show of results, comparisons, predictions and the metric: a few lines, all escaped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import wds_real
from wds_real.labels import bundled, classes

if TYPE_CHECKING:
    from wds_real.scoring.comparison import Comparison
    from wds_real.scoring.predictions import Predictions
    from wds_real.scoring.result import Result

TINY = Path(__file__).parents[2] / "shards" / "tiny"
HOSTILE = "<script>alert(1)</script>"
ORIGINAL = np.array(bundled().original)


def predictions(shift: int = 0) -> Predictions:
    ds = wds_real.open_dataset(TINY)
    answers = (ds.index.original_label[:, None] + shift + np.arange(5)) % 1000
    return wds_real.Predictions(ds.keys, answers, np.full(answers.shape, np.nan, dtype=np.float32), source=HOSTILE)


@pytest.fixture(scope="module")
def result() -> Result:
    return replace(wds_real.score(ORIGINAL), model={"name": HOSTILE})


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    every_second_wrong = (ORIGINAL + np.arange(50_000) % 2) % 1000
    return wds_real.compare(wds_real.read_predictions(ORIGINAL), wds_real.read_predictions(every_second_wrong))


def html_of(thing: object) -> str:
    page = thing._repr_html_()  # type: ignore[attr-defined]
    assert isinstance(page, str)
    assert "<script" not in page
    return page


def test_a_result(result: Result) -> None:
    """Two accuracies in a line; all of them, with intervals and the receipt, in a table."""
    plain = replace(result, model={})
    assert repr(plain) == "<Result on 50,000 images: original top-1 100.000 %, ReaL top-1 90.023 %>"
    assert repr(result).startswith(f"<Result of {HOSTILE} on")
    page = html_of(result)
    assert "&lt;script&gt;" in page
    assert "<td>ReaL top-1</td><td>42,164</td><td>46,837</td><td>90.023 %</td>" in page
    low, high = (100 * bound for bound in result.real_top1.interval)
    assert f"<td>{low:.2f} - {high:.2f}</td>" in page
    assert "50,000 seen once" in page
    assert len(page) < 4_000


def test_a_comparison(comparison: Comparison) -> None:
    """Its counts, not its fifty thousand keys."""
    page = html_of(comparison)
    assert f"{comparison.difference:+.3f} points" in page
    assert f"<th>right only in A</th><td>{comparison.only_a:,}</td>" in page
    assert comparison.only_a > 20_000
    assert len(page) < 2_000
    assert len(repr(comparison)) < 200


def test_predictions() -> None:
    """The first rows, with the names of the classes."""
    some = predictions()
    page = html_of(some)
    label = int(some.classes[0, 0])
    assert f"<td>{some.keys[0]}</td><td>{label} {classes()[label].name}</td>" in page
    assert page.count("<tr>") == 1 + 5
    assert len(page) < 4_000
    assert "<td></td>" in html_of(replace(some, classes=np.full((60, 5), -1)))


def test_the_metric() -> None:
    """How many images it has counted."""
    metric = wds_real.RealAccuracy(wds_real.open_dataset(TINY))
    assert repr(metric) == "<RealAccuracy: 0 of 60 images counted on this rank>"
    some = predictions()
    metric.update(some.classes[:7], some.keys[:7])
    assert repr(metric) == "<RealAccuracy: 7 of 60 images counted on this rank>"
    assert "<td>7 of 60</td>" in html_of(metric)
