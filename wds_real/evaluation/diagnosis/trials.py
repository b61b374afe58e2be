"""The predictions of a model with different settings on the same images; each is computed once."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wds_real.data.loader import Loader
from wds_real.data.plan import num_batches
from wds_real.evaluation.device import Normalize, on_device
from wds_real.evaluation.diagnosis.settings import Setting, Stacked
from wds_real.evaluation.failures import model_errors
from wds_real.evaluation.forward import choose_device, input_dtype, prepare_forward
from wds_real.evaluation.outputs import Outputs
from wds_real.evaluation.progress.stopwatch import ModelStopwatch
from wds_real.scoring.comparison import mcnemar_exact, paired_interval
from wds_real.scoring.counts import Accuracy
from wds_real.storage.buffers import Buffers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.evaluation.options import EvalOptions
    from wds_real.evaluation.progress.bar import Advance

__all__ = ["InputTrial", "TrialRunner", "p_value", "possible_gain"]

_FIRST_LOOK = 64  # images; each further look has twice as many
_KEPT_INPUTS = 2
_LEAST_PROBABILITY = 1e-6
_SUM_TOLERANCE = 0.02  # of probabilities in half precision, or quantised


@dataclass(frozen=True, slots=True, eq=False)
class InputTrial:
    """A model's answers with one setting, on the first images of the sample.

    Attributes:
        title: What differs from the first trial of the round.
        setting: How the images became the input.
        predicted: int64 (N,), the first class.
        correct: bool (N,), the images whose original label was predicted.
        score: float64 (N,), the score of the original label, in standard deviations above the mean of the image's
            scores; NaN where the model gives classes only.
    """

    title: str
    setting: Setting
    predicted: NDArray[np.int64]
    correct: NDArray[np.bool_]
    score: NDArray[np.float64]

    @property
    def accuracy(self) -> Accuracy:
        """Original top-1."""
        return Accuracy(int(self.correct.sum()), len(self.correct))

    def gained_and_lost(self, other: InputTrial) -> tuple[int, int]:
        """Return the images that only this one gets right, and that only the other does, of those that both have."""
        n = min(len(self.correct), len(other.correct))
        mine, theirs = self.correct[:n], other.correct[:n]
        return int((mine & ~theirs).sum()), int((theirs & ~mine).sum())


def p_value(better: InputTrial, worse: InputTrial) -> float:
    """Return the p-value of one trial being better than another: the smaller of two paired tests, times two.

    One is McNemar's exact test of the answers. The other compares the labels' scores, by the normal approximation of a
    paired t-test: they differ on every image, not only where an answer changes. In standard deviations of the image's
    scores, they do not depend on how confident a setting makes the model. A test in the other direction counts as 1.
    """
    gained, lost = better.gained_and_lost(worse)
    answers = mcnemar_exact(gained, lost) if gained > lost else 1.0
    n = min(len(better.score), len(worse.score))
    difference = better.score[:n] - worse.score[:n]
    spread = float(difference.std(ddof=1)) if n > 1 else 0.0
    if not math.isfinite(spread) or spread == 0:
        return answers
    t = float(difference.mean()) / spread * math.sqrt(n)
    return min(1.0, 2 * min(answers, math.erfc(t / math.sqrt(2)) if t > 0 else 1.0))


def possible_gain(a: InputTrial, b: InputTrial) -> float:
    """Return the upper end of the paired 95 % interval of the accuracy of `b` minus that of `a`, in points."""
    gained, lost = b.gained_and_lost(a)
    return paired_interval(lost, gained, min(len(a.correct), len(b.correct)))[1]


@dataclass(slots=True)
class _Answers:
    """The results of one setting, part by part: predicted classes, and the scores of the labels."""

    predicted: list[NDArray[np.int64]] = field(default_factory=list)
    score: list[NDArray[np.float64]] = field(default_factory=list)


class TrialRunner:
    """Runs a model on a sample of images in a fixed random order, look by look; each look has twice as many images.

    Args:
        loaded: The model.
        sample: The images.
        options: How to run the model.
    """

    def __init__(self, loaded: LoadedModel, sample: Dataset, options: EvalOptions) -> None:
        self._loaded, self._sample, self._options = loaded, sample, options
        self._device = choose_device(loaded, options)
        self._memory = Buffers(max_kept=_KEPT_INPUTS)
        self._outputs = Outputs(loaded.classes)
        self._parts = _parts(num_batches(len(sample), options.batch_size), options.batch_size)
        self._labels: list[NDArray[np.int64]] = []
        self._answers: dict[Setting, _Answers] = {}

    @property
    def num_looks(self) -> int:
        """Looks until all images of the sample are seen."""
        return len(self._parts)

    def run(self, settings: Sequence[Setting], look: int, advance: Advance | None) -> None:
        """Evaluate each setting on the images of the first `look` looks; settings that miss a part share its decoding.

        Args:
            settings: Those that are tried.
            look: Counted from 1.
            advance: Called with the number of images after each batch.
        """
        for part in range(look):
            missing = [setting for setting in settings if len(self._found(setting).predicted) == part]
            if missing:
                self._run_part(missing, part, advance)

    def trial(self, title: str, setting: Setting) -> InputTrial:
        """Return what was found with a setting so far."""
        answers = self._found(setting)
        predicted = np.concatenate(answers.predicted)
        correct = predicted == self.labels(len(predicted))
        return InputTrial(title, setting, predicted, correct, np.concatenate(answers.score))

    def labels(self, num_images: int) -> NDArray[np.int64]:
        """Return the original labels of the first images, int64 (num_images,)."""
        return np.concatenate(self._labels)[:num_images]

    def _found(self, setting: Setting) -> _Answers:
        return self._answers.setdefault(setting, _Answers())

    def _run_part(self, settings: Sequence[Setting], part: int, advance: Advance | None) -> None:
        geometries = list(dict.fromkeys(setting.geometry for setting in settings))
        forwards = {setting: self._forward(setting) for setting in settings}
        loader = Loader(
            self._sample, batch_size=self._options.batch_size, transform=Stacked(geometries), shuffle=True, pad=False,
            threads=self._options.threads, batches=self._parts[part], rank=0, world_size=1,
        )  # fmt: skip
        found = {setting: _Answers() for setting in settings}
        labels = []
        for batch, image in on_device(loader, self._device):
            pixels = dict(zip(geometries, image.chunk(len(geometries), dim=2), strict=True))
            label = batch.original_label.numpy()
            labels.append(label)
            for setting, answers in found.items():
                part_of_image = pixels[setting.geometry]
                returned = forwards[setting](part_of_image.flip(1) if setting.bgr else part_of_image.contiguous())
                scores = self._outputs.scores(returned)
                answers.predicted.append(_first_class(scores))
                answers.score.append(_label_score(scores, label))
            if advance is not None:
                advance(len(batch.key))
        if part == len(self._labels):
            self._labels.append(np.concatenate(labels))
        for setting, answers in found.items():
            self._answers[setting].predicted.append(np.concatenate(answers.predicted))
            self._answers[setting].score.append(np.concatenate(answers.score))

    def _forward(self, setting: Setting) -> Callable[[torch.Tensor], Any]:
        loaded, device, options = self._loaded, self._device, self._options
        transform = setting.transform
        normalize = Normalize(
            transform.mean, transform.std, device=device, channels_last=options.channels_last, memory=self._memory
        )
        if not setting.training:
            return prepare_forward(loaded, normalize, device, options, ModelStopwatch())
        dtype = input_dtype(loaded)
        module = copy.deepcopy(loaded.module).train().to(device)  # type: ignore[attr-defined]  # a copy: BatchNorm changes it

        def forward(image: torch.Tensor) -> Any:  # noqa: ANN401 -- whatever the model returns
            with model_errors("the model in training mode", batch_size=len(image)), torch.random.fork_rng():
                torch.manual_seed(0)  # so that dropout is the same in each run
                pixels = image if loaded.takes_pixels else normalize(image).to(dtype)
                with torch.autocast(device.type, dtype=getattr(torch, options.amp_dtype), enabled=options.amp):
                    return module(pixels)

        return forward


def _parts(batches: int, batch_size: int) -> list[range]:
    """Return the batches that each look adds.

    >>> _parts(12, 32)
    [range(0, 2), range(2, 4), range(4, 8), range(8, 12)]
    """
    stops = [math.ceil(_FIRST_LOOK / batch_size)]
    while stops[-1] < batches:
        stops.append(2 * stops[-1])
    stops[-1] = batches
    return [range(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]


def _first_class(scores: torch.Tensor) -> NDArray[np.int64]:
    """Return the class with the highest score, or the first of given classes; NaN, as in half precision, ranks last."""
    if not scores.is_floating_point():
        return scores.reshape(len(scores), -1)[:, 0].cpu().numpy().astype(np.int64)
    return scores.nan_to_num(nan=-math.inf).argmax(dim=1).cpu().numpy()


def _label_score(scores: torch.Tensor, label: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the score of each label in standard deviations above the image's mean; 0 where scores are not finite."""
    if not scores.is_floating_point():
        return np.full(len(label), math.nan)
    values = scores.cpu().double().numpy()
    if (values >= 0).all() and (abs(values.sum(axis=1) - 1) < _SUM_TOLERANCE).all():
        values = np.log(np.maximum(values, _LEAST_PROBABILITY))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        standard = (values[np.arange(len(label)), label] - values.mean(axis=1)) / values.std(axis=1)
    return np.where(np.isfinite(standard), standard, 0.0)
