"""File names of the 50,000 validation images, in the spellings in use."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wds_real.errors import SourceError

__all__ = ["NUM_IMAGES", "FileName", "canonical_file_name", "parse_file_name"]

NUM_IMAGES = 50_000

# The official spelling, and that of Hugging Face and Kaggle, which appends the wnid of the original label.
_FILE_NAME = re.compile(
    r"(?P<stem>ILSVRC2012_val_(?P<number>\d{8}))(?:_(?P<wnid>n\d{8}))?\.(?:JPEG|jpeg|JPG|jpg)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class FileName:
    """What the file name of a validation image says.

    Attributes:
        canonical: Official spelling, ``ILSVRC2012_val_00000001.JPEG``.
        number: Image number 1..50,000.
        wnid: WordNet id in the name, or None.
    """

    canonical: str
    number: int
    wnid: str | None


def parse_file_name(name: str) -> FileName:
    """Return what the file name of a validation image says; leading folders are ignored.

    >>> parse_file_name("val/n01751748/ILSVRC2012_val_00000001_n01751748.JPEG")
    FileName(canonical='ILSVRC2012_val_00000001.JPEG', number=1, wnid='n01751748')

    Raises:
        SourceError: this is not the name of one of the 50,000 validation images.
    """
    match = _FILE_NAME.fullmatch(name.rpartition("/")[2])
    if match is None or not 1 <= int(match["number"]) <= NUM_IMAGES:
        raise SourceError(
            f"{name}: not the name of a validation image. Expected ILSVRC2012_val_00000001.JPEG to "
            f"ILSVRC2012_val_{NUM_IMAGES:08d}.JPEG."
        )
    return FileName(f"{match['stem']}.JPEG", int(match["number"]), match["wnid"])


def canonical_file_name(name: str) -> str:
    """Return the official spelling of a validation image's file name; leading folders are ignored.

    >>> canonical_file_name("val/n01751748/ILSVRC2012_val_00000001_n01751748.JPEG")
    'ILSVRC2012_val_00000001.JPEG'

    Raises:
        SourceError: this is not the name of one of the 50,000 validation images.
    """
    return parse_file_name(name).canonical
