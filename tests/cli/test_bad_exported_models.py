"""Bad files of exported models: one clear line, exit code 2 (1 where the model itself fails), nothing changed."""

from __future__ import annotations

import sys
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support.commands import Ended, expect_one_line
from support.exported import MATRIX, save_onnx, save_openvino, write_lfs_pointer
from support.tflite import save_tflite

from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

for library in ("onnx", "onnxruntime", "openvino", "ai_edge_litert"):
    pytest.importorskip(library, reason="needs the extra 'test'")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

# The options after `eval shards -m`, the exit code, and what the message says. The files are those of `folder`.
BAD_MODELS: list[tuple[str, int, str]] = [
    ("nofile.onnx", 2, "no such file. Expected an ONNX model"),
    ("folder.onnx", 2, "a folder"),
    ("empty.onnx", 2, "the file is empty"),
    ("text.onnx", 2, "is no ONNX model"),
    ("page.onnx", 2, "a web page"),
    ("lfs.onnx", 2, "git lfs pull"),
    ("cut.onnx", 2, "The file is cut"),
    ("two.onnx", 2, "takes 2 inputs ('image' (?x3x32x32, float32), 'mask'"),
    ("grey.onnx", 2, "expected 3 channels"),
    ("layout.onnx", 2, "does not say whether the 3 channels"),
    ("open.onnx", 2, "does not say whether the 3 channels"),
    ("flat.onnx", 2, "expected images"),
    ("text_input.onnx", 2, "string), expected float32"),
    ("int8_input.onnx", 2, "int8), expected float32"),
    ("outputs.onnx", 2, "which output has the scores is not clear, of 'a' (?x1000, float32), 'b'"),
    ("classes.onnx", 2, "the model has 999 outputs, expected 1000"),
    ("background.onnx", 2, "--background first"),
    ("nan.onnx", 2, "NaN"),
    ("lost.onnx", 2, "its weights are in 'lost.bin', which is not beside it"),
    ("outside.onnx", 2, "outside its folder"),
    ("good.onnx --img-size 48", 2, "--img-size 32"),
    ("good.onnx --amp", 2, "--amp is for models that torch runs; onnxruntime"),
    ("good.onnx --torchcompile", 2, "--torchcompile is for models that torch runs"),
    ("good.onnx --channels-last", 2, "--channels-last is for models that torch runs"),
    ("good.onnx --device meta", 2, "runs on cpu here, not on meta: --device cpu"),
    ("good.onnx --checkpoint weights.pt", 2, "brings its own weights"),
    ("pixels.onnx --mean 0 0 0 --std 1 1 1", 2, "--mean and --std would do nothing"),
    ("text.tflite", 2, "not a TensorFlow Lite model"),
    ("cut.tflite", 2, "cut.tflite"),
    ("two.tflite", 2, "takes 2 inputs"),
    ("classes.tflite", 2, "999 outputs"),
    ("nan.tflite", 2, "NaN"),
    ("good.tflite --amp", 2, "--amp is for models that torch runs; ai-edge-litert"),
    ("text.xml", 2, "not XML"),
    ("cut.xml", 2, "openvino cannot load it"),
    ("nobin.xml", 2, "nobin.bin, are not beside it"),
    ("otherbin.xml", 2, "openvino cannot load it"),
    ("layout.xml", 2, "does not say whether the 3 channels"),
    ("nan.xml", 2, "NaN"),
    ("weights.pt", 2, "a file of weights does not say which model they belong to"),
    ("cut.ts", 2, "not a whole TorchScript program"),
    ("two.ts", 2, "takes image: Tensor, mask: Tensor, expected one tensor"),
    ("good.ts --torchcompile", 2, "--torchcompile compiles no TorchScript"),
    ("fixed.ts -b 4", 1, "raised RuntimeError: shape '[8, 3]' is invalid"),
    ("compiled.pt2", 2, "--trust-code"),
    ("compiled.pt2 --trust-code", 2, "compiled for riscv64, this machine is"),
    ("fixed.pt2 -b 4", 2, "-b 8"),
    ("model.engine", 2, "another runtime"),
]


class TwoInputs(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image * mask


class Fixed(torch.nn.Module):
    """Takes batches of 8 only."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(image.mean((2, 3)).view(8, 3))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of 20 images in ``shards``, and one file of each kind. Read only."""
    folder = tmp_path_factory.mktemp("models")
    write_source_tar(folder / "val.tar", range(1, 21), side=16)
    with open_source(folder / "val.tar", allow_partial=True) as source:
        write_shards(source, LocalStore(folder / "shards"))
    _write_onnx(folder)
    _write_others(folder)
    _write_torch(folder)
    return folder


def _write_onnx(folder: Path) -> None:
    nan = np.full((3, 1000), np.nan, dtype=np.float32)
    save_onnx(folder / "good.onnx")
    save_onnx(folder / "two.onnx", second_input=True)
    save_onnx(folder / "grey.onnx", ("b", 1, 32, 32), matrix=MATRIX[:1])
    save_onnx(folder / "layout.onnx", ("b", 3, "h", 3))
    save_onnx(folder / "open.onnx", ("b", "c", "h", "w"))
    save_onnx(folder / "outputs.onnx", outputs=("a", "b"))
    save_onnx(folder / "classes.onnx", matrix=MATRIX[:, :999])
    save_onnx(folder / "background.onnx", matrix=np.concatenate([MATRIX[:, :1], MATRIX], axis=1))
    save_onnx(folder / "nan.onnx", matrix=nan)
    save_onnx(folder / "pixels.onnx", dtype="UINT8")
    save_onnx(folder / "int8_input.onnx", dtype="INT8")
    save_onnx(folder / "lost.onnx", external="lost.bin")
    (folder / "lost.bin").unlink()
    save_onnx(folder / "outside.onnx", external="far.bin")
    data = (folder / "outside.onnx").read_bytes()
    (folder / "outside.onnx").write_bytes(data.replace(b"far.bin", b"../f.bi"))
    _write_small_onnx(folder)
    good = (folder / "good.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(good[: len(good) // 2])
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "text.onnx").write_text("not a model\n" * 99)
    (folder / "page.onnx").write_text("<!DOCTYPE html><title>Sign in</title>")
    (folder / "folder.onnx").mkdir()
    write_lfs_pointer(folder / "lfs.onnx")


def _write_small_onnx(folder: Path) -> None:
    """Models whose input is no image."""
    import onnx
    from onnx import TensorProto, helper

    for name, kind, shape in (
        ("flat", TensorProto.FLOAT, ("b", 1000)), ("text_input", TensorProto.STRING, ("b", 3, 8, 8))
    ):  # fmt: skip
        ports = [helper.make_tensor_value_info(port, kind, shape) for port in "xy"]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ports[:1], ports[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save_model(model, folder / f"{name}.onnx")


def _write_others(folder: Path) -> None:
    nan = np.full((3, 1000), np.nan, dtype=np.float32)
    save_tflite(folder / "good.tflite")
    save_tflite(folder / "two.tflite", second_input=True)
    save_tflite(folder / "classes.tflite", matrix=MATRIX[:, :999])
    save_tflite(folder / "nan.tflite", matrix=nan)
    data = (folder / "good.tflite").read_bytes()
    (folder / "cut.tflite").write_bytes(data[: len(data) // 2])
    (folder / "text.tflite").write_text("not a model\n" * 99)
    for name in ("good", "cut", "nobin", "otherbin"):
        save_openvino(folder / f"{name}.xml")
    save_openvino(folder / "layout.xml", (-1, -1, -1, -1))
    save_openvino(folder / "nan.xml", matrix=nan)
    text = (folder / "good.xml").read_text()
    (folder / "cut.xml").write_text(text[: len(text) // 2])
    (folder / "nobin.bin").unlink()
    (folder / "otherbin.bin").write_bytes(b"1234")
    (folder / "text.xml").write_text("not a model\n")


def _write_torch(folder: Path) -> None:
    torch.save(torch.nn.Linear(3, 4).state_dict(), folder / "weights.pt")
    torch.jit.script(TwoInputs()).save(folder / "two.ts")  # type: ignore[no-untyped-call]
    torch.jit.script(Fixed()).save(folder / "fixed.ts")  # type: ignore[no-untyped-call]
    torch.jit.script(Fixed()).save(folder / "good.ts")  # type: ignore[no-untyped-call]
    (folder / "cut.ts").write_bytes((folder / "good.ts").read_bytes()[:1500])
    torch.export.save(torch.export.export(Fixed().eval(), (torch.zeros(8, 3, 224, 224),)), folder / "fixed.pt2")
    with zipfile.ZipFile(folder / "compiled.pt2", "w") as archive:
        archive.writestr("m/data/aotinductor/model/a.wrapper.so", "no machine code")
        archive.writestr("m/data/aotinductor/model/a.wrapper_metadata.json", '{"AOTI_MACHINE": "riscv64"}')
    (folder / "model.engine").write_bytes(b"x")


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return what tells whether a file was changed, for all files below a folder."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


@pytest.mark.parametrize(("options", "code", "phrase"), BAD_MODELS, ids=[options for options, _, _ in BAD_MODELS])
def test_a_bad_model_is_one_line_and_changes_nothing(
    options: str, code: int, phrase: str, folder: Path, run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exit code, nothing on stdout, one line on stderr that names the fault; every file is as it was."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = state(folder)
    expect_one_line(
        run("eval", "shards", "-m", *options.split(), *([] if "--device" in options else ["--device", "cpu"]), "-q"),
        code,
        phrase,
    )
    assert state(folder) == before


def test_good_models_of_the_same_folder_are_evaluated(
    folder: Path, run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faults are what is refused, not the way the files are made."""
    monkeypatch.chdir(folder)
    for name in ("good.onnx", "pixels.onnx", "good.tflite", "good.xml"):
        assert run("eval", "shards", "-m", name, "-q", "-b", "8").code == 0
    assert run("eval", "shards", "-m", "good.ts", "-q", "-b", "8", "--img-size", "32").code == 0


def test_the_table_is_large_and_names_no_case_twice() -> None:
    """At least 40 command lines."""
    commands = [options for options, _, _ in BAD_MODELS]
    assert len(set(commands)) == len(commands) >= 40
