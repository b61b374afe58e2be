"""Which batch holds which samples, and which rank takes which batches: integers only.

    order    = identity, or a permutation that is a pure function of (keys, seed, epoch)
    batch k  = order[k*B : (k+1)*B]            K = ceil(N / B) batches
    rank r   = batches [K*r//W, K*(r+1)//W)    contiguous, for sequential reads
    steps    = ceil(K / W)                     every rank takes exactly this many

The batch is the unit of work, so a batch holds the same samples whatever the number of ranks, threads or shards; and
because ``ceil(ceil(N/W)/B) == ceil(ceil(N/B)/W)``, splitting by batch takes no more steps than splitting by sample.
"""

from __future__ import annotations

import hashlib
import operator
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["batch", "num_batches", "num_steps", "share", "shuffled_order"]


def num_batches(num_samples: int, batch_size: int) -> int:
    """Return K, the number of batches that hold all samples; the last may be short.

    >>> num_batches(50_000, 256)
    196

    Raises:
        PlanError: batch_size is less than 1.
    """
    if batch_size < 1:
        raise PlanError(f"batch_size is {batch_size}, expected at least 1.")
    return -(-num_samples // batch_size)


def batch(order: NDArray[np.int64], number: int, *, batch_size: int) -> NDArray[np.int64]:
    """Return the samples of batch `number`, int64 (up to batch_size,), as positions in the data set.

    >>> batch(np.arange(5), 1, batch_size=3)
    array([3, 4])
    """
    return order[number * batch_size : (number + 1) * batch_size]


def share(total_batches: int, *, rank: int, world_size: int) -> range:
    """Return the batches of `rank`; shares are contiguous and differ by at most one.

    >>> [share(5, rank=r, world_size=2) for r in range(2)]
    [range(0, 2), range(2, 5)]

    Raises:
        PlanError: world_size is less than 1, or rank is not in [0, world_size).
    """
    if not 0 <= rank < _checked_world_size(world_size):
        raise PlanError(f"rank is {rank}, expected 0 <= rank < world_size = {world_size}.")
    return range(total_batches * rank // world_size, total_batches * (rank + 1) // world_size)


def num_steps(total_batches: int, *, world_size: int) -> int:
    """Return how many steps every rank takes: the longest share, ``ceil(K / W)``.

    >>> num_steps(196, world_size=64)
    4

    Raises:
        PlanError: world_size is less than 1.
    """
    return -(-total_batches // _checked_world_size(world_size))


def shuffled_order(keys: Sequence[str], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the positions of `keys` sorted by a keyed hash: int64 (N,), a pure function of its arguments.

    Each key is hashed by BLAKE2b with (seed, epoch) as the hash's key, so seed 42 epoch 1 differs from seed 43
    epoch 0, a subset keeps the order it has in the whole, and no library's random number generator is involved.

    >>> shuffled_order(["a", "b", "c", "d"], seed=0, epoch=0)
    array([0, 2, 3, 1])

    Raises:
        PlanError: seed or epoch is not in [0, 2**64).
    """
    seed, epoch = operator.index(seed), operator.index(epoch)
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value < 2**64:
            shown = value if value.bit_length() < 100 else f"a number of {value.bit_length():,} bits"
            raise PlanError(f"{name} is {shown}, expected 0 <= {name} < 2**64.")
    keyed = hashlib.blake2b(key=seed.to_bytes(8, "big") + epoch.to_bytes(8, "big"), digest_size=8)
    hashes = np.empty(len(keys), dtype=">u8")
    for position, key in enumerate(keys):
        state = keyed.copy()
        state.update(key.encode("utf-8"))
        hashes[position] = int.from_bytes(state.digest(), "big")
    return np.lexsort((np.arange(len(keys)), hashes)).astype(np.int64)


def _checked_world_size(world_size: int) -> int:
    if world_size < 1:
        raise PlanError(f"world_size is {world_size}, expected at least 1.")
    return world_size
