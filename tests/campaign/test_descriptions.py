"""Edits of manifest.json and index.json: each is refused, reported by verify, or changes nothing that is read."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from wds_real.data.dataset import open_dataset
from wds_real.labels import digest_labels
from wds_real.packing.indexer import index_shards
from wds_real.packing.verification import verify
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from support.tally import Tally

    Tallies = Callable[[str], AbstractContextManager[Tally]]
    Body = dict[str, Any]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_SEMANTIC_EDITS = 250
SEED = 11

# What stands in place of a value of each type. Huge numbers are text that JSON takes as numbers.
NUMBERS: list[object] = [
    -1,
    0,
    1,
    7,
    999,
    1000,
    2**31,
    2**53,
    2**62,
    2**63,
    2**64,
    10**30,
    1.0,
    0.5,
    "1",
    None,
    True,
    [],
    {},
]
TEXTS: list[object] = ["", "x", ".", "..", "a/b", "/etc/passwd", "../x", "a\0b", "\ud800", "a\nb", "\x1b[2J", "ü"]
TEXTS += ["x" * 10_000, 1, None, True, [], {}]
FLAGS: list[object] = [True, False, 0, 1, None, "false", [], {}]


def delivered(root: Path) -> list[tuple[str, int, tuple[int, ...], bytes]]:
    """Return all that a reader gets: key, labels and bytes of each sample."""
    dataset = open_dataset(root)
    index = dataset.index
    return [
        (key, int(index.original_label[position]), index.real_label[position], bytes(dataset.reader.read(position)))
        for position, key in enumerate(index.keys)
    ]


def report(root: Path) -> tuple[str, ...]:
    return verify(LocalStore(root), level="decode", jobs=1).problems


def changes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield a file with each byte changed in each bit, removed, doubled, and the file cut there."""
    for place in range(len(data)):
        for bit in range(8):
            yield f"byte {place} bit {bit}", data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
        yield f"byte {place} removed", data[:place] + data[place + 1 :]
        yield f"byte {place} doubled", data[: place + 1] + data[place:]
        yield f"cut at {place}", data[:place]


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
def test_every_byte(shard_of_twenty: Path, tmp_path: Path, tally: Tallies, name: str, external: bool) -> None:
    """Any byte changed, removed or doubled, or the file cut there: the set is refused, or is read as before."""
    root = shard_of_twenty
    if external:
        index_shards(str(root), str(tmp_path / "index"), checksums=True)
        root = tmp_path / "index"
    whole, data = delivered(root), (root / name).read_bytes()
    with tally(f"every byte of {name}{' of an external set' * external}") as counts:
        for what, changed in changes(data):
            (root / name).write_bytes(changed)
            found = counts.attempt(what, lambda: delivered(root))
            counts.expect(what, isinstance(found, Exception) or found == whole, "raised or the same")


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Yield each value of a JSON document with its path; of a list, its first and its last element."""
    yield path, value
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from places(entry, (*path, name))
    elif isinstance(value, list) and value:
        for number in sorted({0, len(value) - 1}):
            yield from places(value[number], (*path, number))


def replacements(value: object) -> list[object]:
    """Return what stands in place of a value: wrong types, edges of the range, and for containers other shapes."""
    if isinstance(value, bool):
        return [*FLAGS]
    if isinstance(value, int):
        return [*NUMBERS, value + 1, value - 1]
    if isinstance(value, str):
        return [*TEXTS, value[:-1], value.upper() + "0"]
    if isinstance(value, list):
        return [[], value[:-1], [*value, *value[:1]], value[::-1], {}, None, "x", [None], 0]
    if isinstance(value, dict):
        return [{}, {**value, "more": 1}, [], None, "x"]
    return []


def replaced(body: Body, path: tuple[str | int, ...], value: object) -> Body:
    """Return a copy of a JSON document with another value at a path."""
    changed = copy.deepcopy(body)
    place: Any = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


def edits(manifest: Body, index: Body) -> Iterator[tuple[str, Body, Body]]:
    """Yield what is edited, and manifest and index after it."""
    skipped = {("digest",), ("index", "num_bytes"), ("index", "sha256"), ("labels", "digest")}
    for path, value in places(manifest):
        for new in replacements(value) if path and path not in skipped else ():
            yield f"manifest {path} = {new!r:.40}", replaced(manifest, path, new), index
    for path, value in places(index):
        for new in replacements(value) if path else ():
            yield f"index {path} = {new!r:.40}", manifest, replaced(index, path, new)
    for name in manifest.keys() - {"digest"}:
        yield f"manifest without {name}", {k: v for k, v in manifest.items() if k != name}, index
    for name in index:
        yield f"index without {name}", manifest, {k: v for k, v in index.items() if k != name}
    for name in index:
        yield f"index {name} in reverse", manifest, {**index, name: index[name][::-1]}
        yield f"index {name} turned by one", manifest, {**index, name: index[name][1:] + index[name][:1]}
    yield "all columns in reverse", manifest, {name: column[::-1] for name, column in index.items()}
    for count in (0, 1, 9):
        short = {name: column[:count] for name, column in index.items()}
        yield f"all columns cut to {count}", manifest, short
        shards = [{**manifest["shards"][0], "num_samples": count}]
        yield f"a set of {count}", {**manifest, "num_samples": count, "shards": shards}, short
        doubled = [
            {**manifest["shards"][0], "num_samples": count},
            {**manifest["shards"][0], "num_samples": 10 - count},
        ]
        yield f"one shard named twice, {count} in the first", {**manifest, "shards": doubled}, index


def write(root: Path, manifest: Body, index: Body) -> None:
    """Write an edited set with digests that are right, as far as there is a place for them."""
    encoded = json.dumps(index).encode()
    manifest = copy.deepcopy(manifest)
    if isinstance(manifest.get("index"), dict):
        manifest["index"] |= {"num_bytes": len(encoded), "sha256": hashlib.sha256(encoded).hexdigest()}
    if isinstance(manifest.get("labels"), dict):
        try:
            digest = digest_labels(zip(index["key"], index["original_label"], index["real_label"], strict=False))
            manifest["labels"]["digest"] = digest
        except (KeyError, TypeError, ValueError, AttributeError):
            pass  # the labels are no labels any more
    body = {name: value for name, value in manifest.items() if name not in ("digest", "shards_at")}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    manifest["digest"] = hashlib.sha256(canonical.encode("ascii")).hexdigest()
    (root / "index.json").write_bytes(encoded)
    (root / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("external", [False, True])
def test_semantic_edits_with_a_right_digest(
    shard_of_twenty: Path, tmp_path: Path, tally: Tallies, external: bool
) -> None:
    """A field edited and all digests computed anew: refused, or reported by verify, or the same images and labels."""
    root = shard_of_twenty
    if external:
        index_shards(str(root), str(tmp_path / "index"), checksums=True)
        root = tmp_path / "index"
    whole = delivered(root)
    manifest, index = (json.loads((root / name).read_bytes()) for name in ("manifest.json", "index.json"))
    with tally(f"semantic edits with a right digest{', external set' * external}") as counts:
        for what, *edited in edits(manifest, index):
            write(root, *edited)
            found = counts.attempt(what, lambda: delivered(root))
            problems = counts.attempt(what, lambda: report(root))
            if isinstance(problems, Exception) or problems:
                counts.expect(what, True, "refused or reported")
            elif external:  # labels and order are what the index says: only the bytes can be held against it
                images = {key: data for key, _, _, data in whole}
                honest = not isinstance(found, Exception) and {data for *_, data in found} <= {*images.values()}
                counts.expect(what, honest, "images of the set")
            else:
                counts.expect(what, found == whole, "the same")
    assert counts.counts["attempts"] >= 2 * NUM_SEMANTIC_EDITS


def test_random_edits(shard_of_twenty: Path, tally: Tallies) -> None:
    """Several fields edited at once, with right digests: the same."""
    root = shard_of_twenty
    whole, chance = delivered(root), random.Random(SEED)  # noqa: S311 -- not for secrets
    manifest, index = (json.loads((root / name).read_bytes()) for name in ("manifest.json", "index.json"))
    fields = [("manifest", *entry) for entry in places(manifest)] + [("index", *entry) for entry in places(index)]
    fields = [entry for entry in fields if entry[1] and replacements(entry[2])]
    with tally(f"2,000 pairs of edits, seed {SEED}") as counts:
        for _ in range(2000):
            bodies = {"manifest": manifest, "index": index}
            said = []
            for which, path, value in chance.sample(fields, 2):
                new = chance.choice(replacements(value))
                said.append(f"{which} {path} = {new!r:.40}")
                try:
                    bodies[which] = replaced(bodies[which], path, new)
                except (TypeError, KeyError, IndexError):
                    continue  # the first edit removed the place of the second
            write(root, bodies["manifest"], bodies["index"])
            found = counts.attempt(said, lambda: delivered(root))
            problems = counts.attempt(said, lambda: report(root))
            honest = isinstance(problems, Exception) or bool(problems) or found == whole
            counts.expect(said, honest, "refused, reported or the same")
