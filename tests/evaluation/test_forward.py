"""The forward pass: precision and memory format reach the model, and only a tensor is a score."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wds_real import EvalOptions, LoadedModel, ModelError, Normalize
from wds_real.evaluation.forward import prepare_forward
from wds_real.evaluation.stopwatch import Stopwatch

CPU = torch.device("cpu")
NORMALIZE = Normalize([0.5] * 3, [0.25] * 3, device=CPU)
IMAGE = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)


def test_a_module_is_in_eval_mode_and_gets_normalised_pixels() -> None:
    """Dropout does nothing: the output is the normalised, contiguous input."""
    module = torch.nn.Dropout(0.9).train()
    scores = prepare_forward(LoadedModel("m", module), NORMALIZE, CPU, EvalOptions(), Stopwatch())(IMAGE)
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
        prepare_forward(LoadedModel("m", torch.nn.Conv2d(3, 5, 1)), NORMALIZE, CPU, options, Stopwatch())(IMAGE).dtype
        == dtype
    )


@pytest.mark.parametrize("channels_last", [False, True])
def test_weights_and_pixels_have_the_memory_format_of_the_options(channels_last: bool) -> None:
    """Both are channels-last, or neither is."""
    module = torch.nn.Conv2d(3, 5, 2)
    seen: list[torch.Tensor] = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    prepare_forward(LoadedModel("m", module), NORMALIZE, CPU, EvalOptions(channels_last=channels_last), Stopwatch())(
        IMAGE
    )
    for tensor in (seen[0], module.weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) is channels_last


@pytest.mark.parametrize(("output", "kind"), [((torch.zeros(2, 1000),), "tuple"), ({}, "dict"), (None, "NoneType")])
def test_an_output_that_is_no_tensor_is_refused(output: object, kind: str) -> None:
    """The error names the type, and says what to do."""
    model: Any = lambda _: output  # noqa: E731 -- a function that returns no tensor
    with pytest.raises(ModelError, match=f"returned a {kind}, expected a tensor .* Wrap it"):
        prepare_forward(LoadedModel("m", model), NORMALIZE, CPU, EvalOptions(), Stopwatch())(IMAGE)
