"""An output in an object store against one in a folder: time, CPU time, requests and bytes per image."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import wds_real
from benchmarks.load import Load
from benchmarks.report import Comparison, Measured, Pair
from benchmarks.rows import Timing
from benchmarks.seaweedfs import seaweedfs
from wds_real.evaluation.models.load import load_model
from wds_real.scoring.run.place import OutputPlace
from wds_real.storage.obstore_client import ObstoreClient
from wds_real.synthetic import write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wds_real.evaluation.models.base import LoadedModel

__all__ = ["Outputs", "measure"]

_WANTED = 0.97
_SHARDS = 4
_MODEL = "wds_real.synthetic:known_answer_model"


class Outputs(NamedTuple):
    """What `measure` found.

    Attributes:
        lines: By time, and by CPU time of this process, without the server's.
        others: The share of the machine that other processes, the server among them, used in each round.
        requests: Of one evaluation, by kind.
        sent: Bytes in the bodies of its requests.
        received: Bytes of the objects that it read; answers to listings are not counted.
        samples: Images of one evaluation.
    """

    lines: list[Measured]
    others: list[float]
    requests: Counter[str]
    sent: int
    received: int
    samples: int

    def __str__(self) -> str:
        number = sum(self.requests.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.requests.items()))
        return (
            f"one evaluation of {self.samples:,} images: {number} requests ({kinds}), {self.sent:,} bytes sent, "
            f"{self.received:,} received: {number / self.samples:.5f} requests, {self.sent / self.samples:.1f} bytes "
            f"sent and {self.received / self.samples:.1f} received an image"
        )


def measure(folder: Path, *, samples: int, rounds: int, batch_size: int) -> Outputs:
    """Evaluate made-up images of 64 x 64 with a model that costs next to nothing, with both kinds of output in turn.

    Args:
        folder: For the images, the outputs and the server's data.
        samples: Images.
        rounds: Of timing.
        batch_size: Images per batch.
    """
    write_source_tar(folder / "source.tar", range(1, samples + 1))
    with wds_real.open_source(folder / "source.tar", allow_partial=True) as images:
        wds_real.write_shards(images, wds_real.open_store(folder / "shards"), samples_per_shard=-(-samples // _SHARDS))
    dataset, model = wds_real.open_dataset(folder / "shards"), load_model(_MODEL)

    def timed(output: str | Path, options: dict[str, str] | None) -> tuple[Timing, Timing]:
        started, cpu_started = time.perf_counter(), time.process_time()
        _evaluate(model, dataset, OutputPlace(output, options), batch_size)
        return Timing(samples, time.perf_counter() - started), Timing(samples, time.process_time() - cpu_started)

    pairs: list[tuple[Pair, Pair]] = []
    others = list[float]()
    with seaweedfs(folder / "s3") as options:
        timed(folder / "not timed", None)
        requests, sent, received = _counted(lambda: timed("s3://bench/counted", options))
        for number in range(rounds):
            sides: list[tuple[str | Path, dict[str, str] | None]] = [
                (f"s3://bench/run-{number}", options), (folder / f"run-{number}", None),
            ]  # fmt: skip
            before = Load.now()
            if number % 2:  # neither is always the first
                remote, local = (timed(*side) for side in sides)
            else:
                local, remote = (timed(*side) for side in reversed(sides))
            others.append(Load.now().others_since(before))
            pairs.append((Pair(remote[0], local[0]), Pair(remote[1], local[1])))
    lines = [
        Measured(Comparison(f"output in S3, by {name}", "in a folder", _WANTED), [pair[column] for pair in pairs])
        for column, name in enumerate(("time", "CPU time"))
    ]
    return Outputs(lines, others, requests, sent, received, samples)


def _evaluate(model: LoadedModel, dataset: wds_real.Dataset, place: OutputPlace, batch_size: int) -> None:
    wds_real.evaluate(model, dataset, output=place, batch_size=batch_size, device="cpu", progress=False)


def _counted(call: Callable[[], object]) -> tuple[Counter[str], int, int]:
    """Return the requests that are made in a call by kind, the bytes that they send, and those of the objects read."""
    requests, sent, received = Counter[str](), list[int](), list[int]()

    def counting(name: str, method: Callable[..., object]) -> Callable[..., object]:
        def counted(client: ObstoreClient, *given: object, **more: object) -> object:
            requests[name.removesuffix("_whole")] += 1
            sent.extend(len(each) for each in given if isinstance(each, bytes))
            answer = method(client, *given, **more)
            received.append(len(answer) if isinstance(answer, bytes) else 0)
            return answer

        return counted

    with ExitStack() as stack:
        for name in ("list", "head", "get_whole", "put", "delete"):
            method = counting(name, getattr(ObstoreClient, name))
            stack.enter_context(mock.patch.object(ObstoreClient, name, method))
        call()
    return requests, sum(sent), sum(received)
