"""The page's numbers, computed by its own code under Node, are those of `score` and `compare`."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.explorer import made_predictions, numbers_of, ten_models, with_models

from wds_real.explore.page.build import build_page
from wds_real.explore.page.content import Content
from wds_real.labels import Labels, at_threshold, bundled
from wds_real.scoring.comparison import compare
from wds_real.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from wds_real.scoring.counts import Accuracy
    from wds_real.scoring.predictions import Predictions
    from wds_real.scoring.result import Result

THRESHOLDS = ("300", "500", "800", "900")
ACCURACIES = ("original_top1", "original_top5", "original_top1_labelled", "real_top1", "real_top5")


def shown(accuracy: Accuracy) -> list[str]:
    """Return the percentage and the interval as `score` prints them."""
    low, high = (100 * bound for bound in accuracy.interval)
    return [f"{100 * accuracy.value:.3f}", f"{low:.2f} \N{EN DASH} {high:.2f}"]


def check_model(found: Mapping[str, Any], result: Result) -> int:
    """Compare every number of a model with a result, and return how many they are."""
    expected = {name: value for name in ACCURACIES if (value := getattr(result, name)) is not None}
    assert found["accuracy"] == {
        name: {"correct": value.correct, "total": value.total, "failed": value.failed}
        for name, value in expected.items()
    }
    assert found["shown"] == {name: shown(value) for name, value in expected.items()}
    assert found["excluded"] == f"{result.excluded_effect:+.3f}"
    assert found["relabelled"] == f"{result.relabelled_effect:+.3f}"
    assert (found["forgiven"], found["newlyWrong"]) == (result.forgiven, result.newly_wrong)
    breakdown = result.breakdown
    assert found["slices"] == {
        name: {"correct": correct, "total": total} for name, (correct, total) in breakdown.slices.items()
    }
    assert found["classCorrect"] == breakdown.class_correct.tolist()
    assert found["classTotal"] == breakdown.class_total.tolist()
    assert found["worst"] == [
        {
            "label": count.label,
            "correct": count.correct,
            "total": count.total,
            "confused": [{"label": label, "images": images} for label, images in count.confused_with],
        }
        for count in breakdown.worst
    ]
    right, forgiven, newly_wrong, _, unlabelled_right, _, unread, missing = found["results"]
    assert (forgiven, newly_wrong) == (result.forgiven, result.newly_wrong)
    assert right + forgiven == result.real_top1.correct
    assert right + newly_wrong + unlabelled_right == result.original_top1.correct
    assert unread == result.original_top1.failed
    assert sum(found["results"]) - missing == result.original_top1.total
    return 5 * len(expected) + 6 + 2000 + 5 * len(breakdown.worst) + len(found["results"])


def check_labels(found: Mapping[str, Any], labels: Labels) -> None:
    """Compare the counts of the labels."""
    pairs = zip(labels.original, labels.real, strict=True)
    kinds = Counter((min(len(real), 2), original in real) for original, real in pairs)
    assert found["kinds"] == [kinds[1, True], kinds[1, False], kinds[2, True], kinds[2, False], kinds[0, False]]
    lengths = Counter(map(len, labels.real))
    assert found["lengths"] == [lengths[length] for length in range(max(lengths) + 1)]
    result = score(labels.original, labels=labels)
    assert found["originalLabels"] == {
        "correct": result.real_top1.correct,
        "total": result.real_top1.total,
        "failed": 0,
    }
    original, real = found["sizes"]
    assert original == np.bincount(labels.original, minlength=1000).tolist()
    assert real == np.bincount([label for one in labels.real for label in one], minlength=1000).tolist()


def check_pair(found: Mapping[str, Any], a: Predictions, b: Predictions, labels: Labels) -> None:
    """Compare the numbers of two models with those of `compare`."""
    expected = compare(a, b, against=found["against"], labels=labels)
    assert [found[name] for name in ("both", "onlyA", "onlyB", "neither", "total")] == [
        expected.both, expected.only_a, expected.only_b, expected.neither, expected.total,
    ]  # fmt: skip
    assert found["difference"] == pytest.approx(expected.difference, rel=1e-12)
    assert found["interval"] == pytest.approx(expected.interval, rel=1e-12)
    assert found["pValue"] == pytest.approx(expected.p_value, rel=1e-8, abs=1e-300)
    assert found["perClass"] == [[c.label, c.total, c.correct_a, c.correct_b] for c in expected.per_class]


def check_missed(found: list[int], models: Mapping[str, Predictions], labels: Labels) -> None:
    """Compare for each image how many models are wrong by ReaL."""
    wrong = np.zeros(len(labels.real), dtype=np.int64)
    for predictions in models.values():
        answers = zip(labels.real, predictions.classes[:, 0].tolist(), strict=True)
        wrong += [bool(real) and answer not in real for real, answer in answers]
    assert found == wrong.tolist()


def check_all(models: Mapping[str, Predictions], found: Mapping[str, Any], thresholds: tuple[str, ...]) -> int:
    """Compare everything at each threshold, and return how many numbers of models were compared."""
    num_compared = 0
    for text in thresholds:
        numbers, labels = found[text], at_threshold(int(text) / 1000)
        check_labels(numbers, labels)
        for name, predictions in models.items():
            num_compared += check_model(numbers["models"][name], score(predictions, labels=labels))
        for pair in numbers["pairs"]:
            check_pair(pair, models[pair["first"]], models[pair["second"]], labels)
        check_missed(numbers["missed"], models, labels)
    return num_compared


def test_numbers_of_ten_models_are_those_of_score(
    real_data: Callable[[str], Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """All numbers of the ten real prediction files at four thresholds: accuracies, intervals, classes, comparisons."""
    content = Content.of_labels()
    models = ten_models(content, real_data("predictions"))
    assert len(models) == 10
    found = numbers_of(build_page(with_models(content, models)), tmp_path, *THRESHOLDS)
    num_compared = check_all(models, found, THRESHOLDS)
    record_property("counts", f"explorer page: {num_compared:,} numbers of 10 models at 4 thresholds equal score's")


def test_numbers_of_made_up_models_are_those_of_score(tmp_path: Path) -> None:
    """The same for made-up answers, of which some are fewer than five classes and some are of unreadable images."""
    content = Content.of_labels()
    full = made_predictions(content, right=0.7, seed=1)
    short = made_predictions(content, right=0.4, seed=2)
    short.classes[::7, 3:] = -1
    unread = made_predictions(content, right=0.6, seed=3)
    unread.classes[::11] = -1
    models = {"full": full, "short": short, "unread": unread}
    found = numbers_of(build_page(with_models(content, models)), tmp_path, "0", "800", "999")
    assert "original_top5" not in found["800"]["models"]["short"]["accuracy"]
    assert found["800"]["models"]["unread"]["accuracy"]["original_top1"]["failed"] == 4546
    models.pop("unread")
    for text in found:
        numbers = found[text]
        for name, predictions in models.items():
            check_model(numbers["models"][name], score(predictions, threshold=int(text) / 1000))
        check_labels(numbers, at_threshold(int(text) / 1000))


def test_unreadable_images_count_as_in_score(tmp_path: Path) -> None:
    """An image without an answer counts as wrong and failed, as in the table that the metric uses."""
    content = Content.of_labels()
    unread = made_predictions(content, right=0.6, seed=3)
    unread.classes[::11] = -1
    found = numbers_of(build_page(with_models(content, {"unread": unread})), tmp_path, "800")
    check_model(found["800"]["models"]["unread"], score(unread))


def test_a_part_of_the_images_is_scored_as_with_allow_partial(tmp_path: Path) -> None:
    """A file of some of the images counts these only, as `score --allow-partial` does."""
    content = Content.of_labels()
    some = made_predictions(content, right=0.8, seed=5, rows=range(100, 40_000, 3))
    page = build_page(with_models(content, {"some": some}, allow_partial=True))
    found = numbers_of(page, tmp_path, "500")
    check_model(found["500"]["models"]["some"], score(some, threshold=0.5, allow_partial=True))


def test_labels_of_a_file_are_used_as_given(tmp_path: Path) -> None:
    """With other labels than the released ones the page starts with them, and a threshold replaces them."""
    real = [
        (*labels, 7) if 7 not in labels and number % 5 == 0 else labels for number, labels in enumerate(bundled().real)
    ]
    labels = Labels(bundled().original, tuple(real))
    content = Content.of_labels(labels)
    models = {"one": made_predictions(content, right=0.7, seed=1)}
    found = numbers_of(build_page(with_models(content, models)), tmp_path, "given", "800")
    check_labels(found["given"], labels)
    check_model(found["given"]["models"]["one"], score(models["one"], labels=labels))
    check_model(found["800"]["models"]["one"], score(models["one"]))
    assert json.dumps(found["given"]["kinds"]) != json.dumps(found["800"]["kinds"])
