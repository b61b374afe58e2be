"""Indexing shards that others wrote: the samples are webdataset's, the labels agree, and nothing goes in silently."""

from __future__ import annotations

import io
import json
import random
import re
import shlex
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.http_server import http_server

from wds_real import open_dataset
from wds_real.data.loader import Loader
from wds_real.data.undecoded import UndecodedLoader
from wds_real.errors import ShardError, SourceError, StoreError, UnavailableError
from wds_real.evaluation.loop import evaluate
from wds_real.evaluation.metric import RealAccuracy
from wds_real.evaluation.options import EvalOptions
from wds_real.format.tar import END, encode_header, padding
from wds_real.labels import bundled, classes
from wds_real.packing.indexer import index_shards
from wds_real.packing.verification import verify
from wds_real.storage.store import open_store
from wds_real.synthetic import encode_image, known_answer, known_answer_model, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from support.s3 import S3Server
    from support.wire import Request

    from wds_real.data.dataset import Dataset
    from wds_real.labels import Label
    from wds_real.scoring.result import Result

    Members = Sequence[tuple[str, bytes]]
    Sample = dict[str, Any]

wds = pytest.importorskip("webdataset")

MODEL, TRANSFORM = known_answer_model()
LABELS = labels_of(range(1, 121))
KEYS = [label.key for label in LABELS]
PICTURE = encode_image(5)
FIRST, SECOND = KEYS[:2]
FIRST_CLASS, SECOND_CLASS = (label.original_label for label in LABELS[:2])


def wnid(label: Label) -> str:
    return classes()[label.original_label].wnid


def as_png(jpeg: bytes) -> bytes:
    """Return the same pixels in another format."""
    out = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).save(out, "png")
    return out.getvalue()


def label_fields(label: Label) -> Sample:
    return {"file_name": label.file_name, "original_label": label.original_label, "real_label": label.real_label}


# How others lay out the validation images: what webdataset's writer is given for each.
LAYOUTS: dict[str, Callable[[Label, bytes], Sample]] = {
    "jpg and cls": lambda label, jpeg: {"__key__": label.key, "jpg": jpeg, "cls": label.original_label},
    "our fields": lambda label, jpeg: {"__key__": label.key, "jpg": jpeg, "json": label_fields(label)},
    "folders by class": lambda label, jpeg: {"__key__": f"val/{wnid(label)}/{label.key}", "JPEG": jpeg},
    "timm": lambda label, jpeg: {
        "__key__": f"{int(label.key[-8:]) * 7919 % 50_000:06d}",
        "jpg": jpeg,
        "json": {"label": label.original_label, "filename": label.file_name},
    },
    "Hugging Face": lambda label, jpeg: {
        "__key__": f"{label.key}_{wnid(label)}",
        "jpeg": jpeg,
        "cls": label.original_label,
        "json": {"label": label.original_label},
    },
    "wnids": lambda label, jpeg: {
        "__key__": f"x/{label.key[-8:]}",
        "Json": json.dumps({"fname": f"val/{wnid(label)}/{label.file_name}", "class": wnid(label)}),
        "image.JPG": jpeg,
        "cls.txt": "not a label member",
    },
    "png": lambda label, jpeg: {"__key__": label.key, "png": as_png(jpeg), "cls": wnid(label), "index": b"7"},
}


@pytest.fixture(scope="module")
def pictures(made_tar: Path) -> dict[str, bytes]:
    """The made-up images by key, as the standard library reads them."""
    with tarfile.open(made_tar) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name.removesuffix(".JPEG"): file.read() for name, file in files.items() if file is not None}


def write_layout(root: Path, layout: str, pictures: Mapping[str, bytes]) -> Path:
    """Let webdataset write three shards of the made-up images, in no particular order."""
    root.mkdir(parents=True, exist_ok=True)
    labels = random.Random(7).sample(LABELS, len(LABELS))  # noqa: S311 -- an order, not a secret
    with wds.ShardWriter(f"{root}/val-%02d.tar", maxcount=50, verbose=0) as writer:
        for label in labels:
            writer.write(LAYOUTS[layout](label, pictures[label.key]))
    return root


@pytest.fixture(scope="module")
def timm_shards(pictures: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards without an index, whose keys say nothing of the images. Read only."""
    return write_layout(tmp_path_factory.mktemp("timm"), "timm", pictures)


@pytest.fixture
def copied(timm_shards: Path, tmp_path: Path) -> Path:
    """The same, to index and to damage."""
    return Path(shutil.copytree(timm_shards, tmp_path / "copied"))


def packed_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the shortest archive of these members: every byte of it is needed."""
    parts = (encode_header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members)
    return b"".join(parts) + END


def write_tar(path: Path, members: Members, *, form: int = tarfile.PAX_FORMAT) -> Path:
    """Write an archive by the standard library; a name that ends with a slash is a folder's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def indexed(root: Path, *shards: Members) -> Dataset:
    """Write archives, index them and open the data set."""
    for number, members in enumerate(shards):
        write_tar(root / f"{number}.tar", members)
    index_shards(str(root))
    return open_dataset(root)


def refuse(root: Path, *shards: Members, says: str) -> None:
    """Expect that indexing is refused in our own words, and that nothing is written."""
    with pytest.raises(SourceError, match=says):
        indexed(root, *shards)
    assert {path.suffix for path in root.iterdir()} == {".tar"}


def read_all(dataset: Dataset) -> dict[str, bytes]:
    return {key: bytes(dataset.reader.read(position)) for position, key in enumerate(dataset.keys)}


def counts(result: Result) -> dict[str, int]:
    names = ("original_top1", "original_top5", "original_top1_labelled", "real_top1", "real_top5")
    found = {name: getattr(result, name).correct for name in names}
    bridge = {"forgiven": result.forgiven, "newly_wrong": result.newly_wrong}
    return found | bridge | {"labelled": result.real_top1.total, "all": result.original_top1.total}


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def tree(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


# --- whose shards, and where ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_validation_images_are_found_in_any_layout(layout: str, pictures: dict[str, bytes], tmp_path: Path) -> None:
    """What webdataset wrote, in any order, gives the images by official key, their labels, and the right counts."""
    root = write_layout(tmp_path / "set", layout, pictures)
    manifest = index_shards(str(root))
    assert (manifest.dataset, manifest.version, manifest.external, manifest.partial) == (
        ("imagenet2012_real", "1.0.0", True, True)
    )
    assert [(shard.name, shard.num_samples) for shard in manifest.shards] == [
        ("val-00.tar", 50), ("val-01.tar", 50), ("val-02.tar", 20)
    ]  # fmt: skip
    dataset = open_dataset(root)
    assert [dataset.index.label(position) for position in range(120)] == LABELS
    expected = {key: as_png(jpeg) for key, jpeg in pictures.items()} if layout == "png" else pictures
    assert read_all(dataset) == expected
    result = evaluate(MODEL, dataset, transform=TRANSFORM, options=EvalOptions(batch_size=32, threads=2, device="cpu"))
    assert counts(result) == known_answer(LABELS)
    assert (result.coverage.expected, result.coverage.seen_once, result.coverage.failed) == (120, 120, ())
    assert verify(open_store(root), level="decode").problems == ()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_sample_is_counted_once_at_any_world_size(copied: Path, world_size: int) -> None:
    """The ranks' counts together are the known ones; a sample missed or seen twice would be a CoverageError."""
    index_shards(str(copied))
    dataset = open_dataset(copied)
    metrics = []
    for rank in range(world_size):
        loader = Loader(dataset, batch_size=17, transform=TRANSFORM, threads=2, rank=rank, world_size=world_size)
        metric = RealAccuracy(dataset, sync_on_compute=False)
        for batch in loader:
            metric.update(MODEL((batch.image / 255 - 0.5) / 0.5), batch)
        metrics.append(metric)
    assert counts(metrics[0].merge_state(metrics[1:]).compute()) == known_answer(LABELS)


@pytest.mark.parametrize("checksums", [False, True])
def test_our_own_shards_without_a_manifest_are_indexed(packed: Path, tmp_path: Path, *, checksums: bool) -> None:
    """The index is the one that packing wrote, but for the checksums where these are not asked for."""
    root = tmp_path / "set"
    shutil.copytree(packed, root, ignore=shutil.ignore_patterns("*.json"))
    manifest = index_shards(str(root), checksums=checksums)
    found, expected = (json.loads((place / "index.json").read_bytes()) for place in (root, packed))
    if not checksums:
        expected["checksum"] = [""] * 120
    assert found == expected
    written = json.loads((packed / "manifest.json").read_bytes())
    digests = [shard["sha256"] if checksums else "" for shard in written["shards"]]
    assert [shard.sha256 for shard in manifest.shards] == digests
    assert manifest.labels_digest == written["labels"]["digest"]
    assert manifest.digest != written["digest"]
    assert verify(open_store(root), level="decode").problems == ()


def test_images_of_another_set_have_the_class_that_is_given(tmp_path: Path) -> None:
    """Without the validation images' names there is the class of cls or json, and a ReaL label only if json has one."""
    members = [
        *[("val/a.jpg", encode_image(3)), ("val/a.cls", b"3\n")],
        *[("b.jpg", encode_image(4)), ("b.json", b'{"label": "4", "real_label": [7, 4], "caption": "a"}')],
        *[("c.jpg", encode_image(5)), ("c.cls", classes()[5].wnid.encode())],
    ]
    dataset = indexed(tmp_path, members)
    assert dataset.keys == ("b", "c", "val/a")
    assert dataset.index.original_label.tolist() == [4, 5, 3]
    assert dataset.index.real_label == ((7, 4), (), ())
    assert (dataset.manifest.dataset, dataset.manifest.version) == ("webdataset", "0.0.0")
    assert dataset["val/a"]["original_label"] == 3
    result = evaluate(MODEL, dataset, transform=TRANSFORM, options=EvalOptions(threads=1, device="cpu"))
    assert (result.original_top1.correct, result.original_top1.total) == (3, 3)
    assert (result.real_top1.correct, result.real_top1.total) == (1, 1)


def test_one_image_of_another_set_makes_it_another_set(tmp_path: Path) -> None:
    """A set that holds more than validation images does not go by their name."""
    members = [(f"{FIRST}.jpg", PICTURE), ("a.jpg", PICTURE), ("a.cls", b"1")]
    assert indexed(tmp_path, members).manifest.dataset == "webdataset"


@pytest.mark.parametrize("spec", ["val-{00..02}.tar", "val-0{2,0,1}.tar", "{val-02,val-01,val-00}.tar", ""])
def test_shards_are_named_by_braces_or_by_their_folder(copied: Path, spec: str, pictures: dict[str, bytes]) -> None:
    """Braces in any order, or the folder alone, which may hold other files."""
    (copied / "notes.txt").write_text("not a shard")
    (copied / ".val-03.tar").write_bytes(b"hidden")
    index_shards(str(copied / spec))
    assert read_all(open_dataset(copied)) == pictures


def test_some_shards_are_a_set_of_their_own(copied: Path) -> None:
    """What the braces leave out is no part of the set, and no problem to verify."""
    manifest = index_shards(f"{copied}/val-{{01,02}}.tar")
    assert (manifest.num_samples, len(manifest.shards)) == (70, 2)
    assert len(read_all(open_dataset(copied))) == 70
    assert verify(open_store(copied)).problems == ()


def test_a_single_shard_needs_no_braces(copied: Path) -> None:
    """A name that ends with .tar is a shard's, also relative to the working directory."""
    assert index_shards(f"{copied}/val-02.tar").num_samples == 20


def put_all(s3: S3Server, shards: Path, bucket: str, prefix: str) -> str:
    for path in shards.glob("*.tar"):
        s3.put(bucket, f"{prefix}/{path.name}", path.read_bytes())
    return f"s3://{bucket}/{prefix}"


@pytest.mark.parametrize("spec", ["", "/val-{00..02}.tar"])
def test_shards_in_a_bucket_are_indexed_there(
    s3: S3Server, timm_shards: Path, pictures: dict[str, bytes], spec: str
) -> None:
    """By braces or by prefix, with nothing copied; then the bucket's prefix is a data set."""
    url = put_all(s3, timm_shards, "test", f"foreign/{len(spec)}")
    manifest = index_shards(url + spec, storage_options=s3.options)
    dataset = open_dataset(url, storage_options=s3.options)
    assert dataset.digest == manifest.digest
    assert read_all(dataset) == pictures
    batches = Loader(dataset, batch_size=32, transform=TRANSFORM, threads=2)
    assert sum(int(batch.valid.sum()) for batch in batches) == 120
    assert verify(open_store(url, storage_options=s3.options), level="decode").problems == ()
    with pytest.raises(StoreError, match="--overwrite"):
        index_shards(url + spec, storage_options=s3.options)
    again = index_shards(url + spec, storage_options=s3.options, overwrite=True)
    assert again.digest == manifest.digest


def test_the_index_of_a_bucket_may_be_in_a_folder(
    s3: S3Server, timm_shards: Path, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    """The options are for the bucket; the folder holds two files and knows where the shards are."""
    url = put_all(s3, timm_shards, "test", "foreign/elsewhere")
    manifest = index_shards(url, str(tmp_path / "index"), storage_options=s3.options)
    assert manifest.shards_at == url
    assert sorted(tree(tmp_path / "index")) == ["index.json", "manifest.json"]
    assert not any(s3.secret_key.encode() in data for data in tree(tmp_path / "index").values())
    assert read_all(open_dataset(tmp_path / "index", storage_options=s3.options)) == pictures
    report = verify(open_store(tmp_path / "index"), storage_options=s3.options)
    assert report.problems == ()


def test_shards_on_a_web_server_are_indexed_elsewhere(
    timm_shards: Path, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    """A web server is only read: the index goes to a folder, and the shards are named."""
    with http_server(timm_shards) as server:
        spec = f"{server.endpoint}/val-{{00..02}}.tar"
        with pytest.raises(UnavailableError, match="can only be read"):
            index_shards(spec)
        with pytest.raises(UnavailableError, match="Name the files"):
            index_shards(server.endpoint, str(tmp_path))
        assert list(tmp_path.iterdir()) == []
        assert index_shards(spec, str(tmp_path)).shards_at == server.endpoint
        assert read_all(open_dataset(tmp_path)) == pictures
        assert verify(open_store(tmp_path)).problems == ()


def test_no_secret_of_a_url_is_kept(timm_shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """User name, password and query of the shards' URL are in no file, message or log line."""
    secret = re.compile(rb"hunter2|alice|sig=|signature")
    with http_server(timm_shards) as server:
        place = server.endpoint.replace("//", "//alice:hunter2@")
        manifest = index_shards(f"{place}/val-{{00..02}}.tar?sig=signature", str(tmp_path))
        assert manifest.shards_at == server.endpoint
        assert not any(secret.search(data) for data in tree(tmp_path).values())
        for wrong in ("val-{00..03}.tar?sig=signature", "val-{00..03.tar?sig=signature", "{a,b/c}.tar?sig=signature"):
            with pytest.raises(SourceError) as caught:
                index_shards(f"{place}/{wrong}", str(tmp_path / "other"))
            assert not secret.search(str(caught.value).encode())
    assert not secret.search(caplog.text.encode())


def test_the_index_may_be_in_another_folder(copied: Path, pictures: dict[str, bytes], tmp_path: Path) -> None:
    """Shards that must not be touched get their index elsewhere; the digest does not depend on the place."""
    before = tree(copied)
    manifest = index_shards(str(copied), str(tmp_path / "index"))
    assert manifest.shards_at == str(copied)
    assert tree(copied) == before
    assert read_all(open_dataset(tmp_path / "index")) == pictures
    assert verify(open_store(tmp_path / "index"), level="decode").problems == ()
    beside = index_shards(str(copied))
    assert (beside.shards_at, beside.digest) == (None, manifest.digest)


def test_an_index_that_names_lost_shards_says_so(copied: Path, tmp_path: Path) -> None:
    """Where the shards are gone, reading and verifying name the place where they were."""
    index_shards(str(copied), str(tmp_path / "index"))
    shutil.rmtree(copied)
    with pytest.raises(ShardError, match=str(copied)):
        open_dataset(tmp_path / "index")[0]
    problems = verify(open_store(tmp_path / "index")).problems
    assert len(problems) == 3
    assert all(str(copied) in problem for problem in problems)


# --- what is there already --------------------------------------------------------------------------------------------


def test_an_index_that_is_there_is_kept(copied: Path) -> None:
    """Without overwrite nothing is replaced."""
    index_shards(str(copied))
    before = tree(copied)
    with pytest.raises(StoreError, match=r"holds a finished set already\. .* pass --overwrite"):
        index_shards(str(copied / "val-{00,01}.tar"))
    assert tree(copied) == before


def test_an_index_is_replaced_if_asked(copied: Path) -> None:
    """With overwrite the new index holds, for what the shards are now."""
    first = index_shards(str(copied))
    (copied / "val-01.tar").unlink()
    second = index_shards(str(copied), overwrite=True)
    assert first.num_samples == 120
    assert second == open_dataset(copied).manifest
    assert second.num_samples == 70


def test_a_failed_replacement_leaves_the_index_that_was_there(copied: Path) -> None:
    """Shards that cannot be indexed cost nothing that worked before."""
    index_shards(str(copied))
    before = {name: data for name, data in tree(copied).items() if name.endswith(".json")}
    (copied / "val-01.tar").write_bytes(b"no tar")
    with pytest.raises(SourceError):
        index_shards(str(copied), overwrite=True)
    assert {name: data for name, data in tree(copied).items() if name.endswith(".json")} == before


def test_indexing_again_gives_the_same_bytes(copied: Path) -> None:
    """Both files are functions of the shards alone, however threads are timed."""
    index_shards(str(copied), checksums=True)
    before = tree(copied)
    index_shards(str(copied), checksums=True, overwrite=True)
    assert tree(copied) == before


# --- how it is read ---------------------------------------------------------------------------------------------------


LARGE = PICTURE + bytes(120_000)  # what is behind a picture's end is not looked at


def serve_large(root: Path, kinds: Sequence[str]) -> Callable[[], Any]:
    members = [
        (f"{key}.{kind}", LARGE if kind == "jpg" else b"5") for key in (f"{n:03d}" for n in range(40)) for kind in kinds
    ]
    write_tar(root / "0.tar", members)
    return lambda: http_server(root)


@pytest.mark.parametrize(
    "kinds", [("jpg", "cls"), ("cls", "jpg"), ("cls", "jpg", "json"), ("txt", "jpg", "json")], ids="-".join
)
def test_a_sample_takes_about_one_request(kinds: Sequence[str], tmp_path: Path) -> None:
    """Of a large picture its head is read together with the label beside it, in one request."""
    with serve_large(tmp_path, kinds)() as server:
        index_shards(f"{server.endpoint}/0.tar", str(tmp_path / "index"))
        assert len(server.requests) <= 1.25 * 40 + 5


@pytest.mark.parametrize("kinds", [("jpg", "cls"), ("cls", "jpg", "json")], ids="-".join)
def test_large_pictures_are_not_read_whole(kinds: Sequence[str], tmp_path: Path) -> None:
    """Without checksums, a small part of the bytes is asked for."""
    with serve_large(tmp_path, kinds)() as server:
        index_shards(f"{server.endpoint}/0.tar", str(tmp_path / "index"))
        ranges = [re.fullmatch(r"bytes=(\d+)-(\d+)", request.range or "") for request in server.requests]
        assert sum(int(found[2]) - int(found[1]) + 1 for found in ranges if found) < len(LARGE) * 40 / 2
        assert None not in ranges


def test_checksums_read_every_byte_once(tmp_path: Path) -> None:
    """With checksums, a shard is read whole, in a few requests."""
    with serve_large(tmp_path, ("jpg", "cls"))() as server:
        index_shards(f"{server.endpoint}/0.tar", str(tmp_path / "index"), checksums=True)
        assert len(server.requests) == 2
    row = open_dataset(tmp_path / "index").index.checksum.tolist()
    assert row == [xxhash.xxh3_64_intdigest(LARGE)] * 40


def test_shards_are_read_side_by_side(timm_shards: Path, tmp_path: Path) -> None:
    """Three shards are under way at the same time: each waits here until the two others have begun."""
    begun, meeting, lock = set[str](), threading.Barrier(3, timeout=60), threading.Lock()

    def wait_for_the_others(request: Request) -> None:
        with lock:
            first = request.path not in begun
            begun.add(request.path)
        if first:
            meeting.wait()

    with http_server(timm_shards, on_request=wait_for_the_others) as server:
        index_shards(f"{server.endpoint}/val-{{00..02}}.tar", str(tmp_path))
    assert len(begun) == 3


def test_progress_adds_up_to_the_bytes_of_the_shards(copied: Path) -> None:
    """Each shard is said once, with its bytes."""
    said: list[int] = []
    manifest = index_shards(str(copied), progress=said.append)
    assert sorted(said) == sorted(shard.num_bytes for shard in manifest.shards)


# --- what a read is compared with -------------------------------------------------------------------------------------


def place_of(dataset: Dataset, position: int) -> tuple[Path, int]:
    """Return a sample's shard, and the place of a byte in the middle of its picture."""
    index = dataset.index
    shard = dataset.manifest.shards[index.shard[position]].name
    return Path(dataset.root) / shard, int(index.offset[position] + index.num_bytes[position] // 2)


def test_with_checksums_a_flipped_byte_is_an_error(copied: Path) -> None:
    """Each read and each verification compares the bytes with what they were when they were indexed."""
    index_shards(str(copied), checksums=True)
    shard, place = place_of(open_dataset(copied), 60)
    flip(shard, place)
    dataset = open_dataset(copied)
    with pytest.raises(ShardError, match="checksum") as caught:
        dataset.reader.read(60)
    assert (caught.value.shard, caught.value.key) == (shard.name, f"{KEYS[60]}.jpg")
    with pytest.raises(ShardError, match="checksum"):
        list(UndecodedLoader(dataset, threads=1))
    problems = verify(open_store(copied)).problems
    assert [problem for problem in problems if "SHA-256" in problem and problem.startswith(shard.name)]
    assert [problem for problem in problems if f"{KEYS[60]}.jpg" in problem and "checksum" in problem]
    assert len(problems) == 2


def test_with_checksums_a_flipped_label_is_a_problem(copied: Path) -> None:
    """The label's bytes in the shard are part of its digest, though the labels of the index are what counts."""
    index_shards(str(copied), checksums=True)
    dataset = open_dataset(copied)
    row = int(np.flatnonzero(dataset.index.shard == 1)[0])
    flip(copied / "val-01.tar", int(dataset.index.json_offset[row]) + 1)
    assert len(read_all(open_dataset(copied))) == 120
    (problem,) = verify(open_store(copied)).problems
    assert problem.startswith("val-01.tar: SHA-256")


def test_without_checksums_none_is_claimed(copied: Path) -> None:
    """Nothing computed, nothing compared, and nothing in the files that looks as if it had been."""
    manifest = index_shards(str(copied))
    assert {shard.sha256 for shard in manifest.shards} == {""}
    assert set(json.loads((copied / "index.json").read_bytes())["checksum"]) == {""}
    shard, place = place_of(open_dataset(copied), 60)
    before = read_all(open_dataset(copied))
    flip(shard, place)
    after = read_all(open_dataset(copied))
    assert [key for key in before if before[key] != after[key]] == [KEYS[60]]
    assert verify(open_store(copied)).problems == ()


@pytest.mark.parametrize("checksums", [False, True])
def test_a_shard_of_another_structure_is_a_problem(copied: Path, *, checksums: bool) -> None:
    """A flipped header, another length, a member elsewhere or a shard that is gone is found without checksums too."""
    index_shards(str(copied), checksums=checksums)

    def problems() -> str:
        return "\n".join(verify(open_store(copied)).problems)

    shard = copied / "val-01.tar"
    whole = shard.read_bytes()
    flip(shard, 3)
    assert "val-01.tar: not a whole tar" in problems()
    shard.write_bytes(whole + bytes(10_240))
    assert re.search(r"val-01\.tar: [\d,]+ bytes, the manifest says", problems())
    with tarfile.open(shard) as tar:
        members = tar.getmembers()
    first, second = (member.offset_data + padding(member.size) + member.size for member in members[:2])
    shard.write_bytes(whole[first:second] + whole[:first] + whole[second:])
    assert "there is no such member. Index it again." in problems()
    shard.unlink()
    assert "val-01.tar" in problems()


@pytest.mark.parametrize("remote", [False, True])
def test_without_checksums_a_shard_of_another_size_is_an_error(
    timm_shards: Path, tmp_path: Path, *, remote: bool
) -> None:
    """A read is compared with the sizes of shards: one that grew since is not read on silently."""
    shards = Path(shutil.copytree(timm_shards, tmp_path / "shards"))
    with http_server(shards) as server:
        place = server.endpoint if remote else str(shards)
        index_shards(f"{place}/val-{{00..02}}.tar", str(tmp_path / "index"))
        for shard in shards.iterdir():
            shard.write_bytes(encode_header("new.txt", 0) + shard.read_bytes())
        dataset = open_dataset(tmp_path / "index")
        with pytest.raises(ShardError):
            dataset.reader.read(60)


# --- pictures ---------------------------------------------------------------------------------------------------------


def with_preview(num_bytes: int) -> bytes:
    """Return a JPEG with so many bytes of application segments before its size."""
    segments, left = [], num_bytes
    while left:
        length = min(left, 60_000)
        segments.append(b"\xff\xe1" + (length + 2).to_bytes(2, "big") + bytes(length))
        left -= length
    return PICTURE[:2] + b"".join(segments) + PICTURE[2:]


@pytest.mark.parametrize(
    ("extension", "picture", "size"),
    [
        ("jpg", PICTURE, (64, 64)),
        ("jpg", with_preview(3_000), (64, 64)),
        ("jpg", with_preview(20_000), (64, 64)),
        ("jpeg", with_preview(110_000), (64, 64)),
        ("jpg", with_preview(400_000), (0, 0)),
        ("png", as_png(PICTURE), (0, 0)),
        ("jpg", as_png(PICTURE), (0, 0)),
        ("png", PICTURE, (64, 64)),
    ],
)
def test_the_size_of_a_picture_is_known_or_zero(
    extension: str, picture: bytes, size: tuple[int, int], tmp_path: Path
) -> None:
    """It is read from the head of a JPEG whatever its name; where that does not tell, it is not claimed."""
    dataset = indexed(tmp_path, [("a.cls", b"5"), (f"a.{extension}", picture)])
    assert (int(dataset.index.width[0]), int(dataset.index.height[0])) == size
    assert dataset[0]["image"].size == (64, 64)
    assert verify(open_store(tmp_path), level="decode").problems == ()


def test_what_is_no_picture_is_an_error_when_it_is_decoded(tmp_path: Path) -> None:
    """Indexing decodes nothing; reading and verify --level decode say which sample is no picture."""
    dataset = indexed(tmp_path, [("a.jpg", b"text"), ("a.cls", b"5")])
    with pytest.raises(ShardError, match=r"a\.jpg .*cannot be decoded"):
        dataset[0]
    (problem,) = verify(open_store(tmp_path), level="decode").problems
    assert "a.jpg" in problem


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (("cls", b"7"), 7),
        (("cls", b" 007\n"), 7),
        (("cls", b"n01440764"), 0),
        (("CLS", b"999"), 999),
        (("json", b"7"), 7),
        (("json", b'"7"'), 7),
        (("json", b'"n01440764"'), 0),
        (("JSON", b'{"label": 7}'), 7),
        (("json", b'{"target": "7"}'), 7),
        (("json", b'{"class": "n01440764", "label": 0, "original_label": "0"}'), 0),
        (("json", b'\xef\xbb\xbf{"cls": 7}'), 7),
        (("json", b'{"label": 7}' + b" " * ((1 << 20) - 12)), 7),
        (("json", b'{"label": 7, "cls": "a sea snake", "name": 5, "path": null}'), 7),
    ],
)
def test_a_class_is_an_index_digits_or_a_wnid(content: tuple[str, bytes], label: int, tmp_path: Path) -> None:
    """As cls, or as json's value or one of its usual fields."""
    extension, data = content
    dataset = indexed(tmp_path, [("a.jpg", PICTURE), (f"a.{extension}", data)])
    assert dataset.index.original_label.tolist() == [label]
    assert dataset.index.json_num_bytes.tolist() == [len(data)]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("a.jpg", PICTURE)], "a has no label"),
        ([("a.jpg", PICTURE), ("a.txt", b"7")], "a has no label"),
        ([("a.jpg", PICTURE), ("a.cls", b"")], "a has no label"),
        ([("a.jpg", PICTURE), ("a.cls", b"1000")], "a has no label"),
        ([("a.jpg", PICTURE), ("a.cls", b"-1")], "a has no label"),
        ([("a.jpg", PICTURE), ("a.cls", b"7.0")], "a has no label"),
        ([("a.jpg", PICTURE), ("a.cls", "\u0667".encode())], "a has no label"),
        ([("a.jpg", PICTURE), ("a.cls", b"n00000000")], "a has no label"),
        ([("a.jpg", PICTURE), ("a.json", b"[7]")], "a has no label"),
        ([("a.jpg", PICTURE), ("a.json", b"true")], "a has no label"),
        ([("a.jpg", PICTURE), ("a.json", b"null")], "a has no label"),
        ([("a.jpg", PICTURE), ("a.json", b'{"label": [7]}')], "a has no label"),
        ([("a.jpg", PICTURE), ("a.json", b'{"label": 7.0}')], "a has no label"),
        ([("a.jpg", PICTURE), ("a.json", b'{"label": 7, "target": 8}')], "a has no label"),
        ([("a.jpg", PICTURE), ("a.json", b'{"label": 7')], "a.json is not json"),
        ([("a.jpg", PICTURE), ("a.json", b"\xff\xfe\xff")], "a.json is not json"),
        ([("a.jpg", PICTURE), ("a.json", b'{"label": ' + b"9" * 5_000 + b"}")], "a.json is not json"),
        ([("a.jpg", PICTURE), ("a.cls", b"\xff")], "a.cls is not cls"),
        ([("a.jpg", PICTURE), ("a.cls", b" " * (1 << 20) + b"7")], "a.cls has 1,048,577 bytes, too many for a label"),
        ([("a.jpg", PICTURE), ("a.json", b'{"label": 7, "real_label": 7}')], "a has a real_label"),
        ([("a.jpg", PICTURE), ("a.json", b'{"label": 7, "real_label": [1000]}')], "a has a real_label"),
        ([("a.jpg", PICTURE), ("a.json", b'{"label": 7, "real_label": ["7"]}')], "a has a real_label"),
        ([("a.jpg", PICTURE), ("a.json", b'{"label": 7, "real_label": [true]}')], "a has a real_label"),
        ([("a.cls", b"7")], "a has 0 images among cls, expected one"),
        ([("a.cls", b"7"), ("a.jpg.txt", b"")], "a has 0 images"),
        ([("a.jpg", PICTURE), ("a.png", PICTURE), ("a.cls", b"7")], "a has 2 images among cls, jpg, png"),
        ([("a.jpg", PICTURE), ("a.seg.png", PICTURE), ("a.cls", b"7")], "a has 2 images"),
        ([("a.jpg", PICTURE), ("b.cls", b"7"), ("a.cls", b"7")], "a has no label"),
    ],
)
def test_a_sample_needs_one_image_and_one_class(members: Members, says: str, tmp_path: Path) -> None:
    """Anything else is refused with the shard and the key, and nothing is written."""
    good = [(f"{FIRST}.jpg", PICTURE)]
    refuse(tmp_path, [*good, *members], says=rf"0\.tar: {says}")


@pytest.mark.parametrize(
    ("key", "extension", "label"),
    [
        (FIRST, "cls", f"{FIRST_CLASS + 1}"),
        (FIRST, "cls", wnid(LABELS[1])),
        (FIRST, "json", json.dumps({"label": FIRST_CLASS + 1})),
        (FIRST, "json", json.dumps({"label": FIRST_CLASS, "target": SECOND_CLASS})),
        ("a", "json", json.dumps({"filename": f"{FIRST}.JPEG", "label": FIRST_CLASS + 1})),
        (f"val/{FIRST}", "json", json.dumps({"label": FIRST_CLASS - 1})),
    ],
)
def test_labels_that_disagree_with_the_image_are_refused(key: str, extension: str, label: str, tmp_path: Path) -> None:
    """A validation image with another class than its own: the shards count otherwise, or are of other images."""
    members = [(f"{key}.jpg", PICTURE), (f"{key}.{extension}", label.encode())]
    refuse(tmp_path, members, says=f"{key} says class .*the original label of {FIRST}.* is {FIRST_CLASS}")


def test_leading_zeros_do_not_hide_a_class(tmp_path: Path) -> None:
    """A class in many digits is compared like any other."""
    refuse(tmp_path, [(f"{FIRST}.jpg", PICTURE), (f"{FIRST}.cls", b"%08d" % (FIRST_CLASS + 1))], says="says class")


@pytest.mark.parametrize("shift", [1, -1])
def test_classes_that_count_from_another_number_are_refused(
    shift: int, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    """A whole set of 1-based classes (or any others) does not become a set with wrong labels."""
    samples = [
        [(f"{label.key}.jpg", pictures[label.key]), (f"{label.key}.cls", b"%d" % (label.original_label + shift))]
        for label in LABELS
    ]
    members = [member for sample in samples for member in sample]
    refuse(tmp_path, members, says="The shards number classes differently")


def test_the_bundled_real_labels_hold_for_validation_images(tmp_path: Path) -> None:
    """What a json says of ReaL labels counts for other images only."""
    members = [(f"{SECOND}.jpg", PICTURE), (f"{SECOND}.json", b'{"real_label": [1, 2]}')]
    assert indexed(tmp_path, members).index.real_label == (bundled().real[1],)


# --- samples and shards that cannot be --------------------------------------------------------------------------------


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Over shards, apart in one shard, or two names of one validation image."""
    sample = [("a.jpg", PICTURE), ("a.cls", b"1")]
    other = [("b.jpg", PICTURE), ("b.cls", b"1")]
    says = "1 keys occur twice, such as {}. Remove the copies."
    refuse(tmp_path / "0", sample, sample, says=says.format("a"))
    refuse(tmp_path / "1", [*sample, *other, *sample], says=says.format("a"))
    names = (
        [(f"{FIRST}.jpg", PICTURE)],
        [("x.jpg", PICTURE), ("x.json", json.dumps({"path": f"{FIRST}.JPEG"}).encode())],
    )
    refuse(tmp_path / "2", *names, says=says.format(FIRST))
    folders = [(f"train/{FIRST}.jpg", PICTURE), (f"val/{FIRST}.jpg", PICTURE)]
    refuse(tmp_path / "3", folders, says=says.format(FIRST))


def test_shards_without_a_sample_are_refused(tmp_path: Path) -> None:
    """Archives of nothing, of folders or of files that are no sample make no data set; beside others they may be."""
    for number, members in enumerate(([], [("folder/", b"")], [("README", b"text"), (".hidden", b"")])):
        refuse(tmp_path / f"{number}", members, says="the shards hold no sample")
    dataset = indexed(tmp_path / "set", [], [("a.jpg", PICTURE), ("a.cls", b"1")])
    assert [shard.num_samples for shard in dataset.manifest.shards] == [0, 1]
    assert verify(open_store(tmp_path / "set"), level="decode").problems == ()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("val-{00..03}.tar", "val-03.tar: no such shard. Check the numbers in the braces."),
        ("val-{00..02.tar", "the braces do not match"),
        ("val-00}.tar", "the braces do not match"),
        ("{val-00.tar,other/val-01.tar}", "several folders|a shard twice"),
        ("val-0{0,1,1}.tar", "several folders|a shard twice"),
        ("val-00.tar/val-01.tar", "val-00.tar: is a file"),
        ("other", "no tar file. Name the shards"),
        ("val-{00..02}.txt", "no such shard"),
    ],
)
def test_a_spec_that_does_not_name_shards_is_refused(copied: Path, spec: str, says: str) -> None:
    """A number that is missing, braces that do not match, several places: nothing is written."""
    before = tree(copied)
    with pytest.raises((SourceError, StoreError), match=says):
        index_shards(f"{copied}/{spec}")
    assert tree(copied) == before


def test_a_missing_object_is_said_by_its_name(s3: S3Server, timm_shards: Path) -> None:
    """In a bucket as in a folder; an empty prefix holds no tar file."""
    url = put_all(s3, timm_shards, "test", "foreign/missing")
    with pytest.raises(SourceError, match=r"missing/val-03\.tar: no such shard"):
        index_shards(f"{url}/val-{{00..03}}.tar", storage_options=s3.options)
    with pytest.raises(SourceError, match="nothing: no tar file"):
        index_shards("s3://test/foreign/nothing", storage_options=s3.options)


SMALL = packed_tar([(f"{FIRST}.jpg", PICTURE), (f"{FIRST}.cls", b"%d" % FIRST_CLASS), (f"val/{SECOND}.jpg", PICTURE)])


@pytest.mark.parametrize("checksums", [False, True])
def test_every_cut_of_a_shard_is_refused(tmp_path: Path, *, checksums: bool) -> None:
    """At the end of a member, in a header, in a picture or in the end marker: never fewer samples."""
    (tmp_path / "0.tar").write_bytes(SMALL)
    assert index_shards(str(tmp_path)).num_samples == 2
    cuts = {*range(0, len(SMALL), 211), *range(0, len(SMALL), 512), *range(len(SMALL) - 1030, len(SMALL), 29)}
    for cut in sorted(cuts | {1, 511, 513, len(SMALL) - 1}):
        (tmp_path / "0.tar").write_bytes(SMALL[:cut])
        with pytest.raises(SourceError, match=r"0\.tar: not a whole tar: .*Copy it again\."):
            index_shards(str(tmp_path), checksums=checksums, overwrite=True)


HEADERS = [0, 512 + len(PICTURE) + padding(len(PICTURE)), 1536 + len(PICTURE) + padding(len(PICTURE))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(header=st.sampled_from(HEADERS), bit=st.integers(0, 512 * 8 - 1))
def test_a_flipped_bit_in_a_header_is_refused_or_changes_nothing(tmp_path: Path, header: int, bit: int) -> None:
    """No single flip renames, shortens or hides a sample."""
    damaged = bytearray(SMALL)
    damaged[header + bit // 8] ^= 1 << bit % 8
    (tmp_path / "0.tar").write_bytes(SMALL)
    index_shards(str(tmp_path), overwrite=True)
    expected = (tmp_path / "index.json").read_bytes()
    (tmp_path / "0.tar").write_bytes(damaged)
    try:
        index_shards(str(tmp_path), overwrite=True)
    except SourceError as error:
        assert "not a whole tar" in str(error)  # noqa: PT017 -- a blank for a zero in the checksum field is no error
    else:
        assert (tmp_path / "index.json").read_bytes() == expected


# --- the samples are webdataset's -------------------------------------------------------------------------------------


def stock_samples(path: Path) -> list[Sample]:
    """Return the samples of an archive as webdataset groups them."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with path.open("rb") as stream:
        return list(group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])))


part = st.text(st.sampled_from("aB0_-ä "), min_size=1, max_size=6)
folder = st.lists(
    st.text(st.sampled_from("aB0.é"), min_size=1, max_size=6).filter(lambda name: name.strip(".")), max_size=2
)
key_names = st.builds(
    lambda folders, stem: "/".join([*folders, stem]), folder, part | st.text("n", min_size=90, max_size=130)
)
images = st.sampled_from(["jpg", "JPEG", "png", "PNG", "webp", "image.jpg", "0.Jpg"])
labels = st.sampled_from(["cls", "json", "CLS", "Json"])
extras = st.sets(st.sampled_from(["txt", "npy", "seg.npy", "jpg.txt", "cls.txt", "json.gz", "id", "TXT2"]), max_size=3)
between = st.lists(st.sampled_from(["README", ".hidden.jpg", "folder/", "val/", "__meta__", "LICENSE"]), max_size=2)
group = st.tuples(images, labels, extras, st.integers(0, 999), st.randoms(use_true_random=False), between)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120, deadline=None)
@given(
    groups=st.dictionaries(key_names, group, min_size=1, max_size=5),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_samples_are_what_webdataset_groups(tmp_path: Path, groups: dict[str, Any], form: int) -> None:
    """Any keys and extensions, in any order within a sample: the keys, pictures and classes of webdataset itself."""
    members: list[tuple[str, bytes]] = []
    for key, (image, label, more, number, draws, noise) in groups.items():
        content = str(number) if label.lower() == "cls" else json.dumps({"label": number})
        sample = [(image, f"picture of {key}".encode()), (label, content.encode()), *((name, b"x") for name in more)]
        draws.shuffle(sample)
        members += [(name, b"") for name in noise] + [(f"{key}.{extension}", data) for extension, data in sample]
    if max(len(name.encode()) for name, _ in members) > 100 and form == tarfile.USTAR_FORMAT:
        form = tarfile.GNU_FORMAT
    shard = write_tar(tmp_path / "0.tar", members, form=form)
    expected = {}
    for found in stock_samples(shard):
        image, label, *_ = groups[found["__key__"]]
        class_given = json.loads(found[label.lower()])
        number = class_given["label"] if isinstance(class_given, dict) else class_given
        expected[found["__key__"]] = (found[image.lower()], number)
    assert len(expected) == len(groups)
    index_shards(str(tmp_path), overwrite=True)
    dataset = open_dataset(tmp_path)
    given_classes = dataset.index.original_label.tolist()
    assert list(dataset.keys) == sorted(expected)
    assert {
        key: (data, given_classes[position]) for position, (key, data) in enumerate(read_all(dataset).items())
    } == expected


def test_folders_and_hidden_files_between_samples_are_passed_over(tmp_path: Path) -> None:
    """What is no part of a sample may stand between samples; a leading ./ is no part of a key."""
    members = [
        *[("./", b""), ("./.hidden.jpg", b"x"), ("./val/", b""), ("README.", b"x")],
        *[("./val/a.jpg", PICTURE), ("./val/a.cls", b"1"), ("__meta__", b"x"), ("Makefile", b"x")],
        *[("val/b.jpg", PICTURE), ("./val/b.cls", b"2"), (".DS_Store", b"x")],
    ]
    dataset = indexed(tmp_path, members)
    assert dataset.keys == ("val/a", "val/b")
    assert dataset.index.original_label.tolist() == [1, 2]


@pytest.mark.parametrize("stranger", ["README", ".hidden.jpg", "__meta__"])
def test_a_stranger_within_a_sample_is_passed_over(stranger: str, tmp_path: Path) -> None:
    """As in webdataset, a member that is no part of any sample does not cut one in two."""
    members = [("a.jpg", PICTURE), (stranger, b"x"), ("a.cls", b"1")]
    assert [sample["__key__"] for sample in stock_samples(write_tar(tmp_path / "0.tar", members))] == ["a"]
    assert indexed(tmp_path, members).keys == ("a",)


@pytest.mark.parametrize("name", ["__meta__/x.jpg", "__meta.jpg__", "__data__/b.cls"])
def test_meta_members_are_no_samples(name: str, tmp_path: Path) -> None:
    """As in webdataset, what is named __NAME__, or is in such a folder, is skipped."""
    members = [("a.jpg", PICTURE), ("a.cls", b"1"), (name, PICTURE)]
    assert [sample["__key__"] for sample in stock_samples(write_tar(tmp_path / "0.tar", members))] == ["a"]
    assert indexed(tmp_path, members).keys == ("a",)


@pytest.mark.parametrize("again", ["a.jpg", "a.JPG", "a.cls", "a.CLS"])
def test_a_member_that_is_there_twice_is_refused(again: str, tmp_path: Path) -> None:
    """As in webdataset, two pictures or two classes of one name (case apart) are an error, not a choice."""
    members = [("a.jpg", PICTURE), ("a.cls", b"1"), (again, PICTURE if "j" in again.lower() else b"2")]
    with pytest.raises(ValueError, match="duplicate file name"):
        stock_samples(write_tar(tmp_path / "0.tar", members))
    refuse(tmp_path, members, says="a")


# --- what looks right at first ----------------------------------------------------------------------------------------


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A member name in another encoding than UTF-8 cannot be a key, and is said like any other fault."""
    refuse(tmp_path, [("\udcff.jpg", PICTURE), ("\udcff.cls", b"1")], says=r"0\.tar")


def test_a_label_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    """A damaged json is a SourceError, however it is damaged."""
    refuse(tmp_path, [("a.jpg", PICTURE), ("a.json", b"[" * 200_000)], says=r"0\.tar: a.json is not json")


def test_a_class_of_too_many_digits_is_refused(tmp_path: Path) -> None:
    """Digits without end are no class, and no traceback."""
    refuse(tmp_path, [("a.jpg", PICTURE), ("a.cls", b"1" * 5_000)], says=r"0\.tar: a has no label")


@pytest.mark.parametrize("where", ["key", "field"])
def test_a_wnid_in_the_name_that_disagrees_is_refused(where: str, tmp_path: Path) -> None:
    """A class given by the file name must agree with the image's, as it must when packing."""
    name = f"{FIRST}_{wnid(LABELS[1])}"
    key, fields = (name, {}) if where == "key" else ("a", {"file_name": f"{name}.JPEG"})
    members = [(f"{key}.jpg", PICTURE), (f"{key}.json", json.dumps(fields).encode())]
    refuse(tmp_path, members, says=wnid(LABELS[1]))


def test_names_of_two_images_are_refused(tmp_path: Path) -> None:
    """A key that is one validation image's and a file_name that is another's: either may be wrong."""
    members = [(f"{FIRST}.jpg", PICTURE), (f"{FIRST}.json", json.dumps({"file_name": f"{SECOND}.JPEG"}).encode())]
    refuse(tmp_path, members, says=SECOND)


def test_a_class_out_of_range_disagrees_with_the_image(tmp_path: Path) -> None:
    """The last class of a 1-based count is no class here: it must not pass where 999 would be expected."""
    label = next(label for label in labels_of(range(1, 5_000)) if label.original_label == 999)
    refuse(tmp_path, [(f"{label.key}.jpg", PICTURE), (f"{label.key}.cls", b"1000")], says="1000")


def test_cls_and_json_that_disagree_are_refused(tmp_path: Path) -> None:
    """Two classes for one sample are an error in whichever members they stand."""
    refuse(tmp_path, [("a.jpg", PICTURE), ("a.json", b'{"label": 5}'), ("a.cls", b"6")], says="a has")


def test_real_labels_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    """An index that open_dataset refuses is never written."""
    refuse(tmp_path, [("a.jpg", PICTURE), ("a.json", b'{"label": 5, "real_label": [5, 5]}')], says="real_label")


def test_a_file_name_may_have_any_ending_that_packing_takes(tmp_path: Path) -> None:
    """A field that says ILSVRC2012_val_00000001.jpg names that image, as the file of that name would."""
    members = [("a.jpg", PICTURE), ("a.json", json.dumps({"filename": f"{FIRST}.jpg"}).encode())]
    assert indexed(tmp_path, members).keys == (FIRST,)


def test_shards_by_a_relative_path_are_found_from_elsewhere(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index in another folder works from any working directory."""
    monkeypatch.chdir(copied.parent)
    index_shards(copied.name, str(tmp_path / "index"))
    monkeypatch.chdir(Path("/"))
    assert len(read_all(open_dataset(tmp_path / "index"))) == 120


def test_an_index_at_a_url_of_shards_in_a_folder_is_refused(copied: Path) -> None:
    """No reader would take it; nothing is read or written before that is said."""
    root = open_store(f"memory://{copied}")
    with pytest.raises(StoreError, match=r"folder of this machine.*Give a folder as --output"):
        index_shards(str(copied), root.url)
    assert root.list() == []


def test_what_belongs_to_no_image_is_named_with_the_command_that_removes_it(tmp_path: Path) -> None:
    """The script that sorts validation images into folders is often packed with them."""
    members = [(f"val/n01751748/{FIRST}.JPEG", PICTURE), ("val/valprep.sh", b"mkdir -p n01751748\n")]
    path = write_tar(tmp_path / "0.tar", members)
    with pytest.raises(SourceError, match=r"0\.tar: val/valprep\.sh belongs to no image") as caught:
        index_shards(str(tmp_path))
    command = str(caught.value).rpartition("Remove it: ")[2]
    subprocess.run(shlex.split(command), cwd=path.parent, check=True)
    assert index_shards(str(tmp_path)).dataset == "imagenet2012_real"
    assert open_dataset(tmp_path).keys == (FIRST,)


def test_images_without_real_labels_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers for names give no ReaL label: that is said now, not by a ReaL accuracy of 0 / 0 after an evaluation."""
    members = [("000000.jpg", PICTURE), ("000000.cls", b"1"), ("000001.jpg", PICTURE), ("000001.cls", b"2")]
    indexed(tmp_path / "numbers", members)
    assert "2 of 2 images (000000, 000001) are not named as validation images" in caplog.text
    caplog.clear()
    indexed(tmp_path / "given", [("a.jpg", PICTURE), ("a.json", b'{"label": 1, "real_label": [1, 2]}')])
    indexed(tmp_path / "official", [(f"{FIRST}.jpg", PICTURE)])
    assert caplog.text == ""
