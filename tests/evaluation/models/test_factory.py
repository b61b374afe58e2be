"""Factories: what they may return, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from wds_real import EvalTransform, ModelError, ModelRunError, load_model

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
def raises(): raise ValueError("no checkpoint")
def leaves(): raise SystemExit(3)
def no_memory(): raise MemoryError
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
    assert isinstance(model.transform, EvalTransform)
    assert model.transform.size == size
    assert model.module(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("name", ["nothing", "three", "wrong_transform", "needs_argument", "value", "absent"])
@pytest.mark.usefixtures("factories")
def test_factories_that_do_not_fit(name: str) -> None:
    """Anything but a function that returns a model is a ModelError that names it."""
    with pytest.raises(ModelError, match=f"^made_models:{name}: ") as caught:
        load_model(f"made_models:{name}")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "text"), [("raises", "ValueError: no checkpoint"), ("leaves", "SystemExit: 3")])
@pytest.mark.usefixtures("factories")
def test_a_factory_that_raises_is_named_with_its_line(name: str, text: str) -> None:
    """The error has the text of the factory's own, its file and its line."""
    with pytest.raises(ModelError, match=rf"^made_models:{name}: the factory raised {text} \(made_models\.py:\d+\)\.$"):
        load_model(f"made_models:{name}")


@pytest.mark.usefixtures("factories")
def test_memory_that_runs_out_in_a_factory() -> None:
    """It is a failure of the run, not of the name."""
    with pytest.raises(ModelRunError, match="out of memory while the model was made") as caught:
        load_model("made_models:no_memory")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            "import no_such_pack",
            r"importing broken raised ModuleNotFoundError: .*no_such_pack.* \(broken\.py:1\)",
        ),
        ("\n1 / 0", r"importing broken raised ZeroDivisionError: division by zero \(broken\.py:2\)"),
        ("def f(:", r"importing broken raised SyntaxError: invalid syntax \(broken\.py:1\)"),
        ("raise SystemExit('usage')", r"importing broken raised SystemExit: usage \(broken\.py:1\)"),
        ("", r"broken \(.*broken\.py\) has no 'make'"),
    ],
)
def test_a_module_that_cannot_be_imported(
    content: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The module's own error and line are named; a module that is there is not called missing."""
    (tmp_path / "broken.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(ModelError, match=f"^broken:make: {text}"):
        load_model("broken:make")


def test_a_file_with_the_name_of_an_installed_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """One of the two is meant, and Python finds the other one."""
    monkeypatch.chdir(tmp_path)
    Path("colorsys.py").touch()
    with pytest.raises(ModelError, match=r"colorsys\.py in the current folder is hidden by .*Rename the one here"):
        load_model("colorsys:make")


def test_a_file_name_in_place_of_a_module() -> None:
    """The message has the name to give."""
    with pytest.raises(ModelError, match=r"Give the module's name without \.py: models\.mine:make\."):
        load_model("models/mine.py:make")
