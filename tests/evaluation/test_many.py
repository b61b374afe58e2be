"""Many models in few passes: each gets what it gets alone, byte for byte, whatever happens to the others."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

import wds_real
from wds_real import (
    Dataset,
    EvalOptions,
    EvalTransform,
    LoadedModel,
    ModelError,
    ModelRunError,
    ModelSource,
    PredictionsError,
    ShardError,
    evaluate,
    evaluate_many,
)
from wds_real.evaluation.models.base import AcceptedInput
from wds_real.synthetic import KnownAnswerModel, known_answer, known_answer_model, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRANSFORM = known_answer_model()[1]
OPTIONS = EvalOptions(batch_size=20, threads=2, device="cpu")
NUM_BATCHES = 6


class Scripted(KnownAnswerModel):
    """The known-answer model with a weight of its own; raises what it is told to at a call, and counts its calls."""

    def __init__(self, weight: float = 0.0, *, fail_at: int = -1, error: BaseException | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.fail_at, self.error = fail_at, error
        self.calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls - 1 == self.fail_at:
            raise self.error or RuntimeError("stopped on purpose")
        image.sub_(self.weight)  # in place: must not reach the other models
        scores = super().forward(image + self.weight)
        return scores + self.weight * torch.arange(1000) / 1000


def loaded(name: str, weight: float = 0.0, *, transform: EvalTransform = TRANSFORM, **script: Any) -> LoadedModel:
    return LoadedModel(name, Scripted(weight, **script), transform)


def files(folder: Path) -> dict[str, bytes]:
    """Return every file of an output folder; of result.json all but what may differ between two runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "result.json":
            content = json.loads(path.read_bytes())
            del content["run"]
            found[path.name] = json.dumps(content).encode()
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def results(folder: Path) -> dict[str, bytes]:
    """Return result and predictions: what does not depend on how often a run was interrupted."""
    return {name: content for name, content in files(folder).items() if name in ("result.json", "predictions.csv")}


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    return wds_real.open_dataset(packed)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets an entry for each image that is decoded and transformed."""
    calls: list[int] = []
    original = EvalTransform.decode_into

    def counting(self: EvalTransform, *arguments: Any, **named: Any) -> str | None:
        calls.append(1)
        return original(self, *arguments, **named)

    monkeypatch.setattr(EvalTransform, "decode_into", counting)
    return calls


def alone(name: str, ds: Dataset, output: Path, **script: Any) -> dict[str, bytes]:
    """Evaluate a model alone; return its files."""
    evaluate(loaded(name, **script), ds, options=OPTIONS, output=output, progress=False)
    return files(output)


# --- the same as alone ------------------------------------------------------------------------------------------------


def test_five_models_have_the_bytes_of_five_runs_and_cost_one_pass(
    ds: Dataset, tmp_path: Path, decoded: list[int]
) -> None:
    """Records, predictions, run.json and result are those of runs alone; each image is decoded once, not five times."""
    models = [loaded(f"m{number}", number / 10) for number in range(5)]
    outcomes = evaluate_many(models, ds, options=OPTIONS, output=tmp_path / "many", progress=False)
    assert len(decoded) == 120
    for number, outcome in enumerate(outcomes):
        expected = alone(f"m{number}", ds, tmp_path / f"alone{number}", weight=number / 10)
        assert outcome.folder == tmp_path / "many" / f"m{number}"
        assert files(outcome.folder) == expected
        assert set(expected) == {"records/00000-000.bin", "run.json", "predictions.csv", "result.json"}
        assert outcome.result is not None
        assert outcome.result.run["timings"]["models_in_pass"] == 5
    assert len(decoded) == 120 * 6
    assert len({outcome.folder for outcome in outcomes}) == 5
    known = known_answer(labels_of(range(1, 121)))
    assert outcomes[0].result is not None
    assert outcomes[0].result.real_top1.correct == known["real_top1"]
    different = {bytes(files(tmp_path / "many" / f"m{number}")["predictions.csv"]) for number in range(5)}
    assert len(different) == 5


def test_models_of_different_preprocessing_have_passes_of_their_own(
    ds: Dataset, tmp_path: Path, decoded: list[int]
) -> None:
    """Mean and std may differ within a pass; another size is another pass."""
    other, grey = replace(TRANSFORM, img_size=48), replace(TRANSFORM, mean=(0.4,) * 3, std=(0.3,) * 3)
    models = [loaded("a"), loaded("b", transform=other), loaded("c", transform=grey), loaded("d", transform=other)]
    outcomes = evaluate_many(models, ds, options=OPTIONS, output=tmp_path / "many", progress=False)
    assert len(decoded) == 2 * 120
    transforms = {"a": TRANSFORM, "b": other, "c": grey, "d": other}
    for outcome in outcomes:
        expected = alone(outcome.name, ds, tmp_path / outcome.name, transform=transforms[outcome.name])
        assert files(tmp_path / "many" / outcome.name) == expected


@pytest.mark.parametrize(("at_once", "passes"), [(1, 6), (2, 5), (4, 3), (6, 2), (100, 2)])
def test_no_more_models_are_loaded_than_allowed(ds: Dataset, decoded: list[int], at_once: int, passes: int) -> None:
    """Of those loaded, the largest group goes first; then the next are loaded in its place."""
    other = replace(TRANSFORM, img_size=48)
    alive = most = 0

    class Counted(Scripted):
        def __init__(self) -> None:
            nonlocal alive, most
            super().__init__()
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def source(name: str, transform: EvalTransform) -> ModelSource:
        return ModelSource(name, lambda: LoadedModel(name, Counted(), transform))

    names = [("a", TRANSFORM), ("b", other), ("c", TRANSFORM), ("d", TRANSFORM), ("e", other), ("f", TRANSFORM)]
    sources = [source(name, transform) for name, transform in names]
    outcomes = evaluate_many(sources, ds, options=OPTIONS, models_at_once=at_once, progress=False)
    assert [outcome.name for outcome in outcomes] == list("abcdef")
    assert all(outcome.result is not None for outcome in outcomes)
    assert most == min(at_once, 6)
    assert len(decoded) == passes * 120


def test_models_that_take_pixels_share_them(ds: Dataset) -> None:
    """A program that changes its uint8 input in place does not change that of the next."""
    any_size = ((1, None), (3, 3), (1, None), (1, None))
    accepts = AcceptedInput(any_size, torch.uint8)
    seen: list[torch.Tensor] = []

    def program(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.clone())
        pixels.zero_()
        return torch.zeros(len(pixels), 1000)

    models = [LoadedModel(name, program, TRANSFORM, accepts) for name in "ab"]
    options = replace(OPTIONS, channels_last=True)
    evaluate_many(models, ds[:5], options=options, progress=False)
    assert torch.equal(seen[0], seen[1])
    assert int(seen[0].max()) > 0


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_models_with_different_batches_left_share_what_they_share(
    ds: Dataset, tmp_path: Path, decoded: list[int]
) -> None:
    """One has half of its batches, one has all, one none: each does only its own, and all end with the same bytes."""
    half = loaded("half", 0.1, fail_at=3)
    with pytest.raises(ModelRunError):
        evaluate(half, ds, options=OPTIONS, output=tmp_path / "many" / "half", progress=False)
    alone("whole", ds, tmp_path / "many" / "whole", weight=0.2)
    decoded.clear()
    models = [loaded("half", 0.1), loaded("whole", 0.2), loaded("none", 0.3)]
    outcomes = evaluate_many(models, ds, options=OPTIONS, output=tmp_path / "many", progress=False)
    assert [model.module.calls for model in models] == [3, 0, 6]  # type: ignore[attr-defined]
    assert len(decoded) == 120
    for outcome, weight in zip(outcomes, (0.1, 0.2, 0.3), strict=True):
        alone(outcome.name, ds, tmp_path / outcome.name, weight=weight)
        assert results(tmp_path / "many" / outcome.name) == results(tmp_path / outcome.name)
        assert outcome.result is not None
    done_before = [outcome.result.run["batches_done_before"] for outcome in outcomes if outcome.result is not None]
    assert done_before == [3, 6, 0]


def test_an_interrupted_evaluation_resumes(ds: Dataset, tmp_path: Path) -> None:
    """After Ctrl-C in the middle, the same call does each model's missing batches, and the results are the same."""
    models = [loaded("a", 0.1), loaded("b", 0.2, fail_at=2, error=KeyboardInterrupt()), loaded("c", 0.3)]
    with pytest.raises(KeyboardInterrupt):
        evaluate_many(models, ds, options=OPTIONS, output=tmp_path / "many", progress=False)
    assert not list((tmp_path / "many").rglob("result.json"))
    again = [loaded("a", 0.1), loaded("b", 0.2), loaded("c", 0.3)]
    evaluate_many(again, ds, options=OPTIONS, output=tmp_path / "many", progress=False)
    assert [model.module.calls for model in again] == [3, 4, 4]  # type: ignore[attr-defined]
    for name, weight in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        alone(name, ds, tmp_path / name, weight=weight)
        assert results(tmp_path / "many" / name) == results(tmp_path / name)


def test_existing_results_are_taken_without_loading(ds: Dataset, tmp_path: Path) -> None:
    """A finished model is not loaded, and its result is the one in its folder; the others are evaluated."""
    first = evaluate_many(
        [ModelSource("a", lambda: loaded("a", 0.1))], ds, options=OPTIONS, output=tmp_path, progress=False
    )

    def refuse() -> LoadedModel:
        raise AssertionError

    sources = [ModelSource("a", refuse), ModelSource("b", lambda: loaded("b"))]
    found = evaluate_many(sources, ds, options=OPTIONS, output=tmp_path, skip_existing=True, progress=False)
    assert [outcome.existed for outcome in found] == [True, False]
    for one, other in zip(found[:1], first, strict=True):
        assert one.result is not None
        assert other.result is not None
        assert one.result.as_dict() == other.result.as_dict()
        assert one.predictions is not None
        assert other.predictions is not None
        assert one.predictions.encode() == other.predictions.encode()


def _remove_predictions(folder: Path) -> None:
    (folder / "predictions.csv").unlink()


def _swap_answers(folder: Path) -> None:
    text = (folder / "predictions.csv").read_text().splitlines()
    cells = text[5].split(",")
    cells[1], cells[2] = cells[2], cells[1]
    text[5] = ",".join(cells)
    (folder / "predictions.csv").write_text("\n".join(text) + "\n")


def _damage_result(folder: Path) -> None:
    (folder / "result.json").write_bytes(b"{}")


@pytest.mark.parametrize("damage", [_remove_predictions, _swap_answers, _damage_result])
def test_a_damaged_result_is_made_again(ds: Dataset, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A result that does not match its predictions, or cannot be read, is not taken; its records are."""
    evaluate_many([loaded("a")], ds, options=OPTIONS, output=tmp_path, progress=False)
    before = files(tmp_path / "a")
    damage(tmp_path / "a")
    model = loaded("a")
    [outcome] = evaluate_many([model], ds, options=OPTIONS, output=tmp_path, skip_existing=True, progress=False)
    assert (outcome.existed, model.module.calls) == (False, 0)  # type: ignore[attr-defined]
    assert files(tmp_path / "a") == before


@pytest.mark.parametrize("changes", [{"batch_size": 30}, {"amp": True, "amp_dtype": "bfloat16"}])
def test_a_result_of_other_options_is_refused_not_taken(ds: Dataset, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Another batch size or precision is another run: its folder is refused with a message that says what differs."""
    evaluate_many([loaded("a")], ds, options=OPTIONS, output=tmp_path, progress=False)
    options = replace(OPTIONS, **changes)
    [outcome] = evaluate_many([loaded("a")], ds, options=options, output=tmp_path, skip_existing=True, progress=False)
    assert isinstance(outcome.error, PredictionsError)
    assert "holds the records of another run" in str(outcome.error)


def test_a_result_of_another_preprocessing_is_refused_not_taken(ds: Dataset, tmp_path: Path) -> None:
    """A model that is given is compared with what was evaluated, before its batches would be."""
    evaluate_many([loaded("a")], ds, options=OPTIONS, output=tmp_path, progress=False)
    [same] = evaluate_many([loaded("a")], ds, options=OPTIONS, output=tmp_path, skip_existing=True, progress=False)
    assert same.existed
    own = loaded("a").transform
    assert isinstance(own, EvalTransform)
    other = replace(loaded("a"), transform=replace(own, crop_pct=0.5))
    [outcome] = evaluate_many([other], ds, options=OPTIONS, output=tmp_path, skip_existing=True, progress=False)
    assert isinstance(outcome.error, PredictionsError)
    assert "preprocessing.crop_pct was 0.875, is 0.5" in str(outcome.error)


def test_a_result_of_which_it_is_not_known_what_was_asked_is_checked(ds: Dataset, tmp_path: Path) -> None:
    """As of an evaluation alone, or an earlier version: the model is loaded, and no batch is run again."""
    alone("a", ds, tmp_path / "a")
    model = loaded("a")
    [outcome] = evaluate_many([model], ds, options=OPTIONS, output=tmp_path, skip_existing=True, progress=False)
    assert (outcome.error, outcome.existed, model.module.calls) == (None, False, 0)  # type: ignore[attr-defined]
    [outcome] = evaluate_many([model], ds, options=OPTIONS, output=tmp_path, skip_existing=True, progress=False)
    assert outcome.existed


def test_a_file_that_changed_is_another_model(ds: Dataset, tmp_path: Path) -> None:
    """The name and the options are the same, the file is not: it is loaded, and the records decide."""
    weights, loads = tmp_path / "weights.pth", []

    def load() -> LoadedModel:
        loads.append(weights.read_bytes())
        return loaded("a")

    sources = [ModelSource("a", load, asked={"checkpoint": str(weights)})]
    for content, times in ((b"1", 1), (b"1", 1), (b"22", 2)):
        if not weights.exists() or weights.read_bytes() != content:
            weights.write_bytes(content)
        evaluate_many(sources, ds, options=OPTIONS, output=tmp_path / "out", skip_existing=True, progress=False)
        assert len(loads) == times


def test_a_result_of_other_images_is_refused_not_taken(ds: Dataset, tmp_path: Path) -> None:
    """A split is other data."""
    evaluate_many([loaded("a")], ds[:40], options=OPTIONS, output=tmp_path, progress=False)
    [outcome] = evaluate_many([loaded("a")], ds, options=OPTIONS, output=tmp_path, skip_existing=True, progress=False)
    assert isinstance(outcome.error, PredictionsError)


# --- failures ---------------------------------------------------------------------------------------------------------


def _raise(error: BaseException) -> Any:
    raise error


FAILURES: dict[str, tuple[Callable[[], LoadedModel], str]] = {
    "loading": (lambda: _raise(ModelError("bad: no such weights.")), "bad: no such weights."),
    "a bug while loading": (
        lambda: _raise(ZeroDivisionError("oops")),
        "bad: loading it raised ZeroDivisionError: oops",
    ),
    "training mode": (
        lambda: LoadedModel("bad", functools.partial(torch.nn.Dropout(0.5)), TRANSFORM),
        "training mode",
    ),
    "first batch": (lambda: loaded("bad", fail_at=0), "raised RuntimeError: stopped on purpose"),
    "last batch": (lambda: loaded("bad", fail_at=NUM_BATCHES - 1), "raised RuntimeError: stopped on purpose"),
    "memory": (lambda: loaded("bad", fail_at=1, error=MemoryError()), "out of memory at batch 20: try -b 10."),
    "wrong shape": (lambda: LoadedModel("bad", lambda image: image.mean((2, 3)), TRANSFORM), "has 3 outputs"),
    "NaN": (lambda: LoadedModel("bad", lambda image: torch.full((len(image), 1000), torch.nan), TRANSFORM), "NaN"),
    "batch size": (
        lambda: replace(
            loaded("bad"),
            accepts=AcceptedInput(((8, 8), (3, 3), (64, 64), (64, 64))),
        ),
        "exported for batches of 8, not 20: -b 8",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_model_that_fails_does_not_stop_the_others(ds: Dataset, tmp_path: Path, failure: str) -> None:
    """Its outcome and its folder say why; the others have the bytes of runs alone; repaired, it goes on from there."""
    load, message = FAILURES[failure]
    sources = [
        ModelSource("a", lambda: loaded("a", 0.1)),
        ModelSource("bad", load),
        ModelSource("b", lambda: loaded("b")),
    ]
    outcomes = evaluate_many(sources, ds, options=OPTIONS, output=tmp_path / "many", progress=False)
    assert [outcome.result is None for outcome in outcomes] == [False, True, False]
    assert message in str(outcomes[1].error)
    assert "\n" not in str(outcomes[1].error)
    folder = tmp_path / "many" / "bad"
    written = json.loads((folder / "failed.json").read_bytes())
    assert (written["model"], written["error"]) == ("bad", str(outcomes[1].error))
    assert not (folder / "result.json").exists()
    for name, weight in (("a", 0.1), ("b", 0.0)):
        assert files(tmp_path / "many" / name) == alone(name, ds, tmp_path / name, weight=weight)
    if failure in ("wrong shape", "NaN", "training mode"):  # another model, so another run
        shutil.rmtree(folder)
    [again] = evaluate_many([loaded("bad")], ds, options=OPTIONS, output=tmp_path / "many", progress=False)
    assert again.result is not None
    assert not (folder / "failed.json").exists()
    alone("bad", ds, tmp_path / "bad")
    assert results(folder) == results(tmp_path / "bad")


def test_all_models_may_fail(ds: Dataset, decoded: list[int]) -> None:
    """The pass ends with the last model that runs; no model is loaded for nothing."""
    models = [loaded("a", fail_at=0), loaded("b", fail_at=1)]
    outcomes = evaluate_many(models, ds, options=OPTIONS, progress=False)
    assert all(isinstance(outcome.error, ModelRunError) for outcome in outcomes)
    assert len(decoded) < 120
    assert evaluate_many([], ds, options=OPTIONS) == []


def test_an_output_that_cannot_be_used_is_the_failure_of_its_model(ds: Dataset, tmp_path: Path) -> None:
    """A file in the place of a folder, or another run's folder, stops its model only; nothing there is changed."""
    (tmp_path / "a").write_text("mine")
    evaluate(loaded("b", 0.5), ds, options=OPTIONS, output=tmp_path / "b", progress=False)
    before = files(tmp_path / "b")
    models = [loaded("a"), loaded("b", 0.6), loaded("c")]
    outcomes = evaluate_many(models, ds, options=OPTIONS, output=tmp_path, progress=False)
    assert [type(outcome.error) for outcome in outcomes] == [PredictionsError, PredictionsError, type(None)]
    assert (tmp_path / "a").read_text() == "mine"
    after = files(tmp_path / "b")
    assert after.pop("failed.json")
    assert after == before


def test_damaged_data_stops_all(packed: Path, tmp_path: Path) -> None:
    """A sample that cannot be read is no model's failure: it raises, and what was done is kept for a resumed call."""
    shutil.copytree(packed, tmp_path / "shards")
    damaged = wds_real.open_dataset(tmp_path / "shards")
    shard = tmp_path / "shards" / damaged.manifest.shards[1].name
    sound = shard.read_bytes()
    data = bytearray(sound)
    data[damaged.index.offset[60] + 200] ^= 255
    shard.write_bytes(data)
    models = [loaded("a", 0.1), loaded("b")]
    with pytest.raises(ShardError):
        evaluate_many(models, damaged, options=OPTIONS, output=tmp_path / "many", progress=False)
    shard.write_bytes(sound)
    again = [loaded("a", 0.1), loaded("b")]
    outcomes = evaluate_many(again, damaged, options=OPTIONS, output=tmp_path / "many", progress=False)
    assert all(outcome.result is not None for outcome in outcomes)
    assert all(model.module.calls < NUM_BATCHES for model in again)  # type: ignore[attr-defined]


def test_names_and_fields_of_the_options_are_taken(packed: Path) -> None:
    """A root, a name of a model, and options as keywords, as with `evaluate`."""
    name = "wds_real.synthetic:known_answer_model"
    [outcome] = evaluate_many([name], packed, batch_size=50, device="cpu", progress=False)
    assert outcome.name == name
    assert outcome.result is not None
    assert outcome.result.run["options"]["batch_size"] == 50
    with pytest.raises(TypeError):
        evaluate_many([name], packed, options=OPTIONS, batch_size=50)


def test_wrong_arguments_are_refused(ds: Dataset) -> None:
    """At least one model is in memory."""
    with pytest.raises(ValueError, match="models_at_once is 0"):
        evaluate_many([loaded("a")], ds, models_at_once=0)


# --- memory -----------------------------------------------------------------------------------------------------------


@dataclass
class Allocator:
    """Stands for a device that holds `room` models: an error once there are more.

    Attributes:
        room: Models that fit.
        when: ``load``: when a model is made; ``run``: when the last that fits, and another, has been run.
        alive: Models that exist.
        log: Names in the order in which they were made.
    """

    room: int
    when: str
    alive: int = 0

    def __post_init__(self) -> None:
        self.log: list[str] = []

    def source(self, name: str, weight: float) -> ModelSource:
        allocator = self

        class Held(Scripted):
            def __init__(self) -> None:
                super().__init__(weight)
                allocator.log.append(name)
                if allocator.when == "load" and allocator.alive >= allocator.room:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")
                allocator.alive += 1
                self.counted = True

            def forward(self, image: torch.Tensor) -> torch.Tensor:
                if allocator.when == "run" and allocator.alive > allocator.room and name in ("m3", "m4"):
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")
                return super().forward(image)

            def __del__(self) -> None:
                allocator.alive -= getattr(self, "counted", False)

        return ModelSource(name, lambda: LoadedModel(name, Held(), TRANSFORM))


@pytest.mark.parametrize(("when", "passes"), [("load", 3), ("run", 3)])
def test_a_group_that_does_not_fit_is_split(
    ds: Dataset, tmp_path: Path, decoded: list[int], caplog: pytest.LogCaptureFixture, when: str, passes: int
) -> None:
    """Where memory runs out beside others, a model waits until they are gone; each gets the bytes of a run alone."""
    allocator = Allocator(2 if when == "load" else 3, when)
    sources = [allocator.source(f"m{number}", number / 10) for number in range(5)]
    outcomes = evaluate_many(sources, ds, options=OPTIONS, output=tmp_path / "many", progress=False)
    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert len(decoded) == passes * 120
    assert "out of memory beside" in caplog.text
    if when == "load":
        assert allocator.log == ["m0", "m1", "m2", "m2", "m3", "m4", "m4"]
    else:
        assert allocator.log == ["m0", "m1", "m2", "m3", "m4", "m3", "m4"]
    decoded.clear()
    for number in range(5):
        expected = alone(f"m{number}", ds, tmp_path / f"alone{number}", weight=number / 10)
        assert files(tmp_path / "many" / f"m{number}") == expected
    assert allocator.alive == 0


def test_what_a_model_did_before_memory_ran_out_is_not_done_again(ds: Dataset, tmp_path: Path) -> None:
    """It goes on with the batches that are left, with an output folder and without."""
    calls: list[int] = []

    class Late(Scripted):
        """Runs out of memory once, at its fourth batch."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 4:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")
            return super().forward(image)

    for output in (None, tmp_path / "many"):
        calls.clear()
        sources = [
            ModelSource("late", lambda: LoadedModel("late", Late(0.1), TRANSFORM)),
            ModelSource("b", lambda: loaded("b")),
        ]
        outcomes = evaluate_many(sources, ds, options=OPTIONS, output=output, progress=False)
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert len(calls) == NUM_BATCHES + 1
        alone("late", ds, tmp_path / "late", weight=0.1)
        assert outcomes[0].predictions is not None
        assert outcomes[0].predictions.encode() == (tmp_path / "late" / "predictions.csv").read_bytes()
        shutil.rmtree(tmp_path / "late")


def test_a_model_that_is_loaded_again_is_prepared_for_its_device_again(ds: Dataset) -> None:
    """A model of a runtime, which runs on an accelerator only after its `place`, is placed at each load."""
    calls: list[int] = []

    class Late(Scripted):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 2:
                raise MemoryError
            return super().forward(image)

    class NotPlaced(Scripted):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raise AssertionError(f"not placed, and called with {len(image)} images")

    def load() -> LoadedModel:
        placed = LoadedModel("late", Late(0.1), TRANSFORM)
        return LoadedModel("late", NotPlaced(0.1), TRANSFORM, place=lambda _: placed)

    sources = [ModelSource("late", load), ModelSource("b", lambda: loaded("b"))]
    outcomes = evaluate_many(sources, ds, options=OPTIONS, progress=False)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert len(calls) == NUM_BATCHES + 1


def test_a_model_that_does_not_fit_alone_has_failed(ds: Dataset, tmp_path: Path) -> None:
    """It is tried once more without the others, then the message says what to try."""
    allocator = Allocator(0, "load")
    sources = [ModelSource("a", lambda: loaded("a")), allocator.source("big", 0.1)]
    outcomes = evaluate_many(sources, ds, options=OPTIONS, output=tmp_path, progress=False)
    assert outcomes[0].error is None
    assert str(outcomes[1].error) == "out of memory at batch 20: try -b 10."
    assert allocator.log == ["big", "big"]


# --- progress and timings ---------------------------------------------------------------------------------------------


def test_progress_counts_each_image_once_for_each_model(ds: Dataset, tmp_path: Path) -> None:
    """Over all passes the amounts add up to the last total; models that exist or fail are not counted."""
    evaluate_many([loaded("old")], ds, options=OPTIONS, output=tmp_path, progress=False)
    calls: list[tuple[int, int]] = []
    models: list[str | LoadedModel | ModelSource] = [
        loaded("a"), loaded("old"), ModelSource("bad", lambda: _raise(ModelError("no"))),
        loaded("b", transform=replace(TRANSFORM, img_size=48)),
    ]  # fmt: skip
    evaluate_many(
        models, ds, options=OPTIONS, output=tmp_path, skip_existing=True,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert sum(done for done, _ in calls) == 240
    assert {total for _, total in calls} == {240}


def test_each_result_tells_the_time_of_its_pass(ds: Dataset) -> None:
    """Total and waiting are the pass's, equal in all of its results; the model's seconds are its own."""
    outcomes = evaluate_many([loaded("a"), loaded("b")], ds, options=OPTIONS, progress=False)
    timings = [outcome.result.run["timings"] for outcome in outcomes if outcome.result is not None]
    assert [one["models_in_pass"] for one in timings] == [2, 2]
    assert sum(one["model_s"] for one in timings) <= timings[0]["total_s"]
    assert timings[0]["decoding_thread_s"] == timings[1]["decoding_thread_s"]


# --- several processes ------------------------------------------------------------------------------------------------

RANKS = """
    import json, os, sys
    from dataclasses import replace
    from pathlib import Path
    import torch
    import wds_real
    from wds_real import EvalOptions, LoadedModel, ModelError, ModelSource, evaluate_many
    from wds_real.synthetic import KnownAnswerModel, known_answer_model

    rank, folder = int(os.environ["RANK"]), Path(sys.argv[2])
    ds, transform = wds_real.open_dataset(sys.argv[1]), known_answer_model()[1]
    tries = {}

    class Scripted(KnownAnswerModel):
        def __init__(self, fail_on=(), error=None):
            super().__init__()
            self.fail_on, self.error, self.calls = fail_on, error, 0
        def forward(self, image):
            self.calls += 1
            if self.error is not None and rank in self.fail_on and self.calls == 2:
                raise self.error
            return super().forward(image)

    def source(name, load_fails_on=(), size=64, once=False, **script):
        def load():
            tries[name] = tries.get(name, 0) + 1
            if rank in load_fails_on:
                raise ModelError(f"{name}: not on this node.")
            if once and tries[name] > 1:
                return LoadedModel(name, Scripted(), replace(transform, img_size=size))
            return LoadedModel(name, Scripted(**script), replace(transform, img_size=size))
        return ModelSource(name, load)

    sources = [
        source("a"), source("load0", (0,)), source("load1", (1,)), source("run0", fail_on=(0,), error=ValueError("x")),
        source("run1", fail_on=(1,), error=ValueError("x")), source("other", size=48),
        source("memory1", once=True, fail_on=(1,), error=MemoryError()), source("b"),
    ]
    options = EvalOptions(batch_size=7, device="cpu", timeout_s=100)
    found = []
    for repeat in (False, True):
        outcomes = evaluate_many(sources, ds, options=options, output=folder / "many", skip_existing=repeat)
        found.append([
            [one.name, str(one.error or ""), one.existed, one.result and one.result.real_top1.correct]
            for one in outcomes
        ])
    (folder / f"{rank}.json").write_text(json.dumps(found))
"""


def test_ranks_agree_on_groups_failures_and_results(ds: Dataset, packed: Path, tmp_path: Path) -> None:
    """A model that fails on one of two ranks fails on both, without a rank that waits; the others have their bytes."""
    (tmp_path / "ranks.py").write_text(textwrap.dedent(RANKS))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "ranks.py"), str(packed), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    correct = known_answer(labels_of(range(1, 121)))["real_top1"]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    elsewhere = "on another rank, which says why."
    for once in (0, 1):
        names = [name for name, *_ in first[once]]
        assert names == [name for name, *_ in second[once]]
        zero, one = ({name: rest for name, *rest in found[once]} for found in (first, second))
        for name in ("a", "b", "memory1"):
            assert zero[name] == one[name] == ["", bool(once), correct]
        assert zero["other"][2] == one["other"][2] is not None
        assert (zero["load0"][0], one["load0"][0]) == (
            "load0: not on this node.",
            f"load0: cannot be loaded {elsewhere}",
        )
        assert (zero["load1"][0], one["load1"][0]) == (
            f"load1: cannot be loaded {elsewhere}",
            "load1: not on this node.",
        )
        assert "raised ValueError: x" in zero["run0"][0]
        assert one["run0"][0] == f"run0: failed {elsewhere}"
        assert zero["run1"][0] == f"run1: failed {elsewhere}"
    options = EvalOptions(batch_size=7, device="cpu")
    for name in ("a", "b", "memory1"):
        expected = tmp_path / f"alone-{name}"
        evaluate(LoadedModel(name, KnownAnswerModel(), TRANSFORM), ds, options=options, output=expected)
        found = (tmp_path / "many" / name / "predictions.csv").read_bytes()
        assert found == (expected / "predictions.csv").read_bytes()
    for name in ("load0", "load1", "run0", "run1"):
        assert json.loads((tmp_path / "many" / name / "failed.json").read_bytes())["model"] == name
