"""Pack the validation tar from Python: python scripts/write_shards.py ILSVRC2012_img_val.tar shards."""

from __future__ import annotations

import argparse

import wds_real


def main() -> None:
    """Read the arguments, pack, and verify the shards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="ILSVRC2012_img_val.tar, as a file or a URL, or a folder of its JPEGs")
    parser.add_argument("root", help="folder or URL to write to")
    parser.add_argument("--allow-partial", action="store_true", help="accept fewer than the 50,000 images")
    arguments = parser.parse_args()

    store = wds_real.open_store(arguments.root)
    with wds_real.open_source(arguments.source, allow_partial=arguments.allow_partial) as source:
        manifest = wds_real.write_shards(source, store)
    report = wds_real.verify(store, level="full")
    print(f"{manifest.num_samples:,} samples, digest {manifest.digest}, {len(report.problems)} problems")


if __name__ == "__main__":
    main()
