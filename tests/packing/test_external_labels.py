"""Labels of samples in external shards: by name where it is a validation image's, else as given, never guessed."""

from __future__ import annotations

from typing import Any

import pytest

from wds_real.errors import SourceError
from wds_real.labels import Label, bundled
from wds_real.packing.external_labels import external_label, official_label

NAME = "ILSVRC2012_val_00000002"
OFFICIAL = bundled().by_file_name(f"{NAME}.JPEG")


@pytest.mark.parametrize(
    ("key", "contents"),
    [
        (NAME, {}),
        ("000001", {"json": {"filename": f"val/{NAME}.JPEG", "label": OFFICIAL.original_label}}),
        (f"val/{NAME}", {"cls": {"label": str(OFFICIAL.original_label)}}),
    ],
)
def test_a_validation_images_name_gives_the_bundled_labels(key: str, contents: dict[str, dict[str, Any]]) -> None:
    """As the key or in the JSON, with or without the class, which has to agree."""
    assert external_label(key, contents, "x.tar") == OFFICIAL


@pytest.mark.parametrize("given", [7, "7", "007", "n01496331"])
def test_another_image_has_the_class_that_is_given(given: object) -> None:
    """A number, digits or a wnid; there is no ReaL label unless the JSON has one."""
    expected = 5 if given == "n01496331" else 7
    assert external_label("cat", {"cls": {"label": given}}, "x.tar") == Label("cat", expected, ())
    real = {"json": {"label": given, "real_label": [3, 1]}}
    assert external_label("cat", real, "x.tar") == Label("cat", expected, (3, 1))


@pytest.mark.parametrize(
    ("key", "contents", "says"),
    [
        (NAME, {"cls": {"label": OFFICIAL.original_label + 1}}, "number classes differently"),
        (NAME, {"json": {"filename": "ILSVRC2012_val_00000003.JPEG"}}, "names two images"),
        ("cat", {}, "has no label"),
        ("cat", {"cls": {"label": 1000}}, "has no label"),
        ("cat", {"cls": {"label": 1}, "json": {"label": 2}}, "has no label"),
        ("cat", {"json": {"label": 1, "real_label": [1, 1]}}, "distinct classes"),
        ("\ud800", {"cls": {"label": 1}}, "not text in UTF-8"),
    ],
)
def test_labels_that_disagree_or_are_missing_are_refused(
    key: str, contents: dict[str, dict[str, Any]], says: str
) -> None:
    """Each with the shard and the sample in the message."""
    with pytest.raises(SourceError, match=rf"x\.tar: .*{says}"):
        external_label(key, contents, "x.tar")


def test_only_names_of_validation_images_are_official() -> None:
    """Any spelling of the name is found; numbers beyond 50,000 and wrong wnids are not passed over."""
    assert official_label(NAME, "x.tar") == OFFICIAL
    assert official_label("ILSVRC2012_val_00050001", "x.tar") is None
    with pytest.raises(SourceError, match=r"x\.tar: .*carries the label|x\.tar: "):
        official_label(f"{NAME}_n01440764.JPEG", "x.tar")
