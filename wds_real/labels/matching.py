"""Find the classes that the names of a model's outputs can mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from wds_real.labels.class_names import NUM_CLASSES, classes_by_name, index_of_wnid, plain_name

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["classes_named", "order_of"]

_MANY = 0.9  # share of the names that must be known: collections of models spell a few names differently
_IN_ORDER = 0.99  # share of the known names that must be in place


def classes_named(name: str) -> frozenset[int]:
    """Return the classes that a name can mean: one for a wnid or a list of lemmas, one or several for a lemma.

    >>> [sorted(classes_named(name)) for name in ("n01440764", "tench, Tinca tinca", "great_white_shark", "crane", "x")]
    [[0], [0], [2], [134, 517], []]
    """
    plain = plain_name(name)
    return frozenset([index_of_wnid()[plain]] if plain in index_of_wnid() else classes_by_name().get(plain, ()))


def order_of(names: Sequence[str]) -> Literal["standard", "another", "unknown"]:
    """Return whether the names of the outputs are those of the 1,000 classes, in their order or in another one.

    >>> from wds_real.labels import classes
    >>> names = [each.name for each in classes()]
    >>> order_of(names), order_of(names[::-1]), order_of(["LABEL_0"] * 1000)
    ('standard', 'another', 'unknown')
    """
    if len(names) != NUM_CLASSES:
        return "unknown"
    known = {index: found for index, name in enumerate(names) if (found := classes_named(name))}
    if len(known) < _MANY * NUM_CLASSES:
        return "unknown"
    in_order = sum(index in found for index, found in known.items())
    return "standard" if in_order >= _IN_ORDER * len(known) else "another"
