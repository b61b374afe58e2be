"""Programs saved by torch.export: they give what their module gave, and damaged files are refused."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

from wds_real import EvalTransform, ModelError, load_model
from wds_real.synthetic import KnownAnswerModel

if TYPE_CHECKING:
    from pathlib import Path


def test_an_exported_program(tmp_path: Path) -> None:
    """A .pt2 file gives what the module it was saved from gives."""
    path, image = tmp_path / "model.pt2", torch.rand(3, 3, 64, 64)
    torch.export.save(torch.export.export(KnownAnswerModel(), (torch.zeros_like(image),)), path)
    model = load_model(str(path))
    assert torch.equal(model.module(image), KnownAnswerModel()(image))
    assert model.transform == EvalTransform()
    json.dumps(model.identity())


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "junk", "zip", "state dict", "cut"])
def test_a_file_that_is_no_exported_program_is_refused(kind: str, tmp_path: Path) -> None:
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
