"""Programs saved by torch.export: they give what their module gave, and damaged files are refused."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

from wds_real import EvalOptions, EvalTransform, ModelError, evaluate, load_model, open_dataset
from wds_real.synthetic import KnownAnswerModel

if TYPE_CHECKING:
    from pathlib import Path


def test_an_exported_program(tmp_path: Path) -> None:
    """A .pt2 file gives what the module it was saved from gives."""
    path, image = tmp_path / "model.pt2", torch.rand(3, 3, 64, 64)
    torch.export.save(torch.export.export(KnownAnswerModel(), (torch.zeros_like(image),)), path)
    model = load_model(str(path))
    assert torch.equal(model.module(image), KnownAnswerModel()(image))
    assert model.transform == EvalTransform(64)
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


def export(path: Path, *, batch: object = None, dtype: torch.dtype = torch.float32) -> str:
    """Save a classifier of 32 x 32 images: for batches of 8, or as `batch` says."""
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 1000)).to(dtype)
    image = torch.zeros(8, 3, 32, 32, dtype=dtype)
    shapes = None if batch is None else ({0: batch},)
    torch.export.save(torch.export.export(module.eval(), (image,), dynamic_shapes=shapes), path)
    return str(path)


@pytest.mark.parametrize(
    ("batch", "size", "img_size", "message"),
    [
        (None, 256, 32, "exported for batches of 8, not 256: -b 8."),
        (None, 4, 32, "exported for batches of 8, not 4: -b 8."),
        (None, 8, 48, "exported for images of height 32 and width 32, not 48 x 48: --img-size 32."),
        (torch.export.Dim("b", min=1, max=64), 65, 32, "exported for batches of 1 to 64, not 65: -b 64."),
        (torch.export.Dim("b", min=4), 3, 32, "exported for batches of 4 or more, not 3: -b 4."),
    ],
)
def test_sizes_that_a_program_does_not_take_are_refused_at_once(
    batch: object, size: int, img_size: int, message: str, packed: Path, tmp_path: Path
) -> None:
    """The message has the sizes it was exported for, and the option to set; no batch is read before."""
    model = load_model(export(tmp_path / "m.pt2", batch=batch))
    model = dataclasses.replace(model, transform=EvalTransform(img_size))
    with pytest.raises(ModelError, match=f"{re.escape(message)}$"):
        evaluate(model, open_dataset(packed), options=EvalOptions(batch_size=size, device="cpu"), progress=never)


def never(*_: int) -> None:
    raise AssertionError("a batch was evaluated")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_fixed_batch_size_works_with_a_padded_last_batch(dtype: torch.dtype, packed: Path, tmp_path: Path) -> None:
    """120 images in batches of 50 leave 20: all are counted. The input has the dtype that was exported."""
    model = load_model(export(tmp_path / "m.pt2", dtype=dtype))
    dataset = open_dataset(packed, split="validation[:20]")
    model = dataclasses.replace(model, transform=EvalTransform(32))
    result = evaluate(model, dataset, options=EvalOptions(batch_size=8, device="cpu", threads=1))
    assert result.original_top1.total == 20
    assert result.execution["precision"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("part", [torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(3)], ids=["dropout", "batch norm"])
@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch decomposes with a function that it deprecates
def test_a_program_in_training_mode_is_refused(part: torch.nn.Module, decomposed: bool, tmp_path: Path) -> None:
    """Its predictions would change from run to run, or with the other images of a batch."""
    path = tmp_path / "m.pt2"
    for mode in (True, False):
        program = torch.export.export(torch.nn.Sequential(part).train(mode), (torch.rand(2, 3, 4, 4),))
        torch.export.save(program.run_decompositions() if decomposed else program, path)
        if mode:
            with pytest.raises(ModelError, match=r"exported in training mode .* Export it again after model\.eval\(\)"):
                load_model(str(path))
    load_model(str(path))


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 8, 8)])
def test_a_program_for_other_inputs_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    """The input is a batch of images with three channels."""
    torch.export.save(torch.export.export(torch.nn.Identity(), (torch.zeros(shape),)), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match=r"takes an input of shape .* expected images \(B, 3, H, W\)"):
        load_model(str(tmp_path / "m.pt2"))
