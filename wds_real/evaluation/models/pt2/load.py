"""``.pt2`` files: programs of ``torch.export.save``, or packages of AOTInductor, told apart by what they hold."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from wds_real.errors import ModelError
from wds_real.evaluation.models.pt2.exported import load_exported

if TYPE_CHECKING:
    from wds_real.evaluation.models.base import LoadedModel

__all__ = ["load_pt2"]

_COMPILED = "data/aotinductor/"


def load_pt2(path: str, *, trust_code: bool = False) -> LoadedModel:
    """Return the program in a ``.pt2`` file.

    Args:
        path: The file.
        trust_code: Load it although it holds compiled code or pickled objects.

    Raises:
        ModelError: see `load_exported` and `load_compiled`; or it is compiled code, which is not trusted.
    """
    if not _is_compiled(path):
        return load_exported(path, trust_code=trust_code)
    if not trust_code:
        raise ModelError(
            f"{path}: a package of AOTInductor, which is compiled machine code and runs with all your rights. If you "
            "trust the file: --trust-code."
        )
    from wds_real.evaluation.models.pt2.compiled import load_compiled  # noqa: PLC0415 -- imports torch's compiler

    return load_compiled(path)


def _is_compiled(path: str) -> bool:
    if not Path(path).is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.partition("/")[2].startswith(_COMPILED) for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
