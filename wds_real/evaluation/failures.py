"""Errors of a user's model in one line: what was raised, where in the user's code, and whether memory ran out."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from pathlib import Path

import torch

__all__ = ["describe", "is_out_of_memory"]

_MAX_LENGTH = 300
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory", "ALLOC_FAILED")
_NOT_THE_USERS = (  # torch, this package, and the standard library
    str(Path(torch.__file__).parent), str(Path(__file__).parent), sysconfig.get_paths()["stdlib"],
)  # fmt: skip


def describe(error: BaseException) -> str:
    """Return the type and text of an error in one line, with the line of the user's code that raised it."""
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        text = error.msg
    text = text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 3]}..."
    place = _place(error)
    return f"{type(error).__name__}{': ' * bool(text)}{text}{f' ({place})' * bool(place)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the CPU or on an accelerator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def _place(error: BaseException) -> str:
    """Return file and line of the innermost line that is neither torch's nor Python's; "" if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return _shown(error.filename, error.lineno)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith("<") and not _is_known(frame.filename)]
    return _shown(own[-1].filename, own[-1].lineno) if own else ""


def _is_known(file: str) -> bool:
    """Return whether a file is torch's, this package's or Python's; packages lie below the standard library."""
    if "site-packages" in file and not file.startswith(_NOT_THE_USERS[:2]):
        return False
    return file.startswith(_NOT_THE_USERS)


def _shown(file: str, line: int | None) -> str:
    """Return FILE:LINE, the file as short as its place in Python's path allows."""
    folders = sorted((entry for entry in sys.path if entry and file.startswith(f"{entry}/")), key=len)
    name = file.removeprefix(f"{folders[-1]}/") if folders else file
    return f"{name}:{line}"
