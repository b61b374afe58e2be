"""Write wds_real/labels/data/rater_scores.npz from the released scores: python scripts/make_rater_scores.py scores.npz.

The release has a score in 0..1 for 184,962 (image, label) pairs of 24,889 images. The file stores, for each score, the
largest k with score > k/1000. That is exact for every threshold with three decimals, in a quarter of the size.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parent.parent / "wds_real" / "labels" / "data" / "rater_scores.npz"


def main(source: str) -> None:
    """Read the released file and write the compact one."""
    with np.load(source) as released:
        score, info = released["tensor"], released["info"]
    number = np.array([int(name[15:23]) for name in info[:, 0]])
    label = info[:, 1].astype(np.int64)
    order = np.lexsort((label, number))
    number, label, score = number[order], label[order], score[order]
    permille = np.searchsorted(np.arange(1000) / 1000, score, side="left") - 1
    images, counts = np.unique(number, return_counts=True)
    np.savez_compressed(
        TARGET,
        image=images.astype(np.uint16),
        num_labels=counts.astype(np.uint8),
        label=label.astype(np.uint16),
        permille=permille.astype(np.int16),
    )
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
