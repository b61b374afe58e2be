"""What a run leaves: the same files however often it was interrupted, and the same again from its records alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch

from wds_real.data.dataset import Dataset, open_dataset
from wds_real.errors import CoverageError, ModelRunError, PredictionsError, ShardError, StoreError
from wds_real.evaluation.loop import evaluate
from wds_real.evaluation.models.base import LoadedModel
from wds_real.evaluation.options import EvalOptions
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.run.description import RUN_NAME, RunKey, read_run
from wds_real.scoring.run.output import merge, write_output
from wds_real.scoring.run.records import RunRecords
from wds_real.storage.local import LocalStore
from wds_real.synthetic import KnownAnswerModel, known_answer, known_answer_model, labels_of

if TYPE_CHECKING:
    from pathlib import Path

    from wds_real.image.transform import EvalTransform
    from wds_real.scoring.predictions import Predictions
    from wds_real.scoring.result import Result
    from wds_real.storage.base import Store

TRANSFORM = known_answer_model()[1]
BATCH_SIZE, NUM_BATCHES = 10, 12
DAMAGED = (4, 73)  # rows: in the first batch and in the eighth


class Scripted(KnownAnswerModel):
    """The known-answer model, with weights that are not used; fails at the batch it is told to and keeps count."""

    def __init__(self, *, fail_at: int = -1, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor(bias))
        self.fail_at = fail_at
        self.batches: list[float] = []  # the sum of each batch's pixels, which identifies it

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if len(self.batches) == self.fail_at:
            raise RuntimeError("stopped on purpose")
        self.batches.append(float(image.double().sum()))
        return super().forward(image)


def run(
    ds: Dataset,
    output: Path,
    *,
    model: Scripted | None = None,
    transform: EvalTransform = TRANSFORM,
    on_error: Literal["raise", "record"] = "raise",
    **options: Any,
) -> Result:
    chosen = EvalOptions(**{"batch_size": BATCH_SIZE, "threads": 2, "device": "cpu", **options}, on_error=on_error)
    return evaluate(LoadedModel("scripted", model or Scripted(), transform), ds, options=chosen, output=output)


def interrupt(ds: Dataset, output: Path, *, after: int, on_error: Literal["raise", "record"] = "raise") -> Scripted:
    """Run until the model has answered `after` batches, then fail."""
    model = Scripted(fail_at=after)
    with pytest.raises(ModelRunError, match="stopped on purpose"):
        run(ds, output, model=model, on_error=on_error)
    return model


def comparable(result: Result) -> dict[str, Any]:
    """Return the result as JSON gives it back, without what may differ between two runs."""
    found: dict[str, Any] = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    del found["run"]
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(one: Predictions, other: Predictions) -> bool:
    return (
        one.keys == other.keys
        and one.classes.tolist() == other.classes.tolist()
        and one.probabilities.tobytes() == other.probabilities.tobytes()
    )


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    return open_dataset(packed)


@pytest.fixture(scope="module")
def finished(ds: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, Scripted]:
    """The folder, result and model of a run that nothing happened to. Read only."""
    folder, model = tmp_path_factory.mktemp("finished"), Scripted()
    return folder, run(ds, folder, model=model), model


@pytest.fixture(scope="module")
def unfinished(ds: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that failed after five batches. Read only."""
    folder = tmp_path_factory.mktemp("unfinished")
    interrupt(ds, folder, after=5)
    return folder


@pytest.fixture
def damaged(packed: Path, tmp_path: Path) -> Dataset:
    """The same data set with two samples that cannot be read."""
    shutil.copytree(packed, tmp_path / "shards")
    ds = open_dataset(tmp_path / "shards")
    for row in DAMAGED:
        path = tmp_path / "shards" / ds.manifest.shards[ds.index.shard[row]].name
        with path.open("r+b") as file:
            file.seek(int(ds.index.offset[row]) + 200)
            file.write(b"\0\xff\0\xff")
    return ds


# --- a whole run ------------------------------------------------------------------------------------------------------


def test_a_run_leaves_result_predictions_and_records(finished: tuple[Path, Result, Scripted]) -> None:
    """The folder holds what was returned, as JSON and as a prediction file, and nothing unfinished."""
    folder, result, _ = finished
    assert sorted(files(folder)) == ["predictions.csv", "records/00000-000.bin", "result.json", RUN_NAME]
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result.as_dict()))
    assert result.original_top1.correct == known_answer(labels_of(range(1, 121)))["original_top1"]
    predictions = read_predictions(folder / "predictions.csv")
    assert list(predictions.keys) == sorted(label.key for label in labels_of(range(1, 121)))
    assert ((predictions.probabilities > 0) & (predictions.probabilities < 1)).all()


# --- interrupted and resumed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 5, NUM_BATCHES - 1])
def test_a_resumed_run_ends_with_the_same_files(
    ds: Dataset, finished: tuple[Path, Result, Scripted], tmp_path: Path, after: int
) -> None:
    """Wherever the model failed, the second start does the missing batches only and ends as an undisturbed run."""
    folder, undisturbed, whole = finished
    first = interrupt(ds, tmp_path, after=after)
    assert not (tmp_path / "result.json").exists()
    assert not (tmp_path / "predictions.csv").exists()
    second = Scripted()
    result = run(ds, tmp_path, model=second)
    assert first.batches + second.batches == whole.batches
    assert len(whole.batches) == NUM_BATCHES
    assert comparable(result) == comparable(undisturbed)
    assert result.run["batches_done_before"] == after
    assert (tmp_path / "predictions.csv").read_bytes() == (folder / "predictions.csv").read_bytes()


def test_a_run_may_be_interrupted_many_times(
    ds: Dataset, finished: tuple[Path, Result, Scripted], tmp_path: Path
) -> None:
    """Each start adds what it got done; none repeats a batch."""
    _, undisturbed, whole = finished
    done = [interrupt(ds, tmp_path, after=after) for after in (3, 0, 1, 4)]
    last = Scripted()
    assert comparable(run(ds, tmp_path, model=last)) == comparable(undisturbed)
    assert [total for model in [*done, last] for total in model.batches] == whole.batches


def test_a_finished_run_is_not_done_again(ds: Dataset, finished: tuple[Path, Result, Scripted], tmp_path: Path) -> None:
    """A third start calls no model and gives the same; a lost prediction file is written again."""
    folder, undisturbed, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "predictions.csv").unlink()
    model = Scripted(fail_at=0)
    result = run(ds, tmp_path / "run", model=model)
    assert comparable(result) == comparable(undisturbed)
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == (folder / "predictions.csv").read_bytes()


def test_damaged_records_are_done_again(ds: Dataset, finished: tuple[Path, Result, Scripted], tmp_path: Path) -> None:
    """A record with a wrong byte is not used: its batch, and those behind it in the file, are evaluated again."""
    folder, undisturbed, whole = finished
    shutil.copytree(folder, tmp_path / "run")
    path = tmp_path / "run" / "records" / "00000-000.bin"
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4 + 30] ^= 4  # in the tenth of twelve records
    path.write_bytes(data)
    model = Scripted()
    assert comparable(run(ds, tmp_path / "run", model=model)) == comparable(undisturbed)
    assert model.batches == whole.batches[9:]
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == (folder / "predictions.csv").read_bytes()


def test_recorded_failures_are_kept(damaged: Dataset, tmp_path: Path) -> None:
    """With on_error="record" a resumed run counts the unreadable samples from before and after the interruption."""
    undisturbed = run(damaged, tmp_path / "undisturbed", on_error="record")
    interrupt(damaged, tmp_path / "run", after=5, on_error="record")
    result = run(damaged, tmp_path / "run", on_error="record")
    assert result.coverage.failed == tuple(damaged.index.keys[row] for row in DAMAGED)
    assert (result.original_top1.failed, result.coverage.seen_once) == (2, 118)
    assert comparable(result) == comparable(undisturbed)
    written = read_predictions(tmp_path / "run" / "predictions.csv")
    assert set(damaged.index.keys) - set(written.keys) == set(result.coverage.failed)
    merged, predictions = merge(tmp_path / "run", damaged)
    assert comparable(merged) == comparable(result)
    assert predictions.encode() == (tmp_path / "run" / "predictions.csv").read_bytes()


def test_a_run_of_a_repaired_data_set_is_resumed(
    ds: Dataset, damaged: Dataset, finished: tuple[Path, Result, Scripted], tmp_path: Path
) -> None:
    """A damaged sample ends the run by default; after the repair, the batches before it are not evaluated again."""
    part, row = slice(BATCH_SIZE, None), DAMAGED[1]
    with pytest.raises(ShardError, match=ds.keys[row]):
        run(damaged[part], tmp_path / "run")
    for name in (shard.name for shard in ds.manifest.shards):
        shutil.copy(f"{ds.root}/{name}", f"{damaged.root}/{name}")
    model = Scripted()
    result = run(damaged[part], tmp_path / "run", model=model)
    assert model.batches == finished[2].batches[row // BATCH_SIZE :]
    assert result.coverage.failed == ()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model": Scripted(bias=1.0)}, "model"),
        ({"transform": replace(TRANSFORM, crop_pct=0.9)}, "preprocessing"),
        ({"transform": replace(TRANSFORM, std=(0.5, 0.5, 0.25))}, "preprocessing"),
        ({"batch_size": 20}, "batch_size"),
        ({"amp": True, "amp_dtype": "bfloat16"}, "dtype"),
    ],
)
def test_what_changes_a_prediction_is_refused_by_name(
    ds: Dataset, unfinished: Path, changes: dict[str, Any], name: str
) -> None:
    """Other weights, preprocessing, batch size or numbers are another run: said before any work, nothing is touched."""
    before = files(unfinished)
    with pytest.raises(
        PredictionsError, match=rf"holds the records of another run: {name}[a-z_.]* was .* is "
    ) as caught:
        run(ds, unfinished, **changes)
    assert str(caught.value).count(" was ") == 1
    assert files(unfinished) == before


@pytest.mark.parametrize("part", [slice(60), slice(0, 120)])
def test_another_part_of_the_data_is_another_run(ds: Dataset, unfinished: Path, part: slice) -> None:
    """A split's records do not count for another split."""
    with pytest.raises(PredictionsError, match="another run: split was"):
        run(ds[part], unfinished)


@pytest.mark.parametrize("options", [{"threads": 1}, {"timeout_s": 5.0}, {"on_error": "record"}])
def test_what_changes_no_prediction_may_change(
    ds: Dataset, finished: tuple[Path, Result, Scripted], unfinished: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Threads, waiting times and the treatment of errors may change when a run is resumed."""
    shutil.copytree(unfinished, tmp_path / "run")
    assert comparable(run(ds, tmp_path / "run", **options)) == comparable(finished[1])


# --- merged -----------------------------------------------------------------------------------------------------------


def test_merging_gives_what_the_run_wrote(ds: Dataset, finished: tuple[Path, Result, Scripted]) -> None:
    """From the records alone: the same result, every bit of the predictions, and the folder as it was."""
    folder, result, _ = finished
    before = files(folder)
    merged, predictions = merge(folder, ds)
    assert comparable(merged) == comparable(result)
    assert predictions.encode() == before["predictions.csv"]
    assert same(predictions, read_predictions(folder / "predictions.csv"))
    assert files(folder) == before
    assert merged.model == result.model != {}


@pytest.mark.parametrize("part", [slice(35), slice(None, None, 7), slice(100, 20, -3)])
def test_merging_a_part_gives_what_its_run_wrote(ds: Dataset, tmp_path: Path, part: slice) -> None:
    """A split is merged against its own samples, in key order whatever the order of the run."""
    result = run(ds[part], tmp_path)
    merged, predictions = merge(tmp_path, ds[part])
    assert comparable(merged) == comparable(result)
    assert list(predictions.keys) == sorted(ds[part].keys)
    assert predictions.encode() == (tmp_path / "predictions.csv").read_bytes()


def test_merging_takes_records_of_all_starts(ds: Dataset, unfinished: Path, tmp_path: Path) -> None:
    """Records lie in a file a start; of a batch that two of them did, one counts."""
    shutil.copytree(unfinished, tmp_path / "run")
    expected = run(ds, tmp_path / "run")
    records = tmp_path / "run" / "records"
    assert len(list(records.iterdir())) == 2
    shutil.copy(records / "00000-000.bin", records / "00007-000.bin")
    assert comparable(merge(tmp_path / "run", ds)[0]) == comparable(expected)


def test_merging_an_unfinished_run_names_the_missing_samples(ds: Dataset, unfinished: Path) -> None:
    """Nothing is computed: the error has exactly the keys of the batches that are not recorded."""
    with pytest.raises(CoverageError, match=r"saw 50 of 120 samples \(70 missing, 0 doubled\)") as caught:
        merge(unfinished, ds)
    assert caught.value.missing == ds.keys[5 * BATCH_SIZE :]
    assert caught.value.doubled == ()


def test_merging_a_run_without_a_record(ds: Dataset, tmp_path: Path) -> None:
    """Everything is missing, or the folder is none of a run."""
    with pytest.raises(PredictionsError, match=r"run\.json: no such file"):
        merge(tmp_path, ds)
    interrupt(ds, tmp_path, after=0)
    with pytest.raises(CoverageError) as caught:
        merge(tmp_path, ds)
    assert caught.value.missing == ds.keys


def test_merging_against_another_data_set_is_refused(
    ds: Dataset, made_tar: Path, finished: tuple[Path, Result, Scripted], tmp_path: Path
) -> None:
    """Another split, and another packing of the same images, are told by what the records are of."""
    with open_source(made_tar, allow_partial=True) as source:
        write_shards(source, LocalStore(tmp_path), samples_per_shard=60)
    other = open_dataset(tmp_path)
    for wrong, shown in ((ds[:60], r"split 'validation\[:60\]'"), (other, other.digest[:16])):
        with pytest.raises(PredictionsError, match=rf"the run is of data set {ds.digest[:16]}.*{shown}"):
            merge(finished[0], wrong)


def test_no_change_of_run_json_gives_another_result(
    ds: Dataset, finished: tuple[Path, Result, Scripted], tmp_path: Path
) -> None:
    """With a bit flipped anywhere in run.json, merging gives the same result or a PredictionsError or CoverageError."""
    shutil.copytree(finished[0], tmp_path / "run")
    path = tmp_path / "run" / RUN_NAME
    data = path.read_bytes()
    expected = comparable(finished[1])
    bits = np.random.default_rng(0).integers(8, size=len(data)).tolist()
    unharmed = 0
    for place, bit in enumerate(bits):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        try:
            found = merge(tmp_path / "run", ds)[0]
        except (PredictionsError, CoverageError):
            continue
        unharmed += 1
        assert comparable(found) == expected, place
    assert 0 < unharmed < len(data) / 2


# --- written ----------------------------------------------------------------------------------------------------------


class Refusing(LocalStore):
    """A folder that takes all files but one."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root)
        self.name = name

    def put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        if name == self.name:
            raise StoreError(f"{name}: disk full, say.")
        super().put(name, data, exclusive=exclusive)


@pytest.mark.parametrize(
    ("refused", "written"),
    [("predictions.csv", []), ("result.json", ["predictions.csv"]), ("", ["predictions.csv", "result.json"])],
)
def test_the_result_is_written_last(
    ds: Dataset, finished: tuple[Path, Result, Scripted], tmp_path: Path, refused: str, written: list[str]
) -> None:
    """Where there is a result.json there is a whole prediction file."""
    store: Store = Refusing(tmp_path, refused)
    result, predictions = merge(finished[0], ds)
    if refused:
        with pytest.raises(StoreError, match="disk full, say"):
            write_output(store, result, predictions)
    else:
        write_output(store, result, predictions)
    assert sorted(files(tmp_path)) == written


@pytest.mark.parametrize("form", ["csv", "npz", "parquet"])
def test_every_form_holds_the_same_predictions(
    ds: Dataset, finished: tuple[Path, Result, Scripted], tmp_path: Path, form: Any
) -> None:
    """The prediction file is named after its form, and reads back bit for bit."""
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    result, predictions = merge(finished[0], ds)
    write_output(LocalStore(tmp_path), result, predictions, form=form)
    assert sorted(files(tmp_path)) == sorted([f"predictions.{form}", "result.json"])
    assert same(read_predictions(tmp_path / f"predictions.{form}"), predictions)


def test_probabilities_are_the_models(ds: Dataset, finished: tuple[Path, Result, Scripted]) -> None:
    """They are the softmax of its scores, of the classes beside them."""
    model, transform = known_answer_model()
    batch = np.stack([np.asarray(transform(ds[row]["image"])) for row in range(BATCH_SIZE)])
    pixels = (torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    expected, ranked = torch.softmax(model(pixels), dim=1).sort(dim=1, descending=True, stable=True)
    predictions = read_predictions(finished[0] / "predictions.csv")
    assert predictions.classes[:BATCH_SIZE].tolist() == ranked[:, :5].tolist()
    assert predictions.probabilities[:BATCH_SIZE] == pytest.approx(expected[:, :5].numpy(), abs=1e-7)


def test_merging_needs_no_torch(packed: Path, finished: tuple[Path, Result, Scripted]) -> None:
    """A machine that only gathers results starts without it."""
    program = (
        "import sys; from wds_real.scoring.run.output import merge; from wds_real.data.dataset import open_dataset; "
        "result, _ = merge(sys.argv[1], open_dataset(sys.argv[2])); "
        "print(result.coverage.seen_once, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, finished[0], packed], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("120 False\n", "")


# --- How the model was run --------------------------------------------------------------------------------------------


def test_amp_is_in_the_title_also_after_merge(ds: Dataset, tmp_path: Path) -> None:
    """Precision, device and batch size are said by the run and by what is merged from its records."""
    result = run(ds, tmp_path / "run", amp=True, amp_dtype="bfloat16", channels_last=True)
    merged, _ = merge(tmp_path / "run", ds)
    assert " bfloat16 on cpu, batch size 10, channels_last" in str(result).splitlines()
    assert merged.execution == result.execution
    assert str(merged).splitlines()[:2] == str(result).splitlines()[:2]


def test_a_run_that_went_on_another_way_says_both(ds: Dataset, tmp_path: Path) -> None:
    """Parts that were run with and without channels_last are not passed off as one."""
    interrupt(ds, tmp_path, after=5)
    result = run(ds, tmp_path, channels_last=True)
    assert result.execution["channels_last"] == [False, True]
    assert "channels_last for a part" in str(result)
    assert merge(tmp_path, ds)[0].execution == result.execution


def test_a_finished_run_started_another_way_stays_as_it_was(ds: Dataset, tmp_path: Path) -> None:
    """A start that has nothing to do computed nothing: the result does not claim its settings."""
    run(ds, tmp_path)
    before = (tmp_path / RUN_NAME).read_bytes()
    assert run(ds, tmp_path, channels_last=True).execution["channels_last"] is False
    assert (tmp_path / RUN_NAME).read_bytes() == before


def test_records_of_earlier_versions_are_resumed_without_a_claim_for_them(ds: Dataset, tmp_path: Path) -> None:
    """Where the first part does not say how it was run, the result says nothing of device and compilation."""
    interrupt(ds, tmp_path, after=5)
    text = json.loads((tmp_path / RUN_NAME).read_text())
    del text["executions"], text["executions_digest"]
    (tmp_path / RUN_NAME).write_text(json.dumps(text))
    result = run(ds, tmp_path)
    assert result.execution == merge(tmp_path, ds)[0].execution == {"precision": "float32", "batch_size": 10}


def test_records_of_earlier_versions_are_merged_without_the_execution(ds: Dataset, tmp_path: Path) -> None:
    """A run.json that does not say how the model was run gives the same counts, and claims no device."""
    result = run(ds, tmp_path)
    text = json.loads((tmp_path / "run.json").read_text())
    del text["executions"], text["executions_digest"]
    (tmp_path / "run.json").write_text(json.dumps(text))
    merged, _ = merge(tmp_path, ds)
    assert merged.execution == run(ds, tmp_path).execution == {"precision": "float32", "batch_size": 10}
    assert merged.as_dict()["accuracy"] == result.as_dict()["accuracy"]


def test_merge_counts_the_ranks(ds: Dataset, tmp_path: Path) -> None:
    """The receipt has the ranks of the latest start, those without a batch too; of old runs, those with records."""
    run(ds, tmp_path)
    path = tmp_path / RUN_NAME
    found = json.loads(path.read_text())
    assert found["world_size"] == 1
    path.write_text(json.dumps({**found, "world_size": 2}))
    assert merge(tmp_path, ds)[0].receipt.endswith(", 2 ranks")
    run(ds, tmp_path)  # everything is recorded, and this start has one rank
    assert merge(tmp_path, ds)[0].receipt.endswith(", 1 rank")
    del found["world_size"]
    path.write_text(json.dumps(found))
    key = RunKey(read_run(tmp_path)["identity"])
    records = RunRecords(tmp_path, key).read().by_batch
    (tmp_path / "records" / "00000-000.bin").unlink()
    for rank in (0, 1, 2):
        with RunRecords(tmp_path, key, rank=rank) as mine:
            for number in range(rank, NUM_BATCHES, 3):
                mine.append(records[number])
    assert merge(tmp_path, ds)[0].receipt.endswith(", 3 ranks")
