"""File names of validation images: all known spellings, and nothing else."""

from __future__ import annotations

import pytest

from wds_real.errors import SourceError
from wds_real.labels import canonical_file_name
from wds_real.labels.file_names import FileName, parse_file_name

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
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("one", ["\u0661", "\uff11", "\u09e7"], ids=["Arabic", "full width", "Bengali"])
def test_digits_of_other_scripts_are_refused(one: str) -> None:
    """Digits outside ASCII are not accepted: each image number has one spelling."""
    with pytest.raises(SourceError):
        canonical_file_name(f"ILSVRC2012_val_0000000{one}.JPEG")
