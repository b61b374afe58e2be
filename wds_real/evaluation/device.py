"""Choose the device of this process, copy batches to it, and normalise pixels into model input."""

from __future__ import annotations

import itertools
import platform
from typing import TYPE_CHECKING

import torch

from wds_real.data.distributed import current_world
from wds_real.errors import ModelError
from wds_real.storage.buffers import Buffers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from wds_real.data.batch import Batch

__all__ = ["Normalize", "default_device", "device_name", "on_device", "open_device"]

_KEPT_INPUTS = 2  # the one that the model uses, and one more


class Normalize:
    """uint8 pixels to a model's input: ``(x / 255 - mean) / std``, float32, on the pixels' device.

    Floating-point images pass unchanged: a custom transform that returns them has normalised them.

    On a CPU the result is computed in place, in memory that is reused once nothing refers to it, and in the layout that
    the model gets: allocation and a later change of the layout would take several times as long as the arithmetic.

    Args:
        mean: Per channel, of values in 0..1.
        std: As `mean`.
        device: Of the pixels.
        channels_last: Whether the result on a CPU has channels-last memory.
        memory: For the results on a CPU; instances that run in turn can share it. None means memory of its own.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        device: torch.device,
        channels_last: bool = False,
        memory: Buffers | None = None,
    ) -> None:
        # The product is computed in float64, so that 127 / 255 * 255 is 127 in float32.
        scale = torch.tensor([255.0], dtype=torch.float64)
        self._mean = (torch.tensor(mean, dtype=torch.float64) * scale).float().view(1, -1, 1, 1).to(device)
        self._std = (torch.tensor(std, dtype=torch.float64) * scale).float().view(1, -1, 1, 1).to(device)
        self._channels_last = channels_last
        self._memory = memory or Buffers(max_kept=_KEPT_INPUTS)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return float (B, 3, H, W)."""
        if image.is_floating_point():
            return image
        pixels = self._allocate(image).copy_(image) if image.device.type == "cpu" else image.float()
        return pixels.sub_(self._mean).div_(self._std)

    def _allocate(self, image: torch.Tensor) -> torch.Tensor:
        """Return uninitialized float32 memory of the shape of `image`."""
        batch, channels, height, width = image.shape
        memory = self._memory.take(image.numel() * torch.float32.itemsize)
        pixels = torch.frombuffer(memory, dtype=torch.float32)
        if self._channels_last:
            return pixels.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return pixels.view(batch, channels, height, width)


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yield each batch with its image on `device`; the next batch is copied to an accelerator meanwhile.

    The copy runs on a side stream from pinned memory, so it overlaps the model's work on the previous batch.
    """
    if device.type == "cpu":
        for batch in batches:
            yield batch, batch.image
        return
    side = torch.Stream(device)
    copying: tuple[Batch, torch.Tensor, torch.Event] | None = None
    following: Batch | None
    for following in itertools.chain(batches, [None]):
        ready, copying = copying, None
        if following is not None:
            with side:
                copying = (following, following.image.to(device, non_blocking=True), side.record_event())
        if ready is not None:
            current = torch.accelerator.current_stream(device)
            current.wait_event(ready[2])
            ready[1].record_stream(current)  # keeps its memory until the model has used it
            yield ready[0], ready[1]


def default_device() -> torch.device:
    """Return this rank's accelerator, or the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)  # torch may be built for an absent one
    if accelerator is None:
        return torch.device("cpu")
    # Where a launcher makes only one accelerator visible to each process, its number is 0.
    return torch.device(accelerator.type, current_world().local_rank % torch.accelerator.device_count())


def open_device(name: str | None) -> torch.device:
    """Return the device of this name, after allocating a tensor on it; None means `default_device`.

    Raises:
        ModelError: torch does not know the name, was built without such devices, or does not find this one.
    """
    if name is None:
        return default_device()
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        text = next(iter(str(error).splitlines()), "")
        raise ModelError(f"device {name}: {text} Expected cpu, cuda, cuda:1, ... (--device).") from error


def device_name(device: torch.device) -> str:
    """Return the name of a device for a result."""
    return platform.machine() if device.type == "cpu" else str(device)
