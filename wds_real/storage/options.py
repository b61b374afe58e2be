"""Storage options, checked before the client library sees them: it aborts with a panic on some values.

Names are obstore's. Those of fsspec and boto3 are accepted too, and the prefixes of environment variables (``aws_``).
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wds_real.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CLIENT", "NAMES", "NOT_SENT", "check_host", "check_value", "is_secret", "named_options", "parse_bool",
           "parse_headers", "parse_seconds"]  # fmt: skip

_S3 = """
access_key_id checksum_algorithm conditional_put container_authorization_token_file container_credentials_full_uri
container_credentials_relative_uri copy_if_not_exists default_region disable_bulk_delete disable_tagging endpoint
imdsv1_fallback metadata_endpoint region request_payer role_arn role_session_name s3_express secret_access_key
server_side_encryption session_token skip_signature sse_bucket_key_enabled sse_customer_key_base64 sse_kms_key_id
endpoint_url_sts unsigned_payload virtual_hosted_style_request web_identity_token_file profile
"""
_GS = """
application_credentials base_url bearer_token service_account service_account_key service_account_path skip_signature
"""
_AZ = """
access_key account_key account_name authority_host authority_id bearer_token client_id client_secret credential_type
disable_tagging encryption_key endpoint fabric_cluster_identifier fabric_session_token fabric_token_service_url
fabric_workload_host federated_token_file identity_endpoint master_key msi_endpoint msi_resource_id object_id sas_key
sas_token skip_signature tenant_id use_azure_cli use_emulator use_fabric_endpoint
"""
CLIENT = (
    "allow_http", "allow_invalid_certificates", "http1_only", "http2_only", "pool_idle_timeout",
    "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url", "randomize_addresses",
    "root_certificate", "user_agent",
)  # fmt: skip
_EVERYWHERE = (
    *CLIENT,
    "allow_other_host",
    "connect_timeout",
    "give_up_after",
    "read_timeout",
    "run_deadline",
    "timeout",
)
NAMES = {
    "s3": (*_S3.split(), *_EVERYWHERE),
    "gs": (*_GS.split(), *_EVERYWHERE),
    "az": (*_AZ.split(), *_EVERYWHERE),
    "http": ("bearer_token", "headers", *_EVERYWHERE),
    "memory": _EVERYWHERE,
}
_PREFIXES = {"s3": ("aws_",), "gs": ("google_",), "az": ("azure_storage_", "azure_")}
_ALIASES = {
    "anon": "skip_signature",
    "endpoint_url": "endpoint",
    "key": "access_key_id",
    "region_name": "region",
    "request_timeout": "timeout",
    "requester_pays": "request_payer",
    "secret": "secret_access_key",
    "sts_endpoint": "endpoint_url_sts",
}
_TOKENS = {"s3": "session_token", "az": "bearer_token", "gs": "bearer_token", "http": "bearer_token"}

_BOOLEANS = (
    "allow_http", "allow_invalid_certificates", "allow_other_host", "disable_bulk_delete", "disable_tagging",
    "http1_only", "http2_only", "imdsv1_fallback", "randomize_addresses", "request_payer", "s3_express",
    "skip_signature", "sse_bucket_key_enabled", "unsigned_payload", "use_azure_cli", "use_emulator",
    "use_fabric_endpoint", "virtual_hosted_style_request",
)  # fmt: skip
_URLS = (
    "authority_host", "base_url", "container_credentials_full_uri", "endpoint", "endpoint_url_sts",
    "identity_endpoint", "metadata_endpoint", "msi_endpoint",
)  # fmt: skip
_PROXIES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_LINES = frozenset(("headers", "proxy_ca_certificate", "root_certificate", "service_account_key"))
_ANY_TEXT = frozenset(("account_key", "access_key", "application_credentials", "client_secret", "master_key", "profile",
                       "secret_access_key", "service_account", "service_account_path", "web_identity_token_file",
                       "federated_token_file", "container_authorization_token_file", "proxy_url"))  # fmt: skip
_REGION = (re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"), "not the name of a region, such as eu-west-1")
_FORMS = {
    "region": _REGION,
    "default_region": _REGION,
    "pool_max_idle_per_host": (re.compile(r"[0-9]{1,6}"), "expected a whole number"),
    "bearer_token": (re.compile(r"[\x21-\x7e]+"), "a token has no blanks, and is not empty"),
}
NOT_SENT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and bytes that are not UTF-8
_NOT_SENT_BUT_LINES = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*(ms|s|m|min|h)?")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, None: 1.0}
_MAX_SECONDS = 30 * 24 * 3600.0
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*")
_HEADERS = ("authorization", "cookie")  # the client drops these if a redirect leads to another host
_SECRET = re.compile(
    r"key|secret|token|sas|password|credential|account_identity|authority|bearer|headers", re.IGNORECASE
)
_USER = re.compile(r"://[^/]*@")
_HOST = re.compile(r"[A-Za-z0-9_~-]+(\.[A-Za-z0-9_~-]+)*\.?")
_TRUE, _FALSE = ("1", "true", "yes", "on", "requester"), ("0", "false", "no", "off", "")
_SHOWN = 3


def named_options(kind: str, options: Mapping[str, object], *, where: str) -> dict[str, str]:
    """Return the options of a kind of store by obstore's names, each value checked.

    Args:
        kind: ``s3``, ``gs``, ``az``, ``http`` or ``memory``.
        options: As the user gave them.
        where: The URL without secrets, for messages.

    Raises:
        StoreError: there is no such option, one is given twice, or a value is not valid; the message names the option
            and shows no value that may be a secret.
    """
    named: dict[str, str] = {}
    unknown = [given for given in options if _short_name(kind, given) not in NAMES[kind]]
    if unknown:
        raise StoreError(f"{where}: {_unknown(kind, unknown)}")
    for given, value in options.items():
        name = _short_name(kind, given)
        if name in named:
            raise StoreError(f"{where}: storage option {given}: {name} is given twice.")
        named[name] = check_value(name, str(value), f"storage option {given}")
    return named


def _unknown(kind: str, names: Iterable[str]) -> str:
    """Return what is wrong with option names, and which ones may be meant."""
    names = sorted(names)
    short = _short_name(kind, names[0])
    near = difflib.get_close_matches(short, (*NAMES[kind], *_ALIASES, "token"), n=_SHOWN, cutoff=0.6)
    advice = f" Did you mean {' or '.join(near)}?" if near else " The page on object storage lists the options."
    if kind == "http":
        return f"{', '.join(names)}: not an option of a web server.{advice}"
    return f"{', '.join(names)}: no such storage option.{advice}"


def _short_name(kind: str, name: str) -> str:
    """Return obstore's name of an option, without the prefix for its kind of store."""
    short = name.lower()
    for prefix in _PREFIXES.get(kind, ()):
        short = short.removeprefix(prefix)
    if short == "token":
        return _TOKENS.get(kind, short)
    return _ALIASES.get(short, short)


def check_value(name: str, value: str, what: str) -> str:
    """Return the value of an option as the client library takes it.

    Args:
        name: Name of the option in obstore.
        value: Value as the user gave it.
        what: The option in messages, such as ``storage option region``.

    Raises:
        StoreError: the value is not valid; it is not shown, because it may be a secret in the wrong place.
    """
    if (_NOT_SENT_BUT_LINES if name in _LINES else NOT_SENT).search(value):
        raise StoreError(f"{what}: holds a control character or bytes that are not UTF-8. Check for a line end.")
    if not value.isascii() and name not in _ANY_TEXT and name not in _LINES:
        raise StoreError(f"{what}: only ASCII characters can be sent. Check the value.")
    if name in _BOOLEANS:
        return "true" if parse_bool(value, what) else "false"
    if name in _URLS or name == "proxy_url":
        _check_url(value, what, schemes=_PROXIES if name == "proxy_url" else _PROXIES[:2])
    if name == "pool_idle_timeout":
        return f"{parse_seconds(value, what) * 1000:.0f}ms"
    if name == "headers":
        parse_headers(value, what)
    pattern, problem = _FORMS.get(name, (None, ""))
    if pattern is not None and not pattern.fullmatch(value):
        raise StoreError(f"{what}: {problem}.")
    return value


def _check_url(value: str, what: str, *, schemes: tuple[str, ...]) -> None:
    if "://" not in value:
        host = value.lstrip("/")
        known = re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?(/[\w./-]*)?", host)
        example = f"{schemes[0]}://{host}" if known else f"{schemes[0]}://host:port"
        raise StoreError(f"{what}: not a URL. Write the scheme too: {example}, or https://...")
    scheme, _, rest = value.partition("://")
    if scheme.lower() not in schemes:
        raise StoreError(f"{what}: expected a URL that begins with {' or '.join(f'{name}://' for name in schemes)}.")
    if any(mark in rest for mark in " ?#\\") or not value.isascii():
        raise StoreError(f"{what}: a blank or another character that no such URL holds. Check it.")
    check_host(value, what)


def check_host(url: str, what: str) -> None:
    """Raise StoreError unless host and port of a URL can be used; `what` names it in messages."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise StoreError(f"{what}: not a URL. Check host, port and brackets.") from None
    bracketed = "[" in parts.netloc
    if port == 0 or not (bracketed or _HOST.fullmatch(host)):
        raise StoreError(f"{what}: not a URL. Check host and port{' (names in ASCII)' if not host.isascii() else ''}.")


def parse_headers(value: str, what: str) -> dict[str, str]:
    """Return the headers in lines ``Name: value``.

    Raises:
        StoreError: a line is no header, or the client would send it on to another host after a redirect.
    """
    headers = {}
    for line in value.splitlines():
        match = _HEADER.fullmatch(line.strip())
        if match is None:
            raise StoreError(f"{what}: expected Name: value, such as Authorization: Bearer TOKEN; one header a line.")
        if match[1].lower() not in _HEADERS:
            raise StoreError(
                f"{what}: {match[1]} cannot be given: only Authorization and Cookie, which are not sent on to another "
                "host after a redirect."
            )
        headers[match[1].title()] = match[2]
    return headers


def parse_seconds(value: str, what: str) -> float:
    """Return a time in seconds, above 0 and at most 30 days."""
    match = _DURATION.fullmatch(value.strip())
    seconds = 0.0 if match is None else float(match[1]) * _UNITS_S[match[2]]
    if not 0.001 <= seconds <= _MAX_SECONDS:
        raise StoreError(f"{what}: expected seconds above 0 such as 30 or 30s, at most 30 days.")
    return seconds


def parse_bool(value: str, what: str) -> bool:
    """Return whether a text means true."""
    if value.lower() not in (*_TRUE, *_FALSE):
        raise StoreError(f"{what}: expected true or false.")
    return value.lower() in _TRUE


def is_secret(name: str, value: object) -> bool:
    """Return whether an option may hold a secret, by its name or because its value is a URL with a user."""
    return _SECRET.search(name) is not None or (isinstance(value, str) and _USER.search(value) is not None)
