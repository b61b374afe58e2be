"""What fails on one rank fails on all, so that no rank waits for another that has given up."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from wds_real.data.distributed import all_reduce
from wds_real.errors import WdsRealError
from wds_real.evaluation.failures import ran_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["agreed"]


@contextmanager
def agreed(elsewhere: WdsRealError) -> Iterator[None]:
    """Let an error of this package in the block be raised on all ranks; each rank enters the same blocks in one order.

    Args:
        elsewhere: What is raised on the ranks where the block did not fail, as `reported_elsewhere`.

    Raises:
        WdsRealError: the block failed, here or on another rank; if memory ran out there, `ran_out_of_memory` says so.
    """
    elsewhere.reported_elsewhere = True
    failure: WdsRealError | None = None
    try:
        yield
    except WdsRealError as error:
        failure = error
    status = [failure is not None, failure is not None and ran_out_of_memory(failure)]
    failed, out_of_memory = all_reduce(torch.tensor(status, dtype=torch.int64), "sum").tolist()
    if not failed:
        return
    # One kind of error on all ranks: a model that another rank refuses is not tried again for want of memory here.
    if failed > out_of_memory:
        raise elsewhere if failure is None or ran_out_of_memory(failure) else failure
    if failure is not None:
        raise failure
    raise elsewhere from MemoryError()
