"""How the ReaL labels of an image stand to its original label."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["AGREEMENTS", "agreement"]

AGREEMENTS = ("agrees", "differs", "several", "none")


def agreement(original: int, real: Collection[int]) -> str:
    """Return one of `AGREEMENTS`.

    ``agrees``: the only ReaL label is the original one; ``several``: it is one of several; ``differs``: there are ReaL
    labels, without the original one; ``none``: there is no ReaL label.

    >>> [agreement(3, real) for real in [(3,), (4, 5), (3, 4), ()]]
    ['agrees', 'differs', 'several', 'none']
    """
    if not real:
        return "none"
    if original not in real:
        return "differs"
    return "several" if len(real) > 1 else "agrees"
