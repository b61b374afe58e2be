"""The arithmetic of a result: counts against a slow count, the bridge, and the receipt."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.errors import CoverageError
from wds_real.labels import bundled
from wds_real.scoring.counts import Accuracy, Coverage
from wds_real.scoring.result import Result, joined_execution
from wds_real.scoring.table import PredictionTable
from wds_real.scoring.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """A sample as a test makes it up: labels, predicted classes best first, and whether it could be read."""

    original: int
    real: tuple[int, ...]
    top5: tuple[int, ...]
    read: bool = True


def tally(
    targets: Targets,
    *,
    top5: NDArray[np.int64],
    seen: NDArray[np.int64],
    failed: NDArray[np.int64] | None = None,
    world_size: int = 1,
) -> Result:
    """Count a table of these columns."""
    failed = np.zeros_like(seen) if failed is None else failed
    array = np.concatenate([seen[:, None], failed[:, None], top5 + 1, np.zeros_like(top5)], axis=1)
    return PredictionTable(targets, np.pad(array, ((0, 0), (0, 1)))).result(world_size=world_size)


def tallied(samples: Sequence[Sample], *, world_size: int = 1, expected: Sequence[bool] | None = None) -> Result:
    """Count samples that were each seen once, or failed once."""
    keys = [f"{number:03d}" for number in range(len(samples))]
    scope = None if expected is None else np.array(expected, dtype=np.bool_)
    table = np.full((len(samples), 5), -1, dtype=np.int64)
    for row, sample in enumerate(samples):
        if sample.read:
            table[row, : len(sample.top5)] = sample.top5
    read = np.array([sample.read for sample in samples], dtype=np.int64)
    return tally(
        Targets.of(keys, [s.original for s in samples], [s.real for s in samples], expected=scope),
        top5=table,
        seen=read,
        failed=1 - read,
        world_size=world_size,
    )


few = st.integers(0, 7)
made_up = st.lists(
    st.builds(
        Sample,
        original=few,
        real=st.lists(few, unique=True, max_size=3).map(tuple),
        top5=st.lists(few, unique=True, min_size=5, max_size=5).map(tuple),
        read=st.sampled_from([True, True, True, False]),
    ),
    max_size=25,
)

# Right by both, forgiven, newly wrong, wrong by both, unlabelled and right, unlabelled and wrong.
SIX = [
    Sample(1, (1, 2), (1, 2, 3, 4, 5)),
    Sample(1, (2,), (2, 1, 3, 4, 5)),
    Sample(1, (2,), (1, 2, 3, 4, 5)),
    Sample(1, (2,), (3, 4, 5, 6, 7)),
    Sample(1, (), (1, 2, 3, 4, 5)),
    Sample(1, (), (3, 2, 1, 4, 5)),
]


def leaves(value: Any) -> Iterator[Any]:
    """Yield the numbers and texts of nested JSON."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def test_each_kind_of_outcome_is_counted_once() -> None:
    """Six samples, one of each kind: all counts by hand."""
    result = tallied(SIX)
    assert result.original_top1 == Accuracy(3, 6)
    assert result.original_top5 == Accuracy(5, 6)
    assert result.original_top1_labelled == Accuracy(2, 4)
    assert result.real_top1 == Accuracy(2, 4)
    assert result.real_top5 == Accuracy(3, 4)
    assert (result.forgiven, result.newly_wrong) == (1, 1)
    assert result.excluded_effect == pytest.approx(0.0)
    assert result.relabelled_effect == pytest.approx(0.0)


@given(made_up)
def test_counts_are_those_of_a_slow_count(samples: list[Sample]) -> None:
    """Every count is what its definition gives, one sample at a time."""
    result = tallied(samples)
    labelled = [sample for sample in samples if sample.real]

    def right(scope: list[Sample], rule: Callable[[Sample], bool]) -> Accuracy:
        unread = sum(not sample.read for sample in scope)
        return Accuracy(sum(sample.read and rule(sample) for sample in scope), len(scope), unread)

    def original(sample: Sample) -> bool:
        return sample.top5[0] == sample.original

    def real(sample: Sample) -> bool:
        return sample.top5[0] in sample.real

    assert result.original_top1 == right(samples, original)
    assert result.original_top5 == right(samples, lambda sample: sample.original in sample.top5)
    assert result.original_top1_labelled == right(labelled, original)
    assert result.real_top1 == right(labelled, real)
    assert result.real_top5 == right(labelled, lambda sample: not set(sample.real).isdisjoint(sample.top5))
    assert result.forgiven == right(labelled, lambda sample: real(sample) and not original(sample)).correct
    assert result.newly_wrong == right(labelled, lambda sample: original(sample) and not real(sample)).correct
    assert result.coverage.failed == tuple(f"{n:03d}" for n, sample in enumerate(samples) if not sample.read)
    assert result.coverage.seen_once + len(result.coverage.failed) == result.coverage.expected == len(samples)


@given(made_up)
def test_the_bridge_leads_from_original_to_real(samples: list[Sample]) -> None:
    """The two effects add up to the difference, and forgiven less newly wrong is the second one's count."""
    result = tallied(samples)
    gained = result.real_top1.correct - result.original_top1_labelled.correct
    assert result.forgiven - result.newly_wrong == gained
    if not result.real_top1.total:
        assert math.isnan(result.relabelled_effect)
        return
    whole = 100 * (result.real_top1.value - result.original_top1.value)
    assert result.excluded_effect + result.relabelled_effect == pytest.approx(whole, abs=1e-9)
    assert result.relabelled_effect == pytest.approx(100 * gained / result.real_top1.total, abs=1e-9)


@given(made_up)
def test_failed_samples_bound_every_accuracy(samples: list[Sample]) -> None:
    """Had the failed samples been read, each accuracy would lie between its worst and its best case."""
    recorded = tallied(samples)
    undisturbed = tallied([Sample(sample.original, sample.real, sample.top5) for sample in samples])
    for name in ("original_top1", "original_top5", "original_top1_labelled", "real_top1", "real_top5"):
        bounds: Accuracy = getattr(recorded, name)
        truth: Accuracy = getattr(undisturbed, name)
        assert bounds.correct <= truth.correct <= bounds.correct + bounds.failed
        assert bounds.total == truth.total


@given(samples=made_up, order=st.randoms(use_true_random=False))
def test_the_order_of_samples_changes_no_count(samples: list[Sample], order: Any) -> None:
    """Totals are sums of integers: any order gives the same numbers."""
    shuffled = order.sample(samples, len(samples))
    keep = ("accuracy", "bridge", "slices", "per_class", "worst_classes")
    first, second = tallied(samples).as_dict(), tallied(shuffled).as_dict()
    assert {name: first[name] for name in keep} == {name: second[name] for name in keep}


@given(samples=made_up, single=st.booleans())
def test_json_and_text_hold_no_nan(samples: list[Sample], single: bool) -> None:
    """Whatever was counted, the result is strict JSON and prints numbers or a dash."""
    if single:
        samples = [Sample(s.original, s.real, s.top5[:1], s.read) for s in samples]
    result = tallied(samples)
    encoded = json.dumps(result.as_dict(), allow_nan=False)
    assert list(leaves(json.loads(encoded))) == list(leaves(result.as_dict()))
    assert "nan" not in str(result)


def test_no_labelled_image_leaves_the_original_accuracy() -> None:
    """Without a ReaL label in the whole set, original accuracy stands and ReaL's is a dash and null."""
    result = tallied([Sample(1, (), (1, 2, 3, 4, 5)), Sample(1, (), (2, 1, 3, 4, 5))])
    assert (result.original_top1, result.real_top1) == (Accuracy(1, 2), Accuracy(0, 0))
    assert result.as_dict()["accuracy"]["real_top1"]["percent"] is None
    assert result.as_dict()["bridge"]["excluded_points"] is None
    assert re.search(r"ReaL top-1 +0 / +0 +- +\(no image\)", str(result))
    assert "nan" not in str(result)


def test_no_sample_is_a_result_of_nothing() -> None:
    """An empty split is counted as such."""
    result = tallied([])
    assert (result.original_top1, result.coverage.expected) == (Accuracy(0, 0), 0)
    assert result.receipt == "0 expected, 0 seen once, 0 missing, 0 twice, 1 rank"


def test_single_classes_have_no_top5() -> None:
    """A model that gives one class has no top-5 accuracy; one such sample is enough."""
    samples = [Sample(1, (1,), (1, 2, 3, 4, 5)), Sample(1, (1,), (1,))]
    for given_samples in (samples, samples[1:]):
        result = tallied(given_samples)
        assert (result.original_top5, result.real_top5) == (None, None)
        assert set(result.as_dict()["accuracy"]) == {"original_top1", "original_top1_labelled", "real_top1"}
        assert "top-5" not in str(result)
        assert result.real_top1 == Accuracy(len(given_samples), len(given_samples))


def test_a_sample_without_a_class_is_wrong() -> None:
    """-1 is no class: it does not equal the padding behind a short list of ReaL labels."""
    result = tallied([Sample(1, (1,), ()), Sample(1, (1, 2, 3), (1,))])
    assert result.real_top1 == result.original_top1 == Accuracy(1, 2)
    assert result.forgiven == 0


@pytest.mark.parametrize(
    ("seen", "failed", "missing", "doubled"),
    [
        ([1, 0, 1], [0, 0, 0], ["b"], []),
        ([1, 2, 1], [0, 0, 0], [], ["b"]),
        ([1, 1, 1], [0, 1, 0], [], ["b"]),
        ([1, 0, 1], [0, 2, 0], [], ["b"]),
        ([0, 3, 1], [0, 0, 0], ["a"], ["b"]),
        ([0, 0, 0], [0, 0, 0], ["a", "b", "c"], []),
    ],
    ids=["missing", "twice", "seen and failed", "failed twice", "missing and thrice", "nothing seen"],
)
def test_anything_but_once_is_refused(
    seen: list[int], failed: list[int], missing: list[str], doubled: list[str]
) -> None:
    """A sample that is missing, doubled, or both read and failed, stops the result and is named."""
    targets = Targets.of("abc", [1, 1, 1], [[1], [1], [1]])
    with pytest.raises(CoverageError) as caught:
        tally(targets, top5=np.ones((3, 5), np.int64), seen=np.array(seen), failed=np.array(failed), world_size=4)
    assert (caught.value.missing, caught.value.doubled) == (tuple(missing), tuple(doubled))
    text = str(caught.value)
    assert text.startswith(f"saw {3 - len(missing)} of 3 samples ({len(missing)} missing, {len(doubled)} doubled)")
    assert "over 4 ranks. Accuracy was not computed." in text
    assert all(key in text for key in missing + doubled)


def test_a_coverage_error_names_the_first_keys_only() -> None:
    """With 50,000 missing samples the message stays readable, and the attribute has them all."""
    targets = Targets.of_labels()
    nothing = np.zeros(50_000, dtype=np.int64)
    with pytest.raises(CoverageError) as caught:
        tally(targets, top5=np.zeros((50_000, 5), np.int64), seen=nothing)
    assert len(caught.value.missing) == 50_000
    assert str(caught.value) == (
        "saw 0 of 50,000 samples (50,000 missing, 0 doubled) over 1 rank. Accuracy was not computed. Missing: "
        "ILSVRC2012_val_00000001, ILSVRC2012_val_00000002, ILSVRC2012_val_00000003, ILSVRC2012_val_00000004, "
        "ILSVRC2012_val_00000005 ... (50,000)."
    )


def test_samples_outside_the_split_are_neither_expected_nor_missing() -> None:
    """Of a split, only its samples are counted."""
    targets = Targets.of("abc", [1, 1, 1], [[1], [1], [1]], expected=np.array([True, False, True]))
    result = tally(targets, top5=np.ones((3, 5), np.int64), seen=np.array([1, 0, 1]))
    assert result.original_top1 == Accuracy(2, 2)
    assert result.receipt == "2 expected, 2 seen once, 0 missing, 0 twice, 1 rank"


@pytest.mark.parametrize(("seen", "failed"), [([1, 1, 1], [0, 0, 0]), ([1, 0, 1], [0, 1, 0])], ids=["seen", "failed"])
def test_a_sample_outside_the_split_is_refused(seen: list[int], failed: list[int]) -> None:
    """Samples seen that were not to be seen are no full coverage: the receipt would not add up."""
    targets = Targets.of("abc", [1, 1, 1], [[1], [1], [1]], expected=np.array([True, False, True]))
    with pytest.raises(CoverageError):
        tally(targets, top5=np.ones((3, 5), np.int64), seen=np.array(seen), failed=np.array(failed))


def test_all_but_the_run_is_the_same_at_every_world_size() -> None:
    """The number of ranks is part of the run, and of the receipt, only."""
    one, many = tallied(SIX, world_size=1).as_dict(), tallied(SIX, world_size=64).as_dict()
    assert (one.pop("run"), many.pop("run")) == ({"world_size": 1}, {"world_size": 64})
    assert one == many


def test_the_receipt_adds_up() -> None:
    """Expected is seen once plus unreadable plus missing; numbers have thousands separators."""
    samples = [Sample(1, (1,), (1, 2, 3, 4, 5), read=number % 100 != 0) for number in range(1200)]
    result = tallied(samples, world_size=32)
    assert result.receipt == "1,200 expected, 1,188 seen once, 0 missing, 0 twice, 12 unreadable, 32 ranks"
    assert result.receipt in str(result)


def test_the_table_shows_every_accuracy_with_its_interval() -> None:
    """One line each: correct / n, percent, interval; unreadable samples give the best case as well."""
    text = str(tallied([*SIX * 200, Sample(1, (1,), (1, 2, 3, 4, 5), read=False)]))
    low, high = (100 * bound for bound in Accuracy(600, 1201).interval)
    assert f" original top-1                 600 /   1,201     {60_000 / 1201:.3f}   {low:.2f} - {high:.2f}" in text
    assert f"(up to {60_100 / 1201:.3f} if all 1 unreadable were right)" in text
    assert [line.split("  ")[0].strip() for line in text.splitlines()[1:6]] == [
        "original top-1",
        "original top-5",
        "original top-1, labelled",
        "ReaL top-1",
        "ReaL top-5",
    ]
    assert "(200 forgiven, 200 newly wrong)" in text


def test_original_labels_scored_as_a_model() -> None:
    """The original labels are right on 42,164 of the 46,837 images that ReaL labels."""
    targets = Targets.of_labels()
    top5 = np.full((50_000, 5), -1, dtype=np.int64)
    top5[:, 0] = targets.original_label
    result = tally(targets, top5=top5, seen=np.ones(50_000, dtype=np.int64))
    assert result.original_top1 == Accuracy(50_000, 50_000)
    assert result.original_top1_labelled == Accuracy(46_837, 46_837)
    assert result.real_top1 == Accuracy(42_164, 46_837)
    assert (result.forgiven, result.newly_wrong) == (0, 4_673)
    assert result.as_dict()["accuracy"]["real_top1"]["percent"] == 90.0228


def test_predictions_of_a_real_model_are_counted_as_by_the_reference(real_data: Callable[[str], Path]) -> None:
    """On 650 real images every count equals that of independent code."""
    reference = json.loads(real_data("val-650.efficientnet_lite0.json").read_bytes())
    targets = Targets.of_labels()
    top5, seen = np.full((50_000, 5), -1, dtype=np.int64), np.zeros(50_000, dtype=np.int64)
    for key, classes in reference["top5"].items():
        top5[int(key[-8:]) - 1], seen[int(key[-8:]) - 1] = classes, 1
    expected = seen == 1
    labels = bundled()
    subset = Targets.of(targets.keys, labels.original, labels.real, expected=expected)
    result = tally(subset, top5=top5, seen=seen)
    assert result.original_top5 is not None
    assert result.real_top5 is not None
    assert {
        "images": result.original_top1.total,
        "top1_correct": result.original_top1.correct,
        "top5_correct": result.original_top5.correct,
        "real_scored": result.real_top1.total,
        "real_correct": result.real_top1.correct,
        "real_top5_correct": result.real_top5.correct,
        "top1_correct_on_real_scored": result.original_top1_labelled.correct,
        "forgiven": result.forgiven,
        "newly_wrong": result.newly_wrong,
    } == {name: value for name, value in reference.items() if isinstance(value, int)}


# --- How the model was run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executions", "line"),
    [
        ([], " float16, batch size 8"),
        ([{"device": "cuda", "compile": False, "channels_last": False}], " float16 on cuda, batch size 8"),
        (
            [{"device": "cpu", "compile": True, "channels_last": True}],
            " float16 on cpu, batch size 8, torch.compile, channels_last",
        ),
        (
            [
                {"device": "cpu", "compile": False, "channels_last": True},
                {"device": "cuda", "compile": True, "channels_last": True},
            ],
            " float16 on cpu and cuda, batch size 8, torch.compile for a part, channels_last",
        ),
        ([{}, {"device": "cuda", "compile": True, "channels_last": True}], " float16, batch size 8"),
    ],
)
def test_the_title_says_how_the_model_was_run(executions: list[dict[str, Any]], line: str) -> None:
    """Precision and batch size always, the rest where it is known of all parts; all values where parts differed."""
    counted = tallied([Sample(1, (1,), (1, 2, 3, 4, 5))])
    result = replace(counted, model={"name": "m"}, execution=joined_execution("float16", 8, executions))
    assert str(result).splitlines()[1] == line
    assert result.as_dict()["execution"] == result.execution
    assert "execution" not in counted.as_dict()
    assert str(counted).splitlines()[0].split()[:2] == ["correct", "/"]


# --- The receipt is counted -------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1)), min_size=1, max_size=8))
def test_the_receipt_is_counted_sample_by_sample(samples: list[tuple[bool, int]]) -> None:
    """Each expected sample is one of: seen once, unreadable; no number of the receipt is a constant."""
    targets = Targets.of([f"{n}" for n in range(len(samples))], [0] * len(samples), [()] * len(samples))
    seen = np.array([read for read, _ in samples], dtype=np.int64)
    found = tally(targets, top5=np.ones((len(seen), 5), np.int64), seen=seen, failed=1 - seen).coverage
    unreadable = tuple(key for key, (read, _) in zip(targets.keys, samples, strict=True) if not read)
    assert found == Coverage(len(samples), int(seen.sum()), 0, 0, unreadable)


def test_receipt_and_json_print_what_the_coverage_holds() -> None:
    """A coverage with other counts prints those: nothing in the text is written down beforehand."""
    result = replace(tallied([Sample(1, (1,), (1,))]), coverage=Coverage(9, 4, 3, 2, ("x",)))
    assert result.receipt == "9 expected, 4 seen once, 3 missing, 2 twice, 1 unreadable, 1 rank"
    found = result.as_dict()["coverage"]
    assert found == {"expected": 9, "seen_once": 4, "missing": 3, "doubled": 2, "failed": ["x"]}
