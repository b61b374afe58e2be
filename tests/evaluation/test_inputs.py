"""How images become a model's input, and which models can share one decode of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wds_real import EvalTransform, ModelError
from wds_real.evaluation.inputs import Inputs

BASE = {"img_size": 64, "crop_pct": 0.875, "crop_mode": "center", "interpolation": "bilinear"}


def inputs(**changes: Any) -> Inputs:
    return Inputs.of(EvalTransform(**{**BASE, **changes}))


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"img_size": (64, 64)}, True),
        ({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}, True),
        ({"img_size": 65}, False),
        ({"img_size": (64, 65)}, False),
        ({"crop_pct": 0.9}, False),
        ({"crop_mode": "squash"}, False),
        ({"interpolation": "bicubic"}, False),
    ],
)
def test_pixels_are_shared_where_the_geometry_is_equal(changes: dict[str, Any], same: bool) -> None:
    """Mean and std come after decoding; every other setting changes the pixels."""
    assert inputs().same_pixels(inputs(**changes)) is same
    assert inputs(**changes).same_pixels(inputs()) is same


def test_the_border_has_the_mean_of_the_model() -> None:
    """Models that pad with their mean colour share pixels only if it is the same."""
    grey, border = (0.5, 0.5, 0.5), inputs(crop_mode="border")
    assert border.same_pixels(inputs(crop_mode="border", std=grey))
    assert not border.same_pixels(inputs(crop_mode="border", mean=grey))


def test_functions_share_pixels_with_themselves_only() -> None:
    """Nothing describes the pixels of a function, so only the same object gives the same ones."""

    def floats(image: object) -> torch.Tensor:
        del image
        return torch.zeros(3, 8, 8)

    def other(image: object) -> torch.Tensor:
        return floats(image)

    assert Inputs.of(floats).same_pixels(Inputs.of(floats))
    assert not Inputs.of(floats).same_pixels(Inputs.of(other))
    assert not Inputs.of(floats).same_pixels(inputs())


def test_the_description_names_what_is_used() -> None:
    """Pixels have neither mean nor std, except the border's mean; given ones replace the transform's."""
    given = Inputs.of(EvalTransform(), (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert (given.description["mean"], given.description["std"]) == ([0.1, 0.2, 0.3], [1.0, 1.0, 1.0])
    assert not {"mean", "std"} & Inputs.of(EvalTransform(), as_pixels=True).description.keys()
    assert "mean" in Inputs.of(EvalTransform(crop_mode="border"), as_pixels=True).description
    with pytest.raises(ModelError, match="takes uint8 pixels, but the transform returns floats"):
        Inputs.of(lambda _: torch.zeros(3, 8, 8), as_pixels=True)
