"""The diagnosis of a model: each mistake put into its input is found, with the option that undoes it."""

from __future__ import annotations

import io
import math
import shlex
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import Ended, expect_one_line

from wds_real import Dataset, EvalOptions, LoadedModel, ModelError, open_dataset, open_source, write_shards
from wds_real.evaluation.diagnosis.model import ModelDiagnosis, diagnose_model
from wds_real.evaluation.diagnosis.settings import Setting
from wds_real.evaluation.models.base import OwnTransform
from wds_real.storage.local import LocalStore
from wds_real.synthetic import KnownAnswerModel, encode_image, known_answer_model, labels_of, top5_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Ended]

MODEL, SOUND = known_answer_model()
OPTIONS = EvalOptions(batch_size=40, threads=1, device="cpu")
ZERO, ONE, BYTE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1 / 255, 1 / 255, 1 / 255)


def diagnosed(dataset: Dataset, module: Any = MODEL, **changes: Any) -> ModelDiagnosis:
    """Return the diagnosis of a model of which the options change the transform."""
    return diagnose_model(
        LoadedModel("known", module, SOUND), dataset, transform=replace(SOUND, **changes), options=OPTIONS
    )


@pytest.fixture(scope="module")
def dataset(packed: Path) -> Dataset:
    return open_dataset(str(packed))


def test_a_sound_model_raises_no_alarm(dataset: Dataset) -> None:
    """All trials are listed, none is proposed."""
    found = diagnosed(dataset)
    assert (found.steps, found.options, found.advice) == ((), (), ())
    assert found.verdict == "no known mistake in the input or the class numbers"
    assert found.trials[0].title == "as it is"
    assert len(found.trials) > 15
    assert str(found).count("\n") == len(found.trials) + 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mean": ZERO, "std": ONE}, "mean and std of the model's own preprocessing"),
        ({"mean": ZERO, "std": BYTE}, "mean and std of the model's own preprocessing"),
        ({"mean": (127.5, 127.5, 127.5)}, "mean and std of the model's own preprocessing"),
        ({"crop_pct": 0.4}, "resized and cropped as the model's own preprocessing does"),
        ({"crop_pct": 2.0}, "resized and cropped as the model's own preprocessing does"),
    ],
    ids=["0..1", "0..255", "divided twice", "small crop", "black border"],
)
def test_a_mistake_is_found_with_its_option(dataset: Dataset, changes: dict[str, Any], expected: str) -> None:
    """The verdict names what the model expects, and the options change just what was wrong."""
    found = diagnosed(dataset, **changes)
    assert [step.title for step in found.steps] == [expected]
    assert found.steps[0].accuracy.correct > found.trials[0].accuracy.correct
    names = {word[2:].replace("-", "_") for word in found.options if word.startswith("--")}
    assert names == set(changes)


def test_two_wrong_options_are_found_together(dataset: Dataset) -> None:
    """Where a wrong range and a wrong crop leave nothing right, the model's own preprocessing still is."""
    found = diagnosed(dataset, mean=ZERO, std=ONE, crop_pct=0.4)
    assert [step.title for step in found.steps] == ["the model's own preprocessing"]
    assert found.steps[-1].setting.transform == SOUND


class HalfRight(KnownAnswerModel):
    """Right for even classes only in training mode, and for odd ones only with values in -1..1."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        is_right_range = bool((image < 0).any())
        scores = super().forward(image if is_right_range else 2 * image - 1)
        wrong = torch.zeros(len(image), dtype=torch.bool)
        for broken, parity in ((not self.training, 0), (not is_right_range, 1)):
            wrong |= (scores.argmax(dim=1) % 2 == parity) & broken
        return scores.roll(1, dims=1).where(wrong[:, None], scores)


def test_two_mistakes_are_found_one_after_the_other(dataset: Dataset) -> None:
    """The better change comes first, and the other one is tried from there."""
    found = diagnosed(dataset, HalfRight(), mean=ZERO, std=ONE)
    assert len(found.steps) == 2
    assert found.steps[-1].setting == Setting(SOUND, training=True)
    assert found.steps[-1].accuracy.correct > found.steps[0].accuracy.correct > found.trials[0].accuracy.correct
    assert " and then" in str(found)


def test_without_a_preprocessing_of_its_own_the_usual_ones_are_tried(dataset: Dataset) -> None:
    """A factory that returns only a module: the mean and std it was trained with are found by name."""
    loaded = LoadedModel("known", MODEL, replace(SOUND, mean=ZERO, std=ONE))
    found = diagnose_model(loaded, dataset, options=OPTIONS)
    assert found.options == ("--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225")
    assert "mean and std of ImageNet" in found.verdict


class OnlyTraining(KnownAnswerModel):
    """Right only in training mode, as a model whose running statistics were not loaded."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image) if self.training else torch.zeros(len(image), 1000)


def test_missing_statistics_are_found_by_the_mode(dataset: Dataset) -> None:
    """Training mode is better: the advice is to load the buffers; the given module stays as it was."""
    module = OnlyTraining()
    found = diagnosed(dataset, module)
    assert found.steps[0].setting.training
    assert "running statistics" in found.advice[0]
    assert not module.training


def test_wrong_class_numbers_are_found(dataset: Dataset) -> None:
    """The input is right, and the classes are shifted by one."""
    found = diagnosed(dataset, lambda image: MODEL(image).roll(1, dims=1))
    assert found.steps == ()
    assert "classes counted from 1" in found.verdict
    assert found.advice


class OfBlue(torch.nn.Module):
    """Sees the first channel only, and is given images whose last channel shows the class: it takes BGR."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = MODEL(image[:, :1])
        return scores


@pytest.fixture(scope="module")
def blue(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images with the class in the blue channel alone."""
    folder = tmp_path_factory.mktemp("blue")
    with tarfile.open(folder / "val.tar", "w") as tar:
        for label in labels_of(range(1, 81)):
            pixels = np.array(Image.open(io.BytesIO(encode_image(top5_of(label)[0]))))
            pixels[:, :, :2] = 128
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
            info = tarfile.TarInfo(label.file_name)
            info.size = len(file.getvalue())
            tar.addfile(info, io.BytesIO(file.getvalue()))
    with open_source(folder / "val.tar", allow_partial=True) as source:
        write_shards(source, LocalStore(folder / "root"))
    return open_dataset(str(folder / "root"))


def test_the_order_of_channels_is_found(blue: Dataset) -> None:
    """No option flips channels: the advice is what to write."""
    found = diagnosed(blue, OfBlue())
    assert "channels in the order BGR" in found.verdict
    assert found.options == ()
    assert "image.flip(1)" in found.advice[0]


def test_the_sample_is_spread_evenly(dataset: Dataset) -> None:
    """At most so many images, always the same."""
    loaded = LoadedModel("known", MODEL, SOUND)
    first, again = (diagnose_model(loaded, dataset, num_images=50, options=OPTIONS) for _ in range(2))
    assert len(first.trials[0].correct) == 40
    assert [trial.correct.tolist() for trial in first.trials] == [trial.correct.tolist() for trial in again.trials]


def test_what_is_better_but_not_certain_is_said(dataset: Dataset) -> None:
    """On eight images nothing is beyond chance by all trials: what may be wrong is named, and how to be certain."""
    loaded = LoadedModel("known", MODEL, SOUND)
    found = diagnose_model(loaded, dataset, transform=replace(SOUND, mean=ZERO, std=ONE), num_images=8, options=OPTIONS)
    assert found.steps == ()
    assert found.perhaps is not None
    assert found.perhaps.title == "mean and std of the model's own preprocessing"
    assert " perhaps: mean and std of the model's own preprocessing (+" in str(found)
    assert diagnosed(dataset).perhaps is None


def test_the_preprocessing_of_another_library_has_no_settings(dataset: Dataset) -> None:
    """A model that is preprocessed as a whole is refused, with what can be diagnosed instead."""
    own = OwnTransform("processor of a library", {}, lambda _: torch.zeros(3, 64, 64))
    with pytest.raises(ModelError, match="preprocessed by processor of a library as a whole"):
        diagnose_model(LoadedModel("known", MODEL, own), dataset, options=OPTIONS)


def test_an_accuracy_from_elsewhere_is_explained(dataset: Dataset) -> None:
    """The mistakes that give the measured number are named, the nearest first."""
    found = diagnosed(dataset)
    wrong = next(trial for trial in found.trials if trial.title == "not normalised, values in 0..255")
    found = replace(found, measured=wrong.accuracy.percent)
    assert wrong in found.reproducing
    assert found.trials[0] not in found.reproducing
    assert "% would be: " in str(found)
    assert wrong.title in found.as_dict()["reproducing"]
    assert "none of these" in str(replace(found, measured=50.0))


def test_nan_scores_are_wrong_answers(dataset: Dataset) -> None:
    """A setting that overflows does not end the diagnosis."""
    found = diagnosed(dataset, lambda image: MODEL(image) * (math.nan if image.max() > 100 else 1))
    assert found.verdict.startswith("no known mistake")


def test_the_command_proposes_what_gives_the_sound_number(run: Run, packed: Path) -> None:
    """``diagnose -m`` prints an eval with the options that were given and those that were wrong; it runs."""
    name = "wds_real.synthetic:known_answer_model"
    sound = run("eval", packed, "-m", name, "-q").out
    arguments = ("-m", name, "--mean", "0", "0", "0", "--std", "1", "1", "1", "-j", "1", "--device", "cpu")
    ended = run("diagnose", packed, *arguments, "-q")
    assert (ended.code, ended.err) == (0, "")
    command = shlex.split(next(line for line in ended.out.splitlines() if line.startswith(" to do: wds-real"))[8:])
    assert command[:5] == ["wds-real", "eval", str(packed), "-m", name]
    assert command.count("--mean") == command.count("--std") == command.count("-j") + command.count("--threads") == 1
    accuracy = [line for line in run(*command[1:], "-q").out.splitlines() if "top-1" in line]
    assert accuracy == [line for line in sound.splitlines() if "top-1" in line]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("diagnose",), ["a file of predictions, or a model"]),
        (("diagnose", "a.csv", "--mean", "0", "0", "0", "-n", "5"), ["--mean and --num-images: give -m MODEL too"]),
        (("diagnose", "shards", "-m", "x:y", "--class-column", "a"), ["for a file of predictions, not for a model"]),
        (("diagnose", "a.csv", "--measured", "101"), ["--measured"]),
    ],
)
def test_options_of_the_other_kind_are_refused(run: Run, arguments: tuple[str, ...], words: list[str]) -> None:
    """A file and a model take different options; the message says which."""
    expect_one_line(run(*arguments), 2, *words)
