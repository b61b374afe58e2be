"""Comparing more than two models: the same numbers as two by two, and the real prediction files."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wds_real import compare, compare_many, read_predictions
from wds_real.errors import PredictionsError
from wds_real.labels import bundled
from wds_real.scoring.run.output import write_output
from wds_real.scoring.score import score
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wds_real import Predictions

ORIGINAL = np.array(bundled().original)


def flipped(*, every: int, start: int = 0) -> Predictions:
    """The original labels, with each `every`-th answer replaced."""
    answers = ORIGINAL.copy()
    answers[start::every] = (answers[start::every] + 500) % 1000
    return read_predictions(answers)


MODELS = {"good": flipped(every=50_001), "near": flipped(every=40_000), "worse": flipped(every=10)}


@pytest.mark.parametrize("against", ["real", "original"])
def test_each_pair_is_that_of_compare(against: str) -> None:
    """Difference, interval, p and counts are those of the comparison of the two files, with the better one as B."""
    found = compare_many(MODELS, against=against)  # type: ignore[arg-type]  # one of the two
    assert list(found.accuracies) == ["good", "near", "worse"]
    for pair, (a, b) in zip(found.pairs, itertools.combinations(MODELS, 2), strict=True):
        assert (pair.a, pair.b) == (a, b)
        two = compare(MODELS[b], MODELS[a], against=against)  # type: ignore[arg-type]
        assert (pair.difference, pair.interval, pair.p_value) == (two.difference, two.interval, two.p_value)
        assert (pair.only_a, pair.only_b) == (two.only_b, two.only_a)
        assert found.accuracies[a] == two.accuracy_b
    assert found.close == (("good", "near"),)


def test_the_text_has_models_pairs_and_what_is_close() -> None:
    """The best model is first; the last line names the pairs that cannot be told apart."""
    lines = str(compare_many({**MODELS, "a\x1b[2J": flipped(every=10, start=5)})).splitlines()
    assert lines[0] == " ReaL top-1 on the 46,837 images that all 4 scored"
    assert lines[1].split() == ["good", "42,164", "90.023"]
    assert len(lines) == 1 + 4 + 1 + 6 + 1
    assert "good and near" in lines[-1]
    assert not any("\x1b" in line for line in lines)


def test_the_images_are_those_of_all_models() -> None:
    """A part of the images in one of the files is the part that is compared."""
    part = read_predictions({f"ILSVRC2012_val_{number:08d}.JPEG": 65 for number in range(1, 301)})
    found = compare_many({**MODELS, "part": part})
    assert found.total == sum(bool(real) for real in bundled().real[:300])


def test_folders_and_files_are_read(tmp_path: Path) -> None:
    """An output folder has its prediction file; --json's fields can be written."""
    write_output(LocalStore(tmp_path / "run"), score(MODELS["worse"]), MODELS["worse"])
    (tmp_path / "near.csv").write_bytes(MODELS["near"].encode())
    found = compare_many({"run": tmp_path / "run", "near": tmp_path / "near.csv", "good": MODELS["good"]})
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert [model["name"] for model in content["models"]] == ["good", "near", "run"]
    assert [pair["told_apart"] for pair in content["pairs"]] == [False, True, True]


def test_what_cannot_be_compared_is_refused() -> None:
    """One model is no comparison, and files without a common image have nothing to compare."""
    with pytest.raises(PredictionsError, match="one model is no comparison"):
        compare_many({"good": MODELS["good"]})
    first, second = ({f"ILSVRC2012_val_{number:08d}": 65} for number in (2, 3))
    with pytest.raises(PredictionsError, match="the 3 files have no image with a label in common"):
        compare_many({"a": read_predictions(first), "b": read_predictions(second), "c": MODELS["good"]})


def test_ten_real_models_are_all_told_apart(real_data: Callable[[str], Path]) -> None:
    """The counts are the reference's; the nearest two, 192 images apart, differ beyond chance among 45 pairs."""
    counts = {
        "senet154": 40_442, "inception_v3_tf": 39_484, "densenet161": 39_203, "resnet50": 38_855,
        "nasnetamobile": 37_968, "vgg16": 37_020, "mobilenet_v1_tf": 36_390, "resnet18": 36_198,
        "squeezenet1_1": 30_657, "alexnet": 29_536,
    }  # fmt: skip
    files: dict[str, Predictions | str | Path] = {name: real_data(f"predictions/{name}.npz") for name in sorted(counts)}
    found = compare_many(files)
    assert {name: one.correct for name, one in found.accuracies.items()} == counts
    assert list(found.accuracies) == list(counts)
    assert found.close == ()
    largest = max(found.pairs, key=lambda pair: pair.p_holm)
    assert (largest.a, largest.b, largest.only_a, largest.only_b) == ("mobilenet_v1_tf", "resnet18", 3_525, 3_333)
    assert 0.02 < largest.p_holm < 0.03
    original = compare_many(files, against="original")
    assert original.accuracies["resnet50"].correct == 38_065
