"""Find the mistake in a model's input that explains a far too low accuracy, by trials on a sample of the images.

In each round, every trial differs from the current setting by one known mistake, made or undone. A setting that is
significantly better becomes the current one of the next round, so several mistakes are found one after the other.

A round is a sequential test: after 64, 128, 256, ... images, the trials that can no longer be the best one are dropped.
It ends as soon as the verdict is certain, see `_Race`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from wds_real.errors import ModelError
from wds_real.evaluation.diagnosis.settings import Setting, option_words, variations
from wds_real.evaluation.diagnosis.trials import InputTrial, TrialRunner, p_value, possible_gain
from wds_real.evaluation.failures import memory_errors
from wds_real.evaluation.models.base import OwnTransform
from wds_real.evaluation.options import EvalOptions
from wds_real.image.transform import EvalTransform
from wds_real.scoring.comparison import mcnemar_exact
from wds_real.scoring.diagnosis import Diagnosis, diagnose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from wds_real.data.dataset import Dataset
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.evaluation.progress.bar import Advance

__all__ = ["ModelDiagnosis", "diagnose_model"]

_LEVEL = 0.01  # significance of all trials of a round at all looks together
_OUT = 0.01  # a trial that is worse than the best one at this level is dropped
_SAME = 0.05  # above this p-value two trials cannot be told apart
_WORTH = 1.0  # points of accuracy; a smaller gain is not reported as a mistake
_ROUNDS = 3
_AS_IT_IS = "as it is"


@dataclass(frozen=True, slots=True)
class ModelDiagnosis:
    """What was tried, and what explains the accuracy. Print it for the table.

    Attributes:
        trials: The trials of the first round; the first is the model as it is.
        steps: The changes that make the model significantly better, in order; empty if no mistake was found.
        classes: The diagnosis of the class numbers, on the predictions after these changes.
        measured: Original top-1 that was measured elsewhere, in percent, or None.
    """

    trials: tuple[InputTrial, ...]
    steps: tuple[InputTrial, ...]
    classes: Diagnosis
    measured: float | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The options of ``wds-real eval`` that correct the mistakes; empty if no option does."""
        if not self.steps:
            return ()
        return option_words(self.trials[0].setting.transform, self.steps[-1].setting.transform)

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do about mistakes that no option corrects."""
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
        """The best trial with p < 0.05 by itself; None if there is none, or if a mistake was found."""
        as_it_is, *others = self.trials
        better = [
            trial
            for trial in others
            if _gain(trial, as_it_is) > 0 and mcnemar_exact(*trial.gained_and_lost(as_it_is)) < _SAME
        ]
        if self.steps or self.classes.explanation is not None or not better:
            return None
        return max(better, key=lambda trial: _gain(trial, as_it_is))

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
            "trials": [self._trial_as_dict(trial) for trial in self.trials],
            "classes": self.classes.as_dict(),
            **({} if self.measured is None else {"reproducing": [trial.title for trial in self.reproducing]}),
        }

    def _trial_as_dict(self, trial: InputTrial) -> dict[str, Any]:
        gained, lost = trial.gained_and_lost(self.trials[0])
        return {"setting": trial.title, **trial.accuracy.as_dict(), "gained": gained, "lost": lost}

    def __str__(self) -> str:
        lines = ["    top-1   95 % interval images  right/wrong  setting (right/wrong: images that it changes)"]
        lines += [_row(trial, self.trials[0]) for trial in self.trials]
        for step in self.steps[1:]:
            lines += [" and then", _row(step)]
        lines.append(f" verdict: {self.verdict}")
        lines += [f" to do: {advice}" for advice in self.advice]
        if self.perhaps is not None:
            gain = _gain(self.perhaps, self.trials[0])
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
    measured: float | None = None,
    options: EvalOptions | None = None,
    bar: Callable[[int], AbstractContextManager[Advance]] | None = None,
) -> ModelDiagnosis:
    """Evaluate a model on a sample of the images with each known mistake in its input, and return what explains it.

    Args:
        loaded: The model, with the transform that its source gives.
        dataset: The images; the sample is every k-th of them, at most `num_images`, always the same, in random order.
        transform: How the images are made its input; None means its own.
        num_images: Largest size of the sample; fewer are used if they are enough for the verdict.
        measured: Original top-1 in percent from elsewhere; the trials that could give it use the whole sample.
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
        runner = TrialRunner(loaded, sample, options)
        for _ in range(_ROUNDS):
            others = variations(setting, own, pixels=loaded.takes_pixels, module=module)
            race = _Race(runner, {title: setting, **others}, measured=None if first else measured)
            if bar is None:
                race.run(None)
            else:
                with bar(len(sample)) as advance:
                    race.run(advance)
            first = first or race.trials
            if race.found is None:
                break
            steps.append(race.found)
            setting, title = race.found.setting, race.found.title
    answers = runner.trial(title, setting)
    classes = diagnose(answers.predicted, runner.labels(len(answers.predicted)))
    return ModelDiagnosis(first, tuple(steps), classes, measured)


class _Race:
    """The trials of a round, of which the first is the setting as it is.

    At each look, a trial is *better* than the setting as it is if it gains at least a point of accuracy, and if its
    p-value, corrected for all trials and looks, is below one percent. A trial is dropped if it is worse than the best
    one, or cannot gain a point on it; with `measured`, those that could give that accuracy stay. The race ends when
    only the best one is left.

    Attributes:
        trials: In the order of the settings; those that were dropped early have fewer images.
        found: The better one, or None. Of several that cannot be told apart from the best, the first: the settings are
            in the order of likelihood.
    """

    def __init__(self, runner: TrialRunner, settings: Mapping[str, Setting], *, measured: float | None) -> None:
        self._runner, self._settings, self._measured = runner, settings, measured
        self.trials: tuple[InputTrial, ...] = ()
        self.found: InputTrial | None = None

    def run(self, advance: Advance | None) -> None:
        """Look at more and more images until the verdict is certain, or the sample ends."""
        as_it_is, *_ = running = list(self._settings)
        for look in range(1, self._runner.num_looks + 1):
            self._runner.run([self._settings[title] for title in running], look, advance)
            self.trials = tuple(self._runner.trial(title, setting) for title, setting in self._settings.items())
            still = {trial.title: trial for trial in self.trials if trial.title in running}
            self.found = self._better(list(still.values()))
            best = still[as_it_is] if self.found is None else self.found
            running = [title for title, trial in still.items() if trial is best or self._undecided(trial, best)]
            if running == [best.title]:
                break
            running = list(dict.fromkeys([as_it_is, *running]))

    def _better(self, running: list[InputTrial]) -> InputTrial | None:
        """Return the trial that is better than the first one, or None."""
        as_it_is, *others = running
        level = _LEVEL / max(1, (len(self._settings) - 1) * self._runner.num_looks)
        better = [trial for trial in others if _gain(trial, as_it_is) >= _WORTH and p_value(trial, as_it_is) < level]
        if not better:
            return None
        top = max(better, key=lambda trial: trial.accuracy.correct)
        return next(trial for trial in better if trial is top or p_value(top, trial) > _SAME)

    def _undecided(self, trial: InputTrial, best: InputTrial) -> bool:
        """Return whether more images can still change what is known of a trial."""
        if self._measured is not None:
            low, high = trial.accuracy.interval
            if low <= self._measured / 100 <= high:
                return True
        worse = _gain(trial, best) <= 0 and p_value(best, trial) < _OUT
        return not worse and possible_gain(best, trial) > _WORTH


def _gain(trial: InputTrial, other: InputTrial) -> float:
    """Return the points of accuracy that a trial has more than the other on the same images."""
    gained, lost = trial.gained_and_lost(other)
    return 100 * (gained - lost) / len(trial.correct)


def _has_one_mode(module: torch.nn.Module) -> bool:
    """Return whether a module is an exported program, which keeps the mode in which it was exported."""
    try:
        module.eval()
    except NotImplementedError:
        return True
    return False


def _row(trial: InputTrial, as_it_is: InputTrial | None = None) -> str:
    accuracy = trial.accuracy
    low, high = (100 * bound for bound in accuracy.interval)
    against = ""
    if as_it_is is not None and trial is not as_it_is:
        gained, lost = trial.gained_and_lost(as_it_is)
        against = f"+{gained} -{lost}"
    return f" {accuracy.percent:>8.3f}  {low:>6.2f} - {high:<6.2f} {accuracy.total:>6,}  {against:>10}  {trial.title}"
