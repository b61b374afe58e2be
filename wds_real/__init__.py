"""Evaluate image classifiers on ImageNet with ReaL labels: each image exactly once, on any number of machines."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wds_real.data.batch import Batch, collate
    from wds_real.data.dataset import Dataset, Sample, open_dataset
    from wds_real.data.distributed import process_group
    from wds_real.data.loader import Loader
    from wds_real.data.undecoded import UndecodedBatch, UndecodedLoader
    from wds_real.errors import (
        CoverageError,
        ManifestError,
        MissingError,
        ModelError,
        ModelRunError,
        PlanError,
        PredictionsError,
        ShardError,
        SourceError,
        StoreError,
        UnavailableError,
        WdsRealError,
    )
    from wds_real.evaluation.device import Normalize, default_device
    from wds_real.evaluation.loop import evaluate
    from wds_real.evaluation.many import ModelOutcome, evaluate_many
    from wds_real.evaluation.metric import RealAccuracy
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.evaluation.models.load import load_model
    from wds_real.evaluation.models.source import ModelSource
    from wds_real.evaluation.options import EvalOptions
    from wds_real.evaluation.shares import evaluate_share
    from wds_real.explore.contact_sheet import show_examples
    from wds_real.explore.sample_frame import as_dataframe
    from wds_real.format.manifest import Manifest
    from wds_real.image.transform import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
    from wds_real.labels import ClassInfo, Label, Labels
    from wds_real.packing.indexer import index_shards
    from wds_real.packing.source import Source, open_source
    from wds_real.packing.verification import Report, verify
    from wds_real.packing.writer import write_shards
    from wds_real.scoring.breakdown import Breakdown
    from wds_real.scoring.comparison import Comparison, compare
    from wds_real.scoring.counts import Accuracy, Coverage
    from wds_real.scoring.prediction_reader import read_predictions
    from wds_real.scoring.predictions import Predictions
    from wds_real.scoring.ranking.pairs import PairDifference
    from wds_real.scoring.ranking.pairwise import PairwiseComparison, compare_many
    from wds_real.scoring.result import Result
    from wds_real.scoring.score import score
    from wds_real.storage.base import Store
    from wds_real.storage.store import open_store

__version__ = "0.1.0"

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Accuracy",
    "Batch",
    "Breakdown",
    "ClassInfo",
    "Comparison",
    "Coverage",
    "CoverageError",
    "Dataset",
    "EvalOptions",
    "EvalTransform",
    "Label",
    "Labels",
    "LoadedModel",
    "Loader",
    "Manifest",
    "ManifestError",
    "MissingError",
    "ModelError",
    "ModelOutcome",
    "ModelRunError",
    "ModelSource",
    "Normalize",
    "PairDifference",
    "PairwiseComparison",
    "PlanError",
    "Predictions",
    "PredictionsError",
    "RealAccuracy",
    "Report",
    "Result",
    "Sample",
    "ShardError",
    "Source",
    "SourceError",
    "Store",
    "StoreError",
    "UnavailableError",
    "UndecodedBatch",
    "UndecodedLoader",
    "WdsRealError",
    "as_dataframe",
    "collate",
    "compare",
    "compare_many",
    "default_device",
    "evaluate",
    "evaluate_many",
    "evaluate_share",
    "index_shards",
    "load_model",
    "open_dataset",
    "open_source",
    "open_store",
    "process_group",
    "read_predictions",
    "score",
    "show_examples",
    "verify",
    "write_shards",
]

# The module of each public name, relative to this package.
_HOME = {
    "data.batch": ("Batch", "collate"),
    "data.dataset": ("Dataset", "Sample", "open_dataset"),
    "data.distributed": ("process_group",),
    "data.loader": ("Loader",),
    "data.undecoded": ("UndecodedBatch", "UndecodedLoader"),
    "errors": (
        "CoverageError",
        "ManifestError",
        "MissingError",
        "ModelError",
        "ModelRunError",
        "PlanError",
        "PredictionsError",
        "ShardError",
        "SourceError",
        "StoreError",
        "UnavailableError",
        "WdsRealError",
    ),
    "evaluation.device": ("Normalize", "default_device"),
    "evaluation.loop": ("evaluate",),
    "evaluation.many": ("ModelOutcome", "evaluate_many"),
    "evaluation.metric": ("RealAccuracy",),
    "evaluation.models.base": ("LoadedModel",),
    "evaluation.models.load": ("load_model",),
    "evaluation.models.source": ("ModelSource",),
    "evaluation.options": ("EvalOptions",),
    "evaluation.shares": ("evaluate_share",),
    "explore.contact_sheet": ("show_examples",),
    "explore.sample_frame": ("as_dataframe",),
    "format.manifest": ("Manifest",),
    "image.transform": ("IMAGENET_MEAN", "IMAGENET_STD", "EvalTransform"),
    "labels": ("ClassInfo", "Label", "Labels"),
    "packing.indexer": ("index_shards",),
    "packing.source": ("Source", "open_source"),
    "packing.verification": ("Report", "verify"),
    "packing.writer": ("write_shards",),
    "scoring.breakdown": ("Breakdown",),
    "scoring.comparison": ("Comparison", "compare"),
    "scoring.counts": ("Accuracy", "Coverage"),
    "scoring.prediction_reader": ("read_predictions",),
    "scoring.predictions": ("Predictions",),
    "scoring.ranking.pairs": ("PairDifference",),
    "scoring.ranking.pairwise": ("PairwiseComparison", "compare_many"),
    "scoring.result": ("Result",),
    "scoring.score": ("score",),
    "storage.base": ("Store",),
    "storage.store": ("open_store",),
}
_MODULE_OF = {name: f"wds_real.{module}" for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- one of the names above
    """Import a public name on its first use, so that labels and packing start without torch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'wds_real' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
