"""File names of validation images: all known spellings, and nothing else."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import numpy as np
import pytest

from wds_real.errors import SourceError, printable
from wds_real.labels import canonical_file_name
from wds_real.labels.file_names import FileName, Name, parse_file_name, sample_key

NAME = "ILSVRC2012_val_00000001"


@pytest.mark.parametrize(
    "spelling",
    [
        f"{NAME}.JPEG",
        f"{NAME}.jpeg",
        f"{NAME}.JPG",
        f"{NAME}.jpg",
        f"{NAME}_n01751748.JPEG",
        f"val/{NAME}.JPEG",
        f"./val/n01751748/{NAME}_n01751748.JPEG",
        f"/data/imagenet/val/{NAME}.JPEG",
        f"val\\n01751748\\{NAME}.JPEG",
    ],
)
def test_all_known_spellings_name_the_same_image(spelling: str) -> None:
    """Official, Kaggle and folder spellings give the same number and official name, and the wnid if there is one."""
    wnid = "n01751748" if f"{NAME}_n01751748" in spelling else None
    assert parse_file_name(spelling) == FileName(f"{NAME}.JPEG", 1, wnid)
    assert canonical_file_name(spelling) == f"{NAME}.JPEG"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "README.txt",
        NAME,
        f"{NAME}.JPEG ",
        f" {NAME}.JPEG",
        f"{NAME}.JPEG\n",
        f"{NAME}.png",
        f"{NAME}.JPEG.json",
        f"x{NAME}.JPEG",
        f"{NAME.lower()}.JPEG",
        "ILSVRC2012_val_00000000.JPEG",
        "ILSVRC2012_val_00050001.JPEG",
        "ILSVRC2012_val_1.JPEG",
        "ILSVRC2012_val_000000001.JPEG",
        "ILSVRC2012_val_-0000001.JPEG",
        "ILSVRC2012_test_00000001.JPEG",
        "n01440764_18.JPEG",
        f"{NAME}.JPEG/inner.txt",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    """A name of none of the 50,000 images is an error that shows it and what is expected."""
    with pytest.raises(SourceError, match=r"Expected ILSVRC2012_val_00000001\.JPEG") as caught:
        parse_file_name(name)
    assert str(caught.value).startswith(f"{printable(name)}: ")


@pytest.mark.parametrize("one", ["\u0661", "\uff11", "\u09e7"], ids=["Arabic", "full width", "Bengali"])
def test_digits_of_other_scripts_are_refused(one: str) -> None:
    """Digits outside ASCII are not accepted: each image number has one spelling."""
    with pytest.raises(SourceError):
        canonical_file_name(f"ILSVRC2012_val_0000000{one}.JPEG")


WINDOWS = PureWindowsPath(rf"D:\val\n01751748\{NAME}.JPEG")


@pytest.mark.parametrize(
    "name",
    [
        NAME,
        f"{NAME}.JPEG",
        f" {NAME}.JPEG\n",
        f"{NAME}.jpeg",
        f"{NAME}.png",
        f"{NAME}_n01751748",
        f"{NAME}_n01751748.JPEG",
        f"val/{NAME}.JPEG",
        f"/data/val/n01751748/{NAME}.JPEG",
        str(WINDOWS),
        WINDOWS,
        PurePosixPath(f"val/{NAME}.JPEG"),
        f"{NAME}.JPEG".encode(),
        f"val/{NAME}_n01751748.JPEG".encode(),
        f"b'{NAME}.JPEG'",
        f'b"{NAME}.JPEG"',
        np.bytes_(f"{NAME}.JPEG"),
        np.str_(f"{NAME}.JPEG"),
    ],
)
def test_a_name_with_a_prediction_may_be_spelled_in_any_way(name: Name) -> None:
    """Key, file name and path, as text, bytes, the text of bytes, or a path object, are the same sample."""
    assert sample_key(name) == NAME


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("dog.jpeg", "dog"),
        (b"a/dog.PNG", "dog"),
        ("b'dog.jpeg", "b'dog"),
        ("ILSVRC2012_val_00050001.JPEG", "ILSVRC2012_val_00050001"),
        (b"\xff.jpg", "\ufffd"),
        ("", ""),
    ],
)
def test_the_key_of_another_image_is_its_stem(name: Name, key: str) -> None:
    """Names that are not of validation images lose folders and an image's ending, and nothing else."""
    assert sample_key(name) == key
