"""The pictures that are read: photographs repeated under official names, as a source tar and as our shards."""

from __future__ import annotations

import functools
import io
import itertools
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import simplejpeg

import wds_real

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Data", "Place", "prepare", "read_bytes"]

_MADE_UP = 100  # different pictures, where there are no photographs
_WIDTH, _HEIGHT, _COARSE = 500, 375, 25


class Place(NamedTuple):
    """Where the bytes of one JPEG lie."""

    path: str
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Data:
    """The same pictures in every form that is measured.

    Attributes:
        folder: Where rows may write.
        source: The source tar.
        root: Our shards.
        places: Of each sample's JPEG in the shards, in key order.
        origin: What the pictures are, for the report.
    """

    folder: Path
    source: Path
    root: Path
    places: tuple[Place, ...]
    origin: str

    @property
    def shards(self) -> list[str]:
        """The paths of the shards, for readers that know no manifest."""
        return sorted({place.path for place in self.places})


def prepare(photos: Path | None, folder: Path, *, samples: int, shards: int) -> Data:
    """Write the source tar and pack it in `folder`.

    Args:
        photos: A tar of JPEGs; None means made-up ones.
        folder: Where to write.
        samples: The pictures are repeated to so many.
        shards: A multiple of the peers' workers: who gives whole shards to workers can then share them out evenly.
    """
    pictures = [_made_up(seed) for seed in range(_MADE_UP)] if photos is None else _members(photos)
    origin = f"{len(pictures)} {'made-up pictures' if photos is None else f'pictures of {photos.name}'}"
    source, root = folder / "source.tar", folder / "shards"
    with tarfile.open(source, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, picture in zip(range(1, samples + 1), itertools.cycle(pictures), strict=False):
            info = tarfile.TarInfo(f"ILSVRC2012_val_{number:08d}.JPEG")
            info.size = len(picture)
            tar.addfile(info, io.BytesIO(picture))
    with wds_real.open_source(source, allow_partial=True) as images:
        wds_real.write_shards(images, wds_real.open_store(root), samples_per_shard=-(-samples // shards))
    dataset = wds_real.open_dataset(root)
    paths = [str(root / shard.name) for shard in dataset.manifest.shards]
    index = dataset.index
    rows = zip(index.shard.tolist(), index.offset.tolist(), index.num_bytes.tolist(), strict=True)
    places = tuple(Place(paths[shard], offset, num_bytes) for shard, offset, num_bytes in rows)
    return Data(folder, source, root, places, f"{origin}, repeated to {samples:,}")


def read_bytes(place: Place) -> bytes:
    """Read one JPEG in the cheapest way there is: one system call, no check."""
    return os.pread(_descriptor(place.path), place.num_bytes, place.offset)


@functools.cache
def _descriptor(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def _members(photos: Path) -> list[bytes]:
    with tarfile.open(photos) as tar:
        files = [tar.extractfile(member) for member in tar if member.isfile()]
        return [file.read() for file in files if file is not None]


def _made_up(seed: int) -> bytes:
    """Return a picture of an ImageNet photograph's usual size, and of about its number of bytes: shapes and grain."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 200, (_HEIGHT // _COARSE, _WIDTH // _COARSE, 3))
    grain = draw.integers(0, 48, (_HEIGHT, _WIDTH, 1))
    pixels = coarse.repeat(_COARSE, axis=0).repeat(_COARSE, axis=1) + grain
    picture: bytes = simplejpeg.encode_jpeg(pixels.astype(np.uint8), quality=85, colorspace="RGB")
    return picture
