"""The forward pass: precision and memory format reach the model, and only a tensor is a score."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from wds_real import EvalOptions, LoadedModel, ModelError, ModelRunError, Normalize
from wds_real.evaluation.forward import input_dtype, prepare_forward
from wds_real.evaluation.progress.stopwatch import ModelStopwatch

CPU = torch.device("cpu")
NORMALIZE = Normalize([0.5] * 3, [0.25] * 3, device=CPU)
IMAGE = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)


def test_a_module_is_in_eval_mode_and_gets_normalised_pixels() -> None:
    """Dropout does nothing: the output is the normalised, contiguous input."""
    module = torch.nn.Dropout(0.9).train()
    scores = prepare_forward(LoadedModel("m", module), NORMALIZE, CPU, EvalOptions(), ModelStopwatch())(IMAGE)
    assert not module.training
    assert torch.equal(scores, NORMALIZE(IMAGE))
    assert scores.is_contiguous()


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        (EvalOptions(), torch.float32),
        (EvalOptions(amp=True, amp_dtype="bfloat16"), torch.bfloat16),
        (EvalOptions(amp_dtype="bfloat16"), torch.float32),
    ],
)
def test_the_model_runs_in_the_precision_of_the_options(options: EvalOptions, dtype: torch.dtype) -> None:
    """Autocast is on with amp only, in its type."""
    assert (
        prepare_forward(LoadedModel("m", torch.nn.Conv2d(3, 5, 1)), NORMALIZE, CPU, options, ModelStopwatch())(
            IMAGE
        ).dtype
        == dtype
    )


@pytest.mark.parametrize("channels_last", [False, True])
def test_weights_and_pixels_have_the_memory_format_of_the_options(channels_last: bool) -> None:
    """Both are channels-last, or neither is."""
    module = torch.nn.Conv2d(3, 5, 2)
    seen: list[torch.Tensor] = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    prepare_forward(
        LoadedModel("m", module), NORMALIZE, CPU, EvalOptions(channels_last=channels_last), ModelStopwatch()
    )(IMAGE)
    for tensor in (seen[0], module.weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) is channels_last


@pytest.mark.parametrize(
    ("dtype", "amp"),
    [(torch.float16, False), (torch.bfloat16, False), (torch.float64, False), (torch.bfloat16, True)],
)
def test_the_input_has_the_dtype_of_the_module(dtype: torch.dtype, amp: bool) -> None:
    """Modules in another precision get pixels in it, also under autocast."""
    loaded = LoadedModel("m", torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), torch.nn.BatchNorm2d(5)).to(dtype))
    seen: list[torch.Tensor] = []
    loaded.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[attr-defined]
    scores = prepare_forward(loaded, NORMALIZE, CPU, EvalOptions(amp=amp, amp_dtype="bfloat16"), ModelStopwatch())(
        IMAGE
    )
    assert input_dtype(loaded) == seen[0].dtype == dtype
    assert scores.isfinite().all()


def test_the_dtype_is_that_of_the_first_floating_tensor() -> None:
    """Integer parameters are passed over, buffers count where no parameter does, and a function takes float32."""
    module = torch.nn.Module()
    module.register_buffer("count", torch.zeros(1, dtype=torch.int64))
    assert input_dtype(LoadedModel("m", module)) == torch.float32
    module.register_buffer("scale", torch.zeros(1, dtype=torch.float16))
    assert input_dtype(LoadedModel("m", module)) == torch.float16
    module.register_parameter("weight", torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    assert input_dtype(LoadedModel("m", module)) == torch.float64
    assert input_dtype(LoadedModel("m", lambda image: image)) == torch.float32


def test_what_the_model_raises_is_named_with_its_input() -> None:
    """The error says what the model was given, what it raised and where; its cause is the model's own error."""

    def model(image: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"expected 8 x 8,\ngot {image.shape[2]}")

    with pytest.raises(
        ModelRunError,
        match=r"^the model, given 2 x 3 x 4 x 4 float32, raised ValueError: expected 8 x 8, got 4 \(.*_forward.py:",
    ) as caught:
        prepare_forward(LoadedModel("m", model), NORMALIZE, CPU, EvalOptions(), ModelStopwatch())(IMAGE)
    assert isinstance(caught.value.__cause__, ValueError)


class Holder:
    """A callable that holds a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.module(image)
        return scores


@pytest.mark.parametrize("part", [torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(3)], ids=["dropout", "batch norm"])
@pytest.mark.parametrize("way", ["closure", "method", "partial", "attribute"])
def test_a_function_whose_module_is_in_training_mode_is_refused(part: torch.nn.Module, way: str) -> None:
    """Its scores would change from run to run; in evaluation mode it is taken."""
    module = torch.nn.Sequential(part)
    ways: dict[str, Any] = {
        "closure": lambda image: module(image) + 0,
        "method": module.forward,
        "partial": functools.partial(torch.nn.Module.__call__, module),
        "attribute": Holder(module),
    }
    loaded = LoadedModel("m", ways[way])
    module.train()
    with pytest.raises(ModelError, match=r"uses a module in training mode .* Call its eval\(\) first"):
        prepare_forward(loaded, NORMALIZE, CPU, EvalOptions(), ModelStopwatch())
    module.eval()
    assert prepare_forward(loaded, NORMALIZE, CPU, EvalOptions(), ModelStopwatch())(IMAGE).shape == IMAGE.shape
