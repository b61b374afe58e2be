"""For DALI users: the index files of ``fn.readers.webdataset``, which ``wds2idx`` makes by reading every shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wds_real.format.side_files import dali_name

if TYPE_CHECKING:
    from wds_real.data.dataset import Dataset

__all__ = ["dali_indexes"]

_VERSION = "v1.2"


def dali_indexes(dataset: Dataset) -> dict[str, bytes]:
    """Return an index file for each shard, by its name: that of the shard with ``.idx`` in place of ``.tar``.

    After a line with the version and the number of samples, each sample has a line: extension, offset, length and name
    of its members. They come from ``index.json``; no shard is read.
    """
    index, shards = dataset.index, dataset.manifest.shards
    offsets, lengths = index.offset.tolist(), index.num_bytes.tolist()
    json_offsets, json_lengths = index.json_offset.tolist(), index.json_num_bytes.tolist()
    files = {}
    for shard, positions in zip(shards, index.positions_by_shard(len(shards)), strict=True):
        lines = [f"{_VERSION} {len(positions)}"]
        for row in positions:
            key = index.keys[row]
            lines.append(
                f"jpg {offsets[row]} {lengths[row]} {key}.jpg "
                f"json {json_offsets[row]} {json_lengths[row]} {key}.json"
            )  # fmt: skip
        files[dali_name(shard.name)] = "\n".join([*lines, ""]).encode("utf-8")
    return files
