"""Probe images: the same in each process, and no two ways to preprocess give the same pixels of them."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

from wds_real.evaluation.models.torchvision import crop_pct_of
from wds_real.image.probes import probe_images
from wds_real.image.transform import EvalTransform

CENTER = EvalTransform(64, 0.875)
MODES: tuple[Literal["center"], Literal["center_floor"]] = ("center", "center_floor")
OTHERS = [
    EvalTransform(64, 0.875, "squash"),
    EvalTransform(64, 0.875, "border"),
    EvalTransform(64, 0.875, "center_floor"),
    EvalTransform(64, 0.875, "center", "bilinear"),
    EvalTransform(64, 0.875, "center", "lanczos"),
    EvalTransform(64, 0.9),
    EvalTransform(64, 64 / 72),
]


def pixels(transform: EvalTransform) -> list[bytes]:
    return [np.asarray(transform(image)).tobytes() for image in probe_images()]


def test_probes_tell_transforms_apart() -> None:
    """Crop, rounding of the crop, filter and size each show in some image."""
    expected = pixels(CENTER)
    for other in OTHERS:
        assert pixels(other) != expected, other


def test_the_rounding_of_each_crop_shows() -> None:
    """For each size from 16 to 640 pixels and crops of each remainder by 4, torchvision and transformers differ."""
    for resized in range(16, 641):
        for crop in range(resized - 3, resized + 1):
            ways = (EvalTransform(crop, crop_pct_of(crop, resized), mode) for mode in MODES)
            places = [[way.geometry(*image.size) for image in probe_images()] for way in ways]
            assert places[0] != places[1], (resized, crop)


def test_channels_differ() -> None:
    """A swap of channels, and a flip, give another image."""
    for image in map(np.asarray, probe_images()):
        assert not np.array_equal(image, image[..., ::-1])
        assert not np.array_equal(image, image[:, ::-1])


def test_they_are_the_same_everywhere() -> None:
    """Fixed sizes and a fixed seed: the digest of all pixels."""
    digest = hashlib.sha256(b"".join(np.asarray(image).tobytes() for image in probe_images())).hexdigest()
    assert digest[:16] == "b1cca4c7fd8149ba"
    assert {image.mode for image in probe_images()} == {"RGB"}
