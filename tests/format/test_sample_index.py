"""SampleIndex from rows, and what only the index and the manifest of external shards may say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.errors import ManifestError
from wds_real.format.manifest import Manifest, ShardInfo
from wds_real.format.sample_index import SampleIndex, SampleRow
from wds_real.labels import Label

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = [
    SampleRow(Label("a.JPEG", 65, ()), 0, 512, 700, 2048, 60, 1, 500, 375),
    SampleRow(Label("val/b.JPEG", 0, (999, 0, 5)), 0, 2560, 10, 0, 0, 0, 0, 0),
    SampleRow(Label("ä.JPEG", 999, (999,)), 1, 512, 600, 2048, 62, 2**64 - 1, 65500, 2),
]


def manifest_of(index: SampleIndex, *, external: bool, shards_at: str | None = None) -> Manifest:
    """Return a manifest that vouches for an index, of shards that are large enough for any row of it."""
    data = index.to_json()
    counts = np.bincount(index.shard, minlength=2).tolist()
    return Manifest(
        dataset="webdataset",
        version="0.0.0",
        split="validation",
        num_samples=len(index),
        partial=True,
        source_num_bytes=0,
        source_digest="",
        labels_digest=index.labels_digest,
        index_num_bytes=len(data),
        index_sha256=hashlib.sha256(data).hexdigest(),
        shards=tuple(ShardInfo(f"{number}.tar", count, 2**62 - 1, "") for number, count in enumerate(counts)),
        external=external,
        shards_at=shards_at,
    )


def with_column(index: SampleIndex, name: str, values: list[Any]) -> tuple[bytes, str]:
    """Return the bytes of an index with another column, and their SHA-256."""
    data = json.dumps({**json.loads(index.to_json()), name: values}).encode("ascii")
    return data, hashlib.sha256(data).hexdigest()


def test_rows_become_columns() -> None:
    """Each field of each row stands in the column of its name, with the documented type."""
    index = SampleIndex.from_rows(ROWS)
    assert (len(index), index.keys) == (3, ("a", "val/b", "ä"))
    assert index.real_label == ((), (999, 0, 5), (999,))
    assert index.original_label.tolist() == [65, 0, 999]
    for name in ("shard", "offset", "num_bytes", "json_offset", "json_num_bytes", "width", "height"):
        column = getattr(index, name)
        assert (column.dtype, column.tolist()) == (np.int64, [getattr(row, name) for row in ROWS])
    assert index.checksum.dtype == np.uint64
    assert index.checksum.tolist() == [1, 0, 2**64 - 1]


def test_no_rows_become_empty_columns() -> None:
    """Without rows the columns keep their types."""
    index = SampleIndex.from_rows([])
    assert (len(index), index.keys, index.real_label) == (0, (), ())
    assert index.shard.dtype == np.int64
    assert index.checksum.dtype == np.uint64


def test_a_label_is_the_rows_own() -> None:
    """label() gives back the Label that the row was made of, by position."""
    index = SampleIndex.from_rows(ROWS)
    assert [index.label(position) for position in range(3)] == [row.label for row in ROWS]
    assert type(index.label(0).original_label) is int
    with pytest.raises(IndexError):
        index.label(3)


labels = st.lists(st.integers(0, 999), max_size=12, unique=True).map(tuple)
large = st.integers(0, 2**60)
row = st.builds(
    SampleRow,
    label=st.builds(Label, st.just(""), st.integers(0, 999), labels),
    shard=st.integers(0, 1),
    offset=large,
    num_bytes=large,
    json_offset=large,
    json_num_bytes=large,
    checksum=st.integers(0, 2**64 - 1),
    width=large,
    height=large,
)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=8)


def keyed(key: str, unnamed: SampleRow) -> SampleRow:
    return unnamed._replace(label=replace(unnamed.label, file_name=f"{key}.JPEG"))


@given(rows=st.dictionaries(names, row, max_size=5))
def test_what_is_written_is_read(rows: dict[str, SampleRow]) -> None:
    """Any rows in key order come back from the JSON of an external index, which writes the same bytes again."""
    expected = [keyed(key, unnamed) for key, unnamed in sorted(rows.items())]
    index = SampleIndex.from_rows(expected)
    read = SampleIndex.from_json(index.to_json(), manifest=manifest_of(index, external=True), where="index.json")
    assert read.to_json() == index.to_json()
    assert read.keys == tuple(sorted(rows))
    for name in ("shard", "offset", "num_bytes", "json_offset", "json_num_bytes", "checksum", "width", "height"):
        assert getattr(read, name).tolist() == [getattr(wanted, name) for wanted in expected]
    assert [read.label(position) for position in range(len(read))] == [wanted.label for wanted in expected]


def test_a_checksum_that_was_not_computed_is_written_empty() -> None:
    """The file tells what was not computed from what is zero: it holds no digits then."""
    written = json.loads(SampleIndex.from_rows(ROWS).to_json())
    assert written["checksum"] == ["0000000000000001", "", "ffffffffffffffff"]


def test_only_external_shards_may_lack_a_checksum() -> None:
    """An empty checksum in the index of a set that wds_real packed is damage."""
    index = SampleIndex.from_rows(ROWS)
    with pytest.raises(ManifestError, match="'checksum' is not 64-bit hex"):
        SampleIndex.from_json(index.to_json(), manifest=manifest_of(index, external=False), where="index.json")


@pytest.mark.parametrize("value", [None, 0, " ", "-", "0x", "xyz", [], "1" + "0" * 16])
def test_an_external_checksum_is_hex_or_empty(value: object) -> None:
    """Nothing else stands for a checksum that was not computed."""
    index = SampleIndex.from_rows(ROWS)
    data, sha256 = with_column(index, "checksum", [value, "", ""])
    manifest = replace(manifest_of(index, external=True), index_num_bytes=len(data), index_sha256=sha256)
    with pytest.raises(ManifestError, match="checksum"):
        SampleIndex.from_json(data, manifest=manifest, where="index.json")


@pytest.mark.parametrize("shards_at", [None, "s3://lab/val", "/data/välid"])
@pytest.mark.parametrize("external", [False, True])
def test_a_manifest_says_who_wrote_the_shards_and_where_they_are(*, external: bool, shards_at: str | None) -> None:
    """Both fields come back, and stand in the file only where they say something."""
    manifest = manifest_of(SampleIndex.from_rows(ROWS), external=external, shards_at=shards_at)
    again = Manifest.from_json(manifest.to_json(), where="manifest.json")
    assert (again, again.digest) == (manifest, manifest.digest)
    body = json.loads(manifest.to_json())
    assert (body.get("foreign"), body.get("shards_at")) == (external or None, shards_at)


def test_the_place_of_the_shards_may_be_edited() -> None:
    """Shards that were moved are found again by editing the manifest, whose identity stays."""
    manifest = manifest_of(SampleIndex.from_rows(ROWS), external=True, shards_at="s3://lab/old")
    moved = manifest.to_json().replace(b"s3://lab/old", b"s3://lab/new")
    again = Manifest.from_json(moved, where="manifest.json")
    assert (again.shards_at, again.digest) == ("s3://lab/new", manifest.digest)


@pytest.mark.parametrize(("name", "value"), [("foreign", 1), ("foreign", None), ("shards_at", 5), ("shards_at", None)])
def test_either_field_has_its_type(name: str, value: object) -> None:
    """A field that is there but no boolean or string is refused, also where the digest matches."""
    manifest = manifest_of(SampleIndex.from_rows(ROWS), external=True, shards_at="s3://lab/val")
    body = {**json.loads(manifest.to_json()), name: value}
    unsigned = {key: content for key, content in body.items() if key not in ("digest", "shards_at")}
    canonical = json.dumps(unsigned, sort_keys=True, separators=(",", ":"))
    body["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    with pytest.raises(ManifestError, match=f"field '{name}'"):
        Manifest.from_json(json.dumps(body).encode(), where="manifest.json")


def test_external_is_part_of_the_identity() -> None:
    """Taking the word away that others wrote the shards changes the digest, so it cannot be done unseen."""
    manifest = manifest_of(SampleIndex.from_rows(ROWS), external=True)
    body = json.loads(manifest.to_json())
    del body["foreign"]
    with pytest.raises(ManifestError, match="digest"):
        Manifest.from_json(json.dumps(body).encode(), where="manifest.json")


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 0, 1)])
def test_rows_out_of_order_do_not_read_back(order: Sequence[int]) -> None:
    """Keys have to ascend: an index of rows in another order, or one of them twice, is refused on reading."""
    index = SampleIndex.from_rows([ROWS[number] for number in order])
    with pytest.raises(ManifestError, match="not strictly ascending"):
        SampleIndex.from_json(index.to_json(), manifest=manifest_of(index, external=True), where="index.json")
