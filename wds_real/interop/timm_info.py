"""For timm users: ``_info.json``, by which ``timm.data.create_dataset("wds/NAME", root)`` finds shards and labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wds_real.data.dataset import Dataset

__all__ = ["timm_info"]


def timm_info(dataset: Dataset) -> bytes:
    """Return the bytes of timm's ``_info.json``; ``alt_label`` makes the original label the target.

    With ``target_key="real_label"``, `create_dataset` gives the list of the ReaL labels as target instead.
    """
    manifest = dataset.manifest
    split = {
        "name": manifest.split,
        "num_samples": manifest.num_samples,
        "filenames": [shard.name for shard in manifest.shards],
        "shard_lengths": [shard.num_samples for shard in manifest.shards],
        "alt_label": "original_label",
    }
    return (json.dumps({"name": manifest.dataset, "splits": {manifest.split: split}}, indent=1) + "\n").encode("ascii")
