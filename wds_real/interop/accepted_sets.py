"""Which data sets side files and cards can describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wds_real.errors import StoreError
from wds_real.format.manifest import DATASET

if TYPE_CHECKING:
    from wds_real.data.dataset import Dataset

__all__ = ["check_images_known", "check_written_here"]


def check_images_known(dataset: Dataset) -> None:
    """Raise StoreError unless a data set holds the validation images, whose origin and licence a card can tell."""
    if dataset.manifest.dataset != DATASET:
        raise StoreError(
            f"{dataset.root}: holds the data set {dataset.manifest.dataset}, expected {DATASET}: "
            "where other images come from, and their licence, are not known here. `wds-real info` shows its counts."
        )


def check_written_here(dataset: Dataset) -> None:
    """Raise StoreError unless `wds-real pack` wrote the shards, so that their members are known."""
    check_images_known(dataset)
    if dataset.manifest.external:
        raise StoreError(
            f"{dataset.root}: another tool wrote the shards, so the names of their members are not known. Side files "
            "are made for what `wds-real pack` writes; DALI's own wds2idx indexes any shard."
        )
