"""Compare the loader with its limit and with other loaders, on the same images in one run; see scripts/bench.

Both sides of a ratio are timed one straight after the other, once per round, so that a slow phase of the machine
affects both. The table shows medians over the rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import data, figures, installations, outputs, report, stores
from benchmarks.load import Load
from benchmarks.peers import peer_rows
from benchmarks.report import Comparison, Measured, Pair, comparisons
from benchmarks.rows import UNDECODED_BATCH, Row, Settings, Timing, own_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

_PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos-300.tar"
_NUM_COMPARED = 100  # images whose pixels are compared


def main() -> None:
    """Read the arguments, make the data, time all rows round by round, and report."""
    arguments = _arguments()
    logging.disable(logging.WARNING)  # packing logs the shards it keeps
    settings = Settings(tuple(sorted(set(arguments.threads))), arguments.batch_size)
    if arguments.store:
        _measure_stores(arguments)
        return
    if arguments.output:
        _measure_outputs(arguments)
        return
    if arguments.wheel is not None:
        _measure_wheel(arguments)
        return
    with tempfile.TemporaryDirectory(prefix="wds-real-bench-", dir=arguments.folder) as folder:
        images = data.prepare(arguments.data, Path(folder), samples=arguments.samples, shards=2 * settings.workers)
        single = figures.measure(images, settings, rounds=arguments.rounds)  # before the peers start processes
        rows = [*peer_rows(images, settings), *own_rows(images, settings)]
        measured, others = _measure(rows, comparisons(settings), rounds=arguments.rounds)
        pixels = report.pixel_notes(rows, [data.read_bytes(location) for location in images.locations[:_NUM_COMPARED]])
    about = {
        "machine": report.machine(),
        "versions": report.versions(),
        "settings": {
            "data": images.origin,
            "batch_size": f"{settings.batch_size}, undecoded {UNDECODED_BATCH}",
            "threads": settings.threads,
            "rounds": arguments.rounds,
            "transform": "resize 256 bicubic, crop 224",
        },
        "pixels against Pillow": pixels,
        "used by other processes": {
            "median": f"{median(others):.0%} of the machine's CPU time",
            "worst round": f"{max(others):.0%}",
        },
    }
    print(report.as_table(measured, single, markdown=arguments.markdown))
    print()
    for title, facts in about.items():
        text = "; ".join(f"{name}: {value}" for name, value in facts.items())
        print(f"{title}: {text}\n" if arguments.markdown else f"{title}: {text}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({**about, **report.as_json(measured, single)}, indent=1) + "\n")


def _measure_stores(arguments: argparse.Namespace) -> None:
    """Measure reading from an S3 server, which is started for this."""
    with tempfile.TemporaryDirectory(prefix="wds-real-bench-", dir=arguments.folder) as folder:
        images = data.prepare(arguments.data, Path(folder), samples=arguments.samples, shards=4)
        lines = stores.measure(images.root, Path(folder), rounds=arguments.rounds)
    print(stores.as_table(lines, markdown=arguments.markdown))
    about = {"machine": report.machine(), "versions": report.versions(), "rounds": arguments.rounds}
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps({**about, "reading from S3": [line._asdict() for line in lines]}, indent=1) + "\n"
        )


def _measure_outputs(arguments: argparse.Namespace) -> None:
    """Measure evaluations with an output in S3, on a server that is started for this, against a folder."""
    with tempfile.TemporaryDirectory(prefix="wds-real-bench-", dir=arguments.folder) as folder:
        found = outputs.measure(
            Path(folder), samples=arguments.samples, rounds=arguments.rounds, batch_size=arguments.batch_size
        )
    print(report.as_table(found.lines, [], markdown=arguments.markdown))
    print(f"\n{found}")
    used = f"{median(found.others):.0%} of the machine (median)"
    print(f"{arguments.rounds} rounds; other processes, the server among them, used {used}")


def _measure_wheel(arguments: argparse.Namespace) -> None:
    """Measure a wheel against this build."""
    with tempfile.TemporaryDirectory(prefix="wds-real-bench-", dir=arguments.folder) as folder:
        images = data.prepare(arguments.data, Path(folder), samples=arguments.samples, shards=4)
        lines, compared, others = installations.compare(
            arguments.wheel, images.root, Path(folder) / "wheel",
            rounds=arguments.rounds, batch_size=arguments.batch_size, threads=max(arguments.threads),
        )  # fmt: skip
    print(report.as_table(lines, [], markdown=arguments.markdown))
    print("\n" + "; ".join(compared))
    print(
        f"{images.origin}; {arguments.rounds} rounds; other processes used {median(others):.0%} of the machine (median)"
    )


def _measure(rows: Sequence[Row], lines: Sequence[Comparison], *, rounds: int) -> tuple[list[Measured], list[float]]:
    """Time both sides of each line once per round, reference first; also return the CPU share of other processes."""
    named = {row.name: row for row in rows}
    sides = [(named[line.row], named[line.reference]) for line in lines]
    pairs: list[list[Pair]] = [[] for _ in lines]
    for row in rows:  # not timed: worker processes start, and the page cache fills
        _time(row, "before the first round")
    others = list[float]()
    for number in range(1, rounds + 1):
        before = Load.now()
        for (own, reference), done in zip(sides, pairs, strict=True):
            right = _time(reference, f"round {number} of {rounds}")
            left = _time(own, f"round {number} of {rounds}")
            if left is not None and right is not None:
                done.append(Pair(left, right))
        others.append(Load.now().others_since(before))
    print("\r\033[K", end="", file=sys.stderr, flush=True)
    measured = [
        Measured(line, done, own.missing or reference.missing)
        for line, done, (own, reference) in zip(lines, pairs, sides, strict=True)
    ]
    return measured, others


def _time(row: Row, when: str) -> Timing | None:
    """Time a row, or return None if it cannot be run here."""
    if row.run is None:
        return None
    print(f"\r\033[K{when}: {row.name}", end="", file=sys.stderr, flush=True)
    gc.collect()
    os.sync()  # so that this row does not wait for earlier writes
    return row.run()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.partition("\n\n")[0] if __doc__ else "")
    parser.add_argument(
        "--data", type=Path, metavar="TAR", default=_PHOTOS if _PHOTOS.exists() else None,
        help="tar of JPEGs; without one, images are generated",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=int, help="number of samples; the images are repeated  [default: 4,000; with --output 20,000]"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing")
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1, 2],
        help="numbers of decoding threads; the last is also the number of workers of the other loaders",
    )
    parser.add_argument("--batch-size", type=int, default=256, help="images per batch")
    parser.add_argument("--folder", type=Path, help="folder on a disk for some GB of temporary files")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rounds, machine and versions to FILE")
    parser.add_argument(
        "--store", action="store_true", help="measure reading from S3 instead, against bare requests and other clients"
    )
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="measure a wheel against this build instead")
    parser.add_argument("--output", action="store_true", help="measure an --output in S3 against a folder instead")
    parser.add_argument("--quick", action="store_true", help="300 samples in 1 round, to check that everything runs")
    arguments = parser.parse_args()
    if arguments.samples is None:
        arguments.samples = 20_000 if arguments.output else 4000
    if arguments.quick:
        arguments.samples, arguments.rounds, arguments.batch_size = 300, 1, 64
    return arguments


if __name__ == "__main__":
    main()
