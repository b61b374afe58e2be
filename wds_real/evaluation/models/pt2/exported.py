"""Programs saved by ``torch.export.save``."""

from __future__ import annotations

import contextlib
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wds_real.errors import ModelError, ModelRunError
from wds_real.evaluation.failures import describe, is_out_of_memory
from wds_real.evaluation.models.base import AcceptedInput, LoadedModel
from wds_real.evaluation.models.model_file import file_digest
from wds_real.evaluation.models.pt2.archive import check_archive
from wds_real.evaluation.models.weights_only import weights_only

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["load_exported"]

_IMAGE_CHANNELS = 3
_TRAINING_OPERATORS = ("native_dropout", "_native_batch_norm_legit", "_native_batch_norm_legit_functional")


def load_exported(path: str, *, trust_code: bool = False) -> LoadedModel:
    """Return the program in a ``.pt2`` file, with the default transform at the size of its input.

    The file is checked first (`wds_real.evaluation.models.pt2.archive`): torch would run code that it holds.

    Args:
        path: The file.
        trust_code: Do not check it.

    Raises:
        ModelError: there is no such file, it is not a program saved by ``torch.export.save``, it holds code, it was
            exported in training mode, or its input is not a batch of images.
    """
    digest = file_digest(path, "a program saved by torch.export.save")
    log = logging.getLogger("torch.export")
    before, log.disabled = log.disabled, True  # it logs a traceback for what is a ModelError of one line here
    try:
        with Path(path).open("rb") as file, contextlib.nullcontext() if trust_code else weights_only(path):
            if not trust_code:
                check_archive(file, path)
            file.seek(0)
            program = torch.export.load(file)
        accepts = _accepted_input(program, path)
        _check_evaluation_mode(program, path)
        module = program.module()
    except ModelError:
        raise
    except Exception as error:  # whatever torch meets in a program that does not fit together
        if is_out_of_memory(error):
            raise ModelRunError(f"{path}: out of memory while it was loaded.") from error
        raise ModelError(f"{path}: not a whole program of torch.export.save: {describe(error)}.") from error
    finally:
        log.disabled = before
    return LoadedModel(path, module, accepts.transform(), accepts=accepts, facts={"sha256": digest})


def _accepted_input(program: ExportedProgram, path: str) -> AcceptedInput:
    """Return the shapes that the program takes, from its input and the ranges of its dimensions."""
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(inputs) != 1 or not isinstance(inputs[0], torch.Tensor):
        raise ModelError(f"{path}: takes {len(inputs)} inputs, expected one: images (B, 3, H, W).")
    image = inputs[0]
    sizes = tuple(_range(size, program.range_constraints) for size in image.shape)
    if len(sizes) != 4 or not sizes[1][0] <= _IMAGE_CHANNELS <= (sizes[1][1] or _IMAGE_CHANNELS):
        raise ModelError(f"{path}: takes an input of shape {tuple(image.shape)}, expected images (B, 3, H, W).")
    return AcceptedInput(sizes, image.dtype)


def _range(size: Any, constraints: Any) -> tuple[int, int | None]:  # noqa: ANN401 -- of SymPy, which is untyped
    """Return the smallest and the largest size of a dimension; a size that follows from others is not limited here."""
    if isinstance(size, int):
        return size, size
    limits = constraints.get(size.node.expr) if size.node.expr.is_symbol else None
    if limits is None:
        return 1, None
    # torch exports no programs that tell 0 and 1 from 2: a smallest size of 2 is one that it does not check.
    low = 1 if limits.lower <= 2 else int(limits.lower)
    return low, int(limits.upper) if limits.upper < math.inf else None


def _check_evaluation_mode(program: ExportedProgram, path: str) -> None:
    """Refuse a program in which dropout or the statistics of each batch are active: its scores are not repeatable."""
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001 -- no public name
            continue
        operator, arguments = node.target.overloadpacket.__name__, dict(node.kwargs)
        names = [argument.name for argument in node.target._schema.arguments]  # noqa: SLF001 -- as above
        arguments |= dict(zip(names, node.args, strict=False))
        training = arguments.get("training", arguments.get("train", operator in _TRAINING_OPERATORS))
        if training is True and ("dropout" in operator or "batch_norm" in operator) and arguments.get("p") != 0:
            raise ModelError(
                f"{path}: exported in training mode ({operator} is active), so its predictions change from run to run. "
                "Export it again after model.eval()."
            )
