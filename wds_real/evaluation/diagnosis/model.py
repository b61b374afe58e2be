"""Why a model's accuracy is absurd: each known mistake in its input is made or undone on a sample of the images.

The settings differ from the given one by one mistake each. The best of them becomes the given one, as long as it is
better than chance allows, so that two mistakes at once are found one after the other.
"""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wds_real.data.loader import Loader
from wds_real.errors import ModelError
from wds_real.evaluation.device import Normalize, on_device
from wds_real.evaluation.diagnosis.settings import Setting, Stacked, option_words, variations
from wds_real.evaluation.failures import memory_errors, model_errors
from wds_real.evaluation.forward import choose_device, input_dtype, prepare_forward
from wds_real.evaluation.models.base import OwnTransform
from wds_real.evaluation.options import EvalOptions
from wds_real.evaluation.outputs import Outputs
from wds_real.evaluation.progress.stopwatch import ModelStopwatch
from wds_real.image.transform import EvalTransform
from wds_real.scoring.comparison import mcnemar_exact
from wds_real.scoring.counts import Accuracy
from wds_real.scoring.diagnosis import Diagnosis, diagnose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.evaluation.progress.bar import Advance

__all__ = ["InputTrial", "ModelDiagnosis", "diagnose_model"]

_LEVEL = 0.01  # of the family of all trials of a round
_SAME = 0.05
_ROUNDS = 3
_AS_IT_IS = "as it is"


@dataclass(frozen=True, slots=True, eq=False)
class InputTrial:
    """The sample's original top-1 with one setting.

    Attributes:
        title: What differs from the first trial of the round.
        setting: How the images became the input.
        correct: bool (N,), the images whose original label was predicted.
    """

    title: str
    setting: Setting
    correct: NDArray[np.bool_]

    @property
    def accuracy(self) -> Accuracy:
        """Original top-1."""
        return Accuracy(int(self.correct.sum()), len(self.correct))


@dataclass(frozen=True, slots=True)
class ModelDiagnosis:
    """What was tried, and what explains the accuracy. Print it for the table.

    Attributes:
        trials: Of the first round; the first is the model as it is.
        steps: The changes that make the model better than chance allows, one after the other; none if it is sound.
        classes: Of the predictions after these changes: whether their class numbers are wrong.
        measured: Original top-1 that was measured elsewhere, in percent, or None.
    """

    trials: tuple[InputTrial, ...]
    steps: tuple[InputTrial, ...]
    classes: Diagnosis
    measured: float | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The options of ``wds-real eval`` that undo what was found, as far as there are some."""
        if not self.steps:
            return ()
        return option_words(self.trials[0].setting.transform, self.steps[-1].setting.transform)

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do where no option does it."""
        setting = (self.steps or self.trials)[-1 if self.steps else 0].setting
        found = []
        if setting.bgr:
            found.append("the model takes BGR: name a factory whose function flips the channels, model(image.flip(1))")
        if setting.training:
            found.append("the running statistics of BatchNorm are not those of the weights: load the buffers too")
        if self.classes.explanation is not None:
            found += [mistake.advice for mistake in self.classes.explanation.mistakes]
        return tuple(found)

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        found = [step.title for step in self.steps]
        best = (self.steps or self.trials[:1])[-1].accuracy.percent
        if self.classes.explanation is not None:
            found.append(self.classes.explanation.name)
            best = 100 * self.classes.explanation.accuracy
        if found:
            return f"the model expects: {', then '.join(found)}: {best:.2f} % instead"
        return "no known mistake in the input or the class numbers"

    @property
    def perhaps(self) -> InputTrial | None:
        """The trial that is better, but not beyond chance on so few images; None if there is none, or a verdict."""
        as_it_is, *others = self.trials
        top = max(others, key=lambda trial: trial.accuracy.correct)
        unsure = not self.steps and self.classes.explanation is None and _p_value(as_it_is, top) < _SAME
        return top if unsure and top.accuracy.correct > as_it_is.accuracy.correct else None

    @property
    def reproducing(self) -> tuple[InputTrial, ...]:
        """The trials that could give the accuracy measured elsewhere, the nearest first."""
        if self.measured is None:
            return ()
        share = self.measured / 100
        fitting = [trial for trial in self.trials if trial.accuracy.interval[0] <= share <= trial.accuracy.interval[1]]
        return tuple(sorted(fitting, key=lambda trial: abs(trial.accuracy.value - share)))

    def as_dict(self) -> dict[str, Any]:
        """Return all trials, JSON-ready."""
        return {
            "format": {"name": "wds_real.model_diagnosis", "version": 1},
            "verdict": self.verdict,
            "found": [step.title for step in self.steps],
            "options": list(self.options),
            "advice": list(self.advice),
            "perhaps": None if self.perhaps is None else self.perhaps.title,
            "trials": [{"setting": trial.title, **trial.accuracy.as_dict()} for trial in self.trials],
            "classes": self.classes.as_dict(),
            **({} if self.measured is None else {"reproducing": [trial.title for trial in self.reproducing]}),
        }

    def __str__(self) -> str:
        lines = [f" original top-1 on {len(self.trials[0].correct):,} images, evenly spread", *map(_row, self.trials)]
        for step in self.steps[1:]:
            lines += [" and then", _row(step)]
        lines.append(f" verdict: {self.verdict}")
        lines += [f" to do: {advice}" for advice in self.advice]
        if self.perhaps is not None:
            gain = self.perhaps.accuracy.percent - self.trials[0].accuracy.percent
            lines.append(f" perhaps: {self.perhaps.title} ({gain:+.2f} points); for certainty try more images: -n")
        if self.measured is not None:
            fitting = "; ".join(trial.title for trial in self.reproducing) or "none of these"
            lines.append(f" {self.measured:.2f} % would be: {fitting}")
        return "\n".join(lines)


def diagnose_model(
    loaded: LoadedModel,
    dataset: Dataset,
    *,
    transform: EvalTransform | OwnTransform | None = None,
    num_images: int = 1000,
    options: EvalOptions | None = None,
    bar: Callable[[int], AbstractContextManager[Advance]] | None = None,
) -> ModelDiagnosis:
    """Evaluate a model on a sample of the images with each known mistake in its input.

    Args:
        loaded: The model, with the transform that its source gives.
        dataset: The images; the sample is every k-th of them, at most `num_images`, always the same.
        transform: How the images are made its input; None means its own.
        num_images: Size of the sample.
        options: How to run the model.
        bar: Called with the number of images before each round; the result moves a progress bar.

    Raises:
        ShardError: a sample is damaged.
        ModelError: the model does not return scores of the 1,000 classes, or has the preprocessing of another library.
        ModelRunError: the model raised an error, or memory ran out.
    """
    options = options or EvalOptions(batch_size=32)
    sample = dataset[:: math.ceil(len(dataset) / num_images)]
    own, given = loaded.transform, transform or loaded.transform
    if not isinstance(own, EvalTransform) or not isinstance(given, EvalTransform):
        name = own.name if isinstance(own, OwnTransform) else "another library"
        raise ModelError(
            f"{loaded.spec}: it is preprocessed by {name} as a whole, so no setting can be tried. Diagnose its "
            "predictions: wds-real diagnose FILE."
        )
    setting, title = Setting(given), _AS_IT_IS
    first: tuple[InputTrial, ...] = ()
    steps: list[InputTrial] = []
    module = isinstance(loaded.module, torch.nn.Module) and not _has_one_mode(loaded.module)
    with torch.inference_mode(), memory_errors(options.batch_size):
        for _ in range(_ROUNDS):
            others = variations(setting, own, pixels=loaded.takes_pixels, module=module)
            predicted = _predict(loaded, sample, {title: setting, **others}, options, bar)
            label = np.array(sample.index.original_label)[sample.positions]
            settings = {title: setting, **others}
            trials = tuple(InputTrial(name, settings[name], found == label) for name, found in predicted.items())
            first = first or trials
            best = _best(trials)
            classes = diagnose(predicted[title], label)
            if best is None:
                break
            steps.append(best)
            setting, title = best.setting, best.title
            classes = diagnose(predicted[title], label)
    return ModelDiagnosis(first, tuple(steps), classes)


def _best(trials: tuple[InputTrial, ...]) -> InputTrial | None:
    """Return the trial that is better than the first one by more than chance, or None.

    Of several that cannot be told apart from the best, the first one is returned: the likeliest comes first.
    """
    as_it_is, *others = trials
    top = max(others, key=lambda trial: trial.accuracy.correct)
    if _p_value(as_it_is, top) * len(others) >= _LEVEL or top.accuracy.correct <= as_it_is.accuracy.correct:
        return None
    return next(
        trial
        for trial in others
        if _p_value(trial, top) > _SAME
        and trial.accuracy.correct > as_it_is.accuracy.correct
        and _p_value(as_it_is, trial) * len(others) < _LEVEL
    )


def _p_value(a: InputTrial, b: InputTrial) -> float:
    return mcnemar_exact(int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum()))


def _predict(
    loaded: LoadedModel,
    sample: Dataset,
    settings: Mapping[str, Setting],
    options: EvalOptions,
    bar: Callable[[int], AbstractContextManager[Advance]] | None,
) -> dict[str, NDArray[np.int64]]:
    """Return the first class of each image, int64 (N,), with each setting; images are decoded once for all of them."""
    geometries = list(dict.fromkeys(setting.geometry for setting in settings.values()))
    device = choose_device(loaded, options)
    forwards = {title: _forward(loaded, setting, device, options) for title, setting in settings.items()}
    outputs = Outputs(loaded.classes)
    loader = Loader(
        sample, batch_size=options.batch_size, transform=Stacked(geometries), threads=options.threads, pad=False,
        rank=0, world_size=1,
    )  # fmt: skip
    found: dict[str, list[NDArray[np.int64]]] = {title: [] for title in settings}
    with ExitStack() as stack:
        advance = stack.enter_context(bar(len(sample))) if bar is not None else None
        for batch, image in on_device(loader, device):
            parts = dict(zip(geometries, image.chunk(len(geometries), dim=2), strict=True))
            for title, setting in settings.items():
                part = parts[setting.geometry]
                returned = forwards[title](part.flip(1) if setting.bgr else part.contiguous())
                found[title].append(_first_class(outputs.scores(returned)))
            if advance is not None:
                advance(len(batch.key))
    return {title: np.concatenate(classes) for title, classes in found.items()}


def _forward(
    loaded: LoadedModel, setting: Setting, device: torch.device, options: EvalOptions
) -> Callable[[torch.Tensor], Any]:
    normalize = Normalize(
        setting.transform.mean, setting.transform.std, device=device, channels_last=options.channels_last
    )
    if not setting.training:
        return prepare_forward(loaded, normalize, device, options, ModelStopwatch())
    dtype = input_dtype(loaded)
    module = copy.deepcopy(loaded.module).train().to(device)  # type: ignore[attr-defined]  # BatchNorm changes it

    def forward(image: torch.Tensor) -> Any:  # noqa: ANN401 -- whatever the model returns
        with model_errors("the model in training mode", batch_size=len(image)), torch.random.fork_rng():
            torch.manual_seed(0)  # Dropout draws, the same in each run
            pixels = image if loaded.takes_pixels else normalize(image).to(dtype)
            with torch.autocast(device.type, dtype=getattr(torch, options.amp_dtype), enabled=options.amp):
                return module(pixels)

    return forward


def _has_one_mode(module: torch.nn.Module) -> bool:
    """Return whether a module is an exported program, which keeps the mode in which it was exported."""
    try:
        module.eval()
    except NotImplementedError:
        return True
    return False


def _first_class(scores: torch.Tensor) -> NDArray[np.int64]:
    """Return the class with the highest score, of classes the first; NaN, as half precision gives, is the lowest."""
    if not scores.is_floating_point():
        return scores.reshape(len(scores), -1)[:, 0].cpu().numpy().astype(np.int64)
    return scores.nan_to_num(nan=-math.inf).argmax(dim=1).cpu().numpy()


def _row(trial: InputTrial) -> str:
    accuracy = trial.accuracy
    low, high = (100 * bound for bound in accuracy.interval)
    return f"   {accuracy.percent:>7.3f}  ({low:.2f} - {high:.2f})  {trial.title}"
