"""Values that must never move: facts of the released labels, one plan, and the bytes of one small data set.

A change here changes what every number ever reported means. Say so in the commit.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import io
import json
import tarfile
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from wds_real.data import plan
from wds_real.errors import SourceError
from wds_real.format.tar import encode_header
from wds_real.labels import bundled, by_file_name, classes
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.scoring.targets import Targets
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    from wds_real.format.manifest import Manifest

MAX = 2**64 - 1
KEYS = [f"ILSVRC2012_val_{number:08d}" for number in range(1, 50_001)]
SET_DIGEST = "875b05145e7e06bcfc6797be5dbddb3b9e202b28903f420a889f1b22c33a34be"


def bundled_bytes(name: str) -> bytes:
    return gzip.decompress((importlib.resources.files("wds_real") / "labels" / "data" / f"{name}.gz").read_bytes())


def picture(number: int) -> bytes:
    """Return a JPEG frame header of 100 + number by 200 pixels and some filling: all that packing looks at."""
    frame = bytes([8, 0, 200, 0, 100 + number, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1])
    return b"\xff\xd8\xff\xc0\x00\x11" + frame + bytes([number]) * (400 + 37 * number) + b"\xff\xd9"


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Seven images, packed three a shard from an unsorted tar, whose every byte is fixed by this file."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(folder / "source.tar", "w") as tar:
        for number in (5, 2, 7, 1, 3, 6, 4):
            info = tarfile.TarInfo(f"ILSVRC2012_val_{number:08d}.JPEG")
            info.size = len(picture(number))
            tar.addfile(info, io.BytesIO(picture(number)))
    with open_source(folder / "source.tar", allow_partial=True) as source:
        return folder / "root", write_shards(source, LocalStore(folder / "root"), samples_per_shard=3)


def test_real_json_is_the_released_file() -> None:
    """388,478 bytes with the digest of the release."""
    data = bundled_bytes("real.json")
    assert len(data) == 388_478
    assert hashlib.sha256(data).hexdigest() == "d83e9bff374c631aae8439eb064c7019acc56e1b3bc3f56b8380c2a710b0220b"


def test_real_labels_have_the_released_counts() -> None:
    """50,000 lists, 3,163 empty (not "about 3500"), 46,837 scored, 57,553 labels, lengths 0 to 9."""
    lengths = Counter(len(labels) for labels in bundled().real)
    assert [lengths[length] for length in range(10)] == [3163, 39394, 5408, 1319, 411, 161, 88, 41, 13, 2]
    assert sum(lengths.values()) == 50_000
    assert sum(length * count for length, count in lengths.items()) == 57_553
    assert 50_000 - lengths[0] == 46_837


def test_real_labels_keep_the_released_order() -> None:
    """The lists are sets in an order of their own: 3,957 are not ascending, and none is sorted on the way."""
    assert sum(any(a > b for a, b in pairwise(labels)) for labels in bundled().real) == 3_957
    assert [list(labels) for labels in bundled().real] == json.loads(bundled_bytes("real.json"))


def test_the_first_image_is_the_off_by_one_canary() -> None:
    """Image 1 has no ReaL label and the original label 65; image 0 does not exist."""
    first = by_file_name("ILSVRC2012_val_00000001.JPEG")
    assert (first.original_label, first.real_label, first.key) == (65, (), KEYS[0])
    assert (bundled().original[0], bundled().real[0]) == (65, ())
    with pytest.raises(SourceError):
        by_file_name("ILSVRC2012_val_00000000.JPEG")


def test_original_and_real_labels_relate_as_released() -> None:
    """Equal 35,716; single but different 3,678; several with and without the original 6,448 and 995; empty 3,163."""
    kinds = Counter(
        (min(len(real), 2), original in real) for original, real in zip(bundled().original, bundled().real, strict=True)
    )
    assert kinds == {(1, True): 35_716, (1, False): 3_678, (2, True): 6_448, (2, False): 995, (0, False): 3_163}
    right = kinds[1, True] + kinds[2, True]
    assert (right, round(100 * right / 46_837, 4)) == (42_164, 90.0228)


def test_labels_joined_one_off_agree_no_better_than_chance() -> None:
    """Shifted by one image either way, the original labels fit ReaL's by chance only: the join is at its place."""
    original, real = bundled().original, bundled().real
    pairs = (zip(original[1:], real[:-1], strict=True), zip(original[:-1], real[1:], strict=True))
    assert [sum(label in accepted for label, accepted in shifted) for shifted in pairs] == [59, 53]


def test_class_indices_are_places_of_sorted_wnids() -> None:
    """0..999 by wnid, 50 images each; sea snake is 65, not the development kit's 490."""
    wnids = [info.wnid for info in classes()]
    assert wnids == sorted(set(wnids))
    assert len(wnids) == 1000
    assert (wnids[0], wnids[65], wnids[999]) == ("n01440764", "n01751748", "n15075141")
    assert (classes()[0].name, classes()[65].name, classes()[999].name) == ("tench", "sea snake", "toilet tissue")
    assert Counter(bundled().original) == dict.fromkeys(range(1000), 50)


def test_the_labels_digest_is_pinned() -> None:
    """The identity of all 50,000 released labels, as it stands in manifests and results."""
    assert Targets.of_labels().identity == {
        "name": "imagenet2012_real",
        "split": "validation",
        "labels_digest": "91a64861f1c735702559f25050efc95e8a1c76859dbdae7cafd007b64bc53d84",
    }


@pytest.mark.parametrize(
    "head", [b"", b"<!DOCTYPE html>" * 100, b"\x1f\x8b" + bytes(600), b"PK\x03\x04" + bytes(600), b"\xff\xd8" * 600]
)
def test_a_source_that_is_no_tar_is_told_from_the_official_one(tmp_path: Path, head: bytes) -> None:
    """The error says what it looks like, or the official tar's length and MD5."""
    path = tmp_path / "ILSVRC2012_img_val.tar"
    path.write_bytes(head)
    with pytest.raises(SourceError, match=r"empty|web page|gzip|zip archive|an image") as caught:
        open_source(path)
    official = "6,744,924,160 bytes and MD5 29b22e2961454d5413ddabcf34fc5622"
    assert (official in str(caught.value)) == (not head)


@pytest.mark.parametrize(
    ("seed", "epoch", "first", "sha256"),
    [
        (0, 0, [35686, 2240, 17397], "96eb59374097e79a13e1e5a39e150022b5af21b901857ab0a340a71716ef79c6"),
        (0, 1, [17406, 39511, 49371], "63366afc63d944bfb5ae52439c63a1a46087975a1019be5b28528b17ea6bc0e4"),
        (1, 0, [25053, 48111, 12917], "81329cf670e7299987311c314d30f5f40f9859e14df32d772f652bd968992fb1"),
        (MAX, MAX, [43390, 26766, 7454], "6d5411b1ebd65ec1e287c491296fd38452f5ecee8afeb7c9e61633cde6f07767"),
    ],
)
def test_shuffled_orders_are_pinned(seed: int, epoch: int, first: list[int], sha256: str) -> None:
    """The permutation of the 50,000 images is the same on every machine and for ever."""
    order = plan.shuffled_order(KEYS, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(50_000))
    assert order[:3].tolist() == first
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest() == sha256


def test_one_plan_is_pinned() -> None:
    """50,000 images in batches of 256 on 24 ranks: 196 batches, 9 steps, these shares, this last batch."""
    total = plan.num_batches(50_000, 256)
    shares = [plan.share(total, rank=rank, world_size=24) for rank in range(24)]
    assert (total, plan.num_steps(total, world_size=24)) == (196, 9)
    assert [share.start for share in shares] == [
        0, 8, 16, 24, 32, 40, 49, 57, 65, 73, 81, 89, 98, 106, 114, 122, 130, 138, 147, 155, 163, 171, 179, 187,
    ]  # fmt: skip
    order = plan.shuffled_order(KEYS, seed=0, epoch=0)
    last = plan.batch(order, 195, batch_size=256)
    assert (len(last), last[-3:].tolist()) == (80, [12452, 14739, 43913])


def test_a_member_header_is_pinned() -> None:
    """Field by field, as in the ustar standard."""
    header = encode_header("ILSVRC2012_val_00000001.jpg", 109_527)
    fields = (0, 100), (100, 108), (108, 116), (116, 124), (124, 136), (136, 148), (148, 156), (156, 157), (257, 265)
    assert [header[start:stop].rstrip(b"\0") for start, stop in fields] == [
        b"ILSVRC2012_val_00000001.jpg",
        b"0000644",
        b"0000000",
        b"0000000",
        b"00000325727",
        b"00000000000",
        b"013040\0 ",
        b"0",
        b"ustar\x0000",
    ]
    assert header[265:329] == bytes(64)
    assert header[345:] == bytes(167)


def test_the_small_sets_shards_are_pinned(small_set: tuple[Path, Manifest]) -> None:
    """The bytes of every shard of seven made-up images, members in order."""
    root, manifest = small_set
    assert [(shard.num_samples, shard.num_bytes, shard.sha256[:16]) for shard in manifest.shards] == [
        (3, 7680, "5c908eb3464bbaa0"),
        (3, 8704, "f7d0a47ab159b775"),
        (1, 3584, "9f9dbc0ce1306c00"),
    ]
    for shard in manifest.shards:
        assert hashlib.sha256((root / shard.name).read_bytes()).hexdigest() == shard.sha256
    with tarfile.open(root / manifest.shards[2].name) as tar:
        assert tar.getnames() == ["ILSVRC2012_val_00000007.jpg", "ILSVRC2012_val_00000007.json"]
        file = tar.extractfile("ILSVRC2012_val_00000007.json")
        assert file is not None
        assert (
            file.read() == b'{"file_name": "ILSVRC2012_val_00000007.JPEG", "original_label": 334, "real_label": [334]}'
        )


def test_the_small_sets_index_is_pinned(small_set: tuple[Path, Manifest]) -> None:
    """Each column of the index of seven made-up images."""
    root, _ = small_set
    assert json.loads((root / "index.json").read_bytes()) == {
        "key": KEYS[:7],
        "shard": [0, 0, 0, 1, 1, 1, 2],
        "offset": [512, 2560, 4608, 512, 3072, 5632, 512],
        "num_bytes": [460, 497, 534, 571, 608, 645, 682],
        "json_offset": [1536, 3584, 6144, 2048, 4608, 7168, 2048],
        "json_num_bytes": [85, 94, 94, 89, 94, 87, 89],
        "checksum": [
            "a874111c6e8ef5cf",
            "cdbb6e00e2aee51c",
            "6e63f3c890acf44d",
            "a3637eb0831e7216",
            "da29c3f21422dc60",
            "dd4ec00e505bb8c1",
            "8622847765c2caa9",
        ],
        "width": [101, 102, 103, 104, 105, 106, 107],
        "height": [200] * 7,
        "original_label": [65, 970, 230, 809, 516, 57, 334],
        "real_label": [[], [970, 795], [230, 231], [809], [516, 850], [57], [334]],
    }


def test_the_small_sets_digest_is_pinned(small_set: tuple[Path, Manifest]) -> None:
    """The identity of the set, over shards, index, labels and source."""
    root, manifest = small_set
    assert sorted(path.name for path in root.iterdir()) == sorted(
        ["index.json", "manifest.json", *(shard.name for shard in manifest.shards)]
    )
    assert manifest.source_digest == "6220ba10e3b9f3fd5225522dcc31ff03d22640f3f26904d35ae8f439fa797089"
    assert manifest.labels_digest == "0476c6164c19ef9c4ff4f3239e7a5ce8c4993329b91d71a90e7512f97bb5615c"
    assert manifest.index_sha256 == "ec23c15c25def5f884e4d916eabf6898e217a5ed461affa7c976f9ec27befd1b"
    assert manifest.digest == SET_DIGEST
    assert json.loads((root / "manifest.json").read_bytes())["digest"] == SET_DIGEST
