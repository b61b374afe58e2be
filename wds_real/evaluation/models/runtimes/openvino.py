"""OpenVINO models: an ``.xml`` file with its ``.bin``."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wds_real.data.distributed import threads_of_this_process
from wds_real.errors import ModelError
from wds_real.evaluation.models.base import LoadedModel, import_package
from wds_real.evaluation.models.model_file import file_digest
from wds_real.evaluation.models.runtimes.arrays import ArrayModel, Port, find_image_input, find_scores, loading

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["load_openvino"]

_DTYPES = {"f32": "float32", "f16": "float16", "f64": "float64", "u8": "uint8", "i8": "int8", "i32": "int32",
           "i64": "int64"}  # fmt: skip
_KIND = "an OpenVINO model"
_HINTS = {
    "weights": "The .bin file is cut, or belongs to another model.",
    "": "The file is cut, or no OpenVINO model, or of a newer version.",
}
_START = re.compile(rb"(\xef\xbb\xbf)?\s*<(\?xml|net)\b")


def load_openvino(path: str) -> LoadedModel:
    """Return the model in an ``.xml`` file and the ``.bin`` beside it, with the default preprocessing at its size.

    It runs on the CPU in float32, also where the processor has arithmetic of less precision. Extensions are not loaded.

    Raises:
        ModelError: openvino is not installed, the files are no whole OpenVINO model, or it does not take images and
            return scores.
        ModelRunError: memory ran out.
    """
    openvino = import_package("openvino", path, "pip install 'wds_real[openvino]'")
    weights = str(Path(path).with_suffix(".bin"))
    facts: dict[str, Any] = {"sha256": file_digest(path, _KIND)}
    with Path(path).open("rb") as file:
        if not _START.match(file.read(256)):  # openvino would try its readers of other formats
            raise ModelError(f"{path}: not XML, expected {_KIND}.")
    if not Path(weights).is_file():
        raise ModelError(f"{path}: its weights, {Path(weights).name}, are not beside it. Copy that file there too.")
    facts["weights_sha256"] = file_digest(weights, f"the weights of {path}")
    version = openvino.__version__.partition("-")[0]
    facts |= {"runtime": f"openvino {version}", "provider": "CPU"}
    with loading(path, "openvino", _HINTS):
        core = _core(openvino)
        model = core.read_model(path, weights)
        inputs, outputs = _ports(model.inputs), _ports(model.outputs)
    layout = _layout(openvino, model) if len(inputs) == 1 else ""
    image, output = find_image_input(path, inputs, layout=layout), find_scores(path, outputs)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads_of_this_process()}
    with loading(path, "openvino", _HINTS):
        compiled = core.compile_model(model, "CPU", settings)
        request = compiled.create_infer_request()
    module = ArrayModel(image, lambda array: request.infer([array], share_inputs=True)[output])
    accepts = image.accepts(("cpu",))
    return LoadedModel(path, module, accepts.transform(), accepts=accepts, facts=facts)


@functools.cache
def _core(openvino: Any) -> Any:  # noqa: ANN401 -- an untyped library
    """Return the process's only `Core`, which is never released.

    Its CPU plugin gives the thread that compiles a model another stack for signal handlers. Released on another thread,
    as the garbage collector may do, it unmaps that stack, but leaves it set. The next signal then ends the process
    (openvino 2026.4).
    """
    return openvino.Core()


def _ports(ports: Sequence[Any]) -> list[Port]:
    found = []
    for place, port in enumerate(ports):
        shape = port.get_partial_shape()
        sizes = tuple(size.get_length() if size.is_static else None for size in shape) if shape.rank.is_static else None
        dtype = port.get_element_type().get_type_name()
        found.append(Port(min(port.get_names(), default=str(place)), sizes, _DTYPES.get(dtype, dtype)))
    return found


def _layout(openvino: Any, model: Any) -> str:  # noqa: ANN401 -- an untyped library
    """Return the layout that the file declares, such as ``NCHW``; "" if it declares none."""
    text = openvino.layout_helpers.get_layout(model.inputs[0]).to_string()
    return "".join(re.findall(r"[A-Z]", text)) if "..." not in text else ""
