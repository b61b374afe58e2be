"""Comparing two prediction files: the paired difference, its interval and test, and the images that changed."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_CLASSES, NUM_IMAGES, Labels, bundled, classes
from wds_real.scoring.comparison import ClassChange, Comparison, compare, mcnemar_exact
from wds_real.scoring.prediction_reader import read_predictions

if TYPE_CHECKING:
    from collections.abc import Callable

    from wds_real.scoring.predictions import Predictions

Against = Literal["real", "original"]

ORIGINAL_293 = bundled().original[292]  # ReaL agrees
NUMBERS = st.integers(1, 400)  # few enough that two files overlap


def key(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


def said(classes_of: dict[int, int]) -> Predictions:
    """Return predictions of one class for images by number."""
    return read_predictions({key(number): label for number, label in classes_of.items()})


def near(number: int, draw: int) -> int:
    """Return a class for an image: often its original label, a ReaL label, or another."""
    original, real = bundled().original[number - 1], bundled().real[number - 1]
    return [original, (real or (original,))[-1], (original + 7) % NUM_CLASSES, draw][draw % 4]


def files() -> st.SearchStrategy[dict[int, int]]:
    drawn = st.dictionaries(NUMBERS, st.integers(0, NUM_CLASSES - 1), min_size=1, max_size=60)
    return drawn.map(lambda draws: {number: near(number, draw) for number, draw in draws.items()})


def cells(both: int, only_a: int, only_b: int, neither: int) -> Comparison:
    return Comparison(
        against="real", both=both, only_a=only_a, only_b=only_b, neither=neither,
        p_value=mcnemar_exact(only_a, only_b), lost=(), gained=(), per_class=(),
    )  # fmt: skip


# --- the test ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (3, 3, 1.0),
        (3, 4, 1.0),
        (0, 6, 2 / 64),
        (1, 5, 2 * (1 + 6) / 64),
        (2, 10, 2 * (1 + 12 + 66) / 4096),
        (9, 1, 2 * (1 + 10) / 1024),
    ],
)
def test_mcnemars_p_has_its_values(b: int, c: int, p: float) -> None:
    """Counted by hand from Pascal's triangle; both directions give the same."""
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b) == p


@given(b=st.integers(0, 400), c=st.integers(0, 400))
@settings(max_examples=40)
def test_mcnemars_p_is_the_sum_of_its_definition(b: int, c: int) -> None:
    """Twice the smaller tail of a fair coin, at most 1, rounded once."""
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    assert mcnemar_exact(b, c) == min(1.0, float(Fraction(2 * tail, 2 ** (b + c))))


@pytest.mark.parametrize(("b", "c"), [(86, 150), (0, 7), (12, 12), (995, 1100), (3_000, 3_300), (20_000, 20_500)])
def test_mcnemars_p_is_scipys(b: int, c: int) -> None:
    """The same as the exact binomial test of another library, also for flips by the thousand."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    assert mcnemar_exact(b, c) == pytest.approx(stats.binomtest(b, b + c).pvalue, rel=1e-9)


def test_a_p_too_small_for_a_float_is_said_to_be_small() -> None:
    """50,000 flips one way: the number is 0.0, the text does not claim that."""
    comparison = cells(0, 0, NUM_IMAGES, 0)
    assert comparison.p_value == 0.0
    assert "McNemar exact p < 1e-300" in str(comparison)


# --- the interval -----------------------------------------------------------------------------------------------------


@given(*[st.integers(0, 2_000)] * 4)
@settings(max_examples=40)
def test_the_interval_is_agresti_and_mins(both: int, only_a: int, only_b: int, neither: int) -> None:
    """Half a pair is added to each cell (Agresti and Min 2005, section 2.2), then Wald's interval is taken."""
    comparison = cells(both, only_a, only_b, neither)
    n = Fraction(both + only_a + only_b + neither + 2)
    p12, p21 = (only_b + Fraction(1, 2)) / n, (only_a + Fraction(1, 2)) / n
    half = NormalDist().inv_cdf(0.975) * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / n)
    centre = float(p12 - p21)
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    assert comparison.interval == pytest.approx((100 * low, 100 * high), abs=1e-9)


@given(*[st.integers(0, 300)] * 4)
def test_swapping_the_files_mirrors_everything(both: int, only_a: int, only_b: int, neither: int) -> None:
    """B against A is A against B with the sign changed."""
    one, other = cells(both, only_a, only_b, neither), cells(both, only_b, only_a, neither)
    assert one.interval == pytest.approx([-bound for bound in reversed(other.interval)])
    assert one.p_value == other.p_value
    if one.total:
        assert one.difference == -other.difference
        assert one.difference == pytest.approx(100 * (one.accuracy_b.value - one.accuracy_a.value))


# --- whole files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("against", ["real", "original"])
@given(a=files(), b=files())
@settings(max_examples=12, deadline=None)
def test_every_count_is_that_of_a_slow_count(against: Against, a: dict[int, int], b: dict[int, int]) -> None:
    """Cells, flips and classes counted one image at a time, over the images of both files."""
    labels = bundled()

    def accepted(number: int) -> tuple[int, ...]:
        return labels.real[number - 1] if against == "real" else (labels.original[number - 1],)

    shared = sorted(number for number in a.keys() & b.keys() if accepted(number))
    if not shared:
        with pytest.raises(PredictionsError, match="no image with a label in common"):
            compare(said(a), said(b), against=against)
        return
    right_a = {number for number in shared if a[number] in accepted(number)}
    right_b = {number for number in shared if b[number] in accepted(number)}
    found = compare(said(a), said(b), against=against)
    assert (found.both, found.only_a, found.only_b, found.neither) == (
        len(right_a & right_b),
        len(right_a - right_b),
        len(right_b - right_a),
        len(set(shared) - right_a - right_b),
    )
    assert found.lost == tuple(key(number) for number in sorted(right_a - right_b))
    assert found.gained == tuple(key(number) for number in sorted(right_b - right_a))
    per_class = [
        ClassChange(
            label,
            sum(label in accepted(number) for number in shared),
            sum(label in accepted(number) for number in right_a),
            sum(label in accepted(number) for number in right_b),
        )
        for label in sorted({label for number in shared for label in accepted(number)})
    ]
    assert list(found.per_class) == per_class
    assert found.p_value == mcnemar_exact(len(right_a - right_b), len(right_b - right_a))


def test_a_file_compared_with_itself_differs_in_nothing() -> None:
    """No flip, difference 0, p 1, an interval around 0."""
    predictions = read_predictions(bundled().original)
    found = compare(predictions, predictions)
    assert (found.both, found.only_a, found.only_b, found.neither) == (42_164, 0, 0, 46_837 - 42_164)
    assert (found.difference, found.p_value, found.lost, found.gained) == (0.0, 1.0, (), ())
    low, high = found.interval
    assert low == -high != 0
    assert all(change.correct_a == change.correct_b for change in found.per_class)
    assert "moved most" not in str(found)


def test_original_labels_against_real_ones() -> None:
    """All 50,000: a model that says a ReaL label gains by ReaL what it loses by the original labels."""
    labels = bundled()
    a = read_predictions(labels.original)
    b = read_predictions([real[0] if real else label for real, label in zip(labels.real, labels.original, strict=True)])
    by_real, by_original = compare(a, b), compare(a, b, against="original")
    assert (by_real.total, by_real.only_a, by_real.only_b) == (46_837, 0, 46_837 - 42_164)
    assert (by_original.total, by_original.only_b, by_original.neither) == (NUM_IMAGES, 0, 0)
    assert sum(change.total for change in by_real.per_class) == 57_553
    assert sum(change.total for change in by_original.per_class) == NUM_IMAGES
    assert by_original.accuracy_a.value == 1.0
    assert set(by_real.gained) <= set(by_original.lost)


def test_unlabelled_images_count_by_their_original_label_only() -> None:
    """Image 1 has no ReaL label: by ReaL there is nothing to compare, by the original labels there is."""
    a, b = said({1: 65}), said({1: 66})
    with pytest.raises(PredictionsError, match="no image with a label in common"):
        compare(a, b)
    assert compare(a, b, against="original").lost == (key(1),)


def test_only_the_first_class_counts() -> None:
    """The four classes behind the best are not compared."""
    a, b = (read_predictions({key(293): [label, ORIGINAL_293, 0, 1, 2]}) for label in (5, ORIGINAL_293))
    assert compare(a, b).gained == (key(293),)


def test_given_labels_take_the_place_of_the_released() -> None:
    """Other ReaL labels decide what is right."""
    labels = Labels(bundled().original, ((5,), *bundled().real[1:]))
    assert compare(said({1: 65}), said({1: 5}), labels=labels).gained == (key(1),)


@pytest.mark.parametrize("swap", [False, True])
def test_files_without_overlap_or_of_other_images_are_refused(swap: bool) -> None:
    """No image in common, and predictions of something else, are errors in either place."""
    a, b, other = said({2: 1}), said({4: 1}), read_predictions({"dog.JPEG": 1})
    with pytest.raises(PredictionsError, match="no image with a label in common"):
        compare(*((b, a) if swap else (a, b)))
    with pytest.raises(PredictionsError, match=r"not of validation images, such as dog\."):
        compare(*((a, other) if swap else (other, a)))


# --- as JSON and text -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared() -> Comparison:
    """500 images, B better than A."""
    rng = np.random.default_rng(0)
    labels = bundled()

    def model(share: float) -> Predictions:
        right = rng.random(500) < share
        return said({n: labels.original[n - 1] if right[n - 1] else 999 for n in range(1, 501)})

    return compare(model(0.5), model(0.8))


def test_json_holds_what_the_comparison_holds(compared: Comparison) -> None:
    """Every cell, flip and class, as plain JSON."""
    found: dict[str, Any] = json.loads(json.dumps(compared.as_dict(), allow_nan=False))
    assert found["format"] == {"name": "wds_real.comparison", "version": 1}
    assert found["total"] == compared.total == sum(
        found[name] for name in ("right_in_both", "right_only_in_a", "right_only_in_b", "wrong_in_both")
    )  # fmt: skip
    assert (tuple(found["lost"]), tuple(found["gained"])) == (compared.lost, compared.gained)
    assert found["a"]["correct"] == compared.both + compared.only_a
    assert found["difference_points"] == pytest.approx(found["b"]["percent"] - found["a"]["percent"], abs=2e-4)
    assert found["interval_95_points"][0] < found["difference_points"] < found["interval_95_points"][1]
    assert len(found["per_class"]) == len(compared.per_class)


def test_text_names_the_numbers_and_the_classes_that_moved_most(compared: Comparison) -> None:
    """The table has the counts, the difference with its sign, and at most ten classes, most moved first."""
    text = str(compared)
    assert f" ReaL top-1 on the {compared.total:,} images that both scored" in text
    assert f"B - A {compared.difference:+.3f} points" in text
    assert f"right only in A {compared.only_a:,}, only in B {compared.only_b:,}" in text
    moved = text.split("moved most")[1].splitlines()[1:]
    assert len(moved) == 10
    most = max(compared.per_class, key=lambda change: (abs(change.correct_b - change.correct_a), -change.label))
    assert moved[0].split()[:2] == [str(most.label), classes()[most.label].name.split()[0]]
    assert [int(number) for number in moved[0].split()[-3:]] == [most.correct_a, most.correct_b, most.total]


def test_text_says_which_labels_were_used() -> None:
    """A comparison against the original labels does not call itself ReaL."""
    make: Callable[[int], Predictions] = lambda label: said({293: label})  # noqa: E731 -- two of a kind
    text = str(compare(make(ORIGINAL_293), make(1), against="original"))
    assert text.startswith(" original top-1 on the 1 image")
