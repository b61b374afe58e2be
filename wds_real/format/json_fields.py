"""JSON from files, read strictly, and the fields of the project's own JSON files, checked as they are read."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn, TypeVar

from wds_real.errors import ManifestError

__all__ = ["field", "is_text", "parse_json", "parse_object", "shown"]

_T = TypeVar("_T")
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SHOWN = 60  # characters of a value in a message


def parse_json(data: bytes) -> Any:  # noqa: ANN401 -- any JSON value
    """Return a JSON value, read as the standard says.

    Python's ``json.loads`` also takes NaN and infinity, and keeps the last of two fields of the same name.

    >>> parse_json(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: field "a" occurs twice

    Raises:
        ValueError: not JSON, a field that occurs twice, NaN or infinity, a number of thousands of digits, or too deep
            nesting.
    """
    try:
        return json.loads(data, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        if "int_max_str_digits" in str(error):  # Python's advice is for programmers
            raise ValueError("a number of thousands of digits") from None
        raise


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Return a JSON object, read by `parse_json`; `where` names the file in errors.

    Raises:
        ManifestError: not JSON, or not an object.
    """
    try:
        body = parse_json(data)
    except ValueError as error:
        raise ManifestError(
            f"{where}: not JSON ({error}). The file is damaged: copy it again, or pack again."
        ) from error
    if not isinstance(body, dict):
        raise ManifestError(f"{where}: expected a JSON object, found a {type(body).__name__}.")
    return body


def field(body: dict[str, Any], name: str, kind: type[_T], where: str) -> _T:
    """Return a field of that type; integers are in [0, 2**62), and strings are text without control characters.

    Raises:
        ManifestError: the field is missing, of another type or out of range.
    """
    value = body.get(name)
    # isinstance takes a bool for an int, but neither is accepted for the other here.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ManifestError(f"{where}: field {name!r} is {shown(value)}, expected {kind.__name__}.")
    if isinstance(value, int) and not 0 <= value < 2**62:
        raise ManifestError(f"{where}: field {name!r} is {shown(value)}, expected 0 <= {name} < 2**62.")
    if isinstance(value, str) and not is_text(value):
        raise ManifestError(f"{where}: field {name!r} is {shown(value)}, expected text without control characters.")
    return value


def is_text(value: str) -> bool:
    r"""Return whether a string is Unicode text without control characters; JSON can hold halves of surrogate pairs.

    >>> is_text("größe.tar"), is_text("a\n"), is_text("\ud800")
    (True, False, False)
    """
    return (value.isascii() and value.isprintable()) or _NOT_TEXT.search(value) is None


def shown(value: object) -> str:
    """Return the start of a JSON value for a message, in ASCII."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"field {shown(twice)} occurs twice")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
