"""Find the mistake in predictions that explains a far too low accuracy, by counting the accuracy with it undone.

Two kinds of mistakes are tried, alone and together: the predictions are not in the order of the sorted file names, and
the class numbers are not the positions of the wnids in the sorted list. Runs without torch.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.errors import PredictionsError
from wds_real.labels import NUM_CLASSES, NUM_IMAGES
from wds_real.labels.class_maps import NUMBERINGS
from wds_real.scoring.prediction_reader import predictions_in
from wds_real.scoring.reading.columns import read_columns
from wds_real.scoring.reading.folders import find_predictions
from wds_real.scoring.reading.order import ORDERS, is_counted, keys_of
from wds_real.scoring.reading.places import option_words, shown
from wds_real.scoring.reading.roles import find_roles
from wds_real.scoring.reading.values import whole_numbers
from wds_real.scoring.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from wds_real.scoring.predictions import Predictions

__all__ = [
    "CLASS_MISTAKES",
    "ORDER_MISTAKES",
    "Diagnosis",
    "Mistake",
    "Trial",
    "diagnose",
    "diagnose_file",
    "diagnose_predictions",
]

# A mistake explains an accuracy if undoing it adds five points and multiplies the accuracy by 1.5.
_MIN_GAIN = 0.05
_MIN_RATIO = 1.5
_SOUND = 0.02  # above this accuracy, order and class numbers are taken to be right
_INFERRED = "classes in an unknown order"
_NAMES = "write the file name with each prediction"
_WNIDS = "write wnids, or the places of the wnids in the sorted list"
_MINUS_1 = "subtract 1 from each class; a background class is no prediction"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A known mistake.

    Attributes:
        name: What is wrong with the predictions.
        advice: What to do.
        options: The options of ``wds-real score`` that undo it; empty if there are none.
    """

    name: str
    advice: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """The accuracy after some mistakes are undone.

    Attributes:
        mistakes: The mistakes that are undone; empty for the predictions as they are.
        correct: Images whose original label is then predicted.
        total: Images.
    """

    mistakes: tuple[Mistake, ...]
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share of correct images, 0..1."""
        return self.correct / self.total

    @property
    def name(self) -> str:
        """The mistakes as text."""
        return " and ".join(mistake.name for mistake in self.mistakes) or "as it is"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All trials, and the one that explains the accuracy. Print it for the table.

    Attributes:
        as_is: The predictions as they are.
        trials: All others, the best first.
        explanation: The trial that explains the accuracy, or None.
        arguments: The file of the predictions, and the options it is read with; empty if there is none.
    """

    as_is: Trial
    trials: tuple[Trial, ...]
    explanation: Trial | None
    arguments: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        if self.explanation is not None:
            return f"{self.explanation.name}: {100 * self.explanation.accuracy:.2f} % instead"
        if self.as_is.accuracy > _SOUND:
            return "no known mistake of order or class numbers"
        return (
            "no known mistake explains it: predictions of other images (another split, or shuffled), or a model that "
            "is wrong itself"
        )

    @property
    def command(self) -> str | None:
        """The ``wds-real score`` command that undoes the mistakes; None if there are none, or no option does it."""
        mistakes = () if self.explanation is None else self.explanation.mistakes
        if not mistakes or not all(mistake.options for mistake in mistakes):
            return None
        options = [word for mistake in mistakes for word in mistake.options]
        return shlex.join(["wds-real", "score", *(self.arguments or ("FILE",)), *options])

    def as_dict(self) -> dict[str, Any]:
        """Return all trials, JSON-ready."""
        return {
            "format": {"name": "wds_real.diagnosis", "version": 1},
            "verdict": self.verdict,
            "command": self.command,
            "explanation": None
            if self.explanation is None
            else [mistake.name for mistake in self.explanation.mistakes],
            "trials": [
                {"undone": [mistake.name for mistake in trial.mistakes], "correct": trial.correct, "total": trial.total}
                for trial in (self.as_is, *self.trials)
            ],
        }

    def __str__(self) -> str:
        shown = [self.as_is, *(trial for trial in self.trials if len(trial.mistakes) == 1)]
        if self.explanation is not None and self.explanation not in shown:
            shown.insert(1, self.explanation)
        lines = [f" original top-1 on {self.as_is.total:,} images if this mistake is undone"]
        lines += [f"   {100 * trial.accuracy:>7.3f}  {trial.name}" for trial in shown]
        lines.append(f" verdict: {self.verdict}")
        if self.explanation is not None:
            lines += [f" to do: {mistake.advice}" for mistake in self.explanation.mistakes]
        if self.command is not None:
            lines.append(f" or: {self.command}")
        return "\n".join(lines)


def diagnose(
    predicted: NDArray[np.int64], original_label: NDArray[np.int64], *, positions: NDArray[np.int64] | None = None
) -> Diagnosis:
    """Try the known mistakes on top-1 predictions.

    Args:
        predicted: int64 (N,), any numbers; -1 for none.
        original_label: int64 (M,), of all images in the order of their file names.
        positions: int64 (N,), the place of each prediction's image in that order; None means 0..N-1.
    """
    positions = np.arange(len(predicted)) if positions is None else positions
    orders: list[tuple[tuple[Mistake, ...], NDArray[np.int64]]] = [((), positions)]
    if len(predicted) == len(original_label):  # an order is one of all images
        orders += [((mistake,), order(original_label)[positions]) for mistake, order in ORDER_MISTAKES.items()]
    trials = []
    for order_mistake, at in orders:
        truth = original_label[at]
        trials.append(_trial(order_mistake, predicted, truth))
        for mistake, class_map in CLASS_MISTAKES.items():
            trials.append(_trial((*order_mistake, mistake), class_map(predicted), truth))
        trials.append(_trial_of_inferred_map(order_mistake, predicted, truth))
    as_is, *others = trials
    others.sort(key=lambda trial: (-trial.accuracy, len(trial.mistakes)))
    known = [trial for trial in others if not _is_inferred(trial)]
    explanation = next((trial for trial in (known[0], others[0]) if _explains(trial, as_is)), None)
    return Diagnosis(as_is, tuple(others), explanation)


def diagnose_predictions(predictions: Predictions) -> Diagnosis:
    """Try the known mistakes on predictions that were read, against the released labels.

    Raises:
        PredictionsError: a prediction is of another image.
    """
    targets = Targets.of_labels()
    positions = targets.positions_of(predictions)
    diagnosis = diagnose(predictions.classes[:, 0], targets.original_label, positions=positions)
    return replace(diagnosis, arguments=(predictions.source,) if predictions.source else ())


def diagnose_file(
    path: str | Path,
    *,
    name_column: str | None = None,
    class_column: str | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Try the known mistakes on the prediction file at a path or URL, or in an output folder there.

    Its class numbers may be outside 0..999.

    Rows without names are first taken in the order of the sorted file names; the other orders are tried too.

    Raises:
        PredictionsError: the file cannot be read, or a prediction is of another image.
        CoverageError: a name occurs more than once.
        StoreError: the file at a URL is missing, too large or cannot be read.
    """
    path = find_predictions(path, storage_options=storage_options)
    columns = read_columns(path, storage_options=storage_options)
    roles = find_roles(columns, name_column=name_column, class_column=class_column)
    numbers = whole_numbers(columns[roles.classes[0]])
    columns_given = {"--name-column": name_column, "--class-column": class_column}
    arguments = (
        shown(path),
        *(word for name, value in columns_given.items() if value for word in (name, value)),
        *option_words(path, storage_options),
    )
    if numbers is None or (roles.names is None and len(numbers) != NUM_IMAGES):
        read = predictions_in(columns, shown(path), name_column=name_column, class_column=class_column)
        found = diagnose_predictions(read)
        return replace(found, arguments=arguments)
    positions = None
    if roles.names is not None and not is_counted(columns[roles.names]):
        position_of = {key: position for position, key in enumerate(Targets.of_labels().keys)}
        keys = keys_of(columns[roles.names])
        others = [key for key in keys if key not in position_of]
        if others:
            raise PredictionsError(
                f"{shown(path)}: {len(others):,} of {len(keys):,} names are not of validation images, such as "
                f"{others[0]}: these are predictions of another split."
            )
        positions = np.array([position_of[key] for key in keys], dtype=np.int64)
    return replace(diagnose(numbers, Targets.of_labels().original_label, positions=positions), arguments=arguments)


def _explains(trial: Trial, as_is: Trial) -> bool:
    gain = trial.accuracy - as_is.accuracy
    return gain >= _MIN_GAIN and trial.accuracy >= _MIN_RATIO * as_is.accuracy


def _trial(mistakes: tuple[Mistake, ...], predicted: NDArray[np.int64], truth: NDArray[np.int64]) -> Trial:
    return Trial(mistakes, int((predicted == truth).sum()), len(truth))


def _trial_of_inferred_map(
    mistakes: tuple[Mistake, ...], predicted: NDArray[np.int64], truth: NDArray[np.int64]
) -> Trial:
    """Map each number to its most frequent label on half of the images, and count on the other half."""
    inside = (predicted >= 0) & (predicted < 2 * NUM_CLASSES)
    half = np.arange(len(predicted)) % 2 == 0
    met = np.zeros((2 * NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
    np.add.at(met, (predicted[inside & half], truth[inside & half]), 1)
    inferred = met.argmax(axis=1)[np.where(inside, predicted, 0)]
    correct = (inferred == truth) & inside & ~half
    return Trial(
        (*mistakes, Mistake(_INFERRED, _WNIDS)),
        int(correct.sum()),
        int((~half).sum()),
    )


def _is_inferred(trial: Trial) -> bool:
    return any(mistake.name == _INFERRED for mistake in trial.mistakes)


def _mapped(class_map: Callable[[], NDArray[np.int64]], *, first: int = 0) -> Callable[..., NDArray[np.int64]]:
    """Return the function from predicted numbers to class indices; `first` is the number of the map's first entry."""

    def convert(predicted: NDArray[np.int64]) -> NDArray[np.int64]:
        entries = class_map()
        at = predicted - first
        inside = (at >= 0) & (at < len(entries))
        return np.where(inside, entries[np.where(inside, at, 0)], -1)

    return convert


def _identity() -> NDArray[np.int64]:
    return np.arange(NUM_CLASSES, dtype=np.int64)


ORDER_MISTAKES: dict[Mistake, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    Mistake(name, _NAMES, ("--order", order)): ORDERS[order]
    for name, order in {
        "predictions in class-folder (ImageFolder) order": "imagefolder",
        "predictions in the order of class folders named 0, 1, 10, 100, ...": "folders-as-text",
        "predictions in the order of the development kit's class folders": "devkit-folders",
        "predictions in the order 1, 10, 100, ... of image numbers": "numbers-as-text",
        "predictions in descending order of file names": "reversed",
    }.items()
}
CLASS_MISTAKES: dict[Mistake, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    Mistake(
        "classes counted from 1, or after a background class",
        _MINUS_1,
        ("--background", "first"),
    ): _mapped(_identity, first=1),
    Mistake("class numbers one too low", "add 1 to each class"): _mapped(_identity, first=-1),
    **{
        Mistake(numbering.title, _WNIDS, ("--class-map", name)): _mapped(numbering.classes, first=numbering.first)
        for name, numbering in NUMBERINGS.items()
    },
}
