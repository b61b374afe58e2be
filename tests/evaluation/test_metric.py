"""RealAccuracy against a naive count: exact totals, or no number at all."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real import Accuracy, Batch, CoverageError, Dataset, EvalTransform, Loader, ModelError, RealAccuracy, Result
from wds_real import open_dataset as open_packed
from wds_real.labels import bundled
from wds_real.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

ORIGINAL, REAL = bundled().original, bundled().real
KEYS = [f"ILSVRC2012_val_{number:08d}" for number in range(1, 50_001)]
COUNTS = ("original_top1", "original_top5", "original_top1_labelled", "real_top1", "real_top5")


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    """The first 120 validation images."""
    return open_packed(packed)


@pytest.fixture(scope="module")
def batches(ds: Dataset) -> list[Batch]:
    """Their batches; the last one is padded."""
    return list(Loader(ds, batch_size=50, transform=EvalTransform(8), threads=1))


def naive(top5: Sequence[Sequence[int]]) -> dict[str, tuple[int, int]]:
    """Count (correct, total) of the first images, straight from the definitions."""
    rows = [(list(said), ORIGINAL[i], set(REAL[i])) for i, said in enumerate(top5)]
    scored = [row for row in rows if row[2]]
    return {
        "original_top1": (sum(said[0] == original for said, original, _ in rows), len(rows)),
        "original_top5": (sum(original in said for said, original, _ in rows), len(rows)),
        "original_top1_labelled": (sum(said[0] == original for said, original, _ in scored), len(scored)),
        "real_top1": (sum(said[0] in real for said, _, real in scored), len(scored)),
        "real_top5": (sum(bool(real & set(said)) for said, _, real in scored), len(scored)),
        "forgiven": (sum(said[0] != original and said[0] in real for said, original, real in scored), 0),
        "newly_wrong": (sum(said[0] == original and said[0] not in real for said, original, real in scored), 0),
    }


def counts(result: Result) -> dict[str, tuple[int, int]]:
    found = {name: getattr(result, name) for name in COUNTS}
    return {name: (value.correct, value.total) for name, value in found.items() if value is not None} | {
        "forgiven": (result.forgiven, 0),
        "newly_wrong": (result.newly_wrong, 0),
    }


def random_top5(length: int, seed: int) -> NDArray[np.int64]:
    """Return five distinct classes for each of the first images, often among them the right ones."""
    rng = np.random.default_rng(seed)
    top5 = (rng.integers(0, 1000, (length, 1)) + np.arange(5) * 7) % 1000
    for row in range(length):
        wanted = [ORIGINAL[row], *REAL[row]][rng.integers(0, 1 + len(REAL[row]))]
        if wanted not in top5[row] and rng.random() < 0.8:
            top5[row, rng.integers(0, 5) if rng.random() < 0.5 else 0] = wanted
    return top5


def scores_of(top5: NDArray[np.int64]) -> torch.Tensor:
    """Return noise scores (B, 1000) whose five best classes are these."""
    scores = torch.rand(len(top5), 1000, generator=torch.Generator().manual_seed(0))
    return scores.scatter(1, torch.from_numpy(top5), torch.arange(9.0, 4.0, -1).expand(len(top5), 5))


def rows_of(batch: Batch, table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the table's rows for a batch; anything, here zeros, in padded rows."""
    return np.where(batch.index.numpy()[:, None] >= 0, table[batch.index.numpy()], 0)


def updated(metric: RealAccuracy, batches: Sequence[Batch], top5: NDArray[np.int64]) -> RealAccuracy:
    for batch in batches:
        metric.update(scores_of(rows_of(batch, top5)), batch)
    return metric


# --- counts -----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_every_count_equals_the_naive_one(seed: int, ds: Dataset, batches: list[Batch]) -> None:
    """Whatever is predicted, each total, `forgiven` and `newly_wrong` are those of the definitions."""
    top5 = random_top5(120, seed)
    expected = naive(top5.tolist())
    assert counts(updated(RealAccuracy(ds), batches, top5).compute()) == expected
    by_class, by_key = RealAccuracy(ds), RealAccuracy(ds)
    for batch in reversed(batches):
        by_class.update(rows_of(batch, top5).astype(np.int32), batch)
    by_key.update(torch.from_numpy(top5), [f"{key}.JPEG" if seed % 2 else key for key in KEYS[:120]])
    assert counts(by_class.compute()) == counts(by_key.compute()) == expected


def whole(predictions: NDArray[np.int64]) -> Result:
    """Score predictions for all 50,000 in pieces of another size than any batch."""
    metric = RealAccuracy()
    for start in range(0, 50_000, 7001):
        metric.update(predictions[start : start + 7001], KEYS[start : start + 7001])
    return metric.compute()


def test_original_labels_as_a_model() -> None:
    """The original labels are right on 42,164 of the 46,837 images that ReaL labels, and on all by themselves."""
    result = whole(np.array(ORIGINAL))
    assert result.real_top1 == Accuracy(42_164, 46_837)
    assert result.original_top1 == Accuracy(50_000, 50_000)
    assert result.original_top1_labelled == Accuracy(46_837, 46_837)
    assert (result.forgiven, result.newly_wrong) == (0, 46_837 - 42_164)
    assert result.original_top5 is None
    assert result.real_top5 is None
    assert result.receipt == "50,000 expected, 50,000 seen once, 0 missing, 0 twice, 1 rank"
    assert (f"{100 * result.real_top1.value:.4f}", f"{result.relabelled_effect:.4f}") == ("90.0228", "-9.9772")


def test_perfect_predictions() -> None:
    """The last label of each ReaL list is right on every scored image."""
    result = whole(np.array([real[-1] if real else 0 for real in REAL]))
    assert result.real_top1 == Accuracy(46_837, 46_837)
    assert result.original_top1.total == 50_000


@pytest.mark.parametrize("seed", [0, 1])
def test_accuracy_is_that_of_the_label_projects_own_line(seed: int) -> None:
    """ReaL top-1 is, to the last bit, what the one line in the released labels' documentation gives."""
    pred, real = random_top5(50_000, seed)[:, 0], REAL
    assert whole(pred).real_top1.value == np.mean([pred[i] in real[i] for i in range(50_000) if real[i]])


def test_equal_scores_rank_by_class_index(ds: Dataset, batches: list[Batch]) -> None:
    """Ties go to the lower class, so that a result does not depend on the sorting of a device."""
    metric = RealAccuracy(ds)
    for batch in batches:
        scores = torch.zeros(50, 1000)
        scores[:, [700, 3, 500]] = 1.0
        metric.update(scores, batch)
    assert counts(metric.compute()) == naive([[3, 500, 700, 0, 1]] * 120)


def test_scores_of_minus_infinity_are_the_lowest(ds: Dataset) -> None:
    """Classes masked out by -inf are no error and come last."""
    scores = torch.full((1, 1000), -math.inf)
    scores[0, 10:15] = torch.arange(5.0)
    metric = RealAccuracy(ds[:1])
    metric.update(scores, KEYS[:1])
    assert counts(metric.compute()) == naive([[14, 13, 12, 11, 10]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_rank_in_their_own_precision(dtype: torch.dtype, ds: Dataset) -> None:
    """Scores that differ in the last bit of their type are not a tie."""
    scores = torch.ones(1, 1000, dtype=dtype)
    scores[0, 65] = 1 + torch.finfo(dtype).eps  # the label of image 1
    metric = RealAccuracy(ds[:1])
    metric.update(scores, KEYS[:1])
    assert metric.compute().original_top1 == Accuracy(1, 1)


def test_scores_with_a_gradient_or_read_only_memory(ds: Dataset) -> None:
    """Scores that require a gradient, and read-only arrays, are counted like any others."""
    top5 = random_top5(120, 1)
    arrays: Iterator[Any] = iter([scores_of(top5).requires_grad_(), scores_of(top5).numpy()])
    expected = naive(top5.tolist())
    for scores in arrays:
        if isinstance(scores, np.ndarray):
            scores.flags.writeable = False
        metric = RealAccuracy(ds)
        metric.update(scores, KEYS[:120])
        assert counts(metric.compute()) == expected


# --- what is no prediction --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predictions", "says"),
    [
        (torch.zeros(50, 1001), r"\(\d+, 1001\), expected \(\d+, 1000\)"),
        (torch.zeros(50, 21_843), "1,000-class head"),
        (torch.zeros(50), r"shape \(\d+,\)"),
        (torch.zeros(50, 1000, 1), "shape"),
        (torch.zeros(50, 5), "shape"),
        (torch.zeros(49, 1000), "49 predictions for a batch of 50"),
        (torch.tensor(3.0), "shape|predictions"),
        (torch.full((50, 1000), math.nan), "NaN"),
        (torch.full((50, 1000), math.inf), "infinite"),
        (torch.full((50,), 1000), r"classes 0\.\.999"),
        (torch.full((50,), -1), r"classes 0\.\.999"),
        (torch.zeros(50, 6, dtype=torch.int64), r"\(B, 5\)"),
        (torch.full((50, 5), 1000), r"classes 0\.\.999"),
    ],
)
def test_what_is_no_prediction_is_refused_and_changes_nothing(
    predictions: Any, says: str, ds: Dataset, batches: list[Batch]
) -> None:
    """Another shape, NaN, or a class that is none is a ModelError; the batch may then be counted as if it never was."""
    metric, top5 = RealAccuracy(ds), random_top5(120, 0)
    broken = replace(batches[0], valid=torch.arange(50) != 7)  # one row could not be read
    with pytest.raises(ModelError, match=says):
        metric.update(predictions, broken)
    assert counts(updated(metric, batches, top5).compute()) == naive(top5.tolist())


def test_one_nan_among_the_scores_is_seen(ds: Dataset, batches: list[Batch]) -> None:
    """A single NaN in a valid row is an error; in a padded row it means nothing."""
    last, metric = batches[-1], RealAccuracy(ds)
    scores = torch.rand(50, 1000)
    scores[20:] = math.nan
    metric.update(scores, last)
    scores[19, 999] = math.nan
    with pytest.raises(ModelError, match="NaN"):
        metric.update(scores, last)


def test_names_are_taken_in_every_spelling_that_score_takes(ds: Dataset) -> None:
    """Paths of ImageFolder, names with folders, wnids and other endings, bytes and Path give one result."""
    names: dict[str, Any] = {
        "ImageFolder": [f"/data/val/n0000000{number % 10}/{key}.JPEG" for number, key in enumerate(KEYS[:120])],
        "folder": [f"val/{key}.JPEG" for key in KEYS[:120]],
        "Windows": [f"D:\\val\\{key}.JPEG" for key in KEYS[:120]],
        "wnid": [f"{key}_n01751748.JPEG" for key in KEYS[:120]],
        "jpeg": [f"{key}.jpeg" for key in KEYS[:120]],
        "bytes": [f"{key}.JPEG".encode() for key in KEYS[:120]],
        "array of bytes": np.array([f"{key}.JPEG".encode() for key in KEYS[:120]]),
        "array of text": np.array(KEYS[:120]),
        "Path": [Path(f"val/{key}.JPEG") for key in KEYS[:120]],
    }
    top5 = random_top5(120, 0)
    for spelling, given_names in names.items():
        metric = RealAccuracy(ds)
        metric.update(top5, given_names)
        assert counts(metric.compute()) == naive(top5.tolist()), spelling
        scored = score(dict(zip(given_names, top5.tolist(), strict=True)), allow_partial=True)
        assert counts(scored) == naive(top5.tolist()), spelling


@pytest.mark.parametrize("name", [f"{KEYS[0]}.JPEG", KEYS[0].encode()])
def test_one_name_is_not_a_list_of_names(ds: Dataset, name: Any) -> None:
    """A name in place of a list is refused as such, not letter by letter."""
    with pytest.raises(ValueError, match="in a list, not one name"):
        RealAccuracy(ds).update(torch.zeros(len(name), 1000), name)


# --- coverage ---------------------------------------------------------------------------------------------------------


def test_missing_samples_are_named_and_counted(ds: Dataset, batches: list[Batch]) -> None:
    """Without a batch there is no accuracy: the error has counts and keys."""
    metric = updated(RealAccuracy(ds), [batches[0], batches[2]], random_top5(120, 0))
    with pytest.raises(CoverageError) as caught:
        metric.compute()
    assert caught.value.missing == tuple(KEYS[50:100])
    assert caught.value.doubled == ()
    assert str(caught.value).startswith(
        "saw 70 of 120 samples (50 missing, 0 doubled) over 1 rank. Accuracy was not computed. "
        "Missing: ILSVRC2012_val_00000051, "
    )
    assert "... (50)" in str(caught.value)
    assert caught.value.exit_code == 3


def test_doubled_samples_are_named_and_counted(ds: Dataset, batches: list[Batch]) -> None:
    """A batch counted twice, or a key twice in one update, is found, though the number of predictions is right."""
    top5 = random_top5(120, 0)
    metric = updated(RealAccuracy(ds), [batches[0], batches[1], batches[1]], top5)
    metric.update(top5[:2], [KEYS[100], KEYS[100]])
    with pytest.raises(CoverageError, match=r"saw 101 of 120 samples \(19 missing, 51 doubled\)") as caught:
        metric.compute()
    assert caught.value.missing == tuple(KEYS[101:120])
    assert caught.value.doubled == tuple(KEYS[50:101])


def test_nothing_seen_is_an_error(ds: Dataset) -> None:
    """A metric that was never updated gives no number."""
    with pytest.raises(CoverageError, match=r"saw 0 of 120 samples \(120 missing"):
        RealAccuracy(ds).compute()


def test_a_split_expects_its_samples_only(ds: Dataset) -> None:
    """Over a part of the data set, coverage and totals are of that part."""
    part, top5 = ds[30:77], random_top5(120, 2)
    metric = RealAccuracy(part)
    metric.update(top5[30:77], part.keys)
    result = metric.compute()
    rest = {name: naive(top5[:77].tolist())[name][0] - naive(top5[:30].tolist())[name][0] for name in COUNTS}
    assert {name: value[0] for name, value in counts(result).items() if name in COUNTS} == rest
    assert result.original_top1.total == 47
    assert result.dataset["num_samples"] == 47
    assert result.receipt == "47 expected, 47 seen once, 0 missing, 0 twice, 1 rank"


def test_samples_of_another_data_set_are_refused(ds: Dataset, batches: list[Batch]) -> None:
    """A key that is not of the data set or not of the split, and a batch of another set, are named and not counted."""
    with pytest.raises(ValueError, match="ILSVRC2012_val_00000121 is not a sample of the data set"):
        RealAccuracy(ds).update(np.zeros(2, dtype=np.int64), [KEYS[0], KEYS[120]])
    with pytest.raises(ValueError, match=r"ILSVRC2012_val_00000011 is not in split 'validation\[:10\]'"):
        RealAccuracy(ds[:10]).update(np.zeros(50, dtype=np.int64), batches[0])
    other = replace(batches[0], key=("other", *batches[0].key[1:]))
    with pytest.raises(ValueError, match="other is sample 0 of the batch's data set"):
        RealAccuracy(ds).update(np.zeros(50, dtype=np.int64), other)


def test_unreadable_samples_bound_the_accuracy(ds: Dataset, batches: list[Batch]) -> None:
    """A row that is not valid but has an index counts as seen, failed and wrong; the receipt and the best case tell."""
    unread = [3, 77]
    holes = [replace(b, valid=b.valid & ~torch.isin(b.index, torch.tensor(unread))) for b in batches]
    top5 = np.repeat(np.array(ORIGINAL[:120])[:, None], 5, axis=1)
    result = updated(RealAccuracy(ds), holes, top5).compute()
    assert result.original_top1 == Accuracy(118, 120, failed=2)
    assert result.original_top1.best_case == 1.0
    assert result.coverage.failed == (KEYS[3], KEYS[77])
    assert result.receipt == "120 expected, 118 seen once, 0 missing, 0 twice, 2 unreadable, 1 rank"
    assert "(up to 100.000 if all 2 unreadable were right)" in str(result)


# --- state ------------------------------------------------------------------------------------------------------------


def test_metrics_of_parts_merge_to_the_whole(ds: Dataset, batches: list[Batch]) -> None:
    """Merging what several metrics saw gives the same result; merging one twice is found."""
    top5 = random_top5(120, 3)
    parts = [updated(RealAccuracy(ds), [batch], top5) for batch in batches]
    merged = RealAccuracy(ds).merge_state(parts)
    assert merged.compute().as_dict() == updated(RealAccuracy(ds), batches, top5).compute().as_dict()
    with pytest.raises(CoverageError, match="0 missing, 20 doubled"):
        merged.merge_state(parts[2:]).compute()
    with pytest.raises(ValueError, match="different data sets"):
        RealAccuracy(ds).merge_state([RealAccuracy(ds[:60])])


def test_reset_forgets_everything(ds: Dataset, batches: list[Batch]) -> None:
    """After a reset a metric is as new, failed rows included."""
    metric, top5 = RealAccuracy(ds), random_top5(120, 4)
    updated(metric, [replace(batches[0], valid=batches[0].valid & False), *batches], top5).reset()
    assert counts(updated(metric, batches, top5).compute()) == naive(top5.tolist())


def test_a_state_is_a_copy_that_goes_on(ds: Dataset, batches: list[Batch]) -> None:
    """A state saved in mid-run, through torch.save, goes on in another metric; the first one is not tied to it."""
    top5 = random_top5(120, 5)
    metric, other, file = updated(RealAccuracy(ds), batches[:2], top5), RealAccuracy(ds), io.BytesIO()
    torch.save(metric.state_dict(), file)
    kept = metric.state_dict()
    metric.reset()
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert counts(updated(other, batches[2:], top5).compute()) == naive(top5.tolist())
    metric.load_state_dict(kept)
    updated(metric, batches[2:], top5)
    assert all(torch.equal(kept[name], value) for name, value in torch.load(io.BytesIO(file.getvalue())).items())


def test_a_state_of_another_data_set_is_refused(ds: Dataset, batches: list[Batch]) -> None:
    """A state of other samples, of more of them or of another split of the same set, is a ValueError."""
    with pytest.raises(ValueError, match="state"):
        RealAccuracy().load_state_dict(RealAccuracy(ds).state_dict())
    full = updated(RealAccuracy(ds), batches, random_top5(120, 0)).state_dict()
    with pytest.raises(ValueError, match="state"):
        RealAccuracy(ds[:60]).load_state_dict(full)


# --- the printed result -----------------------------------------------------------------------------------------------


@given(total=st.integers(1, 50_000), share=st.floats(0, 1))
def test_intervals_are_wilsons(total: int, share: float) -> None:
    """The bounds are the accuracies whose distance from what was found is 1.96 of their own standard errors."""
    found = Accuracy(round(total * share), total)
    low, high = found.interval
    assert 0 <= low <= found.value + 1e-15
    assert found.value - 1e-15 <= high <= 1
    for bound in (low, high):
        error = 1.959963984540054 * math.sqrt(bound * (1 - bound) / total)
        assert math.isclose(abs(found.value - bound), error, rel_tol=1e-6, abs_tol=1e-7)


def test_no_image_with_a_label_has_no_accuracy(ds: Dataset) -> None:
    """Over images without ReaL label there is no ReaL number; the result says so instead of dividing by zero."""
    metric = RealAccuracy(ds[:1])
    metric.update(np.array([65]), KEYS[:1])
    result = metric.compute()
    assert result.real_top1 == Accuracy(0, 0)
    assert result.as_dict()["accuracy"]["real_top1"]["percent"] is None
    assert "(no image)" in str(result)
    assert "nan" not in str(result)
