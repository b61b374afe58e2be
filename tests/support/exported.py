"""Small models in the files of other runtimes: the mean colour of an image, times a matrix, gives 1,000 scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["MATRIX", "expected_scores", "save_onnx", "save_openvino", "write_lfs_pointer"]

MATRIX = np.random.default_rng(12).standard_normal((3, 1000)).astype(np.float32)


def expected_scores(image: npt.NDArray[Any], matrix: npt.NDArray[Any] = MATRIX) -> npt.NDArray[Any]:
    """Return the scores (B, K) of images (B, 3, H, W)."""
    found: npt.NDArray[Any] = image.astype(np.float64).mean(axis=(2, 3)) @ matrix.astype(np.float64)
    return found


def write_lfs_pointer(path: Path) -> None:
    """Write what git-lfs leaves in place of a file that was not fetched."""
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 18614167\n")


def save_onnx(
    path: Path,
    shape: tuple[int | str | None, ...] = ("batch", 3, 32, 32),
    *,
    dtype: str = "FLOAT",
    matrix: npt.NDArray[Any] = MATRIX,
    outputs: tuple[str, ...] = ("scores",),
    second_input: bool = False,
    external: str | None = None,
) -> str:
    """Write an ONNX model.

    Args:
        path: The file.
        shape: Of the input ``image``; the place of the 3 decides the layout.
        dtype: ONNX's name of the input's.
        matrix: From the mean colour to the scores.
        outputs: Names of the outputs, which are all alike.
        second_input: Add an input ``mask`` that is added to the images.
        external: Name of the file beside it for the weights.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind = getattr(TensorProto, dtype)
    ports = [helper.make_tensor_value_info("image", kind, shape)]
    channels_last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
    source = "image"
    nodes, weights = [], []
    if second_input:
        ports.append(helper.make_tensor_value_info("mask", kind, shape))
        nodes.append(helper.make_node("Add", ["image", "mask"], ["sum"]))
        source = "sum"
    if dtype != "FLOAT":
        nodes.append(helper.make_node("Cast", [source], ["real"], to=TensorProto.FLOAT))
        source = "real"
    axes = [1, 2] if channels_last else [2, 3]
    nodes.append(helper.make_node("ReduceMean", [source], ["mean"], axes=axes, keepdims=0))
    for name in outputs:
        weights.append(numpy_helper.from_array(matrix, f"{name}_matrix"))
        wanted = f"{name}_float" if dtype == "FLOAT16" else name
        nodes.append(helper.make_node("MatMul", ["mean", f"{name}_matrix"], [wanted]))
        if dtype == "FLOAT16":
            nodes.append(helper.make_node("Cast", [wanted], [name], to=TensorProto.FLOAT16))
    found = TensorProto.FLOAT16 if dtype == "FLOAT16" else TensorProto.FLOAT
    tables = [helper.make_tensor_value_info(name, found, (shape[0], matrix.shape[1])) for name in outputs]
    graph = helper.make_graph(nodes, "mean colour", ports, tables, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if external is None:
        onnx.save_model(model, path)
    else:
        onnx.save_model(model, path, save_as_external_data=True, location=external, size_threshold=0)
    return str(path)


def save_openvino(
    path: Path, shape: tuple[int, ...] = (-1, 3, 32, 32), *, layout: str = "", matrix: npt.NDArray[Any] = MATRIX
) -> str:
    """Write an OpenVINO model: ``.xml`` and ``.bin``; -1 in `shape` is a size of any number."""
    import openvino
    from openvino import opset13 as ops

    image = ops.parameter(openvino.PartialShape(list(shape)), np.float32, name="image")
    if layout:
        image.set_layout(openvino.Layout(layout))
    axes = [1, 2] if (shape[3] == 3 and shape[1] != 3) or layout == "NHWC" else [2, 3]
    mean = ops.reduce_mean(image, ops.constant(np.array(axes, dtype=np.int64)), keep_dims=False)
    model = openvino.Model(
        [ops.matmul(mean, ops.constant(matrix), transpose_a=False, transpose_b=False)], [image], "mean colour"
    )
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return str(path)
