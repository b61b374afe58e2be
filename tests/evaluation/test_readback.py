"""Results are read back one batch late: a device that has work never waits, and no finished batch is lost."""

from __future__ import annotations

import dataclasses
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.damage import damaged_copy
from support.fake_device import NONSENSE, DeviceClock

import wds_real
from wds_real import (
    Dataset,
    EvalOptions,
    LoadedModel,
    Loader,
    ModelError,
    ModelRunError,
    RealAccuracy,
    ShardError,
    WdsRealError,
    evaluate,
    evaluate_many,
)
from wds_real.evaluation.readback import HostCopies, LateReadback
from wds_real.scoring.score import score
from wds_real.synthetic import KnownAnswerModel, known_answer, known_answer_model, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wds_real.evaluation.metric import Ranking

TRANSFORM = known_answer_model()[1]
OPTIONS = EvalOptions(batch_size=20, threads=2, device="cpu")
NUM_BATCHES = 6
FORWARD_S, QUEUE_S, RECORD_S = 10.0, 4.0, 5.0  # on the device; on the host to load and queue a batch, and to record it


class DeviceModel(KnownAnswerModel):
    """The known-answer model on a fake device, which takes `forward_s` for a batch.

    At the call `fail_at` it raises `error`, and at `nan_at` its scores are NaN.
    """

    def __init__(self, clock: DeviceClock, *, forward_s: float = FORWARD_S, **script: Any) -> None:
        super().__init__()
        self.clock, self.forward_s = clock, forward_s
        self.fail_at, self.nan_at = script.pop("fail_at", -1), script.pop("nan_at", -1)
        self.error: BaseException = script.pop("error", RuntimeError("stopped on purpose"))
        self.before: Callable[[int], object] = script.pop("before", lambda call: call)
        assert not script
        self.calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.clock.host_works(QUEUE_S)
        self.before(self.calls)
        self.calls += 1
        if self.calls - 1 == self.fail_at:
            raise self.error
        scores = super().forward(image)
        if self.calls - 1 == self.nan_at:
            scores[0] = torch.nan
        return self.clock.put(scores, seconds=self.forward_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> DeviceClock:
    """A fake device that torch offers."""
    clock = DeviceClock()
    clock.install(monkeypatch)
    return clock


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    """The first 120 validation images, made up."""
    return wds_real.open_dataset(packed)


@pytest.fixture(scope="module")
def undisturbed(ds: Dataset, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The predictions of an evaluation on the CPU."""
    folder = tmp_path_factory.mktemp("undisturbed")
    evaluate(LoadedModel("m", KnownAnswerModel(), TRANSFORM), ds, options=OPTIONS, output=folder, progress=False)
    return (folder / "predictions.csv").read_bytes()


def run_on(
    clock: DeviceClock, ds: Dataset, output: Path | None = None, *, record_s: float = RECORD_S, **script: Any
) -> wds_real.Result:
    """Evaluate on the fake device; the host takes `record_s` to record a batch."""
    model = LoadedModel("m", DeviceModel(clock, **script), TRANSFORM)
    return evaluate(model, ds, options=OPTIONS, output=output, progress=lambda _, __: clock.host_works(record_s))


def recorded(folder: Path) -> int:
    """Return the number of batches that are on disk, each of the same size."""
    size = sum(path.stat().st_size for path in folder.glob("records/*.bin"))
    frame = 28 + 20 * (4 + 5 * 2 + 5 * 4) + 8
    assert size % frame == 0
    return size // frame


# --- the device's clock -----------------------------------------------------------------------------------------------


def test_the_device_never_waits_for_the_host(clock: DeviceClock, ds: Dataset, tmp_path: Path) -> None:
    """Where the host takes less time for a batch than the device, the device works from the first batch to the last."""
    result = run_on(clock, ds, tmp_path)
    assert clock.idle_s == 0
    assert clock.free_s == QUEUE_S + NUM_BATCHES * FORWARD_S
    assert clock.host_s == clock.free_s + RECORD_S  # only the last batch is recorded after the device has ended
    assert result.real_top1.correct == known_answer(labels_of(range(1, 121)))["real_top1"]


def test_reading_back_at_once_lets_the_device_wait(clock: DeviceClock, ds: Dataset) -> None:
    """The same work in a loop of one's own, which counts each batch before the next: the device waits between all."""
    model, metric = DeviceModel(clock), RealAccuracy(ds)
    for batch in Loader(ds, batch_size=20, transform=TRANSFORM, threads=1):
        metric.update(model(batch.image / 127.5 - 1), batch)
        clock.host_works(RECORD_S)
    assert clock.idle_s == (NUM_BATCHES - 1) * (QUEUE_S + RECORD_S)
    assert metric.compute().real_top1.correct == known_answer(labels_of(range(1, 121)))["real_top1"]


def test_a_model_that_reads_back_its_own_scores_is_seen(clock: DeviceClock, ds: Dataset) -> None:
    """The clock counts a wait wherever it is: a model that returns scores on the host has no work queued behind it."""

    class Hasty(DeviceModel):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image).cpu()

    evaluate(
        LoadedModel("m", Hasty(clock), TRANSFORM),
        ds,
        options=OPTIONS,
        progress=lambda _, __: clock.host_works(RECORD_S),
    )
    assert clock.idle_s == (NUM_BATCHES - 1) * (QUEUE_S + RECORD_S)


def test_a_host_that_is_too_slow_is_the_only_cause_of_a_gap(clock: DeviceClock, ds: Dataset) -> None:
    """The gaps are what the host takes longer than the device, and nothing more."""
    record_s = 2 * FORWARD_S
    run_on(clock, ds, record_s=record_s)
    # Two batches are queued before the first is recorded; then each waits for the record of the one before the last.
    assert clock.idle_s == (NUM_BATCHES - 2) * (QUEUE_S + record_s - FORWARD_S)


def test_models_that_share_a_batch_keep_the_device_busy(
    clock: DeviceClock, ds: Dataset, tmp_path: Path, undisturbed: bytes
) -> None:
    """Each model's predictions are read back behind the next batch of it, and have the bytes of a run alone."""
    models = [LoadedModel(name, DeviceModel(clock), TRANSFORM) for name in "abc"]
    calls: list[int] = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        clock.host_works(RECORD_S)
        assert total == 3 * 120

    evaluate_many(models, ds, options=OPTIONS, output=tmp_path, progress=progress)
    assert clock.idle_s == 0
    assert calls == [20] * (3 * NUM_BATCHES)
    assert {(tmp_path / name / "predictions.csv").read_bytes() for name in "abc"} == {undisturbed}


def test_a_device_that_is_done_is_not_kept_waiting_for(clock: DeviceClock, ds: Dataset, tmp_path: Path) -> None:
    """Predictions that have arrived when they are asked for are recorded at once, as those of a CPU always are."""
    seen: list[int] = []
    run_on(clock, ds, tmp_path / "fake", forward_s=0.0, before=lambda _: seen.append(recorded(tmp_path / "fake")))
    assert seen == [0, 1, 2, 3, 4, 5]


# --- what is recorded, and when ---------------------------------------------------------------------------------------


def test_predictions_and_records_are_those_of_the_cpu(
    clock: DeviceClock, ds: Dataset, tmp_path: Path, undisturbed: bytes
) -> None:
    """No value is taken before it has arrived; at most one batch before that in progress is missing."""
    seen: list[int] = []
    run_on(clock, ds, tmp_path / "fake", before=lambda _: seen.append(recorded(tmp_path / "fake")))
    assert seen == [0, 0, 1, 2, 3, 4]
    assert (tmp_path / "fake" / "predictions.csv").read_bytes() == undisturbed
    evaluate(LoadedModel("m", KnownAnswerModel(), TRANSFORM), ds, options=OPTIONS, output=tmp_path / "cpu")
    fake, cpu = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "records").iterdir()} for name in ("fake", "cpu")
    )
    assert fake == cpu


@pytest.mark.parametrize("fail_at", [0, 1, 3, NUM_BATCHES - 1])
@pytest.mark.parametrize(
    "error", [RuntimeError("x"), torch.OutOfMemoryError("CUDA out of memory."), KeyboardInterrupt()]
)
def test_a_failure_loses_no_finished_batch(
    fail_at: int, error: BaseException, clock: DeviceClock, ds: Dataset, tmp_path: Path, undisturbed: bytes
) -> None:
    """When a batch fails, or the user interrupts, that in flight is recorded, and a second run does only the rest."""
    done: list[int] = []
    model = LoadedModel("m", DeviceModel(clock, fail_at=fail_at, error=error), TRANSFORM)
    expected = ModelRunError if isinstance(error, RuntimeError) else type(error)
    with pytest.raises(expected):
        evaluate(model, ds, options=OPTIONS, output=tmp_path, progress=lambda number, _: done.append(number))
    assert recorded(tmp_path) == fail_at
    assert sum(done) == 20 * fail_at
    again = DeviceModel(clock)
    evaluate(LoadedModel("m", again, TRANSFORM), ds, options=OPTIONS, output=tmp_path)
    assert again.calls == NUM_BATCHES - fail_at
    assert (tmp_path / "predictions.csv").read_bytes() == undisturbed


@pytest.mark.parametrize("nan_at", [0, 2, NUM_BATCHES - 1])
@pytest.mark.parametrize("error", [None, RuntimeError("a later failure"), KeyboardInterrupt()])
def test_what_failed_first_is_reported(
    nan_at: int, error: BaseException | None, clock: DeviceClock, ds: Dataset, tmp_path: Path
) -> None:
    """NaN is found a batch late, and is the error even if the next batch fails too; the batches before are recorded."""
    script: dict[str, Any] = {} if error is None else {"fail_at": nan_at + 1, "error": error}
    with pytest.raises(ModelError, match="NaN"):
        run_on(clock, ds, tmp_path, nan_at=nan_at, **script)
    assert recorded(tmp_path) == nan_at


def test_damaged_data_loses_no_finished_batch(clock: DeviceClock, packed: Path, tmp_path: Path) -> None:
    """An image of the third batch is damaged: the second, in flight when it is found, is recorded."""
    damaged = damaged_copy(packed, tmp_path / "damaged", position=45)
    with pytest.raises(ShardError):
        run_on(clock, damaged, tmp_path / "run")
    assert recorded(tmp_path / "run") == 2


def test_an_error_of_the_device_is_one_line(clock: DeviceClock, ds: Dataset, tmp_path: Path) -> None:
    """What a device reports only when it is waited for is a failure of the model, and the batches before it stay."""
    clock.fail_at = QUEUE_S + 3 * FORWARD_S
    with pytest.raises(ModelRunError, match=r"^the model raised RuntimeError: CUDA error: device-side assert .*$"):
        run_on(clock, ds, tmp_path)
    assert recorded(tmp_path) == 2


def test_a_model_that_fails_beside_others_keeps_its_batches(
    clock: DeviceClock, ds: Dataset, tmp_path: Path, undisturbed: bytes
) -> None:
    """One raises, one returns NaN in its last batch: both keep what they did, and the third goes on to the end."""
    scripts: dict[str, dict[str, Any]] = {"raises": {"fail_at": 3}, "nan": {"nan_at": NUM_BATCHES - 1}, "well": {}}
    models = [LoadedModel(name, DeviceModel(clock, **script), TRANSFORM) for name, script in scripts.items()]
    done: list[int] = []
    outcomes = evaluate_many(
        models, ds, options=OPTIONS, output=tmp_path, progress=lambda number, _: done.append(number)
    )
    assert [type(outcome.error) for outcome in outcomes] == [ModelRunError, ModelError, type(None)]
    assert [recorded(tmp_path / name) for name in scripts] == [3, NUM_BATCHES - 1, NUM_BATCHES]
    assert sum(done) == 20 * (3 + NUM_BATCHES - 1 + NUM_BATCHES)
    assert (tmp_path / "well" / "predictions.csv").read_bytes() == undisturbed


def test_all_models_of_a_pass_are_finished_when_it_ends_early(clock: DeviceClock, packed: Path, tmp_path: Path) -> None:
    """Damaged data ends a pass of several models: the batch that each has in flight is recorded."""
    damaged = damaged_copy(packed, tmp_path / "damaged", position=45)
    models = [LoadedModel(name, DeviceModel(clock), TRANSFORM) for name in "ab"]
    with pytest.raises(ShardError):
        evaluate_many(models, damaged, options=OPTIONS, output=tmp_path / "runs", progress=False)
    assert [recorded(tmp_path / "runs" / name) for name in "ab"] == [2, 2]


# --- the parts --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Numbered:
    """Results of a batch, as many as its number, which arrive when they are told to."""

    number: int
    arrived: bool = False


def test_each_batch_is_finished_behind_the_next() -> None:
    """Each is finished once and in order: when the next is added, or at once if it has arrived, or by `catch_up`."""
    finished: list[int] = []

    def finish(results: Numbered) -> int:
        finished.append(results.number)
        return results.number

    readback = LateReadback(finish)
    assert [readback.add(Numbered(number)) for number in (1, 2)] == [0, 1]
    assert readback.add(Numbered(3, arrived=True)) == 2 + 3
    assert readback.catch_up() == 0
    assert readback.add(Numbered(4)) == 0
    assert readback.catch_up() == 4
    assert finished == [1, 2, 3, 4]


def test_a_batch_that_cannot_be_finished_is_not_tried_again() -> None:
    """An error leaves nothing in flight: a record that could not be written is not written half a second time."""

    def finish(results: Numbered) -> int:
        raise WdsRealError(str(results.number))

    readback = LateReadback(finish)
    readback.add(Numbered(1))
    with pytest.raises(WdsRealError, match="1"):
        readback.add(Numbered(2))
    assert readback.catch_up() == 0


def test_copies_have_memory_of_their_own() -> None:
    """A model may return the same tensor in each pass, and overwrite it."""
    output = torch.arange(6).reshape(2, 3)
    copies = HostCopies(output, output.T)
    expected = output.clone()
    output.zero_()
    assert copies.arrived
    first, second = copies.wait()
    assert torch.equal(first, expected)
    assert torch.equal(second, expected.T)
    assert HostCopies(torch.ones(2, requires_grad=True)).wait()[0].numpy().tolist() == [1.0, 1.0]


def test_copies_arrive_when_the_device_has_come_that_far(clock: DeviceClock) -> None:
    """Before, the memory holds nothing of use, and `wait` waits for this tensor, not for what was queued later."""
    copies = HostCopies(clock.put(torch.arange(3), seconds=FORWARD_S))
    clock.put(torch.zeros(3), seconds=FORWARD_S)
    assert not copies.arrived
    assert copies._copies[0].tolist() == [NONSENSE] * 3
    assert copies.wait()[0].tolist() == [0, 1, 2]
    assert (clock.host_s, clock.free_s) == (FORWARD_S, 2 * FORWARD_S)


def test_a_batch_in_flight_keeps_its_memory(clock: DeviceClock, ds: Dataset) -> None:
    """The loader reuses the memory of a batch once the batch is finished, and not while a device may read it."""
    metric, places, images = RealAccuracy(ds), list[int](), list[weakref.ref[torch.Tensor]]()

    def finish(ranking: Ranking) -> int:
        return len(ranking.finish().positions)

    readback = LateReadback(finish)
    for batch in Loader(ds, batch_size=10, transform=TRANSFORM, threads=1):
        assert [image() is not None for image in images] == [number == len(images) - 1 for number in range(len(images))]
        assert batch.image.data_ptr() not in places[-1:]
        images.append(weakref.ref(batch.image))
        places.append(batch.image.data_ptr())
        readback.add(metric.start_ranking(clock.put(torch.zeros(10, 1000), seconds=FORWARD_S), batch))
        del batch
    assert len(set(places)) < len(places)  # the memory of earlier batches was reused


def test_rows_that_are_not_valid_may_hold_anything(clock: DeviceClock, ds: Dataset) -> None:
    """Padding is ranked with the rest, and neither NaN nor a class that is none matters there."""
    *_, last = Loader(ds, batch_size=50, transform=TRANSFORM, threads=1)
    for filler in (torch.full((50, 1000), torch.nan), torch.full((50,), 4711), torch.full((50, 5), -3)):
        predictions = filler.clone()
        predictions[:20] = 1
        for scores in (predictions, clock.put(predictions)):
            ranked = RealAccuracy(ds).rank_classes(scores, last)
            assert ranked.positions.tolist() == list(range(100, 120))
            assert ranked.classes[0, 0] == (0 if filler.is_floating_point() else 1)


def test_the_file_of_predictions_scores_as_the_result(clock: DeviceClock, ds: Dataset, tmp_path: Path) -> None:
    """What was read back late and written is what was counted."""
    result = run_on(clock, ds, tmp_path)
    scored = score(tmp_path / "predictions.csv", allow_partial=True)
    assert (scored.real_top1, scored.original_top5) == (result.real_top1, result.original_top5)
