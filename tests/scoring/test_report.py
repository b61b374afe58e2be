"""The printed lines: each shows what it was given, and nothing where nothing is known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from wds_real.scoring import report
from wds_real.scoring.counts import Accuracy, Coverage


@pytest.mark.parametrize(
    ("dataset", "model", "preprocessing", "line"),
    [
        ({}, {}, {}, ""),
        ({"name": "set", "split": "validation[:5]"}, {}, {}, "set, validation[:5]"),
        ({"name": "set"}, {"name": "m", "num_parameters": 3}, {}, "m on set"),
        (
            {"name": "set"},
            {"name": "m"},
            {"img_size": [224, 200], "crop_pct": 0.9, "mean": [0.5]},
            "m on set: img_size 224x200, crop_pct 0.9",
        ),
    ],
)
def test_the_title_says_what_is_known(
    dataset: dict[str, Any], model: dict[str, Any], preprocessing: dict[str, Any], line: str
) -> None:
    """Model, data set, split and the fields of the preprocessing."""
    assert report.title_line(dataset, model, preprocessing) == line


@pytest.mark.parametrize(
    ("execution", "line"),
    [
        ({}, ""),
        ({"precision": "float32", "batch_size": 8}, " float32, batch size 8"),
        (
            {"precision": "float16", "batch_size": 8, "device": "cuda", "compile": True, "channels_last": False},
            " float16 on cuda, batch size 8, torch.compile",
        ),
        (
            {"precision": "float16", "batch_size": 8, "device": ["cpu", "cuda"], "channels_last": [False, True]},
            " float16 on cpu and cuda, batch size 8, channels_last for a part",
        ),
    ],
)
def test_the_execution_says_what_is_known(execution: dict[str, Any], line: str) -> None:
    """Precision and batch size, and what else is known; all values where parts of a run differed."""
    assert report.execution_line(execution) == line


def test_columns_stand_below_their_titles() -> None:
    """Numbers end where the titles of the header end; an accuracy of no image has none."""
    line = report.accuracy_line("ReaL top-1", Accuracy(38_860, 46_837))
    assert line == " ReaL top-1                  38,860 /  46,837     82.969   82.63 - 83.31"
    for number, title in (("38,860", "correct"), ("46,837", "n"), ("82.969", "accuracy")):
        assert line.index(number) + len(number) == report.HEADER.index(title) + len(title)
    assert report.accuracy_line("ReaL top-1", Accuracy(0, 0)).endswith("-   (no image)")
    assert report.accuracy_line("x", Accuracy(1, 4, failed=2)).endswith("(up to 75.000 if all 2 unreadable were right)")


def test_the_bridge_shows_signs_and_a_dash_for_nothing() -> None:
    """Effects have their sign and three decimals."""
    line = report.bridge_line(0.5, -4.0, forgiven=1_234, newly_wrong=5)
    assert line == (
        " from original to ReaL: +0.500 unlabelled images excluded, -4.000 relabelled (1,234 forgiven, 5 newly wrong)"
    )
    assert ": - unlabelled" in report.bridge_line(math.nan, math.nan, forgiven=0, newly_wrong=0)


def test_the_receipt_prints_every_count() -> None:
    """None of its numbers is written down beforehand; unreadable samples are said where there are some."""
    assert report.receipt(Coverage(9_000, 4, 3, 2, ("x",)), 5) == (
        "9,000 expected, 4 seen once, 3 missing, 2 twice, 1 unreadable, 5 ranks"
    )
    assert report.receipt(Coverage(1, 1, 0, 0), 1) == "1 expected, 1 seen once, 0 missing, 0 twice, 1 rank"


@pytest.mark.parametrize(("expected", "partial"), [(50_000, False), (49_999, True)])
def test_a_part_is_not_passed_off_as_imagenet(expected: int, partial: bool) -> None:
    """Fewer than the 50,000 validation images get a line that says so."""
    lines = report.coverage_lines(Coverage(expected, expected, 0, 0), 1)
    assert any("not an ImageNet accuracy" in line for line in lines) is partial
