"""Map-style access to a packed data set: ``ds[0]``, ``ds["ILSVRC2012_val_00000293"]``, slices and splits."""

from __future__ import annotations

import bisect
from collections import Counter
from typing import TYPE_CHECKING, Any, TypedDict, cast, overload

from wds_real.data.notebook import facts_table, image_tag
from wds_real.data.reader import SampleReader
from wds_real.data.splits import sliced_split, split_positions
from wds_real.errors import PlanError
from wds_real.format.root import open_root, open_shards, read_index, read_manifest
from wds_real.image.decode import DecodeError, PillowImage, decode_image
from wds_real.image.thumbnail import thumbnail_jpeg
from wds_real.labels import classes
from wds_real.labels.agreement import AGREEMENTS, agreement
from wds_real.storage.cache import CachedRanges

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from wds_real.format.manifest import Manifest
    from wds_real.format.sample_index import SampleIndex
    from wds_real.storage.base import RangeReader
    from wds_real.storage.cache import ByteCache

__all__ = ["Dataset", "Sample", "open_dataset"]

_THUMBNAIL_SIDE = 224


class Sample(TypedDict):
    """One sample: TFDS's features, its key and its position.

    Keys:
        file_name: ``ILSVRC2012_val_00000001.JPEG``.
        image: A Pillow image in mode RGB, or what the data set's transform made of it.
        original_label: Class index 0..999 of the ILSVRC2012 ground truth.
        real_label: ReaL class indices, a list of distinct integers 0..999; empty where ReaL accepts no label.
        key: ``ILSVRC2012_val_00000001``.
        index: Position in the whole data set, also when read through a slice or split.
    """

    file_name: str
    image: Any
    original_label: int
    real_label: list[int]
    key: str
    index: int


class _ShownSample(dict[str, Any]):
    """A `Sample` that notebooks show with its image and the names of its classes."""

    def _repr_html_(self) -> str:
        """Return a table; a batch that a DataLoader collated from samples is shown as a plain dict."""
        if not isinstance(self["key"], str):
            return facts_table("batch", {name: repr(value) for name, value in self.items()})
        original, real = self["original_label"], self["real_label"]
        image = self["image"]
        return facts_table(
            self["key"],
            {
                "image": image_tag(thumbnail_jpeg(image, _THUMBNAIL_SIDE), self["key"])
                if isinstance(image, PillowImage)
                else repr(image),
                "original_label": f"{original} {classes()[original].name}",
                "real_label": ", ".join(f"{label} {classes()[label].name}" for label in real) or "none",
                "index": self["index"],
            },
        )


if TYPE_CHECKING:
    # The base class is for type checkers, so that they accept a Dataset in a DataLoader. At run time DataLoader takes
    # any object with a length and items, and code that only reads labels need not import torch, which takes seconds.
    from torch.utils.data import Dataset as TorchDataset

    _MapStyle = TorchDataset[Sample]
else:
    _MapStyle = object


class Dataset(_MapStyle):
    """A packed data set, or a part of it; works as a map-style ``torch.utils.data`` dataset.

    Attributes:
        root: The folder or URL, without secrets.
        manifest: What the whole set is.
        index: The index of the whole set: where samples lie, and their labels.
        positions: int64 (N,), ascending or as sliced: the samples of this view, as rows of `index`.
        split: The split of this view, in the notation that `open_dataset` takes.
        reader: Reads verified JPEG bytes by position.
        transform: Applied to each sample's image; None leaves the Pillow image.
    """

    def __init__(
        self,
        reader: SampleReader,
        manifest: Manifest,
        index: SampleIndex,
        *,
        positions: NDArray[np.int64],
        split: str,
        transform: Callable[[PillowImage], Any] | None = None,
    ) -> None:
        self.root = reader.url
        self.manifest = manifest
        self.index = index
        self.positions = positions
        self.split = split
        self.transform = transform
        self.reader = reader

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, item: int | str) -> Sample: ...
    @overload
    def __getitem__(self, item: slice) -> Dataset: ...
    def __getitem__(self, item: int | str | slice) -> Sample | Dataset:
        """Return a sample by its place in this view or by its key, or a part of the view by slice.

        Raises:
            IndexError: the place is not in this view.
            KeyError: the key is not in this view.
            ShardError: the bytes are damaged.
        """
        if isinstance(item, slice):
            return self._view(self.positions[item], sliced_split(self.split, item))
        if isinstance(item, str):
            return self._sample(self._position_of(item))
        return self._sample(int(self.positions[item]))

    def __iter__(self) -> Iterator[Sample]:
        return (self._sample(int(position)) for position in self.positions)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key.removesuffix(".JPEG")) is not None

    def __repr__(self) -> str:
        return f"Dataset({self.root!r}, split={self.split!r}, {len(self):,} samples, digest={self.digest[:12]})"

    def _repr_html_(self) -> str:
        index, rows = self.index, self.positions
        counts = Counter(agreement(int(index.original_label[row]), index.real_label[row]) for row in rows.tolist())
        return facts_table(
            f"Dataset {self.manifest.dataset}, {self.split}",
            {
                "root": self.root,
                "samples": f"{len(self):,}",
                "shards": f"{len(self.manifest.shards):,}",
                **{f"ReaL label {name}": f"{counts[name]:,}" for name in AGREEMENTS},
                "digest": self.digest,
            },
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of this view, in its order."""
        return tuple(self.index.keys[position] for position in self.positions)

    @property
    def digest(self) -> str:
        """The identity of the whole data set, `Manifest.digest`."""
        return self.manifest.digest

    def as_dataframe(self) -> pd.DataFrame:
        """Return keys, labels and sizes as a pandas DataFrame one row for each sample, no images (needs pandas)."""
        import pandas as pd  # noqa: PLC0415 -- an extra

        index, rows = self.index, self.positions
        return pd.DataFrame(
            {
                "key": self.keys,
                "file_name": [f"{key}.JPEG" for key in self.keys],
                "original_label": index.original_label[rows],
                "real_label": [list(index.real_label[row]) for row in rows],
                "width": index.width[rows],
                "height": index.height[rows],
                "num_bytes": index.num_bytes[rows],
            },
            index=pd.Index(rows, name="index"),
        )

    def _view(self, positions: NDArray[np.int64], split: str) -> Dataset:
        return Dataset(
            self.reader, self.manifest, self.index, positions=positions, split=split, transform=self.transform
        )

    def _find(self, key: str) -> int | None:
        """Return the row of `key` if it is in this view."""
        keys = self.index.keys
        row = bisect.bisect_left(keys, key)
        if row == len(keys) or keys[row] != key:
            return None
        positions = self.positions  # ascending, or descending after a slice with a negative step
        ascending = positions if len(positions) < 2 or positions[0] < positions[-1] else positions[::-1]
        place = int(ascending.searchsorted(row))
        return row if place < len(ascending) and ascending[place] == row else None

    def _position_of(self, key: str) -> int:
        position = self._find(key.removesuffix(".JPEG"))
        if position is None:
            raise KeyError(f"{key}: not one of the {len(self):,} samples of {self.root}, split {self.split}")
        return position

    def _sample(self, position: int) -> Sample:
        index = self.index
        key = index.keys[position]
        try:
            image = decode_image(self.reader.read(position))
        except DecodeError as error:
            raise self.reader.error(position, str(error)) from error
        sample = Sample(
            file_name=f"{key}.JPEG",
            image=image if self.transform is None else self.transform(image),
            original_label=int(index.original_label[position]),
            real_label=list(index.real_label[position]),
            key=key,
            index=position,
        )
        return cast("Sample", _ShownSample(sample))


def open_dataset(
    root: str | os.PathLike[str],
    *,
    split: str | None = None,
    transform: Callable[[PillowImage], Any] | None = None,
    storage_options: Mapping[str, str] | None = None,
    cache: ByteCache | None = None,
) -> Dataset:
    """Open a packed data set.

    Args:
        root: The folder or URL that `wds-real pack` wrote to, or `wds-real index` described.
        split: All of it (None), or a part in TFDS's notation: ``"validation[:10%]"``, ``"validation[500:600]"``.
        transform: Applied to the Pillow image of each sample read by ``ds[i]``.
        storage_options: For URLs: region, endpoint, credentials and the like, as `wds_real.open_store` takes them.
        cache: Keeps on this machine what was read over a network.

    Raises:
        StoreError: the folder or object store refused.
        ManifestError: this is not a finished data set, or its manifest or index is damaged.
        PlanError: `split` is not in that notation, names another split, or holds no sample.
    """
    store = open_root(root, storage_options)
    manifest = read_manifest(store)
    index = read_index(store, manifest)
    shards: RangeReader = open_shards(store, manifest, storage_options)
    chosen = manifest.split if split is None else split
    positions = split_positions(chosen, manifest.split, len(index))
    if not len(positions):
        raise PlanError(f"split is {chosen!r}: it holds none of the {len(index):,} samples of {shards.url}.")
    if cache is not None and shards.remote:
        digests = {shard.name: (shard.sha256, shard.num_bytes) for shard in manifest.shards if shard.sha256}
        shards = CachedRanges(shards, cache, digests)
    reader = SampleReader(shards, manifest, index)
    return Dataset(reader, manifest, index, positions=positions, split=chosen, transform=transform)
