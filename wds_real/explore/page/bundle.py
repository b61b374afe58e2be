"""The page's modules as one script: each becomes a function that returns its exports, after the modules it imports.

The modules of ``web/`` are ES modules that browsers and Node run as they are. Only two forms are allowed, each at the
start of a line: ``import { a, b } from "./file.js";``, and ``export`` before a function, a class or a constant.
"""

from __future__ import annotations

import importlib.resources
import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["BundleError", "bundle", "read_page_file"]

_IMPORT = re.compile(r'^import \{ ([\w$]+(?:, [\w$]+)*) \} from "(\.{1,2}/[\w./-]+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function\*? ([\w$]+)|class ([\w$]+)|const ([\w$]+) =)", re.MULTILINE)
_LEFT = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)


class BundleError(Exception):
    """A module of the page uses a form of import or export that the bundle does not know: a defect of this package."""


def bundle(entry: str) -> str:
    """Return the module `entry` of the page and all that it imports, as one classic script.

    Raises:
        BundleError: a module has an unknown form, imports a name that is not exported, or imports itself in a circle.
    """
    done = dict[str, str]()
    _add(entry, done, ())
    parts = [f"const {_variable(place)} = (() => {{\n{code}}})();\n" for place, code in done.items()]
    return '(() => {\n"use strict";\n' + "".join(parts) + "})();\n"


def read_page_file(place: str) -> str:
    """Return the text of a file of ``web/``, such as ``style.css`` or ``data/table.js``."""
    folder: Traversable = importlib.resources.files("wds_real") / "explore" / "page" / "web"
    return folder.joinpath(*place.split("/")).read_text("utf-8")


def _add(place: str, done: dict[str, str], path: tuple[str, ...]) -> None:
    """Add a module after those that it imports."""
    if place in path:
        raise BundleError(f"{place}: imports itself by {' > '.join(path)}.")
    if place in done:
        return
    text = read_page_file(place)
    needed = [
        (posixpath.normpath(posixpath.join(posixpath.dirname(place), file)), names.split(", "))
        for names, file in _IMPORT.findall(text)
    ]
    for other, _ in needed:
        _add(other, done, (*path, place))
    for other, names in needed:
        unknown = set(names) - set(_exported(read_page_file(other)))
        if unknown:
            raise BundleError(f"{place}: {other} does not export {', '.join(sorted(unknown))}.")
    exported = _exported(text)
    code = _IMPORT.sub(lambda match: f"const {{ {match[1]} }} = {_import_of(place, match[2])};", text)
    code = _EXPORT.sub("", code)
    left = _LEFT.search(code)
    if left is not None:
        raise BundleError(f"{place}: {left[0]!r} is a form that the bundle does not know.")
    done[place] = f"{code}return {{ {', '.join(exported)} }};\n" if exported else code


def _import_of(place: str, file: str) -> str:
    return _variable(posixpath.normpath(posixpath.join(posixpath.dirname(place), file)))


def _exported(text: str) -> list[str]:
    return [next(filter(None, names)) for names in _EXPORT.findall(text)]


def _variable(place: str) -> str:
    return "module_" + re.sub(r"\W", "_", place.removesuffix(".js"))
