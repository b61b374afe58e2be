"""The same tests for every store: a folder, memory, S3, and for reading also several kinds of web servers."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from support.http_server import http_server

from wds_real.errors import MissingError, StoreError, UnavailableError
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.s3 import S3Server

    from wds_real.storage.base import Store

WRITABLE = ("folder", "memory", "s3")
WEB = ("web", "web without ranges", "web without etags", "web with a password", "web with a signature")

WITH_SECRETS = ("s3", "web with a password", "web with a signature")
DATA = random.Random(0).randbytes(10_000)  # noqa: S311 -- made-up data
NUM_LARGE = (20 << 20) + 77  # read in three requests, written in two parts
PASSWORD, SIGNATURE = "hidden-password", "hidden-signature"
NUMBERS = itertools.count()

DELETING = "deleting what is not there is no error in object stores"


def made(num_bytes: int, *, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(num_bytes)  # noqa: S311 -- made-up data


@dataclass(frozen=True)
class Place:
    """A kind of store: its URL and options, and a way to write without this package's client."""

    kind: str
    url: str
    fill: Callable[[str, bytes], object]
    options: dict[str, str] = field(default_factory=dict, repr=False)

    def open(self) -> Store:
        return open_store(self.url, storage_options=self.options or None)


@pytest.fixture(params=[*WRITABLE, *WEB])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty store of each kind."""
    with contextlib.ExitStack() as stack:
        yield make_place(request.param, request, tmp_path / "files", stack)


@pytest.fixture(params=WRITABLE)
def writable(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of each kind that can be written."""
    return make_place(request.param, request, tmp_path / "files", contextlib.ExitStack())


def make_place(kind: str, request: pytest.FixtureRequest, folder: Path, stack: contextlib.ExitStack) -> Place:
    """Return a store of this kind; its servers end with the stack."""
    number = next(NUMBERS)
    policy = {"give_up_after": "30"}
    if kind == "memory":
        url = f"memory://conformance-{number}"
        return Place(kind, url, lambda name, data: open_store(url).put(name, data), policy)
    if kind == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        prefix = f"conformance-{number}"
        url = f"s3://test/{prefix}"
        return Place(kind, url, lambda name, data: s3.put("test", f"{prefix}/{name}", data), {**s3.options, **policy})
    folder.mkdir()
    if kind == "folder":
        return Place(kind, str(folder), lambda name, data: write_file(folder, name, data))
    user = "me" if kind == "web with a password" else None
    server = stack.enter_context(
        http_server(
            folder,
            ranges=kind != "web without ranges",
            etags=kind != "web without etags",
            user=user,
            password=PASSWORD,
        )
    )
    (folder / "set").mkdir()
    url = f"{server.endpoint}/set"
    if user is not None:
        url = url.replace("://", f"://{user}:{PASSWORD}@")
    if kind == "web with a signature":
        url += f"?X-Amz-Signature={SIGNATURE}"
    return Place(kind, url, lambda name, data: write_file(folder / "set", name, data), policy)


def write_file(folder: Path, name: str, data: bytes) -> None:
    """Write a file by rename, so that open files keep the old bytes."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("new").write_bytes(data)
    path.with_name("new").rename(path)


def refuses(kind: type[StoreError], call: Callable[[], object]) -> str:
    """Return the message of an error of exactly this kind."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


# --- Reading ------------------------------------------------------------------------------------------------


def test_an_object_is_read(place: Place) -> None:
    """Whole, and in ranges from the first to the last byte; `head` returns its length."""
    place.fill("a.tar", DATA)
    store = place.open()
    assert store.get("a.tar") == DATA
    assert store.get_range("a.tar", 0, len(DATA)) == DATA
    assert store.head("a.tar") == len(DATA)


def test_the_first_request_can_be_a_range(place: Place) -> None:
    """No other request has to come before."""
    place.fill("a.tar", DATA)
    assert place.open().get_range("a.tar", 17, 29) == DATA[17:29]


def test_the_first_request_can_be_the_length(place: Place) -> None:
    """No other request has to come before."""
    place.fill("a.tar", DATA)
    assert place.open().head("a.tar") == len(DATA)


def test_ranges_are_exact(place: Place) -> None:
    """Any half-open range within the object, in any order, with and without the expected length."""
    place.fill("a.tar", DATA)
    store = place.open()
    draws = random.Random(2)  # noqa: S311 -- made-up ranges
    bounds = [(0, 1), (len(DATA) - 1, len(DATA)), (0, len(DATA))]
    bounds += [(start, draws.randint(start + 1, len(DATA))) for start in draws.choices(range(len(DATA)), k=30)]
    for number, (start, stop) in enumerate(bounds):
        size = len(DATA) if number % 2 else None
        assert bytes(store.get_range("a.tar", start, stop, size=size)) == DATA[start:stop]


def test_an_empty_range_has_no_bytes(place: Place) -> None:
    """At the beginning, within and at the end."""
    place.fill("a.tar", DATA)
    store = place.open()
    assert [bytes(store.get_range("a.tar", at, at)) for at in (0, 5, len(DATA))] == [b"", b"", b""]


def test_an_empty_object_exists(place: Place) -> None:
    """Its length is 0 and it has no bytes."""
    place.fill("empty", b"")
    store = place.open()
    assert store.head("empty") == 0
    assert store.get("empty") == b""


def test_a_range_that_ends_beyond_the_object_is_an_error(place: Place) -> None:
    """Not fewer bytes; the error names the length, and is no UnavailableError."""
    place.fill("a.tar", DATA)
    store = place.open()
    assert "a.tar" in refuses(StoreError, lambda: store.get_range("a.tar", 5, len(DATA) + 1))
    assert store.get_range("a.tar", 0, len(DATA)) == DATA


def test_a_range_that_starts_beyond_the_object_is_an_error(place: Place) -> None:
    """It is no UnavailableError, whether or not the object was read before."""
    place.fill("a.tar", DATA)
    for store in (place.open(), place.open()):
        refuses(StoreError, lambda store=store: store.get_range("a.tar", len(DATA), len(DATA) + 5))  # type: ignore[misc]
        store.get_range("a.tar", 0, 1)
        refuses(StoreError, lambda store=store: store.get_range("a.tar", len(DATA) + 5, len(DATA) + 9))  # type: ignore[misc]


def test_another_length_than_expected_is_an_error(place: Place) -> None:
    """The message names both, and no bytes are returned."""
    place.fill("a.tar", DATA)
    store = place.open()
    message = refuses(StoreError, lambda: store.get_range("a.tar", 5, 9, size=len(DATA) + 1))
    assert "10,000 bytes, expected 10,001" in message
    assert bytes(store.get_range("a.tar", 5, 9, size=len(DATA))) == DATA[5:9]


def test_a_missing_object_is_a_missing_error(place: Place) -> None:
    """Every way to read it raises MissingError with the name; other objects can still be read."""
    place.fill("a.tar", DATA)
    store = place.open()
    for call in (store.head, store.get, lambda name: store.get_range(name, 0, 5)):
        assert "gone.tar" in refuses(MissingError, lambda call=call: call("gone.tar"))  # type: ignore[misc]
    assert store.get_range("a.tar", 0, 5) == DATA[:5]


def test_an_object_written_later_is_found(place: Place) -> None:
    """The store does not remember that it was missing."""
    store = place.open()
    refuses(MissingError, lambda: store.get_range("a.tar", 0, 5))
    place.fill("a.tar", DATA)
    assert store.get_range("a.tar", 0, 5) == DATA[:5]


def test_a_large_object_is_read_whole(place: Place) -> None:
    """It takes several requests; so does a long range of it."""
    data = made(NUM_LARGE)
    place.fill("large", data)
    store = place.open()
    assert store.get("large") == data
    assert store.get_range("large", 77, NUM_LARGE - 77) == data[77:-77]


def test_a_fresh_read_sees_what_others_wrote(place: Place) -> None:
    """Whatever was read before: another length, another content of the same length, nothing at all, or no file."""
    store = place.open()
    for data in (DATA, DATA[:100], DATA[100:200], b"", b"x"):
        place.fill("a.json", data)
        assert store.get("a.json", fresh=True) == data
    assert store.get("a.json") == b"x"
    place.fill("a.json", DATA)
    assert store.get("a.json", fresh=True) == DATA
    assert "gone.json" in refuses(MissingError, lambda: store.get("gone.json", fresh=True))


def test_a_fresh_read_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that is too large is not taken into memory; a folder has no such bound."""
    monkeypatch.setattr("wds_real.storage.remote._MAX_FRESH_BYTES", len(DATA) - 1)
    place.fill("a.json", DATA)
    if place.kind == "folder":
        assert place.open().get("a.json", fresh=True) == DATA
    else:
        assert "is larger than 9,999 bytes" in refuses(StoreError, lambda: place.open().get("a.json", fresh=True))


def test_threads_can_share_a_store(place: Place) -> None:
    """Ranges of several objects at the same time are right."""
    contents = {f"{number}.tar": made(3000, seed=number) for number in range(5)}
    for name, data in contents.items():
        place.fill(name, data)
    store = place.open()

    def read(number: int) -> bool:
        name = f"{number % 5}.tar"
        return bytes(store.get_range(name, number, number + 2000, size=3000)) == contents[name][number : number + 2000]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(100)))


def test_names_may_hold_spaces_and_other_alphabets(place: Place) -> None:
    """So may characters that other tools quote."""
    for name in ("a b+c=d&e~(1)',;.tar", "ä 50%.tar"):
        place.fill(name, DATA)
        assert place.open().get_range(name, 5, 50) == DATA[5:50]


@pytest.mark.parametrize("name", ["50%20.tar", "a#1.tar"])
def test_names_may_hold_url_syntax(place: Place, name: str) -> None:
    """Percent signs and fragments in names have no meaning."""
    place.fill(name, DATA)
    assert place.open().get_range(name, 5, 50) == DATA[5:50]


@pytest.mark.parametrize("verb", ["get", "get_range"])
def test_a_replaced_object_is_an_error_never_a_mixture(place: Place, verb: str) -> None:
    """All bytes read are of one version, or there is an error.

    Without ETags nothing but the length tells versions apart: there, the samples' checksums do.
    """
    other = made(len(DATA) + (place.kind == "web without etags"), seed=3)
    place.fill("a.tar", DATA)
    store = place.open()
    assert store.get_range("a.tar", 0, 100) == DATA[:100]
    place.fill("a.tar", other)
    try:
        found = store.get("a.tar") if verb == "get" else store.get_range("a.tar", 100, len(DATA))
    except UnavailableError:
        raise
    except StoreError as error:
        assert "a.tar" in str(error)  # noqa: PT017 -- the old bytes are as good
    else:
        if verb == "get":  # a folder's whole file is always one version, which may be the new one
            assert found == DATA or (found == other and place.kind == "folder")
        else:
            assert found == DATA[100:]
    assert place.open().get_range("a.tar", 0, len(other)) == other


def test_url_and_messages_hold_no_secrets(place: Place) -> None:
    """Neither `url`, nor `repr`, nor an error's message holds credentials."""
    store = place.open()
    message = refuses(MissingError, lambda: store.get_range("gone", 0, 1)) if "password" not in place.kind else ""
    said = f"{store.url} {store!r} {message}"
    secrets = [
        PASSWORD,
        SIGNATURE,
        *(place.options.get(name, PASSWORD) for name in ("access_key_id", "secret_access_key")),
    ]
    assert not [secret for secret in secrets if secret in said]
    assert store.url == place.url.replace(f"me:{PASSWORD}@", "").partition("?")[0]


def test_a_store_without_secrets_can_be_pickled(place: Place) -> None:
    """The copy opens the store again and reads the same."""
    if place.kind in WITH_SECRETS:
        pytest.skip("holds secrets")
    place.fill("a.tar", DATA)
    store = place.open()
    store.get_range("a.tar", 0, 5)
    copy: Store = pickle.loads(pickle.dumps(store))  # noqa: S301 -- our own
    assert copy.get_range("a.tar", 5, 50) == DATA[5:50]
    assert (copy.url, copy.remote, copy.listable) == (store.url, store.remote, store.listable)


def test_a_store_with_secrets_cannot_be_pickled(place: Place) -> None:
    """The error says so without the secrets."""
    if place.kind not in WITH_SECRETS:
        pytest.skip("holds no secrets")
    store = place.open()
    message = refuses(StoreError, lambda: pickle.dumps(store))
    assert store.url in message
    assert "secrets" in message
    assert "hidden" not in message


def test_properties_of_stores(place: Place) -> None:
    """Only a folder is not remote, and only a web server cannot list."""
    store = place.open()
    assert store.remote == (place.kind != "folder")
    assert store.listable == (place.kind not in WEB)
    assert store.exists()


def test_a_web_server_can_only_be_read(place: Place) -> None:
    """Listing and writing are errors of one line, and the files stay."""
    if place.kind not in WEB:
        pytest.skip("can be written to")
    place.fill("a.tar", DATA)
    store = place.open()
    for call in (store.list, lambda: store.put("b", b"new"), lambda: write(store, "b", b"new")):
        assert "hidden" not in refuses(UnavailableError, call)
    with pytest.raises(StoreError):
        store.put("a.tar", b"new", exclusive=True)
    with pytest.raises(StoreError):
        store.delete("a.tar")
    assert place.open().get_range("a.tar", 0, len(DATA)) == DATA


# --- Writing ------------------------------------------------------------------------------------------------


def write(store: Store, name: str, data: bytes, *, piece: int = 1_000_003) -> None:
    """Write through `create`, in pieces."""
    with store.create(name) as file:
        for start in range(0, len(data), piece):
            file.write(data[start : start + piece])


def test_an_empty_store_lists_nothing(writable: Place) -> None:
    """There are no leftovers either."""
    store = writable.open()
    assert store.list() == []
    assert store.delete_leftovers() == []


def test_a_written_object_is_found(writable: Place) -> None:
    """By this store and any other; names are sorted."""
    store = writable.open()
    for name, data in (("b.json", b"{}"), ("a.tar", DATA), ("empty", b"")):
        store.put(name, data)
    for reader in (store, writable.open()):
        assert reader.list() == ["a.tar", "b.json", "empty"]
        assert [reader.get(name) for name in reader.list()] == [DATA, b"{}", b""]
        assert [reader.head(name) for name in reader.list()] == [len(DATA), 2, 0]
    assert store.exists()


@pytest.mark.parametrize("verb", ["put", "create"])
def test_a_writer_reads_what_it_wrote(writable: Place, verb: str) -> None:
    """An object that this store has read and then replaced is the new one: shorter, longer, as long."""
    store = writable.open()
    store.put("a.tar", DATA)
    assert store.get("a.tar") == DATA
    for data in (DATA[:50], DATA * 2, DATA[::-1] * 2):
        if verb == "put":
            store.put("a.tar", data)
        else:
            write(store, "a.tar", data)
        assert store.head("a.tar") == len(data)
        assert store.get("a.tar") == store.get_range("a.tar", 0, len(data)) == data


def test_an_exclusive_put_does_not_replace(writable: Place) -> None:
    """The object stays, and the error is no UnavailableError; a new object is written."""
    store = writable.open()
    store.put("a.tar", DATA, exclusive=True)
    assert "is there already" in refuses(StoreError, lambda: store.put("a.tar", b"new", exclusive=True))
    assert writable.open().get("a.tar") == DATA


def test_one_of_several_exclusive_writers_succeeds(writable: Place) -> None:
    """At the same moment, from several stores: the others get an error, and the object has the winner's bytes."""
    stores = [writable.open() for _ in range(6)]

    def write_exclusively(number: int) -> int | None:
        try:
            stores[number].put("lock", bytes([number]) * 1000, exclusive=True)
        except UnavailableError:
            raise
        except StoreError:
            return None
        return number

    with ThreadPoolExecutor(len(stores)) as pool:
        (winner,) = [number for number in pool.map(write_exclusively, range(len(stores))) if number is not None]
    assert writable.open().get("lock") == bytes([winner]) * 1000


def test_an_object_appears_when_its_block_ends(writable: Place) -> None:
    """Not before, and complete."""
    store = writable.open()
    with store.create("a.tar") as file:
        file.write(DATA)
        assert store.list() == []
        refuses(MissingError, lambda: store.head("a.tar"))
        file.write(DATA)
    assert store.list() == ["a.tar"]
    assert store.get("a.tar") == 2 * DATA


@pytest.mark.parametrize("num_bytes", [0, 16 << 20, NUM_LARGE])
def test_any_length_is_written(writable: Place, num_bytes: int) -> None:
    """Empty, exactly one part, and several parts."""
    data = made(num_bytes)
    store = writable.open()
    write(store, "a.tar", data)
    assert store.head("a.tar") == num_bytes
    assert store.get("a.tar") == data
    store.delete("a.tar")


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"old"], ids=["nothing before", "an object before"])
def test_a_failed_block_changes_nothing(writable: Place, error: type[BaseException], before: bytes | None) -> None:
    """The caller's error passes through unchanged; there is no new object and no leftover."""
    store = writable.open()
    if before is not None:
        store.put("a.tar", before)

    def fail() -> None:
        with store.create("a.tar") as file:
            file.write(DATA)
            raise error("mine")

    with pytest.raises(error, match="mine"):
        fail()
    assert store.list() == ([] if before is None else ["a.tar"])
    assert before is None or store.get("a.tar") == before
    assert store.delete_leftovers() == []


def test_a_deleted_object_is_missing(writable: Place) -> None:
    """Also for a store that has read it; other objects stay, and the name can be used again."""
    store = writable.open()
    store.put("a.tar", DATA)
    store.put("b.tar", DATA)
    assert store.get("a.tar") == DATA
    store.delete("a.tar")
    assert store.list() == ["b.tar"]
    for reader in (store, writable.open()):
        refuses(MissingError, lambda reader=reader: reader.get("a.tar"))  # type: ignore[misc]
    store.put("a.tar", b"again", exclusive=True)
    assert store.get("a.tar") == b"again"


def test_deleting_a_missing_object_is_an_error(writable: Place) -> None:
    """It raises MissingError."""
    store = writable.open()
    store.put("a.tar", DATA)
    refuses(MissingError, lambda: store.delete("b.tar"))


def test_listing_is_flat(writable: Place) -> None:
    """Objects deeper than one level are not listed."""
    for name in ("a.tar", "deep/b.tar", "deep/down/c.tar"):
        writable.fill(name, b"")
    assert writable.open().list() == ["a.tar"]


def test_folders_are_listed_apart(writable: Place) -> None:
    """The next parts of longer names, once each, and no names of files; a store opened there has what is in them."""
    for name in ("a.tar", "deep/b.tar", "deep/down/c.tar", "also/d.tar"):
        writable.fill(name, b"")
    assert writable.open().folders() == ["also", "deep"]
    below = open_store(f"{writable.url}/deep", storage_options=writable.options or None)
    assert (below.list(), below.folders()) == (["b.tar"], ["down"])


def test_a_prefix_ends_at_a_slash(writable: Place) -> None:
    """Objects of a prefix that starts with the same letters are not listed."""
    beside = open_store(f"{writable.url}2", storage_options=writable.options or None)
    beside.put("b.tar", b"")
    store = writable.open()
    assert store.list() == []
    refuses(MissingError, lambda: store.get("b.tar"))


def test_a_trailing_slash_has_no_meaning(writable: Place) -> None:
    """A store with and a store without it read each other's objects."""
    writable.open().put("a.tar", DATA)
    other = open_store(f"{writable.url}/", storage_options=writable.options or None)
    assert other.list() == ["a.tar"]
    assert other.get("a.tar") == DATA
