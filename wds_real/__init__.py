"""Evaluate image classifiers on ImageNet with ReaL labels, exactly once each image, on any number of machines."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wds_real.batch import Batch, collate
    from wds_real.breakdown import Breakdown
    from wds_real.comparison import Comparison, compare
    from wds_real.dataset import Dataset, Sample, open_dataset
    from wds_real.decode import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
    from wds_real.device import Normalize, default_device
    from wds_real.distributed import process_group
    from wds_real.errors import (
        CoverageError,
        ManifestError,
        MissingError,
        ModelError,
        PlanError,
        PredictionsError,
        ShardError,
        SourceError,
        StoreError,
        UnavailableError,
        WdsRealError,
    )
    from wds_real.evaluation import EvalOptions, evaluate
    from wds_real.foreign import index_shards
    from wds_real.labels import ClassInfo, Label, Labels
    from wds_real.loader import Loader
    from wds_real.manifest import Manifest
    from wds_real.metrics import RealAccuracy
    from wds_real.models import LoadedModel, load_model
    from wds_real.predictions import Predictions, read_predictions
    from wds_real.result import Accuracy, Coverage, Result
    from wds_real.scoring import score
    from wds_real.source import Source, open_source
    from wds_real.store import Store, open_store
    from wds_real.verification import Report, verify
    from wds_real.writer import write_shards

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
    "Normalize",
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
    "WdsRealError",
    "collate",
    "compare",
    "default_device",
    "evaluate",
    "index_shards",
    "load_model",
    "open_dataset",
    "open_source",
    "open_store",
    "process_group",
    "read_predictions",
    "score",
    "verify",
    "write_shards",
]

# No module has the name of a public function: importing it would set that name to the module.
_HOME = {
    "breakdown": ("Breakdown",),
    "comparison": ("Comparison", "compare"),
    "dataset": ("Dataset", "Sample", "open_dataset"),
    "decode": ("IMAGENET_MEAN", "IMAGENET_STD", "EvalTransform"),
    "errors": (
        "CoverageError",
        "ManifestError",
        "MissingError",
        "ModelError",
        "PlanError",
        "PredictionsError",
        "ShardError",
        "SourceError",
        "StoreError",
        "UnavailableError",
        "WdsRealError",
    ),
    "device": ("Normalize", "default_device"),
    "distributed": ("process_group",),
    "evaluation": ("EvalOptions", "evaluate"),
    "foreign": ("index_shards",),
    "labels": ("ClassInfo", "Label", "Labels"),
    "batch": ("Batch", "collate"),
    "loader": ("Loader",),
    "manifest": ("Manifest",),
    "metrics": ("RealAccuracy",),
    "models": ("LoadedModel", "load_model"),
    "predictions": ("Predictions", "read_predictions"),
    "scoring": ("score",),
    "result": ("Accuracy", "Coverage", "Result"),
    "source": ("Source", "open_source"),
    "store": ("Store", "open_store"),
    "verification": ("Report", "verify"),
    "writer": ("write_shards",),
}
_MODULE_OF = {name: f"wds_real.{module}" for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- one of the names above
    """Import a public name when it is first used: labels and packing then start without torch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'wds_real' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
