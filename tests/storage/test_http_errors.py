"""parse_error, error_of: typed error responses, and messages without secrets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.errors import MissingError, StoreError, UnavailableError
from wds_real.storage.http_errors import NO_CREDENTIALS, ErrorResponse, Kind, error_of, parse_error

WHERE, REQUEST = "s3://lab/set/a.tar", "bytes 0-512"
URL = "https://lab.s3.amazonaws.com/set/a.tar?X-Amz-Signature=hidden"


class BaseError(Exception):
    """Stands for the client library's errors, which are told apart by class name and text."""


class GenericError(BaseError):
    pass


class AlreadyExistsError(BaseError):
    pass


class NotSupportedError(BaseError):
    pass


class PermissionDeniedError(BaseError):
    pass


class PreconditionError(BaseError):
    pass


class UnauthenticatedError(BaseError):
    pass


KINDS = (
    *(GenericError, AlreadyExistsError, NotSupportedError, PermissionDeniedError, PreconditionError),
    *(UnauthenticatedError, FileNotFoundError, OSError, ValueError),
)


def responded(status: int, code: str | None = None) -> str:
    """Return the library's text for an error response."""
    body = f"<Error><Code>{code}</Code><Message>hidden</Message></Error>" if code else ""
    return f"Error performing GET {URL} in 5ms - Server returned non-2xx status code: {status} Something: {body}"


def broken(how: str) -> str:
    """Return the library's text for a request without a response."""
    return f"Generic S3 error: Error performing GET {URL} in 5ms - HTTP error: {how}"


def error(raised: Exception) -> StoreError:
    """Return the error that a user sees for an error of the library that is not retried."""
    response = parse_error(raised)
    assert not response.kind.is_transient
    found = error_of(response, where=WHERE, request=REQUEST)
    assert str(found).startswith(f"{WHERE}: ")
    return found


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529])
def test_server_errors_are_transient(status: int) -> None:
    """The response has its status; the reason names it."""
    response = parse_error(GenericError(responded(status, "SlowDown")))
    assert response == ErrorResponse(status, Kind.SERVER_ERROR, "SlowDown")
    assert response.kind.is_transient
    assert response.reason == f"the server responded with status {status}"


@pytest.mark.parametrize("status", [400, 401, 403, 405, 406, 410, 411, 413, 418, 501, 505])
def test_refusals_are_not_retried(status: int) -> None:
    """The error says what was requested, and the status."""
    found = error(GenericError(responded(status)))
    assert type(found) is UnavailableError
    assert str(found).startswith(f"{WHERE}: {REQUEST}: ")
    assert str(found).endswith(f"({status})")


@pytest.mark.parametrize(
    ("kind", "status", "code", "message"),
    [
        (GenericError, 400, "ExpiredToken", "the credentials have expired"),
        (GenericError, 400, "TokenRefreshRequired", "the credentials have expired"),
        (GenericError, 400, "InvalidToken", "the session token is not valid"),
        (GenericError, 400, "AuthorizationHeaderMalformed", "wrong region. Set it: --storage-option region="),
        (GenericError, 301, "PermanentRedirect", "wrong region"),
        (GenericError, 400, "IllegalLocationConstraintException", "wrong region"),
        (PermissionDeniedError, 403, "RequestTimeTooSkewed", "clock is wrong.*timedatectl set-ntp true"),
        (GenericError, 403, "RequestTimeTooSkewed", "clock is wrong"),
        (PermissionDeniedError, 403, "InvalidAccessKeyId", "does not know the access key"),
        (PermissionDeniedError, 403, "SignatureDoesNotMatch", "the secret key does not belong"),
        (PermissionDeniedError, 403, "AccessDenied", "access denied.*skip_signature=true"),
        (UnauthenticatedError, 401, None, "requires credentials"),
        (FileNotFoundError, 404, "NoSuchBucket", "no such bucket"),
        (GenericError, 404, "NoSuchBucket", "no such bucket"),
        (FileNotFoundError, 404, "ContainerNotFound", "no such container"),
        (GenericError, 409, "ContainerBeingDeleted", "no such container"),
        (NotSupportedError, 501, "NotImplemented", "cannot do this"),
        (GenericError, 405, None, "A plain web server can only be read"),
    ],
)
def test_the_code_decides_the_message(kind: type[Exception], status: int, code: str | None, message: str) -> None:
    """The message says what to do, and names status and code."""
    with pytest.raises(UnavailableError, match=message) as caught:
        raise error(kind(responded(status, code)))
    assert str(caught.value).endswith(f"({status} {code})" if code else f"({status})")


S3_SKEW = (
    "<Error><Code>RequestTimeTooSkewed</Code><Message>hidden</Message><RequestTime>{}</RequestTime>"
    "<ServerTime>{}</ServerTime><MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds></Error>"
)
AZURE_SKEW = (
    "<Error><Code>AuthenticationFailed</Code><Message>hidden\nRequestId:hidden\nTime:{1}</Message>"
    "<AuthenticationErrorDetail>Request date header too old: '{0}'</AuthenticationErrorDetail></Error>"
)
GOOGLE_SKEW = (
    '{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token (60 minutes) and in '
    'a reasonable timeframe. Check your iat and exp values in the JWT claim."}'
)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (S3_SKEW.format("20261130T181500Z", "2026-11-30T20:15:07Z"), "clock is off: 2 h behind the server's"),
        (S3_SKEW.format("2026-12-02T21:16:00Z", "2026-11-30T20:15:00Z"), "clock is off: 2 d 1 h ahead of the server's"),
        (S3_SKEW.format("20261130T201500Z", "2026-11-30T20:14:00Z"), "clock is off: 1 min ahead of the server's"),
        (S3_SKEW.format("soon", "2026-11-30T20:14:00Z"), "clock is wrong"),
        (S3_SKEW.format("20261399T201500Z", "2026-11-30T20:14:00Z"), "clock is wrong"),
        (
            AZURE_SKEW.format("Mon, 30 Nov 2026 18:14:00 GMT", "2026-11-30T20:15:30.1234567Z"),
            "clock is off: 2 h 1 min behind the server's",
        ),
        (AZURE_SKEW.format("hidden", "hidden"), "clock is wrong"),
        (GOOGLE_SKEW, "clock is wrong"),
    ],
)
@pytest.mark.parametrize("kind", [PermissionDeniedError, GenericError])
def test_a_wrong_clock_is_said_with_its_error(kind: type[Exception], body: str, said: str) -> None:
    """From the times in the response, where both are there; what to do follows, and no text of the server."""
    found = error(kind(f"{responded(403)}{body}"))
    assert type(found) is UnavailableError
    assert f"this machine's {said}. Have it set by a time service" in str(found)
    assert "hidden" not in str(found)


@pytest.mark.parametrize(
    ("store", "request_", "code", "message"),
    [
        ("http", "look up", None, "A signed URL is for one file and expires"),
        ("http", "look up", "SignatureDoesNotMatch", "A signed URL is for one file and expires"),
        ("http", "bytes 0-5", "AccessDenied", r"--storage-option token="),
        ("s3", "write", "AccessDenied", "may write there"),
        ("s3", "write", "SignatureDoesNotMatch", "the secret key does not belong"),
        ("gs", "delete", None, "may write there"),
        ("s3", "list", "AccessDenied", "skip_signature=true"),
        ("az", "look up", None, "skip_signature=true"),
    ],
)
def test_access_denied_says_what_to_do_there(store: str, request_: str, code: str | None, message: str) -> None:
    """A web server has other credentials than a bucket, and who may read may not always write."""
    response = parse_error(PermissionDeniedError(responded(403, code))).asked_of(store, request_)
    assert response.status == 403
    found = error_of(response, where=WHERE, request=request_)
    assert type(found) is UnavailableError
    assert re.search(message, str(found)), str(found)


@pytest.mark.parametrize(
    "body",
    [
        "<Error><Code>AccessDenied</Code><Message>Request has expired</Message><Expires>hidden</Expires></Error>",
        (
            "<Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>Signature not valid in the specified "
            "time frame: Start [hidden] - Expiry [hidden] - Current [hidden]</AuthenticationErrorDetail></Error>"
        ),
        "<Error><Code>ExpiredToken</Code><Details>Request signature expired at: hidden</Details></Error>",
    ],
)
def test_an_expired_url_is_said(body: str) -> None:
    """Other credentials would not help; the URL has to be made again."""
    response = parse_error(PermissionDeniedError(f"{responded(403)}{body}")).asked_of("http", REQUEST)
    found = error_of(response, where=WHERE, request=REQUEST)
    assert type(found) is UnavailableError
    assert "the signed URL, or the SAS token, has expired. Make a new one." in str(found)
    assert "hidden" not in str(found)


def test_a_name_says_nothing_of_the_error() -> None:
    """Words of the server's messages may be in the name of a file, and so in the URL."""
    for words in ("RequestTimeTooSkewed", "Request%20signature%20expired", "date%20header%20too%20old"):
        text = responded(403, "AccessDenied").replace("a.tar", words)
        assert parse_error(PermissionDeniedError(text)).kind is Kind.FORBIDDEN


def test_a_file_without_length_is_refused() -> None:
    """A chunked response could end early unnoticed."""
    text = "Generic HTTP error: Content-Length Header missing from response\n\nDebug source: MissingContentLength"
    assert "does not say how long the file is" in str(error(GenericError(text)))


def test_a_redirect_without_location_is_a_wrong_region() -> None:
    """S3 responds like this where the bucket is in another region."""
    text = "Received redirect without LOCATION, this normally indicates an incorrectly configured region"
    with pytest.raises(UnavailableError, match="wrong region"):
        raise error(GenericError(f"Generic S3 error: {text}"))


def test_a_missing_file_is_a_missing_error() -> None:
    """404 is MissingError, whatever the code, unless it is the bucket."""
    for raised in (FileNotFoundError(responded(404)), FileNotFoundError(responded(404, "NoSuchKey"))):
        assert type(error(raised)) is MissingError
        assert str(error(raised)) == f"{WHERE}: no such file. Check the URL."


def test_an_existing_object_is_a_store_error() -> None:
    """An exclusive write that finds an object is not an outage."""
    for status in (409, 412):
        found = error(AlreadyExistsError(responded(status)))
        assert type(found) is StoreError
        assert "is there already" in str(found)


def test_a_replaced_object_is_a_store_error() -> None:
    """A failed precondition means that the object is another version."""
    for raised in (PreconditionError(responded(412)), GenericError(responded(412))):
        found = error(raised)
        assert type(found) is StoreError
        assert "was replaced while it was read" in str(found)


def test_a_range_beyond_the_end_is_a_store_error() -> None:
    """The object is shorter than expected, as a file can be; the message names the range."""
    for raised in (
        GenericError(responded(416, "InvalidRange")),
        GenericError(broken("InvalidGetRange: StartTooLarge")),
    ):
        found = error(raised)
        assert type(found) is StoreError
        assert REQUEST in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "GET http://169.254.169.254/latest/api/token",
        "PUT http://127.0.0.1:1/latest/api/token",
        "GET http://metadata/computeMetadata/v1/instance",
        "GET http://169.254.169.254/metadata/identity/oauth2/token",
    ],
)
def test_an_unreachable_metadata_service_means_no_credentials(text: str) -> None:
    """The library asks it for credentials if it has none."""
    found = error(GenericError(f"Generic S3 error: Error performing {text} in 5s - HTTP error: timed out"))
    assert type(found) is UnavailableError
    assert str(found) == f"{WHERE}: {NO_CREDENTIALS}"


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("error sending request: kind: Timeout", Kind.TIMEOUT),
        ("error sending request: dns error: no such host", Kind.NAME_NOT_RESOLVED),
        ("failed to lookup address information", Kind.NAME_NOT_RESOLVED),
        ("error sending request: kind: Connect, refused", Kind.NO_CONNECTION),
        ("kind: Interrupted", Kind.BROKEN_CONNECTION),
        ("request or response body error", Kind.BROKEN_CONNECTION),
        ("RangeNotSupported", Kind.RANGE_IGNORED),
        ("something new", Kind.UNKNOWN),
    ],
)
def test_errors_without_a_response_are_transient(how: str, kind: Kind) -> None:
    """The text says the kind, whatever the class of the error."""
    for raised in (GenericError, OSError, ValueError):
        response = parse_error(raised(broken(how)))
        assert response == ErrorResponse(None, kind, None)
        assert response.kind.is_transient


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("invalid peer certificate: UnknownIssuer", "certificate is not trusted"),
        ("received corrupt message of type InvalidContentType", "does not speak TLS"),
        ("builder error: relative URL without a base", "not complete"),
        ("Missing configuration: container", "not complete"),
    ],
)
def test_errors_of_tls_and_options_are_not_retried(how: str, message: str) -> None:
    """They would fail again."""
    with pytest.raises(UnavailableError, match=message):
        raise error(GenericError(broken(how)))


@pytest.mark.parametrize("path", ["set", "certificates", "latest/meta-data", "dns error", "builder error"])
def test_object_names_do_not_change_the_kind(path: str) -> None:
    """Words in the URL are ignored."""
    text = f"Error performing GET https://lab.example/{path}/a.tar in 5ms - HTTP error: kind: Connect"
    assert parse_error(GenericError(text)).kind is Kind.NO_CONNECTION


SECRETS = st.sampled_from(["AKIAHIDDEN7", "hidden/secret+key=", "hidden-password", "X-Amz-Signature=hidden0"])
PARTS = st.sampled_from(
    [
        *("Error performing GET ", "status code: 403 ", "status code: 503 ", "status code: 418 ", "status code: 404 "),
        *("<Code>AccessDenied</Code>", "<Code>ExpiredToken</Code>", "<Code>", "</Code>", "kind: Timeout", "dns error"),
        *("certificate", "without LOCATION", "builder error", "/latest/api/token", " "),
    ]
)


@given(kind=st.sampled_from(KINDS), parts=st.lists(PARTS | SECRETS | st.text(max_size=9), max_size=12))
def test_no_text_of_the_library_is_passed_on(kind: type[Exception], parts: list[str]) -> None:
    """Neither the parsed response nor the error holds secrets of the library's text."""
    response = parse_error(kind("".join(parts)))
    found = error_of(response, where=WHERE, request=REQUEST)
    text = f"{response} {response.reason} {found!r} {found.args} {vars(found)}"
    assert "hidden" not in text.lower()
