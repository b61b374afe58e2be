"""Ranking models: order, ties, ranges of ranks, and what may not be mixed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wds_real.errors import PredictionsError
from wds_real.scoring.counts import Accuracy
from wds_real.scoring.ranking.rank import rank_models
from wds_real.scoring.ranking.rows import ModelRow, read_model_row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N = 46_837
DATA = {"name": "imagenet2012_real", "split": "validation", "num_samples": 50_000, "labels_digest": "d"}


def row(name: str, correct: int, *, shift: int | None = None) -> ModelRow:
    """A model that is right on `correct` images; with `shift`, on those that follow the image of that number."""
    right = None
    if shift is not None:
        right = np.zeros(N, dtype=np.bool_)
        right[(np.arange(correct) + shift) % N] = True
    accuracies = {"real_top1": Accuracy(correct, N), "original_top1": Accuracy(correct, 50_000)}
    return ModelRow(name=name, source=f"{name}.csv", data=DATA, accuracies=accuracies, right=right)


def ranks(*rows: ModelRow) -> list[tuple[str, int, int, int]]:
    return [(model.row.name, model.rank, model.first, model.last) for model in rank_models(rows).models]


def test_models_are_ordered_by_real_top1() -> None:
    """The best is first; equal counts have equal ranks, in the order of their names."""
    found = ranks(row("c", 30_000), row("b", 40_000), row("a", 30_000), row("d", 20_000))
    assert [(name, rank) for name, rank, *_ in found] == [("b", 1), ("a", 2), ("c", 2), ("d", 4)]


def test_a_difference_within_chance_widens_the_ranks() -> None:
    """Two models that cannot be told apart share their range; the third is apart from both."""
    ranking = rank_models([row("a", 40_000), row("b", 39_990), row("c", 30_000)])
    assert [(model.first, model.last) for model in ranking.models] == [(1, 2), (1, 2), (3, 3)]
    assert ranking.close == (("a", "b"),)
    assert not ranking.paired


def test_pairs_of_answers_tell_more_than_intervals() -> None:
    """100 images more of the same are significant if none is lost, and are not if the answers differ elsewhere."""
    nested = rank_models([row("a", 40_100, shift=0), row("b", 40_000, shift=0)])
    assert nested.paired
    assert nested.close == ()
    moved = rank_models([row("a", 40_100, shift=0), row("b", 40_000, shift=3_000)])
    assert moved.close == (("a", "b"),)
    assert rank_models([row("a", 40_100), row("b", 40_000)]).close == (("a", "b"),)


def test_one_result_without_answers_is_compared_by_interval() -> None:
    """The ranking says that not every pair was compared image by image."""
    assert not rank_models([row("a", 40_000, shift=0), row("b", 30_000)]).paired


@pytest.mark.parametrize(("field", "value"), [("split", "sea"), ("num_samples", 650), ("labels_digest", "e")])
def test_results_of_other_data_are_refused(field: str, value: object) -> None:
    """The message names the file, the field and both values."""
    other = replace(row("b", 30_000), data={**DATA, field: value})
    with pytest.raises(PredictionsError, match=rf"b\.csv: {field} is {value}, that of a\.csv is {DATA[field]}"):
        rank_models([row("a", 40_000), other])


def test_no_results_are_refused() -> None:
    """A table needs a row."""
    with pytest.raises(PredictionsError, match="no results"):
        rank_models([])


def test_ten_real_models(real_data: Callable[[str], Path]) -> None:
    """The ten real prediction files have the reference counts, and no two of them are within chance."""
    counts = {
        "senet154": 40_442, "inception_v3_tf": 39_484, "densenet161": 39_203, "resnet50": 38_855,
        "nasnetamobile": 37_968, "vgg16": 37_020, "mobilenet_v1_tf": 36_390, "resnet18": 36_198,
        "squeezenet1_1": 30_657, "alexnet": 29_536,
    }  # fmt: skip
    ranking = rank_models([read_model_row(real_data(f"predictions/{name}.npz")) for name in sorted(counts)])
    found = {model.row.name: model.row.accuracies["real_top1"].correct for model in ranking.models}
    assert list(found.items()) == list(counts.items())
    assert [model.rank for model in ranking.models] == list(range(1, 11))
    assert ranking.paired
    assert ranking.close == ()
