"""Cuts and flipped bits in shards and source tars: each one is reported, or changes nothing that is delivered."""

from __future__ import annotations

import os
import random
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wds_real.data.dataset import open_dataset
from wds_real.data.loader import Loader
from wds_real.format.manifest import shard_name
from wds_real.image.transform import EvalTransform
from wds_real.packing.indexer import index_shards
from wds_real.packing.source import open_source
from wds_real.packing.verification import verify
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray
    from support.tally import Tally

    from wds_real.data.dataset import Dataset
    from wds_real.format.manifest import Manifest

    Tallies = Callable[[str], AbstractContextManager[Tally]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_PAYLOAD_FLIPS = 100_000
SEED = 11


def load(dataset: Dataset, *, record: bool = False) -> dict[int, NDArray[np.uint8] | None]:
    """Return the pixels of each sample by position; None for those that are recorded as unreadable."""
    loader = Loader(
        dataset,
        batch_size=16,
        threads=1,
        transform=EvalTransform(img_size=16),
        on_error="record" if record else "raise",
    )
    found: dict[int, NDArray[np.uint8] | None] = {}
    for batch in loader:
        for row, position in enumerate(batch.index.tolist()):
            if position >= 0:
                assert position not in found
                found[position] = batch.image[row].numpy().copy() if batch.valid[row] else None
    return found


def same(found: dict[int, NDArray[np.uint8] | None], expected: dict[int, NDArray[np.uint8] | None]) -> bool:
    """Return whether two passes delivered the same."""
    return found.keys() == expected.keys() and all(np.array_equal(found[k], expected[k]) for k in found)  # type: ignore[arg-type]


def sources(path: Path) -> list[tuple[str, int, int]]:
    with open_source(path, allow_partial=True) as source:
        return [(image.label.file_name, image.offset, image.num_bytes) for image in source.images]


def index(root: Path, out: Path) -> Manifest:
    return index_shards(str(root / shard_name(0)), str(out), overwrite=True)


def headers(path: Path) -> list[int]:
    with tarfile.open(path) as tar:
        return [member.offset for member in tar]


def flip(path: Path, bits: list[int]) -> None:
    """Flip bits of a file, by number; a second time restores it."""
    with path.open("r+b") as file:
        for bit in bits:
            file.seek(bit // 8)
            byte = file.read(1)[0]
            file.seek(bit // 8)
            file.write(bytes([byte ^ 1 << bit % 8]))


def test_every_cut_of_a_shard(shard_of_twenty: Path, tmp_path: Path, tally: Tallies) -> None:
    """Cut at any byte: verify and index refuse; the Loader raises, or with record names exactly what it cannot read."""
    root, shard = shard_of_twenty, shard_of_twenty / shard_name(0)
    dataset = open_dataset(root)
    whole, stops = load(dataset), dataset.index.offset + dataset.index.num_bytes
    with (
        tally("every cut of a shard, verify") as verified,
        tally("every cut of a shard, Loader") as loaded,
        tally("every cut of a shard, index") as indexed,
    ):
        for cut in range(shard.stat().st_size - 1, -1, -1):
            os.truncate(shard, cut)
            report = verified.attempt(cut, lambda: verify(LocalStore(root), jobs=1))
            verified.expect(cut, isinstance(report, Exception) or bool(report.problems), "reported")
            fresh = open_dataset(root)
            lost = set(np.flatnonzero(stops > cut).tolist())
            found = loaded.attempt(cut, lambda: load(fresh))  # noqa: B023 -- called at once
            if lost:
                loaded.expect(cut, isinstance(found, Exception), "raised")
            else:
                loaded.expect(cut, not isinstance(found, Exception) and same(found, whole), "delivered whole")
            recorded = loaded.attempt(cut, lambda: load(fresh, record=True))  # noqa: B023
            expected = {position: None if position in lost else pixels for position, pixels in whole.items()}
            loaded.expect(cut, not isinstance(recorded, Exception) and same(recorded, expected), "listed exactly")
            result = indexed.attempt(cut, lambda: index(root, tmp_path / "index"))
            indexed.expect(cut, isinstance(result, Exception), "raised")


def test_every_cut_of_a_source(copy_of_twenty: Path, tally: Tallies) -> None:
    """Cut at any byte: the source is refused, or only zeros behind the end of the archive were lost."""
    whole, path = sources(copy_of_twenty), copy_of_twenty
    with tally("every cut of a source") as counts:
        for cut in range(path.stat().st_size - 1, -1, -1):
            os.truncate(path, cut)
            found = counts.attempt(cut, lambda: sources(path))
            counts.expect(cut, isinstance(found, Exception) or found == whole, "raised or whole")


def test_every_header_bit_of_a_shard(shard_of_twenty: Path, tmp_path: Path, tally: Tallies) -> None:
    """Any bit of a tar header flipped: verify reports it; index refuses it or finds the same; the Loader delivers."""
    root, shard = shard_of_twenty, shard_of_twenty / shard_name(0)
    whole, indexed_whole = load(open_dataset(root)), index(root, tmp_path / "index").index_sha256
    with (
        tally("every header bit of a shard, verify") as verified,
        tally("every header bit of a shard, index") as indexed,
        tally("every header bit of a shard, Loader (every 61st)") as loaded,
    ):
        for start in headers(shard):
            for bit in range(8 * start, 8 * (start + 512)):
                flip(shard, [bit])
                report = verified.attempt(bit, lambda: verify(LocalStore(root), jobs=1))
                verified.expect(bit, isinstance(report, Exception) or bool(report.problems), "reported")
                result = indexed.attempt(bit, lambda: index(root, tmp_path / "index"))
                indexed.expect(
                    bit, isinstance(result, Exception) or result.index_sha256 == indexed_whole, "raised or the same"
                )
                if bit % 61 == 0:
                    found = loaded.attempt(bit, lambda: load(open_dataset(root)))
                    loaded.expect(bit, not isinstance(found, Exception) and same(found, whole), "delivered whole")
                flip(shard, [bit])


def test_every_header_bit_of_a_source(copy_of_twenty: Path, tally: Tallies) -> None:
    """Any bit of a tar header flipped: the source is refused, or gives the same images at the same places."""
    whole, path = sources(copy_of_twenty), copy_of_twenty
    with tally("every header bit of a source") as counts:
        for start in headers(path):
            for bit in range(8 * start, 8 * (start + 512)):
                flip(path, [bit])
                found = counts.attempt(bit, lambda: sources(path))
                counts.expect(bit, isinstance(found, Exception) or found == whole, "raised or the same")
                flip(path, [bit])


@pytest.mark.parametrize(("external", "flips"), [(False, NUM_PAYLOAD_FLIPS), (True, NUM_PAYLOAD_FLIPS // 10)])
def test_flipped_bits_in_images(
    shard_of_twenty: Path, tmp_path: Path, tally: Tallies, external: bool, flips: int
) -> None:
    """Bits flipped in some images: verify and the Loader name exactly these, and deliver the others unchanged."""
    root, shard = shard_of_twenty, shard_of_twenty / shard_name(0)
    if external:
        index_shards(str(shard), str(tmp_path / "index"), checksums=True)
        root = tmp_path / "index"
    dataset = open_dataset(root)
    whole, chance, flipped = load(dataset), random.Random(SEED), 0  # noqa: S311 -- not for secrets
    starts, lengths = dataset.index.offset.tolist(), dataset.index.num_bytes.tolist()
    kind = "an external shard with checksums" if external else "a shard"
    with (
        tally(f"{flips:,} payload flips in {kind}, seed {SEED}, verify") as verified,
        tally(f"{flips:,} payload flips in {kind}, seed {SEED}, Loader") as loaded,
    ):
        while flipped < flips:
            chosen = sorted(chance.sample(range(len(starts)), chance.randint(1, len(starts))))
            bits = [8 * starts[place] + chance.randrange(8 * lengths[place]) for place in chosen]
            flipped += len(bits)
            flip(shard, bits)
            named = {f"{dataset.index.keys[place]}.jpg" for place in chosen}
            report = verified.attempt(bits, lambda: verify(LocalStore(root), jobs=1))
            assert not isinstance(report, Exception)
            shown = " ".join(report.problems)
            verified.expect(
                bits, {f"{key}.jpg" for key in dataset.index.keys if f"{key}.jpg" in shown} == named, "named exactly"
            )
            found = loaded.attempt(bits, lambda: load(open_dataset(root), record=True))
            expected = {position: None if position in chosen else pixels for position, pixels in whole.items()}
            loaded.expect(bits, not isinstance(found, Exception) and same(found, expected), "listed exactly")
            flip(shard, bits)
