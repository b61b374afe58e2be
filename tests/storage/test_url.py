"""Location: what a URL and options mean, and which of it is secret."""

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
def test_a_scheme_says_the_kind_of_store(url: str, kind: str) -> None:
    """All the names that the field uses, in any case; the URL stays as it was given."""
    location = Location.parse(url)
    assert (location.kind, location.url) == (kind, url)


@pytest.mark.parametrize("url", ["ftp://host/set", "file:///set", "s4://lab/set", "hdfs://host/set"])
def test_another_scheme_is_refused(url: str) -> None:
    """The error names the scheme, and those that there are."""
    with pytest.raises(StoreError, match=rf"^{url.partition(':')[0]}://\.\.\.: no such kind of store.*s3://"):
        Location.parse(url)


def test_a_slash_at_the_end_means_nothing() -> None:
    """A folder's URL with and without is the same place."""
    assert Location.parse("s3://lab/set/") == Location.parse("s3://lab/set")


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        *(("anon", "skip_signature"), ("endpoint_url", "endpoint"), ("key", "access_key_id"), ("REGION", "region")),
        *(("secret", "secret_access_key"), ("token", "session_token"), ("region_name", "region")),
    ],
)
def test_names_of_other_tools_are_understood(given_name: str, name: str) -> None:
    """What fsspec and boto3 call otherwise has one name from here on, and its value is text."""
    assert Location.parse("s3://lab/set", {given_name: "https://x"}).config == {name: "https://x"}


@pytest.mark.parametrize(
    "name", ["aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_endpoint", "aws_skip_signature"]
)
def test_the_library_s_long_names_are_the_short_ones(name: str) -> None:
    """The library takes both, so that both must decide where credentials come from and whether http is allowed."""
    assert Location.parse("s3://lab/set", {name: "https://x"}).config == {name.removeprefix("aws_"): "https://x"}


def test_a_token_is_what_the_store_calls_so() -> None:
    """Amazon's is of a session, Azure's of a bearer."""
    assert Location.parse("s3://lab/set", {"token": "t"}).config == {"session_token": "t"}
    assert Location.parse("az://lab/set", {"token": "t"}).config == {"bearer_token": "t"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("30s", 30.0), (" 1.5 s ", 1.5), ("500ms", 0.5), ("2m", 120.0), ("2min", 120.0), ("1h", 3600.0)],
)
def test_times_have_units(text: str, seconds: float) -> None:
    """Seconds if none is given."""
    assert Location.parse("s3://lab/set", {"read_timeout": text}).policy == RetryPolicy(read_timeout_s=seconds)


@pytest.mark.parametrize("text", ["0", "0s", "-1", "soon", "1d", "", "inf", "nan", "1e3", "5 5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """A deadline of nothing, and what cannot be read, are errors that name the option."""
    with pytest.raises(StoreError, match=r"^storage option give_up_after: expected seconds above 0 such as"):
        Location.parse("s3://lab/set", {"give_up_after": text})


def test_each_deadline_has_an_option() -> None:
    """All that `RetryPolicy` knows can be set, for any kind of store."""
    options = {"connect_timeout": "1", "read_timeout": "2", "timeout": "3", "give_up_after": "4", "run_deadline": "5"}
    expected = RetryPolicy(connect_timeout_s=1, read_timeout_s=2, timeout_s=3, give_up_after_s=4, run_deadline_s=5)
    for url in ("s3://lab/set", "https://host/set", "gs://lab/set", "memory://set"):
        assert Location.parse(url, options).policy == expected
    assert Location.parse("s3://lab/set", {"request_timeout": "3"}).policy.timeout_s == 3


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("ON", True), ("false", False), ("no", False)]
)
def test_flags_are_true_or_false(text: str, value: bool) -> None:
    """The words that people write are understood."""
    assert Location.parse("s3://lab/set", {"allow_http": text}).client == {"allow_http": value}


def test_what_is_no_flag_is_refused() -> None:
    """A slip does not silently mean no."""
    with pytest.raises(StoreError, match=r"^storage option allow_http: expected true or false\.$"):
        Location.parse("s3://lab/set", {"allow_http": "treu"})


def test_an_unknown_option_of_a_web_server_is_refused() -> None:
    """A web server takes deadlines and client options only; the message shows no value."""
    with pytest.raises(StoreError, match=r"^https://host/set: region, secret_access_key: not an option") as caught:
        Location.parse("https://host/set", {"region": "x", "secret": "hidden"})
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost/set", "http://127.0.0.1:80/set", "http://127.9.9.9/set", "http://[::1]:80/set"]
)
def test_plain_http_is_for_this_machine(url: str) -> None:
    """On loopback nobody listens in."""
    assert Location.parse(url).client == {"allow_http": True}
    assert Location.parse("s3://lab/set", {"endpoint": url}).client == {"allow_http": True}


@pytest.mark.parametrize(
    "url",
    [
        *("http://host/set", "HTTP://host/set", "http://localhost.example/set", "http://127.0.0.1.example/set"),
        *("http://localhost@example/set", "http://10.0.0.1/set", "http://me:hidden@host/set?sig=hidden"),
    ],
)
def test_plain_http_elsewhere_has_to_be_allowed(url: str) -> None:
    """Neither a URL nor an endpoint may be read by anyone on the way, unless the user says so."""
    for place, options in ((url, {}), ("s3://lab/set", {"endpoint": url})):
        with pytest.raises(StoreError, match="allow_http=true") as caught:
            Location.parse(place, options)
        assert "hidden" not in str(caught.value)
        assert Location.parse(place, {**options, "allow_http": "true"}).client == {"allow_http": True}


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_environment_may_name_the_endpoint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's own variables, unless an option says otherwise; other kinds of stores do not look at them."""
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
def test_secrets_are_known_as_such(url: str, options: dict[str, str]) -> None:
    """What must not leave the process is found in URLs and options, and is never in the text of the location."""
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
def test_what_is_no_secret_may_travel(url: str, options: dict[str, str]) -> None:
    """Regions, endpoints, profiles' names and deadlines are handed to other processes."""
    assert not Location.parse(url, options).holds_secrets


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("s3://lab", True),
        ("S3A://lab", True),
        ("x+y.z-1://", True),
        ("shards", False),
        ("/a/b://c", False),
        ("", False),
    ],
)
def test_urls_and_paths_are_told_apart(text: str, answer: bool) -> None:
    """A URL begins with a scheme; nothing else is one."""
    assert is_url(text) is answer


@given(url=URLS, name=NAMES, query=st.sampled_from(["", "?sig=abc&x=/../", "?"]))
def test_joining_and_splitting_are_inverse(url: str, name: str, query: str) -> None:
    """A file's URL is its place and its name; the query belongs to the place."""
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
    """What means something in a URL is the name's own again when it is taken apart."""
    url = join_url(f"{scheme}://host/set?sig=1", name)
    assert url.isascii()
    assert url.count("?") == 1
    assert "#" not in url
    assert split_url(url) == (f"{scheme}://host/set?sig=1", name)


def test_a_path_is_split_into_folder_and_name() -> None:
    """As a URL is."""
    assert split_url("a/b/val.tar") == ("a/b", "val.tar")
    assert split_url("/val.tar") == ("/", "val.tar")


@given(
    url=URLS,
    user=st.text("QWJ%2", max_size=9),
    password=st.text("QWJ%2:", max_size=9),
    query=st.text("QWJ=&/?@", max_size=9),
    fragment=st.text("QWJ/@", max_size=9),
)
def test_only_the_place_is_shown(url: str, user: str, password: str, query: str, fragment: str) -> None:
    """Neither user name, password, query nor fragment: what is left is the URL without them."""
    scheme, _, rest = url.partition("://")
    assert redact_url(f"{scheme}://{user}:{password}@{rest}?{query}#{fragment}") == url


def test_a_path_is_shown_as_it_is() -> None:
    """Names of files may hold what would be a query or a user in a URL."""
    assert redact_url("a@b/c?d#e") == "a@b/c?d#e"


@pytest.mark.parametrize(
    "url", ["https://[::1/set?sig=hidden", "http://[::1/set", "s3://[lab/set", "http://localhost:port/set"]
)
def test_a_url_that_is_none_is_one_of_our_errors(url: str) -> None:
    """A slip in the brackets of an address is a StoreError, like any other wrong URL."""
    with pytest.raises(StoreError) as caught:
        assert open_store(url).url
    assert "hidden" not in str(caught.value)


def test_an_endpoint_that_is_none_is_one_of_our_errors() -> None:
    """As a URL that is none."""
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
def test_user_and_password_are_said_in_a_header(user: str, header: str) -> None:
    """Without quotes, always with a colon (RFC 7617), and no longer in the URL; other stores have no such header."""
    url, headers = Location.parse(f"https://{user}@host:8443/set?sig=1").without_user()
    assert url == "https://host:8443/set?sig=1"
    assert headers == {"Authorization": f"Basic {base64.b64encode(header.encode()).decode()}"}
    for other in ("https://host/set", "abfss://container@account.dfs.core.windows.net/set"):
        assert Location.parse(other).without_user() == (other, {})


def test_a_memory_store_needs_no_name() -> None:
    """The URL that a store says is one that opens it."""
    assert is_url(open_store("memory://").url)
