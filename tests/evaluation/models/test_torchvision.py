"""Models of torchvision: presets become transforms, and what is not a classifier is refused."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wds_real import EvalTransform, ModelError, load_model
from wds_real.evaluation.models.torchvision import crop_pct_of

if TYPE_CHECKING:
    from pathlib import Path


def torchvision_with(preset: Any, error: Exception | None = None) -> Any:
    """Return as much of torchvision as is used, with weights of this preset; `error` is what its builder raises."""

    def get_model(name: str, *, weights: Any, **arguments: Any) -> torch.nn.Module:
        calls.append((name, weights, arguments))
        if error is not None:
            raise error
        return torch.nn.Linear(2, arguments.get("num_classes", 3))

    calls: list[Any] = []

    weights = {"DEFAULT": SimpleNamespace(url="http://127.0.0.1:1/weights.pth", transforms=lambda: preset)}
    models = SimpleNamespace(get_model_weights=lambda _: weights, get_model=get_model)
    return SimpleNamespace(__version__="0.0", models=models, calls=calls)


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


@pytest.mark.parametrize(
    ("name", "more"),
    [("resnet18", {}), ("inception_v3", {"init_weights": False}), ("googlenet", {"init_weights": False})],
)
def test_a_checkpoint_replaces_the_weights_and_keeps_the_preset(
    name: str, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is downloaded, no weights are drawn at length, and the builder gets the arguments that are given."""
    torchvision = torchvision_with(CLASSIFICATION)
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    state = torch.nn.Linear(2, 5).state_dict()
    torch.save(state, tmp_path / "a.pth")
    loaded = load_model(
        f"torchvision:{name}", checkpoint=tmp_path / "a.pth", num_classes=5, model_kwargs={"dropout": 0.1}
    )
    assert torchvision.calls == [(name, None, {"num_classes": 5, "dropout": 0.1, **more})]
    assert isinstance(loaded.module, torch.nn.Linear)
    assert torch.equal(loaded.module.weight, state["weight"])
    assert isinstance(loaded.transform, EvalTransform)
    assert loaded.transform.size == (240, 240)


@pytest.mark.parametrize("name", ["inception_v3", "mnasnet0_5"])
def test_checkpoints_of_odd_models(name: str, tmp_path: Path) -> None:
    """One warns of its own initialisation, the other refuses weights without a version."""
    torchvision = pytest.importorskip("torchvision", reason="needs torchvision")
    more = {"init_weights": False} if name == "inception_v3" else {}
    state = torchvision.models.get_model(name, **more).state_dict()
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a.pth")
    loaded = load_model(f"torchvision:{name}", checkpoint=tmp_path / "a.pth")
    assert isinstance(loaded.module, torch.nn.Module)
    assert all(torch.equal(value, state[key]) for key, value in loaded.module.state_dict().items())


@given(sizes=st.tuples(st.integers(1, 1500), st.integers(1, 1500)).map(sorted))
def test_crop_pct_gives_back_the_resize_size(sizes: list[int]) -> None:
    """Whatever sizes a preset has, floor(img_size / crop_pct) is the size it resizes to."""
    img_size, resize_size = sizes
    assert math.floor(img_size / crop_pct_of(img_size, resize_size)) == resize_size
    assert (
        EvalTransform(img_size, crop_pct_of(img_size, resize_size)).geometry(2000, 2000).resized == (resize_size,) * 2
    )
