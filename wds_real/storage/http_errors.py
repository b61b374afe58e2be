"""What went wrong with a request, in our own words.

The client library says it in one long text, with the URL, the signature and whatever the server answered. None of that
is passed on, since it may hold secrets: a status, one word of the server's error code and the kind of fault are read
from it, and the sentences are ours.
"""

from __future__ import annotations

import re

from wds_real.errors import MissingError, StoreError, UnavailableError
from wds_real.storage.retry import TransientError

__all__ = ["NO_CREDENTIALS", "is_slow_down", "refusal_of"]

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529}
_SLOW_DOWN = {429, 503}

_URL = re.compile(r"https?://[^\s,\"]+")
# Where the client library asks for credentials if it was given none; objects are called otherwise.
_METADATA = re.compile(
    r"http://(169\.254\.169\.254|metadata\.google\.internal|[^/]+"
    r"(/latest/api/token$|/latest/meta-data/iam/security-credentials|/computeMetadata/v1/|/metadata/identity/oauth2/))"
)

NO_CREDENTIALS = (
    "no credentials were found. Set them as your other tools do (environment variables or a profile, for which boto3 "
    "must be installed), or pass --storage-option skip_signature=true for a public bucket."
)
_ADVICE = {
    "ExpiredToken": "the credentials have expired. Get new ones.",
    "TokenRefreshRequired": "the credentials have expired. Get new ones.",
    "RequestTimeTooSkewed": "this machine's clock is wrong. Set it.",
    "InvalidAccessKeyId": "the server does not know the access key. Check the credentials.",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key. Check the credentials.",
    "InvalidToken": "the session token is not valid. Get new credentials.",
    "AuthorizationHeaderMalformed": "wrong region. Set it: --storage-option region=...",
    "PermanentRedirect": "wrong region. Set it: --storage-option region=...",
    "IllegalLocationConstraintException": "wrong region. Set it: --storage-option region=...",
    "NoSuchBucket": "there is no such bucket. Check the URL.",
}
_BY_STATUS = {
    400: "the server did not understand the request. Check endpoint, region and credentials.",
    401: "the server wants credentials. Set them as your other tools do, or check them.",
    403: "access denied. Check the credentials and what they allow; for a public bucket pass --storage-option "
    "skip_signature=true.",
    405: "the server does not allow this. A plain web server can only be read.",
    501: "the server cannot do this.",
}


def refusal_of(error: Exception, *, where: str, request: str) -> StoreError | TransientError:
    """Return what to raise, or to try again, for an error of the client library.

    Args:
        error: As caught.
        where: The file's URL, without secrets.
        request: What was asked for, such as ``bytes 0-512``.

    Returns:
        `TransientError` for what may pass: overload, server errors, broken connections, time-outs. `MissingError` for
        404, `UnavailableError` for every other refusal.
    """
    text, kind = str(error), type(error).__name__
    words = _URL.sub("", text)
    found = _STATUS.search(text)
    status = int(found[1]) if found else None
    code = found[1] if (found := _CODE.search(text)) else None
    if kind == "AlreadyExistsError":
        return StoreError(f"{where}: is there already; another run made it meanwhile.")
    if any(map(_METADATA.match, _URL.findall(text))):
        return UnavailableError(f"{where}: {NO_CREDENTIALS}")
    if kind == "PreconditionError" or (status == 412 and kind != "AlreadyExistsError"):
        return StoreError(f"{where}: was replaced while it was read. Start again when nobody writes there.")
    if status == 416 or "StartTooLarge" in text or "InvalidGetRange" in text:
        return StoreError(f"{where}: {request} asked for, but the object ends before. It is not what was expected.")
    if status in _MAY_PASS:
        return TransientError(f"the server answered {status}", at_once=False)
    if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
        return MissingError(f"{where}: no such file. Check the URL.")
    if (refusal := _permanent(words, kind, status, code)) is not None:
        detail = " ".join(part for part in (str(status) if status else "", code or "") if part)
        return UnavailableError(f"{where}: {request}: {refusal}" + (f" ({detail})" if detail else ""))
    return TransientError(_transport(words), at_once=True)


def is_slow_down(fault: TransientError) -> bool:
    """Return whether the server asked for fewer requests, and so may have said for how long."""
    return any(fault.reason.endswith(f"answered {status}") for status in _SLOW_DOWN)


def _permanent(text: str, kind: str, status: int | None, code: str | None) -> str | None:
    """Return why it is of no use to try again, or None if it may be."""
    if code in _ADVICE:
        return _ADVICE[code]
    if "without LOCATION" in text or "incorrectly configured region" in text:
        return _ADVICE["PermanentRedirect"]
    if kind == "UnauthenticatedError":
        return _BY_STATUS[401]
    if kind == "PermissionDeniedError":
        return _BY_STATUS[403]
    if kind in ("NotSupportedError", "NotImplementedError"):
        return _BY_STATUS[501]
    if status is not None:
        return _BY_STATUS.get(status, "the server refused.")
    if "certificate" in text.lower() or "InvalidContentType" in text or "CorruptMessage" in text:
        return "no secure connection: the certificate is not trusted, or the server does not speak TLS."
    if "missing configuration" in text.lower() or "builder error" in text.lower():
        return "the URL or the options are not complete. Check them."
    return None


def _transport(text: str) -> str:
    for sign, reason in (
        ("kind: Timeout", "no answer in time"),
        ("dns error", "the server's name cannot be resolved"),
        ("failed to lookup address", "the server's name cannot be resolved"),
        ("kind: Connect", "no connection to the server"),
        ("kind: Interrupted", "the connection broke"),
        ("body error", "the connection broke"),
    ):
        if sign in text:
            return reason
    return "the request failed on the way"
