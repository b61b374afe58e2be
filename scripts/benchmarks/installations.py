"""A wheel against this build: the same Python, libraries and images, measured in turn in each round."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.load import Load
from benchmarks.report import Comparison, Measured, Pair
from benchmarks.rows import Timing

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Installation", "compare"]

_WANTED = 0.97
_REPOSITORY = Path(__file__).resolve().parents[2]


class Installation:
    """A process that loads with the package in one folder."""

    def __init__(self, folder: Path, root: Path, *, batch_size: int, threads: int) -> None:
        command = [
            sys.executable,
            str(Path(__file__).with_name("installed.py")),
            str(root),
            str(batch_size),
            str(threads),
        ]
        self._process = subprocess.Popen(  # noqa: S603 -- our own script
            command,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.package, self.decode = self._answer()

    def load(self) -> tuple[Timing, Timing]:
        """Load all images once; return the time that passed, and the CPU time."""
        assert self._process.stdin is not None  # noqa: S101 -- for the type checker
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        samples, seconds, cpu_s = self._answer()
        return Timing(samples, seconds), Timing(samples, cpu_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def _answer(self) -> list[Any]:
        assert self._process.stdout is not None  # noqa: S101 -- for the type checker
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            raise RuntimeError(f"the process that loads ended with exit code {self._process.returncode}.")
        answer: list[Any] = json.loads(line)
        return answer


def compare(
    wheel: Path, root: Path, folder: Path, *, rounds: int, batch_size: int, threads: int
) -> tuple[list[Measured], list[str], list[float]]:
    """Unpack the wheel to `folder` and time it against the package of this repository.

    Returns:
        The two lines of the table, what was compared, and the CPU share of other processes in each round.
    """
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    pairs: list[tuple[Pair, Pair]] = []
    others = list[float]()
    with contextlib.ExitStack() as stack:
        own, reference = (
            stack.enter_context(Installation(place, root, batch_size=batch_size, threads=threads))
            for place in (folder, _REPOSITORY)
        )
        for number in range(rounds):
            before = Load.now()
            sides = [own, reference] if number % 2 else [reference, own]  # neither is always the first
            times = {side: side.load() for side in sides}
            others.append(Load.now().others_since(before))
            pairs.append((Pair(times[own][0], times[reference][0]), Pair(times[own][1], times[reference][1])))
        about = [f"{side.package} decodes {side.decode}" for side in (own, reference)]
    names = ("time", "CPU time")
    lines = [
        Measured(Comparison(f"wheel, by {name}", "this build", _WANTED), [pair[column] for pair in pairs])
        for column, name in enumerate(names)
    ]
    return lines, about, others
