"""Packing: the same input gives the same bytes, and an interrupted run ends as an undisturbed one."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wds_real.errors import SourceError, StoreError
from wds_real.format import source_tar
from wds_real.format.source_tar import SourceTar
from wds_real.labels import bundled, classes
from wds_real.packing import source as source_module
from wds_real.packing import writer
from wds_real.packing.source import open_source
from wds_real.packing.verification import verify
from wds_real.packing.writer import plan_shards, write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import labels_of, write_source_tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wds_real.format.manifest import Manifest
    from wds_real.packing.source import SourceImage

SHARDS = [f"imagenet2012_real-validation-{number:06d}.tar" for number in range(3)]


@pytest.fixture(scope="module")
def pictures(made_tar: Path) -> dict[str, bytes]:
    """The made-up images by official name, as the standard library reads them."""
    with tarfile.open(made_tar) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in sorted(files.items()) if file is not None}


def tree(root: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pack(source: Path, root: Path, *, jobs: int = 2, samples_per_shard: int = 50, overwrite: bool = False) -> Manifest:
    with open_source(source, allow_partial=True) as opened:
        return write_shards(
            opened, LocalStore(root), samples_per_shard=samples_per_shard, jobs=jobs, overwrite=overwrite
        )


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("layout", ["tar", "flat", "by class", "Hugging Face"])
def test_bytes_depend_on_images_and_labels_alone(
    made_tar: Path, packed: Path, pictures: dict[str, bytes], tmp_path: Path, jobs: int, layout: str
) -> None:
    """Neither the number of jobs nor where the images come from changes a byte of any file."""
    source = made_tar
    if layout != "tar":
        for name, data in pictures.items():
            wnid = classes()[bundled().by_file_name(name).original_label].wnid
            stem = name.removesuffix(".JPEG")
            path = {"flat": name, "by class": f"{wnid}/{name}", "Hugging Face": f"{stem}_{wnid}.JPEG"}[layout]
            (tmp_path / "source" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "source" / path).write_bytes(data)
        source = tmp_path / "source"
    pack(source, tmp_path / "set", jobs=jobs)
    assert tree(tmp_path / "set") == tree(packed)


def test_shards_hold_each_image_and_its_label_once_in_key_order(packed: Path, pictures: dict[str, bytes]) -> None:
    """Read by the standard library: KEY.jpg then KEY.json, sorted, the source's bytes, nothing of the machine."""
    found: dict[str, bytes] = {}
    for name in SHARDS:
        with tarfile.open(packed / name, "r:") as tar:
            for member in tar:
                assert member.isreg()
                assert (member.mode, member.uid, member.gid, member.mtime) == (0o644, 0, 0, 0)
                assert (member.uname, member.gname, member.linkname) == ("", "", "")
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
            assert (packed / name).stat().st_size == member.offset_data + (member.size + 511) // 512 * 512 + 1024
    expected: dict[str, bytes] = {}
    for label in labels_of(range(1, 121)):
        fields = {
            "file_name": label.file_name,
            "original_label": label.original_label,
            "real_label": list(label.real_label),
        }
        expected[f"{label.key}.jpg"] = pictures[label.file_name]
        expected[f"{label.key}.json"] = json.dumps(fields).encode()
    assert list(found.items()) == list(expected.items())


def test_manifest_names_every_file_by_its_digest(packed: Path, pictures: dict[str, bytes]) -> None:
    """The manifest's counts, lengths and digests are those that hashlib finds in the files and in the source."""
    body = json.loads((packed / "manifest.json").read_bytes())
    assert [shard["name"] for shard in body["shards"]] == SHARDS
    assert [shard["num_samples"] for shard in body["shards"]] == [50, 50, 20]
    for entry in [*body["shards"], body["index"]]:
        data = (packed / entry["name"]).read_bytes()
        assert (entry["num_bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    lines = [f"{name} {len(data)} {xxhash.xxh3_64_hexdigest(data)}\n" for name, data in sorted(pictures.items())]
    assert body["source"] == {
        "num_bytes": sum(map(len, pictures.values())),
        "digest": hashlib.sha256("".join(lines).encode()).hexdigest(),
    }
    digest = body.pop("digest")
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    assert digest == hashlib.sha256(canonical).hexdigest()
    assert (body["num_samples"], body["partial"]) == (120, True)
    assert sorted(path.name for path in packed.iterdir()) == [*SHARDS, "index.json", "manifest.json"]


def test_index_says_where_each_image_and_label_lies(packed: Path, pictures: dict[str, bytes]) -> None:
    """A reader with nothing but index.json finds each JPEG, its label, its checksum and its size in pixels."""
    columns = json.loads((packed / "index.json").read_bytes())
    assert {len(column) for column in columns.values()} == {120}
    for row, (name, picture) in enumerate(sorted(pictures.items())):
        at = {column: values[row] for column, values in columns.items()}
        shard = (packed / SHARDS[at["shard"]]).read_bytes()
        label = json.loads(shard[at["json_offset"] : at["json_offset"] + at["json_num_bytes"]])
        assert f"{at['key']}.JPEG" == name == label["file_name"]
        assert shard[at["offset"] : at["offset"] + at["num_bytes"]] == picture
        assert at["checksum"] == xxhash.xxh3_64_hexdigest(picture)
        assert (at["width"], at["height"]) == Image.open(io.BytesIO(picture)).size
        assert (at["original_label"], at["real_label"]) == (label["original_label"], label["real_label"])


@given(num_images=st.integers(0, 300), samples_per_shard=st.integers(1, 400))
def test_a_plan_cuts_all_images_into_full_shards_and_one_rest(num_images: int, samples_per_shard: int) -> None:
    """Every image is in one shard, in order; all shards but the last are full."""
    images: list[SourceImage] = list(range(num_images))  # type: ignore[arg-type]  # the plan looks at none of them
    shards = plan_shards(images, samples_per_shard=samples_per_shard)
    assert [image for shard in shards for image in shard.images] == images
    assert all(len(shard.images) == samples_per_shard for shard in shards[:-1])
    assert all(shard.images for shard in shards)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert len({shard.name for shard in shards}) == len(shards)


@pytest.mark.parametrize("wrong", [{"samples_per_shard": 0}, {"samples_per_shard": -1}, {"jobs": -1}])
def test_an_impossible_argument_is_refused_before_anything_is_touched(
    made_tar: Path, packed: Path, tmp_path: Path, wrong: dict[str, int]
) -> None:
    """A wrong argument does not cost the finished set that was to be replaced."""
    (tmp_path / "manifest.json").write_bytes((packed / "manifest.json").read_bytes())
    before = tree(tmp_path)
    with open_source(made_tar, allow_partial=True) as source, pytest.raises(ValueError, match=r"."):
        write_shards(source, LocalStore(tmp_path), overwrite=True, **wrong)  # type: ignore[arg-type]
    assert tree(tmp_path) == before


def test_a_finished_set_is_not_written_over(made_tar: Path, tmp_path: Path) -> None:
    """Packing into a folder that holds a finished set is an error that leaves it as it is."""
    pack(made_tar, tmp_path / "set")
    before = tree(tmp_path / "set")
    with pytest.raises(StoreError, match="--overwrite"):
        pack(made_tar, tmp_path / "set", samples_per_shard=7)
    assert tree(tmp_path / "set") == before


@pytest.mark.parametrize("samples_per_shard", [7, 50, 120, 1000])
def test_overwrite_replaces_a_finished_set(made_tar: Path, tmp_path: Path, samples_per_shard: int) -> None:
    """With overwrite the folder ends as if nothing had been there, whether it had more shards or fewer."""
    fresh, used = tmp_path / "fresh", tmp_path / "used"
    pack(made_tar, fresh, samples_per_shard=samples_per_shard)
    pack(made_tar, used, samples_per_shard=30)
    pack(made_tar, used, samples_per_shard=samples_per_shard, overwrite=True)
    assert tree(used) == tree(fresh)


def test_overwrite_with_other_labels_changes_the_identity(made_tar: Path, tmp_path: Path) -> None:
    """Other labels over the same pictures are another data set, label members and all."""
    before = pack(made_tar, tmp_path)
    labels = bundled()
    other = type(labels)(labels.original, ((7,), *labels.real[1:]))
    with open_source(made_tar, labels=other, allow_partial=True) as source:
        after = write_shards(source, LocalStore(tmp_path), samples_per_shard=50, overwrite=True)
    assert after.source_digest == before.source_digest
    assert len({before.labels_digest, after.labels_digest, before.digest, after.digest}) == 4
    with tarfile.open(tmp_path / SHARDS[0]) as tar:
        member = tar.extractfile("ILSVRC2012_val_00000001.json")
        assert member is not None
        assert json.load(member)["real_label"] == [7]


def _flip(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": _flip,
    "cut": lambda data: data[: len(data) // 2],
    "cut at the end marker": lambda data: data[:-1024],
    "emptied": lambda _: b"",
    "grown": lambda data: data + bytes(512),
    "of zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_resuming_writes_a_damaged_shard_again_and_keeps_whole_ones(
    made_tar: Path, packed: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Shards that an interrupted run left are kept if each byte is right, and only then."""
    (tmp_path / SHARDS[0]).write_bytes((packed / SHARDS[0]).read_bytes())
    (tmp_path / SHARDS[1]).write_bytes(damage((packed / SHARDS[1]).read_bytes()))
    kept, rewritten = ((tmp_path / name).stat().st_ino for name in SHARDS[:2])
    pack(made_tar, tmp_path)
    assert tree(tmp_path) == tree(packed)
    assert (tmp_path / SHARDS[0]).stat().st_ino == kept
    assert (tmp_path / SHARDS[1]).stat().st_ino != rewritten


def test_shards_of_another_unfinished_packing_go_and_other_files_stay(
    made_tar: Path, packed: Path, tmp_path: Path
) -> None:
    """Stale shards would end up among the set's; what packing did not write is not its to remove."""
    mine = {"README.md": b"notes", ".gitignore": b"*.tar", "other-000003.tar": b"x", f"old/{SHARDS[2]}": b"x"}
    stale = ["imagenet2012_real-validation-000003.tar", "imagenet2012_real-validation-000049.tar"]
    (tmp_path / "old").mkdir()
    for name, data in {**mine, **dict.fromkeys(stale, b"stale")}.items():
        (tmp_path / name).write_bytes(data)
    pack(made_tar, tmp_path)
    assert tree(tmp_path) == {**tree(packed), **mine}


def test_only_files_of_writers_that_are_gone_are_cleared_away(made_tar: Path, packed: Path, tmp_path: Path) -> None:
    """A temporary file of a killed run is removed; that of a writer that is still at it is not."""
    (tmp_path / f".{SHARDS[1]}.{0:032x}.tmp").write_bytes(b"half")
    with LocalStore(tmp_path).create("other") as other:
        other.write(b"half")
        (alive,) = (path.name for path in tmp_path.iterdir() if "other" in path.name)
        pack(made_tar, tmp_path)
        assert tree(tmp_path).keys() == {*tree(packed), alive}
    assert tree(tmp_path) == {**tree(packed), "other": b"half"}


def test_bytes_that_are_no_jpeg_are_refused_by_name(pictures: dict[str, bytes], tmp_path: Path) -> None:
    """A member under an image's name that is not a JPEG is an error, and no finished set comes of it."""
    for number, (name, data) in enumerate(list(pictures.items())[:10]):
        (tmp_path / name).write_bytes(b"<html>" if number == 7 else data)
    with pytest.raises(SourceError, match=r"ILSVRC2012_val_00000008.JPEG .*not a JPEG"):
        pack(tmp_path, tmp_path / "set", samples_per_shard=4)
    assert {path.name for path in (tmp_path / "set").iterdir()} <= {SHARDS[0], SHARDS[2]}


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n", b"\xff\xd8" + bytes(99)])
def test_a_cut_or_empty_jpeg_is_refused(tmp_path: Path, data: bytes) -> None:
    """What has no picture's header is refused, however it starts."""
    (tmp_path / "ILSVRC2012_val_00000001.JPEG").write_bytes(data)
    with pytest.raises(SourceError, match=r"ILSVRC2012_val_00000001\.JPEG"):
        pack(tmp_path, tmp_path / "set")
    assert tree(tmp_path / "set") == {}


def test_progress_counts_each_byte_once(made_tar: Path, pictures: dict[str, bytes], tmp_path: Path) -> None:
    """Progress adds up to the source's JPEG bytes, on a first run and on one that finds all shards there."""
    total = sum(map(len, pictures.values()))
    for _ in range(2):
        done: list[int] = []
        with open_source(made_tar, allow_partial=True) as source:
            write_shards(source, LocalStore(tmp_path), samples_per_shard=50, jobs=3, progress=done.append)
        assert sum(done) == total
        (tmp_path / "manifest.json").unlink()


def test_what_was_written_is_whole(packed: Path) -> None:
    """A fresh set passes the deepest check."""
    assert verify(LocalStore(packed), level="decode").problems == ()


def test_size_in_pixels_is_the_pictures_own(tmp_path: Path) -> None:
    """Grey, CMYK and progressive JPEGs with metadata in front are measured like any other."""
    pixels = np.zeros((31, 57, 3), dtype=np.uint8)
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"comment": b"x" * 60_000}),
    ]  # fmt: skip
    for number, (mode, options) in enumerate(kinds, start=1):
        path = tmp_path / f"ILSVRC2012_val_{number:08d}.JPEG"
        Image.fromarray(pixels).convert(mode).save(path, "JPEG", **options)
    pack(tmp_path, tmp_path / "set")
    columns = json.loads((tmp_path / "set" / "index.json").read_bytes())
    assert (columns["width"], columns["height"]) == ([57] * 4, [31] * 4)
    assert verify(LocalStore(tmp_path / "set"), level="decode").problems == ()


def test_the_whole_line_of_numbers_is_cut_at_a_thousand(tmp_path: Path) -> None:
    """By default a shard holds 1,000 samples and the last one what is left."""
    write_source_tar(tmp_path / "val.tar", range(1, 1002), side=8)
    with open_source(tmp_path / "val.tar", allow_partial=True) as source:
        manifest = write_shards(source, LocalStore(tmp_path / "set"))
    assert [shard.num_samples for shard in manifest.shards] == [1000, 1]


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_blocks_are_the_pieces_joined(pieces: list[bytes]) -> None:
    """Nothing is lost or moved, whatever the lengths; only a piece longer than a block makes a longer one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_BLOCK_BYTES", 16)
        blocks = list[bytes]()
        joined = writer._Blocks(lambda block: blocks.append(bytes(block)))
        for piece in pieces:
            joined.add(piece)
        joined.flush()
    assert b"".join(blocks) == b"".join(pieces)
    assert all(blocks)
    assert all(len(block) <= 16 or block in pieces for block in blocks)
    assert all(len(a) + len(b) > 16 for a, b in itertools.pairwise(blocks) if b)


@pytest.mark.parametrize("official", ["this tar", "a tar of its length", "another length"])
def test_the_manifest_says_whether_the_tar_is_the_official_one(
    made_tar: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official: str
) -> None:
    """Its length and, where that is the official one's, its SHA-256; the identity is the same as of a folder."""
    sha256, num_bytes = hashlib.sha256(made_tar.read_bytes()).hexdigest(), made_tar.stat().st_size
    expected = {
        "this tar": SourceTar(num_bytes, sha256),
        "a tar of its length": SourceTar(num_bytes, "0" * 64),
        "another length": SourceTar(num_bytes + 512, sha256),
    }[official]
    for module in (source_tar, source_module):
        monkeypatch.setattr(module, "OFFICIAL_TAR", expected)
    monkeypatch.setattr(source_module, "NUM_IMAGES", 120)
    manifest = pack(made_tar, tmp_path / "set")
    assert not manifest.partial
    assert manifest.source_tar == SourceTar(num_bytes, sha256 if official != "another length" else "")
    assert manifest.is_of_another_tar == (official != "this tar")
    assert json.loads((tmp_path / "set" / "manifest.json").read_bytes())["source_tar"]["num_bytes"] == num_bytes
    with tarfile.open(made_tar) as tar:
        tar.extractall(tmp_path / "folder", filter="data")
    of_folder = pack(tmp_path / "folder", tmp_path / "other")
    assert (of_folder.source_tar, of_folder.digest) == (None, manifest.digest)
    assert "source_tar" not in json.loads((packed / "manifest.json").read_bytes())
