"""Errors of a user's model in one line: what was raised, where in the user's code, and whether memory ran out."""

from __future__ import annotations

import math
import os
import sys
import sysconfig
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wds_real.errors import ModelError, ModelRunError, WdsRealError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "check_batch_fits",
    "describe",
    "forget_frames",
    "is_out_of_memory",
    "loading_errors",
    "memory_errors",
    "model_errors",
    "ran_out_of_memory",
]

_MAX_LENGTH = 300
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory", "ALLOC_FAILED")
_NOT_THE_USERS = (  # torch, this package, and the standard library
    str(Path(torch.__file__).parent), str(Path(__file__).parent), sysconfig.get_paths()["stdlib"],
)  # fmt: skip


@contextmanager
def model_errors(what: str, *, batch_size: int | None) -> Iterator[None]:
    """Turn an exception in the block into a `ModelRunError` of one line; errors of this package pass unchanged.

    Args:
        what: What the block does, as the subject of the message.
        batch_size: For the advice if memory runs out; None if the memory needed does not depend on it.

    Raises:
        ModelRunError: memory ran out, or something else was raised, which is the error's ``__cause__``.
    """
    try:
        yield
    except WdsRealError:
        raise
    except Exception as error:
        if is_out_of_memory(error) and batch_size is None:
            raise ModelRunError(f"{what}: out of memory. A device with more memory is needed.") from error
        if is_out_of_memory(error) and batch_size is not None:
            raise _out_of_memory(batch_size) from error
        raise ModelRunError(f"{what} raised {describe(error)}") from error


@contextmanager
def loading_errors(spec: str, library: str) -> Iterator[None]:
    """Turn an exception of a library that loads a model into a `ModelError` of one line; this package's errors pass.

    Args:
        spec: The model's name.
        library: The library that loads it, with its version.

    Raises:
        ModelError: the library raised an error, which is the ``__cause__``.
        ModelRunError: memory ran out.
    """
    try:
        yield
    except WdsRealError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise ModelRunError(f"{spec}: out of memory while {library} loaded the model.") from error
        raise ModelError(f"{spec}: {library} cannot load it: {describe(error)}.") from error


@contextmanager
def memory_errors(batch_size: int) -> Iterator[None]:
    """Turn an out-of-memory error into a `ModelRunError`; other errors pass unchanged.

    Raises:
        ModelRunError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _out_of_memory(batch_size) from error


def check_batch_fits(shape: tuple[int, int, int, int]) -> None:
    """Refuse a batch (B, C, H, W) that this machine's memory cannot hold as uint8 and as float32 together.

    Raises:
        ModelRunError: the batch is larger than the memory.
    """
    batch_size, *image = shape
    per_image = math.prod(image) * 5
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system: then the allocation itself fails
        return
    if batch_size * per_image <= memory:
        return
    size = f"out of memory at batch {batch_size}: {batch_size * per_image / 1e9:,.1f} GB for images of "
    size += f"{image[1]} x {image[2]}, this machine has {memory / 1e9:,.1f} GB"
    largest = memory // 4 // per_image
    raise ModelRunError(f"{size}: try {f'-b {2 ** int(math.log2(largest))}' if largest else 'a smaller --img-size'}.")


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


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of this package says that memory ran out while a model was loaded or run."""
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def forget_frames(error: BaseException | None) -> None:
    """Drop the local variables that an error and its causes hold, which may be a model and its activations."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _out_of_memory(batch_size: int) -> ModelRunError:
    advice = f"try -b {batch_size // 2}" if batch_size > 1 else "the model needs another device, or --amp"
    return ModelRunError(f"out of memory at batch {batch_size}: {advice}.")


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
