"""Fields of the project's JSON files, checked as they are read: a wrong one is a `ManifestError` that names it."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from wds_real.errors import ManifestError

__all__ = ["field", "parse_object"]

_T = TypeVar("_T")


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Return a JSON object."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"{where}: not JSON ({error}). The file is damaged: copy it again, or pack again."
        ) from error
    if not isinstance(body, dict):
        raise ManifestError(f"{where}: expected a JSON object, found a {type(body).__name__}.")
    return body


def field(body: dict[str, Any], name: str, kind: type[_T], where: str) -> _T:
    """Return a field of that type; integers are in [0, 2**62)."""
    value = body.get(name)
    # bool is an int to isinstance, and neither may stand for the other here.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ManifestError(f"{where}: field {name!r} is {json.dumps(value)[:60]}, expected {kind.__name__}.")
    if isinstance(value, int) and not 0 <= value < 2**62:
        raise ManifestError(f"{where}: field {name!r} is {str(value)[:30]}, expected 0 <= {name} < 2**62.")
    return value
