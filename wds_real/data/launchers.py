"""What launchers tell a process: its rank, the world size, and the address of rank 0.

The only module that reads launchers' variables. It needs no torch, so that commands that only need their rank start
without it. `launched_world` is for ranks that work together, and so for launchers that start all processes at once;
`independent_world` is for ranks that run without each other, and takes the indices of job arrays too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wds_real.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Rendezvous", "World", "independent_world", "launched_world", "rendezvous", "way_to_run_alone"]


@dataclass(frozen=True, slots=True)
class World:
    """The rank of this process among all processes of a run.

    Attributes:
        rank: Number of this process, in [0, world_size).
        world_size: Number of processes on all nodes.
        local_rank: Rank on this node, and so the number of this process's accelerator.
        local_world_size: Processes that share the cores of this node, if the launcher sets it, else 1. It is 1 under
            srun, which divides the cores itself.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the ranks of a process group meet.

    Attributes:
        address: Address of rank 0.
        port: Port of rank 0.
        is_kept: Whether the launcher runs the key-value store there, and keeps it when it restarts the processes.
    """

    address: str
    port: int
    is_kept: bool


@dataclass(frozen=True, slots=True)
class _Launcher:
    """The names of the variables by which a launcher numbers the processes that it starts.

    Attributes:
        name: Name of the launcher, for messages.
        rank: Variable of the rank; with `span`, of an index that need not start at 0.
        world_size: Variable of the world size, empty if there is none.
        local: Variables of local rank and local world size, as far as the launcher sets them.
        span: Variables of the smallest index of an array, the largest, and the step between two.
    """

    name: str
    rank: str
    world_size: str = ""
    local: tuple[str, ...] = ()
    span: tuple[str, ...] = ()


_TORCHRUN = _Launcher("torchrun", "RANK", "WORLD_SIZE", ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))  # Ray Train sets them too
# The tasks of the srun step; SLURM_NTASKS counts those of the job, even if only one process was started.
_SRUN = _Launcher("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID",))
_TOGETHER = (_TORCHRUN, _SRUN)
# From the innermost to the outermost, where one can run inside another.
_INDEPENDENT = (
    _TORCHRUN,
    _Launcher(
        "mpirun",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ),
    _SRUN,
    _Launcher(
        "a SLURM array",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_COUNT",
        span=("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP"),
    ),
    _Launcher("a Grid Engine array", "SGE_TASK_ID", span=("SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE")),
    _Launcher("an AWS Batch array", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    _Launcher("the nodes of AWS Batch", "AWS_BATCH_JOB_NODE_INDEX", "AWS_BATCH_JOB_NUM_NODES"),
    _Launcher("Google Cloud Batch", "BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),
    _Launcher("Cloud Run", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    _Launcher("the nodes of SkyPilot", "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"),
    _Launcher("a SkyPilot pool", "SKYPILOT_JOB_RANK", "SKYPILOT_NUM_JOBS"),
    _Launcher("a Kubernetes Indexed Job", "JOB_COMPLETION_INDEX"),
)


@dataclass(frozen=True, slots=True)
class _Place:
    """The rank that one launcher gave this process; the world size is None if the launcher does not tell it."""

    launcher: _Launcher
    rank: int
    world_size: int | None

    def __str__(self) -> str:
        """Return the launcher, its variable and the numbers, for messages."""
        among = "" if self.world_size is None else f", rank {self.rank} of {self.world_size}"
        return f"{self.launcher.name} ({self.launcher.rank}{among})"


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
    launcher = _launcher_of_all(environ)
    if launcher is None:
        return World()
    return _with_local_rank(
        World(_number(environ, launcher.rank), _number(environ, launcher.world_size)), launcher, environ
    )


def way_to_run_alone(environ: Mapping[str, str] | None = None) -> str:
    """Return what to do to run as a single process, with the names of the variables that this process has.

    >>> way_to_run_alone({"RANK": "1", "WORLD_SIZE": "2"})
    'unset RANK and WORLD_SIZE (env -u RANK -u WORLD_SIZE wds-real ...)'
    """
    launcher = _launcher_of_all(os.environ if environ is None else environ) or _TORCHRUN
    rank, world_size = launcher.rank, launcher.world_size
    text = f"unset {rank} and {world_size} (env -u {rank} -u {world_size} wds-real ...)"
    return text if launcher is not _SRUN else f"{text}, or start it with srun -n 1"


def rendezvous(world: World, environ: Mapping[str, str] | None = None) -> Rendezvous:
    """Return where the ranks of `world` meet: MASTER_ADDR and MASTER_PORT, which torchrun sets.

    >>> rendezvous(World(1, 2), {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"})
    Rendezvous(address='node0', port=29500, is_kept=False)

    Raises:
        PlanError: one of them is not set, or the port is not a number.
    """
    environ = os.environ if environ is None else environ
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environ]
    if missing:
        raise PlanError(
            f"{world.world_size} processes were launched, but {' and '.join(missing)} {'are' if missing[1:] else 'is'}"
            f" not set. To run alone, {way_to_run_alone(environ)}. To run on all of them, launch with torchrun, or "
            "under SLURM: export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1) "
            "MASTER_PORT=29500."
        )
    is_kept = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Rendezvous(environ["MASTER_ADDR"], _number(environ, "MASTER_PORT"), is_kept)


def independent_world(
    environ: Mapping[str, str] | None = None, *, rank: int | None = None, world_size: int | None = None
) -> World:
    """Return the place of a rank that runs without the others: the one given, else the one that its launcher gave.

    The launchers are torchrun (Ray Train sets its variables too), mpirun, srun, arrays of SLURM, Grid Engine and AWS
    Batch, nodes of AWS Batch and SkyPilot, jobs of a SkyPilot pool, tasks of Google Cloud Batch and Cloud Run, and
    Indexed Jobs of Kubernetes. The last give an index, but no count: `world_size` alone then says how many there are.

    >>> independent_world({"AWS_BATCH_JOB_ARRAY_INDEX": "3", "AWS_BATCH_JOB_ARRAY_SIZE": "7"})
    World(rank=3, world_size=7, local_rank=0, local_world_size=1)
    >>> independent_world({"JOB_COMPLETION_INDEX": "3"}, world_size=7).rank
    3

    Raises:
        PlanError: no launcher set a rank; several did, one inside another, and which one counts is not certain; the
            indices of an array are not evenly spaced; only one of `rank` and `world_size` is given; a number is
            impossible.
    """
    environ = os.environ if environ is None else environ
    if rank is not None and world_size is not None:
        _check(rank, world_size, "--rank", "--world-size")
        return replace(launched_world(environ), rank=rank, world_size=world_size)
    if rank is not None:
        raise PlanError(f"--rank is {rank}, and --world-size is not given. Give both.")
    place = _place_that_counts(environ)
    if world_size is not None:
        return _place_among(place, world_size, environ)
    if place is None:
        raise PlanError(
            "an independent rank needs its number, and no launcher set one. Give --rank and --world-size, or start it "
            f"with one of these: {_what_is_looked_for()}."
        )
    if place.world_size is None:
        raise PlanError(
            f"{place.launcher.rank} is {place.rank}, and no variable says how many ranks there are. Give --world-size: "
            "the completions of the Job."
        )
    return _with_local_rank(World(place.rank, place.world_size), place.launcher, environ)


def _place_among(place: _Place | None, world_size: int, environ: Mapping[str, str]) -> World:
    """Return the place of a process whose launcher gave it an index only.

    Raises:
        PlanError: it gave more, or nothing; or the index is not in [0, world_size).
    """
    if place is None or place.world_size is not None:
        found = "no launcher set one" if place is None else f"{place} counts the ranks itself"
        raise PlanError(
            f"--world-size is {world_size}, and --rank is not given. --world-size alone is for launchers that set an "
            f"index only, as a Kubernetes Indexed Job does; {found}. Give both, or neither."
        )
    _check(place.rank, world_size, place.launcher.rank, "--world-size")
    return replace(launched_world(environ), rank=place.rank, world_size=world_size)


def _place_that_counts(environ: Mapping[str, str]) -> _Place | None:
    """Return the place from the launcher that numbers this process, None if there is none.

    A launcher that started one process only is ignored if another one started several, or may have.

    Raises:
        PlanError: there are several, and which one counts is not certain.
    """
    places = [place for launcher in _INDEPENDENT if (place := _place(environ, launcher)) is not None]
    several = [place for place in places if place.world_size != 1]
    if not several:
        return next(iter(places), None)
    inner = several[0]
    if inner.launcher is _TORCHRUN:
        several = [inner, *(outer for outer in several[1:] if not _is_within(outer, inner, environ))]
    if several[1:]:
        raise PlanError(_clash(several))
    return inner


def _is_within(outer: _Place, torchrun: _Place, environ: Mapping[str, str]) -> bool:
    """Return whether the ranks of torchrun are those of all processes that `outer` started, not of this one alone.

    This is so if torchrun runs on as many nodes as `outer` started processes, or if a script copied the numbers of
    `outer` to torchrun's variables: ``export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS``.
    """
    if environ.get("GROUP_WORLD_SIZE"):  # torchrun's number of nodes; nothing else sets it
        nodes = _number(environ, "GROUP_WORLD_SIZE")
        return nodes > 1 and (outer.world_size == nodes or (outer.world_size is None and outer.rank < nodes))
    return outer.rank == torchrun.rank and outer.world_size in (torchrun.world_size, None)


def _clash(several: list[_Place]) -> str:
    inner, outer = several[0], several[-1]
    advice = "Give --rank and --world-size"
    if len(several) == 2 and inner.world_size is not None and outer.world_size is not None:
        rank, world_size = outer.rank * inner.world_size + inner.rank, outer.world_size * inner.world_size
        advice += f" (if each of {outer.world_size} starts {inner.world_size}: {rank} and {world_size})"
    return (
        f"{' and '.join(map(str, several))} each number this process, and which one counts is not certain. {advice}, "
        "or unset the variables of the others."
    )


def _place(environ: Mapping[str, str], launcher: _Launcher) -> _Place | None:
    """Return the place that a launcher gave this process, None if there is none; an empty variable counts as unset.

    Raises:
        PlanError: a variable is not a number, the rank is not below the world size, or the indices of an array are not
            evenly spaced.
    """
    needed = [name for name in (launcher.rank, launcher.world_size, *launcher.span[:2]) if name]
    if not all(environ.get(name) for name in needed):
        return None
    if environ[launcher.rank] == "undefined":  # Grid Engine's value for a job that is no array
        return None
    if launcher.span:
        return _place_in_array(environ, launcher)
    rank = _number(environ, launcher.rank)
    if not launcher.world_size:
        if rank < 0:
            raise PlanError(f"{launcher.rank} is {rank}, expected at least 0. It is set by {launcher.name}.")
        return _Place(launcher, rank, None)
    world_size = _number(environ, launcher.world_size)
    _check(rank, world_size, launcher.rank, launcher.world_size)
    return _Place(launcher, rank, world_size)


def _place_in_array(environ: Mapping[str, str], launcher: _Launcher) -> _Place:
    first, last, step = (_number(environ, name, 1) for name in launcher.span)
    index = _number(environ, launcher.rank)
    if not first <= index <= last or step < 1:
        names = " and ".join(launcher.span)
        raise PlanError(f"{launcher.rank} is {index}, and {names} are {first}, {last} and {step}: impossible.")
    spaced = (last - first) // step + 1
    count = _number(environ, launcher.world_size, spaced) if launcher.world_size else spaced
    # Where there is a count, the last index is that of the last task; Grid Engine's is the end of the range.
    ends_even = not launcher.world_size or (last - first) % step == 0
    if count != spaced or not ends_even or (index - first) % step:
        raise PlanError(
            f"{launcher.rank} is {index}, and the {count} indices from {first} to {last} in steps of {step} are not "
            "evenly spaced: the rank is not certain. Give --rank and --world-size, or submit an array such as 0-6."
        )
    return _Place(launcher, (index - first) // step, spaced)


def _with_local_rank(world: World, launcher: _Launcher, environ: Mapping[str, str]) -> World:
    """Return `world` with the place on this node that the launcher gave, all numbers checked."""
    if not 0 <= world.rank < world.world_size:
        raise PlanError(
            f"{launcher.rank}={world.rank} is not in [0, {launcher.world_size}={world.world_size}). To run alone, "
            f"{way_to_run_alone(environ)}."
        )
    local = [_number(environ, name, default) for name, default in zip(launcher.local, (0, 1), strict=False)]
    world = World(world.rank, world.world_size, *local)
    if world.local_rank < 0 or world.local_world_size < 1:
        names = " and ".join(launcher.local)
        raise PlanError(f"{names} are {world.local_rank} and {world.local_world_size}: impossible.")
    return world


def _check(rank: int, world_size: int, rank_name: str, world_size_name: str) -> None:
    if world_size < 1:
        raise PlanError(f"{world_size_name} is {world_size}, expected at least 1.")
    if not 0 <= rank < world_size:
        raise PlanError(f"{rank_name} is {rank}, expected 0 <= rank < {world_size}, which is {world_size_name}.")


def _launcher_of_all(environ: Mapping[str, str]) -> _Launcher | None:
    """Return the launcher that set rank and world size of ranks that work together, if any."""
    return next((found for found in _TOGETHER if environ.get(found.rank) and environ.get(found.world_size)), None)


def _what_is_looked_for() -> str:
    return ", ".join(f"{found.name} ({found.rank})" for found in _INDEPENDENT)


def _number(environ: Mapping[str, str], name: str, default: int = 0) -> int:
    text = environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError as error:
        raise PlanError(f"{name}={text[:40]!r} is not a number. It is set by a launcher, or unset.") from error
