"""URLs and storage options, parsed; URLs without secrets for messages."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from wds_real.errors import StoreError, first_few
from wds_real.storage.environment import endpoint_from_environment
from wds_real.storage.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Location", "is_url", "join_url", "redact_url", "split_url"]

_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "adl": "az",
            "http": "http", "https": "http", "memory": "memory"}  # fmt: skip
_URL_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, None: 1.0}
_SECRET = re.compile(r"key|secret|token|sas|password|credential|account_identity|authority|bearer", re.IGNORECASE)
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")

# Names of fsspec and boto3, and obstore's names for the same options.
_ALIASES = {
    "anon": "skip_signature",
    "endpoint_url": "endpoint",
    "key": "access_key_id",
    "secret": "secret_access_key",
    "region_name": "region",
    "request_timeout": "timeout",
}
_PREFIXES = {"s3": ("aws_",), "gs": ("google_",), "az": ("azure_storage_", "azure_")}
_POLICY = {
    "connect_timeout": "connect_timeout_s",
    "read_timeout": "read_timeout_s",
    "timeout": "timeout_s",
    "give_up_after": "give_up_after_s",
    "run_deadline": "run_deadline_s",
}
_CLIENT = ("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_ca_certificate", "proxy_excludes",
           "root_certificate", "user_agent", "http1_only", "http2_only", "pool_idle_timeout",
           "pool_max_idle_per_host", "randomize_addresses")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed URL with its options.

    Attributes:
        kind: ``s3``, ``gs``, ``az``, ``http`` or ``memory``.
        url: The URL as given, with secrets, for the client only.
        config: Options of this kind of store, by obstore's names; may hold secrets.
        client: Options of the HTTP client, by obstore's names.
        policy: Deadlines and timeouts.
        profile: Name of an AWS profile, or None for the default one.
    """

    kind: str
    url: str = field(repr=False)
    config: dict[str, str] = field(repr=False)
    client: dict[str, str | bool] = field(repr=False)
    policy: RetryPolicy
    profile: str | None

    @classmethod
    def parse(cls, url: str, options: Mapping[str, str] | None = None) -> Location:
        """Return the location of a URL and ``--storage-option`` values.

        Raises:
            StoreError: the scheme or an option is not supported, a value is not valid, or plain http is not allowed.
        """
        match = _URL_SCHEME.match(url)
        scheme = match[1].lower() if match else ""
        if scheme not in _SCHEMES:
            raise StoreError(
                f"{scheme}://...: no such kind of store. Give a folder, s3://, gs://, az://, https:// or memory://."
            )
        kind = _SCHEMES[scheme]
        before, mark, query = url.partition("?")
        _check_url(url)
        named = {_short_name(kind, name): str(value) for name, value in (options or {}).items()}
        if kind in ("s3", "az") and "token" in named:
            named["session_token" if kind == "s3" else "bearer_token"] = named.pop("token")
        times = {field: _seconds(name, named.pop(name)) for name, field in _POLICY.items() if name in named}
        policy = RetryPolicy(**times)
        profile = named.pop("profile", None)
        client: dict[str, str | bool] = {name: named.pop(name) for name in _CLIENT if name in named}
        for flag in ("allow_http", "allow_invalid_certificates", "http1_only", "http2_only", "randomize_addresses"):
            if flag in client:
                client[flag] = _boolean(flag, str(client[flag]))
        if kind == "http" and named:
            raise StoreError(f"{redact_url(url)}: {_names(named)}: not an option of a web server.")
        if kind == "s3" and "endpoint" not in named and (endpoint := endpoint_from_environment()) is not None:
            named["endpoint"] = endpoint
        if "endpoint" in named:
            _check_url(named["endpoint"])
        target = url if kind == "http" else named.get("endpoint", "")
        if target.lower().startswith("http://") and "allow_http" not in client:
            if not _LOOPBACK.fullmatch(urlsplit(target).hostname or ""):
                raise StoreError(
                    f"{redact_url(target)}: plain http lets anyone on the way read and change what is sent. "
                    "Use https://, or pass --storage-option allow_http=true."
                )
            client["allow_http"] = True
        trimmed = before.rstrip("/")
        place = trimmed if "://" in trimmed else before
        return cls(kind, f"{place}{mark}{query}", named, client, policy, profile)

    def without_user(self) -> tuple[str, dict[str, str]]:
        """Return the URL without user name and password, and the headers for basic authentication with them."""
        parts = urlsplit(self.url)
        user, at, host = parts.netloc.rpartition("@")
        if self.kind != "http" or not at:
            return self.url, {}
        name, _, password = user.partition(":")
        credentials = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode("ascii")
        return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {credentials}"}

    @property
    def holds_secrets(self) -> bool:
        """Whether the URL or an option may hold a secret, which must not leave this process."""
        options = {**self.config, **self.client}
        values = [self.url, *(value for value in options.values() if isinstance(value, str) and is_url(value))]
        return any(_has_secrets(value) for value in values) or any(map(_SECRET.search, options))


def is_url(text: str) -> bool:
    """Return whether a text is a URL rather than a path.

    >>> is_url("s3://lab/imagenet-real"), is_url("shards")
    (True, False)
    """
    return _URL_SCHEME.match(text) is not None


def redact_url(url: str) -> str:
    """Return a URL for messages: without user name, password, query and fragment.

    >>> redact_url("https://me:secret@host:8443/a/b.tar?X-Amz-Signature=1")
    'https://host:8443/a/b.tar'
    """
    if not is_url(url):
        return url
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")
    return f"{parts.scheme}://{place}"


def join_url(url: str, name: str) -> str:
    """Return the URL of a file below `url`; a query, such as a signature, stays at the end.

    >>> join_url("https://host/a?sig=1", "b.tar")
    'https://host/a/b.tar?sig=1'
    """
    before, mark, query = url.partition("?")
    return f"{before.rstrip('/')}/{quote(name)}{mark}{query}"


def split_url(url: str) -> tuple[str, str]:
    """Return the folder and the name of a file given by path or URL; the inverse of `join_url`.

    >>> split_url("https://host/a/b.tar?sig=1")
    ('https://host/a?sig=1', 'b.tar')
    >>> split_url("val.tar")
    ('.', 'val.tar')
    """
    if not is_url(url):
        path = Path(url)
        return str(path.parent), path.name
    before, mark, query = url.partition("?")
    place, _, name = before.rpartition("/")
    return f"{place}{mark}{query}", unquote(name) if url.lower().startswith("http") else name


def _short_name(kind: str, name: str) -> str:
    """Return obstore's name of an option, without the prefix for its kind of store."""
    short = name.lower()
    for prefix in _PREFIXES.get(kind, ()):
        short = short.removeprefix(prefix)
    return _ALIASES.get(short, short)


def _check_url(url: str) -> None:
    try:
        urlsplit(url).port  # noqa: B018 -- reading the property checks it
    except ValueError:
        raise StoreError(f"{url.partition('://')[0]}://...: not a URL. Check host, port and brackets.") from None


def _has_secrets(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.query or (not parts.scheme.startswith("abfs") and "@" in parts.netloc))


def _seconds(name: str, value: str) -> float:
    match = _DURATION.fullmatch(value.strip())
    if match is None or float(match[1]) <= 0:
        raise StoreError(f"storage option {name}: expected seconds above 0 such as 30 or 30s.")
    return float(match[1]) * _UNITS_S[match[2]]


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in (*_TRUE, *_FALSE):
        raise StoreError(f"storage option {name}: expected true or false.")
    return value.lower() in _TRUE


def _names(options: Mapping[str, str]) -> str:
    return first_few(sorted(options))
