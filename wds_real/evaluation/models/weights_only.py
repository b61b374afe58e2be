"""torch's switch that refuses pickled code, set while other libraries load weights."""

from __future__ import annotations

import os
import pickle
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wds_real.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["weights_only"]

_REFUSE, _ALLOW = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def weights_only(name: str) -> Iterator[None]:
    """Make each `torch.load` in the block read tensors and plain containers only, whoever calls it.

    timm, torchvision and `torch.export.load` call `torch.load` themselves, in some versions with
    ``weights_only=False``, which runs what the file says. The environment variable is torch's own way to rule that out.

    Args:
        name: The model or file, for the message.

    Raises:
        ModelError: the weights hold other pickled objects.
    """
    before = {variable: os.environ.get(variable) for variable in (_REFUSE, _ALLOW)}
    os.environ.pop(_ALLOW, None)  # torch refuses to load anything when both are set
    os.environ[_REFUSE] = "1"
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{name}: the weights are a pickle of Python objects, which may run any code when they are loaded; only "
            "tensors and plain containers are read. Save the state dict alone, as safetensors or with torch.save."
        ) from error
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
