"""The folder of a run's output: checked before the model is loaded, and written by one process tree at a time."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from wds_real.errors import PredictionsError
from wds_real.format.lock_file import LockHeldError, held, no_locks
from wds_real.format.owner import Owner
from wds_real.storage.files import make_own_folder, reason_of
from wds_real.storage.url import is_url, redact_url

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FOLDER_RIGHTS", "LOCK_NAME", "check_output", "owned"]

FOLDER_RIGHTS = 0o755
LOCK_NAME = ".wds_real.lock"

_LOG = logging.getLogger(__name__)


def check_output(folder: str | Path) -> Path:
    """Return the path of a folder that is there and can be written to, or can be made; nothing is made.

    Raises:
        PredictionsError: it is a URL or a file, or this user may not write there.
    """
    if is_url(str(folder)):
        raise PredictionsError(f"{redact_url(str(folder))}: records need a folder. Choose a local --output.")
    path = Path(folder)
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()  # raises if there can be no such name
        nearest = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
        if not nearest.is_dir():
            raise PredictionsError(f"{nearest}: is not a folder. --output takes a folder, for records and result.")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PredictionsError(f"{nearest}: cannot be written to. Choose another --output.")
    except (OSError, ValueError) as error:
        raise PredictionsError(f"{folder}: cannot be used: {error}. Choose another --output.") from error
    return path


@contextlib.contextmanager
def owned(folder: str | Path, work: str) -> Iterator[None]:
    """Hold the lock of a folder in the block, so that a second run, or a merge, is refused while this one writes.

    A lock that a killed process left is free. A file system without locks gives a warning.

    Args:
        folder: Made if it is not there.
        work: What is done, such as ``eval``; who is refused is told.

    Raises:
        PredictionsError: another process writes there, or the folder cannot be written to.
    """
    path = check_output(folder)
    with contextlib.ExitStack() as stack:
        try:
            make_own_folder(path, mode=FOLDER_RIGHTS)
            stack.enter_context(held(path / LOCK_NAME, Owner.this_process(work).to_json()))
        except LockHeldError as error:
            owner = Owner.from_json(error.content)
            raise PredictionsError(
                f"{folder}: {'another process' if owner is None else owner} writes there. Wait until it has ended, "
                "stop it, or choose another --output."
            ) from error
        except OSError as error:
            if not no_locks(error):
                raise PredictionsError(f"{folder}: cannot be written to: {reason_of(error)}") from error
            _LOG.warning("%s: its file system has no locks. Start no second run with this --output.", folder)
        yield
