"""The webdataset bridge: stock pipelines over our stores lose nothing silently, and ours see each sample once."""

from __future__ import annotations

import functools
import gc
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.fault_proxy import TRANSIENT_KINDS, fault_proxy
from support.http_server import http_server
from support.wire import LOOPBACK, has_range
from torch.utils.data import DataLoader

from wds_real import interop, open_dataset
from wds_real.data.plan import shuffled_order
from wds_real.data.undecoded import UndecodedLoader
from wds_real.errors import MissingError, ShardError, StoreError, UnavailableError
from wds_real.format.shard import encode_label
from wds_real.format.tar import END, encode_header, padding
from wds_real.packing.indexer import index_shards
from wds_real.storage.prefetch import MAX_PREFETCHED_BYTES
from wds_real.storage.store import open_store
from wds_real.synthetic import labels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from support.s3 import S3Server

    from wds_real.data.dataset import Dataset

    Sample = dict[str, Any]

wds = pytest.importorskip("webdataset")

SHARDS = "imagenet2012_real-validation-{000000..000002}.tar"
LAST = "imagenet2012_real-validation-000002.tar"
LABELS = labels_of(range(1, 121))
KEYS = [label.key for label in LABELS]
BLOCK = 8 << 20  # of one request
IMPATIENT = {"read_timeout": "0.5", "give_up_after": "30"}


@pytest.fixture(autouse=True)
def _schemes_as_before() -> Iterator[None]:
    """Undo what a test registers: the table is a global of webdataset."""
    from webdataset.gopen import gopen_schemes

    before = dict(gopen_schemes)
    yield
    gopen_schemes.clear()
    gopen_schemes.update(before)


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    """The first 120 validation images, made up."""
    return open_dataset(packed)


@pytest.fixture(scope="module")
def in_bucket(s3: S3Server, packed: Path) -> str:
    """The same in a bucket that anyone may read."""
    for path in packed.iterdir():
        s3.put("public", f"webdataset/{path.name}", path.read_bytes())
    return "s3://public/webdataset"


@pytest.fixture
def anonymous(s3: S3Server) -> dict[str, str]:
    """Options without secrets: these may go to other processes."""
    return {"endpoint": s3.endpoint, "region": "us-east-1", "skip_signature": "true", "allow_http": "true"}


@pytest.fixture(scope="module")
def pictures(made_tar: Path) -> dict[str, bytes]:
    """The source's JPEG bytes by key, as the standard library reads them."""
    with tarfile.open(made_tar) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name.removesuffix(".JPEG"): file.read() for name, file in files.items() if file is not None}


@pytest.fixture(scope="module")
def expected(pictures: dict[str, bytes]) -> list[Sample]:
    """All samples in key order, in webdataset's form, without where they came from."""
    return [{"__key__": label.key, "jpg": pictures[label.key], "json": encode_label(label)} for label in LABELS]


def stock(url: str, **options: Any) -> Any:
    """Return webdataset's own pipeline, undecoded."""
    return wds.WebDataset(url, shardshuffle=False, **options)


def plain(samples: Iterable[Sample]) -> list[Sample]:
    """Return samples in key order, without where they came from and what only ours have."""
    kept = [{name: value for name, value in sample.items() if name in ("__key__", "jpg", "json")} for sample in samples]
    return sorted(kept, key=lambda sample: str(sample["__key__"]))


def keys_of(samples: Iterable[Sample]) -> list[str]:
    return [sample["__key__"] for sample in samples]


def key_and_size(sample: Sample) -> tuple[str, int]:
    return sample["__key__"], len(sample["jpg"])


def batch_keys(batch: tuple[list[str], Any]) -> list[str]:
    return list(batch[0])


def fetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]


def wait_until(condition: Callable[[], bool], *, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


# --- the stream -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def memory() -> Callable[[str, bytes], str]:
    """Return a function that keeps an object in this process and gives its URL."""
    store = open_store("memory://streams")

    def put(name: str, data: bytes) -> str:
        store.put(name, data)
        return f"memory://streams/{name}"

    return put


@pytest.fixture(scope="module")
def long_stream(memory: Callable[[str, bytes], str]) -> tuple[str, bytes]:
    """The URL of an object of two requests, and its bytes."""
    data = np.random.default_rng(0).bytes(BLOCK + 1_000_000)
    return memory("sizes.bin", data), data


@pytest.mark.parametrize("num_bytes", [0, 1, 1023, 1024, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
def test_a_stream_is_the_objects_bytes(memory: Callable[[str, bytes], str], num_bytes: int) -> None:
    """From beginning to end, whatever the length is to that of a request."""
    data = np.random.default_rng(num_bytes).bytes(num_bytes)
    with interop.open_stream(memory("any.bin", data)) as stream:
        assert stream.read() == data
        assert stream.read() == b""


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=8), unbuffered=st.booleans())
def test_reads_of_any_size_follow_each_other(
    long_stream: tuple[str, bytes], sizes: list[int], *, unbuffered: bool
) -> None:
    """Each read goes on where the last one ended; the raw stream may give less at a time, but nothing else."""
    url, data = long_stream
    position = 0
    with interop.StoreStream(url) if unbuffered else interop.open_stream(url) as stream:
        for size in sizes:
            part = stream.read(size)
            assert part is not None
            assert part == data[position : position + len(part)]
            left = min(size, len(data) - position)
            assert len(part) == left or (unbuffered and 0 < len(part) < left)
            position += len(part)


def test_a_stream_is_read_forward_only(memory: Callable[[str, bytes], str]) -> None:
    """It says that it cannot seek or be written to, and refuses both."""
    with interop.open_stream(memory("any.bin", b"12")) as stream:
        assert (stream.readable(), stream.seekable(), stream.writable()) == (True, False, False)
        with pytest.raises(io.UnsupportedOperation):
            stream.seek(0)
        with pytest.raises(io.UnsupportedOperation):
            stream.tell()
        assert stream.read() == b"12"
    assert stream.closed
    with pytest.raises(ValueError, match="closed"):
        stream.read()


@pytest.mark.parametrize("end", ["read", "close", "drop"])
def test_a_stream_ends_its_threads(memory: Callable[[str, bytes], str], end: str) -> None:
    """When it is read to its end, closed, or no longer held by anyone, which is what webdataset does with it."""
    assert wait_until(lambda: not fetching())
    # More than is read ahead, so that threads wait for room.
    stream = interop.open_stream(memory("large.bin", bytes(MAX_PREFETCHED_BYTES + 2 * BLOCK)))
    assert len(stream.read(10)) == 10
    if end == "read":
        while stream.read(BLOCK):
            pass
    else:
        assert fetching()
        assert not wait_until(lambda: not fetching(), seconds=0.3)
        if end == "close":
            stream.close()
            stream.close()
        else:
            del stream
            gc.collect()
    assert wait_until(lambda: not fetching())


def test_a_missing_object_is_an_error_at_once(in_bucket: str, anonymous: dict[str, str], packed: Path) -> None:
    """Opening tells, before anything is read."""
    with pytest.raises(MissingError, match=r"public/webdataset/none\.tar"):
        interop.open_stream(f"{in_bucket}/none.tar", storage_options=anonymous)
    with http_server(packed) as server, pytest.raises(MissingError, match=r"none\.tar"):
        interop.open_stream(f"{server.endpoint}/none.tar")


def test_a_stream_that_does_not_open_leaves_nothing_to_say() -> None:
    """Python finds no fault in what is left of it, which it tells in development mode, and since 3.13 in any."""
    script = "import contextlib, wds_real.interop as i, wds_real as w\nwith contextlib.suppress(w.StoreError): i.{}"
    command = [sys.executable, "-X", "dev", "-c", script.format("open_stream('memory://none/a.tar')")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""


def test_shards_are_only_read() -> None:
    """Another mode is refused, rather than read in place of written."""
    from webdataset.gopen import gopen_schemes

    interop.register_stores()
    with pytest.raises(StoreError, match="mode 'wb': shards are only read"):
        wds.gopen("s3://test/x.tar", "wb")
    with pytest.raises(StoreError, match="mode 'r': shards are only read"):
        gopen_schemes["https"]("https://host/x.tar", "r")


def test_only_the_schemes_named_are_taken() -> None:
    """The handlers that webdataset has for the others stay."""
    from webdataset.gopen import gopen_schemes

    before = dict(gopen_schemes)
    interop.register_stores(schemes=("s3",))
    assert {name for name in gopen_schemes if gopen_schemes[name] is not before.get(name)} == {"s3"}
    interop.register_stores()
    changed = {name for name in gopen_schemes if gopen_schemes[name] is not before.get(name)}
    assert changed == {"s3", "gs", "az", "http", "https"}


# --- stock webdataset -------------------------------------------------------------------------------------------------


def test_stock_webdataset_reads_from_a_bucket(
    s3: S3Server, packed: Path, expected: list[Sample], in_bucket: str, anonymous: dict[str, str]
) -> None:
    """With credentials or without, by brace notation, every sample with its bytes, in the order of the shards."""
    interop.register_stores(anonymous)
    samples = list(stock(f"{in_bucket}/{SHARDS}"))
    assert keys_of(samples) == KEYS
    assert plain(samples) == expected
    for path in packed.glob("*.tar"):
        s3.put("test", f"webdataset/{path.name}", path.read_bytes())
    interop.register_stores(s3.options)
    assert plain(stock(f"s3://test/webdataset/{SHARDS}")) == expected
    interop.register_stores({**s3.options, "secret_access_key": "wrong"})
    with pytest.raises(UnavailableError, match="test/webdataset"):
        list(stock(f"s3://test/webdataset/{SHARDS}"))


@pytest.mark.parametrize(("ranges", "etags"), [(True, True), (False, True), (True, False)])
def test_stock_webdataset_reads_from_a_web_server(
    packed: Path, expected: list[Sample], *, ranges: bool, etags: bool
) -> None:
    """Also where it knows no ranges or no versions; a query stays with the name of the file."""
    interop.register_stores()
    with http_server(packed, ranges=ranges, etags=etags) as server:
        assert plain(stock(f"{server.endpoint}/{SHARDS}?sig=a%2Fb")) == expected
        assert {(request.path.rpartition("/")[2], request.query) for request in server.requests} == {
            (f"imagenet2012_real-validation-{number:06d}.tar", "sig=a%2Fb") for number in range(3)
        }


def test_the_usual_pipeline_works_on_a_bucket(
    in_bucket: str, anonymous: dict[str, str], pictures: dict[str, bytes]
) -> None:
    """decode, to_tuple and shuffle of stock webdataset get what they get from files."""
    interop.register_stores(anonymous)
    pipeline = stock(f"{in_bucket}/{SHARDS}").shuffle(50).decode("pil").to_tuple("__key__", "jpg", "json")
    found = {key: (np.asarray(image), label) for key, image, label in pipeline}
    assert sorted(found) == KEYS
    for key, (pixels, label) in found.items():
        assert label["file_name"] == f"{key}.JPEG"
        assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(pictures[key])).convert("RGB")))


def cuts_of(shard: Path) -> list[int]:
    """Return lengths at which a cut hides: before each header, in headers, pictures, paddings and the end marker."""
    with tarfile.open(shard) as tar:
        headers = [member.offset for member in tar]
    whole = shard.stat().st_size
    inside = [start + more for start in headers[:4] for more in (1, 100, 512, 700, 1100)]
    return sorted({*headers, *inside, *(whole - left for left in (1, 511, 512, 513, 1023, 1024))})


@pytest.mark.parametrize("scheme", ["http", "memory"])
def test_a_cut_shard_is_an_error_and_not_an_end(
    packed: Path, tmp_path: Path, expected: list[Sample], scheme: str
) -> None:
    """Wherever it was cut; but where one of the marker's two blocks is whole, all samples may be given."""
    data = (packed / LAST).read_bytes()
    store = open_store("memory://cut")
    interop.register_stores(schemes=("http", "memory"))
    with http_server(tmp_path) as server:
        for cut in cuts_of(packed / LAST):
            name = f"{cut}.tar"
            (tmp_path / name).write_bytes(data[:cut])
            store.put(name, data[:cut])
            url = f"{server.endpoint}/{name}" if scheme == "http" else f"memory://cut/{name}"
            try:
                found = plain(stock(url))
            except (StoreError, tarfile.ReadError):
                continue
            assert cut >= len(data) - 512
            assert found == expected[100:]


def test_a_cut_between_samples_says_what_to_do(packed: Path, memory: Callable[[str, bytes], str]) -> None:
    """Where nothing but the end marker is missing, the error is ours."""
    url = memory("ends.tar", (packed / LAST).read_bytes()[: -len(END)])
    interop.register_stores(schemes=("memory",))
    with pytest.raises(StoreError, match=r"memory://streams/ends\.tar: no end-of-archive marker in its [\d,]+ bytes"):
        list(stock(url))


def test_zeros_before_a_cut_are_no_end_marker(memory: Callable[[str, bytes], str]) -> None:
    """A cut behind a member that happens to end with zeros is an error too."""
    members = [("a.npy", b"x" * 512 + bytes(1024)), ("b.npy", b"x")]
    whole = b"".join(encode_header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members)
    interop.register_stores(schemes=("memory",))
    with pytest.raises(StoreError, match="no end-of-archive marker"):
        list(stock(memory("zeros.tar", whole[: 512 + 1536])))


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 511, 512, 513, 10_240, BLOCK - 512, BLOCK, BLOCK + 1]), max_size=5),
    long_names=st.booleans(),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_every_whole_tar_is_read_to_its_end(
    memory: Callable[[str, bytes], str], sizes: list[int], *, long_names: bool, form: int
) -> None:
    """Folders, links, long names and members longer than a request: what tarfile wrote is no cut shard."""
    out = io.BytesIO()
    folder = "f" * 90 + "/" if long_names else ""
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "x" if kind == tarfile.SYMTYPE else ""
            tar.addfile(entry)
        for number, size in enumerate(sizes):
            entry = tarfile.TarInfo(f"{folder}{number:020}.bin")
            entry.size = size
            tar.addfile(entry, io.BytesIO(bytes([number + 1]) * size))
    interop.register_stores(schemes=("memory",))
    samples = list(stock(memory("whole.tar", out.getvalue()), empty_check=False))
    assert [sample["bin"] for sample in samples] == [bytes([n + 1]) * size for n, size in enumerate(sizes)]


def large_by_pax() -> bytes:
    """Return an archive whose member's size is in its pax header alone, as it is for 8 GiB and more."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("a.bin")
        entry.size, entry.pax_headers = 1000, {"size": "1000"}
        tar.addfile(entry, io.BytesIO(b"x" * 1000))
    data = bytearray(out.getvalue())
    data[1024 + 124 : 1024 + 136] = b"00000000000\0"  # behind the pax header and its record
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    return bytes(data)


def with_link() -> bytes:
    """Return an archive with a hard link that has a size, but no data: some archivers write that."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link, entry = tarfile.TarInfo("link"), tarfile.TarInfo("a.bin")
        link.size = entry.size = 1000
        link.type, link.linkname = tarfile.LNKTYPE, "other"
        tar.addfile(link)
        tar.addfile(entry, io.BytesIO(b"x" * 1000))
    return out.getvalue()


@pytest.mark.parametrize("archive", [large_by_pax, with_link])
def test_a_whole_tar_with_sizes_of_other_meaning_is_read(
    memory: Callable[[str, bytes], str], archive: Callable[[], bytes]
) -> None:
    """What tarfile reads to the end marker is no cut shard."""
    interop.register_stores(schemes=("memory",))
    assert [sample["bin"] for sample in stock(memory("sizes.tar", archive()))] == [b"x" * 1000]


def test_what_is_no_tar_needs_no_end_marker(memory: Callable[[str, bytes], str]) -> None:
    """The marker is a tar's; an empty tar has it and no samples."""
    interop.register_stores(schemes=("memory",))
    assert list(stock(memory("empty.tar", END), empty_check=False)) == []
    with pytest.raises(StoreError, match="no end-of-archive marker"):
        list(stock(memory("nothing.tar", b""), empty_check=False))
    with interop.open_stream(memory("a.jpg", b"picture")) as stream:
        assert stream.read() == b"picture"


# A flipped bit in a plain stream is beyond any client: there is no checksum to compare with. ExactlyOnce has one.
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kinds", [("changed",), tuple(kind for kind in TRANSIENT_KINDS if kind != "flipped")])
def test_faults_give_the_right_samples_or_an_error(
    packed: Path, expected: list[Sample], seed: int, kinds: tuple[str, ...]
) -> None:
    """Stock webdataset over a network that breaks, lies and stalls: all samples with their bytes, or an error."""
    interop.register_stores(IMPATIENT)
    with (
        http_server(packed) as server,
        fault_proxy(LOOPBACK, server.port, seed=seed, rate=0.6, kinds=kinds, stall_s=1.0, drip_s=0.1) as proxy,
    ):
        try:
            found = plain(stock(f"{proxy.endpoint}/{SHARDS}"))
        except StoreError:
            found = expected
            assert kinds == ("changed",)
        assert found == expected
        assert proxy.injected


@pytest.mark.parametrize("seed", range(3))
def test_faults_in_our_pipeline_give_the_right_samples_or_an_error(
    s3: S3Server, in_bucket: str, anonymous: dict[str, str], expected: list[Sample], seed: int
) -> None:
    """With checksums, every kind of fault: flipped bits and other objects too."""
    with fault_proxy(LOOPBACK, s3.port, seed=seed, rate=0.5, only=has_range, stall_s=1.0, drip_s=0.1) as proxy:
        proxy.pause()
        dataset = open_dataset(in_bucket, storage_options={**anonymous, **IMPATIENT, "endpoint": proxy.endpoint})
        proxy.resume()
        # In halves, so that there are more requests to spoil.
        for positions in (slice(1, None, 2), slice(0, None, 2)):
            try:
                found = plain(interop.ExactlyOnce(dataset[positions], batch_size=8))
            except (ShardError, UnavailableError):
                continue
            assert found == expected[positions]
        assert proxy.injected


# --- exactly once -----------------------------------------------------------------------------------------------------


def test_samples_have_webdatasets_form(ds: Dataset, packed: Path, expected: list[Sample]) -> None:
    """Key, URL of the shard, picture, label file, and the original label in digits: all but the key as bytes."""
    samples = list(interop.ExactlyOnce(ds))
    assert keys_of(samples) == KEYS
    assert plain(samples) == expected
    for sample, label in zip(samples, LABELS, strict=True):
        assert list(sample) == ["__key__", "__url__", "jpg", "json", "cls"]
        assert type(sample["jpg"]) is bytes
        assert sample["cls"] == b"%d" % label.original_label
        shard = Path(sample["__url__"])
        assert shard.parent == packed
        with tarfile.open(shard) as tar:
            assert tar.getmember(f"{label.key}.jpg").size == len(sample["jpg"])


@pytest.mark.usefixtures("_files_left_open")
def test_samples_are_those_of_stock_webdataset(ds: Dataset, packed: Path) -> None:
    """What one pipeline gives of our shards, the other gives too."""
    ours = [{**sample} for sample in interop.ExactlyOnce(ds)]
    theirs = list(stock(str(packed / SHARDS)))
    assert [{name: sample[name] for name in ("__key__", "__url__", "jpg", "json")} for sample in ours] == [
        {name: sample[name] for name in ("__key__", "__url__", "jpg", "json")} for sample in theirs
    ]


def test_the_stages_of_a_pipeline_work(ds: Dataset, pictures: dict[str, bytes]) -> None:
    """DataPipeline and the methods alike: decode, to_tuple, map and batched."""
    stages = wds.DataPipeline(interop.ExactlyOnce(ds), wds.decode("pil"), wds.to_tuple("__key__", "jpg", "json", "cls"))
    methods = interop.WebDataset(ds).decode("pil").to_tuple("__key__", "jpg", "json", "cls")
    for pipeline in (stages, methods):
        found = list(pipeline)
        assert [key for key, *_ in found] == KEYS
        for (key, image, label, number), known in zip(found, LABELS, strict=True):
            assert (label["real_label"], number) == (list(known.real_label), known.original_label)
            assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(pictures[key])).convert("RGB")))
    mapped = interop.WebDataset(ds).map(key_and_size).batched(50)
    assert [list(keys) for keys, _ in mapped] == [KEYS[:50], KEYS[50:100], KEYS[100:]]
    assert [size for _, sizes in mapped for size in sizes] == [len(pictures[key]) for key in KEYS]
    tensors = [batch for (batch,) in interop.WebDataset(ds[:4]).decode("torchrgb").to_tuple("jpg").batched(1)]
    assert [tuple(batch.shape[:2]) for batch in tensors] == [(1, 3)] * 4


def test_a_pipeline_may_be_iterated_again(ds: Dataset) -> None:
    """Every pass begins at the beginning, also after one that was broken off."""
    pipeline = interop.WebDataset(ds, batch_size=16)
    assert next(iter(pipeline))["__key__"] == KEYS[0]
    assert keys_of(pipeline) == KEYS
    assert keys_of(pipeline) == KEYS


def test_a_part_of_the_data_set_is_a_source_too(ds: Dataset, expected: list[Sample]) -> None:
    """Slices and splits give their own samples, in their order."""
    assert plain(interop.ExactlyOnce(ds[30:90])) == expected[30:90]
    backwards = interop.ExactlyOnce(ds[::-1])
    assert keys_of(backwards) == KEYS[::-1]
    assert plain(backwards) == expected


def test_shards_of_others_are_read_exactly_once(packed: Path, tmp_path: Path, expected: list[Sample]) -> None:
    """A data set that was only indexed works as one that was packed."""
    root = Path(shutil.copytree(packed, tmp_path / "set", ignore=shutil.ignore_patterns("*.json")))
    index_shards(str(root), str(tmp_path / "index"))
    samples = list(interop.ExactlyOnce(open_dataset(tmp_path / "index")))
    assert plain(samples) == expected
    assert {Path(sample["__url__"]).parent for sample in samples} == {root}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_and_workers_see_each_sample_once(
    ds: Dataset, expected: list[Sample], world_size: int, workers: int
) -> None:
    """No sample is doubled or left out, though neither ranks nor workers divide the number of shards or samples."""
    found: list[Sample] = []
    for rank in range(world_size):
        pipeline = interop.WebDataset(ds, batch_size=11, rank=rank, world_size=world_size)
        context = "fork" if workers else None
        samples = list(DataLoader(pipeline, batch_size=None, num_workers=workers, multiprocessing_context=context))
        assert len(samples) == len(pipeline.source)
        found += samples
    assert len(found) == 120
    assert plain(found) == expected


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 2), (1, 2)])
def test_batches_are_those_of_the_loader(ds: Dataset, rank: int, world_size: int, workers: int) -> None:
    """With one batch size for the source and the stage, in the same order, shuffled, at any number of workers."""
    source = interop.WebDataset(ds, batch_size=13, shuffle=True, seed=5, rank=rank, world_size=world_size)
    pipeline = source.map(key_and_size).batched(13).map(batch_keys)
    loader = UndecodedLoader(
        ds, batch_size=13, shuffle=True, seed=5, rank=rank, world_size=world_size, pad=False, threads=1
    )
    for epoch in (0, 3):
        pipeline.set_epoch(epoch)
        loader.set_epoch(epoch)
        context = "fork" if workers else None
        batches = list(DataLoader(pipeline, batch_size=None, num_workers=workers, multiprocessing_context=context))
        assert batches == [list(batch.key) for batch in loader]


@pytest.mark.parametrize("kind", [interop.ExactlyOnce, interop.WebDataset])
def test_the_order_is_the_plans(ds: Dataset, kind: Callable[..., Any]) -> None:
    """Shuffled by seed and epoch, as plan.shuffled_order says; otherwise in key order in every epoch."""
    shuffled, straight = kind(ds, shuffle=True, seed=9, batch_size=7), kind(ds, batch_size=7)
    for epoch in (0, 1, 12):
        shuffled.set_epoch(epoch)
        straight.set_epoch(epoch)
        assert keys_of(shuffled) == [KEYS[row] for row in shuffled_order(KEYS, seed=9, epoch=epoch).tolist()]
        assert keys_of(straight) == KEYS


def test_an_epoch_chosen_later_reaches_the_source(ds: Dataset) -> None:
    """set_epoch works on the pipeline that methods made, which shares its source with the one it was made of."""
    first = interop.WebDataset(ds, shuffle=True)
    pipeline = first.decode("pil").to_tuple("__key__")
    pipeline.set_epoch(4)
    order = [KEYS[row] for row in shuffled_order(KEYS, seed=0, epoch=4).tolist()]
    assert [key for (key,) in pipeline] == order


def test_the_lengths_of_ranks_add_up(ds: Dataset) -> None:
    """len() is what a rank yields over all its workers; more ranks than batches leave some without any."""
    for world_size in (1, 2, 3, 50):
        sources = [
            interop.ExactlyOnce(ds, batch_size=11, rank=rank, world_size=world_size) for rank in range(world_size)
        ]
        assert [len(list(source)) for source in sources] == [len(source) for source in sources]
        assert sum(map(len, sources)) == 120


def test_rank_and_world_size_come_from_the_launcher(ds: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for Loader: torchrun's variables, without a word in the code."""
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert keys_of(interop.WebDataset(ds, batch_size=60)) == KEYS[60:]


def test_damage_is_an_error_that_names_the_sample(packed: Path, tmp_path: Path) -> None:
    """A flipped byte ends the pipeline; no handler of a later stage can make it a missing sample."""
    root = Path(shutil.copytree(packed, tmp_path / "set"))
    dataset = open_dataset(root)
    shard = root / LAST
    data = bytearray(shard.read_bytes())
    data[int(dataset.index.offset[110]) + 50] ^= 1
    shard.write_bytes(data)
    pipeline = interop.WebDataset(dataset).decode("pil", handler=wds.ignore_and_continue)
    with pytest.raises(ShardError, match=KEYS[110]):
        list(pipeline)


@pytest.mark.parametrize("kind", [interop.ExactlyOnce, interop.WebDataset])
def test_a_source_goes_through_pickle(ds: Dataset, expected: list[Sample], kind: Callable[..., Any]) -> None:
    """With its plan and its epoch, also when it was read before."""
    source = kind(ds, shuffle=True, seed=3)
    source.set_epoch(2)
    before = keys_of(source)
    again = pickle.loads(pickle.dumps(source))  # noqa: S301 -- our own bytes
    samples = list(again)
    assert keys_of(samples) == before
    assert plain(samples) == expected


def test_a_source_with_secrets_does_not_go_through_pickle(
    s3: S3Server, in_bucket: str, anonymous: dict[str, str], expected: list[Sample]
) -> None:
    """Credentials in options are not handed to other processes; without any, the source goes."""
    public = interop.ExactlyOnce(open_dataset(in_bucket, storage_options=anonymous))
    assert plain(pickle.loads(pickle.dumps(public))) == expected  # noqa: S301 -- our own bytes
    secret = interop.ExactlyOnce(open_dataset(in_bucket, storage_options=s3.options))
    assert plain(secret) == expected
    with pytest.raises(StoreError, match="not handed to other processes") as caught:
        pickle.dumps(secret)
    assert s3.secret_key not in str(caught.value)


# --- other processes --------------------------------------------------------------------------------------------------


def register(options: dict[str, str], worker: int) -> None:
    del worker
    interop.register_stores(options)


@pytest.mark.parametrize(("start", "workers"), [("forkserver", 2), ("spawn", 1)])
def test_worker_processes_read_from_a_bucket(
    in_bucket: str, anonymous: dict[str, str], expected: list[Sample], start: str, workers: int
) -> None:
    """In processes that were not forked from one that had read already, each sample comes once over the workers."""
    pipeline = interop.WebDataset(open_dataset(in_bucket, storage_options=anonymous), batch_size=16)
    loader: DataLoader[Sample] = DataLoader(
        pipeline, batch_size=None, num_workers=workers, multiprocessing_context=start
    )
    assert plain(loader) == expected


def test_stores_are_registered_in_each_worker(
    in_bucket: str, anonymous: dict[str, str], expected: list[Sample]
) -> None:
    """What register_stores changes is of one process: workers of a fork server call it in worker_init_fn."""
    loader: DataLoader[Sample] = DataLoader(
        stock(f"{in_bucket}/{SHARDS}"),
        batch_size=None,
        num_workers=1,
        multiprocessing_context="forkserver",
        worker_init_fn=functools.partial(register, anonymous),
    )
    assert plain(loader) == expected


FORKED = """
    import sys
    import torch.utils.data
    import webdataset
    from wds_real import interop

    def key(sample):
        return sample["__key__"]

    interop.register_stores({"endpoint": sys.argv[2], "skip_signature": "true", "region": "us-east-1"})
    pipeline = webdataset.WebDataset(sys.argv[1], shardshuffle=False).map(key)
    loader = torch.utils.data.DataLoader(pipeline, batch_size=None, num_workers=2, multiprocessing_context="fork")
    print(*sorted(loader))
"""


def test_forked_workers_inherit_the_stores(in_bucket: str, anonymous: dict[str, str]) -> None:
    """A process that has not read from a store may fork workers that do, registered once."""
    command = [sys.executable, "-c", textwrap.dedent(FORKED), f"{in_bucket}/{SHARDS}", anonymous["endpoint"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))
    assert (done.returncode, done.stdout.split()) == (0, KEYS), done.stderr
