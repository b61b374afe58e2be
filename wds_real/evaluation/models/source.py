"""A model that is not loaded yet: its name, and the function that loads it."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wds_real.evaluation.models.base import LoadedModel

__all__ = ["ModelSource", "folder_names"]

_MAX_NAME = 100  # file systems take 255 bytes
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=@-]+")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that is loaded when its turn comes.

    Attributes:
        name: What it is called in tables, messages, and the name of its folder.
        load: Returns the model; called again if memory ran out while others were loaded.
        where: The place that named it, such as ``models.txt:7``; "" for none.
        asked: Options besides the name that can change a result, JSON-ready. An existing result with other options is
            not reused.
    """

    name: str
    load: Callable[[], LoadedModel]
    where: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """Return `asked`, and size and time of each file that it or the name stands for, JSON-ready."""
        names = [self.name, *(value for value in self.asked.values() if isinstance(value, str))]
        files = {name: stamp for name in names if (stamp := _stamp(name)) is not None}
        asked: dict[str, Any] = json.loads(json.dumps(dict(self.asked), default=repr))
        return asked | ({"files": files} if files else {})


def _stamp(name: str) -> list[int] | None:
    """Return size and time of change of a file; None if there is none of this name."""
    try:
        found = Path(name).stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns] if stat.S_ISREG(found.st_mode) else None


def folder_names(names: Sequence[str]) -> list[str]:
    """Return a folder name for each model: safe on every file system, readable, and all different.

    Names that are long, or that differ only in characters that a folder's name cannot have, end with a digest.

    >>> folder_names(["timm:resnet18.a1_in1k", "models/a.onnx"])
    ['timm-resnet18.a1_in1k', 'models-a.onnx']
    >>> folder_names(["a:b", "a:b"])
    ['a-b', 'a-b-2']
    >>> folder_names(["a:b", "a/b"])
    ['a-b-6783a31e', 'a-b-c14cddc0']
    """
    plain = [_UNSAFE.sub("-", name).strip(".-") for name in names]
    known = Counter(dict(zip(names, map(str.casefold, plain), strict=True)).values())
    folders = [
        folder if 0 < len(folder) <= _MAX_NAME and known[folder.casefold()] == 1 else _digested(folder, name)
        for folder, name in zip(plain, names, strict=True)
    ]
    different = list[str]()
    for folder in folders:
        numbered = (f"{folder}-{number}" for number in itertools.count(2))
        used = {one.casefold() for one in different}
        different.append(next(one for one in itertools.chain([folder], numbered) if one.casefold() not in used))
    return different


def _digested(plain: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return "-".join(part for part in (plain[:_MAX_NAME].rstrip(".-"), digest) if part)
