"""The address at which a browser finds the shards of a data set, derived from the place of the data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from wds_real.storage.url import Location, is_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["web_address"]


def web_address(shards: str, folder: str | None, options: Mapping[str, str]) -> str | None:
    """Return a URL or relative path for `wds_real.explore.page.build.build_page`; None where none is known.

    Args:
        shards: Path or URL of the shards' folder, without secrets.
        folder: Folder that the page is written to; shards on this machine are addressed relative to it.
        options: Storage options, of which endpoint and region are used.
    """
    if not is_url(shards):
        if folder is None:
            return None
        path = os.path.relpath(Path(shards).resolve(), Path(folder).resolve())
        return quote(Path(path).as_posix())
    location = Location.parse(shards, options)
    if location.kind == "http":
        return location.url
    if location.kind not in ("s3", "gs"):
        return None
    bucket, prefix = location.bucket_url.partition("://")[2], quote(location.prefix)
    return f"{_bucket_address(location, bucket)}/{prefix}".rstrip("/")


def _bucket_address(location: Location, bucket: str) -> str:
    if location.kind == "gs":
        return f"https://storage.googleapis.com/{bucket}"
    endpoint = location.config.get("endpoint")
    if endpoint is not None:
        return f"{endpoint.rstrip('/')}/{bucket}"
    host = f"s3.{location.config.get('region', 'us-east-1')}.amazonaws.com"
    return f"https://{host}/{bucket}" if "." in bucket else f"https://{bucket}.{host}"
