"""Storage options: names, values, and what the client library would panic on."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import from_url

from wds_real.errors import StoreError
from wds_real.storage.http_errors import is_panic
from wds_real.storage.obstore_client import ObstoreClient
from wds_real.storage.options import check_host, check_value, is_secret, named_options, parse_headers, parse_seconds
from wds_real.storage.url import Location

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS = ("s3", "gs", "az", "http", "memory")


def parse(kind: str, options: Mapping[str, object]) -> dict[str, str]:
    return named_options(kind, options, where="the place")


@pytest.mark.parametrize(
    ("kind", "wrong", "near"),
    [
        ("s3", "regoin", "region"),
        ("s3", "acces_key_id", "access_key_id"),
        ("s3", "endpoint-url", "endpoint_url"),
        ("s3", "skip_signatures", "skip_signature"),
        ("s3", "requester_pay", "requester_pays"),
        ("gs", "service_acount", "service_account"),
        ("az", "acount_name", "account_name"),
        ("http", "bearertoken", "bearer_token"),
        ("http", "header", "headers"),
        ("memory", "timeuot", "timeout"),
    ],
)
def test_a_misspelt_option_gets_the_nearest_names(kind: str, wrong: str, near: str) -> None:
    """The message shows the name, not the value."""
    with pytest.raises(StoreError, match=rf"^the place: {wrong}: n.*Did you mean (.* or )?{near}[ ?]") as caught:
        parse(kind, {wrong: "hidden"})
    assert "hidden" not in str(caught.value)


def test_an_option_like_no_other_gets_the_page() -> None:
    """Instead of a guess."""
    with pytest.raises(StoreError, match=r"^the place: zzz: no such storage option. The page on object storage lists"):
        parse("s3", {"zzz": "1"})


def test_an_option_is_given_once() -> None:
    """Two names of one option could hold two values."""
    with pytest.raises(StoreError, match="storage option key: access_key_id is given twice"):
        parse("s3", {"aws_access_key_id": "a", "key": "b"})


BAD = {
    "endpoint": ["localhost:9000", "minio.lab:9000", "//host", "https:/host", "http://host:1/a b", "http://", "", "http:///x",
                 "ftp://host", "http://host:99999", "http://host:0", "http://[::1", "http://host?x", "http://host#x",
                 "http://h\\x", "http://höst", "http://host\n", "http://a|b"],
    "proxy_url": ["x", "localhost:3128", "://", "http://a b", "http://[", "http://h:99999", "ftp://h", "http://h\0"],
    "region": ["bad region", "a\0b", "ü", "a/b", "a:b", "", "-a", "a" * 65],
    "access_key_id": ["a\nb", "a\0b", "ü"],
    "session_token": ["a\nb", "a\0b", "ü"],
    "secret_access_key": ["a\nb", "a\0b"],
    "user_agent": ["a\nb", "ü", "a\0"],
    "skip_signature": ["maybe", "2"],
    "request_payer": ["someone"],
    "allow_http": ["maybe"],
    "pool_idle_timeout": ["x", "inf", "-1"],
    "pool_max_idle_per_host": ["x", "-1", "1.5"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_value_that_cannot_be_used_is_refused(name: str, value: str) -> None:
    """In one line that names the option and does not show the value: it may be a secret in the wrong place."""
    with pytest.raises(StoreError, match=rf"^the place: storage option {name}: |^storage option {name}: ") as caught:
        parse("s3", {name: value})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("localhost:9000", "http://localhost:9000, or https://"),
        ("//minio/x", "http://minio/x, or https://"),
        ("@", "host:port"),
    ],
)
def test_an_endpoint_without_a_scheme_is_completed(value: str, advice: str) -> None:
    """The message says what to write."""
    with pytest.raises(StoreError, match=f"not a URL. Write the scheme too: .*{advice}"):
        check_value("endpoint", value, "AWS_ENDPOINT_URL")


GOOD = {
    "endpoint": ["http://127.0.0.1:9000", "https://minio.lab:9000/path", "https://[::1]:9", "HTTPS://s3_local"],
    "proxy_url": ["http://me:pass@proxy:3128", "socks5://proxy"],
    "region": ["eu-west-1", "us_east", "auto", "Region.One"],
    "secret_access_key": ["a b/+=ü"],
    "user_agent": ["me (x)/1.0"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_good_values_are_kept(name: str, value: str) -> None:
    """As they are."""
    assert parse("s3", {name: value}) == {name: value}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("Bearer x", "expected Name: value"),
        ("X-Auth-Token: x", "X-Auth-Token cannot be given: only Authorization and Cookie"),
        ("Authorization:", "expected Name: value"),
        ("Authorization: ü", "expected Name: value"),
        ("Host: other", "Host cannot be given"),
    ],
)
def test_headers_that_would_be_sent_on_are_refused(value: str, reason: str) -> None:
    """After a redirect to another host, the client drops these two only."""
    with pytest.raises(StoreError, match=reason):
        parse_headers(value, "storage option headers")


@pytest.mark.parametrize("text", ["1e999", "9" * 400, "0.0001", "0ms", "31000000"])
def test_a_time_has_bounds(text: str) -> None:
    """From a millisecond to 30 days."""
    with pytest.raises(StoreError, match="at most 30 days"):
        parse_seconds(text, "storage option timeout")


def test_secrets_are_known_by_name_and_by_a_user_in_a_url() -> None:
    """Everything else can be shown."""
    assert is_secret("session_token", "x")
    assert is_secret("headers", "x")
    assert is_secret("proxy_url", "http://me:x@proxy")
    assert not is_secret("proxy_url", "http://proxy/a@b")
    assert not is_secret("region", "eu-west-1")


def test_hosts_have_letters_and_ports_are_in_range() -> None:
    """As the client takes them."""
    check_host("https://[::1]:65535/x", "it")
    for url in ("https://[::1/x", "https://:80", "https://a..b/"):
        with pytest.raises(StoreError, match=r"^it: not a URL"):
            check_host(url, "it")


@pytest.mark.parametrize("kind", ["s3", "gs", "az"])
def test_the_client_knows_every_option(kind: str) -> None:
    """No name in the table is unknown to it, so that none is refused only at the first request."""
    from wds_real.storage import options

    url, base = {"s3": ("s3://lab", {}), "gs": ("gs://lab", {}), "az": ("az://c", {"account_name": "a"})}[kind]
    ours = {*options.CLIENT, "profile", "allow_other_host", "give_up_after", "run_deadline", "connect_timeout",
            "read_timeout", "timeout"}  # fmt: skip
    refused = []
    for name in {*options.NAMES[kind]} - ours:
        try:
            from_url(url, config={**base, name: "true"})  # type: ignore[call-overload]
        except (ValueError, obstore.exceptions.BaseError) as error:  # a wrong value is another error
            refused += [name] if "is not valid for store" in str(error) else []
    assert refused == []


TEXTS = st.one_of(
    st.text(string.printable + "üß\0", max_size=12),
    st.builds("{}{}{}".format, st.sampled_from(["http://", "https://", "http:/", "//", ""]),
              st.text("ah1.:-_[]@/% #?", max_size=12), st.sampled_from(["", ":9000", ":x", "/a b"])),
)  # fmt: skip


@settings(max_examples=150)
@given(options=st.dictionaries(st.sampled_from(["endpoint", "region", "access_key_id", "session_token", "user_agent",
                                                "proxy_url", "secret_access_key"]), TEXTS, max_size=3))  # fmt: skip
def test_no_option_makes_the_client_panic(options: dict[str, str]) -> None:
    """Whatever the values are, the outcome is a response, an error of this package, or one of the client's errors."""
    known = {"access_key_id": "a", "secret_access_key": "b", "endpoint": "http://127.0.0.1:1", "timeout": "1s"}
    try:
        client = ObstoreClient(Location.parse("s3://lab/set", {**known, "allow_http": "true", **options}))
    except StoreError:
        return
    if not options.keys() & {"endpoint", "proxy_url"}:  # no request leaves this machine
        with pytest.raises(client.errors):
            client.get("x", 0, 1, None)


def test_a_panic_is_known_by_its_name() -> None:
    """It has no class that could be imported."""

    class PanicException(BaseException):
        pass

    assert is_panic(PanicException())
    assert not is_panic(KeyboardInterrupt())
