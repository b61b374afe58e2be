"""The accuracies equal those of torchmetrics, and those of the code that the label project publishes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from wds_real.data.dataset import Dataset, open_dataset
from wds_real.evaluation.metric import RealAccuracy
from wds_real.labels import NUM_CLASSES, NUM_IMAGES, bundled, classes
from wds_real.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@pytest.fixture(scope="module")
def retrieval() -> Any:
    return pytest.importorskip("torchmetrics.retrieval", reason="torchmetrics is not installed")


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    return open_dataset(packed)


def labels_of(ds: Dataset) -> list[tuple[int, ...]]:
    return [ds.index.real_label[row] for row in ds.positions]


def random_scores(ds: Dataset, seed: int) -> torch.Tensor:
    """Return distinct scores float (N, 1000) that favour a ReaL label, the original one or its neighbour."""
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(NUM_CLASSES, dtype=np.float32) / 100, (len(ds), 1)), axis=1)
    for row, (original, real) in enumerate(zip(ds.index.original_label.tolist(), labels_of(ds), strict=True)):
        for label in {original, (original + 1) % NUM_CLASSES, *real[:1]}:
            scores[row, label] += rng.integers(4) * 4 + rng.random() / 200
    return torch.from_numpy(scores)


def hit_rate(retrieval: Any, scores: torch.Tensor, accepted: Sequence[tuple[int, ...]], k: int) -> float:
    """Return torchmetrics' share of images with an accepted class among the k highest, of those that have one."""
    target = torch.zeros(scores.shape, dtype=torch.bool)
    for row, labels in enumerate(accepted):
        target[row, list(labels)] = True
    queries = torch.arange(len(scores))[:, None].expand_as(scores)
    metric = retrieval.RetrievalHitRate(top_k=k, empty_target_action="skip")
    return float(metric(scores.flatten(), target.flatten(), indexes=queries.flatten()))


@pytest.mark.parametrize("seed", [0, 1])
def test_accuracies_are_hit_rates(retrieval: Any, ds: Dataset, seed: int) -> None:
    """ReaL top 1 and top 5, and the original ones, are the hit rates of a retrieval of labels by score."""
    scores = random_scores(ds, seed)
    metric = RealAccuracy(ds)
    for start in range(0, len(ds), 50):
        metric.update(scores[start : start + 50], ds.keys[start : start + 50])
    result = metric.compute()
    original = [(label,) for label in ds.index.original_label.tolist()]
    labelled = [pair if real else () for pair, real in zip(original, labels_of(ds), strict=True)]
    expected = {
        "real_top1": hit_rate(retrieval, scores, labels_of(ds), 1),
        "real_top5": hit_rate(retrieval, scores, labels_of(ds), 5),
        "original_top1": hit_rate(retrieval, scores, original, 1),
        "original_top5": hit_rate(retrieval, scores, original, 5),
        "original_top1_labelled": hit_rate(retrieval, scores, labelled, 1),
    }
    assert {name: getattr(result, name).value for name in expected} == pytest.approx(expected, abs=1e-6)
    assert 0.1 < expected["real_top1"] < expected["real_top5"] < 1, "the draw must not be trivial"


def test_single_classes_are_hit_rates_of_one_hot_scores(retrieval: Any, ds: Dataset) -> None:
    """A model that gives one class is one that scores it 1 and all others 0."""
    said = random_scores(ds, 2).argmax(dim=1)
    metric = RealAccuracy(ds)
    metric.update(said, ds.keys)
    scores = torch.nn.functional.one_hot(said, NUM_CLASSES).float()
    assert metric.compute().real_top1.value == pytest.approx(hit_rate(retrieval, scores, labels_of(ds), 1), abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_scoring_is_the_label_projects_own_line(real_data: Callable[[str], Path], seed: int) -> None:
    """All 50,000 at random, half of them right: the share is np.mean over the released lists, by place and by name."""
    real_labels = json.loads(real_data("real.json").read_bytes())
    rng = np.random.default_rng(seed)
    predictions = np.where(rng.random(NUM_IMAGES) < 0.5, bundled().original, rng.integers(NUM_CLASSES, size=NUM_IMAGES))
    is_correct = [pred in real_labels[i] for i, pred in enumerate(predictions) if real_labels[i]]
    result = score(predictions)
    assert (result.real_top1.correct, result.real_top1.total) == (sum(is_correct), len(is_correct))
    assert result.real_top1.value == np.mean(is_correct)
    order = rng.permutation(NUM_IMAGES).tolist()
    named = {f"ILSVRC2012_val_{i + 1:08d}_{classes()[bundled().original[i]].wnid}.JPEG": predictions[i] for i in order}
    assert score(named).real_top1 == result.real_top1
