"""Reading from S3: this package against bare requests and other clients, with one real server on this machine."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import wds_real
from benchmarks.clients import CLIENTS, Job, Spent
from benchmarks.faults import fault_proxy
from benchmarks.seaweedfs import HOST, seaweedfs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Line", "as_table", "measure"]

_SCRIPTS = Path(__file__).parent.parent
_URL = "s3://bench/set"
_SHORT_STALLS = {"read_timeout": "1s", "timeout": "20s"}


class Line(NamedTuple):
    """One comparison: what is measured, how, and the ratio of each round."""

    what: str
    against: str
    of: str
    ratios: Sequence[float]
    wanted: str
    missed: bool
    own: float
    other: float


def measure(root: Path, folder: Path, *, rounds: int) -> list[Line]:
    """Start a SeaweedFS server, copy a packed set into it, and time all clients round by round."""
    with seaweedfs(folder / "seaweedfs") as options:
        store = wds_real.open_store(_URL, storage_options=options)
        for path in sorted(root.iterdir()):
            if path.is_file():
                store.put(path.name, path.read_bytes())
        lines = [line for shuffle in (False, True) for line in _clients(Job(_URL, options, shuffle), rounds)]
        return [*lines, *_faults(options, rounds)]


def _clients(job: Job, rounds: int) -> list[Line]:
    how = "shuffled, a request a sample" if job.shuffle else "in order"
    names = [name for name in CLIENTS if _installed(name.partition(",")[0])]
    spent: dict[str, list[Spent]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            spent[name].append(_pass(name, job))
    own = spent["wds_real"]
    speed = [one.num_bytes / one.seconds / 1e6 for one in own]
    lines = []
    for name, wanted in (("obstore", 0.85), ("obstore, kept", None)):
        bare = [one.num_bytes / one.seconds / 1e6 for one in spent[name]]
        lines.append(_line(f"{how}, MB/s", f"bare {name}", "speed", speed, bare, wanted))
    cpu = {name: [one.cpu_seconds / (one.num_bytes / 1e9) for one in passes] for name, passes in spent.items()}
    most = {"boto3": 0.25 if job.shuffle else 2.0, "s3fs": 0.25 if job.shuffle else None}
    lines += [
        _line(f"{how}, CPU s/GB", name, "cost", cpu["wds_real"], cpu[name], most.get(name))
        for name in names
        if name != "wds_real"
    ]
    return lines


def _faults(options: dict[str, str], rounds: int) -> list[Line]:
    """Read and decode as `evaluate` does, through a proxy where one request in a hundred fails, or none."""
    rates: dict[float, list[float]] = {0.01: [], 0.0: []}
    port = int(options["endpoint"].rpartition(":")[2])
    for number in range(rounds):
        for rate, found in rates.items():
            with fault_proxy(HOST, port, rate=rate, seed=number) as proxy:
                proxied = {**options, "endpoint": f"http://{HOST}:{proxy}", **_SHORT_STALLS}
                one = _pass("wds_real", Job(_URL, proxied, shuffle=True, decode=True))
            found.append(one.num_bytes / one.seconds / 1e6)
    faulty, clean = rates.values()
    return [_line("shuffled and decoded, MB/s, 1 % of requests fail", "none fail", "speed", faulty, clean, 0.85)]


def _line(what: str, against: str, of: str, own: list[float], other: list[float], wanted: float | None) -> Line:
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    ratio = median(ratios)
    missed = wanted is not None and (ratio < wanted if of == "speed" else ratio > wanted)
    sign = ">=" if of == "speed" else "<="
    return Line(
        what, against, of, ratios, "" if wanted is None else f"{sign} {wanted:g}", missed, median(own), median(other)
    )


def _pass(name: str, job: Job) -> Spent:
    done = subprocess.run(  # noqa: S603 -- a client of our own
        [sys.executable, "-m", "benchmarks.clients", name],
        input=json.dumps(asdict(job)), capture_output=True, text=True, cwd=_SCRIPTS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return Spent(**json.loads(done.stdout))


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def as_table(lines: Sequence[Line], *, markdown: bool) -> str:
    """Return the comparisons as text that lines up or as Markdown."""
    cells = [("reading from S3", "value", "against", "value", "ratio", "lowest .. highest", "wanted", "")]
    for line in lines:
        spread = f"{min(line.ratios):.2f} .. {max(line.ratios):.2f}"
        ratio = f"{median(line.ratios):.2f}"
        missed = "missed" * line.missed
        cells.append(
            (line.what, _number(line.own), line.against, _number(line.other), ratio, spread, line.wanted, missed)
        )
    if markdown:
        rows = (cells[0], ("---", "--:", "---", "--:", "--:", "---", "---", "---"), *cells[1:])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _number(value: float) -> str:
    """Return three significant digits, never as a power of ten."""
    return f"{float(f'{value:.3g}'):,.10g}"
