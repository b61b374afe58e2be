"""Where predictions and results are: a path, or the URL of a file on an object store or a web server.

A file at a URL is downloaded to a temporary file without a name, once its length is known.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

from wds_real.errors import PredictionsError
from wds_real.storage.downloads import download
from wds_real.storage.files import OpenFile
from wds_real.storage.options import is_secret
from wds_real.storage.store import open_store
from wds_real.storage.url import Location, is_url, redact_url, refuse_broken_url, split_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["check_place", "is_remote", "name_of", "opened", "option_words", "parent_of", "shown"]


def is_remote(place: str | Path) -> bool:
    """Return whether a place is a URL; a Path never is, because it has lost a slash."""
    return isinstance(place, str) and is_url(place)


def check_place(place: str | Path, storage_options: Mapping[str, str] | None) -> None:
    """Raise StoreError for a URL or an option that cannot be used; no request is made.

    A path takes no options. They are ignored, because they are for URLs that are given with it.
    """
    if is_remote(place):
        Location.parse(str(place), storage_options)
    else:
        refuse_broken_url(str(place))


def shown(place: str | Path) -> str:
    """Return a place for messages: a URL without user name, password and query.

    >>> shown("https://me:secret@host/a.csv?X-Amz-Signature=1")
    'https://host/a.csv'
    """
    return redact_url(str(place))


def name_of(place: str | Path) -> str:
    """Return the last part of a place; that of a web server's URL is decoded.

    >>> name_of("https://host/run/my%20answers.csv?X-Amz-Signature=1"), name_of("run/a.npz"), name_of("s3://lab/run/")
    ('my answers.csv', 'a.npz', 'run')

    Raises:
        StoreError: the name in a web server's URL is not encoded UTF-8.
    """
    if not is_remote(place):
        return Path(place).name
    return split_url(_without_slash(str(place)))[1]


def option_words(place: str | Path, storage_options: Mapping[str, str] | None) -> list[str]:
    """Return the options for a place as words of a command that is printed; none that may hold a secret.

    >>> option_words("s3://lab/a.csv", {"region": "eu-west-1", "secret_access_key": "hidden"})
    ['--storage-option', 'region=eu-west-1']
    """
    options = storage_options if storage_options and is_remote(place) else {}
    shown_ones = [f"{name}={value}" for name, value in options.items() if not is_secret(name, value)]
    return [word for option in shown_ones for word in ("--storage-option", option)]


def parent_of(place: str | Path) -> str | Path:
    """Return the folder that a file or folder is in; a web server's query stays.

    >>> parent_of("https://host/run/a.csv?X-Amz-Signature=1")
    'https://host/run?X-Amz-Signature=1'
    """
    return split_url(_without_slash(str(place)))[0] if is_remote(place) else Path(place).parent


@contextlib.contextmanager
def opened(place: str | Path, *, storage_options: Mapping[str, str] | None, max_bytes: int) -> Iterator[IO[bytes]]:
    """Open a file for reading, at its start; it can be read at any position.

    Args:
        place: A path or URL.
        storage_options: For a URL; ignored for a path.
        max_bytes: Largest file.

    Raises:
        PredictionsError: the file at a path is too large.
        OSError: the file at a path cannot be opened.
        StoreError: the file at a URL is missing, too large or cannot be read, or an option is not known.
    """
    if is_remote(place):
        folder, name = split_url(_without_slash(str(place)))
        store = open_store(folder, storage_options=storage_options)
        with io.BufferedReader(download(store, name, max_bytes=max_bytes)) as copy:
            yield copy
        return
    owned = OpenFile.open(place)  # refuses pipes and devices
    num_bytes = os.fstat(owned.descriptor).st_size
    if num_bytes > max_bytes:
        raise PredictionsError(f"the file has {num_bytes:,} bytes, expected at most {max_bytes:,}.")
    with open(owned.descriptor, "rb", closefd=False) as file:
        yield file


def _without_slash(url: str) -> str:
    before, mark, query = url.partition("?")
    return f"{before.rstrip('/')}{mark}{query}"
