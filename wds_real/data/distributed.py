"""Rank, world size and reductions: the only module that imports ``torch.distributed`` or reads launchers' variables.

Functions import torch themselves, so that commands that only need their rank start without it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from wds_real.errors import PlanError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

__all__ = [
    "SharedCount",
    "World",
    "agree_on_start",
    "all_reduce",
    "current_world",
    "is_initialized",
    "launched_world",
    "process_group",
    "resolve_world",
    "threads_of_this_process",
    "way_to_run_alone",
]

_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    # The tasks of the srun step; SLURM_NTASKS counts those of the job, even if only one process was started.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)


@dataclass(frozen=True, slots=True)
class World:
    """The rank of this process among all processes of a run.

    Attributes:
        rank: In [0, world_size).
        world_size: Number of processes on all nodes.
        local_rank: Rank on this node, and so the number of this process's accelerator.
        local_world_size: Processes that share the cores of this node, if the launcher sets it, else 1. It is 1 under
            srun, which divides the cores itself.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


def launched_world(environ: Mapping[str, str] | None = None) -> World:
    """Return the rank that torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or srun (SLURM_*) gave this process.

    >>> launched_world({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"})
    World(rank=3, world_size=8, local_rank=1, local_world_size=1)
    >>> launched_world({})
    World(rank=0, world_size=1, local_rank=0, local_world_size=1)

    Raises:
        PlanError: a variable is not a number, or rank is not below world size.
    """
    environ = os.environ if environ is None else environ
    names = _launcher_variables(environ)
    if names is None:
        return World()
    rank, world_size, *local = names
    values = [_number(environ, rank), _number(environ, world_size)]
    values += [_number(environ, name, default) for name, default in zip(local, (0, 1), strict=False)]
    world = World(*values)
    if not 0 <= world.rank < world.world_size:
        raise PlanError(
            f"{rank}={world.rank} is not in [0, {world_size}={world.world_size}). To run alone, "
            f"{way_to_run_alone(environ)}."
        )
    if world.local_rank < 0 or world.local_world_size < 1:
        raise PlanError(f"{' and '.join(local)} are {world.local_rank} and {world.local_world_size}: impossible.")
    return world


def way_to_run_alone(environ: Mapping[str, str] | None = None) -> str:
    """Return what to do to run as a single process, with the names of the variables that this process has.

    >>> way_to_run_alone({"RANK": "1", "WORLD_SIZE": "2"})
    'unset RANK and WORLD_SIZE (env -u RANK -u WORLD_SIZE wds-real ...)'
    """
    names = _launcher_variables(os.environ if environ is None else environ)
    rank, world_size = (names or _LAUNCHERS[0])[:2]
    text = f"unset {rank} and {world_size} (env -u {rank} -u {world_size} wds-real ...)"
    return text if rank != "SLURM_PROCID" else f"{text}, or start it with srun -n 1"


def _launcher_variables(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the names of the variables of the launcher that set rank and world size; an empty value is none."""
    return next((names for names in _LAUNCHERS if environ.get(names[0]) and environ.get(names[1])), None)


def _number(environ: Mapping[str, str], name: str, default: int = 0) -> int:
    text = environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError as error:
        raise PlanError(f"{name}={text[:40]!r} is not a number. It is set by a launcher, or unset.") from error


def current_world() -> World:
    """Return the rank in the process group if there is one, else the rank that the launcher gave."""
    import torch.distributed as dist

    launched = launched_world()
    if is_initialized():
        return replace(launched, rank=dist.get_rank(), world_size=dist.get_world_size())
    return launched


def resolve_world(rank: int | None, world_size: int | None) -> World:
    """Return the place that the caller gives, or else `current_world`.

    Raises:
        PlanError: only one of the two is given, or rank is not in [0, world_size).
    """
    if rank is None and world_size is None:
        return current_world()
    if rank is None or world_size is None:
        raise PlanError(f"rank is {rank} and world_size is {world_size}: give both, or neither.")
    from wds_real.data.plan import share  # here, as it needs numpy: --help starts without

    share(0, rank=rank, world_size=world_size)
    return replace(launched_world(), rank=rank, world_size=world_size)


def threads_of_this_process() -> int:
    """Return the number of cores this process may use, divided between the processes of this node; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // current_world().local_world_size)


def is_initialized() -> bool:
    """Return whether this process is in a process group, whoever created it."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


@contextlib.contextmanager
def process_group(device: torch.device, *, timeout_s: float = 1800.0) -> Iterator[World]:
    """Create the process group, and destroy it after the block; does nothing for one process or inside a group.

    MASTER_ADDR and MASTER_PORT, which torchrun sets, hold the address of rank 0. `timeout_s` is the longest wait for
    another rank, when the group is created and in each reduction.

    Raises:
        PlanError: several processes were launched, but MASTER_ADDR or MASTER_PORT is not set.
        StoreError: not all ranks joined within `timeout_s`.
    """
    import torch
    import torch.distributed as dist

    world = current_world()
    if world.world_size == 1 or is_initialized():
        yield world
        return
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise PlanError(
            f"{world.world_size} processes were launched, but {' and '.join(missing)} {'are' if missing[1:] else 'is'}"
            f" not set. To run alone, {way_to_run_alone()}. To run on all of them, launch with torchrun, or under "
            "SLURM: export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1) MASTER_PORT=29500."
        )
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)  # reductions run on it
    timeout = dt.timedelta(seconds=timeout_s)
    elastic = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        dist.init_process_group(
            dist.get_default_backend_for_device(device),
            store=_fresh_store(world, timeout) if elastic else None,
            rank=world.rank,
            world_size=world.world_size,
            timeout=timeout,
        )
    except RuntimeError as error:
        raise StoreError(
            f"not all of the {world.world_size} ranks joined within {timeout_s:g} s ({_first_line(error)}). "
            "Check that every rank was started and reaches MASTER_ADDR:MASTER_PORT."
        ) from error
    try:
        yield world
    finally:
        dist.destroy_process_group()


class _Store(Protocol):
    """The methods of a ``torch.distributed`` key-value store that are used here."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...

    def wait(self, keys: list[str], timeout: dt.timedelta) -> None: ...


def _fresh_store(world: World, timeout: dt.timedelta) -> Any:  # noqa: ANN401 -- torch does not export its type
    """Return torchrun's store under a prefix that no earlier start of the same launch has used.

    torchrun keeps its store when it restarts the workers. It then holds addresses of the processes that died, and the
    new ranks would try to connect to these (pytorch issue 135712).
    """
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # torch's stubs lack them

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout)
    return PrefixStore(f"wds_real/{agree_on_start(store, world, timeout)}", store)


def agree_on_start(store: _Store, world: World, timeout: dt.timedelta) -> str:
    """Return a new name for this start, the same on all ranks, even if `store` holds keys of earlier starts.

    Rank 0 generates the name. Each other rank stores a token and waits for the name under that token. Rank 0 stores the
    name under every token it finds, stale ones too, until each rank has confirmed the name.

    Raises:
        StoreError: not all ranks take part within `timeout`.
    """
    mine = uuid.uuid4().hex
    deadline = time.monotonic() + timeout.total_seconds()
    if world.rank:
        store.set(f"wds_real/token/{world.rank}", mine)
        try:
            store.wait([f"wds_real/name/{mine}"], timeout)
        except RuntimeError as error:
            raise StoreError(f"rank 0 did not join within {timeout.total_seconds():.0f} s.") from error
        name = store.get(f"wds_real/name/{mine}").decode()
        store.set(f"wds_real/confirmed/{name}/{world.rank}", "")
        return name
    missing = set(range(1, world.world_size))
    while missing:
        for rank in sorted(missing):
            if store.check([f"wds_real/confirmed/{mine}/{rank}"]):
                missing.remove(rank)
            elif store.check([f"wds_real/token/{rank}"]):
                store.set(f"wds_real/name/{store.get(f'wds_real/token/{rank}').decode()}", mine)
        if missing and time.monotonic() > deadline:
            raise StoreError(f"ranks {sorted(missing)} did not join within {timeout.total_seconds():.0f} s.")
        time.sleep(0.01)
    return mine


def all_reduce(tensor: torch.Tensor, operation: Literal["sum", "min"]) -> torch.Tensor:
    """Return the sum or minimum of `tensor` over all ranks, on the CPU; without a process group, the tensor itself.

    Pass integers only: their sum does not depend on the order of the ranks.

    Raises:
        StoreError: a rank died, or did not join within the process group's timeout.
    """
    import torch
    import torch.distributed as dist

    if not is_initialized():
        return tensor
    device = torch.device("cpu")
    if dist.get_backend() != "gloo":  # nccl and similar backends reduce on the accelerator only
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is not None:
            device = torch.device(accelerator.type, torch.accelerator.current_device_index())
    total = tensor.to(device, copy=True)
    try:
        dist.all_reduce(total, op=dist.ReduceOp.SUM if operation == "sum" else dist.ReduceOp.MIN)
    except RuntimeError as error:
        raise StoreError(
            f"a rank was lost while the ranks added up their results ({_first_line(error)}). Run the same command "
            "again; with --output, it does only the missing batches."
        ) from error
    return total.cpu()


class SharedCount:
    """A number to which all ranks add, without waiting for each other; for a process alone, its own number.

    It lives in the key-value store of the process group. Each rank makes the same counts in the same order. Where the
    store does not answer any more, because rank 0 ended, the number stays as it was.

    Args:
        name: Of what is counted.
    """

    def __init__(self, name: str) -> None:
        from torch.distributed import distributed_c10d

        self._value = 0
        self._store: Any = None
        if is_initialized():
            self._store = distributed_c10d._get_default_store()  # noqa: SLF001 -- there is no public way
        self._key = f"wds_real/{name}/made/{current_world().rank}"
        self._key, self._value = f"wds_real/{name}/{self.add(1)}", 0

    def add(self, amount: int) -> int:
        """Add, and return the number; 0 only asks for it."""
        if self._store is None:
            self._value += amount
            return self._value
        try:
            self._value = self._store.add(self._key, amount)
        except RuntimeError:
            self._store = None
        return self._value


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
