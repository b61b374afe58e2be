"""Programs saved by ``torch.export.save``."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import torch

from wds_real.errors import ModelError
from wds_real.evaluation.models.base import LoadedModel, first_line

__all__ = ["load_exported"]


def load_exported(path: str) -> LoadedModel:
    """Return the program in a ``.pt2`` file, with the default transform.

    Raises:
        ModelError: there is no such file, or it is not a program saved by ``torch.export.save``.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: no such file. Expected a program saved by torch.export.save.")
    log = logging.getLogger("torch.export")
    before, log.disabled = log.disabled, True  # it logs a traceback for what is a ModelError of one line here
    try:
        module = torch.export.load(path).module()
    except (RuntimeError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: not a program saved by torch.export.save: {first_line(error)}") from error
    finally:
        log.disabled = before
    return LoadedModel(path, module)
