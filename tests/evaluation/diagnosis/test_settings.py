"""The settings that are tried: each differs by one mistake, none twice, and options lead from one to another."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from wds_real.evaluation.device import Normalize
from wds_real.evaluation.diagnosis.settings import Setting, Stacked, option_words, variations
from wds_real.image.transform import IMAGENET_MEAN, IMAGENET_STD, EvalTransform

OWN = EvalTransform(crop_pct=0.9, interpolation="bilinear", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
PIXELS = torch.arange(48, dtype=torch.uint8).mul(5).view(1, 3, 4, 4)


def tried(setting: Setting, **kwargs: bool) -> dict[str, Setting]:
    return variations(setting, OWN, **{"pixels": False, "module": True, **kwargs})


def normalised(transform: EvalTransform) -> torch.Tensor:
    return Normalize(transform.mean, transform.std, device=torch.device("cpu"))(PIXELS).clone()


def test_every_kind_of_mistake_is_tried() -> None:
    """Normalisation, range, channels, crop, interpolation and mode; each setting once, and never the given one."""
    found = tried(Setting(OWN))
    for words in ("ImageNet", "-1..1", "CLIP", "0..1", "0..255", "twice", "BGR", "bicubic", "nearest", "cropped to 1.0",
                  "squashed", "training mode"):  # fmt: skip
        assert [title for title in found if words in title], words
    assert len(set(found.values())) == len(found)
    assert Setting(OWN) not in found.values()


def test_the_own_preprocessing_comes_first() -> None:
    """Where the given options differ from it, the model's own mean and std, and its own crop, are tried first."""
    given = replace(OWN, mean=IMAGENET_MEAN, crop_pct=0.5, interpolation="nearest")
    first, *others = tried(Setting(given)).items()
    assert first == ("mean and std of the model's own preprocessing", Setting(replace(given, mean=OWN.mean)))
    geometry = [other for title, other in others if title.startswith("resized and cropped as the model's own")]
    assert geometry == [Setting(replace(OWN, mean=IMAGENET_MEAN))]


def test_what_cannot_be_wrong_is_not_tried() -> None:
    """A model that takes pixels has no mean; a function has no mode; what was found is tried the other way round."""
    titles = tried(Setting(OWN), pixels=True, module=False)
    assert not [title for title in titles if "mean" in title or "training" in title]
    titles = tried(Setting(OWN, bgr=True, training=True))
    assert titles["channels in the order RGB"] == Setting(OWN, training=True)
    assert titles["evaluation mode"] == Setting(OWN, bgr=True)


def test_normalising_twice_and_dividing_twice_are_what_they_say() -> None:
    """One mean and std do what two steps do."""
    found = tried(Setting(OWN))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (OWN.mean, OWN.std))
    torch.testing.assert_close(normalised(found["normalised twice"].transform), (normalised(OWN) - mean) / std)
    twice = (PIXELS / 255 / 255 - mean) / std
    torch.testing.assert_close(normalised(found["divided by 255 twice"].transform), twice)
    raw = found["not normalised, values in 0..255"].transform
    torch.testing.assert_close(normalised(raw), PIXELS.float())


def test_options_lead_to_the_other_transform() -> None:
    """Only what differs is an option; mean and std take three numbers, without loss."""
    words = option_words(OWN, EvalTransform())
    assert words == (
        "--crop-pct", "0.875", "--interpolation", "bicubic", "--mean", *map(str, IMAGENET_MEAN), "--std",
        *map(str, IMAGENET_STD),
    )  # fmt: skip
    assert option_words(OWN, OWN) == ()


@pytest.mark.parametrize("mode", ["center", "border"])
def test_settings_that_share_pixels_are_decoded_once(mode: Literal["center", "border"]) -> None:
    """Mean and std do not change the pixels, but for the colour of a border."""
    setting = Setting(replace(OWN, crop_mode=mode))
    other = Setting(replace(setting.transform, mean=IMAGENET_MEAN))
    assert (setting.geometry == other.geometry) == (mode == "center")


def test_stacked_pixels_are_those_of_each_transform() -> None:
    """The images lie below each other in the order of the transforms."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    transforms = [EvalTransform(img_size=64), EvalTransform(img_size=64, crop_pct=1.0, interpolation="nearest")]
    stacked = Stacked(transforms)(image)
    assert stacked.shape == (128, 64, 3)
    for part, transform in zip(np.split(stacked, 2), transforms, strict=True):
        assert np.array_equal(part, np.asarray(transform(image)))
