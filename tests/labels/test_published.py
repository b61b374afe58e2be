"""The bundled table of published results: the counts behind timm's percentages."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from wds_real.labels import NUM_IMAGES, bundled
from wds_real.labels.published import NUM_LABELLED, find_published, published_results

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_number_of_labelled_images_is_that_of_the_released_labels() -> None:
    """ReaL counts are of the images that have a ReaL label."""
    assert sum(map(bool, bundled().real)) == NUM_LABELLED


@pytest.mark.parametrize(("table", "field", "total", "tolerance"), [
    ("timm-results-imagenet.csv", "original", NUM_IMAGES, 0.0005),
    ("timm-results-imagenet-real.csv", "real", NUM_LABELLED, 0.0015),  # 118 cells were rounded differently
])  # fmt: skip
def test_every_count_gives_the_published_percentage(
    real_data: Callable[[str], Path], table: str, field: str, total: int, tolerance: float
) -> None:
    """All 1,556 rows are there, and each count divided by its total is the percentage in timm's table."""
    by_place = {(row.model, row.img_size, row.crop_pct): row for row in published_results()}
    with real_data(f"published/{table}").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(by_place) == 1_556
    for row in rows:
        found = by_place[row["model"], int(row["img_size"]), float(row["crop_pct"])]
        assert found.interpolation == row["interpolation"]
        assert found.parameters_millions == float(row["param_count"].replace(",", ""))
        for top in ("top1", "top5"):
            percent = 100 * getattr(found, f"{field}_{top}") / total
            assert percent == pytest.approx(float(row[top]), abs=tolerance + 1e-9)


def test_a_name_without_a_tag_finds_all_tags() -> None:
    """resnet18 stands for every resnet18.TAG, and for no other architecture."""
    models = {row.model for row in find_published("resnet18")}
    assert "resnet18.tv_in1k" in models
    assert all(model.startswith("resnet18.") for model in models)


def test_a_name_with_its_tag_finds_one_model() -> None:
    """The full name finds each size of that model only."""
    found = find_published("resnet50.a1_in1k")
    assert [row.img_size for row in found] == [224, 288]
    assert {row.model for row in found} == {"resnet50.a1_in1k"}


def test_a_pattern_finds_all_that_it_fits() -> None:
    """A pattern is that of a shell; an unknown name finds nothing."""
    assert {row.model for row in find_published("vgg1[16]*.tv_in1k")} == {
        "vgg11.tv_in1k", "vgg11_bn.tv_in1k", "vgg16.tv_in1k", "vgg16_bn.tv_in1k",
    }  # fmt: skip
    assert find_published("no_such_model") == ()


def test_the_setting_is_shown_in_words() -> None:
    """Size, crop and interpolation in one line."""
    assert find_published("vgg16")[0].setting == "224 px, crop 0.875, bilinear"
