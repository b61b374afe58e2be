"""Factories: what they may return, and what is refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch

from wds_real import ModelError, load_model

if TYPE_CHECKING:
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
    """Anything but a function that returns a model is a ModelError that names it."""
    with pytest.raises(ModelError, match=f"^made_models:{name}: ") as caught:
        load_model(f"made_models:{name}")
    assert caught.value.exit_code == 2
