"""The options of commands that read or write object stores."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wds_real.storage.url import is_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wds_real.data.dataset import Dataset
    from wds_real.storage.base import Store
    from wds_real.storage.cache import ByteCache

__all__ = ["cache_options", "open_at", "open_cache", "open_data_set", "storage_option"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def _parse_options(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    del ctx, parameter
    for value in values:
        if "=" not in value:  # what was given may be a secret: it is not repeated
            raise click.BadParameter("expected NAME=VALUE, such as region=eu-west-1.")
    return {name: value for name, _, value in (value.partition("=") for value in values)}


def _parse_size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    del ctx, parameter
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter("expected a size such as 500MB or 20GiB.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " "))


storage_option = click.option(
    "--storage-option",
    "storage_options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_parse_options,
    help="For URLs: region, endpoint, profile, skip_signature=true (public buckets), ...; repeat for more.",
)


def cache_options(command: Any) -> Any:
    """Add --cache and --cache-size to a command."""
    size = click.option(
        "--cache-size", "cache_bytes", metavar="SIZE", callback=_parse_size, help="Of --cache.  [default: 16GiB]"
    )
    folder = click.option("--cache", metavar="DIR", help="Keep in DIR what is read from a URL, for the next time.")
    return folder(size(command))


def open_cache(folder: str | None, max_bytes: int | None) -> ByteCache | None:
    """Return the cache that the options ask for, if any."""
    from wds_real.storage.cache import DEFAULT_MAX_BYTES, ByteCache

    return None if folder is None else ByteCache(Path(folder), DEFAULT_MAX_BYTES if max_bytes is None else max_bytes)


def open_at(url: str, options: Mapping[str, str]) -> Store:
    """Return the store of a command's argument; options are for the URLs among them."""
    from wds_real.storage.store import open_store

    return open_store(url, storage_options=options if is_url(url) else None)


def open_data_set(
    root: str, options: Mapping[str, str], *, split: str | None = None, cache: ByteCache | None = None
) -> Dataset:
    """Open the data set of a command's argument."""
    from wds_real.data.dataset import open_dataset

    return open_dataset(root, split=split, storage_options=options, cache=cache)
