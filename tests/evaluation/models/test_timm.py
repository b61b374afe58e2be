"""Models of timm: the data config becomes the transform; what timm cannot load is a ModelError that names the model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
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

    def create_model(name: str, *, pretrained: bool, **arguments: Any) -> torch.nn.Module:
        calls.append((pretrained, arguments))
        assert name in ("resnet50.tv_in1k", "hf-hub:timm/resnet50.tv_in1k")
        if error is not None:
            raise error
        return torch.nn.Linear(2, arguments.get("num_classes", 3))

    calls: list[Any] = []

    def resolve_model_data_config(model: torch.nn.Module, *, use_test_size: bool) -> dict[str, Any]:
        del model
        return CONFIG if use_test_size else {**CONFIG, "input_size": (3, 8, 8)}

    return SimpleNamespace(
        __version__="0.0",
        calls=calls,
        get_pretrained_cfg=lambda name: None,  # noqa: ARG005 -- nothing to download
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


def test_a_checkpoint_replaces_the_weights_and_keeps_the_data_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is downloaded; timm gets the arguments that are given, and its config of the name stays."""
    timm = timm_with()
    monkeypatch.setitem(sys.modules, "timm", timm)
    state = torch.nn.Linear(2, 5).state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    loaded = load_model(
        "timm:resnet50.tv_in1k", checkpoint=tmp_path / "a.pth", num_classes=5, model_kwargs={"drop_rate": 0.1}
    )
    assert timm.calls == [(False, {"num_classes": 5, "drop_rate": 0.1})]
    assert isinstance(loaded.module, torch.nn.Linear)
    assert torch.equal(loaded.module.weight, state["weight"])
    assert isinstance(loaded.transform, EvalTransform)
    assert loaded.transform.size == (256, 288)
    load_model("timm:resnet50.tv_in1k")
    assert timm.calls[1:] == [(True, {})]
    with pytest.raises(ModelError, match=r"--num-classes 5 without --checkpoint would leave the classifier untrained"):
        load_model("timm:resnet50.tv_in1k", num_classes=5)


def test_an_averaged_checkpoint_of_timm(tmp_path: Path) -> None:
    """As timm's training script writes it, without its settings; the preprocessing is that of the architecture."""
    timm = pytest.importorskip("timm", reason="needs timm")
    plain, averaged = (timm.create_model("mobilenetv3_small_050").state_dict() for _ in range(2))
    content = {"epoch": 1, "arch": "mobilenetv3_small_050", "state_dict": plain}
    torch.save(
        content | {"state_dict_ema": {f"module.{key}": value for key, value in averaged.items()}}, tmp_path / "a"
    )
    loaded = load_model("timm:mobilenetv3_small_050", checkpoint=tmp_path / "a", use_ema=True)
    assert isinstance(loaded.module, torch.nn.Module)
    assert torch.equal(loaded.module.state_dict()["conv_stem.weight"], averaged["conv_stem.weight"])
    assert isinstance(loaded.transform, EvalTransform)
    assert loaded.transform.size == (224, 224)


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


def test_a_model_of_the_hub_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timm gets the name with its source."""
    monkeypatch.setitem(sys.modules, "timm", timm_with())
    transform = load_model("timm:hf-hub:timm/resnet50.tv_in1k").transform
    assert isinstance(transform, EvalTransform)
    assert transform.size == (256, 288)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hub:timm/resnet50", "expected timm:NAME, timm:hf-hub:USER/MODEL or timm:local-dir:FOLDER"),
        ("hf-hub:", "expected timm:NAME"),
        ("local-dir:nowhere", "nowhere holds no config.json"),
        ("timm/resnet50", "On the Hugging Face hub: timm:hf-hub:timm/resnet50"),
    ],
)
def test_a_source_that_timm_does_not_have(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the forms that are taken."""
    monkeypatch.setitem(sys.modules, "timm", timm_with())
    with pytest.raises(ModelError, match=f"^timm:{name}: .*{text}"):
        load_model(f"timm:{name}")


class Touch:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("hostile", [False, True])
def test_a_folder_is_loaded_by_timm(hostile: bool, tmp_path: Path) -> None:
    """Weights and preprocessing are those of the folder; a pickle of more than tensors is refused and not run."""
    timm = pytest.importorskip("timm", reason="needs timm")
    size = {
        "input_size": [3, 160, 160],
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    cfg = size | {"num_classes": 1000, "first_conv": "conv_stem", "classifier": "classifier"}
    about = {"architecture": "mobilenetv3_small_050", "num_classes": 1000, "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(about))
    weights = timm.create_model("mobilenetv3_small_050").state_dict()
    torch.save(weights | ({"more": Touch(tmp_path / "made")} if hostile else {}), tmp_path / "pytorch_model.bin")
    if hostile:
        with pytest.raises(ModelError, match=r"timm:local-dir:.*: (the weights are a pickle|timm cannot load it)"):
            load_model(f"timm:local-dir:{tmp_path}")
        assert not (tmp_path / "made").exists()
        return
    loaded = load_model(f"timm:local-dir:{tmp_path}")
    assert isinstance(loaded.module, torch.nn.Module)
    assert torch.equal(loaded.module.state_dict()["conv_stem.weight"], weights["conv_stem.weight"])
    assert loaded.transform == EvalTransform(
        (160, 160), 0.9, interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
