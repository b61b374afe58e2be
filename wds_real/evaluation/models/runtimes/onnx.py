"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from wds_real.data.distributed import threads_of_this_process
from wds_real.errors import ModelError
from wds_real.evaluation.models.base import LoadedModel, import_package
from wds_real.evaluation.models.model_file import file_digest
from wds_real.evaluation.models.runtimes.arrays import ArrayModel, Port, find_image_input, find_scores, loading

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

__all__ = ["load_onnx", "provider_for"]

_DTYPES = {"float": "float32", "double": "float64"}
_CPU = "CPUExecutionProvider"
_PROVIDERS = {"cuda": ("CUDAExecutionProvider", "MIGraphXExecutionProvider", "ROCMExecutionProvider")}
_HINTS = {
    "is not a registered": "Libraries of custom operators are never loaded.",
    "opset": "Export it for an earlier opset, or install a newer onnxruntime.",
    "xternal data": "The files of its weights must lie beside it, whole.",
    "Protobuf parsing": "The file is cut, or is no ONNX model.",
    "": "Export it again, and run onnx.checker.check_model on it.",
}
# A field of TensorProto.external_data: key "location", value: the length, and the name of a file.
_LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x1f])")


def load_onnx(path: str) -> LoadedModel:
    """Return the model in an ``.onnx`` file, with the default preprocessing at the size of its input.

    Libraries of custom operators are not loaded, and no file outside the model's folder is read.

    Raises:
        ModelError: onnxruntime is not installed, the file is no whole ONNX model or its weights are not beside it, or
            it does not take images and return scores.
        ModelRunError: memory ran out.
    """
    onnxruntime = import_package("onnxruntime", path, "pip install 'wds_real[onnx]'")
    facts: dict[str, Any] = {"sha256": file_digest(path, "an ONNX model")}
    weights = _external_files(path)
    if weights:
        facts["weights_sha256"] = {name: file_digest(str(Path(path).parent / name), "weights") for name in weights}
    facts |= {"runtime": f"onnxruntime {onnxruntime.__version__}", "provider": _CPU}
    session = _session(onnxruntime, path, _CPU)
    image = find_image_input(path, _ports(session.get_inputs()))
    outputs = _ports(session.get_outputs())
    output = outputs[find_scores(path, outputs)].name
    available: list[str] = onnxruntime.get_available_providers()
    devices = ("cpu", *(device for device in _PROVIDERS if provider_for(device, available) != _CPU))
    accepts = image.accepts(devices)

    def run_by(session: Any) -> ArrayModel:  # noqa: ANN401 -- of onnxruntime, which is untyped
        return ArrayModel(image, lambda array: session.run([output], {image.name: array})[0])

    def place(device: torch.device) -> LoadedModel:
        provider = provider_for(device.type, available)
        if provider == _CPU:
            return loaded
        placed = _session(onnxruntime, path, provider, number=device.index or 0)
        return replace(loaded, module=run_by(placed), facts={**facts, "provider": placed.get_providers()[0]})

    loaded = LoadedModel(path, run_by(session), accepts.transform(), accepts=accepts, facts=facts, place=place)
    return loaded


def provider_for(device: str, available: Sequence[str]) -> str:
    """Return the execution provider for a type of device: the first one of it that this onnxruntime has, or the CPU's.

    >>> provider_for("cuda", ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"])
    'CUDAExecutionProvider'
    >>> provider_for("cuda", ["CPUExecutionProvider"])
    'CPUExecutionProvider'
    """
    return next((provider for provider in _PROVIDERS.get(device, ()) if provider in available), _CPU)


def _session(onnxruntime: Any, path: str, provider: str, *, number: int = 0) -> Any:  # noqa: ANN401 -- an untyped library
    """Return a session of one provider, whose results do not depend on the order in which threads finish."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads_of_this_process()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the threads that decode need the cores
    options.log_severity_level = 4  # what matters is raised too
    settings = {} if provider == _CPU else {"device_id": str(number)}
    with loading(path, "onnxruntime", _HINTS):
        return onnxruntime.InferenceSession(path, options, providers=[(provider, settings)])


def _ports(nodes: Sequence[Any]) -> list[Port]:
    ports = []
    for node in nodes:
        dtype = re.sub(r"^tensor\((\w+)\)$", r"\1", node.type)
        shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
        ports.append(Port(node.name, shape, _DTYPES.get(dtype, dtype)))
    return ports


def _external_files(path: str) -> list[str]:
    """Return the names of the files that hold weights of a model, as the model gives them.

    Raises:
        ModelError: one is not beside the model, or lies outside its folder.
    """
    data, names = Path(path).read_bytes(), set[str]()
    for match in _LOCATION.finditer(data):
        length = match[1][0] if len(match[1]) == 1 else match[1][0] - 128 + 128 * match[1][1]
        names.add(data[match.end() : match.end() + length].decode("utf-8", "backslashreplace"))
    for name in sorted(names):
        place = PurePosixPath(name.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts:
            raise ModelError(f"{path}: its weights are in {name!r}, outside its folder. Only files beside it are read.")
        if not (Path(path).parent / name).is_file():
            raise ModelError(f"{path}: its weights are in {name!r}, which is not beside it. Copy that file there too.")
    return sorted(names)
