"""One pass over the samples of a data set in S3 by one client, in its own process so that CPU time can be compared.

``python -m benchmarks.clients NAME`` reads a `Job` as JSON from standard input and writes the `Spent` of the pass. All
clients read the same ranges: in shard order, where neighbouring samples share a request, or shuffled, with one request
for each sample. Each client makes concurrent requests in its usual way.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import wds_real
from wds_real.data import plan
from wds_real.storage.prefetch import BLOCK_BYTES, MAX_REQUESTED_BYTES, MAX_REQUESTS, ByteRange, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from obstore.store import S3Config

__all__ = ["CLIENTS", "Job", "Spent"]


@dataclass(frozen=True, slots=True)
class Job:
    """What to read, and the storage options."""

    url: str
    options: dict[str, str]
    shuffle: bool
    decode: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """Wall and CPU seconds of a pass, and the bytes of samples that it read."""

    seconds: float
    cpu_seconds: float
    num_bytes: int


def ours(job: Job) -> Callable[[], int]:
    """`wds_real.UndecodedLoader`, or `Loader` to decode: prefetches, and checks lengths, versions and checksums."""
    dataset = wds_real.open_dataset(job.url, storage_options=job.options)
    settings: dict[str, Any] = {"batch_size": 64, "shuffle": job.shuffle, "threads": 2, "pad": False}
    loader = wds_real.Loader(dataset, **settings) if job.decode else wds_real.UndecodedLoader(dataset, **settings)
    num_bytes = int(dataset.index.num_bytes.sum())
    return lambda: num_bytes if sum(map(len, loader)) == len(dataset) else 0


def bare_obstore(job: Job, *, kept: int = 0) -> Callable[[], int]:
    """Bare obstore: GETs of the same ranges, as many at a time; the last `kept` responses stay in memory."""
    import obstore  # noqa: PLC0415 -- each client alone in its process
    from obstore.store import from_url  # noqa: PLC0415

    config: dict[str, Any] = {name: value for name, value in job.options.items() if name != "allow_http"}
    store = from_url(job.url, config=cast("S3Config", config), client_options={"allow_http": True})
    last: deque[Any] = deque(maxlen=kept)

    def read(name: str, start: int, stop: int) -> int:
        data = obstore.get_range(store, name, start=start, end=stop)
        last.append(data)
        return len(data)

    return _threaded(job, read)


def keeping_obstore(job: Job) -> Callable[[], int]:
    """Bare obstore that keeps as many responses as there are concurrent requests."""
    return bare_obstore(job, kept=MAX_REQUESTS if job.shuffle else MAX_REQUESTED_BYTES // BLOCK_BYTES)


def boto3(job: Job) -> Callable[[], int]:
    """boto3's ``get_object`` with a range, in threads."""
    import boto3  # noqa: PLC0415
    import botocore.config  # noqa: PLC0415

    bucket, _, prefix = job.url.removeprefix("s3://").partition("/")
    client = boto3.client(
        "s3", endpoint_url=job.options["endpoint"], region_name="us-east-1",
        aws_access_key_id=job.options["access_key_id"], aws_secret_access_key=job.options["secret_access_key"],
        config=botocore.config.Config(max_pool_connections=MAX_REQUESTS),
    )  # fmt: skip

    def read(name: str, start: int, stop: int) -> int:
        response = client.get_object(Bucket=bucket, Key=f"{prefix}/{name}", Range=f"bytes={start}-{stop - 1}")
        return len(response["Body"].read())

    return _threaded(job, read)


def s3fs(job: Job) -> Callable[[], int]:
    """s3fs's ``cat_ranges``, which chooses the number of concurrent requests."""
    import s3fs  # noqa: PLC0415

    files = s3fs.S3FileSystem(
        key=job.options["access_key_id"], secret=job.options["secret_access_key"],
        client_kwargs={"endpoint_url": job.options["endpoint"], "region_name": "us-east-1"},
    )  # fmt: skip
    ranges = _ranges(job)
    place = job.url.removeprefix("s3://")

    def run() -> int:
        num_bytes = 0
        for first in range(0, len(ranges), 64):  # one call for all would hold all bytes in memory
            some = ranges[first : first + 64]
            paths = [f"{place}/{one.name}" for one in some]
            found = files.cat_ranges(paths, [one.start for one in some], [one.stop for one in some])
            num_bytes += sum(map(len, found))
        return num_bytes

    return run


CLIENTS = {"wds_real": ours, "obstore": bare_obstore, "obstore, kept": keeping_obstore, "boto3": boto3, "s3fs": s3fs}


def _ranges(job: Job) -> list[ByteRange]:
    """Return the requests for all samples: merged in shard order, or one a sample, in the loader's shuffled order."""
    dataset = wds_real.open_dataset(job.url, storage_options=job.options)
    index, shards = dataset.index, dataset.manifest.shards
    order = plan.shuffled_order(dataset.keys, seed=0, epoch=0) if job.shuffle else dataset.positions
    wanted = [
        ByteRange(
            shards[index.shard[position]].name,
            int(index.offset[position]),
            int(index.offset[position] + index.num_bytes[position]),
        )
        for position in order
    ]
    return [ByteRange(block.name, block.start, block.stop) for block in merge(wanted)]


def _threaded(job: Job, read: Callable[[str, int, int], int]) -> Callable[[], int]:
    ranges = _ranges(job)
    at_a_time = MAX_REQUESTS if job.shuffle else MAX_REQUESTED_BYTES // BLOCK_BYTES

    def run() -> int:
        with ThreadPoolExecutor(at_a_time) as pool:
            return sum(pool.map(lambda one: read(*one), ranges))

    return run


def main(arguments: Sequence[str]) -> None:
    """Make two passes, and print what the second one took."""
    run = CLIENTS[arguments[0]](Job(**json.load(sys.stdin)))
    run()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    num_bytes = run()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    json.dump(asdict(Spent(seconds, cpu, num_bytes)), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
