"""One line for an exception that no command expects: a full disk, too little memory, or a bug."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import wds_real
from wds_real.cli.console import print_message

__all__ = ["describe", "print_traceback"]

_TRACEBACK = "WDS_REAL_TRACEBACK"
_PACKAGE = Path(wds_real.__file__).parent


def describe(error: BaseException) -> str:
    """Return what happened, where, and what to do, in one line."""
    if isinstance(error, MemoryError):
        return f"out of memory ({_places(error)}). Use a smaller --batch-size, or fewer --threads or --jobs."
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "this machine starts no more threads (`ulimit -u` shows the limit). Use fewer --threads or --jobs."
    if isinstance(error, OSError) and error.errno is not None:
        if error.filename is None and not _folder_exists():
            return "the current folder was removed. Change to another one."
        name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{name}{error.strerror or error} ({_places(error)})."
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        f"unexpected {what} ({_places(error)}). This is a bug in wds-real {wds_real.__version__}, unless the file is "
        f"yours: {_TRACEBACK}=1 shows the traceback to report."
    )


def print_traceback(error: BaseException) -> None:
    """Print the traceback on stderr if the environment variable WDS_REAL_TRACEBACK is set."""
    if os.environ.get(_TRACEBACK, "0") not in ("", "0"):
        for lines in traceback.format_exception(error):
            for line in lines.rstrip("\n").split("\n"):
                print_message(line)


def _places(error: BaseException) -> str:
    """Return where the error was raised, and the last line of this package on the way there."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "place unknown"
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    places = [frames[-1]] if not ours or ours[-1] is frames[-1] else [frames[-1], ours[-1]]
    return ", called from ".join(f"{_short(frame.filename)}:{frame.lineno}" for frame in places)


def _short(path: str) -> str:
    return str(Path(path).relative_to(_PACKAGE.parent)) if Path(path).is_relative_to(_PACKAGE) else path


def _folder_exists() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True
