"""Independent ranks: each does its share, none waits for another, and whoever ends last makes the result."""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.data.dataset import Dataset, open_dataset
from wds_real.data.launchers import World
from wds_real.errors import ModelRunError, PlanError, PredictionsError
from wds_real.evaluation.loop import evaluate
from wds_real.evaluation.models.base import LoadedModel
from wds_real.evaluation.shares import Share, _parts, evaluate_share
from wds_real.scoring.run.output import merge
from wds_real.storage.store import open_store
from wds_real.synthetic import known_answer_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from wds_real.scoring.result import Result
    from wds_real.storage.base import Store

NUMBERS = itertools.count()
SIZE, NUM_BATCHES = 7, 18
VARIABLES = ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "JOB_COMPLETION_INDEX")


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    return open_dataset(packed)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    module, transform = known_answer_model()
    return LoadedModel("known answer", lambda image: module(image), transform, facts={"sha256": "0" * 64})  # noqa: PLW0108 -- a function, as those that replace it


@pytest.fixture(scope="module")
def expected(ds: Dataset, model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    """Predictions and result of one process that does everything."""
    folder = tmp_path_factory.mktemp("one")
    evaluate(model, ds, output=folder, batch_size=SIZE, device="cpu", progress=False)
    return (folder / "predictions.csv").read_bytes(), comparable(json.loads((folder / "result.json").read_bytes()))


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["folder", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "folder" else f"memory://shares-{next(NUMBERS)}"


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result without times, and without the number of ranks."""
    return {name: value for name, value in result.items() if name not in ("run", "coverage")} | {
        "coverage": {name: value for name, value in result["coverage"].items() if name != "ranks"}
    }


def share(
    model: Any, ds: Dataset, output: str, rank: int | None, world_size: int | None, **others: Any
) -> Result | None:
    return evaluate_share(
        model, ds, output=output, rank=rank, world_size=world_size, batch_size=SIZE, device="cpu", progress=False,
        **others,
    )  # fmt: skip


def check_same(output: str, expected: tuple[bytes, dict[str, Any]]) -> None:
    store = open_store(output)
    assert store.get("predictions.csv") == expected[0]
    assert comparable(json.loads(store.get("result.json"))) == expected[1]


def taken_away(records: Store) -> dict[str, bytes]:
    """Remove all records, and return them: the ranks that start now do not see them."""
    found = {name: records.get(name) for name in records.list()}
    for name in found:
        records.delete(name)
    return found


def told(method: Callable[..., Any], tell: Callable[[], None]) -> Callable[..., Any]:
    """Return a method that tells of each call."""

    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        tell()
        return method(*arguments, **options)

    return call


class Failing:
    """A model that fails at its n-th batch, as a process does that is killed there."""

    def __init__(self, model: LoadedModel, after: int) -> None:
        self._model, self._left = model.module, after

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("killed")
        scores: torch.Tensor = self._model(image)
        return scores


def failing(model: LoadedModel, after: int) -> LoadedModel:
    return replace(model, module=Failing(model, after))


@pytest.mark.parametrize("world_size", [1, 2, 5, 18, 25])
def test_all_ranks_in_any_order_give_what_one_process_gives(
    ds: Dataset, model: LoadedModel, output: str, world_size: int, expected: tuple[bytes, dict[str, Any]]
) -> None:
    """Only the last one returns a result, and writes it; before, there is none."""
    ranks = random.Random(world_size).sample(range(world_size), world_size)  # noqa: S311 -- an order
    for rank in ranks[:-1]:
        found = share(model, ds, output, rank, world_size)
        if found is not None:  # the ranks that are left have no batch
            assert world_size > NUM_BATCHES
    result = share(model, ds, output, ranks[-1], world_size)
    assert result is not None
    assert result.coverage.seen_once == len(ds)
    check_same(output, expected)


def test_no_rank_makes_a_result_while_batches_are_missing(ds: Dataset, model: LoadedModel, output: str) -> None:
    """Neither result.json nor predictions.csv is there, and the log says whose batches are missing."""
    for rank in (0, 2, 3):
        assert share(model, ds, output, rank, 5) is None
    assert {"result.json", "predictions.csv"}.isdisjoint(open_store(output).list())


def test_the_number_of_ranks_may_change(
    ds: Dataset, model: LoadedModel, output: str, expected: tuple[bytes, dict[str, Any]]
) -> None:
    """What earlier ranks recorded is not done again, whoever they were."""
    assert share(model, ds, output, 1, 3) is None
    assert share(model, ds, output, 6, 7) is None
    assert share(model, ds, output, 0, 2) is None
    assert share(model, ds, output, 1, 2) is not None
    check_same(output, expected)
    assert share(model, ds, output, 0, 9) is not None
    check_same(output, expected)


def test_a_rank_that_failed_is_started_again(ds: Dataset, model: LoadedModel, output: str) -> None:
    """The batches that it had finished are not done again; it takes the model as many times as batches are left."""
    with pytest.raises(ModelRunError, match="killed"):
        share(failing(model, 4), ds, output, 1, 2)
    assert share(failing(model, 5), ds, output, 1, 2) is None  # 9 batches are its share
    with pytest.raises(ModelRunError, match="killed"):
        share(failing(model, 8), ds, output, 0, 2)
    assert share(failing(model, 1), ds, output, 0, 2) is not None


def test_a_rank_that_is_done_takes_the_batches_of_others(
    ds: Dataset, model: LoadedModel, output: str, expected: tuple[bytes, dict[str, Any]]
) -> None:
    """With steal, one rank of many finishes what nobody else does."""
    assert share(model, ds, output, 2, 4) is None
    assert share(model, ds, output, 1, 4, steal=True) is not None
    check_same(output, expected)


def test_nothing_is_stolen_without_being_asked(ds: Dataset, model: LoadedModel, output: str) -> None:
    """A rank takes its own batches only."""
    assert share(failing(model, 5), ds, output, 3, 4) is None  # its share is 5 of 18


def test_a_batch_that_two_ranks_do_counts_once(
    ds: Dataset, model: LoadedModel, output: str, expected: tuple[bytes, dict[str, Any]]
) -> None:
    """A rank that was thought dead goes on: its records are equal, and change nothing."""
    assert share(model, ds, output, 0, 2) is None
    records = open_store(f"{output}/records")
    first = taken_away(records)
    assert share(model, ds, output, 0, 2) is None
    for name, data in first.items():
        records.put(name.replace("00000-", "00007-"), data)
    assert share(model, ds, output, 1, 2) is not None
    check_same(output, expected)
    assert merge(output, ds)[0].coverage.doubled == 0


def test_two_different_records_of_a_batch_are_an_error(ds: Dataset, model: LoadedModel, output: str) -> None:
    """Nobody decides which one is right; no result is written."""

    def other(image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = model.module(image)
        return scores.roll(1, dims=1)

    odd = replace(model, module=other)
    assert share(model, ds, output, 0, 2) is None
    records = open_store(f"{output}/records")
    first = taken_away(records)
    assert share(odd, ds, output, 0, 2) is None
    for name, data in first.items():
        records.put(name.replace("00000-", "00007-"), data)
    with pytest.raises(
        PredictionsError, match=r"batch 0 was evaluated twice, with different predictions, in records/0"
    ):
        share(model, ds, output, 1, 2)
    assert "result.json" not in open_store(output).list()


def test_another_run_is_refused(ds: Dataset, model: LoadedModel, output: str) -> None:
    """Before a batch is done; nothing of it is written."""
    assert share(model, ds, output, 0, 2) is None
    with pytest.raises(PredictionsError, match="batch_size was 7, is 8"):
        evaluate_share(model, ds, output=output, rank=1, world_size=2, batch_size=8, progress=False)
    assert len(open_store(f"{output}/records").list()) == 1


@pytest.mark.parametrize(("rank", "world_size"), [(7, 4), (-1, 4), (0, 0), (1, None), (None, None)])
def test_an_impossible_rank_is_refused_before_anything_is_written(
    ds: Dataset, model: LoadedModel, output: str, rank: int | None, world_size: int | None
) -> None:
    """Also if no launcher says it."""
    with pytest.raises(PlanError):
        share(model, ds, output, rank, world_size)
    assert open_store(output).list() == []


def test_the_rank_of_the_launcher_is_taken(
    ds: Dataset, model: LoadedModel, output: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A Kubernetes Indexed Job says the rank only."""
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    with caplog.at_level("INFO", logger="wds_real.evaluation.shares"):
        assert share(model, ds, output, None, 6) is None
    (line,) = caplog.messages
    assert line == (
        "rank 2 of 6 did 3 batches; 15 of 18 are not recorded yet, of ranks 0, 1, 3, 4, 5: the last rank to end makes "
        "the result"
    )


def test_progress_counts_this_ranks_images(ds: Dataset, model: LoadedModel, output: str) -> None:
    """Those that it takes from others are added to the total."""
    told: list[tuple[int, int]] = []
    evaluate_share(
        model, ds, output=output, rank=0, world_size=3, steal=True, batch_size=SIZE, device="cpu",
        progress=lambda *numbers: told.append(numbers),
    )  # fmt: skip
    assert told[0][1] == 6 * SIZE
    assert sum(amount for amount, _ in told) == len(ds)
    done = 0
    for amount, total in told:
        done += amount
        assert done <= total <= len(ds)


@pytest.mark.parametrize(
    ("independent", "wanted"),
    [
        (False, {"put": 6, "get": 3, "list": 4}),
        (True, {"put": 6, "get": 4, "list": 6}),
    ],
)
def test_an_evaluation_makes_few_requests(
    ds: Dataset, model: LoadedModel, monkeypatch: pytest.MonkeyPatch, independent: bool, wanted: dict[str, int]
) -> None:
    """However many batches it has: nothing is listed, or asked for, twice without a reason."""
    output, store_class = f"memory://shares-{next(NUMBERS)}", type(open_store("memory://any"))
    requests = list[str]()
    for name in ("put", "get", "list"):
        monkeypatch.setattr(
            store_class, name, told(getattr(store_class, name), functools.partial(requests.append, name))
        )
    if independent:
        assert share(model, ds, output, 0, 1) is not None
    else:
        evaluate(model, ds, output=output, batch_size=SIZE, device="cpu", progress=False)
    assert Counter(requests) == wanted


def test_a_share_in_words() -> None:
    """Many ranks are not all named; a finished run says so."""
    some = Share(world=World(1, 40), num_batches=80, done=(2, 3), missing=tuple(range(4, 80)), result=None)
    assert str(some) == (
        "rank 1 of 40 did 2 batches; 76 of 80 are not recorded yet, of ranks 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...: the "
        "last rank to end makes the result"
    )
    one = Share(world=World(0, 2), num_batches=9, done=(), missing=(8,), result=None)
    assert "did 0 batches; 1 of 9 is not recorded yet, of rank 1: " in str(one)
    whole = Share(world=World(0, 2), num_batches=9, done=(1,), missing=(), result=None)
    assert str(whole) == "rank 0 of 2 did 1 batch; all 9 are recorded"
    assert one.as_dict()["batches_missing"] == [8]


class Recorded:
    """The part of a run that the choice of batches needs."""

    def __init__(self, done: set[int]) -> None:
        self.done = done

    def recorded(self) -> frozenset[int]:
        return frozenset(self.done)


@given(total=st.integers(0, 60), world_size=st.integers(1, 9), data=st.data())
@settings(max_examples=200)
def test_stealing_ends_and_misses_nothing(total: int, world_size: int, data: st.DataObject) -> None:
    """However ranks that steal take turns, whatever was recorded before, and whoever never starts."""
    run = Recorded(data.draw(st.sets(st.integers(0, max(total - 1, 0))) if total else st.just(set())))
    alive = data.draw(st.sets(st.integers(0, world_size - 1), min_size=1))
    ranks = {rank: _parts(run, total, World(rank, world_size), steal=True) for rank in sorted(alive)}  # type: ignore[arg-type]
    for _ in range(4 * total + 2 * world_size):
        if not ranks:
            break
        rank = data.draw(st.sampled_from(sorted(ranks)))
        part = next(ranks[rank], None)
        if part is None:
            del ranks[rank]
        else:
            assert run.done.isdisjoint(part)
            run.done.update(part)
    assert run.done == set(range(total))


def test_ranks_that_steal_at_once_take_different_batches() -> None:
    """As long as there are enough."""
    runs = [_parts(Recorded(set()), 12, World(rank, 4), steal=True) for rank in range(4)]  # type: ignore[arg-type]
    own = [next(run) for run in runs]
    assert sorted(itertools.chain(*own)) == list(range(12))
    stolen = [next(run) for run in runs]
    assert sorted(itertools.chain(*stolen)) == list(range(12))
