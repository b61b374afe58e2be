"""Which device a rank takes: the accelerator that is there, not the one that torch was built for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from wds_real import ModelError, Normalize, default_device
from wds_real.evaluation.device import open_device

if TYPE_CHECKING:
    from collections.abc import Callable

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


def pixels(batch: int) -> torch.Tensor:
    """uint8 (B, 3, 5, 7) in channels-last memory, as the loader gives it."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 5, 7, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_are_normalised_into_the_layout_that_the_model_takes(channels_last: bool) -> None:
    """The values are those of the formula to the last bit, the memory is contiguous in the chosen order."""
    normalize = Normalize(MEAN, STD, device=torch.device("cpu"), channels_last=channels_last)
    image = pixels(4)
    mean, std = (torch.tensor([255 * value for value in values]).view(1, 3, 1, 1) for values in (MEAN, STD))
    found = normalize(image)
    assert torch.equal(found, (image.float() - mean) / std)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert found.is_contiguous(memory_format=memory_format)


def test_the_memory_of_an_input_is_reused_once_it_is_free() -> None:
    """An input that is still referred to, by a view too, keeps its values; a free one gives its memory to the next."""
    normalize = Normalize(MEAN, STD, device=torch.device("cpu"))
    image = pixels(2)
    first = normalize(image)
    place, kept, values = first.data_ptr(), first[0], first.clone()
    second = normalize(255 - image)
    assert second.data_ptr() != place
    assert torch.equal(first, values)
    del first
    assert normalize(255 - image).data_ptr() != place
    assert torch.equal(kept, values[0])
    del kept
    assert normalize(image).data_ptr() == place


def test_images_that_are_floats_pass_unchanged() -> None:
    """A transform that gives floats has normalised them."""
    image = torch.rand(2, 3, 5, 7)
    assert Normalize(MEAN, STD, device=torch.device("cpu"))(image) is image


@pytest.mark.parametrize("name", ["abacus", "cpu:x", "", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    """A name that torch does not know, and a device that this machine lacks, are a ModelError with the name."""
    with pytest.raises(ModelError, match=f"^device {name}: "):
        open_device(name)


def test_a_device_is_opened_by_its_name() -> None:
    """None means the default device."""
    assert open_device("cpu") == torch.device("cpu")
    assert open_device(None) == default_device()
