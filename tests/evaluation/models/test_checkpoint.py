"""Checkpoints: which weights of the file, which prefixes, a model that they fit exactly, and nothing that is run."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from wds_real import LoadedModel, ModelError
from wds_real.evaluation.models.checkpoint import with_checkpoint


def network(num_classes: int = 5) -> torch.nn.Sequential:
    """Return a network with weights, biases and the buffers of a normalisation, different each time."""
    return torch.nn.Sequential(
        OrderedDict(
            conv=torch.nn.Conv2d(3, 4, 3), norm=torch.nn.BatchNorm2d(4), pool=torch.nn.AdaptiveAvgPool2d(1),
            flat=torch.nn.Flatten(), fc=torch.nn.Linear(4, num_classes),
        )
    )  # fmt: skip


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def saved(content: Any, path: Path = Path("x.pth")) -> Path:
    torch.save(content, path)
    return path


def loaded(path: Path, model: torch.nn.Module | None = None, **options: Any) -> LoadedModel:
    return with_checkpoint(LoadedModel("m:net", model or network()), path, **options)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def expect_weights(model: LoadedModel, expected: dict[str, Any]) -> None:
    assert isinstance(model.module, torch.nn.Module)
    found = model.module.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("place", ["the top level", "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "backbone.", "module._orig_mod.model."])
def test_weights_are_found_and_prefixes_removed(place: str, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever they are, with any prefixes; what was done is logged and part of the result."""
    state = network().state_dict()
    content = prefixed(prefix, state)
    path = saved(content if place == "the top level" else {"epoch": 3, place: content, "optimizer": {"state": {}}})
    with caplog.at_level(logging.INFO):
        model = loaded(path)
    expect_weights(model, state)
    (line,) = caplog.messages
    assert line.startswith(f"x.pth: weights from {place}")
    assert (f"prefix {prefix} removed from 9 names" in line) == bool(prefix)
    assert model.facts["checkpoint"] == {
        "file": "x.pth", "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "state_dict": place,
        **({"removed_prefixes": [prefix]} if prefix else {}),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["state_dict_ema", "model_ema"])
def test_averaged_weights_are_taken_on_demand_only(name: str) -> None:
    """Both kinds in a file: the option chooses; only averaged ones: the option is needed; none: it is refused."""
    plain, averaged = network().state_dict(), network().state_dict()
    path = saved({"state_dict": plain, name: averaged})
    expect_weights(loaded(path), plain)
    model = loaded(path, use_ema=True)
    expect_weights(model, averaged)
    assert model.facts["checkpoint"]["state_dict"] == name
    path = saved({name: averaged, "epoch": 1})
    expect_weights(loaded(path, use_ema=True), averaged)
    with pytest.raises(ModelError, match=rf"^x\.pth: holds only averaged weights \({name}\)\. Add --use-ema"):
        loaded(path)
    for content in (plain, {"model": plain}):
        with pytest.raises(ModelError, match=r"^x\.pth: holds no averaged weights .* Omit --use-ema"):
            loaded(saved(content), use_ema=True)
