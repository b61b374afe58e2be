"""Process groups and reductions: the only module that imports ``torch.distributed``.

Functions import torch themselves, so that importing this module does not take the seconds that torch takes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import socket
import sys
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from wds_real.data.launchers import launched_world, rendezvous
from wds_real.errors import PlanError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from wds_real.data.launchers import Rendezvous, World

__all__ = [
    "SharedCount",
    "agree_on_backend",
    "agree_on_start",
    "all_reduce",
    "current_world",
    "device_identity",
    "is_initialized",
    "process_group",
    "resolve_world",
    "threads_of_this_process",
]

_LOG = logging.getLogger(__name__)


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
    another rank, when the group is created and in each reduction. The backend is the device's own, such as nccl; where
    ranks share an accelerator, it is gloo, as on CPUs.

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
    meeting = rendezvous(world)
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)  # reductions run on it
    timeout = dt.timedelta(seconds=timeout_s)
    try:
        store = _fresh_store(meeting, world, timeout) if meeting.is_kept else None
        backend: str = dist.get_default_backend_for_device(device)
        if device.type != "cpu":
            store = store or _launchers_store(world, timeout)
            backend = agree_on_backend(store, world, device_identity(device), own=backend)
        with _stdout_as_stderr():
            dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.world_size, timeout=timeout)
    except RuntimeError as error:
        raise StoreError(
            f"not all of the {world.world_size} ranks joined within {timeout_s:g} s ({_first_line(error)}). "
            "Check that every rank was started and reaches MASTER_ADDR:MASTER_PORT."
        ) from error
    try:
        yield world
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """Send to stderr what is written to file descriptor 1 in the block: stdout is for results.

    gloo, as it comes with torch 2.8, prints a line there for each connected rank.
    """
    if sys.__stdout__ is None or sys.__stderr__ is None:  # closed: the number may be that of a socket by now
        yield
        return
    stdout = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


class _Store(Protocol):
    """The methods of a ``torch.distributed`` key-value store that are used here."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...

    def wait(self, keys: list[str], timeout: dt.timedelta) -> None: ...


def _fresh_store(meeting: Rendezvous, world: World, timeout: dt.timedelta) -> Any:  # noqa: ANN401 -- torch does not export its type
    """Return torchrun's store under a prefix that no earlier start of the same launch has used.

    torchrun keeps its store when it restarts the workers. It then holds addresses of the processes that died, and the
    new ranks would try to connect to these (pytorch issue 135712).
    """
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # torch's stubs lack them

    store = TCPStore(meeting.address, meeting.port, is_master=False, timeout=timeout)
    return PrefixStore(f"wds_real/{agree_on_start(store, world, timeout)}", store)


def _launchers_store(world: World, timeout: dt.timedelta) -> Any:  # noqa: ANN401 -- as above
    """Return the store at MASTER_ADDR and MASTER_PORT, which rank 0 holds."""
    from torch.distributed import rendezvous  # type: ignore[attr-defined]  # torch's stubs lack it

    store, _, _ = next(rendezvous("env://", world.rank, world.world_size, timeout=timeout))
    store.set_timeout(timeout)
    return store


def device_identity(device: torch.device) -> str:
    """Return an identifier of an accelerator, the same in all processes, whatever number each gives the device."""
    import torch

    properties = getattr(torch.get_device_module(device), "get_device_properties", None)
    identity = None if properties is None else getattr(properties(device), "uuid", None)
    return f"{socket.gethostname()} {device}" if identity is None else str(identity)


def agree_on_backend(store: _Store, world: World, identity: str, *, own: str) -> str:
    """Return the backend for all ranks: `own`, that of their devices, or gloo if two ranks share a device.

    NCCL refuses two ranks on one device. What is reduced here are integers on the CPU, which gloo adds up as well.

    Args:
        store: Key-value store of all ranks.
        world: The place of this process.
        identity: `device_identity` of its device.
        own: The backend for ranks with a device each.

    Raises:
        RuntimeError: a rank did not join within the store's timeout.
    """
    store.set(f"wds_real/device/{world.rank}", identity)
    if world.rank == 0:
        devices = {store.get(f"wds_real/device/{rank}") for rank in range(world.world_size)}
        shared = len(devices) < world.world_size
        if shared and own != "gloo":
            _LOG.warning(
                "%d processes share %d device%s: gloo connects them, as %s takes one process for each device.",
                world.world_size, len(devices), "s" * (len(devices) > 1), own,
            )  # fmt: skip
        store.set("wds_real/backend", "gloo" if shared else own)
    return store.get("wds_real/backend").decode()


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
    """A count to which all ranks add without waiting for each other; without a process group, a count of this process.

    It is kept in the key-value store of the process group. Each rank must make the same counts in the same order. When
    the store does not respond any more, because rank 0 ended, the count no longer changes.

    Args:
        name: Name of what is counted.
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
