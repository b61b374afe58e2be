"""Open a store: a folder, an object store or a web server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from wds_real.errors import StoreError
from wds_real.storage.local import LocalStore
from wds_real.storage.remote import RemoteStore
from wds_real.storage.url import Location, is_url, refuse_broken_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wds_real.storage.base import Store

__all__ = ["open_store"]


def open_store(url: str | os.PathLike[str], *, storage_options: Mapping[str, str] | None = None) -> Store:
    """Return the store at a folder's path or a URL. No request is made, and the place need not exist.

    Args:
        url: A path, or ``s3://bucket/prefix``, ``gs://``, ``az://``, ``https://``, ``http://`` (for localhost, or
            with the option ``allow_http=true``), ``hf://datasets/USER/NAME/path`` or ``memory://name``.
        storage_options: Options of the store: ``region``, ``endpoint``, ``skip_signature`` (public buckets),
            ``profile``, credentials, timeouts; named as in obstore, or as in fsspec where those differ.

    Raises:
        StoreError: the path is empty, or a URL scheme or an option is not supported.
    """
    text = os.fspath(url)
    if not text:  # an unset variable of a shell, rather than the current folder
        raise StoreError("the path is empty. Give a folder or a URL; the current folder is a single dot.")
    if is_url(text):
        options = dict(storage_options or {})
        return RemoteStore(Location.parse(text, options), options)
    refuse_broken_url(text)
    if storage_options:
        raise StoreError(f"{text}: storage options are for URLs such as s3://bucket/prefix; a folder takes none.")
    return LocalStore(Path(text))
