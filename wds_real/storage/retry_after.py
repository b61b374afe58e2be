"""How long a server that is overloaded asks to wait.

The client library keeps the headers of refusals to itself, and so their ``Retry-After``. The refused request is
therefore made once more, for a single byte, by the standard library, only to read that header.
"""

from __future__ import annotations

import email.utils
import http.client
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["parse_retry_after", "retry_after"]

_TIMEOUT_S = 5.0


def retry_after(url: str, headers: Mapping[str, str] | None = None) -> float | None:
    """Return the seconds that the server asks to wait before `url` is read again, or None if it does not say.

    It is 0 where the server answers again.
    """
    request = urllib.request.Request(url, headers={**(headers or {}), "Range": "bytes=0-0"})  # noqa: S310 -- the store's own URL
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
            return 0.0
    except urllib.error.HTTPError as error:
        with error:
            return parse_retry_after(error.headers.get("Retry-After"))
    except (OSError, ValueError, http.client.HTTPException):
        return None


def parse_retry_after(value: str | None, *, now: float | None = None) -> float | None:
    """Return a ``Retry-After`` header (RFC 9110, 10.2.3) as seconds from now, or None if it is not one.

    >>> parse_retry_after("120")
    120.0
    >>> parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=0.0)
    60.0
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, at - (time.time() if now is None else now))
