"""Published results of timm's models, as numbers of correct images.

The bundled table is made from timm's result files by ``scripts/make_published_results.py``. The percentages there have
three decimals, which is enough to give each count exactly.
"""

from __future__ import annotations

import fnmatch
import functools
from dataclasses import dataclass

from wds_real.labels.bundled_files import read_bundled

__all__ = ["COLUMNS", "NUM_LABELLED", "PublishedResult", "find_published", "published_results"]

NUM_LABELLED = 46_837  # images with at least one ReaL label
COLUMNS = (
    "model", "img_size", "crop_pct", "interpolation", "parameters_millions",
    "original_top1", "original_top5", "real_top1", "real_top5",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """One row of timm's result tables: a model at one input size.

    Attributes:
        model: timm's name with its tag, ``resnet50.a1_in1k``.
        img_size: Height and width of the input, in pixels.
        crop_pct: Share of the resized image that the centre crop keeps.
        interpolation: ``bicubic`` or ``bilinear``.
        parameters_millions: Parameters, in millions.
        original_top1: Correct of 50,000 by the original labels.
        original_top5: The same, with the label among the five highest.
        real_top1: Correct of the 46,837 images that have a ReaL label.
        real_top5: The same, with a ReaL label among the five highest.
    """

    model: str
    img_size: int
    crop_pct: float
    interpolation: str
    parameters_millions: float
    original_top1: int
    original_top5: int
    real_top1: int
    real_top5: int

    @property
    def setting(self) -> str:
        """Size, crop and interpolation, as text."""
        return f"{self.img_size} px, crop {self.crop_pct:g}, {self.interpolation}"


@functools.cache
def published_results() -> tuple[PublishedResult, ...]:
    """Return the 1,556 published results, by name and size.

    >>> len(published_results()), published_results()[0].model
    (1556, 'bat_resnext26ts.ch_in1k')

    Raises:
        SourceError: the bundled file is damaged.
    """
    lines = read_bundled("published_results.tsv").decode("ascii").splitlines()[1:]
    return tuple(
        PublishedResult(model, int(size), float(crop), interpolation, float(millions), *map(int, counts))
        for model, size, crop, interpolation, millions, *counts in (line.split("\t") for line in lines)
    )


def find_published(pattern: str) -> tuple[PublishedResult, ...]:
    """Return the results of the models that match a name or a pattern, in the table's order.

    A name without a tag matches every tag; a pattern has ``*``, ``?`` or ``[...]``.

    >>> sorted({result.model for result in find_published("vgg16")})
    ['vgg16.tv_in1k']
    >>> sorted({result.model for result in find_published("vgg16*")})
    ['vgg16.tv_in1k', 'vgg16_bn.tv_in1k']
    """
    return tuple(
        result
        for result in published_results()
        if fnmatch.fnmatchcase(result.model, pattern) or result.model.partition(".")[0] == pattern
    )
