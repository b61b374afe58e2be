"""How the ReaL labels of an image differ from its original label, in categories for tables, plots and cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["AGREEMENTS", "agreement"]

AGREEMENTS: Mapping[str, str] = {
    "agrees": "the ReaL label is the original label",
    "differs": "one ReaL label, and it is another one",
    "several": "several ReaL labels, the original label among them",
    "several-without": "several ReaL labels without the original label",
    "none": "no ReaL label",
}


def agreement(original: int, real: Collection[int]) -> str:
    """Return the name of one of `AGREEMENTS`.

    >>> [agreement(3, real) for real in [(3,), (4,), (3, 4), (4, 5), ()]]
    ['agrees', 'differs', 'several', 'several-without', 'none']
    """
    if not real:
        return "none"
    if len(real) == 1:
        return "agrees" if original in real else "differs"
    return "several" if original in real else "several-without"
