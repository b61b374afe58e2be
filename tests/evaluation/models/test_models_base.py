"""Identities of models and names of callables: the same in every process, different where they must be."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import torch

from wds_real import LoadedModel
from wds_real.evaluation.models.base import as_loaded, name_of
from wds_real.synthetic import top5_of

if TYPE_CHECKING:
    from collections.abc import Callable


def test_identity_names_the_weights() -> None:
    """Equal weights have one digest, whatever their memory; another value, name, shape or dtype has another."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    identity = LoadedModel("a", module).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["name"] == "a"
    assert identity["num_parameters"] == 4 * 27 + 4 + 8
    same = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    same.load_state_dict(module.state_dict())
    same.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    assert LoadedModel("a", same.eval()).identity() == identity
    changes: list[Any] = [
        lambda m: m[0].weight.data.flatten()[5:6].add_(1e-6),
        lambda m: m[1].running_mean.add_(1),
        lambda m: m.half(),
        lambda m: m.append(torch.nn.Linear(1, 1)),
    ]
    for change in changes:
        other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        other.load_state_dict(module.state_dict())
        change(other)
        assert LoadedModel("a", other).identity()["weights_digest"] != identity["weights_digest"]


def test_names_tell_python_callables_apart_and_are_the_same_in_every_process() -> None:
    """Other arguments, other code and other captured values are other names; addresses are no part of one."""

    def prepare(image: object, size: int = 1, *, flip: bool = False) -> object:
        return image, size, flip

    def scaled(factor: int) -> Callable[[int], int]:
        return lambda value: value * factor

    different = [
        name_of(thing)
        for thing in (
            prepare, functools.partial(prepare, size=64), functools.partial(prepare, size=64, flip=True),
            scaled(2), scaled(3), lambda value: value, lambda value: -value,
        )
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert name_of(scaled(2)) == name_of(scaled(2))
    assert not any(" at 0x" in name for name in different)
    code = "from wds_real.evaluation.models.base import name_of; from wds_real.synthetic import top5_of; "
    code += "print(name_of(top5_of))"
    run = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert run[0].stdout == run[1].stdout == f"{name_of(top5_of)}\n"


def test_a_module_without_a_name_is_called_by_its_class() -> None:
    """Not by its whole text; what the weights do not show, such as an activation, still tells two runs apart."""
    modules = [
        torch.nn.Sequential(torch.nn.Linear(2, 2), activation) for activation in (torch.nn.ReLU(), torch.nn.GELU())
    ]
    modules[1].load_state_dict(modules[0].state_dict())
    relu, gelu = (as_loaded(module).identity() for module in modules)
    assert relu["name"] == gelu["name"] == "Sequential"
    assert relu["weights_digest"] == gelu["weights_digest"]
    assert relu != gelu
    assert as_loaded(modules[0]).identity() == relu
    assert as_loaded(loaded := LoadedModel("mine", modules[0])) is loaded
    assert as_loaded(torch.relu).spec == name_of(torch.relu)
