"""The label of a sample in an external shard: looked up if its name is a validation image's, else as given."""

from __future__ import annotations

from typing import Any

from wds_real.errors import SourceError, first_few
from wds_real.format.json_fields import is_text
from wds_real.labels import NUM_CLASSES, Label, bundled, canonical_file_name
from wds_real.labels.class_names import index_of_wnid
from wds_real.labels.tables import is_label_list

__all__ = ["external_label", "official_label"]

_FILE_NAME_FIELDS = ("file_name", "filename", "fname", "path", "name")
_CLASS_FIELDS = ("original_label", "label", "cls", "class", "target")
_MAX_CLASS_DIGITS = 4  # 1000 is accepted as a number here: such a label shows that classes are counted from 1
_CLASSES = frozenset(range(NUM_CLASSES))


def external_label(key: str, contents: dict[str, dict[str, Any]], where: str) -> Label:
    """Return a sample's label.

    Args:
        key: The sample's key.
        contents: The fields of its label members, by extension (``json``, ``cls``).
        where: Names the shard in errors.

    Raises:
        SourceError: there is no label, the labels disagree, or the key is not text.
    """
    if not is_text(key):
        raise SourceError(f"{where}: {key!a} is not text in UTF-8 without control characters. Rename the member.")
    fields = contents.get("json", {})
    given = {_class_index(value[name]) for value in contents.values() for name in _CLASS_FIELDS if name in value}
    given -= {None}
    names = [key, *(fields[name] for name in _FILE_NAME_FIELDS if isinstance(fields.get(name), str))]
    official = {label.key: label for label in (official_label(name, where) for name in names) if label is not None}
    if len(official) > 1:
        raise SourceError(f"{where}: {key} names two images: {first_few(official)}.")
    if official:
        (label,) = official.values()
        wrong = sorted(index for index in given if index is not None and index != label.original_label)
        if wrong:
            raise SourceError(
                f"{where}: {key} says class {wrong[0]}, but the original label of {label.file_name} is "
                f"{label.original_label}. The shards number classes differently, or hold other images."
            )
        return label
    chosen = [index for index in given if index in _CLASSES]
    if len(given) != 1 or not chosen:
        raise SourceError(
            f"{where}: {key} has no label: expected a validation image's file name, or one class 0..{NUM_CLASSES - 1} "
            "in a cls or json member."
        )
    real = fields.get("real_label", [])
    if not is_label_list(real):
        raise SourceError(
            f"{where}: {key} has a real_label that is not a list of distinct classes 0..{NUM_CLASSES - 1}."
        )
    return Label(key, chosen[0], tuple(real))


def official_label(name: str, where: str) -> Label | None:
    """Return the labels of a validation image by any spelling of its name, with or without its extension.

    Raises:
        SourceError: the name carries a wnid that is not its original label's.
    """
    for spelled in (name, f"{name}.JPEG"):
        try:
            canonical_file_name(spelled)
        except SourceError:
            continue
        try:
            return bundled().by_file_name(spelled)
        except SourceError as error:
            raise SourceError(f"{where}: {error}") from error
    return None


def _class_index(value: object) -> int | None:
    """Return a class given as a number, as digits or as a wnid; None for anything else, such as a class name."""
    if isinstance(value, str):
        digits = value.lstrip("0") or value[:1]  # "00000066" is 66, "0" is 0, and "" is no class
        return (
            int(digits)
            if digits.isdecimal() and digits.isascii() and len(digits) <= _MAX_CLASS_DIGITS
            else index_of_wnid().get(value)
        )
    return value if type(value) is int else None
