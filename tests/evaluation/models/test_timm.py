"""Models of timm: the data config becomes the transform; what timm cannot load is a ModelError that names the model."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from wds_real import EvalTransform, ModelError, load_model

CONFIG = {
    "input_size": (3, 256, 288), "crop_pct": 0.95, "crop_mode": "squash", "interpolation": "bilinear",
    "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6),
}  # fmt: skip


def timm_with(*, error: Exception | None = None) -> Any:
    """Return as much of timm as is used, with one model; `error` is what creating it raises."""

    def create_model(name: str, *, pretrained: bool) -> torch.nn.Module:
        assert (name, pretrained) == ("resnet50.tv_in1k", True)
        if error is not None:
            raise error
        return torch.nn.Identity()

    def resolve_model_data_config(model: torch.nn.Module, *, use_test_size: bool) -> dict[str, Any]:
        del model
        return CONFIG if use_test_size else {**CONFIG, "input_size": (3, 8, 8)}

    return SimpleNamespace(
        __version__="0.0",
        is_model=lambda name: name == "resnet50",
        list_models=lambda: ["resnet50", "vit_base"],
        create_model=create_model,
        data=SimpleNamespace(resolve_model_data_config=resolve_model_data_config),
    )


def test_the_data_config_becomes_the_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field is taken from the data config of the pretrained weights, at the test size."""
    monkeypatch.setitem(sys.modules, "timm", timm_with())
    assert load_model("timm:resnet50.tv_in1k").transform == EvalTransform(
        (256, 288), 0.95, crop_mode="squash", interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )


def test_an_unknown_model_is_refused_with_similar_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the model and those with similar names."""
    monkeypatch.setitem(sys.modules, "timm", timm_with())
    with pytest.raises(ModelError, match=r"^timm:resnet5: timm 0\.0 has no such model\. Similar: resnet50"):
        load_model("timm:resnet5")


@pytest.mark.parametrize("error", [RuntimeError("no weights"), OSError("offline"), ValueError("no tag")])
def test_weights_that_cannot_be_loaded(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever timm raises for weights that are missing or cannot be downloaded is a ModelError."""
    monkeypatch.setitem(sys.modules, "timm", timm_with(error=error))
    with pytest.raises(ModelError, match=f"timm:resnet50.tv_in1k: timm cannot load it: .*{error}"):
        load_model("timm:resnet50.tv_in1k")
