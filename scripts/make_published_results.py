"""Write wds_real/labels/data/published_results.tsv.gz from the two result tables of timm.

python scripts/make_published_results.py results-imagenet.csv results-imagenet-real.csv

The tables give percentages with three decimals. The file holds the number of correct images that each stands for: of
the 50,000 images for the original labels, and of the 46,837 that have a ReaL label.
"""

from __future__ import annotations

import csv
import gzip
import sys
from pathlib import Path

from wds_real.labels.file_names import NUM_IMAGES
from wds_real.labels.published import COLUMNS, NUM_LABELLED

TARGET = Path(__file__).parent.parent / "wds_real" / "labels" / "data" / "published_results.tsv.gz"


def main(original: str, real: str) -> None:
    """Join the two tables by model, size and crop, and write the counts."""
    real_rows = {_place(row): row for row in _rows(real)}
    lines = ["\t".join(COLUMNS)]
    for row in sorted(_rows(original), key=lambda row: (row["model"], int(row["img_size"]), row["crop_pct"])):
        same = real_rows.pop(_place(row))
        counts = [_count(row[top], NUM_IMAGES) for top in ("top1", "top5")]
        counts += [_count(same[top], NUM_LABELLED) for top in ("top1", "top5")]
        millions = row["param_count"].replace(",", "")
        lines.append("\t".join([*_place(row), row["interpolation"], millions, *map(str, counts)]))
    if real_rows:
        raise SystemExit(f"only in the ReaL table: {', '.join(place[0] for place in real_rows)}")
    TARGET.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode("ascii"), 9, mtime=0))
    print(f"{TARGET}: {len(lines) - 1:,} results, {TARGET.stat().st_size:,} bytes")


def _rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _place(row: dict[str, str]) -> tuple[str, str, str]:
    return row["model"], row["img_size"], row["crop_pct"]


def _count(percent: str, total: int) -> int:
    return round(float(percent) * total / 100)


if __name__ == "__main__":
    main(*sys.argv[1:])
