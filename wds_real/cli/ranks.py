"""The order in which failing ranks exit: first the one that prints the reason.

torchrun, and srun with --kill-on-bad-exit, end all ranks as soon as one of them fails. A rank whose error another rank
reports therefore waits before it leaves; it is ended while it waits, when that rank has reported and left.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wds_real.cli.console import is_main_rank
from wds_real.errors import CoverageError, ManifestError, PlanError, WdsRealError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SAME_IN_EVALUATION", "same_on_all_ranks", "wait_for_rank_0", "wait_for_reports"]

SAME_IN_EVALUATION = (CoverageError, ManifestError, PlanError)

_RANK_0_S = 15.0
_REPORTS_S = 2 * _RANK_0_S  # another rank may itself wait for rank 0 before it reports


def wait_for_rank_0(exit_code: int) -> None:
    """Let rank 0 report the error that all ranks have, and end them; if it does not, this returns after some seconds.

    Raises:
        SystemExit: with `exit_code`, the launcher ends this process.
    """
    if not is_main_rank():
        _wait(_RANK_0_S, exit_code)


def wait_for_reports(exit_code: int) -> None:
    """Wait for the rank that knows the reason of this rank's error to report it; see `wait_for_rank_0`."""
    _wait(_REPORTS_S, exit_code)


@contextmanager
def same_on_all_ranks(kinds: tuple[type[WdsRealError], ...] = (WdsRealError,)) -> Iterator[None]:
    """Let rank 0 report errors of these kinds in the block, which all ranks meet at the same place.

    Should rank 0 not meet the error, for example because a file is missing on another node only, this rank reports it.
    """
    try:
        yield
    except kinds as error:
        wait_for_rank_0(error.exit_code)
        raise


def _wait(seconds: float, exit_code: int) -> None:
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        sys.exit(exit_code)
