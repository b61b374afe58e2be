"""Read results back from an accelerator one batch late, so that the accelerator never waits for the host.

Work for an accelerator is queued. If the host waited for a batch's predictions before it queued the next batch, the
queue would be empty while the host records them. So the copy to the host is queued, too, behind the work that computes
the predictions, and the host waits for it once the next batch is in the queue:

    device   | batch 0 | batch 1 | batch 2 | batch 3 |
    host     q0 q1      f0 q2     f1 q3     f2         f3      q: queue a batch, f: finish one

On a CPU copies are synchronous, so each batch is finished at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Arriving", "HostCopies", "LateReadback"]


class Arriving(Protocol):
    """Results on their way to the host."""

    @property
    def arrived(self) -> bool:
        """Whether they have arrived, so that reading them does not wait."""
        ...


_Results = TypeVar("_Results", bound=Arriving)


class HostCopies:
    """Copies of tensors on the host, which are started without waiting for the device that computes the tensors.

    The copies have memory of their own: what a model does to its output in its next forward pass does not change them.

    Args:
        tensors: All on one device.
    """

    def __init__(self, *tensors: torch.Tensor) -> None:
        device = tensors[0].device
        self._event: torch.Event | None = None
        self._copies = tuple(_start_copy(tensor) for tensor in tensors)
        if device.type != "cpu":
            self._event = torch.accelerator.current_stream(device).record_event()

    @property
    def arrived(self) -> bool:
        """Whether `wait` would return at once."""
        return self._event is None or self._event.query()

    def wait(self) -> tuple[torch.Tensor, ...]:
        """Return the copies, once they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._copies


def _start_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Queue the copy of a tensor to the host; pinned memory is what lets the host go on meanwhile."""
    tensor = tensor.detach()
    on_device = tensor.device.type != "cpu"
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_device)
    return copy.copy_(tensor, non_blocking=on_device)


class LateReadback(Generic[_Results]):
    """Finishes the results of each batch when those of the next are queued, or at once where they have arrived.

    Args:
        finish: Takes the results of one batch, waits for them and records them; returns the number of its samples.
    """

    def __init__(self, finish: Callable[[_Results], int]) -> None:
        self._finish = finish
        self._in_flight: _Results | None = None

    def add(self, results: _Results) -> int:
        """Take the results of a batch that has just been queued, and finish those of the batch before.

        Returns:
            The number of samples that were finished.
        """
        num_samples = self.catch_up()
        self._in_flight = results
        return num_samples + (self.catch_up() if results.arrived else 0)

    def catch_up(self) -> int:
        """Finish what is in flight; return the number of its samples, 0 if there is nothing."""
        results, self._in_flight = self._in_flight, None
        return 0 if results is None else self._finish(results)
