"""What a campaign counts: attempts by how they ended, the slowest one, and what was lost without an error."""

from __future__ import annotations

import gc
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from wds_real.errors import WdsRealError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HANG_S", "Tally", "tallied"]

HANG_S = 60.0  # an attempt that takes as long hangs; on a machine with nothing else to do the slowest takes under 5 s
_SHOWN = 40
_COLLECTED = 100

_T = TypeVar("_T")


class Tally:
    """Counts of one campaign.

    Attributes:
        counts: How often each outcome occurred.
        silent: One line for each attempt that lost or changed something without an error.
        outside: One line for each exception that is no `WdsRealError`.
        slowest_s: Seconds of the slowest attempt.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.silent: list[str] = []
        self.outside: list[str] = []
        self.slowest_s = 0.0

    def attempt(self, what: object, call: Callable[[], _T]) -> _T | Exception:
        """Return what a call gives, or its exception; one that is no `WdsRealError` is kept in `outside`."""
        started = time.perf_counter()
        self.counts["attempts"] += 1
        if self.counts["attempts"] % _COLLECTED == 0:
            gc.collect()  # exceptions form circles that keep files open
        try:
            return call()
        except WdsRealError as error:
            self.counts["refused"] += 1
            return error
        except Exception as error:  # noqa: BLE001 -- counted, and shown at the end
            frame = traceback.extract_tb(error.__traceback__)[-1]
            self.outside.append(f"{what}: {type(error).__name__}: {error!s:.100} ({frame.filename}:{frame.lineno})")
            return error
        finally:
            self.took(time.perf_counter() - started)

    def took(self, seconds: float) -> None:
        """Note the duration of an attempt."""
        self.slowest_s = max(self.slowest_s, seconds)

    def expect(self, what: object, condition: bool, outcome: str) -> None:
        """Count an attempt as `outcome`, or as silent if the condition is false."""
        if condition:
            self.counts[outcome] += 1
        else:
            self.silent.append(f"{what}: not {outcome}")

    def __str__(self) -> str:
        counts = ", ".join(f"{number:,} {outcome}" for outcome, number in self.counts.items())
        lost = f"{len(self.silent):,} silent, {len(self.outside):,} other exceptions"
        return f"{counts}, {lost}; slowest {self.slowest_s:.2f} s"


@contextmanager
def tallied(title: str, report: Callable[[str, object], None]) -> Iterator[Tally]:
    """Count in the block, then report the counts; assert that none was silent, raised besides, or hung."""
    tally = Tally()
    gc.collect()
    gc.freeze()  # so that the collections in between are short
    try:
        yield tally
    finally:
        gc.unfreeze()
        report("counts", f"{title}: {tally}")
    assert not tally.silent, "\n".join(tally.silent[:_SHOWN])
    assert not tally.outside, "\n".join(tally.outside[:_SHOWN])
    assert tally.slowest_s < HANG_S
