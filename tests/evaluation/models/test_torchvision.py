"""Models of torchvision: presets become transforms, and what is not a classifier is refused."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wds_real import EvalTransform, ModelError, load_model
from wds_real.evaluation.models.torchvision import crop_pct_of


def torchvision_with(preset: Any, error: Exception | None = None) -> Any:
    """Return as much of torchvision as is used, with weights of this preset; `error` is what its builder raises."""

    def get_model(name: str, *, weights: Any) -> torch.nn.Module:
        del name, weights
        if error is not None:
            raise error
        return torch.nn.Identity()

    weights = {"DEFAULT": SimpleNamespace(url="http://127.0.0.1:1/weights.pth", transforms=lambda: preset)}
    models = SimpleNamespace(get_model_weights=lambda _: weights, get_model=get_model)
    return SimpleNamespace(__version__="0.0", models=models)


CLASSIFICATION = SimpleNamespace(
    crop_size=[240], resize_size=[255], interpolation=SimpleNamespace(value="bilinear"), mean=[0.5] * 3, std=[0.2] * 3
)


def test_torchvision_presets_become_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset's sizes are kept exactly, also where their ratio is no round number."""
    monkeypatch.setitem(sys.modules, "torchvision", torchvision_with(CLASSIFICATION))
    transform = load_model("torchvision:efficientnet_b1").transform
    assert isinstance(transform, EvalTransform)
    assert transform == EvalTransform(
        240, transform.crop_pct, interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
    )
    assert transform.geometry(400, 300).resized == (340, 255)


@pytest.mark.parametrize(
    "torchvision",
    [
        pytest.param(torchvision_with(SimpleNamespace(resize_size=[520])), id="segmentation"),
        pytest.param(torchvision_with(SimpleNamespace()), id="detection"),
        pytest.param(
            torchvision_with(CLASSIFICATION, TypeError("Invalid Weight class provided; expected ...")), id="quantized"
        ),
        pytest.param(torchvision_with(CLASSIFICATION, OSError("Name or service not known")), id="offline"),
    ],
)
def test_torchvision_models_that_do_not_fit(torchvision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights for another task, or that their builder refuses, are a ModelError that names the model."""
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    with pytest.raises(ModelError, match="torchvision:some_model"):
        load_model("torchvision:some_model")


@given(sizes=st.tuples(st.integers(1, 1500), st.integers(1, 1500)).map(sorted))
def test_crop_pct_gives_back_the_resize_size(sizes: list[int]) -> None:
    """Whatever sizes a preset has, floor(img_size / crop_pct) is the size it resizes to."""
    img_size, resize_size = sizes
    assert math.floor(img_size / crop_pct_of(img_size, resize_size)) == resize_size
    assert (
        EvalTransform(img_size, crop_pct_of(img_size, resize_size)).geometry(2000, 2000).resized == (resize_size,) * 2
    )
