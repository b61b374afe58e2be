"""Contact sheets: images with both labels, and with the answers of models."""

from __future__ import annotations

import io
import string
import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from wds_real.errors import PlanError
from wds_real.explore.where import answers_of, choose
from wds_real.image.decode import DecodeError
from wds_real.image.thumbnail import thumbnail
from wds_real.labels import classes
from wds_real.labels.agreement import AGREEMENTS, agreement
from wds_real.scoring.reading.folders import model_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.scoring.predictions import Predictions

__all__ = ["ContactSheet", "show_examples"]

_DPI = 100
_TILE_INCHES = 2.2
_LINE_INCHES = 0.17
_LINE_LENGTH = 30  # characters that fit below an image
_MOST_LINES = 3
_THUMBNAIL_SIDE = 210
# Colours of Okabe and Ito, which most colour-blind people tell apart; each stands beside its sign and word.
_MARKS = {
    "agrees": ("=", "#009e73"),
    "differs": ("\u2260", "#d55e00"),
    "several": ("+", "#0072b2"),
    "several-without": ("\u220c", "#cc79a7"),
    "none": ("\u2205", "#666666"),
}
_RIGHT, _WRONG, _NEITHER = ("\u2713", "#009e73"), ("\u2717", "#d55e00"), ("?", "#666666")
_GREY = "#444444"
_LETTERS = string.ascii_uppercase


class ContactSheet(Figure):
    """A matplotlib figure that notebooks show as it is."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def show_examples(
    dataset: Dataset,
    keys: Sequence[str] = (),
    *,
    where: str | None = None,
    predictions: Sequence[Predictions] = (),
    num_images: int = 24,
    columns: int = 6,
    seed: int | None = None,
) -> ContactSheet:
    """Return a contact sheet: images with their original label, their ReaL labels and the answers of models.

    The ReaL labels are marked: ``=`` one label, which is the original one; ``≠`` one label, which is another one; ``+``
    several labels, the original one among them; ``∌`` several without it; ``∅`` none. Only the images on the sheet are
    read. Needs matplotlib (``pip install 'wds_real[plot]'``).

    Args:
        dataset: From `wds_real.open_dataset`.
        keys: The keys of the images to show; none means all images, or those of `where`.
        where: A condition that chooses images, see `wds_real.explore.where`.
        predictions: From `wds_real.read_predictions`; each adds a line.
        num_images: How many images are shown at most.
        columns: Images in a row.
        seed: For a random choice of images; None means the first ones.

    Raises:
        PlanError: a key is not in the data set, the condition is not valid, or no image fits it.
        ShardError: the bytes of an image are damaged.
    """
    if num_images < 1 or columns < 1:
        raise PlanError(f"num_images is {num_images}, columns {columns}: expected 1 or more of each.")
    places = choose(dataset, keys, where=where, predictions=predictions)
    if not len(places):
        raise PlanError(f"no image of {dataset.root}, {dataset.split}, fits {where!r}. Try another condition.")
    shown = places[:num_images]
    if seed is not None and len(places) > num_images:
        shown = np.sort(np.random.default_rng(seed).choice(places, num_images, replace=False))
    answers = [answers_of(dataset, one)[:, 0] for one in predictions]
    tiles = [_lines(dataset, int(place), [int(one[place]) for one in answers]) for place in shown]
    title = _title(dataset, len(shown), len(places), where)
    return _drawn(dataset, shown, tiles, columns=columns, title=title, legend=_legend(predictions))


def _title(dataset: Dataset, num_shown: int, num_found: int, where: str | None) -> str:
    of = f"{num_shown:,} of {num_found:,} images" if num_shown < num_found else f"{num_shown:,} images"
    condition = "" if where is None else f"   where {where}"
    return f"{dataset.manifest.dataset}, {dataset.split}: {of}{condition}"


def _legend(predictions: Sequence[Predictions]) -> str:
    signs = [f"{sign} {AGREEMENTS[name]}" for name, (sign, _) in _MARKS.items()]
    if predictions:
        signs.append(f"{_RIGHT[0]} {_WRONG[0]} answer, by the ReaL labels")
    if len(predictions) > 1:
        signs += [f"{letter}: {_source(one)}" for letter, one in zip(_LETTERS, predictions, strict=False)]
    return "   ".join(signs)


def _source(predictions: Predictions) -> str:
    return model_name(predictions.source) or "without a name"


Line = tuple[str, str]  # a text and its colour


def _lines(dataset: Dataset, place: int, answers: Sequence[int]) -> list[Line]:
    """Return what stands below an image."""
    row = int(dataset.positions[place])
    original, real = int(dataset.index.original_label[row]), dataset.index.real_label[row]
    sign, color = _MARKS[agreement(original, real)]
    named = ", ".join(_name(label) for label in real) or "no label"
    lines = [(dataset.index.keys[row].removeprefix("ILSVRC2012_"), _GREY), (_name(original), "black")]
    lines += [(line, color) for line in _wrapped(f"{sign} {named}")]
    for letter, answer in zip(_LETTERS if len(answers) > 1 else [""], answers, strict=False):
        verdict, color = _NEITHER if not real else _RIGHT if answer in real else _WRONG
        name = "no answer" if answer < 0 else _name(answer)
        lines += [(line, color) for line in _wrapped(f"{verdict} {letter}{': ' if letter else 'answer: '}{name}")]
    return lines


def _name(label: int) -> str:
    return classes()[label].name


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _LINE_LENGTH, max_lines=_MOST_LINES, placeholder=" \u2026", subsequent_indent="   ")


def _drawn(
    dataset: Dataset, places: NDArray[np.int64], tiles: Sequence[list[Line]], *, columns: int, title: str, legend: str
) -> ContactSheet:
    columns = min(columns, len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    text_inches = [(max(map(len, row)) + 0.8) * _LINE_INCHES for row in rows]
    title_lines, legend_lines = textwrap.wrap(title, columns * 25), textwrap.wrap(legend, columns * 36)
    top = 0.12 + len(title_lines) * 0.2 + (len(legend_lines) + 0.5) * _LINE_INCHES
    height = top + sum(text_inches) + len(rows) * _TILE_INCHES
    figure = ContactSheet(figsize=(columns * _TILE_INCHES, height), dpi=_DPI, facecolor="white")
    figure.text(
        0.04 / columns, 1 - 0.1 / height, "\n".join(title_lines), va="top", fontsize=10, weight="bold", parse_math=False
    )  # fmt: skip
    figure.text(
        0.04 / columns, 1 - (0.14 + len(title_lines) * 0.2) / height, "\n".join(legend_lines),
        va="top", fontsize=8, color=_GREY, parse_math=False,
    )  # fmt: skip
    y = height - top
    for number, (row, inches) in enumerate(zip(rows, text_inches, strict=True)):
        y -= _TILE_INCHES
        for column, lines in enumerate(row):
            place = int(places[number * columns + column])
            left, bottom = (column + 0.04) / columns, (y + 0.04 * _TILE_INCHES) / height
            axes = figure.add_axes((left, bottom, 0.92 / columns, 0.92 * _TILE_INCHES / height))
            _draw_image(axes, dataset, place)
            for at, (text, color) in enumerate(lines):
                figure.text(
                    left, (y - (at + 0.2) * _LINE_INCHES) / height, text,
                    va="top", fontsize=8, color=color, parse_math=False,
                )  # fmt: skip
        y -= inches
    return figure


def _draw_image(axes: Axes, dataset: Dataset, place: int) -> None:
    row = int(dataset.positions[place])
    axes.set_axis_off()
    axes.set_anchor("S")
    try:
        axes.imshow(thumbnail(dataset.reader.read(row), _THUMBNAIL_SIDE), interpolation="none")
    except DecodeError as error:
        raise dataset.reader.error(row, str(error)) from error
