"""Source tars: the official one is told from others, and the manifest's field is checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wds_real.errors import ManifestError
from wds_real.format.manifest import Manifest
from wds_real.format.source_tar import OFFICIAL_TAR, SourceTar, describe_source

TINY = Path(__file__).resolve().parents[2] / "shards" / "tiny" / "manifest.json"
OTHERS = {
    "another length": SourceTar(6_744_924_161, ""),
    "other bytes": replace(OFFICIAL_TAR, sha256="0" * 64),
}


def test_the_official_tar_is_the_published_one() -> None:
    """Its length and SHA-256 are those of the distributors."""
    assert OFFICIAL_TAR.num_bytes == 6_744_924_160
    assert OFFICIAL_TAR.sha256 == "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0"
    assert OFFICIAL_TAR.is_official is True
    assert [tar.is_official for tar in OTHERS.values()] == [False, False]
    assert replace(OFFICIAL_TAR, sha256="").is_official is None


def test_a_source_is_described() -> None:
    """In words that say what was compared."""
    assert describe_source(OFFICIAL_TAR, partial=False).startswith("the official ILSVRC2012_img_val.tar")
    for tar in OTHERS.values():
        assert describe_source(tar, partial=False).startswith("not the official ILSVRC2012_img_val.tar")
    assert "was not compared" in describe_source(replace(OFFICIAL_TAR, sha256=""), partial=False)
    assert "unknown" in describe_source(None, partial=False)
    assert "a part of" in describe_source(None, partial=True)


@pytest.mark.parametrize("tar", [OFFICIAL_TAR, *OTHERS.values(), None], ids=["official", *OTHERS, "none"])
def test_the_tar_is_no_part_of_the_identity(tar: SourceTar | None) -> None:
    """The manifest reads back with the same digest; without the field it is the file of earlier versions."""
    before = Manifest.from_json(TINY.read_bytes(), where="manifest.json")
    manifest = replace(before, source_tar=tar, partial=False)
    again = Manifest.from_json(manifest.to_json(), where="manifest.json")
    assert (again.source_tar, again.digest) == (tar, replace(before, partial=False).digest)
    assert again.is_of_another_tar == (tar in OTHERS.values())
    assert before.to_json() == TINY.read_bytes()


@pytest.mark.parametrize(
    "value",
    [None, 5, [], {}, {"num_bytes": 1}, {"num_bytes": "1", "sha256": ""}, {"num_bytes": 1, "sha256": "x"},
     {"num_bytes": 1, "sha256": "A" * 64}, {"num_bytes": 1, "sha256": None}],
)  # fmt: skip
def test_a_wrong_field_is_an_error(value: object) -> None:
    """It is not dropped."""
    body = json.loads(TINY.read_bytes()) | {"source_tar": value}
    with pytest.raises(ManifestError):
        Manifest.from_json(json.dumps(body).encode(), where="manifest.json")
