"""A small model in a TensorFlow Lite file, built by the schema that comes with LiteRT: the scores are of `MATRIX`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from support.exported import MATRIX

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["save_tflite"]


def save_tflite(
    path: Path,
    shape: tuple[int, ...] = (-1, 32, 32, 3),
    *,
    dtype: str = "float32",
    scale: float = 0.0,
    zero_point: int = 0,
    matrix: npt.NDArray[Any] = MATRIX,
    second_input: bool = False,
) -> str:
    """Write a TensorFlow Lite model.

    Args:
        path: The file.
        shape: Of the input, B x H x W x 3; -1 is a size of any number.
        dtype: Of the input: float32, uint8 or int8.
        scale: Of quantised integers; 0 for plain ones, which are cast.
        zero_point: Of quantised integers.
        matrix: From the mean colour to the scores.
        second_input: Add an input that is not used.
    """
    graph = _Graph()
    image = real = graph.tensor("image", shape, dtype)
    if scale:
        graph.quantize(image, scale, zero_point)
    if dtype != "float32":
        real = graph.tensor("real", shape, "float32")
        graph.operator("Dequantize" if scale else "Cast", [image], real)
    axes = graph.tensor("axes", (2,), "int32", np.array([1, 2], dtype=np.int32))
    mean = graph.tensor("mean", (shape[0], 3), "float32")
    graph.operator("Mean", [real, axes], mean, options="Reducer")
    weights = graph.tensor("matrix", matrix.T.shape, "float32", np.ascontiguousarray(matrix.T))
    scores = graph.tensor("scores", (shape[0], matrix.shape[1]), "float32")
    graph.operator("FullyConnected", [mean, weights, -1], scores)
    inputs = [image, graph.tensor("mask", (1, 4), "float32")] if second_input else [image]
    path.write_bytes(graph.encoded(inputs, [scores]))
    return str(path)


class _Graph:
    """Tensors and operators, by the object API of the schema."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.buffers: list[Any] = [schema.BufferT()]  # the first one is empty by convention
        self.tensors: list[Any] = []
        self.codes: list[Any] = []
        self.operators: list[Any] = []

    def tensor(self, name: str, shape: tuple[int, ...], dtype: str, data: npt.NDArray[Any] | None = None) -> int:
        made = self.schema.TensorT()
        made.name, made.shape, made.buffer = name, [max(size, 1) for size in shape], 0
        made.type = getattr(self.schema.TensorType, dtype.upper())
        if -1 in shape:
            made.shapeSignature = list(shape)
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), dtype=np.uint8)
            self.buffers.append(buffer)
            made.buffer = len(self.buffers) - 1
        self.tensors.append(made)
        return len(self.tensors) - 1

    def quantize(self, tensor: int, scale: float, zero_point: int) -> None:
        made = self.schema.QuantizationParametersT()
        made.scale, made.zeroPoint = [scale], [zero_point]
        self.tensors[tensor].quantization = made

    def operator(self, name: str, inputs: list[int], output: int, *, options: str = "") -> None:
        builtin = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in name)[1:]
        code = self.schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self.schema.BuiltinOperator, builtin.upper())
        code.version = 1
        self.codes.append(code)
        made = self.schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(self.codes) - 1, inputs, [output]
        kind = f"{options or name}Options"
        made.builtinOptions = getattr(self.schema, f"{kind}T")()
        made.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
        self.operators.append(made)

    def encoded(self, inputs: list[int], outputs: list[int]) -> bytes:
        import flatbuffers

        graph, model = self.schema.SubGraphT(), self.schema.ModelT()
        graph.inputs, graph.outputs, graph.tensors, graph.operators = inputs, outputs, self.tensors, self.operators
        model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, self.buffers, [graph], self.codes
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
