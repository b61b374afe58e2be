"""refusal_of: what became of a request, in sentences that can hold no secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.errors import MissingError, StoreError, UnavailableError
from wds_real.storage.http_errors import NO_CREDENTIALS, is_slow_down, refusal_of
from wds_real.storage.retry import TransientError

WHERE, REQUEST = "s3://lab/set/a.tar", "bytes 0-512"
URL = "https://lab.s3.amazonaws.com/set/a.tar?X-Amz-Signature=hidden"


class BaseError(Exception):
    """Stands for the client library's errors, which are known by their names and texts only."""


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


def answered(status: int, code: str | None = None) -> str:
    """Return the library's text for an answer of a server."""
    body = f"<Error><Code>{code}</Code><Message>hidden</Message></Error>" if code else ""
    return f"Error performing GET {URL} in 5ms - Server returned non-2xx status code: {status} Something: {body}"


def broken(how: str) -> str:
    """Return the library's text for an answer that did not come."""
    return f"Generic S3 error: Error performing GET {URL} in 5ms - HTTP error: {how}"


def refused(error: Exception) -> StoreError:
    result = refusal_of(error, where=WHERE, request=REQUEST)
    assert isinstance(result, StoreError)
    assert str(result).startswith(f"{WHERE}: ")
    return result


def fault(error: Exception) -> TransientError:
    result = refusal_of(error, where=WHERE, request=REQUEST)
    assert isinstance(result, TransientError)
    return result


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529])
def test_an_overloaded_server_may_recover(status: int) -> None:
    """Server errors are tried again, after a wait; the reason says the status."""
    found = fault(GenericError(answered(status)))
    assert (found.reason, found.at_once) == (f"the server answered {status}", False)
    assert is_slow_down(found) == (status in {429, 503})


@pytest.mark.parametrize("status", [400, 401, 403, 405, 406, 410, 411, 413, 418, 501, 505])
def test_a_refusal_is_final(status: int) -> None:
    """What the server will say again is not asked again; the error says what was asked, and the status."""
    found = refused(GenericError(answered(status)))
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
        (PermissionDeniedError, 403, "RequestTimeTooSkewed", "clock is wrong"),
        (PermissionDeniedError, 403, "InvalidAccessKeyId", "does not know the access key"),
        (PermissionDeniedError, 403, "SignatureDoesNotMatch", "the secret key does not belong"),
        (PermissionDeniedError, 403, "AccessDenied", "access denied.*skip_signature=true"),
        (UnauthenticatedError, 401, None, "wants credentials"),
        (FileNotFoundError, 404, "NoSuchBucket", "no such bucket"),
        (NotSupportedError, 501, "NotImplemented", "cannot do this"),
        (GenericError, 405, None, "A plain web server can only be read"),
    ],
)
def test_the_server_s_reason_is_said(kind: type[Exception], status: int, code: str | None, message: str) -> None:
    """The server's code decides what to do about it, and is named."""
    with pytest.raises(UnavailableError, match=message) as caught:
        raise refused(kind(answered(status, code)))
    assert str(caught.value).endswith(f"({status} {code})" if code else f"({status})")


def test_a_redirect_to_nowhere_is_a_wrong_region() -> None:
    """So S3 answers where the bucket is elsewhere."""
    text = "Received redirect without LOCATION, this normally indicates an incorrectly configured region"
    with pytest.raises(UnavailableError, match="wrong region"):
        raise refused(GenericError(f"Generic S3 error: {text}"))


def test_a_missing_file_is_known_as_such() -> None:
    """404 is MissingError, whatever the code, unless it is the bucket."""
    for error in (FileNotFoundError(answered(404)), FileNotFoundError(answered(404, "NoSuchKey"))):
        assert type(refused(error)) is MissingError
        assert str(refused(error)) == f"{WHERE}: no such file. Check the URL."


def test_what_is_there_already_is_no_outage() -> None:
    """An exclusive write that finds another is a StoreError of its own."""
    for status in (409, 412):
        found = refused(AlreadyExistsError(answered(status)))
        assert type(found) is StoreError
        assert "is there already" in str(found)


def test_what_was_replaced_is_no_outage() -> None:
    """A failed precondition says what the object is: another one."""
    for error in (PreconditionError(answered(412)), GenericError(answered(412))):
        found = refused(error)
        assert type(found) is StoreError
        assert "was replaced while it was read" in str(found)


def test_a_range_that_is_not_there_is_no_outage() -> None:
    """A range behind the end says what the object is, as with a folder."""
    assert not isinstance(refused(GenericError(answered(416, "InvalidRange"))), UnavailableError)


@pytest.mark.parametrize(
    "text",
    [
        "GET http://169.254.169.254/latest/api/token",
        "PUT http://127.0.0.1:1/latest/api/token",
        "GET http://metadata/computeMetadata/v1/instance",
        "GET http://169.254.169.254/metadata/identity/oauth2/token",
    ],
)
def test_a_metadata_service_that_is_not_there_means_no_credentials(text: str) -> None:
    """Nobody asked for that service; what is missing is credentials."""
    found = refused(GenericError(f"Generic S3 error: Error performing {text} in 5s - HTTP error: timed out"))
    assert type(found) is UnavailableError
    assert str(found) == f"{WHERE}: {NO_CREDENTIALS}"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("error sending request: kind: Timeout", "no answer in time"),
        ("error sending request: dns error: no such host", "the server's name cannot be resolved"),
        ("failed to lookup address information", "the server's name cannot be resolved"),
        ("error sending request: kind: Connect, refused", "no connection to the server"),
        ("kind: Interrupted", "the connection broke"),
        ("request or response body error", "the connection broke"),
        ("something new", "the request failed on the way"),
    ],
)
def test_a_broken_connection_may_be_mended(how: str, reason: str) -> None:
    """Whatever happened on the way is tried again, the first time at once."""
    for kind in (GenericError, OSError, ValueError):
        found = fault(kind(broken(how)))
        assert (found.reason, found.at_once, is_slow_down(found)) == (reason, True, False)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("invalid peer certificate: UnknownIssuer", "certificate is not trusted"),
        ("received corrupt message of type InvalidContentType", "does not speak TLS"),
        ("builder error: relative URL without a base", "not complete"),
        ("Missing configuration: container", "not complete"),
    ],
)
def test_what_no_repetition_mends_is_final(how: str, message: str) -> None:
    """TLS that fails once fails again, and so do options that lack something."""
    with pytest.raises(UnavailableError, match=message):
        raise refused(GenericError(broken(how)))


@pytest.mark.parametrize("path", ["set", "certificates", "latest/meta-data", "dns error", "builder error"])
def test_a_name_decides_nothing(path: str) -> None:
    """What an object is called does not make a broken connection anything else."""
    text = f"Error performing GET https://lab.example/{path}/a.tar in 5ms - HTTP error: kind: Connect"
    assert fault(GenericError(text)).reason == "no connection to the server"


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
    """Whatever an error says: a fault or an error of ours, without the secrets of the text."""
    result = refusal_of(kind("".join(parts)), where=WHERE, request=REQUEST)
    assert isinstance(result, (StoreError, TransientError))
    text = f"{result} {result!r} {result.args} {vars(result)}"
    assert "hidden" not in text.lower()
