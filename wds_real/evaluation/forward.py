"""The forward pass: normalise, run the model in its dtype, under autocast or compiled."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import torch

from wds_real.errors import ModelError
from wds_real.evaluation.device import open_device
from wds_real.evaluation.failures import model_errors
from wds_real.evaluation.models.pt2.torchscript import TorchScript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wds_real.evaluation.device import Normalize
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.evaluation.options import EvalOptions
    from wds_real.evaluation.progress.stopwatch import ModelStopwatch

__all__ = ["choose_device", "input_dtype", "place", "prepare_forward"]

_INPUT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def choose_device(loaded: LoadedModel, options: EvalOptions) -> torch.device:
    """Return the device of `options`; without one, this rank's accelerator if the model runs there, else the CPU.

    Raises:
        ModelError: there is no such device.
    """
    device = open_device(options.device)
    runs_here = loaded.accepts is None or loaded.accepts.devices is None or device.type in loaded.accepts.devices
    return device if runs_here or options.device is not None else torch.device("cpu")


def place(loaded: LoadedModel, device: torch.device, options: EvalOptions) -> LoadedModel:
    """Return the model as its source prepares it for a device.

    Raises:
        ModelError: the model does not run on the device, or an option is for models that torch runs.
    """
    runtime = loaded.facts.get("runtime")
    for option in ("amp", "torchcompile", "channels_last") if runtime is not None else ():
        if getattr(options, option):
            raise ModelError(
                f"{loaded.spec}: --{option.replace('_', '-')} is for models that torch runs; {runtime} runs this one "
                "as its file says. Leave the option out."
            )
    if options.torchcompile and isinstance(loaded.module, TorchScript):
        raise ModelError(f"{loaded.spec}: --torchcompile compiles no TorchScript programs. Leave the option out.")
    devices = None if loaded.accepts is None else loaded.accepts.devices
    if devices is not None and device.type not in devices:
        words = " or ".join(devices)
        raise ModelError(f"{loaded.spec}: runs on {words} here, not on {device.type}: --device {devices[0]}.")
    return loaded if loaded.place is None else loaded.place(device)


def input_dtype(loaded: LoadedModel) -> torch.dtype:
    """Return the dtype of a model's input: an exported program's own, else that of a module's first parameter.

    Without floating-point parameters, the first such buffer counts; a function takes float32.
    """
    if loaded.accepts is not None:
        return loaded.accepts.dtype
    if not isinstance(loaded.module, torch.nn.Module):
        return torch.float32
    tensors = itertools.chain(loaded.module.parameters(), loaded.module.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.dtype in _INPUT_DTYPES), torch.float32)


def prepare_forward(
    loaded: LoadedModel, normalize: Normalize, device: torch.device, options: EvalOptions, stopwatch: ModelStopwatch
) -> Callable[[torch.Tensor], Any]:
    """Return a function from a batch's image on `device` to the model's output; a module is moved there, in eval mode.

    The function raises `ModelRunError` for what the model raises.

    Raises:
        ModelError: a function is given that uses a module in training mode.
        ModelRunError: memory ran out, or the model cannot be moved or compiled.
    """
    model, dtype = loaded.module, input_dtype(loaded)
    _check_not_training(model)
    if isinstance(model, torch.nn.Module):
        with model_errors(f"moving the model to {device}", batch_size=None):
            model = _in_eval_mode(model).to(device)
            if options.channels_last:
                model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
    if options.torchcompile:
        model = torch.compile(model)
    memory_format = torch.channels_last if options.channels_last else torch.contiguous_format
    amp_dtype = getattr(torch, options.amp_dtype)

    def forward(image: torch.Tensor) -> Any:  # noqa: ANN401 -- whatever the model returns
        what = f"the model, given {_shape(image)} {str(dtype).removeprefix('torch.')},"
        with model_errors(what, batch_size=len(image)):
            with stopwatch.normalizing(device):
                pixels = image if loaded.takes_pixels else normalize(image).to(dtype)
                pixels = pixels.contiguous(memory_format=memory_format)
                if pixels.data_ptr() == image.data_ptr():  # other models get the same batch, so none may change it
                    pixels = pixels.clone()
            with torch.autocast(device.type, dtype=amp_dtype, enabled=options.amp):
                return model(pixels)

    return forward


def _in_eval_mode(model: torch.nn.Module) -> torch.nn.Module:
    try:
        return model.eval()
    except NotImplementedError:  # a module from torch.export keeps the mode in which it was exported
        return model


def _shape(image: torch.Tensor) -> str:
    return " x ".join(map(str, image.shape))


def _check_not_training(model: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Refuse a function that uses a module in training mode, if that has dropout or BatchNorm."""
    if isinstance(model, torch.nn.Module):
        return
    for module in _modules_of(model):
        for part in module.modules():
            dropped = getattr(part, "p", getattr(part, "drop_prob", 0)) if "Drop" in type(part).__name__ else 0
            if part.training and (dropped or isinstance(part, torch.nn.modules.batchnorm._BatchNorm)):  # noqa: SLF001 -- the base of all
                raise ModelError(
                    f"the function uses a module in training mode ({type(part).__name__} is active), so its "
                    "predictions change from run to run. Call its eval() first, or give the module itself."
                )


def _modules_of(function: object) -> Iterator[torch.nn.Module]:
    """Yield the modules that a function is bound to, has captured or has as an argument."""
    held = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    held += [getattr(function, "__self__", None), *getattr(function, "__dict__", {}).values()]
    if isinstance(function, functools.partial):
        held += [function.func, *function.args, *function.keywords.values()]
    yield from (value for value in held if isinstance(value, torch.nn.Module))
