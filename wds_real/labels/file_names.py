"""File names of the 50,000 validation images, in the spellings in use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wds_real.errors import SourceError

if TYPE_CHECKING:
    from pathlib import PurePath
    from typing import TypeAlias

__all__ = ["NUM_IMAGES", "FileName", "Name", "canonical_file_name", "parse_file_name", "sample_key"]

Name: TypeAlias = "str | bytes | PurePath"

NUM_IMAGES = 50_000

# The official spelling, and that of Hugging Face and Kaggle, which appends the wnid of the original label.
_FILE_NAME = re.compile(
    r"(?P<stem>ILSVRC2012_val_(?P<number>\d{8}))(?:_(?P<wnid>n\d{8}))?\.(?:JPEG|jpeg|JPG|jpg)", re.ASCII
)
_BYTES_AS_TEXT = re.compile(r"b'([^']*)'|b\"([^\"]*)\"")  # what str() makes of bytes
_IMAGE_ENDING = re.compile(r"\.(?:jpe?g|png)$", re.IGNORECASE)


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
    match = _FILE_NAME.fullmatch(re.split(r"[/\\]", name)[-1])
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


def sample_key(name: Name) -> str:
    r"""Return the key for the name given with a prediction; `score` and `RealAccuracy.update` both use it.

    A name is a key, a file name or a path of any system, as text, bytes or `pathlib.Path`, or as the text ``b'...'``.
    For a validation image the official key is returned, for another one the file name without its extension.

    >>> sample_key("val/n01751748/ILSVRC2012_val_00000001_n01751748.JPEG")
    'ILSVRC2012_val_00000001'
    >>> sample_key(b"ILSVRC2012_val_00000001.jpeg"), sample_key("D:\\photos\\dog.png")
    ('ILSVRC2012_val_00000001', 'dog')
    """
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    text = text.strip()
    as_bytes = _BYTES_AS_TEXT.fullmatch(text)
    if as_bytes is not None:
        text = as_bytes[1] if as_bytes[1] is not None else as_bytes[2]
    stem = _IMAGE_ENDING.sub("", re.split(r"[/\\]", text)[-1])
    try:
        return canonical_file_name(f"{stem}.JPEG").removesuffix(".JPEG")
    except SourceError:
        return stem
