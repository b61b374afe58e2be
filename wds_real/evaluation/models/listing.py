"""Names that stand for several models: wildcards of timm, lists in files, and folders."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from wds_real.errors import ModelError
from wds_real.evaluation.models.load import is_model_file, is_weights_file, load_model
from wds_real.evaluation.models.source import ModelSource
from wds_real.evaluation.models.timm import pretrained_names
from wds_real.storage.files import read_bytes, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from wds_real.evaluation.models.base import LoadedModel

__all__ = ["find_models", "names_several", "weights_files"]

_LOG = logging.getLogger(__name__)
_TIMM = "timm:"
_MAX_LIST_BYTES = 1 << 20
_COMMENT = re.compile(r"(^|\s)#.*")


def names_several(spec: str) -> bool:
    """Return whether a name of a model has a form that stands for several: a wildcard, a list or a folder.

    >>> [names_several(spec) for spec in ("timm:resnet*", "@models.txt", "timm:resnet18", "my_models:make")]
    [True, True, False, False]
    """
    return spec.startswith("@") or _is_wildcard(spec) or _is_folder(spec)


def find_models(specs: Iterable[str], *, load: Callable[[str], LoadedModel] = load_model) -> list[ModelSource]:
    """Return the models that these names stand for, each once, in their order; none is loaded.

    - ``timm:`` with ``*``, ``?`` or ``[...]``: the pretrained models of timm with 1,000 classes that match
    - ``@FILE``: one name a line; what follows a ``#`` is a comment
    - a folder: each model file in it, such as ``.onnx`` or ``.pt2``, by name
    - anything else: itself

    Args:
        specs: The names.
        load: Loads the model of one name.

    Raises:
        ModelError: a list cannot be read or names another list, or nothing matches.
    """
    found = dict[str, ModelSource]()
    for spec in specs:
        for name, where in _lines(spec) if spec.startswith("@") else [(spec, "")]:
            for single in _expanded(name, where):
                found.setdefault(single, ModelSource(single, functools.partial(load, single), where))
    return list(found.values())


def weights_files(folder: str | Path) -> list[Path]:
    """Return the files of weights in a folder, by name.

    Raises:
        ModelError: there is none, or the folder cannot be read.
    """
    return _files(Path(folder), is_weights_file, "file of weights (.pth, .pt, .safetensors, ...)")


def _expanded(spec: str, where: str) -> list[str]:
    try:
        if _is_wildcard(spec):
            return _matching(spec)
        return [str(file) for file in _files(Path(spec), is_model_file, "model file")] if _is_folder(spec) else [spec]
    except ModelError as error:
        if not where:
            raise
        raise ModelError(f"{where}: {error}") from error


def _is_wildcard(spec: str) -> bool:
    return spec.startswith(_TIMM) and any(sign in spec for sign in "*?[")


def _is_folder(spec: str) -> bool:
    try:
        return bool(spec) and ":" not in spec and Path(spec).is_dir()
    except (OSError, ValueError):
        return False


def _matching(spec: str) -> list[str]:
    names, others = pretrained_names(spec, spec.removeprefix(_TIMM))
    if not names:
        more = f" {len(others)} that match have other classes, such as {_TIMM}{others[0]}." if others else ""
        raise ModelError(f"{spec}: no pretrained model of timm with 1,000 classes matches.{more}")
    left_out = f", {len(others)} left out: not of 1,000 classes" if others else ""
    _LOG.info("%s: %d models%s", spec, len(names), left_out)
    return [f"{_TIMM}{name}" for name in names]


def _files(folder: Path, wanted: Callable[[Path], bool], kind: str) -> list[Path]:
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read: {reason_of(error)}") from error
    files = [path for path in inside if wanted(path)]
    if not files:
        raise ModelError(
            f"{folder}: a folder with no {kind} in it. Name the model: timm:local-dir:{folder}, or a file."
        )
    return files


def _lines(spec: str) -> Iterator[tuple[str, str]]:
    """Yield the names in a list, and the place of each.

    Raises:
        ModelError: the file cannot be read, is not text, has no name, or names another list.
    """
    path = Path(spec.removeprefix("@"))
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise ModelError(f"{path}: {path.stat().st_size:,} bytes, expected a list of models, one a line.")
        lines = read_bytes(path).split(b"\n")
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise ModelError(f"{path}: the list of models cannot be read: {reason}") from error
    empty = True
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        try:
            name = _COMMENT.sub("", line.decode("utf-8-sig" if number == 1 else "utf-8")).strip()
        except UnicodeDecodeError as error:
            raise ModelError(f"{where}: not UTF-8 text. Expected a list of models, one a line.") from error
        if name.startswith("@"):
            raise ModelError(f"{where}: {name} is a list in a list. Name each list: -m @FILE -m @OTHER.")
        if not name.isprintable() or (len(name.split()) > 1 and not Path(name).exists()):
            raise ModelError(f"{where}: {name!r} is not the name of a model. Expected one a line, # before comments.")
        if name:
            empty = False
            yield name, where
    if empty:
        raise ModelError(f"{path}: the list names no model. Expected one a line, such as timm:resnet18.")
