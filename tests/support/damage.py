"""Data sets in which one image is damaged."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from wds_real.data.dataset import open_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from wds_real.data.dataset import Dataset


def damaged_copy(root: Path, copy: Path, *, position: int) -> Dataset:
    """Copy a data set, flip a bit of the image at `position` of its first shard, and return the copy, opened."""
    shutil.copytree(root, copy)
    dataset = open_dataset(copy)
    shard = copy / dataset.manifest.shards[0].name
    data = bytearray(shard.read_bytes())
    data[int(dataset.index.offset[position]) + 20] ^= 1
    shard.write_bytes(data)
    return dataset
