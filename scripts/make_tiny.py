"""Write shards/tiny: 60 generated images under real validation names, with the real labels of these names.

python scripts/make_tiny.py [ROOT]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import wds_real
from wds_real.synthetic import write_source_tar

# Small numbers, and images whose ReaL lists are empty, are long, or lack the original label.
NUMBERS = (*range(1, 52), 94, 293, 12625, 19877, 36160, 40000, 49998, 49999, 50000)


def main(root: str) -> None:
    """Write the data set to `root`."""
    with tempfile.TemporaryDirectory() as folder:
        tar = Path(folder) / "ILSVRC2012_img_val.tar"
        write_source_tar(tar, NUMBERS, side=32)
        with wds_real.open_source(tar, allow_partial=True) as source:
            manifest = wds_real.write_shards(source, wds_real.open_store(root), samples_per_shard=25, overwrite=True)
    print(f"{root}: {manifest.num_samples} samples, digest {manifest.digest}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent.parent / "shards" / "tiny"))
