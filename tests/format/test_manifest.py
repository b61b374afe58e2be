"""manifest.json and index.json: what is written is read back, and nothing damaged, foreign or impossible is."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.errors import ManifestError
from wds_real.format.manifest import Manifest, ShardInfo, shard_name
from wds_real.format.sample_index import SampleIndex
from wds_real.labels import digest_labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Body = dict[str, Any]

# Three samples in two shards. The columns are those of the documented file, in its order.
COLUMNS: dict[str, Any] = {
    "key": ["a", "b", "c"],
    "shard": [0, 0, 1],
    "offset": [512, 2560, 512],
    "num_bytes": [700, 10, 600],
    "json_offset": [2048, 3584, 2048],
    "json_num_bytes": [60, 61, 62],
    "checksum": ["0000000000000001", "00000000000000ff", "ffffffffffffffff"],
    "width": [500, 1, 65500],
    "height": [375, 1, 2],
    "original_label": [65, 0, 999],
    "real_label": [[], [999, 0, 5], [999]],
}
MANIFEST = Manifest(
    dataset="imagenet2012_real",
    version="1.0.0",
    split="validation",
    num_samples=3,
    partial=True,
    source_num_bytes=1310,
    source_digest="5" * 64,
    labels_digest=digest_labels(zip("abc", COLUMNS["original_label"], COLUMNS["real_label"], strict=True)),
    index_num_bytes=0,
    index_sha256="",
    shards=(ShardInfo(shard_name(0), 2, 5120, "6" * 64), ShardInfo(shard_name(1), 1, 3584, "7" * 64)),
)
WRONG_TYPES: dict[str, Any] = {
    "dataset": 5,
    "version": 1.0,
    "split": None,
    "num_samples": "3",
    "partial": 1,
    "source": [],
    "source.num_bytes": 1310.0,
    "source.digest": 5,
    "labels": "x",
    "labels.digest": None,
    "index": None,
    "index.num_bytes": True,
    "index.sha256": 0,
    "shards": {},
    "shards.0": "imagenet2012_real-validation-000000.tar",
    "shards.0.name": 0,
    "shards.0.num_samples": True,
    "shards.1.num_bytes": None,
    "shards.1.sha256": [],
}


def encoded(columns: Body) -> bytes:
    return (json.dumps(columns, separators=(",", ":")) + "\n").encode("ascii")


def manifest_of(index: bytes) -> Manifest:
    """Return a manifest that vouches for these bytes of an index."""
    return replace(MANIFEST, index_num_bytes=len(index), index_sha256=hashlib.sha256(index).hexdigest())


def read_index(columns: Body) -> SampleIndex:
    """Read an index that its manifest vouches for, labels digest apart."""
    data = encoded(columns)
    return SampleIndex.from_json(data, manifest=manifest_of(data), where="index.json")


def read_manifest(body: Body) -> Manifest:
    return Manifest.from_json(json.dumps(body).encode(), where="manifest.json")


def signed(body: Body) -> Body:
    """Give a manifest's body the digest that belongs to it."""
    rest = {name: value for name, value in body.items() if name != "digest"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "digest": hashlib.sha256(canonical.encode()).hexdigest()}


def changed(body: Body, path: str, value: object) -> Body:
    """Return a copy with the value at a dotted path replaced; `...` removes it."""
    result = copy.deepcopy(body)
    *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    target: Any = result
    for part in parents:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return result


@pytest.fixture
def body() -> Body:
    parsed: Body = json.loads(manifest_of(encoded(COLUMNS)).to_json())
    return parsed


def test_a_manifest_reads_back() -> None:
    """Every field that was written is read, and the digest with it."""
    manifest = manifest_of(encoded(COLUMNS))
    again = Manifest.from_json(manifest.to_json(), where="manifest.json")
    assert (again, again.digest, again.to_json()) == (manifest, manifest.digest, manifest.to_json())


def test_the_manifest_is_the_documented_file(body: Body) -> None:
    """The file holds the documented fields in order; its digest is over the canonical JSON of the others."""
    assert list(body) == [
        "format", "dataset", "version", "split", "num_samples", "partial", "source", "labels", "index", "shards",
        "digest",
    ]  # fmt: skip
    assert body["format"] == {"name": "wds_real", "version": 1}
    assert body["shards"][1] == {"name": shard_name(1), "num_samples": 1, "num_bytes": 3584, "sha256": "7" * 64}
    assert signed(body) == body


def test_the_digest_depends_on_every_field() -> None:
    """No field can change and leave the identity of the data set as it was, but for the place of the shards."""
    other: Body = {name: f"{getattr(MANIFEST, name)}x" for name in ("dataset", "version", "split", "source_digest")}
    other |= {"labels_digest": "x", "index_sha256": "x", "num_samples": 4, "partial": False, "source_num_bytes": 1}
    other |= {"index_num_bytes": 1, "shards": MANIFEST.shards[:1], "external": True}
    assert set(other) == {field.name for field in fields(Manifest)} - {"shards_at", "source_tar"}
    assert replace(MANIFEST, shards_at="s3://elsewhere").digest == MANIFEST.digest
    digests = {replace(MANIFEST, **{name: value}).digest for name, value in other.items()}
    assert len(digests | {MANIFEST.digest}) == len(other) + 1


def test_every_cut_of_the_manifest_is_an_error() -> None:
    """A manifest cut anywhere is refused, but for its last newline."""
    data = MANIFEST.to_json()
    for stop in range(len(data) - 1):
        with pytest.raises(ManifestError):
            Manifest.from_json(data[:stop], where="manifest.json")


def test_every_bit_flip_in_the_manifest_is_an_error_or_says_the_same() -> None:
    """No flipped bit gives another manifest: what is read is what was written, or an error."""
    data = MANIFEST.to_json()
    refused = 0
    for place in range(len(data)):
        for bit in (1 << n for n in range(8)):
            damaged = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
            try:
                assert Manifest.from_json(damaged, where="manifest.json") == MANIFEST
            except ManifestError:
                refused += 1
    assert refused > 7 * len(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"<html>", id="a web page"),
        pytest.param(b"\xff\xfe\x00\xd8", id="not text"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
        pytest.param(b"1" * 5000, id="a number of 5,000 digits"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="an empty object"),
    ],
)
def test_what_is_not_a_manifest_is_refused(data: bytes) -> None:
    """Other bytes are a ManifestError that names the file, as manifest and as index."""
    with pytest.raises(ManifestError, match=r"^manifest\.json: "):
        Manifest.from_json(data, where="manifest.json")
    with pytest.raises(ManifestError, match=r"^index\.json: "):
        SampleIndex.from_json(data, manifest=manifest_of(data), where="index.json")


@pytest.mark.parametrize(
    "found", [None, "wds_real", {"name": "wds_real", "version": 2}, {"name": "other", "version": 1}, {"version": 1}]
)
def test_another_format_or_version_is_refused_first(found: object, body: Body) -> None:
    """A manifest of another version is called that, not damaged."""
    with pytest.raises(ManifestError, match="this version of wds_real reads"):
        read_manifest(changed(body, "format", found))


@pytest.mark.parametrize(
    ("path", "value"),
    [*WRONG_TYPES.items(), *((path, ...) for path in WRONG_TYPES if path != "shards.0")],
)
def test_a_field_missing_or_of_another_type_is_refused(path: str, value: object, body: Body) -> None:
    """Each field is checked, even when the digest fits: the error names the field."""
    name = path.rsplit(".", 1)[-1]
    with pytest.raises(ManifestError, match=r"manifest\.json: (field '?" + name + "|a shard is)"):
        read_manifest(signed(changed(body, path, value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("num_samples", -3, id="negative samples"),
        pytest.param("source.num_bytes", -1, id="negative length"),
        pytest.param("num_samples", 4, id="more samples than the shards hold"),
        pytest.param("shards.0.num_samples", 1, id="fewer samples in a shard"),
        pytest.param("shards.1", ..., id="a shard lost"),
        pytest.param("extra", "field", id="a field this version does not know"),
        pytest.param("shards.0.extra", 1, id="a field of a shard this version does not know"),
        pytest.param("index.name", "other.json", id="another name for the index"),
        pytest.param("split", "", id="a split without a name"),
        pytest.param("split", "../x", id="a split that no notation names"),
    ],
)
def test_a_signed_manifest_that_cannot_be_is_refused(path: str, value: object, body: Body) -> None:
    """A digest that fits does not excuse what contradicts itself or is not understood."""
    with pytest.raises(ManifestError):
        read_manifest(signed(changed(body, path, value)))


@pytest.mark.parametrize(
    "name", ["../other.tar", "/etc/passwd", "sub/shard.tar", "", ".", "..", "a\0b", "\ud800", "a\n"]
)
def test_a_shard_name_that_leaves_the_folder_is_refused(name: str, body: Body) -> None:
    """Shards are files of the data set's own folder: a manifest from elsewhere cannot name another place."""
    with pytest.raises(ManifestError):
        read_manifest(signed(changed(body, "shards.0.name", name)))


@pytest.mark.parametrize("place", ["\0", "a\0b", "\ud800", "s3://lab/\x1b[2J"])
def test_a_place_of_shards_that_is_no_text_is_refused(place: str, body: Body) -> None:
    """No path and no URL holds such characters: the manifest is refused before they reach the system."""
    with pytest.raises(ManifestError, match=r"field 'shards_at' is .* expected text"):
        read_manifest(changed({**body, "shards_at": ""}, "shards_at", place))


@pytest.mark.parametrize("path", ["dataset", "split", "source.digest", "shards.0.sha256"])
def test_names_that_command_a_terminal_are_refused(path: str, body: Body) -> None:
    """No string of a manifest has control characters, so that commands may print them."""
    with pytest.raises(ManifestError, match="expected text without control characters"):
        read_manifest(signed(changed(body, path, "\x1b]0;x\x07")))


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("extra", 1, "extra"),
        ("shards.1.extra", 1, "shards.1.extra"),
        ("source.url", "x", "source.url"),
        ("index.name", "other.json", "index.name"),
        ("foreign", False, "foreign"),
    ],
)
def test_an_unknown_field_is_named(path: str, value: object, named: str, body: Body) -> None:
    """A manifest of a later version is refused by the field that this one does not know, not by two equal digests."""
    with pytest.raises(ManifestError, match=rf"would not write: {named}\. Install the version that wrote it"):
        read_manifest(signed(changed(body, path, value)))


def test_thousands_of_unknown_fields_are_one_short_line(body: Body) -> None:
    """The first few are named, and counted."""
    with pytest.raises(ManifestError, match=r"x0, x1, x2 \.\.\. \(20,000\)") as caught:
        read_manifest(signed({**body, **{f"x{number}": 0 for number in range(20_000)}}))
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("where", ["manifest", "index"])
@pytest.mark.parametrize("depth", [500, 900, 990, 3_000, 100_000])
def test_a_value_nested_deeply_is_refused(where: str, depth: int, body: Body) -> None:
    """A depth that can be parsed but not printed or hashed, or not even parsed, is a ManifestError of one line."""
    deep = "[" * depth + "]" * depth
    if where == "manifest":
        text = json.dumps({**body, "extra": "DEEP"}).replace('"DEEP"', deep)
        with pytest.raises(ManifestError) as caught:
            Manifest.from_json(text.encode(), where="manifest.json")
    else:
        data = json.dumps({**COLUMNS, "real_label": ["DEEP", [], []]}).replace('"DEEP"', deep).encode()
        with pytest.raises(ManifestError) as caught:
            SampleIndex.from_json(data, manifest=manifest_of(data), where="index.json")
    assert len(str(caught.value)) < 250


def test_a_field_twice_is_refused(body: Body) -> None:
    """Of two values for one field, none is taken: another reader may take the other one."""
    text = json.dumps(body)
    for data in (text.replace('"partial": true', '"partial": true, "partial": true'), '{"digest": "x", ' + text[1:]):
        with pytest.raises(ManifestError, match="occurs twice"):
            Manifest.from_json(data.encode(), where="manifest.json")
    index = encoded(COLUMNS).replace(b'{"key"', b'{"key":["x","y","z"],"key"')
    with pytest.raises(ManifestError, match='field "key" occurs twice'):
        SampleIndex.from_json(index, manifest=manifest_of(index), where="index.json")


def test_a_shard_listed_twice_is_refused(body: Body) -> None:
    """One file cannot be two shards."""
    with pytest.raises(ManifestError):
        read_manifest(signed(changed(body, "shards.1.name", body["shards"][0]["name"])))


def test_a_set_without_samples_is_refused(body: Body) -> None:
    """A manifest that counts no sample describes nothing that can be read."""
    with pytest.raises(ManifestError, match="num_samples is 0"):
        read_manifest(signed({**body, "num_samples": 0, "shards": []}))


def test_an_edited_manifest_is_refused(body: Body) -> None:
    """A field changed by hand no longer fits the digest, and the error shows both."""
    with pytest.raises(ManifestError, match=r"digest says [0-9a-f]{16}\.\.\., the content gives [0-9a-f]{16}"):
        read_manifest(changed(body, "split", "train"))


@pytest.mark.parametrize("path", ["num_samples", "source.num_bytes", "index.num_bytes", "shards.0.num_bytes"])
def test_a_length_no_file_can_have_is_refused(path: str, body: Body) -> None:
    """A number beyond 64 bits, in a manifest whose digest fits, is a ManifestError when manifest or index are read."""

    def read_both() -> None:
        manifest = read_manifest(signed(changed(body, path, 10**30)))
        SampleIndex.from_json(encoded(COLUMNS), manifest=manifest, where="index.json")

    with pytest.raises(ManifestError):
        read_both()


def test_an_index_reads_back() -> None:
    """Every column that was written is read, with its documented type."""
    index = read_index(COLUMNS)
    assert index.to_json() == encoded(COLUMNS)
    assert len(index) == 3
    assert (index.keys, index.real_label) == (("a", "b", "c"), ((), (999, 0, 5), (999,)))
    for name in set(COLUMNS) - {"key", "real_label", "checksum"}:
        column = getattr(index, name)
        assert (column.dtype, column.tolist()) == (np.int64, COLUMNS[name])
    assert index.checksum.dtype == np.uint64
    assert index.checksum.tolist() == [1, 255, 2**64 - 1]
    assert index.labels_digest == MANIFEST.labels_digest


def test_an_empty_index_reads_back() -> None:
    """No sample in no shard is a set, if a useless one."""
    data = encoded({name: [] for name in COLUMNS})
    manifest = replace(manifest_of(data), num_samples=0, shards=(), labels_digest=digest_labels([]))
    assert len(SampleIndex.from_json(data, manifest=manifest, where="index.json")) == 0


def test_an_index_the_manifest_does_not_vouch_for_is_refused() -> None:
    """Any other bytes, longer, shorter or of the same length, are refused before they are parsed."""
    data = encoded(COLUMNS)
    manifest = manifest_of(data)
    for damaged in (data[:-1], data + b" ", data.replace(b"375", b"376"), b"", encoded({})):
        with pytest.raises(ManifestError, match="The index was changed or damaged"):
            SampleIndex.from_json(damaged, manifest=manifest, where="index.json")


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("value", [..., None, "abc", {}, [], [1], [None] * 3, [1.5] * 3, [True] * 3, [[1.5]] * 3])
def test_a_column_missing_short_or_of_another_type_is_refused(name: str, value: object) -> None:
    """Each column is checked, even when the manifest vouches for the bytes."""
    with pytest.raises(ManifestError, match=r"^index\.json: "):
        read_index(changed(COLUMNS, name, value))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("key", ["b", "a", "c"], "not strictly ascending"),
        ("key", ["a", "a", "c"], "not strictly ascending"),
        ("key.0", "", "not text"),
        ("shard.2", 2, "a shard the manifest lacks"),
        ("shard.2", -1, "not integers"),
        ("shard.1", 1, "num_samples of the shards differ"),
        ("offset.2", 2985, "ends behind its shard's end"),
        ("num_bytes.0", 2**62 - 1, "ends behind its shard's end"),
        ("num_bytes.0", 2**62, "not integers"),
        ("offset.0", 10**30, "not integers"),
        ("json_offset.1", 5060, "ends behind its shard's end"),
        ("json_num_bytes.2", 99_999, "ends behind its shard's end"),
        ("checksum.0", "xyz", "not 64-bit hex"),
        ("checksum.0", "-1", "not 64-bit hex"),
        ("checksum.0", "1" + "0" * 16, "not 64-bit hex"),
        ("checksum.0", 1, "not 64-bit hex"),
        ("checksum.0", "0" * 16, "not 64-bit hex above 0"),
        ("checksum.0", "", "not 64-bit hex above 0"),
        ("checksum.0", None, "not 64-bit hex above 0"),
        ("checksum.0", "1", "not 64-bit hex"),
        ("checksum.0", " 00000000000000f", "not 64-bit hex"),
        ("offset.1", 1000, "two samples overlap"),
        ("offset.1", 512, "two samples overlap"),
        ("width.0", -500, "not integers"),
        ("original_label.0", 1000, "an original label is not 0..999"),
        ("original_label.0", 66, "labels digest"),
        ("real_label.1", [999, 0], "labels digest"),
        ("real_label.1", [0, 5, 999], "labels digest"),
        ("real_label.1", [5, 5], "distinct integers"),
        ("real_label.1", [1000], "distinct integers"),
        ("real_label.1", [-1], "distinct integers"),
        ("real_label.1", None, "distinct integers"),
    ],
)
def test_a_value_that_cannot_be_is_refused(path: str, value: object, expected: str) -> None:
    """Order, range, place and labels are checked, even when the manifest vouches for the bytes."""
    with pytest.raises(ManifestError, match=expected):
        read_index(changed(COLUMNS, path, value))


def test_a_key_that_is_no_text_is_refused() -> None:
    """Half a surrogate pair is JSON, but no text that could be hashed or be a file name."""
    with pytest.raises(ManifestError):
        read_index(changed(COLUMNS, "key.2", "\ud800"))
    with pytest.raises(ManifestError, match="not text"):
        read_index(changed(COLUMNS, "key.2", "c\n"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(max_codepoint=0x2FF), max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=400)
@given(path=st.sampled_from([*COLUMNS, *(f"{name}.{row}" for name in COLUMNS for row in range(3))]), value=JSON)
def test_any_value_in_an_index_is_read_or_refused(path: str, value: object) -> None:
    """Whatever stands in a column, the outcome is an index that writes the same values, or a ManifestError."""
    try:
        index = read_index(changed(COLUMNS, path, value))
    except ManifestError:
        return
    assert len(index) == 3
    assert index.labels_digest == MANIFEST.labels_digest


@given(
    path=st.sampled_from(
        ["format", "num_samples", "partial", "labels.digest", "shards.1.num_bytes", *WRONG_TYPES, "digest"]
    ),
    value=JSON,
)
def test_any_value_in_a_manifest_is_read_or_refused(path: str, value: object) -> None:
    """Whatever stands in a field, the outcome is a manifest with that identity, or a ManifestError."""
    parsed: Body = json.loads(MANIFEST.to_json())
    body = changed(parsed, path, value)
    if path != "digest":
        body = signed(body)
    with contextlib.suppress(ManifestError):
        assert read_manifest(body).digest == body["digest"]


@pytest.mark.parametrize(("number", "name"), [(0, "000000"), (49, "000049"), (999_999, "999999")])
def test_shard_names_are_those_of_the_format(number: int, name: str) -> None:
    """Names sort as the shards do."""
    assert shard_name(number) == f"imagenet2012_real-validation-{name}.tar"


def test_a_packed_set_has_a_consistent_manifest_and_index(packed: Path) -> None:
    """The writer's own files pass every check, and the index's bytes are what the manifest says."""
    manifest = Manifest.from_json((packed / "manifest.json").read_bytes(), where="manifest.json")
    data = (packed / "index.json").read_bytes()
    index = SampleIndex.from_json(data, manifest=manifest, where="index.json")
    assert index.to_json() == data
    assert list(json.loads(data)) == list(COLUMNS)
    assert [shard.num_samples for shard in manifest.shards] == [50, 50, 20]
    assert manifest.partial


@pytest.mark.parametrize("change", [lambda data: data[:-2], lambda data: data + b"x"], ids=["cut", "longer"])
def test_a_damaged_file_of_a_packed_set_is_refused(packed: Path, change: Callable[[bytes], bytes]) -> None:
    """Damage to either file of a real set is seen."""
    manifest = Manifest.from_json((packed / "manifest.json").read_bytes(), where="manifest.json")
    with pytest.raises(ManifestError):
        Manifest.from_json(change((packed / "manifest.json").read_bytes()), where="manifest.json")
    with pytest.raises(ManifestError):
        SampleIndex.from_json(change((packed / "index.json").read_bytes()), manifest=manifest, where="index.json")
