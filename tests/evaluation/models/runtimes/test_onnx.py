"""ONNX files: the scores of the model, whatever its layout, dtype and batch size; what cannot be run is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from support.exported import MATRIX, expected_scores, save_onnx, write_lfs_pointer

from wds_real import EvalOptions, EvalTransform, ModelError, evaluate, load_model, open_dataset
from wds_real.evaluation.models.runtimes.onnx import provider_for

if TYPE_CHECKING:
    from pathlib import Path

onnxruntime = pytest.importorskip("onnxruntime", reason="needs pip install 'wds_real[onnx]'")
pytest.importorskip("onnx", reason="the files are made with onnx")

IMAGE = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [("b", 3, 32, 32), (2, 3, 32, 32), (8, 32, 32, 3), ("b", "h", "w", 3)])
def test_the_scores_are_the_models(shape: tuple[int | str, ...], tmp_path: Path) -> None:
    """Channels first or last, any batch or a fixed one: the scores are those of the matrix."""
    model = load_model(save_onnx(tmp_path / "m.onnx", shape))
    scores = model.module(IMAGE)
    torch.testing.assert_close(scores.double(), torch.from_numpy(expected_scores(IMAGE.numpy())), rtol=0, atol=1e-5)
    assert model.transform == (EvalTransform() if shape[1] == "h" else EvalTransform(32))


@pytest.mark.parametrize(
    ("dtype", "torch_dtype", "tolerance"),
    [("FLOAT16", torch.float16, 5e-3), ("DOUBLE", torch.float64, 1e-5), ("UINT8", torch.uint8, 1e-3)],
)
def test_the_input_has_the_dtype_of_the_file(
    dtype: str, torch_dtype: torch.dtype, tolerance: float, packed: Path, tmp_path: Path
) -> None:
    """The loop gives float16 and float64 normalised, and uint8 as pixels; float16 scores are taken."""
    model = load_model(save_onnx(tmp_path / "m.onnx", dtype=dtype))
    assert model.accepts is not None
    assert model.accepts.dtype == torch_dtype
    assert model.takes_pixels == (dtype == "UINT8")
    image = (IMAGE * 255).to(torch_dtype) if model.takes_pixels else IMAGE.to(torch_dtype)
    scores = torch.from_numpy(expected_scores(image.double().numpy()))
    torch.testing.assert_close(model.module(image).double(), scores, rtol=0, atol=tolerance)
    result = evaluate(model, open_dataset(packed), options=EvalOptions(batch_size=50, device="cpu"))
    assert result.coverage.seen_once == 120
    assert ("mean" in result.preprocessing) == (dtype != "UINT8")


def test_a_result_names_file_runtime_and_provider(packed: Path, tmp_path: Path) -> None:
    """What the scores may depend on is in result.json; another file is another run."""
    path = save_onnx(tmp_path / "m.onnx")
    output = tmp_path / "run"
    evaluate(load_model(path), open_dataset(packed), options=EvalOptions(batch_size=64, device="cpu"), output=output)
    assert json.loads((output / "result.json").read_text())["model"] == {
        "name": path,
        "sha256": hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest(),
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "provider": "CPUExecutionProvider",
    }


def test_predictions_do_not_depend_on_the_batch_size_of_the_run(packed: Path, tmp_path: Path) -> None:
    """A model of batches of 7 gives the same answers under -b 1, 32 and 64."""
    model, found = load_model(save_onnx(tmp_path / "m.onnx", (7, 3, 32, 32))), set()
    for size in (1, 32, 64):
        output = tmp_path / str(size)
        options = EvalOptions(batch_size=size, device="cpu")
        evaluate(model, open_dataset(packed), options=options, output=output)
        found.add((output / "predictions.csv").read_bytes())
    assert len(found) == 1


def test_weights_in_a_second_file_belong_to_the_identity(tmp_path: Path) -> None:
    """Their digest is a fact too: the same graph with other weights is another model."""
    path = save_onnx(tmp_path / "m.onnx", external="weights.bin")
    model = load_model(path)
    torch.testing.assert_close(
        model.module(IMAGE).double(), torch.from_numpy(expected_scores(IMAGE.numpy())), rtol=0, atol=1e-5
    )
    digest = hashlib.sha256((tmp_path / "weights.bin").read_bytes()).hexdigest()
    assert model.identity()["weights_sha256"] == {"weights.bin": digest}
    save_onnx(tmp_path / "n.onnx", external="weights.bin", matrix=MATRIX * 2)
    assert load_model(path).identity() != model.identity()


def test_weights_that_are_not_beside_the_file(tmp_path: Path) -> None:
    """A missing file is named."""
    path = save_onnx(tmp_path / "m.onnx", external="weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"m\.onnx: its weights are in 'weights\.bin', which is not beside it\."):
        load_model(path)


@pytest.mark.parametrize("place", ["../other.bin", "/etc/hostnam"])
def test_weights_outside_the_folder_are_not_read(place: str, tmp_path: Path) -> None:
    """A file that points elsewhere is refused before the runtime sees it."""
    path = tmp_path / "sub" / "m.onnx"
    path.parent.mkdir()
    save_onnx(path, external="weights12345"[: len(place)])
    path.write_bytes(path.read_bytes().replace(b"weights12345"[: len(place)], place.encode()))
    with pytest.raises(ModelError, match="outside its folder"):
        load_model(str(path))


def test_a_model_without_a_right_provider_runs_on_the_cpu() -> None:
    """The provider is that of the device's type, where this onnxruntime has it."""
    assert provider_for("cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"]) == "CUDAExecutionProvider"
    assert provider_for("cuda", ["MIGraphXExecutionProvider"]) == "MIGraphXExecutionProvider"
    for device in ("cpu", "mps", "xpu", "cuda"):
        assert provider_for(device, ["AzureExecutionProvider", "CPUExecutionProvider"]) == "CPUExecutionProvider"


def test_damaged_files_and_what_is_none(tmp_path: Path) -> None:
    """Each is one line that names the file and what it is."""
    whole = save_onnx(tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    write_lfs_pointer(tmp_path / "lfs.onnx")
    for name, content, message in (
        ("cut", data[: len(data) // 2], r"onnxruntime cannot load it: .*cut"),
        ("text", b"not a model" * 99, "is no ONNX model"),
        ("zeros", bytes(999), "is no ONNX model"),
        ("empty", b"", "the file is empty"),
        ("page", b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
        ("lfs", (tmp_path / "lfs.onnx").read_bytes(), "git lfs pull"),
    ):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name}\.onnx: .*{message}") as caught:
            load_model(str(tmp_path / f"{name}.onnx"))
        assert "\n" not in str(caught.value)
    assert load_model(whole).accepts is not None


def test_operators_of_other_libraries_are_not_loaded(tmp_path: Path) -> None:
    """A model with an operator of its own is refused: no library is looked for."""
    import onnx
    from onnx import TensorProto, helper

    path = tmp_path / "m.onnx"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("b", 3, 8, 8)) for name in "xy"]
    node = helper.make_node("Run", ["x"], ["y"], domain="com.example")
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.example", 1)]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(ModelError, match=r"com\.example:Run.* Libraries of custom operators are never loaded\."):
        load_model(str(path))


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"onnxruntime is not installed .* pip install 'wds_real\[onnx\]'"):
        load_model(str(tmp_path / "m.onnx"))
