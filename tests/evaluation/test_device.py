"""Which device a rank takes: the accelerator that is there, not the one that torch was built for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from wds_real import default_device

if TYPE_CHECKING:
    from collections.abc import Callable


def machine(built_for: str | None, devices: int) -> Callable[..., torch.device | None]:
    """Return a stand-in for `torch.accelerator.current_accelerator` on a machine with so many devices."""

    def current_accelerator(check_available: bool = False) -> torch.device | None:
        there = built_for is not None and (devices > 0 or not check_available)
        return torch.device(built_for) if there and built_for is not None else None

    return current_accelerator


@pytest.mark.parametrize(
    ("built_for", "devices", "local_rank", "expected"),
    [
        (None, 0, 0, "cpu"),
        ("cuda", 0, 0, "cpu"),  # torch as pip installs it on Linux, on a machine without a GPU
        ("cuda", 1, 0, "cuda:0"),
        ("cuda", 8, 5, "cuda:5"),
        ("cuda", 1, 5, "cuda:0"),  # the launcher shows each process its own device only
        ("xpu", 2, 1, "xpu:1"),
    ],
)
def test_each_rank_of_a_node_takes_a_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch, built_for: str | None, devices: int, local_rank: int, expected: str
) -> None:
    """The local rank counts them, and without one there is the CPU."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", machine(built_for, devices))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: devices)
    for name, value in {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": 8}.items():
        monkeypatch.setenv(name, str(value))
    assert default_device() == torch.device(expected)
