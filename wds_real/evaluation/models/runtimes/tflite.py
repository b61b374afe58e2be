"""TensorFlow Lite files, run by LiteRT, its earlier packages or TensorFlow, whichever is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.data.distributed import threads_of_this_process
from wds_real.errors import ModelError
from wds_real.evaluation.models.base import LoadedModel, import_package
from wds_real.evaluation.models.model_file import file_digest
from wds_real.evaluation.models.runtimes.arrays import ArrayModel, Port, find_image_input, find_scores, loading

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from wds_real.image.transform import EvalTransform

    Array = npt.NDArray[Any]

__all__ = ["load_tflite"]

# The module with the Interpreter, and the distribution whose version it has, the preferred one first.
_RUNTIMES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
    ("tensorflow.lite.python.interpreter", "tensorflow"),
)
_IDENTIFIER = b"TFL3"  # bytes 4 to 8 of a TensorFlow Lite file
_HINTS = {
    "custom op": "Libraries of custom operators are never loaded.",
    "Flatbuffer": "The file is cut, or is no TensorFlow Lite model.",
    "": "Convert it again.",
}
_TO_PIXELS = {"uint8": 0, "int8": 128}  # what is added to a value of the type to give the pixel, 0..255


@dataclass(frozen=True, slots=True)
class _Quantization:
    """How real numbers are stored as integers: ``real = (stored - zero_point) * scale``."""

    scale: float
    zero_point: int
    dtype: np.dtype[Any]

    def store(self, real: Array) -> Array:
        limits = np.iinfo(self.dtype)
        stored = np.rint(real.astype(np.float64) / self.scale) + self.zero_point
        clipped: Array = np.clip(stored, limits.min, limits.max).astype(self.dtype)
        return clipped

    def real(self, stored: Array) -> Array:
        scores: Array = ((stored.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)
        return scores


def load_tflite(path: str) -> LoadedModel:
    """Return the model in a ``.tflite`` file, with the default preprocessing at its size.

    A quantised input gets normalised images, quantised by the scale and zero point of the file. With the default mean
    and std, each quantised value equals the pixel, or the pixel minus 128.

    Raises:
        ModelError: no runtime is installed, the file is no whole TensorFlow Lite model, or it does not take images and
            return scores.
        ModelRunError: memory ran out.
    """
    module, distribution = next(
        (names for names in _RUNTIMES if importlib.util.find_spec(names[0].partition(".")[0])), _RUNTIMES[0]
    )
    runtime = import_package(module, path, "pip install 'wds_real[tflite]'")
    facts = {"sha256": file_digest(path, "a TensorFlow Lite model")}
    facts |= {"runtime": f"{distribution} {importlib.metadata.version(distribution)}", "provider": "CPU"}
    content = Path(path).read_bytes()
    if content[4:8] != _IDENTIFIER:
        raise ModelError(f"{path}: not a TensorFlow Lite model: bytes 4 to 8 are not {_IDENTIFIER.decode()}.")
    with loading(path, distribution, _HINTS), _without_chatter():
        interpreter = runtime.Interpreter(model_content=content, num_threads=threads_of_this_process())
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    stored = _quantization(inputs[0]) if len(inputs) == 1 else None
    ports = [_port(details) for details in inputs]
    if stored is not None:
        ports = [replace(ports[0], dtype="float32")]
    image = find_image_input(path, ports)
    accepts = image.accepts(("cpu",))
    transform = accepts.transform()
    if stored is not None:
        transform = _of_pixels(transform, stored)
        facts["input"] = f"{stored.dtype.name}, scale {stored.scale:.9g}, zero point {stored.zero_point}"
    output = outputs[find_scores(path, [_port(details) for details in outputs])]
    with loading(path, distribution, _HINTS), _without_chatter():
        interpreter.allocate_tensors()
    run = _Run(interpreter, inputs[0]["index"], output["index"], stored, _quantization(output))
    return LoadedModel(path, ArrayModel(image, run), transform, accepts=accepts, facts=facts)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Drop what is written to stderr in the block: the runtime logs there which of its libraries it chose."""
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@dataclass(frozen=True, slots=True)
class _Run:
    """One call of the interpreter, with the conversions from and to quantised numbers."""

    interpreter: Any
    input: int
    output: int
    stored: _Quantization | None
    scores: _Quantization | None

    def __call__(self, array: Array) -> Array:
        details = self.interpreter.get_input_details()[0]
        if tuple(details["shape"]) != array.shape:
            self.interpreter.resize_tensor_input(self.input, array.shape)
            self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(self.input, array if self.stored is None else self.stored.store(array))
        self.interpreter.invoke()
        found: Array = self.interpreter.get_tensor(self.output)
        return found if self.scores is None or found.ndim < 2 else self.scores.real(found)


def _port(details: dict[str, Any]) -> Port:
    signature = details.get("shape_signature", details["shape"])
    shape = tuple(None if size < 0 else int(size) for size in signature)
    return Port(details["name"], shape, _dtype_name(details["dtype"]))


def _dtype_name(dtype: Any) -> str:  # noqa: ANN401 -- a NumPy type, or the class of a string
    return "string" if dtype in (bytes, str, np.bytes_, np.object_) else np.dtype(dtype).name


def _quantization(details: dict[str, Any]) -> _Quantization | None:
    """Return how the integers of an input or output stand for real numbers; None where they do not."""
    scales = details["quantization_parameters"]["scales"]
    if _dtype_name(details["dtype"]) not in ("uint8", "int8", "int16") or len(scales) != 1 or not scales[0] > 0:
        return None
    zero_point = int(details["quantization_parameters"]["zero_points"][0])
    return _Quantization(float(scales[0]), zero_point, np.dtype(details["dtype"]))


def _of_pixels(transform: EvalTransform, stored: _Quantization) -> EvalTransform:
    """Return the transform with the mean and std that quantise each pixel to itself, or to itself minus 128."""
    shift = _TO_PIXELS.get(stored.dtype.name)
    if shift is None:
        return transform
    mean, std = (stored.zero_point + shift) / 255, 1 / (255 * stored.scale)
    return replace(transform, mean=(mean, mean, mean), std=(std, std, std))
