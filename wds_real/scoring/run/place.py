"""Where a run's output is: a folder, or a place in an object store; checked before the model is loaded.

A run, or a merge, locks a folder while it writes there, unless its ranks are independent. A place in an object store
needs no lock: each process writes objects with names of its own, or with the same content as the others.
"""

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
from wds_real.storage.store import open_store
from wds_real.storage.url import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wds_real.storage.base import Store

__all__ = ["FOLDER_RIGHTS", "LOCK_NAME", "OutputPlace"]

FOLDER_RIGHTS = 0o755  # others may read the results; with write access they could plant links
LOCK_NAME = ".wds_real.lock"

_LOG = logging.getLogger(__name__)


class OutputPlace:
    """A folder, or the URL of a place in an object store. The constructor creates no folder and sends no request.

    Args:
        place: Path or URL.
        options: Storage options, for a URL.

    Attributes:
        place: The path or URL as given.
        options: Storage options; may hold secrets.
        store: The files directly in it.
        folder: Path of the folder; None for a URL.

    Raises:
        PredictionsError: the path is empty, or the URL is that of a web server.
        StoreError: the URL or an option is not valid.
    """

    def __init__(self, place: str | Path, options: Mapping[str, str] | None = None) -> None:
        self.place, self.options = str(place), dict(options or {})
        if not self.place:  # an unset variable of a shell, rather than the current folder
            raise PredictionsError("the path of the output folder is empty. The current folder is a single dot.")
        self.folder = None if is_url(self.place) else Path(place)
        self.store: Store = open_store(place, storage_options=self.options if self.folder is None else None)
        if not self.store.listable:
            raise PredictionsError(
                f"{self.store.url}: a web server can only be read. Choose a folder, s3://, gs:// or az:// for --output."
            )

    @classmethod
    def of(cls, place: str | Path | OutputPlace, options: Mapping[str, str] | None = None) -> OutputPlace:
        """Return the place at a path or URL; a place itself is returned as it is."""
        return place if isinstance(place, OutputPlace) else cls(place, options)

    def __str__(self) -> str:
        return self.store.url

    def inside(self, name: str) -> OutputPlace:
        """Return the place of this name in this one."""
        place = f"{self.place.rstrip('/')}/{name}" if self.folder is None else self.folder / name
        return OutputPlace(place, self.options)

    def check(self) -> None:
        """Check that a folder can be written to or created, or that an object store can be listed.

        Raises:
            PredictionsError: it is a file, or this user may not write there.
            StoreError: the object store denies access, or is not there.
        """
        path = self.folder
        if path is None:
            self.store.list()
            return
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.lstat()  # raises if there can be no such name
            nearest = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
            if not nearest.is_dir():
                raise PredictionsError(f"{nearest}: is not a folder. --output takes a folder, for records and result.")
            if not os.access(nearest, os.W_OK | os.X_OK):
                raise PredictionsError(f"{nearest}: cannot be written to. Choose another --output.")
        except (OSError, ValueError) as error:
            raise PredictionsError(f"{path}: cannot be used: {error}. Choose another --output.") from error

    def make(self) -> None:
        """Make the folder, unless it is there; object stores have none.

        Raises:
            OSError: it cannot be made, or belongs to another user.
        """
        if self.folder is not None:
            make_own_folder(self.folder, mode=FOLDER_RIGHTS)

    @contextlib.contextmanager
    def owned(self, work: str) -> Iterator[None]:
        """Hold the lock of a folder in the block, so that a second run, or a merge, is refused while this one writes.

        A lock that a killed process left is free. A file system without locks gives a warning.

        Args:
            work: What is done, such as ``eval``, for the message of a process that is refused.

        Raises:
            PredictionsError: another process writes there, or the folder cannot be written to.
        """
        with contextlib.ExitStack() as stack:
            if self.folder is not None:
                self.check()
                self._lock(self.folder, work, stack)
            yield

    def _lock(self, folder: Path, work: str, stack: contextlib.ExitStack) -> None:
        try:
            self.make()
            stack.enter_context(held(folder / LOCK_NAME, Owner.this_process(work).to_json()))
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
