"""Checkpoints: which weights of the file, which prefixes, a model that they fit exactly, and nothing that is run."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from wds_real import LoadedModel, ModelError
from wds_real.evaluation.models.checkpoint import with_checkpoint


def network(num_classes: int = 5) -> torch.nn.Sequential:
    """Return a network with weights, biases and the buffers of a normalisation, different each time."""
    return torch.nn.Sequential(
        OrderedDict(
            conv=torch.nn.Conv2d(3, 4, 3), norm=torch.nn.BatchNorm2d(4), pool=torch.nn.AdaptiveAvgPool2d(1),
            flat=torch.nn.Flatten(), fc=torch.nn.Linear(4, num_classes),
        )
    )  # fmt: skip


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def saved(content: Any, path: Path = Path("x.pth")) -> Path:
    torch.save(content, path)
    return path


def loaded(path: Path, model: torch.nn.Module | None = None, **options: Any) -> LoadedModel:
    return with_checkpoint(LoadedModel("m:net", model or network()), path, **options)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def expect_weights(model: LoadedModel, expected: dict[str, Any]) -> None:
    assert isinstance(model.module, torch.nn.Module)
    found = model.module.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("place", ["the top level", "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "backbone.", "module._orig_mod.model."])
def test_weights_are_found_and_prefixes_removed(place: str, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever they are, with any prefixes; what was done is logged and part of the result."""
    state = network().state_dict()
    content = prefixed(prefix, state)
    path = saved(content if place == "the top level" else {"epoch": 3, place: content, "optimizer": {"state": {}}})
    with caplog.at_level(logging.INFO):
        model = loaded(path)
    expect_weights(model, state)
    (line,) = caplog.messages
    assert line.startswith(f"x.pth: weights from {place}")
    assert (f"prefix {prefix} removed from 9 names" in line) == bool(prefix)
    assert model.facts["checkpoint"] == {
        "file": "x.pth", "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "state_dict": place,
        **({"removed_prefixes": [prefix]} if prefix else {}),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["state_dict_ema", "model_ema"])
def test_averaged_weights_are_taken_on_demand_only(name: str) -> None:
    """Both kinds in a file: the option chooses; only averaged ones: the option is needed; none: it is refused."""
    plain, averaged = network().state_dict(), network().state_dict()
    path = saved({"state_dict": plain, name: averaged})
    expect_weights(loaded(path), plain)
    model = loaded(path, use_ema=True)
    expect_weights(model, averaged)
    assert model.facts["checkpoint"]["state_dict"] == name
    path = saved({name: averaged, "epoch": 1})
    expect_weights(loaded(path, use_ema=True), averaged)
    with pytest.raises(ModelError, match=rf"^x\.pth: holds only averaged weights \({name}\)\. Add --use-ema"):
        loaded(path)
    for content in (plain, {"model": plain}):
        with pytest.raises(ModelError, match=r"^x\.pth: holds no averaged weights .* Omit --use-ema"):
            loaded(saved(content), use_ema=True)


def test_several_candidates_are_not_guessed() -> None:
    """Two state dicts of one kind, two names for one tensor, and none at all: each is an error that names them."""
    state = network().state_dict()
    wrong: list[tuple[Any, str]] = [
        ({"state_dict": state, "model": state}, "holds weights in state_dict and in model"),
        (
            {"model": prefixed("module.", state) | state},
            r"both module\.conv\.weight and conv\.weight would be conv\.weight",
        ),
        ({"net": state, "epoch": 1}, r"holds net, epoch, expected a state dict.*'net' could be one"),
        ({"epoch": 1}, "holds epoch, expected a state dict"),
        ({}, "holds nothing, expected a state dict"),
        ([state], "holds a list, expected a state dict"),
        (torch.ones(3), "holds a Tensor, expected a state dict"),
    ]
    for content, text in wrong:
        with pytest.raises(ModelError, match=rf"^x\.pth: {text}"):
            loaded(saved(content))


def test_a_name_that_is_no_state_dict_is_passed_over() -> None:
    """`model` is often the name of the architecture, or empty."""
    state = network().state_dict()
    expect_weights(loaded(saved({"model": "resnet50", "state_dict": state, "model_ema": None})), state)


def test_a_model_keeps_the_prefixes_of_its_own_names() -> None:
    """A layer called backbone or model is no prefix; it is removed only where the model has no such name."""
    inner = network()
    model = torch.nn.ModuleDict({"backbone": network()})
    state = prefixed("backbone.", inner.state_dict())
    found = loaded(saved(state), model)
    expect_weights(found, state)
    assert "removed_prefixes" not in found.facts["checkpoint"]
    found = loaded(saved(prefixed("module.", state)), torch.nn.ModuleDict({"backbone": network()}))
    expect_weights(found, state)
    assert found.facts["checkpoint"]["removed_prefixes"] == ["module."]


def test_a_backbone_beside_a_head() -> None:
    """Only some names have the prefix."""
    state = network().state_dict()
    content = {name if name.startswith("fc.") else f"backbone.{name}": value for name, value in state.items()}
    found = loaded(saved(content))
    expect_weights(found, state)
    assert found.facts["checkpoint"]["removed_prefixes"] == ["backbone."]


def test_the_counter_of_an_averaged_model_is_left_out_and_said() -> None:
    """Torchvision's references save `AveragedModel`, which counts."""
    averaged = torch.optim.swa_utils.AveragedModel(network())
    found = loaded(saved({"model_ema": averaged.state_dict()}), use_ema=True)
    expect_weights(found, averaged.module.state_dict())
    assert found.facts["checkpoint"]["left_out"] == ["n_averaged"]


def test_versions_of_layers_survive_the_prefixes() -> None:
    """Torch converts state dicts of older layers by their version, which it keeps beside the names."""
    seen: list[object] = []

    class Versioned(torch.nn.Linear):
        _version = 7

        def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *more: Any) -> None:
            seen.append((prefix, local_metadata.get("version")))
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *more)

    def model() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Sequential(Versioned(2, 2)), torch.nn.ReLU())

    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model()

    loaded(saved({"state_dict": Wrapper().state_dict()}), model())
    loaded(saved(dict(model().state_dict())), model())  # no versions, and the names are today's
    assert seen == [("0.0.", 7), ("0.0.", 7)]


def test_a_checkpoint_that_does_not_fit_is_refused_with_the_names() -> None:
    """Missing and unexpected names with their number, other shapes, and what the file says of its architecture."""
    state = network().state_dict()
    less = {name: value for name, value in state.items() if name != "fc.bias"}
    other = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).state_dict()
    wrong: list[tuple[Any, str]] = [
        (less, r"Missing: fc\.bias\. Check the architecture and --model-kwargs\.$"),
        (state | {"a": torch.ones(1), "b": 1}, r"Unexpected: a, b\. Check the architecture"),
        ({"state_dict": less | {"x.y": torch.ones(1)}}, r"Missing: fc\.bias\. Unexpected: x\.y\. Check"),
        (
            {"arch": "resnet18", "state_dict": prefixed("module.", other)},
            (r"Missing: conv\.weight, conv\.bias, norm\.weight \.\.\. \(8\)\. Unexpected: 0\.weight, .*"
             r"\(4\)\. It is of another architecture\. The file says arch 'resnet18'\."),
        ),
        (
            state | {"conv.weight": torch.ones(4, 3, 5, 5)},
            r"Of another shape: conv\.weight is 4 x 3 x 5 x 5, not 4 x 3 x 3 x 3\. Check",
        ),
        (state | {"fc.weight": 3}, r"fc\.weight"),
        (state | {"fc.weight": torch.ones(5, 4, device="meta")}, "meta"),
    ]  # fmt: skip
    for content, text in wrong:
        model = network()
        with pytest.raises(ModelError, match=rf"^x\.pth: does not fit m:net\. .*{text}") as caught:
            loaded(saved(content), model)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("num_classes", "text"),
    [
        (999, r"Add --num-classes 999\.$"),
        (1001, r"Add --num-classes 1001 and --background first \(or last\)\.$"),
        (21843, r"Add --num-classes 21843 and --class-map FILE, with the class of each output\.$"),
    ],
)
def test_another_number_of_classes_has_the_option_to_add(num_classes: int, text: str) -> None:
    """If only the classifier differs, by its number of rows."""
    with pytest.raises(ModelError, match=rf"fc\.weight is {num_classes} x 4, not 1000 x 4; .*|{text}") as caught:
        loaded(saved(network(num_classes).state_dict()), network(1000))
    assert caught.match(text)


def test_only_a_module_takes_a_checkpoint() -> None:
    """A function has no weights."""
    with pytest.raises(ModelError, match=r"^f: a function, expected a torch\.nn\.Module to load x\.pth into\.$"):
        with_checkpoint(LoadedModel("f", lambda image: image), "x.pth")


def test_half_precision_weights_fill_a_model_in_float32() -> None:
    """As torch converts them; the model keeps its dtype."""
    state = {
        name: value.half() if value.is_floating_point() else value for name, value in network().state_dict().items()
    }
    expect_weights(
        loaded(saved(state)),
        {name: value.float() if value.is_floating_point() else value for name, value in state.items()},
    )
