"""Errors of a user's model: one line with the place in the user's code, and memory that ran out told apart."""

from __future__ import annotations

import re
import runpy
from typing import TYPE_CHECKING

import pytest
import torch

from wds_real import ModelError, ModelRunError
from wds_real.evaluation.failures import check_batch_fits, describe, is_out_of_memory, memory_errors, model_errors

if TYPE_CHECKING:
    from pathlib import Path

NO_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you ..."),
]


def test_the_place_is_in_the_users_code(tmp_path: Path) -> None:
    """File and line are those of the user's module, not of torch below it; the text is one line."""
    file = tmp_path / "my_model.py"
    file.write_text("import torch\n\ntorch.nn.Linear(3, 4)(torch.zeros(2, 5))\n")
    with pytest.raises(RuntimeError) as caught:
        runpy.run_path(str(file))
    text = describe(caught.value)
    # torch 2.15 says "addmm: mat1 and ..."
    assert re.match(r"RuntimeError: (\w+: )?mat1 and mat2 shapes cannot be multiplied \(2x5 and 3x4\)", text)
    assert text.endswith("my_model.py:3)")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a\n\n  b"), "ValueError: a b"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 9999), f"ValueError: {'x' * 297}..."),
        (
            SyntaxError("invalid syntax", ("/models.py", 7, 1, "def", 7, 2)),
            "SyntaxError: invalid syntax (/models.py:7)",
        ),
    ],
)
def test_an_error_is_one_line(error: Exception, text: str) -> None:
    """Lines are joined, long texts are cut, and a syntax error names its own file."""
    assert describe(error) == text


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_names_a_smaller_batch(error: Exception) -> None:
    """Half the batch is the advice; at one image there is another one; the cause is kept."""
    for guard in (model_errors("the model", batch_size=256), memory_errors(256)):
        with pytest.raises(ModelRunError, match=r"^out of memory at batch 256: try -b 128\.$") as caught, guard:
            raise error
        assert caught.value.__cause__ is error
        assert caught.value.exit_code == 1
    with pytest.raises(ModelRunError, match="at batch 1: the model needs another device"), memory_errors(1):
        raise error


def test_no_smaller_batch_is_advised_where_it_would_not_help() -> None:
    """A model that does not fit on the device by itself fits with no batch size."""
    no_memory = torch.OutOfMemoryError("CUDA out of memory.")
    says = r"^moving the model to cuda:0: out of memory\. A device with more memory is needed\.$"
    with (
        pytest.raises(ModelRunError, match=says) as caught,
        model_errors("moving the model to cuda:0", batch_size=None),
    ):
        raise no_memory
    assert caught.value.__cause__ is no_memory


def test_other_errors_are_the_models_or_pass() -> None:
    """What a model raises is named; errors of this package, and those outside the model, pass as they are."""
    assert not is_out_of_memory(RuntimeError("shape"))
    with (
        pytest.raises(ModelRunError, match=r"^the model raised KeyError: 'logits'"),
        model_errors("the model", batch_size=1),
    ):
        raise KeyError("logits")
    with pytest.raises(ModelError, match=r"^no such model$"), model_errors("the model", batch_size=1):
        raise ModelError("no such model")
    with pytest.raises(KeyError), memory_errors(1):
        raise KeyError("logits")


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((10**12, 3, 224, 224), r"^out of memory at batch 1000000000000: .* try -b \d+\.$"),
        ((1, 3, 10**7, 10**7), "try a smaller --img-size"),
    ],
)
def test_a_batch_larger_than_the_memory_is_refused(shape: tuple[int, int, int, int], advice: str) -> None:
    """The message has a batch size that fits, or says that the images are too large."""
    with pytest.raises(ModelRunError, match=advice):
        check_batch_fits(shape)
    check_batch_fits((2, 3, 224, 224))
