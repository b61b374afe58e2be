"""TFDS's split notation: ``validation``, ``validation[:10%]``, ``validation[500:600]``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import PlanError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["sliced_split", "split_positions"]

_MAX_SHOWN = 100  # characters of a split in a message
_PART = re.compile(
    r"\[(?P<start>(?:-?\d{1,20}%?)?):(?P<stop>(?:-?\d{1,20}%?)?)(?::(?P<step>-?[1-9]\d{0,19}))?\]", re.ASCII
)
_SPLIT = re.compile(rf"(?P<name>[A-Za-z0-9_]+)(?P<parts>(?:{re.sub(r'[?]P<[a-z]+>', '?:', _PART.pattern)})*)", re.ASCII)


def split_positions(text: str, name: str, length: int) -> NDArray[np.int64]:
    """Return the positions of a split, int64 (n,); percents round to the nearest sample.

    In addition to TFDS's notation, a part may have a step, and several parts may follow each other, each applied to the
    one before. `sliced_split` writes these.

    >>> split_positions("validation[20%:60%]", "validation", 10)
    array([2, 3, 4, 5])
    >>> split_positions("validation[:6][::2]", "validation", 10)
    array([0, 2, 4])

    Raises:
        PlanError: `text` is not in this notation, or names another split than `name`.
    """
    match = _SPLIT.fullmatch(text.replace(" ", ""))
    if match is None or match["name"] != name:
        raise PlanError(f"split is {_shown(text)}, expected {name!r} or a part of it such as '{name}[:10%]'.")
    positions = np.arange(length, dtype=np.int64)
    for part in _PART.finditer(match["parts"]):
        size = len(positions)
        bounds = (_bound(part["start"], size, text), _bound(part["stop"], size, text))
        positions = positions[slice(*bounds, int(part["step"]) if part["step"] else None)]
    return positions


def sliced_split(split: str, item: slice) -> str:
    """Return the notation of a slice of a split.

    >>> sliced_split("validation", slice(None, 10))
    'validation[:10]'
    """
    start, stop, step = (("" if part is None else part) for part in (item.start, item.stop, item.step))
    return f"{split}[{start}:{stop}]" if item.step is None else f"{split}[{start}:{stop}:{step}]"


def _bound(value: str | None, length: int, text: str) -> int | None:
    if not value:
        return None
    if not value.endswith("%"):
        return int(value)
    if not -100 <= int(value[:-1]) <= 100:
        raise PlanError(f"split is {_shown(text)}, expected percents from -100 to 100.")
    return round(int(value[:-1]) * length / 100)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")
