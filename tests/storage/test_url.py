"""Location: URLs and options, parsed, and which of them hold secrets."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.errors import StoreError
from wds_real.storage.retry import RetryPolicy
from wds_real.storage.store import open_store
from wds_real.storage.url import Location, is_url, join_url, redact_url, split_url

NAMES = st.text("abcXYZ019._-", min_size=1, max_size=12).filter(lambda text: set(text) != {"."})
URLS = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["https", "http", "s3", "gs", "az"]),
    NAMES,
    st.sampled_from(["", ":8443"]),
    st.lists(NAMES, max_size=3).map(lambda parts: "".join(f"/{part}" for part in parts)),
)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        *(("s3://lab/set", "s3"), ("s3a://lab/set", "s3"), ("S3://lab/set", "s3")),
        *(("gs://lab/set", "gs"), ("gcs://lab/set", "gs")),
        *(("az://lab/set", "az"), ("abfs://lab/set", "az"), ("abfss://lab/set", "az"), ("adl://lab/set", "az")),
        *(("https://host/set", "http"), ("http://localhost/set", "http"), ("memory://set", "memory")),
    ],
)
def test_a_scheme_selects_the_kind_of_store(url: str, kind: str) -> None:
    """All usual schemes, in any case; the URL stays as given."""
    location = Location.parse(url)
    assert (location.kind, location.url) == (kind, url)


@pytest.mark.parametrize("url", ["ftp://host/set", "file:///set", "s4://lab/set", "hdfs://host/set"])
def test_an_unknown_scheme_is_an_error(url: str) -> None:
    """The error names the scheme and those that are supported."""
    with pytest.raises(StoreError, match=rf"^{url.partition(':')[0]}://\.\.\.: no such kind of store.*s3://"):
        Location.parse(url)


def test_a_trailing_slash_has_no_meaning() -> None:
    """A URL with it and without it is the same location."""
    assert Location.parse("s3://lab/set/") == Location.parse("s3://lab/set")


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        *(("anon", "skip_signature"), ("endpoint_url", "endpoint"), ("key", "access_key_id"), ("REGION", "region")),
        *(("secret", "secret_access_key"), ("token", "session_token"), ("region_name", "region")),
    ],
)
def test_option_names_of_other_tools_are_translated(given_name: str, name: str) -> None:
    """Names of fsspec and boto3 become obstore's; values become text."""
    assert Location.parse("s3://lab/set", {given_name: "https://x"}).config == {name: "https://x"}


@pytest.mark.parametrize(
    "name", ["aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_endpoint", "aws_skip_signature"]
)
def test_long_option_names_are_shortened(name: str) -> None:
    """Obstore takes both, so both must decide about credentials and plain http."""
    assert Location.parse("s3://lab/set", {name: "https://x"}).config == {name.removeprefix("aws_"): "https://x"}


def test_a_token_depends_on_the_store() -> None:
    """It is the session token of S3 and the bearer token of Azure."""
    assert Location.parse("s3://lab/set", {"token": "t"}).config == {"session_token": "t"}
    assert Location.parse("az://lab/set", {"token": "t"}).config == {"bearer_token": "t"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("30s", 30.0), (" 1.5 s ", 1.5), ("500ms", 0.5), ("2m", 120.0), ("2min", 120.0), ("1h", 3600.0)],
)
def test_times_may_have_units(text: str, seconds: float) -> None:
    """Without one, they are seconds."""
    assert Location.parse("s3://lab/set", {"read_timeout": text}).policy == RetryPolicy(read_timeout_s=seconds)


@pytest.mark.parametrize("text", ["0", "0s", "-1", "soon", "1d", "", "inf", "nan", "1e3", "5 5"])
def test_an_invalid_time_is_an_error(text: str) -> None:
    """Zero and unreadable values are errors that name the option."""
    with pytest.raises(StoreError, match=r"^storage option give_up_after: expected seconds above 0 such as"):
        Location.parse("s3://lab/set", {"give_up_after": text})


def test_each_deadline_has_an_option() -> None:
    """All fields of `RetryPolicy` can be set, for any kind of store."""
    options = {"connect_timeout": "1", "read_timeout": "2", "timeout": "3", "give_up_after": "4", "run_deadline": "5"}
    expected = RetryPolicy(connect_timeout_s=1, read_timeout_s=2, timeout_s=3, give_up_after_s=4, run_deadline_s=5)
    for url in ("s3://lab/set", "https://host/set", "gs://lab/set", "memory://set"):
        assert Location.parse(url, options).policy == expected
    assert Location.parse("s3://lab/set", {"request_timeout": "3"}).policy.timeout_s == 3


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("ON", True), ("false", False), ("no", False)]
)
def test_flags_are_true_or_false(text: str, value: bool) -> None:
    """The usual words are understood."""
    assert Location.parse("s3://lab/set", {"allow_http": text}).client == {"allow_http": value}


def test_an_invalid_flag_is_an_error() -> None:
    """A typing error does not count as false."""
    with pytest.raises(StoreError, match=r"^storage option allow_http: expected true or false\.$"):
        Location.parse("s3://lab/set", {"allow_http": "treu"})


def test_an_unknown_option_of_a_web_server_is_an_error() -> None:
    """A web server takes deadlines and client options only; the message shows no value."""
    with pytest.raises(StoreError, match=r"^https://host/set: region, secret_access_key: not an option") as caught:
        Location.parse("https://host/set", {"region": "x", "secret": "hidden"})
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost/set", "http://127.0.0.1:80/set", "http://127.9.9.9/set", "http://[::1]:80/set"]
)
def test_plain_http_works_for_localhost(url: str) -> None:
    """No option is needed there."""
    assert Location.parse(url).client == {"allow_http": True}
    assert Location.parse("s3://lab/set", {"endpoint": url}).client == {"allow_http": True}


@pytest.mark.parametrize(
    "url",
    [
        *("http://host/set", "HTTP://host/set", "http://localhost.example/set", "http://127.0.0.1.example/set"),
        *("http://localhost@example/set", "http://10.0.0.1/set", "http://me:hidden@host/set?sig=hidden"),
    ],
)
def test_plain_http_elsewhere_needs_an_option(url: str) -> None:
    """Both for URLs and endpoints."""
    for place, options in ((url, {}), ("s3://lab/set", {"endpoint": url})):
        with pytest.raises(StoreError, match="allow_http=true") as caught:
            Location.parse(place, options)
        assert "hidden" not in str(caught.value)
        assert Location.parse(place, {**options, "allow_http": "true"}).client == {"allow_http": True}


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_environment_can_name_the_endpoint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's variables do, unless there is an option; other kinds of stores ignore them."""
    monkeypatch.setenv(name, "http://127.0.0.1:9/")
    assert Location.parse("s3://lab/set").config == {"endpoint": "http://127.0.0.1:9/"}
    assert Location.parse("s3://lab/set", {"endpoint": "https://x"}).config == {"endpoint": "https://x"}
    assert Location.parse("gs://lab/set").config == {}


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("https://me:hidden@host/set", {}),
        ("https://host/set?sig=hidden", {}),
        ("az://lab/set", {"sas_token": "hidden"}),
        ("az://lab/set", {"bearer_token": "hidden"}),
        ("az://lab/set", {"access_key": "hidden"}),
        ("az://lab/set", {"client_secret": "hidden"}),
        ("s3://lab/set", {"access_key_id": "hidden"}),
        ("s3://lab/set", {"secret_access_key": "hidden"}),
        ("s3://lab/set", {"session_token": "hidden"}),
        ("s3://lab/set", {"sse_customer_key_base64": "hidden"}),
        ("gs://lab/set", {"service_account_key": "hidden"}),
        ("https://hidden@host/set", {}),
        ("https://host/set", {"proxy_url": "http://me:hidden@proxy:3128"}),
        ("https://host/set", {"proxy_url": "socks5://me:hidden@proxy:3128"}),
        ("s3://lab/set", {"endpoint": "https://me:hidden@host"}),
        ("s3://me:hidden@lab/set", {}),
    ],
)
def test_secrets_are_detected(url: str, options: dict[str, str]) -> None:
    """In URLs and options; `repr` of the location shows none."""
    location = Location.parse(url, options)
    assert "hidden" not in repr(location)
    assert location.holds_secrets


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://lab/set", {"region": "x", "endpoint": "https://x", "skip_signature": "true", "profile": "me"}),
        ("https://host:8443/set", {"read_timeout": "3", "user_agent": "x", "proxy_url": "http://proxy:3128"}),
        ("memory://set", {}),
    ],
)
def test_other_options_are_not_secrets(url: str, options: dict[str, str]) -> None:
    """Regions, endpoints, profile names and deadlines can be pickled."""
    assert not Location.parse(url, options).holds_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://lab", True),
        ("S3A://lab", True),
        ("x+y.z-1://", True),
        ("shards", False),
        ("/a/b://c", False),
        ("", False),
    ],
)
def test_urls_and_paths_are_told_apart(text: str, expected: bool) -> None:
    """A URL starts with a scheme."""
    assert is_url(text) is expected


@given(url=URLS, name=NAMES, query=st.sampled_from(["", "?sig=abc&x=/../", "?"]))
def test_joining_and_splitting_are_inverse(url: str, name: str, query: str) -> None:
    """A file's URL is that of its folder and its name; the query belongs to the folder."""
    place, found = split_url(join_url(url + query, name))
    assert (place, found) == (url + query, name)


@pytest.mark.parametrize(
    "scheme",
    [
        "http",
        "https",
        ("HTTPS"),
    ],
)
@given(name=st.text("a0 %?#+&=ä~", min_size=1, max_size=9))
def test_names_are_quoted_in_urls_of_web_servers(scheme: str, name: str) -> None:
    """Splitting the URL returns the name unquoted."""
    url = join_url(f"{scheme}://host/set?sig=1", name)
    assert url.isascii()
    assert url.count("?") == 1
    assert "#" not in url
    assert split_url(url) == (f"{scheme}://host/set?sig=1", name)


def test_a_path_is_split_into_folder_and_name() -> None:
    """Like a URL."""
    assert split_url("a/b/val.tar") == ("a/b", "val.tar")
    assert split_url("/val.tar") == ("/", "val.tar")


@given(
    url=URLS,
    user=st.text("QWJ%2", max_size=9),
    password=st.text("QWJ%2:", max_size=9),
    query=st.text("QWJ=&/?@", max_size=9),
    fragment=st.text("QWJ/@", max_size=9),
)
def test_redacted_urls_hold_no_secrets(url: str, user: str, password: str, query: str, fragment: str) -> None:
    """User name, password, query and fragment are removed; the rest stays."""
    scheme, _, rest = url.partition("://")
    assert redact_url(f"{scheme}://{user}:{password}@{rest}?{query}#{fragment}") == url


def test_paths_are_not_redacted() -> None:
    """File names may hold what would be a query or a user in a URL."""
    assert redact_url("a@b/c?d#e") == "a@b/c?d#e"


@pytest.mark.parametrize(
    "url", ["https://[::1/set?sig=hidden", "http://[::1/set", "s3://[lab/set", "http://localhost:port/set"]
)
def test_an_invalid_url_is_a_store_error(url: str) -> None:
    """An address with wrong brackets, for example."""
    with pytest.raises(StoreError) as caught:
        assert open_store(url).url
    assert "hidden" not in str(caught.value)


def test_an_invalid_endpoint_is_a_store_error() -> None:
    """Like an invalid URL."""
    with pytest.raises(StoreError):
        Location.parse("s3://lab/set", {"endpoint": "http://[::1"})


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ("me:pass", "me:pass"),
        ("me:p%40ss%3A%C3%A4", "me:p@ss:ä"),
        ("token", "token:"),
        ("token:", "token:"),
    ],
)
def test_user_and_password_become_a_header(user: str, header: str) -> None:
    """Unquoted, always with a colon (RFC 7617), and removed from the URL; other stores have no such header."""
    url, headers = Location.parse(f"https://{user}@host:8443/set?sig=1").without_user()
    assert url == "https://host:8443/set?sig=1"
    assert headers == {"Authorization": f"Basic {base64.b64encode(header.encode()).decode()}"}
    for other in ("https://host/set", "abfss://container@account.dfs.core.windows.net/set"):
        assert Location.parse(other).without_user() == (other, {})


def test_a_memory_store_needs_no_name() -> None:
    """The `url` of a store opens the same store."""
    assert is_url(open_store("memory://").url)
