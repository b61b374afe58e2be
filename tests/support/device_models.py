"""Models whose arithmetic depends on the device and the precision, that want more memory, or that note times.

With this folder in PYTHONPATH: ``-m device_models:conv_model``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from wds_real.synthetic import KnownAnswerModel, known_answer_model

if TYPE_CHECKING:
    from wds_real.image.transform import EvalTransform

FITS = 16  # images in a batch for which `HungryModel` finds memory; twice as many are too many


class ConvModel(torch.nn.Sequential):
    """A small net with fixed random weights: its scores are close, so that precision and order of sums matter."""

    def __init__(self, width: int = 32) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(
                torch.nn.Conv2d(3, width, 5, stride=2),
                torch.nn.InstanceNorm2d(width),
                torch.nn.ReLU(),
                torch.nn.Conv2d(width, 2 * width, 3, stride=2),
                torch.nn.InstanceNorm2d(2 * width),
                torch.nn.ReLU(),
                torch.nn.AdaptiveAvgPool2d(4),
                torch.nn.Flatten(),
                torch.nn.LayerNorm(32 * width),
                torch.nn.Linear(32 * width, 1000),
            )


class ConvolvedAnswer(torch.nn.Sequential):
    """The known-answer model behind a convolution that changes no pixel: its answers have a margin for rounding."""

    def __init__(self) -> None:
        unchanged = torch.nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            unchanged.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
        super().__init__(unchanged, KnownAnswerModel())


class HungryModel(KnownAnswerModel):
    """Asks in each pass for memory that is there for a batch of `FITS` images, and not for one of twice as many.

    On a CPU, where memory that is asked for is not yet taken, it raises the error itself.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the known scores."""
        if image.device.type != "cpu":
            torch.empty(
                len(image) * int(0.8 * free_memory(image.device) / FITS), dtype=torch.uint8, device=image.device
            )
        elif len(image) > FITS:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate more than there is.")
        return super().forward(image)


class TimedModel(torch.nn.Module):
    """Repeats a model `rounds` times, and notes when each forward pass begins and ends on the device.

    Attributes:
        spans: Begin and end of each pass, as `torch.Event` on an accelerator, else in seconds.
    """

    def __init__(self, model: torch.nn.Module, *, rounds: int = 1) -> None:
        super().__init__()
        self.model, self.rounds = model, rounds
        self.spans: list[tuple[Any, Any]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the model's scores."""
        began = _now(image.device)
        scores: torch.Tensor
        for _ in range(self.rounds):
            scores = self.model(image)
        self.spans.append((began, _now(image.device)))
        return scores

    def seconds(self) -> float:
        """Return the time from the first begin to the last end; the device must have come so far."""
        return _between(self.spans[0][0], self.spans[-1][1])

    def waiting_share(self) -> float:
        """Return the part of `seconds` that lies between two passes."""
        gaps = [_between(end, begin) for (_, end), (begin, _) in zip(self.spans, self.spans[1:], strict=False)]
        return sum(gaps) / self.seconds()


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on an accelerator."""
    module = torch.get_device_module(device)
    module.empty_cache()
    if hasattr(module, "mem_get_info"):
        return int(module.mem_get_info(device)[0])
    return int(module.recommended_max_memory())  # Apple's, which it shares with the host


def _now(device: torch.device) -> Any:
    if device.type == "cpu":
        return time.perf_counter()
    event = torch.Event(device, enable_timing=True)
    event.record()
    return event


def _between(begin: Any, end: Any) -> float:
    return end - begin if isinstance(begin, float) else float(begin.elapsed_time(end)) / 1e3


def conv_model() -> tuple[torch.nn.Module, EvalTransform]:
    """Return the model and a transform."""
    return ConvModel().eval(), known_answer_model()[1]


def hungry_model() -> tuple[torch.nn.Module, EvalTransform]:
    """Return the model and its transform."""
    return HungryModel(), known_answer_model()[1]
