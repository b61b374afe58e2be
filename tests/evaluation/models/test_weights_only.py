"""torch's switch against pickled code: on within the block, for whoever loads, and as before after it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch

from wds_real import ModelError
from wds_real.evaluation.models.weights_only import weights_only


class MakesAFile:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    """A pickle that would make a file makes none, even where the caller of torch.load allows code."""
    torch.save({"weight": MakesAFile(tmp_path / "made")}, tmp_path / "model.pth")
    with (
        pytest.raises(ModelError, match=r"^timm:m: the weights are a pickle of Python objects"),
        weights_only("timm:m"),
    ):
        torch.load(tmp_path / "model.pth", weights_only=False)
    assert not (tmp_path / "made").exists()
    torch.load(tmp_path / "model.pth", weights_only=False)
    assert (tmp_path / "made").exists()  # the pickle does what it says


def test_tensors_are_loaded(tmp_path: Path) -> None:
    """Tensors in plain containers are what they were."""
    torch.save({"weight": torch.ones(2), "epoch": 3}, tmp_path / "model.pth")
    with weights_only("m"):
        assert torch.load(tmp_path / "model.pth", weights_only=False)["weight"].tolist() == [1, 1]


@pytest.mark.parametrize("before", [None, "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_the_environment_is_as_before(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was set is set afterwards, and the opposite switch does not hinder, also if the block fails."""
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        monkeypatch.delenv(name, raising=False)
    if before:
        monkeypatch.setenv(before, "0")
    environment = dict(os.environ)
    with weights_only("m"):
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
        assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    assert dict(os.environ) == environment
    with pytest.raises(ModelError), weights_only("m"):
        torch.load(io.BytesIO(b"no pickle"))
    assert dict(os.environ) == environment
