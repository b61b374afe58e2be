"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from wds_real.storage.url import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wds_real.storage.cache import ByteCache

__all__ = [
    "cache_options",
    "json_option",
    "open_cache",
    "per_class_option",
    "quiet_option",
    "real_json_option",
    "storage_option",
    "url_options",
]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_Function = TypeVar("_Function", bound="Callable[..., Any]")


def _parse_options(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    del ctx, parameter
    for value in values:
        if "=" not in value:  # the value may be a secret, so the message does not repeat it
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


quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Print no progress on stderr, only warnings and errors."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")

per_class_option = click.option(
    "--per-class",
    is_flag=True,
    help="Also print ReaL accuracy for groups of images, and for the worst classes with their most common confusions.",
)

real_json_option = click.option(
    "--real-json", metavar="FILE", help="ReaL labels in the format of real.json, to use instead of the bundled ones."
)

storage_option = click.option(
    "--storage-option",
    "storage_options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_parse_options,
    help="For URLs: region=..., endpoint=..., profile=..., skip_signature=true (public buckets), ...; repeatable.",
)


def cache_options(function: _Function) -> _Function:
    """Add --cache and --cache-size to a command."""
    size = click.option(
        "--cache-size",
        "cache_bytes",
        metavar="SIZE",
        callback=_parse_size,
        help="Largest size of the --cache folder.  [default: 16GiB]",
    )
    folder = click.option(
        "--cache", metavar="DIR", help="Keep what is read from URLs in DIR; later runs read it there."
    )
    return folder(size(function))


def open_cache(folder: str | None, max_bytes: int | None) -> ByteCache | None:
    """Return the cache in `folder`; None without --cache."""
    from wds_real.storage.cache import DEFAULT_MAX_BYTES, ByteCache

    return None if folder is None else ByteCache(Path(folder), DEFAULT_MAX_BYTES if max_bytes is None else max_bytes)


def url_options(place: str, options: Mapping[str, str]) -> Mapping[str, str] | None:
    """Return the storage options for `place`: None if it is a local path, which takes none."""
    return options if is_url(place) else None
