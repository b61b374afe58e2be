"""Raise an error of one rank on all ranks, so that no rank waits for one that has stopped."""

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
    """Raise an error on all ranks if the block raises an error of this package on one of them.

    All ranks enter the same blocks in the same order.

    Args:
        elsewhere: What is raised on the ranks where the block did not fail, as `reported_elsewhere`.

    Raises:
        WdsRealError: the block failed, here or on another rank; `ran_out_of_memory` tells whether memory ran out.
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
    # All ranks raise one kind of error: a model that any rank refuses is not retried because memory ran out here.
    if failed > out_of_memory:
        raise elsewhere if failure is None or ran_out_of_memory(failure) else failure
    if failure is not None:
        raise failure
    raise elsewhere from MemoryError()
