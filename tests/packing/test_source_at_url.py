"""The source tar at a URL: read where it lies, with the images, the bytes and the advice of a local file."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.http_server import http_server

from wds_real.errors import SourceError, StoreError, UnavailableError
from wds_real.format.tar import END, encode_header, padding
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.storage.store import open_store
from wds_real.synthetic import encode_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.s3 import S3Server
    from support.wire import Request

    from wds_real.packing.source import Source

NAME = "ILSVRC2012_img_val.tar"
PATIENCE = {"give_up_after": "40", "read_timeout": "4"}
HUGE = 9 << 20  # bytes of an image: more than a request, and a shard of two is uploaded in parts
NUMBERS = itertools.count()
DENIED = "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"


class Place(NamedTuple):
    """Where a file can be put and read back by URL."""

    kind: str
    url: str
    fill: Callable[[str, bytes], object]
    options: dict[str, str]
    requests: Callable[[], int]

    def open(self, name: str = NAME) -> Source:
        return open_source(f"{self.url}/{name}", allow_partial=True, storage_options=self.options)


@pytest.fixture(params=["s3", "web", "web without ranges"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place of each kind."""
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        prefix = f"source-{next(NUMBERS)}"
        fill = lambda name, data: s3.put("test", f"{prefix}/{name}", data)  # noqa: E731
        yield Place("s3", f"s3://test/{prefix}", fill, {**s3.options, **PATIENCE}, lambda: 0)
        return
    folder = tmp_path / "served"
    folder.mkdir()
    with http_server(folder, ranges=request.param == "web") as server:
        yield Place(
            request.param,
            server.endpoint,
            lambda name, data: (folder / name).write_bytes(data),
            PATIENCE,
            lambda: len(server.requests),
        )


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tars of twelve images: a small one, one that is walked in several parts, one of images larger than a request."""
    lengths = {
        "small": lambda _: 0,
        "large": lambda number: number * 80_000,
        "huge": lambda number: (number < 3) * HUGE,
    }
    paths = {kind: tmp_path_factory.mktemp(kind) / NAME for kind in lengths}
    for kind, path in paths.items():
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            for number in (3, 1, 12, 2, 9, 4, 11, 5, 10, 8, 6, 7):
                more = {"small": 0, "large": number * 80_000, "huge": HUGE if number < 3 else 0}[kind]
                data = encode_image(number) + random.Random(number).randbytes(more)  # noqa: S311 -- test data
                info = tarfile.TarInfo(f"ILSVRC2012_val_{number:08d}.JPEG")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return paths


@contextlib.contextmanager
def no_temporary_files() -> Iterator[None]:
    """Let whatever makes a temporary file fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/nowhere/at/all")
        yield


def facts(source: Source) -> list[tuple[str, int, int]]:
    return [(image.label.key, image.offset, image.num_bytes) for image in source.images]


def contents(source: Source) -> list[bytes]:
    with source.prefetch(source.images) as images:
        return [bytes(data) for data in images]


# --- The same as from a file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["small", "large", "huge"])
def test_images_are_those_of_the_file(place: Place, tars: dict[str, Path], kind: str) -> None:
    """Names, offsets and lengths; the bytes in order, backwards and from threads."""
    path = tars[kind]
    place.fill(NAME, path.read_bytes())
    with open_source(path, allow_partial=True) as local, place.open() as source:
        assert facts(source) == facts(local)
        assert (source.partial, source.path) == (True, f"{place.url}/{NAME}")
        expected = contents(local)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(source.read, source.images)) == expected
        assert contents(source) == expected
        some = source.images[::-3]
        with source.prefetch(some) as images:
            assert [bytes(data) for data in images] == expected[::-3]


def test_order_and_spelling_of_members_do_not_matter(place: Place, tars: dict[str, Path]) -> None:
    """A tar of folders by class, in pax format, is read like the flat one."""
    with open_source(tars["small"], allow_partial=True) as local:
        expected = dict(zip((image.label.key for image in local.images), contents(local), strict=True))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("val")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for key, data in reversed(expected.items()):
            for name in (f"val/._{key}.JPEG", f"val/{key}.JPEG"):  # what is hidden is passed over
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(data), 1.5  # makes a pax header
                tar.addfile(info, io.BytesIO(data))
    place.fill("other.tar", file.getvalue())
    with place.open("other.tar") as source:
        assert dict(zip((image.label.key for image in source.images), contents(source), strict=True)) == expected


def test_a_signed_url_is_read_and_not_shown(made_tar: Path) -> None:
    """A query goes with every request, and into no path or message."""
    with http_server(made_tar.parent) as server:
        url = f"{server.endpoint}/{made_tar.name}?X-Amz-Signature=hidden"
        with open_source(url, allow_partial=True) as source:
            assert source.path == f"{server.endpoint}/{made_tar.name}"
            assert len(contents(source)) == 120
        assert {request.query for request in server.requests} == {"X-Amz-Signature=hidden"}
        with pytest.raises(SourceError) as caught:
            open_source(url.replace("img_val", "gone"), allow_partial=True)
        assert "hidden" not in str(caught.value)


# --- What is wrong ----------------------------------------------------------------------------------------------------


def cut_behind_a_member(tar: bytes) -> bytes:
    """Cut so that what is left is whole members, without an end marker."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        member = archive.getmembers()[-3]
    return tar[: member.offset_data + member.size + padding(member.size)]


def doubled(tar: bytes) -> bytes:
    name, data = "ILSVRC2012_val_00000007.JPEG", encode_image(7)
    member = encode_header(name, len(data)) + data + bytes(padding(len(data)))
    del tar
    return member + member + END


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "web page": lambda _: b"\n<!DOCTYPE html><html>" + b"Please sign in. " * 200 + b"</html>",
    "short web page": lambda _: b"<html>403</html>",
    "an answer of a store": lambda _: DENIED.encode(),
    "gzip": gzip.compress,
    "zip": lambda tar: b"PK\x03\x04" + tar,
    "noise": lambda tar: random.Random(3).randbytes(len(tar)),  # noqa: S311 -- test data
    "cut in data": lambda tar: tar[: len(tar) // 2 + 77],
    "cut at a block": lambda tar: tar[: len(tar) // 2 // 512 * 512],
    "cut in the end marker": lambda tar: tar.rstrip(b"\0")[:-1],
    "a header changed": lambda tar: tar[:20] + b"9" + tar[21:],
    "no image": lambda _: encode_header("README.txt", 0) + END,
    "nothing in it": lambda _: END,
    "twice": doubled,
}


@pytest.mark.parametrize(
    ("place", "kind"),
    [*itertools.product(("s3", "web"), WRONG), ("web without ranges", "gzip"), ("web without ranges", "cut in data")],
    indirect=["place"],
)
def test_what_is_wrong_is_said_as_for_a_file(place: Place, tars: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """The same sentence, with the URL in place of the path, whether the tar is walked in one part or in several."""
    for tar in ("small", "large"):
        data = WRONG[kind](tars[tar].read_bytes())
        path = tmp_path / NAME
        path.write_bytes(data)
        place.fill(NAME, data)
        with pytest.raises(SourceError) as local:
            open_source(path, allow_partial=True)
        with pytest.raises(SourceError) as caught:
            place.open()
        assert str(caught.value) == str(local.value).replace(str(path), f"{place.url}/{NAME}")


def test_a_large_tar_cut_behind_a_member_is_an_error(place: Place) -> None:
    """Also where what is left is whole members: there is no end marker."""
    members = []
    for number in range(1, 61):
        data = encode_image(number) + bytes(100_000)
        header = encode_header(f"ILSVRC2012_val_{number:08d}.JPEG", len(data))
        members.append(header + data + bytes(padding(len(data))))
    place.fill(NAME, b"".join(members))
    with pytest.raises(SourceError, match="no end-of-archive marker"):
        place.open()


def test_a_small_tar_cut_behind_a_member_is_an_error(place: Place, tars: dict[str, Path]) -> None:
    """As for a file."""
    place.fill(NAME, cut_behind_a_member(tars["small"].read_bytes()))
    with pytest.raises(SourceError, match="no end-of-archive marker"):
        place.open()


def test_an_empty_tar_is_said_to_be_empty(place: Place) -> None:
    """As for a file."""
    place.fill(NAME, b"")
    with pytest.raises(SourceError, match="the file is empty"):
        place.open()


def test_a_missing_tar_is_said(place: Place) -> None:
    """One line that names the URL and what was expected there."""
    with pytest.raises(SourceError) as caught:
        place.open()
    assert str(caught.value) == f"{place.url}/{NAME}: no such file. Expected {NAME}."


def test_missing_images_are_counted(place: Place, tars: dict[str, Path]) -> None:
    """Without --allow-partial a subset is refused, with the URL and the number that lack."""
    place.fill(NAME, tars["small"].read_bytes())
    with pytest.raises(SourceError, match="49,988 of the 50,000") as caught:
        open_source(f"{place.url}/{NAME}", storage_options=place.options)
    assert f"{place.url}/{NAME}" in str(caught.value)


def test_a_tar_that_is_replaced_while_it_is_read_is_noticed(place: Place, tars: dict[str, Path]) -> None:
    """By one of the same length, after it was indexed: what is read is the old one's bytes, or an error."""
    data = tars["large"].read_bytes()
    place.fill(NAME, data)
    with place.open() as source:
        expected = source.images[3]
        first = source.read(expected)
        place.fill(NAME, bytes(len(data)))
        try:
            found = source.read(expected)
        except StoreError as error:
            assert "replaced" in str(error)  # noqa: PT017 -- the old bytes are as good
        else:
            assert found == first


def test_an_outage_is_no_damage_of_the_tar(made_tar: Path) -> None:
    """A server that goes away while the tar is indexed or read is an UnavailableError, not a SourceError."""
    gone: list[bool] = []

    def on_request(request: Request) -> None:
        del request
        if gone:
            raise ConnectionResetError

    with http_server(made_tar.parent, on_request=on_request) as server:
        url = f"{server.endpoint}/{made_tar.name}"
        options = {"give_up_after": "4"}
        source = open_source(url, allow_partial=True, storage_options=options)
        gone.append(True)
        with source.prefetch(source.images) as images, pytest.raises(UnavailableError, match="gave up"):
            [bytes(data) for data in images]
        with pytest.raises(UnavailableError, match="gave up"):
            open_source(url, allow_partial=True, storage_options=options)


# --- From store to store ----------------------------------------------------------------------------------------------


def pack(source: Source, store_url: str, options: dict[str, str] | None) -> dict[str, bytes]:
    """Pack, and return what the place then holds, all of it."""
    store = open_store(store_url, storage_options=options)
    with source:
        write_shards(source, store, samples_per_shard=5, jobs=3)
    again = open_store(store_url, storage_options=options)
    return {name: again.get(name) for name in again.list()}


@pytest.mark.parametrize("kind", ["small", "huge"])
def test_packing_from_store_to_store_gives_the_same_bytes(
    s3: S3Server, tars: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """From S3 to S3, shards, index and manifest are byte for byte those packed from a file to a folder.

    Shards larger than a part of an upload are written in parts.
    """
    place = f"packing-{next(NUMBERS)}"
    s3.put("test", f"{place}-source/{NAME}", tars[kind].read_bytes())
    local = pack(open_source(tars[kind], allow_partial=True), str(tmp_path / "set"), None)
    url = f"s3://test/{place}"
    source = open_source(f"{url}-source/{NAME}", allow_partial=True, storage_options=s3.options)
    assert pack(source, url, s3.options) == local
    assert len(local) == 3 + 2
    assert (max(map(len, local.values())) > 16 << 20) == (kind == "huge")


@pytest.mark.parametrize("direction", ["web to folder", "folder to s3"])
def test_packing_between_kinds_gives_the_same_bytes(
    s3: S3Server, made_tar: Path, tmp_path: Path, direction: str
) -> None:
    """Where the source and the set lie makes no difference to a byte."""
    local = pack(open_source(made_tar, allow_partial=True), str(tmp_path / "set"), None)
    if direction == "folder to s3":
        url = f"s3://test/packing-{next(NUMBERS)}"
        assert pack(open_source(made_tar, allow_partial=True), url, s3.options) == local
        return
    with http_server(made_tar.parent) as server:
        source = open_source(f"{server.endpoint}/{made_tar.name}", allow_partial=True)
        assert pack(source, str(tmp_path / "other"), None) == local


# --- Nothing is copied ------------------------------------------------------------------------------------------------


def test_reading_copies_nothing_to_disk(place: Place, tars: dict[str, Path]) -> None:
    """Indexing and reading work where no temporary file can be made, unless the server knows no ranges."""
    place.fill(NAME, tars["large"].read_bytes())
    with no_temporary_files():
        if place.kind == "web without ranges":
            with pytest.raises(StoreError, match="a temporary file cannot be written"):
                place.open()
            return
        with place.open() as source:
            assert sum(map(len, contents(source))) == sum(image.num_bytes for image in source.images)


def test_uploads_gather_in_a_temporary_file(s3: S3Server, made_tar: Path, tmp_path: Path) -> None:
    """Writing needs one, which has no name and is gone afterwards; where it cannot be made, nothing is written."""
    url = f"s3://test/packing-{next(NUMBERS)}"
    with open_source(made_tar, allow_partial=True) as source, no_temporary_files():
        with pytest.raises(StoreError, match="a temporary file cannot be written"):
            write_shards(source, open_store(url, storage_options=s3.options))
        write_shards(source, LocalStore(tmp_path / "set"))
    assert open_store(url, storage_options=s3.options).list() == []
    with pytest.MonkeyPatch.context() as patch:
        (tmp_path / "temporary").mkdir()
        patch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        with open_source(made_tar, allow_partial=True) as source:
            write_shards(source, open_store(url, storage_options=s3.options))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_full_temporary_folder_is_one_line(s3: S3Server, made_tar: Path) -> None:
    """Where the shard does not fit on the disk on its way to S3, packing says so and ends with 1."""
    limited = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from wds_real.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    options = [part for name, value in s3.options.items() for part in ("--storage-option", f"{name}={value}")]
    done = subprocess.run(
        [sys.executable, "-c", limited, "pack", str(made_tar), f"s3://test/packing-{next(NUMBERS)}", "--allow-partial",
         *options],
        capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
