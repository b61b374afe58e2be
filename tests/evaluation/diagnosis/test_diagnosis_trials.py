"""The trials of a diagnosis: what they find is kept, images are decoded once for all, and the race ends when it may."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from wds_real import Dataset, EvalOptions, LoadedModel, open_dataset, open_source, write_shards
from wds_real.evaluation.diagnosis.model import diagnose_model
from wds_real.evaluation.diagnosis.settings import Setting
from wds_real.evaluation.diagnosis.trials import InputTrial, TrialRunner, p_value, possible_gain
from wds_real.image.decode import decode_image
from wds_real.scoring.comparison import mcnemar_exact
from wds_real.storage.local import LocalStore
from wds_real.synthetic import known_answer_model, write_source_tar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

MODEL, SOUND = known_answer_model()
OPTIONS = EvalOptions(batch_size=32, threads=1, device="cpu")
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
NUM_IMAGES = 300


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images for several looks: at 64, 128, 256 and all 300."""
    folder = tmp_path_factory.mktemp("many")
    write_source_tar(folder / "val.tar", range(1, NUM_IMAGES + 1))
    with open_source(folder / "val.tar", allow_partial=True) as source:
        write_shards(source, LocalStore(folder / "root"))
    return open_dataset(folder / "root")


def trial(correct: Sequence[bool], score: Sequence[float] | None = None) -> InputTrial:
    right = np.array(correct, dtype=np.bool_)
    scores = np.full(len(right), math.nan) if score is None else np.array(score, dtype=np.float64)
    return InputTrial("", Setting(SOUND), np.zeros(len(right), dtype=np.int64), right, scores)


def setting(**changes: object) -> Setting:
    return Setting(replace(SOUND, **changes))  # type: ignore[arg-type]


class Counting:
    """The model, and how many images it was given."""

    def __init__(self) -> None:
        self.num_images = 0

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.num_images += len(image)
        scores: torch.Tensor = MODEL(image)
        return scores


# --- two tests on the same images -------------------------------------------------------------------------------------


def test_the_answers_alone_are_mcnemars_test() -> None:
    """A model that returns classes has no scores; images that only one trial has do not count."""
    a, b = trial([True] * 9 + [False] * 5), trial([False] * 9 + [True] + [False] * 4 + [True] * 50)
    assert p_value(a, b) == mcnemar_exact(9, 1)
    assert p_value(b, a) == 1
    assert a.gained_and_lost(b) == (9, 1)


def test_scores_show_what_few_changed_answers_do_not() -> None:
    """13 images to 1 of 217, as of values in 0..1: a chance of 0.002 by the answers, none by the scores."""
    correct = [True] * 177 + [False] * 40
    worse = [True] * 164 + [False] * 13 + [True] + [False] * 39
    noise = np.random.default_rng(0).normal(0, 0.3, 217)
    a, b = trial(correct, [0.0] * 217), trial(worse, (noise - 0.2).tolist())
    assert mcnemar_exact(13, 1) > 0.001
    assert p_value(a, b) < 1e-9
    assert p_value(b, a) == 1


def test_equal_scores_and_scores_of_one_image_are_no_evidence() -> None:
    """No difference, or no spread to compare it with: the answers alone count."""
    assert p_value(trial([True, False], [1, 1]), trial([True, False], [1, 1])) == 1
    assert p_value(trial([True], [3]), trial([False], [1])) == 1


def test_scores_that_point_the_other_way_are_no_evidence() -> None:
    """More right answers with lower scores: only the answers count, and the scores only for the other one."""
    noise = np.random.default_rng(1).normal(0, 0.3, 60)
    a, b = trial([True] * 60, (noise - 1).tolist()), trial([False] * 2 + [True] * 58, [0.0] * 60)
    assert p_value(a, b) == min(1.0, 2 * mcnemar_exact(2, 0))
    assert p_value(b, a) < 1e-9


def test_the_possible_gain_shrinks_with_the_images() -> None:
    """Two trials that agree everywhere: after 64 images one may still be points better, after a thousand not one."""
    few, many = (possible_gain(trial([True] * n), trial([True] * n)) for n in (64, 1000))
    assert few > 1 > many > 0


# --- the runner -------------------------------------------------------------------------------------------------------


def test_what_was_found_is_kept(dataset: Dataset) -> None:
    """A setting is run once on each image, though a later look or round asks again; a new one gets all parts."""
    model = Counting()
    runner = TrialRunner(LoadedModel("known", model, SOUND), dataset, OPTIONS)
    assert runner.num_looks == 4
    first, second = setting(), setting(mean=ZERO, std=ONE)
    for settings, look, images in (([first], 1, 64), ([first], 1, 64), ([first], 2, 128), ([first, second], 2, 256)):
        runner.run(settings, look, None)
        assert model.num_images == images
    runner.run([first, second], 4, None)
    assert model.num_images == 2 * NUM_IMAGES
    found = runner.trial("", first)
    assert len(found.correct) == NUM_IMAGES
    labels = Counter(runner.labels(NUM_IMAGES).tolist())
    assert labels == Counter(dataset.index.original_label.tolist())


def test_the_answers_do_not_depend_on_what_is_tried_beside(dataset: Dataset) -> None:
    """Alone or with others, in one go or look by look."""
    settings = [setting(), setting(crop_pct=0.5), setting(mean=ZERO, std=ONE), replace(setting(), bgr=True)]
    together = TrialRunner(LoadedModel("known", MODEL, SOUND), dataset, OPTIONS)
    for look in range(1, together.num_looks + 1):
        together.run(settings, look, None)
    for one in settings:
        alone = TrialRunner(LoadedModel("known", MODEL, SOUND), dataset, OPTIONS)
        alone.run([one], alone.num_looks, None)
        assert np.array_equal(alone.trial("", one).predicted, together.trial("", one).predicted)
        assert np.array_equal(alone.trial("", one).score, together.trial("", one).score)


def test_an_image_is_decoded_once_for_all_settings(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that differ in mean, std and channels share the pixels; those of other crops share the decoded image."""
    decoded = Counter[str]()

    def counted(data: bytes) -> Image.Image:
        decoded["images"] += 1
        return decode_image(data)

    monkeypatch.setattr("wds_real.data.decode_stage.decode_image", counted)
    runner = TrialRunner(LoadedModel("known", MODEL, SOUND), dataset, OPTIONS)
    settings = [setting(), setting(mean=ZERO, std=ONE), replace(setting(), bgr=True), setting(crop_pct=0.5)]
    runner.run(settings, 2, None)
    assert decoded["images"] == 128


@pytest.mark.parametrize("kind", ["logits", "probabilities", "scaled"])
def test_scores_of_labels_do_not_depend_on_how_confident_a_model_is(dataset: Dataset, kind: str) -> None:
    """Logits at another scale give the same; probabilities give those of their logarithms."""
    scores = torch.randn(NUM_IMAGES, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = iter([scores[start : start + 32] for start in range(0, NUM_IMAGES, 32)])

    def model(image: torch.Tensor) -> torch.Tensor:
        del image
        part = next(rows)
        forms: dict[str, torch.Tensor] = {
            "logits": part, "probabilities": part.softmax(dim=1), "scaled": 3 * part + 5
        }  # fmt: skip
        return forms[kind]

    runner = TrialRunner(LoadedModel("known", model, SOUND), dataset, OPTIONS)
    runner.run([setting()], runner.num_looks, None)
    labels = runner.labels(NUM_IMAGES)
    expected = (scores[torch.arange(NUM_IMAGES), torch.from_numpy(labels)] - scores.mean(1)) / scores.std(
        1, correction=0
    )
    np.testing.assert_allclose(runner.trial("", setting()).score, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_scores_that_say_nothing_are_the_mean(dataset: Dataset, value: float) -> None:
    """NaN, infinity, or the same score for each class: neither better nor worse, and no warning."""
    model = LoadedModel("known", lambda image: torch.full((len(image), 1000), value), SOUND)
    runner = TrialRunner(model, dataset, OPTIONS)
    runner.run([setting()], 1, None)
    assert set(runner.trial("", setting()).score.tolist()) == {0.0}


def test_classes_have_no_scores(dataset: Dataset) -> None:
    """A model that answers instead of scoring is compared by its answers."""
    runner = TrialRunner(LoadedModel("known", lambda image: MODEL(image).argmax(dim=1), SOUND), dataset, OPTIONS)
    runner.run([setting()], 1, None)
    assert np.isnan(runner.trial("", setting()).score).all()


# --- the race ---------------------------------------------------------------------------------------------------------


def test_the_race_ends_when_the_verdict_is_certain(dataset: Dataset) -> None:
    """Losers are out at the first look: two rounds take fewer images than one on the whole sample would."""
    model = Counting()
    loaded = LoadedModel("known", model, SOUND)
    found = diagnose_model(loaded, dataset, transform=replace(SOUND, crop_pct=2.0), options=OPTIONS)
    assert len(found.steps) == 1
    sizes = [len(trial.correct) for trial in found.trials]
    assert min(sizes) == 64
    assert model.num_images < len(sizes) * NUM_IMAGES


def test_a_measured_accuracy_uses_the_whole_sample(dataset: Dataset) -> None:
    """A trial that could give it is not out because another one is better."""
    loaded = LoadedModel("known", MODEL, SOUND)
    wrong = next(trial for trial in diagnose_model(loaded, dataset, options=OPTIONS).trials if "0..255" in trial.title)
    assert len(wrong.correct) < NUM_IMAGES
    found = diagnose_model(loaded, dataset, options=OPTIONS, measured=wrong.accuracy.percent)
    again = next(trial for trial in found.trials if trial.title == wrong.title)
    assert len(again.correct) == NUM_IMAGES
    assert again in found.reproducing


def test_the_table_says_how_many_images_each_trial_needed(dataset: Dataset) -> None:
    """And how many of them change against the setting as it is, on the same images."""
    found = diagnose_model(LoadedModel("known", MODEL, SOUND), dataset, options=OPTIONS)
    as_it_is = found.trials[0]
    rows = found.as_dict()["trials"]
    assert [row["total"] for row in rows] == [len(trial.correct) for trial in found.trials]
    for row in rows[1:]:
        n = row["total"]
        assert row["correct"] - int(as_it_is.correct[:n].sum()) == row["gained"] - row["lost"]
        assert f" {n:,}  " in str(found)
