"""What an explorer page shows: images with their labels, the answers of models, and where the JPEG bytes lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import CoverageError, PredictionsError, SourceError, first_few
from wds_real.labels import NUM_IMAGES, Labels, bundled, canonical_file_name
from wds_real.labels.tables import rater_scores
from wds_real.scoring.predictions import TOP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.format.manifest import ShardInfo
    from wds_real.scoring.predictions import Predictions

__all__ = ["Answers", "Content", "Evidence", "Places", "answers_of"]

_RELEASED_PERMILLE = 800
_KEY = "ILSVRC2012_val_{:08d}"
_MAX_KEYS_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The answers of one model to the N images of a page.

    Attributes:
        name: Of the model; another one for each model of a page.
        source: Name of the file that the answers were read from; "" if there is none.
        answered: bool (N,), images that the predictions are of.
        classes: int64 (N, 5), class indices, best first; -1 for none.
        probabilities: float32 (N, 5), of these classes; NaN where unknown.
        notes: What is suspicious about the predictions, as sentences to print.
    """

    name: str
    source: str
    answered: NDArray[np.bool_]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the raters said about the N images of a page.

    Attributes:
        by_threshold: bool (N,), images whose ReaL labels follow from a threshold: the validation images.
        num_labels: int64 (N,), labels that the raters saw; 0 for images that were not rated, which keep the original
            label at each threshold.
        label: int64 (M,), these labels, image by image.
        permille: int64 (M,), the largest k with rater score > k/1000; -1 for a score of 0.
    """

    by_threshold: NDArray[np.bool_]
    num_labels: NDArray[np.int64]
    label: NDArray[np.int64]
    permille: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the bytes of the N images lie: columns as of `wds_real.format.sample_index.SampleIndex`."""

    shards: tuple[ShardInfo, ...]
    shard: NDArray[np.int64]
    offset: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    checksum: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Content:
    """What a page shows.

    Attributes:
        title: Name of the data set and of the split.
        keys: N strings, ascending.
        original_label: int64 (N,), class index 0..999.
        real_label: N tuples of class indices 0..999.
        evidence: What the raters said.
        answers: Of the models, in the order in which they were given.
        places: Where the images lie; None without a data set.
        digest: Identity of the data set; "" without one.
        threshold: Rater threshold in thousandths that the page starts with; None if it starts with `real_label`.
        given: Whether `real_label` differs from the labels at the released threshold, so that the page offers both.
    """

    title: str
    keys: tuple[str, ...]
    original_label: NDArray[np.int64]
    real_label: Sequence[tuple[int, ...]]
    evidence: Evidence
    answers: tuple[Answers, ...] = ()
    places: Places | None = None
    digest: str = ""
    threshold: int | None = _RELEASED_PERMILLE
    given: bool = False

    @classmethod
    def of_labels(cls, labels: Labels | None = None) -> Content:
        """Return all 50,000 validation images with `labels`, or with the released ones."""
        labels = labels or bundled()
        keys = tuple(_KEY.format(number) for number in range(1, NUM_IMAGES + 1))
        original = np.array(labels.original, dtype=np.int64)
        return cls._of("imagenet2012_real, validation", keys, original, labels.real)

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> Content:
        """Return the images of a data set, of a split or slice only its samples."""
        index, rows = dataset.index, np.sort(dataset.positions)
        places = Places(
            shards=dataset.manifest.shards,
            **{
                name: getattr(index, name)[rows]
                for name in ("shard", "offset", "num_bytes", "width", "height", "checksum")
            },
        )
        return cls._of(
            f"{dataset.manifest.dataset}, {dataset.split}",
            tuple(index.keys[row] for row in rows),
            index.original_label[rows],
            [index.real_label[row] for row in rows],
            places=places,
            digest=dataset.digest,
        )

    @classmethod
    def _of(
        cls,
        title: str,
        keys: tuple[str, ...],
        original: NDArray[np.int64],
        real: Sequence[tuple[int, ...]],
        *,
        places: Places | None = None,
        digest: str = "",
    ) -> Content:
        evidence = _evidence(keys)
        given = not _follows(evidence, original, real)
        return cls(
            title=title,
            keys=keys,
            original_label=original,
            real_label=real,
            evidence=evidence,
            places=places,
            digest=digest,
            threshold=None if given else _RELEASED_PERMILLE,
            given=given,
        )


def answers_of(content: Content, predictions: Mapping[str, Predictions], *, allow_partial: bool) -> tuple[Answers, ...]:
    """Return the answers of models to the images of a page; answers to other validation images are left out.

    Raises:
        PredictionsError: a prediction is of no validation image and of no image of the page, or a file has none of it.
        CoverageError: an image of the page has no prediction (unless `allow_partial`).
    """
    row_of = {key: row for row, key in enumerate(content.keys)}
    return tuple(
        _answers(name, read, row_of, content.keys, allow_partial=allow_partial) for name, read in predictions.items()
    )


def _answers(
    name: str, read: Predictions, row_of: Mapping[str, int], keys: Sequence[str], *, allow_partial: bool
) -> Answers:
    where = read.source or name
    rows = np.array([row_of.get(key, -1) for key in read.keys], dtype=np.int64)
    others = [key for key, row in zip(read.keys, rows.tolist(), strict=True) if row < 0 and not _number_of(key)]
    if others:
        raise PredictionsError(
            f"{where}: {len(others):,} of {len(read):,} predictions are of no image of this page, such as {others[0]}. "
            f"Expected names such as {keys[0]}.JPEG."
        )
    shown = rows >= 0
    answered = np.zeros(len(keys), dtype=np.bool_)
    answered[rows[shown]] = True
    if not answered.any():
        raise PredictionsError(
            f"{where}: none of its {len(read):,} predictions is of the {len(keys):,} images of this page, which start "
            f"with {keys[0]}. Choose the file that belongs to this data set."
        )
    missing = [keys[row] for row in np.flatnonzero(~answered).tolist()]
    if missing and not allow_partial:
        raise CoverageError(
            f"{where}: {len(missing):,} of {len(keys):,} images have no prediction: "
            f"{first_few(missing, count=_MAX_KEYS_SHOWN)}. To show the others, use --allow-partial.",
            missing=missing,
        )
    classes = np.full((len(keys), TOP), -1, dtype=np.int64)
    probabilities = np.full((len(keys), TOP), np.nan, dtype=np.float32)
    classes[rows[shown]], probabilities[rows[shown]] = read.classes[shown], read.probabilities[shown]
    return Answers(name, read.source.rpartition("/")[2], answered, classes, probabilities, read.notes)


def _number_of(key: str) -> int:
    """Return the number 1..50,000 of a validation image by its key; 0 for other keys."""
    try:
        name = canonical_file_name(f"{key}.JPEG")
    except SourceError:
        return 0
    return int(name[15:23]) if name == f"{key}.JPEG" else 0


def _evidence(keys: Sequence[str]) -> Evidence:
    numbers = np.array([_number_of(key) for key in keys], dtype=np.int64)
    scores = rater_scores()
    counts, starts = np.zeros(NUM_IMAGES + 1, dtype=np.int64), np.zeros(NUM_IMAGES + 1, dtype=np.int64)
    counts[scores.image] = scores.num_labels
    starts[scores.image] = np.cumsum(scores.num_labels) - scores.num_labels
    num_labels = counts[numbers]
    chosen = np.repeat(starts[numbers], num_labels) + _count_up(num_labels)
    return Evidence(numbers > 0, num_labels, scores.label[chosen], scores.permille[chosen])


def _count_up(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, ..., n - 1 for each of the lengths n, one after another.

    >>> _count_up(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    return np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)


def _follows(evidence: Evidence, original: NDArray[np.int64], real: Sequence[tuple[int, ...]]) -> bool:
    """Return whether the labels are those that the rater scores give at the released threshold, as sets."""
    accepted = evidence.permille >= _RELEASED_PERMILLE
    ends = np.cumsum(evidence.num_labels).tolist()
    starts = [0, *ends]
    label = evidence.label.tolist()
    rows = zip(evidence.by_threshold.tolist(), evidence.num_labels.tolist(), original.tolist(), real, strict=True)
    for row, (by_threshold, rated, own, given) in enumerate(rows):
        if not by_threshold:
            continue
        if not rated:
            expected = {own}
        else:
            places = range(starts[row], ends[row])
            expected = {label[place] for place in places if accepted[place]}
        if set(given) != expected:
            return False
    return bool(evidence.by_threshold.any())
