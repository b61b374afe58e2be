"""Rank and world size as launchers set them: for ranks that work together, and for independent ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real import PlanError
from wds_real.data import launchers
from wds_real.data.launchers import Rendezvous, World, independent_world, launched_world, rendezvous

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, World(0, 1, 0, 1)),
        (TORCHRUN, World(5, 8, 1, 4)),
        (SRUN, World(3, 4, 1, 1)),
        (SRUN | TORCHRUN, World(5, 8, 1, 4)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, World(1, 2, 0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, World(1, 2, 0, 2)),
        ({"RANK": "1"}, World(0, 1, 0, 1)),
        ({"RANK": "", "WORLD_SIZE": "2"}, World(0, 1, 0, 1)),
        ({"RANK": "", "WORLD_SIZE": "", **SRUN}, World(3, 4, 1, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": ""}, World(1, 2, 0, 1)),
        ({"WORLD_SIZE": "4"}, World(0, 1, 0, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, World(0, 1, 0, 1)),
    ],
)
def test_rank_and_world_size_come_from_the_launcher(environ: dict[str, str], expected: World) -> None:
    """Variables of torchrun win over those of srun; only tasks of the step count; without variables, there is one."""
    assert launched_world(environ) == expected


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x' is not a number"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE='two' is not a number"),
        ({"RANK": "9" * 5000, "WORLD_SIZE": "2"}, "RANK='9{40}' is not a number"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "0"}, "LOCAL_RANK and LOCAL_WORLD_SIZE are 1 and 0"),
        ({**TORCHRUN, "LOCAL_RANK": "-1"}, "LOCAL_RANK and LOCAL_WORLD_SIZE are -1 and 4"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK=2 is not in \[0, WORLD_SIZE=2\)"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({**TORCHRUN, "LOCAL_RANK": "one"}, "LOCAL_RANK='one' is not a number"),
        ({**SRUN, "SLURM_PROCID": "9"}, "SLURM_PROCID=9"),
    ],
)
def test_an_impossible_rank_is_a_plan_error(environ: dict[str, str], says: str) -> None:
    """The error names the variables."""
    with pytest.raises(PlanError, match=says):
        launched_world(environ)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "4 processes were launched, but MASTER_ADDR and MASTER_PORT are not set"),
        ({"MASTER_ADDR": "node0"}, "but MASTER_PORT is not set"),
        ({"MASTER_ADDR": "node0", "MASTER_PORT": "a"}, "MASTER_PORT='a' is not a number"),
    ],
)
def test_a_rendezvous_needs_an_address_and_a_port(environ: dict[str, str], says: str) -> None:
    """What is missing is named, and no number is guessed."""
    with pytest.raises(PlanError, match=says):
        rendezvous(World(0, 4), environ)


@pytest.mark.parametrize(("value", "is_kept"), [("True", True), ("False", False), (None, False)])
def test_a_rendezvous_says_whether_torchrun_keeps_its_store(value: str | None, is_kept: bool) -> None:
    """Under torchrun, a store outlives the processes."""
    environ = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"} | (
        {"TORCHELASTIC_USE_AGENT_STORE": value} if value else {}
    )
    assert rendezvous(World(1, 2), environ) == Rendezvous("node0", 29500, is_kept)


# Environments as the launchers set them, reduced to what concerns ranks.
TORCHRUN_NODES = {**TORCHRUN, "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "ROLE_RANK": "5", "ROLE_WORLD_SIZE": "8"}
TORCHRUN_ALONE = {**TORCHRUN, "LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "8", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"}
RAY_TRAIN = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "NODE_RANK": "1"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "1"}
ONE_TASK = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}
SPAN = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP")
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "6",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
AWS_ARRAY = {"AWS_BATCH_JOB_ARRAY_INDEX": "2", "AWS_BATCH_JOB_ARRAY_SIZE": "10", "AWS_BATCH_JOB_ATTEMPT": "1"}
AWS_NODES = {"AWS_BATCH_JOB_NODE_INDEX": "1", "AWS_BATCH_JOB_NUM_NODES": "2", "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0"}
SKYPILOT = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "4"}
SKYPILOT_ONE_NODE = {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "1", "SKYPILOT_JOB_RANK": "0"}
GRID_ENGINE = {"SGE_TASK_ID": "undefined", "SGE_TASK_FIRST": "undefined", "SGE_TASK_LAST": "undefined"}
POD = {"JOB_COMPLETION_INDEX": "3"}


def array(index: int, first: int, last: int, step: int = 1, count: int | None = None) -> dict[str, str]:
    """Return the variables of a task of a SLURM array."""
    values = dict(zip(SPAN, map(str, (index, first, last, step)), strict=True))
    return {**values, "SLURM_ARRAY_TASK_COUNT": str((last - first) // step + 1 if count is None else count)}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (TORCHRUN, World(5, 8, 1, 4)),
        (TORCHRUN_NODES, World(5, 8, 1, 4)),
        (TORCHRUN_ALONE, World(5, 8, 5, 8)),
        (RAY_TRAIN, World(2, 4, 0, 2)),
        (SRUN, World(3, 4, 1, 1)),
        (ONE_TASK, World(0, 1)),
        (MPIRUN, World(6, 8, 2, 4)),
        (array(0, 0, 6), World(0, 7)),
        (array(6, 0, 6), World(6, 7)),
        (array(7, 1, 7), World(6, 7)),
        (array(5, 1, 7, 2), World(2, 4)),
        (array(12, 0, 12, 2), World(6, 7)),
        (array(7, 3, 7, 4), World(1, 2)),
        (array(3, 3, 3), World(0, 1)),
        ({**array(4, 0, 6), **BATCH_SCRIPT}, World(4, 7)),
        ({**array(4, 0, 6), **ONE_TASK}, World(4, 7)),
        ({**array(3, 3, 3), **SRUN}, World(3, 4, 1, 1)),
        ({**array(4, 0, 6), **TORCHRUN, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, World(4, 7)),
        ({"SGE_TASK_ID": "7", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "9", "SGE_TASK_STEPSIZE": "3"}, World(2, 3)),
        ({"SGE_TASK_ID": "5", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "9", "SGE_TASK_STEPSIZE": "2"}, World(2, 5)),
        ({**GRID_ENGINE, **AWS_ARRAY}, World(2, 10)),
        (AWS_ARRAY, World(2, 10)),
        (AWS_NODES, World(1, 2)),
        ({"BATCH_TASK_INDEX": "3", "BATCH_TASK_COUNT": "4"}, World(3, 4)),
        ({"CLOUD_RUN_TASK_INDEX": "3", "CLOUD_RUN_TASK_COUNT": "4", "CLOUD_RUN_TASK_ATTEMPT": "0"}, World(3, 4)),
        (SKYPILOT, World(1, 2)),
        (SKYPILOT_ONE_NODE, World(0, 1)),
        ({**SKYPILOT_ONE_NODE, "SKYPILOT_JOB_RANK": "4", "SKYPILOT_NUM_JOBS": "6"}, World(4, 6)),
    ],
)
def test_an_independent_rank_comes_from_the_launcher_that_started_several(
    environ: dict[str, str], expected: World
) -> None:
    """Each launcher is known by its own variables; one that started a single process gives way to one outside it."""
    assert independent_world(environ) == expected


@pytest.mark.parametrize(
    "outer",
    [
        {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2"},
        {"AWS_BATCH_JOB_NODE_INDEX": "1", "AWS_BATCH_JOB_NUM_NODES": "2"},
        {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"},
        {"BATCH_TASK_INDEX": "0", "BATCH_TASK_COUNT": "2"},
        {"JOB_COMPLETION_INDEX": "1"},
    ],
)
def test_a_torchrun_over_all_nodes_counts(outer: dict[str, str]) -> None:
    """Its ranks are those of all processes; the outer launcher only started its agents."""
    assert independent_world({**outer, **TORCHRUN_NODES}) == World(5, 8, 1, 4)


@pytest.mark.parametrize("outer", [SRUN, MPIRUN, AWS_ARRAY, SKYPILOT, POD, array(3, 0, 6)])
def test_numbers_may_be_handed_on_by_hand(outer: dict[str, str]) -> None:
    """``export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS`` names the same numbers twice."""
    place = independent_world(outer, world_size=7 if outer is POD else None)
    by_hand = {"RANK": str(place.rank), "WORLD_SIZE": str(place.world_size)}
    found = independent_world({**outer, **by_hand})
    assert (found.rank, found.world_size) == (place.rank, place.world_size)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        (
            {**array(3, 0, 6), "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
            (
                r"srun \(SLURM_PROCID, rank 1 of 2\) and a SLURM array \(SLURM_ARRAY_TASK_ID, rank 3 of 7\) each "
                r"number this process, and which one counts is not certain. Give --rank and --world-size \(if each of "
                r"7 starts 2: 7 and 14\), or unset the variables of the others"
            ),
        ),
        ({**array(3, 0, 6), **TORCHRUN_ALONE}, r"if each of 7 starts 8: 29 and 56"),
        ({**array(3, 0, 6), **TORCHRUN_NODES}, r"torchrun \(RANK, rank 5 of 8\) and a SLURM array"),
        ({**POD, **TORCHRUN_ALONE}, r"torchrun \(RANK, rank 5 of 8\) and a Kubernetes Indexed Job \(JOB_COMPL\w+\)"),
        ({**POD, **TORCHRUN_NODES}, r"a Kubernetes Indexed Job \(JOB_COMPLETION_INDEX\)"),
        ({**SRUN, **RAY_TRAIN}, r"torchrun .* and srun "),
        ({**SRUN, **MPIRUN}, r"mpirun .* and srun "),
        (
            {**SRUN, **TORCHRUN_NODES, **array(3, 0, 6)},
            r"torchrun .* and srun .* and a SLURM array .* --world-size, or",
        ),
        (
            {**SRUN, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", **TORCHRUN_NODES, **array(3, 0, 6)},
            r"torchrun \S+ ran\w+ 5 of 8\) and a SLURM",
        ),
        ({**POD, **AWS_ARRAY}, r"an AWS Batch array .* and a Kubernetes"),
    ],
)
def test_two_launchers_inside_one_another_are_an_error(environ: dict[str, str], says: str) -> None:
    """Both are named, and what to give, with the numbers where they follow."""
    with pytest.raises(PlanError, match=says) as caught:
        independent_world(environ)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 50), st.integers(1, 50), st.data())
def test_the_advice_numbers_each_process_once(outer: int, inner: int, data: st.DataObject) -> None:
    """The rank in the message is the process's place among all, counted array task by array task."""
    task, process = data.draw(st.integers(0, outer - 1)), data.draw(st.integers(0, inner - 1))
    environ = {
        **array(task, 0, outer - 1),
        "SLURM_PROCID": str(process),
        "SLURM_STEP_NUM_TASKS": str(inner),
    }
    if outer == 1 or inner == 1:
        assert independent_world(environ).rank == max(task, process)
        return
    places = [(t, p) for t in range(outer) for p in range(inner)]
    with pytest.raises(PlanError, match=rf"starts {inner}: {places.index((task, process))} and {len(places)}\)"):
        independent_world(environ)


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 30))
def test_the_tasks_of_an_array_are_the_ranks_0_to_n(first: int, step: int, count: int) -> None:
    """Wherever an array starts and whatever its step is, each rank is there once."""
    indices = range(first, first + step * count, step)
    worlds = [independent_world(array(index, indices[0], indices[-1], step, count)) for index in indices]
    assert worlds == [World(rank, count) for rank in range(count)]


@given(st.sets(st.integers(0, 60), min_size=2, max_size=12))
def test_a_list_of_indices_is_an_array_or_an_error(chosen: set[int]) -> None:
    """``--array=3,5,9`` gives ranks 0, 1, 2 only if the indices are evenly spaced; else tasks end with an error."""
    indices = sorted(chosen)
    step = indices[1] - indices[0]
    for reported in {1, step}:
        environs = [array(index, indices[0], indices[-1], reported, len(indices)) for index in indices]
        if list(range(indices[0], indices[-1] + 1, reported)) == indices:
            assert [independent_world(environ).rank for environ in environs] == list(range(len(indices)))
        elif (indices[-1] - indices[0]) / reported + 1 != len(indices):
            for environ in environs:
                with pytest.raises(PlanError, match="are not evenly spaced"):
                    independent_world(environ)


def test_an_uneven_array_of_even_length_is_an_error_too() -> None:
    """Indices 0, 1, 4 in steps of 2 are three, as 0, 2, 4 are; the one between two steps is found."""
    with pytest.raises(PlanError, match="SLURM_ARRAY_TASK_ID is 1, and the 3 indices from 0 to 4 in steps of 2"):
        independent_world(array(1, 0, 4, 2, 3))


@given(st.integers(0, 99), st.integers(1, 99), st.sampled_from(launchers._INDEPENDENT))
def test_ranks_are_checked_whoever_set_them(rank: int, world_size: int, launcher: Any) -> None:
    """A rank below the world size is taken, any other is one line that names the variable."""
    environ = {launcher.rank: str(rank), launcher.world_size: str(world_size)}
    if launcher.span:
        environ |= dict(zip(launcher.span, ("0", str(world_size - 1), "1"), strict=True))
    given_too = None if launcher.world_size or launcher.span else world_size
    if rank < world_size:
        found = independent_world(environ, world_size=given_too)
        assert (found.rank, found.world_size) == (rank, world_size)
    else:
        with pytest.raises(PlanError, match=f"^{launcher.rank}(=| is ){rank}") as caught:
            independent_world(environ, world_size=given_too)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "environ", [{}, TORCHRUN, TORCHRUN_NODES, {**array(3, 0, 6), **SRUN}, POD, AWS_ARRAY, {**POD, **TORCHRUN_ALONE}]
)
def test_a_given_rank_wins_over_every_launcher(environ: dict[str, str]) -> None:
    """Rank and world size are those given; the accelerator stays the one of the launcher on this node."""
    local = launched_world(environ)
    assert independent_world(environ, rank=2, world_size=9) == World(2, 9, local.local_rank, local.local_world_size)


@pytest.mark.parametrize(
    ("environ", "given", "says"),
    [
        (
            {},
            {},
            r"no launcher set one. Give --rank and --world-size, or start it with one of these: torchrun \(RANK\)",
        ),
        ({"WORLD_SIZE": "4", "SLURM_NTASKS": "4"}, {}, "no launcher set one"),
        (GRID_ENGINE, {}, r"a Grid Engine array \(SGE_TASK_ID\).* a Kubernetes Indexed Job \(JOB_COMPLETION_INDEX\)"),
        ({}, {"rank": 7, "world_size": 4}, "--rank is 7, expected 0 <= rank < 4, which is --world-size"),
        ({}, {"rank": -1, "world_size": 4}, "--rank is -1, expected 0 <= rank < 4"),
        ({}, {"rank": 0, "world_size": 0}, "--world-size is 0, expected at least 1"),
        (TORCHRUN, {"rank": 3}, "--rank is 3, and --world-size is not given. Give both"),
        ({}, {"world_size": 3}, "--world-size is 3, and --rank is not given.*no launcher set one. Give both, or"),
        (AWS_ARRAY, {"world_size": 3}, r"an AWS Batch array \(AWS\w+, rank 2 of 10\) counts the ranks itself"),
        (POD, {}, "JOB_COMPLETION_INDEX is 3, and no variable says how many.*Give --world-size: the completions"),
        (POD, {"world_size": 3}, "JOB_COMPLETION_INDEX is 3, expected 0 <= rank < 3, which is --world-size"),
        (POD, {"world_size": 0}, "--world-size is 0, expected at least 1"),
        ({"JOB_COMPLETION_INDEX": "-1"}, {"world_size": 3}, "JOB_COMPLETION_INDEX is -1, expected at least 0"),
        ({"JOB_COMPLETION_INDEX": "one"}, {"world_size": 3}, "JOB_COMPLETION_INDEX='one' is not a number"),
        ({**POD, **TORCHRUN_ALONE}, {"world_size": 4}, "torchrun .* and a Kubernetes Indexed Job"),
        ({**AWS_ARRAY, "AWS_BATCH_JOB_ARRAY_SIZE": "2"}, {}, "AWS_BATCH_JOB_ARRAY_INDEX is 2, expected 0 <= rank < 2"),
        ({**AWS_ARRAY, "AWS_BATCH_JOB_ARRAY_SIZE": "0"}, {}, "AWS_BATCH_JOB_ARRAY_SIZE is 0, expected at least 1"),
        (
            {**AWS_ARRAY, "AWS_BATCH_JOB_ARRAY_INDEX": "9" * 5000},
            {},
            "AWS_BATCH_JOB_ARRAY_INDEX='9{40}' is not a number",
        ),
        (array(8, 0, 6), {}, "SLURM_ARRAY_TASK_ID is 8, and SLURM_ARRAY_TASK_MIN and .* are 0, 6 and 1: impossible"),
        ({**array(2, 0, 6), "SLURM_ARRAY_TASK_STEP": "0"}, {}, "are 0, 6 and 0: impossible"),
        (
            array(3, 0, 6, 1, 2),
            {},
            "SLURM_ARRAY_TASK_ID is 3, and the 2 indices from 0 to 6 in steps of 1 are not evenly",
        ),
        (
            array(3, 3, 7, 1, 2),
            {},
            "SLURM_ARRAY_TASK_ID is 3, and the 2 indices from 3 to 7 in steps of 1",
        ),  # --array=3,7
        (array(11, 0, 12, 1, 5), {}, "is 11, and the 5 indices from 0 to 12 in steps of 1"),  # --array=0-1,10-12
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "0"}, {}, "LOCAL_RANK and LOCAL_WORLD_SIZE are 1 and 0"),
        ({**MPIRUN, "OMPI_COMM_WORLD_LOCAL_RANK": "-2"}, {}, "OMPI_COMM_WORLD_LOCAL_RANK and OMPI_\\w+ are -2 and 4"),
    ],
)
def test_an_independent_rank_that_is_not_certain_is_an_error(
    environ: dict[str, str], given: dict[str, int], says: str
) -> None:
    """One line says what was found and what to give."""
    with pytest.raises(PlanError, match=says) as caught:
        independent_world(environ, **given)
    assert "\n" not in str(caught.value)


def test_without_an_environment_the_one_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """All three functions read the process's own variables by default."""
    for name, value in {**TORCHRUN, "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert independent_world() == launched_world() == World(5, 8, 1, 4)
    assert rendezvous(World(5, 8)).address == "node0"
