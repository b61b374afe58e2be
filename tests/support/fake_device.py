"""A device that exists as a clock only: work queues up on it, and its time and the host's pass as the test says.

Tensors on it are CPU tensors that know which calls make a real host wait: reading a value, copying to the host without
`non_blocking` or into memory that is not pinned, indexing by a mask. What is copied without waiting reaches the host's
memory only when the host's time has come that far, and is nonsense before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

NONSENSE = 77
DEVICE = torch.device("cuda", 0)  # as code sees it; no such device is used
_ASKED_OF_THE_HOST = {  # calls that return no tensor, and for which no device is asked
    "__get__", "__len__", "__repr__", "data_ptr", "dim", "element_size", "is_contiguous", "is_floating_point", "numel",
    "size", "stride",
}  # fmt: skip
_WAITS = {"cpu", "nonzero", "masked_select", "unique", "argwhere"}


class DeviceClock:
    """The time of a host and of a device with one queue, in seconds.

    Attributes:
        host_s: Now, for the host.
        free_s: When the device has done all that is queued.
        idle_s: How long the device had nothing to do between two pieces of work.
        waited_s: How long the host waited for the device.
        fail_at: Time from which the device fails, and waiting for it raises an error.
    """

    def __init__(self) -> None:
        self.host_s = self.free_s = self.idle_s = self.waited_s = 0.0
        self.fail_at = float("inf")
        self._began = False
        self._arrivals: list[tuple[float, Callable[[], object]]] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give torch the device's stream, and memory that counts as pinned."""
        real_empty = torch.empty

        def empty(*size: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
            made: torch.Tensor = real_empty(*size, **options)
            made.pinned_for_test = pin_memory  # type: ignore[attr-defined]
            return made

        monkeypatch.setattr(torch, "empty", empty)
        monkeypatch.setattr(torch.accelerator, "current_stream", lambda device=None: self if device else None)

    def host_works(self, seconds: float) -> None:
        self.host_s += seconds
        for arrival in [one for one in self._arrivals if one[0] <= self.host_s]:
            self._arrivals.remove(arrival)
            arrival[1]()

    def queue(self, seconds: float = 0.0, *, on_arrival: Callable[[], object] | None = None) -> None:
        """Queue work on the device; `on_arrival` happens when the host's time is that of its end."""
        start = max(self.host_s, self.free_s)
        self.idle_s += start - self.free_s if self._began else 0.0
        self._began, self.free_s = True, start + seconds
        if on_arrival is not None:
            self._arrivals.append((self.free_s, on_arrival))
            self.host_works(0.0)

    def wait_until(self, time_s: float) -> None:
        """Let the host wait for what the device has done by `time_s`."""
        if time_s >= self.fail_at:
            raise RuntimeError("CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert' in ...")
        self.waited_s += max(0.0, time_s - self.host_s)
        self.host_works(max(0.0, time_s - self.host_s))

    def put(self, values: torch.Tensor, *, seconds: float = 0.0) -> torch.Tensor:
        """Return a tensor on the device that it computes in so many seconds."""
        self.queue(seconds)
        return _on_device(values, self)

    def record_event(self) -> FakeEvent:
        """Return the event after all that is queued now; as the method of a stream."""
        return FakeEvent(self)


class FakeEvent:
    """The end of what was queued when it was made."""

    def __init__(self, clock: DeviceClock) -> None:
        self._clock, self._time_s = clock, clock.free_s

    def query(self) -> bool:
        return self._clock.host_s >= self._time_s

    def synchronize(self) -> None:
        self._clock.wait_until(self._time_s)


class OnDevice(torch.Tensor):
    """A tensor on the device of a clock."""

    clock: DeviceClock

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        name, options = func.__name__, kwargs or {}
        clock = next(value.clock for value in [*args, *options.values()] if isinstance(value, OnDevice))
        if name == "copy_" and not isinstance(args[0], OnDevice):
            return _copy_to_host(
                args[0], args[1].clock, _plain(args[1]), non_blocking=options.get("non_blocking", False)
            )
        result = func(*map(_plain, args), **{key: _plain(value) for key, value in options.items()})
        if not isinstance(result, torch.Tensor | tuple):
            if name not in _ASKED_OF_THE_HOST:
                clock.wait_until(clock.free_s)
            return result
        by_mask = name == "__getitem__" and isinstance(args[1], torch.Tensor) and args[1].dtype == torch.bool
        to_host = name == "cpu" or (name == "to" and "cpu" in str([*args[1:], *options.values()]))
        clock.queue()
        if by_mask or to_host or name in _WAITS:
            clock.wait_until(clock.free_s)
        return result if to_host else _all_on_device(result, clock)


def _copy_to_host(host: torch.Tensor, clock: DeviceClock, values: torch.Tensor, *, non_blocking: bool) -> torch.Tensor:
    if non_blocking and getattr(host, "pinned_for_test", False):
        values = values.clone()  # as of this place in the queue
        host.fill_(NONSENSE)
        clock.queue(on_arrival=lambda: host.copy_(values))
        return host
    clock.queue()
    clock.wait_until(clock.free_s)
    return host.copy_(values)


def _plain(value: Any) -> Any:
    return value.as_subclass(torch.Tensor) if isinstance(value, OnDevice) else value


def _on_device(values: torch.Tensor, clock: DeviceClock) -> OnDevice:
    found = values.as_subclass(OnDevice)
    found.clock = clock
    return found


def _all_on_device(result: Any, clock: DeviceClock) -> Any:
    if isinstance(result, torch.Tensor):
        return _on_device(result, clock)
    made = [_on_device(value, clock) if isinstance(value, torch.Tensor) else value for value in result]
    return type(result)(made)
