"""Roots: what `write_root` writes is read back, and a finished root is not written over."""

from __future__ import annotations

import itertools
import pickle
import re
from typing import TYPE_CHECKING

import pytest

from wds_real.errors import ManifestError, StoreError
from wds_real.format.manifest import INDEX_NAME, MANIFEST_NAME, ShardInfo
from wds_real.format.root import (
    Provenance,
    holds_manifest,
    open_root,
    open_shards,
    read_index,
    read_manifest,
    refuse_finished_root,
    remove_manifest,
    write_root,
)
from wds_real.format.sample_index import SampleRow
from wds_real.format.tar import encode_header
from wds_real.labels import Label
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    from wds_real.format.manifest import Manifest

NUMBERS = itertools.count()
ROWS = [
    SampleRow(Label(f"{key}.JPEG", 1, (1, 2)), 0, offset, 10, offset + 1024, 20, 7, 8, 9)
    for key, offset in (("a", 512), ("b", 2560))
]
SHARDS = [ShardInfo("s.tar", 2, 5120, "0" * 64)]


@pytest.mark.parametrize("external", [False, True])
def test_a_root_that_was_written_is_read(tmp_path: Path, *, external: bool) -> None:
    """Manifest and index come back; the manifest counts samples and bytes from the rows."""
    provenance = Provenance(
        partial=True, source_digest="d", external=external, shards_at="/shards" if external else None
    )
    written = write_root(LocalStore(tmp_path), ROWS, SHARDS, provenance)
    root = open_root(tmp_path, {"region": "x"})  # options of the shards' store are not for a folder
    manifest = read_manifest(root)
    assert manifest == written
    assert (manifest.num_samples, manifest.source_num_bytes, manifest.external) == (2, 20, external)
    assert read_index(root, manifest).keys == ("a", "b")
    assert open_shards(root, manifest, None).url == ("/shards" if external else str(tmp_path))


def test_a_finished_root_is_refused_until_its_manifest_is_removed(tmp_path: Path) -> None:
    """The manifest makes a set finished; without it writing is allowed."""
    store = LocalStore(tmp_path)
    refuse_finished_root(store)
    write_root(store, ROWS, SHARDS, Provenance(partial=True, source_digest="d"))
    assert holds_manifest(store)
    with pytest.raises(StoreError, match=r"holds a finished set already\. .* --overwrite"):
        refuse_finished_root(store)
    remove_manifest(store)
    remove_manifest(store)
    refuse_finished_root(store)
    with pytest.raises(ManifestError, match=f"no {MANIFEST_NAME}"):
        read_manifest(store)


def test_of_two_writers_one_succeeds(tmp_path: Path) -> None:
    """The manifest is created exclusively: the second writer gets an error, and the first one's manifest stays."""
    store = LocalStore(tmp_path)
    first = write_root(store, ROWS, SHARDS, Provenance(partial=True, source_digest="d"))
    with pytest.raises(StoreError, match=r"is there already|exists already"):
        write_root(store, ROWS, SHARDS, Provenance(partial=False, source_digest="e"))
    assert read_manifest(store) == first


def test_a_root_without_its_index_is_incomplete(tmp_path: Path) -> None:
    """The error names the index and says what to do."""
    store = LocalStore(tmp_path)
    manifest = write_root(store, ROWS, SHARDS, Provenance(partial=True, source_digest="d"))
    (tmp_path / INDEX_NAME).unlink()
    with pytest.raises(ManifestError, match=rf"{INDEX_NAME}.* copy {INDEX_NAME} again"):
        read_index(store, manifest)


# --- where a manifest may say that the shards are ---------------------------------------------------------------------


def manifest_naming(shards_at: str) -> Manifest:
    name = f"memory://naming-{next(NUMBERS)}"
    return write_root(open_root(name, None), ROWS, SHARDS, Provenance(partial=True, source_digest="", external=True,
                                                                      shards_at=shards_at))  # fmt: skip


@pytest.mark.parametrize("shards_at", ["/etc", "shards", "../x"])
def test_a_manifest_at_a_url_names_no_local_folder(shards_at: str) -> None:
    """Whoever wrote it could have any file of this machine read."""
    root = open_root("https://host/set", None)
    with pytest.raises(StoreError, match=r"^https://host/set/manifest\.json: .* a folder of this machine"):
        open_shards(root, manifest_naming(shards_at), {"allow_other_host": "true"})


@pytest.mark.parametrize(
    ("root", "shards_at"),
    [
        ("https://host/set", "https://other/set"),
        ("https://host/set", "https://host:8443/set"),
        ("https://host/set", "http://127.0.0.1:9/latest/meta-data"),
        ("https://host/set", "s3://lab/set"),
        ("s3://lab/set", "https://host/set"),
    ],
)
def test_a_manifest_at_a_url_names_another_host_only_with_an_option(root: str, shards_at: str) -> None:
    """With it, that host gets no secret of the options."""
    store, manifest = open_root(root, None), manifest_naming(shards_at)
    with pytest.raises(StoreError, match=r"on another host, at .*allow_other_host=true"):
        open_shards(store, manifest, {})
    options = {"allow_other_host": "true", "token": "hidden"}
    shards = open_shards(store, manifest, options)
    assert shards.url == shards_at
    assert pickle.loads(pickle.dumps(shards)).url == shards_at  # noqa: S301 -- a store with secrets is not pickled


@pytest.mark.parametrize(
    ("root", "shards_at"),
    [
        ("https://host/set", "https://host/other"),
        ("s3://lab/set", "s3://other/set"),
        ("folder", "https://host/set"),
        ("folder", "/shards"),
    ],
)
def test_other_places_need_no_option(root: str, shards_at: str) -> None:
    """The same host, another bucket of the same service, and whatever a manifest on this machine names."""
    assert open_shards(open_root(root, None), manifest_naming(shards_at), None).url == shards_at


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (encode_header("ILSVRC2012_val_00000001.JPEG", 5), "the source of a data set. Run `wds-real pack"),
        (encode_header("ILSVRC2012_val_00000001.jpg", 5), "Run `wds-real index"),
        (b"PK", "is a file, not a data set"),
        (b"", "is a file, not a data set"),
    ],
)
def test_a_file_in_place_of_a_root_is_said_to_be_one(tmp_path: Path, start: bytes, says: str) -> None:
    """A source or a shard is named as such, with the command to run."""
    (tmp_path / "val.tar").write_bytes(start)
    with pytest.raises(StoreError, match=re.escape(says)):
        read_manifest(LocalStore(tmp_path / "val.tar"))
