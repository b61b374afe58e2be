"""The forward pass: normalise, run the model under autocast or compiled, and return its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from wds_real.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from wds_real.evaluation.device import Normalize
    from wds_real.evaluation.options import EvalOptions

__all__ = ["prepare_forward"]


def prepare_forward(
    model: Callable[[torch.Tensor], torch.Tensor], normalize: Normalize, device: torch.device, options: EvalOptions
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from a batch's image on `device` to scores; a module is moved there, in eval mode."""
    if isinstance(model, torch.nn.Module):
        model = _in_eval_mode(model).to(device)
        if options.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    if options.torchcompile:
        model = torch.compile(model)
    memory_format = torch.channels_last if options.channels_last else torch.contiguous_format
    amp_dtype = getattr(torch, options.amp_dtype)

    def forward(image: torch.Tensor) -> torch.Tensor:
        pixels = normalize(image).contiguous(memory_format=memory_format)
        with torch.autocast(device.type, dtype=amp_dtype, enabled=options.amp):
            scores = model(pixels)
        if not isinstance(scores, torch.Tensor):
            raise ModelError(
                f"the model returned a {type(scores).__name__}, expected a tensor of scores (B, 1000). Wrap it in a "
                "function that returns the logits."
            )
        return scores

    return forward


def _in_eval_mode(model: torch.nn.Module) -> torch.nn.Module:
    try:
        return model.eval()
    except NotImplementedError:  # a module from torch.export keeps the mode in which it was exported
        return model
