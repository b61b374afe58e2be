"""The explorer page as one HTML file, which holds code, style and data, and loads nothing but the shards.

No name from a data set or a prediction file is in the HTML: names are inside the compressed data, and the page's code
writes them as text. The content security policy allows the one script and the one style sheet by their digests,
images from memory, and requests to the place of the shards only.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wds_real.errors import StoreError
from wds_real.explore.page.bundle import bundle, read_page_file
from wds_real.explore.page.encoding import encode_content
from wds_real.storage.url import is_url, redact_url

if TYPE_CHECKING:
    from wds_real.explore.page.content import Content

__all__ = ["build_page", "check_shards_url"]

_STYLES = ("style.css", "views.css")
_ENTRY = "app.js"


def build_page(content: Content, *, shards_url: str | None = None) -> bytes:
    """Return the bytes of the page; equal arguments give equal bytes.

    Args:
        content: What it shows.
        shards_url: Where a browser finds the shards: an http or https URL, or a path relative to the page. None if the
            user has to choose the files.

    Raises:
        StoreError: `shards_url` is no such URL, or holds a secret.
    """
    source = "" if shards_url is None or content.places is None else check_shards_url(shards_url)
    script, style = bundle(_ENTRY), "".join(map(read_page_file, _STYLES))
    values = {
        "policy": html.escape(_policy(script, style, source)),
        "shards": html.escape(source),
        "style": style,
        "data": base64.b64encode(encode_content(content)).decode("ascii"),
        "script": script,
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], read_page_file("index.html"))
    return page.encode("utf-8")


def check_shards_url(url: str) -> str:
    """Return where a browser finds the shards, without a slash at its end.

    Raises:
        StoreError: not an http or https URL or a relative path, or it holds a user name, a password or a query.
    """
    if not is_url(url):
        return url.rstrip("/") or "."
    try:
        parts = urlsplit(url)
        valid = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"[\s;,'\"<>\\]", url):
        raise StoreError(f"{redact_url(url)}: a browser cannot read shards there. Give an https:// URL.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise StoreError(
            f"{redact_url(url)}: the URL holds a user name, a password or a query, and whoever opens the page can read "
            "them. Give a URL without; shards that need credentials can be shown with --serve."
        )
    return url.rstrip("/")


def _policy(script: str, style: str, source: str) -> str:
    parts = urlsplit(source) if is_url(source) else None
    origin = "'self'" if parts is None else f"{parts.scheme.lower()}://{parts.netloc}"
    rules = (
        "default-src 'none'",
        f"script-src '{_digest(script)}'",
        f"style-src '{_digest(style)}'",
        "img-src blob: data:",
        f"connect-src {origin}" if source else "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return "; ".join(rules)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"
