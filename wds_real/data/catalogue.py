"""The facts of a data set that its catalogue page shows: features, citation, and statistics of labels and images."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.image.jpeg_header import JpegError, jpeg_frame
from wds_real.labels import NUM_CLASSES
from wds_real.labels.agreement import AGREEMENTS, agreement

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset

__all__ = ["CITATIONS", "DESCRIPTION", "FEATURES", "SUPERVISED_KEYS", "catalogue", "image_modes"]

DESCRIPTION = (
    "The validation set of ImageNet-2012 (ILSVRC2012) with its original labels and the re-assessed labels (ReaL) of "
    "'Are we done with ImageNet?': several labels for some images, none for others."
)
FEATURES = {
    "file_name": "text",
    "image": "JPEG, RGB when decoded, uint8 (H, W, 3)",
    "original_label": f"class index 0..{NUM_CLASSES - 1}",
    "real_label": f"set of class indices 0..{NUM_CLASSES - 1}, empty for some images",
}
SUPERVISED_KEYS = ("image", "real_label")
CITATIONS = {
    "labels": "Beyer, Hénaff, Kolesnikov, Zhai, van den Oord: Are we done with ImageNet? arXiv:2006.07159, 2020",
    "images": "Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge. IJCV 115(3), 2015, "
    "doi:10.1007/s11263-015-0816-y",
}
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}  # Pillow's names, by the number of components


def catalogue(dataset: Dataset) -> dict[str, Any]:
    """Return the facts of the whole data set, JSON-ready, from manifest and index alone."""
    manifest, index = dataset.manifest, dataset.index
    lengths = Counter(map(len, index.real_label))
    agreements = Counter(map(agreement, index.original_label.tolist(), index.real_label))
    return {
        "root": dataset.root,
        "dataset": manifest.dataset,
        "version": manifest.version,
        "split": manifest.split,
        "splits": {manifest.split: manifest.num_samples},
        "num_samples": manifest.num_samples,
        "partial": manifest.partial,
        "features": FEATURES,
        "supervised_keys": list(SUPERVISED_KEYS),
        "num_shards": len(manifest.shards),
        "num_bytes": sum(shard.num_bytes for shard in manifest.shards),
        "with_real_label": len(index) - lengths[0],
        "without_real_label": lengths[0],
        "real_labels": sum(map(len, index.real_label)),
        "images_by_number_of_real_labels": {str(length): lengths[length] for length in sorted(lengths)},
        "images_by_agreement": {name: agreements[name] for name in AGREEMENTS},
        "images": {
            "width": _spread(index.width),
            "height": _spread(index.height),
            "num_bytes": _spread(index.num_bytes),
        },
        "source": manifest.source,
        "labels_digest": manifest.labels_digest,
        "source_digest": manifest.source_digest,
        "digest": manifest.digest,
        "citation": CITATIONS,
    }


def image_modes(dataset: Dataset, *, advance: Callable[[int], None] = lambda _: None) -> dict[str, int]:
    """Return how many images of `dataset` have which colour mode, in Pillow's names; every image is read.

    Args:
        dataset: The data set whose images are read, without decoding.
        advance: Called with the number of images after each.

    Raises:
        ShardError: the bytes of an image are damaged.
    """
    counts = Counter[str]()
    for position in dataset.positions.tolist():
        data = dataset.reader.read(position)
        try:
            components = jpeg_frame(data)[2]
            mode = _MODES.get(components, f"{components} components")
        except JpegError:
            mode = "not a JPEG"
        counts[mode] += 1
        advance(1)
    return dict(sorted(counts.items()))


def _spread(values: NDArray[np.int64]) -> dict[str, int] | None:
    """Return the smallest, the median and the largest value; None if some are not known."""
    if not values.all():
        return None
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
