"""Claim a root for one writer. A second writer gets an error at once, which names the first.

In a folder the claim is a lock file, which the system unlocks when its process ends. In an object store, or in a folder
whose file system has no locks, it is an object; see `wds_real.packing.object_claim`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from typing import TYPE_CHECKING

from wds_real.errors import StoreError, UnavailableError
from wds_real.format.lock_file import LockHeldError, held, no_locks
from wds_real.format.owner import Owner
from wds_real.format.root import holds_manifest, refuse_finished_root
from wds_real.packing.object_claim import Claim, object_claim, refuse
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wds_real.storage.base import Store

__all__ = ["claimed"]

_LOG = logging.getLogger(__name__)
_LOCK_NAME = ".wds_real.lock"
_ADVICE = "Choose another place."
_ATTEMPTS = 100


@contextlib.contextmanager
def claimed(root: Store, work: str, *, overwrite: bool, advice: str = _ADVICE) -> Iterator[Claim]:
    """Claim a root for writing, and remove what killed writers left there.

    Entering the block checks that the root can be written to. A folder that did not exist is removed at the end if
    nothing was written to it.

    Args:
        root: What to claim.
        work: What it is claimed for, such as ``pack``; the error of a second writer says so.
        overwrite: Accept a finished set there, which the caller replaces.
        advice: What to do if it cannot be claimed.

    Raises:
        StoreError: another process writes there, there is a finished set and not `overwrite`, or the root cannot be
            written to.
    """
    owner = Owner.this_process(work)
    with contextlib.ExitStack() as stack:
        try:
            claim = stack.enter_context(_claim_of(root, owner, advice))
        except StoreError:
            if not overwrite:
                _refuse_if_finished(root)  # says more than, for example, that a folder is read-only
            raise
        _remove_leftovers(root)
        if not overwrite:
            refuse_finished_root(root)
        yield claim


def _claim_of(root: Store, owner: Owner, advice: str) -> contextlib.AbstractContextManager[Claim]:
    if isinstance(root, LocalStore):
        return _folder_claim(root, owner, advice)
    return object_claim(root, owner, advice=advice)


def _refuse_if_finished(root: Store) -> None:
    try:
        is_finished = holds_manifest(root)
    except StoreError:
        return
    if is_finished:
        refuse_finished_root(root)


def _remove_leftovers(root: Store) -> None:
    """Remove unfinished files of killed writers."""
    try:
        for name in root.delete_leftovers():
            _LOG.info("removed %s, left by a killed run", name)
    except UnavailableError as error:  # permission to write need not include permission to list uploads
        _LOG.warning("unfinished files of killed runs were not removed: %s", error)


@contextlib.contextmanager
def _folder_claim(root: LocalStore, owner: Owner, advice: str) -> Iterator[Claim]:
    """Hold the lock file of a folder."""
    made = [folder for folder in (root.root, *root.root.parents) if not _exists(folder)]
    try:
        with contextlib.ExitStack() as stack:
            try:
                _lock_folder(root.root, owner, stack)
                claim = Claim()
            except LockHeldError as error:
                refuse(root, Owner.from_json(error.content), advice)
            except OSError as error:
                if not no_locks(error):
                    raise _not_writable(root, error, advice) from error
                claim = stack.enter_context(object_claim(root, owner, advice=advice))
            yield claim
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def _exists(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # no permission to look
        return True


def _lock_folder(root: Path, owner: Owner, stack: contextlib.ExitStack) -> None:
    """Make a folder and those above it, and lock it."""
    for _ in range(_ATTEMPTS):
        root.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(held(root / _LOCK_NAME, owner.to_json()))
        except FileNotFoundError:  # another writer removed the folder that it had made
            continue
        return
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def _not_writable(root: LocalStore, error: OSError, advice: str) -> StoreError:
    if root.root.is_file():
        return StoreError(f"{root.url}: is a file. Give a folder to write to.")
    return StoreError(f"{root.url}: cannot be written to: {error.strerror or error}. {advice}")
