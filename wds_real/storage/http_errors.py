"""Typed errors of HTTP requests: status, kind and the server's error code, parsed from the client library's errors.

An error of the library has one text, with the URL, its signature and the body of the response, which may hold secrets.
So only the status, the server's error code, the two clocks and the kind of error are taken from the text. The messages
are this module's own.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import re
from dataclasses import dataclass, replace
from enum import Enum

from wds_real.errors import MissingError, StoreError, UnavailableError

__all__ = ["NO_CREDENTIALS", "PANIC", "ErrorResponse", "Kind", "error_of", "is_panic", "parse_error"]

PANIC = (
    "the client library failed (the lines above are its own). A storage option, or an environment variable that it "
    "reads, has a value that it cannot use."
)

NO_CREDENTIALS = (
    "no credentials were found. Set them as your other tools do (environment variables or a profile, for which boto3 "
    "must be installed), or pass --storage-option skip_signature=true for a public bucket."
)
_WRONG_REGION = "wrong region. Set it: --storage-option region=..."
_EXPIRED = "the credentials have expired. Get new ones."
_NO_CONTAINER = "there is no such container. Check the URL and the name of the account."
_SET_CLOCK = "Have it set by a time service, such as with `timedatectl set-ntp true`."


class Kind(Enum):
    """What went wrong with a request; the value is the message."""

    # May succeed when repeated.
    SERVER_ERROR = "the server failed"
    TIMEOUT = "no response in time"
    NAME_NOT_RESOLVED = "the server's name cannot be resolved"
    NO_CONNECTION = "no connection to the server"
    BROKEN_CONNECTION = "the connection broke"
    UNKNOWN = "the request failed"
    # The response does not match the request. One may be a passing fault; several in a row are an error.
    RANGE_IGNORED = "the server ignored the range"
    WRONG_RANGE = "the response holds other bytes than requested"
    OTHER_VERSION = "the response is of another version of the object"
    # Repeating does not help.
    NOT_FOUND = "no such file. Check the URL."
    ALREADY_EXISTS = "is there already; another run made it meanwhile."
    PRECONDITION_FAILED = (
        "was replaced while it was read. Start again when nobody writes there. If nobody did, mirrors with different "
        "ETags answer: index the shards with --checksums, then their bytes decide."
    )
    RANGE_NOT_SATISFIABLE = "the object ends before the requested bytes. It is not what was expected."
    NO_CREDENTIALS = NO_CREDENTIALS
    WRONG_REGION = _WRONG_REGION
    BAD_REQUEST = "the server did not understand the request. Check endpoint, region and credentials."
    BAD_REQUEST_ON_WEB = "the server did not understand the request. Check the URL; give a signed URL whole, in quotes."
    UNAUTHENTICATED = (
        "the server requires credentials. Set them as your other tools do, or check them. For a web server, pass "
        "--storage-option token=...; Hugging Face's token is also read from HF_TOKEN."
    )
    FORBIDDEN = (
        "access denied. Check the credentials and what they allow; for a public bucket pass --storage-option "
        "skip_signature=true."
    )
    FORBIDDEN_WRITE = (
        "access denied. Check that the credentials may write there, and that no policy of the bucket forbids it."
    )
    FORBIDDEN_ON_WEB = (
        "access denied. A signed URL is for one file and expires: give the whole URL, in quotes, or make a new one. A "
        "server with accounts takes user:password@ before the host, or --storage-option token=..."
    )
    EXPIRED_URL = "the signed URL, or the SAS token, has expired. Make a new one."
    WRONG_CLOCK = f"this machine's clock is wrong. {_SET_CLOCK}"
    NO_LENGTH = "the server does not say how long the file is, so its end cannot be checked. Download it first."
    NOT_ALLOWED = "the server does not allow this. A plain web server can only be read."
    NOT_IMPLEMENTED = "the server cannot do this."
    REFUSED = "the server refused."
    NO_S3_SERVER = (
        "the response is not that of an S3 server, so this says nothing about the object. Check endpoint and URL."
    )
    REDIRECTED = "the server redirects in a circle, more than ten times, or to plain http."
    NO_TLS = "no secure connection: the certificate is not trusted, or the server does not speak TLS."
    INCOMPLETE_OPTIONS = "the URL or the options are not complete. Check them."

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self in _TRANSIENT


_TRANSIENT = frozenset({Kind.SERVER_ERROR, Kind.TIMEOUT, Kind.NAME_NOT_RESOLVED, Kind.NO_CONNECTION,
                        Kind.BROKEN_CONNECTION, Kind.UNKNOWN, Kind.RANGE_IGNORED, Kind.WRONG_RANGE,
                        Kind.OTHER_VERSION})  # fmt: skip
_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529}
_BY_CLASS = {
    "AlreadyExistsError": Kind.ALREADY_EXISTS,
    "PreconditionError": Kind.PRECONDITION_FAILED,
    "UnauthenticatedError": Kind.UNAUTHENTICATED,
    "PermissionDeniedError": Kind.FORBIDDEN,
    "NotSupportedError": Kind.NOT_IMPLEMENTED,
    "NotImplementedError": Kind.NOT_IMPLEMENTED,
}
_BY_STATUS = {
    400: Kind.BAD_REQUEST,
    401: Kind.UNAUTHENTICATED,
    403: Kind.FORBIDDEN,
    405: Kind.NOT_ALLOWED,
    412: Kind.PRECONDITION_FAILED,
    416: Kind.RANGE_NOT_SATISFIABLE,
    501: Kind.NOT_IMPLEMENTED,
}
# Messages by the server's error code; they replace the message of the kind.
_BY_CODE = {
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidAccessKeyId": "the server does not know the access key. Check the credentials.",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key. Check the credentials.",
    "InvalidToken": "the session token is not valid. Get new credentials.",
    "AuthorizationHeaderMalformed": _WRONG_REGION,
    "PermanentRedirect": _WRONG_REGION,
    "IllegalLocationConstraintException": _WRONG_REGION,
    "NoSuchBucket": "there is no such bucket. Check the URL.",
    "ContainerNotFound": _NO_CONTAINER,
    "ContainerBeingDeleted": _NO_CONTAINER,
}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted")
# The library has no class or status for these; the first match counts.
_BY_TEXT = (
    (re.compile(r"RangeNotSupported|NotPartial|non-partial"), Kind.RANGE_IGNORED),
    (re.compile(r"StartTooLarge|InvalidGetRange"), Kind.RANGE_NOT_SATISFIABLE),
    (re.compile(r"MissingContentLength"), Kind.NO_LENGTH),
    (re.compile(r"without LOCATION|incorrectly configured region"), Kind.WRONG_REGION),
    (re.compile(r"[Cc]ertificate|InvalidContentType|CorruptMessage"), Kind.NO_TLS),
    (re.compile(r"following redirect|too many redirects"), Kind.REDIRECTED),
    (re.compile(r"missing configuration|builder error", re.IGNORECASE), Kind.INCOMPLETE_OPTIONS),
    (re.compile(r"kind: Timeout"), Kind.TIMEOUT),
    (re.compile(r"dns error|failed to lookup address"), Kind.NAME_NOT_RESOLVED),
    (re.compile(r"kind: Connect"), Kind.NO_CONNECTION),
    (re.compile(r"kind: Interrupted|body error"), Kind.BROKEN_CONNECTION),
)
# Kinds whose message is not replaced by that of the server's error code.
_OWN_MESSAGES = frozenset({Kind.BAD_REQUEST_ON_WEB, Kind.EXPIRED_URL, Kind.FORBIDDEN_ON_WEB, Kind.WRONG_CLOCK})
_ON_WEB = {Kind.BAD_REQUEST: Kind.BAD_REQUEST_ON_WEB, Kind.FORBIDDEN: Kind.FORBIDDEN_ON_WEB}
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_URL = re.compile(r"https?://[^\s,\"]+")
# Responses of S3, Azure and Google's sign-in to a request whose date is too far from the server's clock.
_CLOCK = re.compile(
    r"<Code>RequestTimeTooSkewed</Code>|Request date header too old|Invalid JWT: Token must be a short-lived token"
)
# Responses of S3, Azure and Google to an expired signed URL.
_EXPIRED_URL = re.compile(
    r"<Message>Request has expired|Signature not valid in the specified time frame|Request signature expired"
)
_TIMES = (
    (re.compile(r"<RequestTime>([0-9TZ:.-]{1,40})</"), re.compile(r"<ServerTime>([0-9TZ:.-]{1,40})</")),
    (re.compile(r"date header too old: '([\w ,:]{1,40})'"), re.compile(r"Time:([0-9TZ:.-]{1,40})")),
)
# Metadata servers, which the library asks for credentials if it was given none; no object has such a URL.
_METADATA = re.compile(
    r"http://(169\.254\.169\.254|metadata\.google\.internal|[^/]+"
    r"(/latest/api/token$|/latest/meta-data/iam/security-credentials|/computeMetadata/v1/|/metadata/identity/oauth2/))"
)


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """A failed request: the error response, or the reason why there is no response.

    Attributes:
        status: The HTTP status, or None if there was no response.
        kind: What went wrong.
        code: The error code in the body, such as ``NoSuchKey``, or None.
        ahead_s: Seconds that this machine's clock is ahead of the server's, or None if the response does not tell.
    """

    status: int | None
    kind: Kind
    code: str | None
    ahead_s: float | None = None

    @property
    def reason(self) -> str:
        """What went wrong, as a sentence without secrets."""
        if self.kind is Kind.SERVER_ERROR:
            return f"the server responded with status {self.status}"
        if self.kind is Kind.WRONG_CLOCK and self.ahead_s is not None:
            way = "ahead of" if self.ahead_s > 0 else "behind"
            return f"this machine's clock is off: {_span(abs(self.ahead_s))} {way} the server's. {_SET_CLOCK}"
        message: str = self.kind.value
        return message if self.kind in _OWN_MESSAGES else _BY_CODE.get(self.code or "", message)

    def asked_of(self, store: str, request: str) -> ErrorResponse:
        """Return the response with the kind that fits the store and the request.

        Args:
            store: ``s3``, ``gs``, ``az``, ``http`` or ``memory``.
            request: What was requested, such as ``write``.
        """
        if store == "http" and self.kind in _ON_WEB:
            return replace(self, kind=_ON_WEB[self.kind])
        if self.kind is Kind.FORBIDDEN and self.code not in _BY_CODE and request in ("write", "delete"):
            return replace(self, kind=Kind.FORBIDDEN_WRITE)
        reads = request in ("look up", "download") or request.startswith("bytes ")
        if store == "s3" and reads and self.kind is Kind.NOT_FOUND and self.code is None:
            return replace(self, kind=Kind.NO_S3_SERVER)
        return self


def is_panic(error: BaseException) -> bool:
    """Return whether the client library panicked; its PanicException is no Exception and cannot be imported."""
    return type(error).__name__ == "PanicException"


def parse_error(error: Exception) -> ErrorResponse:
    """Return what an error of the client library says, without its text."""
    text = str(error)
    found = _STATUS.search(text)
    status = int(found[1]) if found else None
    code = found[1] if (found := _CODE.search(text)) else None
    without_urls = _URL.sub("", text)  # a file name must not match
    if _CLOCK.search(without_urls):
        return ErrorResponse(status, Kind.WRONG_CLOCK, code, _ahead_s(text))
    if _EXPIRED_URL.search(without_urls):
        return ErrorResponse(status, Kind.EXPIRED_URL, code)
    return ErrorResponse(status, _kind_of(error, text, status, code), code)


def _ahead_s(text: str) -> float | None:
    """Return the time of the request minus that of the server, in seconds, or None if the text lacks one of them."""
    for request, server in _TIMES:
        found = [pattern.search(text) for pattern in (request, server)]
        with contextlib.suppress(ValueError):
            asked, answered = (_time(match[1]) for match in found if match is not None)
            return (asked - answered).total_seconds()
    return None


def _time(text: str) -> dt.datetime:
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        time = email.utils.parsedate_to_datetime(text)
    return time if time.tzinfo is not None else time.replace(tzinfo=dt.UTC)


def _span(seconds: float) -> str:
    """Return a time in its largest unit and the next one.

    >>> _span(7265), _span(95), _span(200_000)
    ('2 h 1 min', '1 min 35 s', '2 d 7 h')
    """
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    at = next((at for at, (_, size) in enumerate(units) if seconds >= size), len(units) - 1)
    name, size = units[at]
    shown, left = f"{int(seconds // size)} {name}", seconds % size
    if at + 1 == len(units) or left < units[at + 1][1]:
        return shown
    return f"{shown} {int(left // units[at + 1][1])} {units[at + 1][0]}"


def _kind_of(error: Exception, text: str, status: int | None, code: str | None) -> Kind:
    without_urls = _URL.sub("", text)  # a file name must not match
    by_text = next((kind for pattern, kind in _BY_TEXT if pattern.search(without_urls)), None)
    if by_text is Kind.RANGE_IGNORED:
        return by_text
    if any(map(_METADATA.match, _URL.findall(text))):
        return Kind.NO_CREDENTIALS
    if status in _TRANSIENT_STATUS:
        return Kind.SERVER_ERROR
    if isinstance(error, FileNotFoundError) and code not in _NO_BUCKET:
        return Kind.NOT_FOUND
    if (kind := _BY_CLASS.get(type(error).__name__) or _BY_STATUS.get(status or 0)) is not None:
        return kind
    if status is not None or code in _BY_CODE:
        return Kind.WRONG_REGION if by_text is Kind.WRONG_REGION else Kind.REFUSED
    return by_text or Kind.UNKNOWN


def error_of(response: ErrorResponse, *, where: str, request: str) -> StoreError:
    """Return the error to raise for a response that is not retried.

    Args:
        response: From `parse_error`.
        where: The file's URL, without secrets.
        request: What was requested, such as ``bytes 0-512``.

    Returns:
        MissingError for a missing file; StoreError where the object exists, was replaced or is too short;
        UnavailableError for everything else, which is not about the object.
    """
    kind = response.kind
    if kind is Kind.NOT_FOUND:
        return MissingError(f"{where}: {kind.value}")
    if kind in (Kind.ALREADY_EXISTS, Kind.PRECONDITION_FAILED):
        return StoreError(f"{where}: {kind.value}")
    if kind is Kind.RANGE_NOT_SATISFIABLE:
        return StoreError(f"{where}: {request}: {kind.value}")
    if kind is Kind.NO_CREDENTIALS:
        return UnavailableError(f"{where}: {kind.value}")
    detail = " ".join(str(part) for part in (response.status, response.code) if part)
    return UnavailableError(f"{where}: {request}: {response.reason}" + (f" ({detail})" if detail else ""))
