"""Location: URLs and options, parsed, and which of them hold secrets."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.errors import StoreError
from wds_real.storage.retry import RetryPolicy
from wds_real.storage.store import open_store
from wds_real.storage.url import Location, is_url, join_url, redact_url, same_host, split_url

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
    ("given_name", "name", "value"),
    [
        *(("anon", "skip_signature", "true"), ("endpoint_url", "endpoint", "https://x"), ("key", "access_key_id", "k")),
        *(("secret", "secret_access_key", "s"), ("token", "session_token", "t"), ("region_name", "region", "eu-1")),
        *(("REGION", "region", "eu-1"), ("requester_pays", "request_payer", "true")),
    ],
)
def test_option_names_of_other_tools_are_translated(given_name: str, name: str, value: str) -> None:
    """Names of fsspec and boto3 become obstore's; values become text."""
    assert Location.parse("s3://lab/set", {given_name: value}).config == {name: value}


@pytest.mark.parametrize(
    "name", ["aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_endpoint", "aws_skip_signature"]
)
def test_long_option_names_are_shortened(name: str) -> None:
    """Obstore takes both, so both must decide about credentials and plain http."""
    value = {"aws_endpoint": "https://x", "aws_skip_signature": "true"}.get(name, "x")
    assert Location.parse("s3://lab/set", {name: value}).config == {name.removeprefix("aws_"): value}


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
    with pytest.raises(StoreError, match=r"^https://host/set: region, secret: not an option") as caught:
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
        *("http://localhost@example/set", "http://10.0.0.1/set", "http://me:hidden@host/set"),
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
        ("https://host/set", {"token": "hidden"}),
        ("https://host/set", {"headers": "Authorization: Bearer hidden"}),
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


@given(url=URLS.filter(lambda url: url.startswith("http")), name=NAMES, query=st.sampled_from(["", "?a=/../", "?"]))
def test_joining_and_splitting_are_inverse(url: str, name: str, query: str) -> None:
    """A file's URL is that of its folder and its name; the query of a web server belongs to the folder."""
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
    "url",
    [
        *("https://[::1/set?sig=hidden", "http://[::1/set", "http://localhost:port/set"),
        *("s3://[lab/set", "memory://[[x", "gs://]lab/set", "az://[lab"),
    ],
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


# --- what an object store's URL means -----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "memory"])
@given(name=st.text("a0 %#+&={}ä~[]*", min_size=1, max_size=9))
def test_keys_are_taken_as_they_are(scheme: str, name: str) -> None:
    """Nothing behind the bucket has a meaning: neither #, nor %, nor braces, nor blanks."""
    url = f"{scheme}://lab/a {name}"
    assert split_url(f"{url}/b") == (url, "b")
    assert join_url(url, name) == f"{url}/{name}"
    assert redact_url(url) == url
    location = Location.parse(url)
    assert (location.url, location.prefix, location.bucket_url) == (url, f"a {name}", f"{scheme}://lab")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://lab/run?versionId=hidden", r"a \? in the URL of an object store is not taken"),
        ("s3://key:hidden@lab/run", "no user and password in the URL of an object store"),
        ("s3://localhost:9000/lab/run", "a bucket has no port. Write s3://BUCKET/PATH and name the server with"),
        ("s3://", "not the name of a bucket"),
        ("s3:///run", "not the name of a bucket"),
        ("s3://a b/run", "not the name of a bucket"),
        ("s3://lab/a//run", "'an empty name' between slashes cannot be part of a key"),
        ("s3://lab/../run", r"'\.\.' between slashes cannot be part of a key"),
        ("gs://lab/./run", r"'\.' between slashes cannot be part of a key"),
        ("s3://lab/a\nb", "holds a control character"),
        ("https://host/a\0b", "holds a control character"),
        ("https://\udc80me:secret@host/a", "bytes that are not UTF-8"),
        ("hf://datasets/lab/a/\udc80", "bytes that are not UTF-8"),
        ("s3://lab/\udc80", "bytes that are not UTF-8"),
        ("https://host/a#b", "Write %23 for a # in a name"),
        ("https://", "Check host and port"),
        ("https:///set", "Check host and port"),
        ("https://a b/set", "Check host and port"),
        ("https://h%41/set", "Check host and port"),
        ("https://host:0/set", "Check host and port"),
        ("https://host:70000/set", "Check host, port and brackets"),
        ("https://müller.example/set", "names in ASCII"),
        ("hf://datasets/only", "expected hf://datasets/USER/NAME/PATH"),
        ("hf://datasets/a/b/../c", r"\. and \.\. cannot be parts of the path"),
    ],
)
def test_a_url_that_the_client_would_change_is_refused(url: str, reason: str) -> None:
    """In words, without secrets: nothing is dropped or resolved silently."""
    with pytest.raises(StoreError, match=reason) as caught:
        Location.parse(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("text", ["s3:/lab/set", "https:/host/set", "https:host/set", "gs:lab", "S3:/lab"])
def test_a_url_that_lost_a_slash_is_no_folder(text: str) -> None:
    """As pathlib makes it; a path that begins with ./ is one."""
    with pytest.raises(StoreError, match=r"not a URL\. Write (s3|https|gs)://\.\.\., and in Python give a str"):
        open_store(text)
    assert open_store(f"./{text}").url.startswith(text[:2])
    assert open_store("s3").url == "s3"


def test_a_name_in_a_url_is_utf_8() -> None:
    """Else it could not be written into a manifest."""
    with pytest.raises(StoreError, match="the name is not UTF-8"):
        split_url("https://host/val%FF.tar")


# --- Hugging Face's hub and tokens ------------------------------------------------------------------------------------

HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("hf://datasets/USER/NAME/data", f"{HUB}/datasets/USER/NAME/resolve/main/data"),
        ("hf://datasets/USER/NAME", f"{HUB}/datasets/USER/NAME/resolve/main"),
        ("hf://datasets/USER/NAME@v1.0/a b/c#d", f"{HUB}/datasets/USER/NAME/resolve/v1.0/a%20b/c%23d"),
        ("hf://datasets/USER/NAME@refs%2Fpr%2F1/a", f"{HUB}/datasets/USER/NAME/resolve/refs%2Fpr%2F1/a"),
        ("hf://USER/NAME/a", f"{HUB}/USER/NAME/resolve/main/a"),
        ("HF://models/USER/NAME/a/", f"{HUB}/USER/NAME/resolve/main/a"),
    ],
)
def test_urls_of_the_hub_are_resolved(url: str, expected: str) -> None:
    """As Hugging Face's own tools resolve them."""
    assert Location.parse(url).url == expected


def test_a_mirror_of_the_hub_gets_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of the environment is for Hugging Face's hosts only, and over TLS only."""
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    bearer = {"Authorization": "Bearer hf_x"}
    for url, expected in (
        ("hf://datasets/USER/NAME", bearer),
        (f"{HUB}/datasets/USER/NAME/resolve/main", bearer),
        ("https://HuggingFace.co/x", bearer),
        ("https://huggingface.co.example/x", {}),
        ("https://huggingface.co@example.org/x", {"Authorization": "Basic aHVnZ2luZ2ZhY2UuY286"}),
        ("https://host/huggingface.co", {}),
        ("http://127.0.0.1:9/x", {}),
    ):
        assert Location.parse(url).without_user()[1] == expected, url
    assert not Location.parse("hf://datasets/USER/NAME").holds_secrets  # each process reads its own environment
    assert "hf_x" not in repr(Location.parse("hf://datasets/USER/NAME"))
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert Location.parse("hf://datasets/USER/NAME").headers == {}
    assert Location.parse("hf://datasets/USER/NAME").url.startswith("https://mirror.example/datasets/USER/NAME/")
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    with pytest.raises(StoreError, match=r"^HF_ENDPOINT: not a URL"):
        Location.parse("hf://datasets/USER/NAME")
    monkeypatch.setenv("HF_TOKEN", "hf x")
    with pytest.raises(StoreError, match=r"^HF_TOKEN: a token has no blanks"):
        Location.parse(HUB)


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({"token": "t"}, {"Authorization": "Bearer t"}),
        ({"bearer_token": "t"}, {"Authorization": "Bearer t"}),
        ({"headers": "authorization: Token t"}, {"Authorization": "Token t"}),
        ({"headers": "Cookie: a=b; c=d\nAuthorization: x"}, {"Cookie": "a=b; c=d", "Authorization": "x"}),
        ({"headers": "Cookie: a=b", "token": "t"}, {"Cookie": "a=b", "Authorization": "Bearer t"}),
    ],
)
def test_a_web_server_gets_the_token(options: dict[str, str], headers: dict[str, str]) -> None:
    """As a header of each request."""
    location = Location.parse("https://host/set", options)
    assert location.headers == headers
    assert location.config == {}
    assert location.holds_secrets


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("https://host/set", {"token": "hidden", "headers": "Authorization: hidden"}),
        ("https://me:hidden@host/set", {"token": "hidden"}),
        ("https://me:hidden@host/set", {"headers": "Authorization: hidden"}),
    ],
)
def test_only_one_authorization_is_taken(url: str, options: dict[str, str]) -> None:
    """Two would contradict each other."""
    with pytest.raises(StoreError, match="exclude each other") as caught:
        Location.parse(url, options)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://host/a", "https://HOST/b?sig=1", True),
        ("https://me:x@host/a", "https://host/b", True),
        ("https://host/a", "https://host:444/b", False),
        ("https://host/a", "https://other/b", False),
        ("http://localhost/a", "https://localhost/b", False),
        ("https://host/a", "s3://host/a", False),
        ("s3://one/a", "s3://two/b", True),
        ("s3://one/a", "gs://one/a", False),
        ("abfss://c@one.dfs.core.windows.net/a", "abfss://d@one.dfs.core.windows.net/b", True),
        ("abfss://c@one.dfs.core.windows.net/a", "abfss://c@two.dfs.core.windows.net/a", False),
    ],
)
def test_hosts_are_compared(one: str, other: str, *, same: bool) -> None:
    """Of an object store, the server is the host, and a bucket is none."""
    assert same_host(one, other) is same


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_REGION",
                                  "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN",
                                  "AWS_SKIP_SIGNATURE"])  # fmt: skip
def test_variables_that_the_client_reads_are_checked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like options, and the message names the variable."""
    monkeypatch.setenv(name, "bad value\n")
    with pytest.raises(StoreError, match=rf"^{name}: "):
        Location.parse("s3://lab/set")
    assert Location.parse("gs://lab/set").config == {}
