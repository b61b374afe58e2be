"""The images that all rows read: photographs repeated under official names, as a source tar and packed in shards."""

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

__all__ = ["Data", "Location", "prepare", "read_bytes"]

_NUM_GENERATED = 100  # different images, if there are no photographs
_WIDTH, _HEIGHT, _COARSE = 500, 375, 25


class Location(NamedTuple):
    """File and byte range of one JPEG."""

    path: str
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Data:
    """The same images in every form that is measured.

    Attributes:
        folder: A folder that rows may write to.
        source: The source tar.
        root: The packed data set.
        locations: Of each sample's JPEG in the shards, in key order.
        origin: A description of the images, for the report.
    """

    folder: Path
    source: Path
    root: Path
    locations: tuple[Location, ...]
    origin: str

    @property
    def shards(self) -> list[str]:
        """The paths of the shards, for readers that do not read the manifest."""
        return sorted({location.path for location in self.locations})


def prepare(photos: Path | None, folder: Path, *, samples: int, shards: int) -> Data:
    """Write the source tar and pack it in `folder`.

    Args:
        photos: A tar of JPEGs; None generates images.
        folder: The folder to write to.
        samples: Number of samples; the images are repeated.
        shards: Number of shards: a multiple of the peers' workers, so that each worker gets as many shards.
    """
    jpegs = [_generated(seed) for seed in range(_NUM_GENERATED)] if photos is None else _members(photos)
    origin = f"{len(jpegs)} {'generated images' if photos is None else f'images of {photos.name}'}"
    source, root = folder / "source.tar", folder / "shards"
    with tarfile.open(source, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, jpeg in zip(range(1, samples + 1), itertools.cycle(jpegs), strict=False):
            info = tarfile.TarInfo(f"ILSVRC2012_val_{number:08d}.JPEG")
            info.size = len(jpeg)
            tar.addfile(info, io.BytesIO(jpeg))
    with wds_real.open_source(source, allow_partial=True) as images:
        wds_real.write_shards(images, wds_real.open_store(root), samples_per_shard=-(-samples // shards))
    dataset = wds_real.open_dataset(root)
    paths = [str(root / shard.name) for shard in dataset.manifest.shards]
    index = dataset.index
    columns = zip(index.shard.tolist(), index.offset.tolist(), index.num_bytes.tolist(), strict=True)
    locations = tuple(Location(paths[shard], offset, num_bytes) for shard, offset, num_bytes in columns)
    return Data(folder, source, root, locations, f"{origin}, repeated to {samples:,}")


def read_bytes(location: Location) -> bytes:
    """Read one JPEG at the lowest cost: one system call, no check."""
    return os.pread(_descriptor(location.path), location.num_bytes, location.offset)


@functools.cache
def _descriptor(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def _members(photos: Path) -> list[bytes]:
    with tarfile.open(photos) as tar:
        files = [tar.extractfile(member) for member in tar if member.isfile()]
        return [file.read() for file in files if file is not None]


def _generated(seed: int) -> bytes:
    """Return a JPEG with the usual size of an ImageNet photograph, in pixels and bytes: coarse squares and grain."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 200, (_HEIGHT // _COARSE, _WIDTH // _COARSE, 3))
    grain = draw.integers(0, 48, (_HEIGHT, _WIDTH, 1))
    pixels = coarse.repeat(_COARSE, axis=0).repeat(_COARSE, axis=1) + grain
    jpeg: bytes = simplejpeg.encode_jpeg(pixels.astype(np.uint8), quality=85, colorspace="RGB")
    return jpeg
