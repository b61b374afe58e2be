"""Parse URLs with their storage options, and redact URLs for messages.

In a web server's URL, the path is percent-encoded, and a query, such as a signature, applies to every file. In an
object store's URL, everything after the bucket is the key, character for character: ``#``, ``%``, blanks and braces
have no special meaning. ``?`` is refused there, because other tools put options and secrets after it.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from wds_real.errors import StoreError
from wds_real.storage.environment import endpoint_from_environment, hub_from_environment, variable_from_environment
from wds_real.storage.options import (
    CLIENT,
    NOT_SENT,
    check_host,
    check_value,
    is_secret,
    named_options,
    parse_headers,
    parse_seconds,
)
from wds_real.storage.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Location", "is_url", "join_url", "redact_url", "refuse_broken_url", "same_host", "split_url"]

_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "adl": "az",
            "http": "http", "https": "http", "hf": "http", "memory": "memory"}  # fmt: skip
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
_BUCKET = re.compile(r"[A-Za-z0-9_$][A-Za-z0-9_$.-]*")
_HUB = re.compile(
    r"hf://(datasets/|spaces/|models/|)([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.*))?", re.IGNORECASE | re.DOTALL
)
_HUB_HOSTS = ("huggingface.co", "hf.co")
_POLICY = {
    "connect_timeout": "connect_timeout_s",
    "read_timeout": "read_timeout_s",
    "timeout": "timeout_s",
    "give_up_after": "give_up_after_s",
    "run_deadline": "run_deadline_s",
}

_URL_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_BROKEN_URL = re.compile(r"(s3|s3a|gs|gcs|az|abfs|abfss|adl|https?|memory|hf):/?(?!/)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed URL with its options.

    Attributes:
        kind: ``s3``, ``gs``, ``az``, ``http`` or ``memory``.
        url: The URL as given, with secrets, for the client only; for ``hf://``, the URL on Hugging Face's hub.
        config: Options of this kind of store, by obstore's names; may hold secrets.
        client: Options of the HTTP client, by obstore's names.
        policy: Deadlines and timeouts.
        profile: Name of an AWS profile, or None for the default one.
        headers: Sent with each request to a web server; may hold secrets.
        holds_secrets: Whether the URL or an option may hold a secret, which must not leave this process.
    """

    kind: str
    url: str = field(repr=False)
    config: dict[str, str] = field(repr=False)
    client: dict[str, str | bool] = field(repr=False)
    policy: RetryPolicy
    profile: str | None
    headers: dict[str, str] = field(repr=False)
    holds_secrets: bool

    @classmethod
    def parse(cls, url: str, options: Mapping[str, str] | None = None) -> Location:
        """Return the location of a URL and ``--storage-option`` values.

        Raises:
            StoreError: the scheme or an option is not supported, the URL or a value is not valid, or plain http is not
                allowed.
        """
        match = _URL_SCHEME.match(url)
        scheme = match[1].lower() if match else ""
        if scheme not in _SCHEMES:
            raise StoreError(
                f"{scheme}://...: no such kind of store. Give a folder, s3://, gs://, az://, https://, hf:// or "
                "memory://."
            )
        kind, where = _SCHEMES[scheme], redact_url(url)
        _check_place(url, kind, scheme, where)
        url = _hub_url(url, where) if scheme == "hf" else url
        named = named_options(kind, options or {}, where=where)
        holds_secrets = _has_secrets(url) or any(is_secret(name, value) for name, value in named.items())
        policy = RetryPolicy(
            **{field: parse_seconds(named.pop(name), f"storage option {name}")
               for name, field in _POLICY.items() if name in named}
        )  # fmt: skip
        profile = named.pop("profile", None)
        named.pop("allow_other_host", None)  # for the caller, see `wds_real.format.root.open_shards`
        client: dict[str, str | bool] = {
            name: {"true": True, "false": False}.get(named[name], named[name]) for name in CLIENT if name in named
        }
        config = {name: value for name, value in named.items() if name not in CLIENT}
        headers = _headers(url, config, where) if kind == "http" else {}
        _check_environment(kind, named)
        if kind == "s3" and "endpoint" not in config and (endpoint := endpoint_from_environment()) is not None:
            config["endpoint"] = check_value("endpoint", endpoint.value, endpoint.name)
        target = url if kind == "http" else config.get("endpoint", "")
        if target.lower().startswith("http://") and "allow_http" not in client:
            if not _LOOPBACK.fullmatch(urlsplit(target).hostname or ""):
                raise StoreError(
                    f"{redact_url(target)}: plain http lets anyone on the way read and change what is sent. "
                    "Use https://, or pass --storage-option allow_http=true."
                )
            client["allow_http"] = True
        before, mark, query = url.partition("?")
        trimmed = before.rstrip("/")
        place = trimmed if "://" in trimmed else before
        return cls(kind, f"{place}{mark}{query}", config, client, policy, profile, headers, holds_secrets)

    @property
    def bucket_url(self) -> str:
        """The URL of an object store without the key."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}"

    @property
    def prefix(self) -> str:
        """The key after the bucket, without slashes at its ends; "" for the whole bucket."""
        return self.url.partition("://")[2].partition("/")[2].strip("/")

    def without_user(self) -> tuple[str, dict[str, str]]:
        """Return the URL without user name and password, and the headers, with these as basic authentication."""
        parts = urlsplit(self.url)
        user, at, host = parts.netloc.rpartition("@")
        if self.kind != "http" or not at:
            return self.url, self.headers
        name, _, password = user.partition(":")
        credentials = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode("ascii")
        return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {credentials}", **self.headers}


def is_url(text: str) -> bool:
    """Return whether a text is a URL rather than a path.

    >>> is_url("s3://lab/imagenet-real"), is_url("shards")
    (True, False)
    """
    return _URL_SCHEME.match(text) is not None


def refuse_broken_url(text: str) -> None:
    """Raise StoreError for a URL without its second slash, which pathlib removes: it would be taken for a folder."""
    found = _BROKEN_URL.match(text)
    if found is not None:
        scheme = found[1].lower()
        raise StoreError(f"{scheme}:...: not a URL. Write {scheme}://..., and in Python give a str, not a Path.")


def redact_url(url: str) -> str:
    """Return a URL for messages: without user name, password and query, and a web server's without fragment.

    >>> redact_url("https://me:secret@host:8443/a/b.tar?X-Amz-Signature=1")
    'https://host:8443/a/b.tar'
    """
    if not is_url(url):
        return url
    scheme, _, rest = url.partition("://")
    place = re.split("[?#]" if _is_web(url) else "[?]", rest, maxsplit=1)[0]
    host, slash, path = place.partition("/")
    shown = host.rpartition("@")[2] + slash + path
    return f"{scheme.lower()}://{shown.rstrip('/')}"


def same_host(one: str, other: str) -> bool:
    """Return whether the requests for two URLs go to the same host by the same protocol; two buckets share a host.

    >>> same_host("https://host/a", "https://host:444/a"), same_host("s3://one/a", "s3://two/b")
    (False, True)
    """
    return _host_of(one) == _host_of(other)


def _host_of(url: str) -> tuple[object, ...]:
    scheme, _, rest = url.partition("://")
    kind = _SCHEMES.get(scheme.lower(), scheme)
    if kind == "http":
        parts = urlsplit(url)
        return scheme.lower(), parts.hostname, parts.port
    _, at, account = rest.partition("/")[0].rpartition("@")
    return kind, account if at else ""


def join_url(url: str, name: str) -> str:
    """Return the URL of a file below `url`; a web server's query, such as a signature, stays at the end.

    >>> join_url("https://host/a?sig=1", "b.tar")
    'https://host/a/b.tar?sig=1'
    """
    if not _is_web(url):
        return f"{url.rstrip('/')}/{name}"
    before, mark, query = url.partition("?")
    return f"{before.rstrip('/')}/{quote(name, safe='')}{mark}{query}"


def split_url(url: str) -> tuple[str, str]:
    """Return the folder and the name of a file given by path or URL; the inverse of `join_url`.

    >>> split_url("https://host/a/b.tar?sig=1")
    ('https://host/a?sig=1', 'b.tar')
    >>> split_url("val.tar")
    ('.', 'val.tar')

    Raises:
        StoreError: the name in a web server's URL is not encoded UTF-8.
    """
    if not is_url(url):
        path = Path(url)
        return str(path.parent), path.name
    if not _is_web(url):
        place, _, name = url.rpartition("/")
        return place, name
    before, mark, query = url.partition("?")
    place, _, name = before.rpartition("/")
    try:
        return f"{place}{mark}{query}", unquote(name, errors="strict")
    except UnicodeDecodeError:
        raise StoreError(f"{redact_url(url)}: the name is not UTF-8, percent-encoded.") from None


def _is_web(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))


def _check_place(url: str, kind: str, scheme: str, where: str) -> None:
    """Raise StoreError unless the client can take the URL as it is written."""
    rest = url.partition("://")[2]
    host, _, path = rest.partition("/")
    if NOT_SENT.search(url):
        raise StoreError(
            f"{scheme}://...: the URL holds a control character or bytes that are not UTF-8. Check for a line end."
        )
    if scheme == "hf":
        return
    if kind == "http":
        if "#" in url:
            raise StoreError(f"{where}: what is behind # is never sent to a server. Write %23 for a # in a name.")
        check_host(url, f"{scheme}://...")
        return
    try:
        urlsplit(url)
    except ValueError as error:  # a bracket that is not closed
        raise StoreError(f"{scheme}://...: not a valid URL: {error}. Check the name behind it.") from error
    if "?" in rest:
        raise StoreError(
            f"{where}: a ? in the URL of an object store is not taken. Pass options with --storage-option NAME=VALUE; "
            "a folder with a ? in its name cannot be used."
        )
    _check_bucket(host, kind, scheme, where)
    parts = path.rstrip("/").split("/") if path.rstrip("/") else []
    wrong = next((part for part in parts if part in ("", ".", "..")), None)
    if wrong is not None:
        raise StoreError(f"{where}: {wrong or 'an empty name'!r} between slashes cannot be part of a key. Remove it.")


def _check_bucket(host: str, kind: str, scheme: str, where: str) -> None:
    if "@" in host and not scheme.startswith("abfs"):
        raise StoreError(f"{scheme}://...: no user and password in the URL of an object store. Set credentials apart.")
    bucket, _, account = host.partition("@")
    if ":" in host:
        raise StoreError(
            f"{where}: a bucket has no port. Write {scheme}://BUCKET/PATH and name the server with --storage-option "
            "endpoint=..."
        )
    if kind != "memory" and not _BUCKET.fullmatch(bucket):
        raise StoreError(f"{scheme}://...: not the name of a bucket. Write {scheme}://BUCKET/PATH.")
    if account:
        check_host(f"https://{account}", f"{scheme}://...")


def _hub_url(url: str, where: str) -> str:
    """Return the URL on Hugging Face's hub of ``hf://datasets/USER/NAME@REVISION/PATH``."""
    match = _HUB.fullmatch(url)
    if match is None or match[2].lower().startswith(("datasets/", "spaces/", "models/")):
        raise StoreError(f"{where}: expected hf://datasets/USER/NAME/PATH, or hf://datasets/USER/NAME@REVISION/PATH.")
    kind, repository, revision, path = match.groups()
    parts = [*(part for part in (path or "").split("/") if part)]
    if {".", ".."} & {*parts, *repository.split("/")}:
        raise StoreError(f"{where}: . and .. cannot be parts of the path. Remove them.")
    kind = "" if kind.lower() == "models/" else kind.lower()
    hub = check_value("endpoint", hub_from_environment(), "HF_ENDPOINT").rstrip("/")
    base = f"{hub}/{kind}{repository}/resolve/{quote(unquote(revision or 'main'), safe='')}"
    return "/".join((base, *(quote(part, safe="") for part in parts)))


def _headers(url: str, config: dict[str, str], where: str) -> dict[str, str]:
    """Return the headers that the options, or the environment for Hugging Face's hub, give; remove those options."""
    headers = parse_headers(config.pop("headers", ""), "storage option headers")
    token = config.pop("bearer_token", None)
    parts = urlsplit(url)
    given = ["Authorization"] * ((token is not None) + ("Authorization" in headers) + ("@" in parts.netloc))
    if len(given) > 1:
        raise StoreError(f"{where}: a token, headers and a user in the URL exclude each other. Give one of them.")
    if token is None and not given and parts.scheme == "https" and parts.hostname in _HUB_HOSTS:
        token = _hub_token()
    return headers if token is None else {**headers, "Authorization": f"Bearer {token}"}


def _hub_token() -> str | None:
    """Return Hugging Face's token from the environment, checked."""
    found = variable_from_environment("HF_TOKEN").strip()
    return check_value("bearer_token", found, "HF_TOKEN") if found else None


def _check_environment(kind: str, named: Mapping[str, str]) -> None:
    """Check the variables that the client library reads, as options are checked."""
    for variable, name in _VARIABLES.get(kind, {}).items():
        value = variable_from_environment(variable)
        if value and name not in named:
            check_value(name, value, variable)


_VARIABLES = {
    "s3": {
        "AWS_REGION": "region",
        "AWS_DEFAULT_REGION": "region",
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_SESSION_TOKEN": "session_token",
        "AWS_ENDPOINT": "endpoint",
        "AWS_METADATA_ENDPOINT": "metadata_endpoint",
        "AWS_ENDPOINT_URL_STS": "endpoint_url_sts",
        "AWS_SKIP_SIGNATURE": "skip_signature",
        "AWS_REQUEST_PAYER": "request_payer",
    },
    "gs": {"GOOGLE_BASE_URL": "base_url", "GOOGLE_SKIP_SIGNATURE": "skip_signature"},
    "az": {"AZURE_STORAGE_ENDPOINT": "endpoint", "AZURE_STORAGE_TOKEN": "bearer_token"},
}


def _has_secrets(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.query or (not parts.scheme.startswith("abfs") and "@" in parts.netloc))
