"""Find the shards that a text names: a folder, a URL, one tar, or several in brace notation or by a pattern."""

from __future__ import annotations

import fnmatch
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import braceexpand

from wds_real.errors import SourceError
from wds_real.format.root import open_root
from wds_real.storage.url import is_url, redact_url, split_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ShardNames", "find_shards", "place_of"]

_MAX_SHARDS = 1_000_000
_TAR_NAME = re.compile(r"\.(tar(\.[a-z0-9]+)?|tgz|txz|tbz2?)$", re.IGNORECASE)
_NUMBERS = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\}")
_MAX_DIGITS = 12
_SEVERAL_SPECS = re.compile(r"(?<!\[)::(?![0-9A-Fa-f:.%]*\])")  # not the :: of an address such as [::1]


@dataclass(frozen=True, slots=True)
class ShardNames:
    """The folder or URL that holds the shards, and their names there, in the order given."""

    place: str
    names: list[str]


def find_shards(spec: str, storage_options: Mapping[str, str] | None = None) -> ShardNames:
    """Return the shards that a text names. The folder is listed only if the text names it alone or has a pattern.

    A path that exists is taken as it is, whatever braces it holds. Braces in the folder of a path are expanded only
    where there is no such folder.

    Args:
        spec: A folder or URL, for all its tar files; or shards in it: ``val-{00..63}.tar``, ``val-*.tar``, ``val.tar``,
            also as ``file:val.tar``.
        storage_options: For URLs, as `wds_real.open_store` takes them.

    Raises:
        SourceError: the text is in a form that is not taken, names shards in several folders, a shard twice, or none.
    """
    spec = _as_path(spec)
    shown = redact_url(spec)
    if spec.startswith("pipe:"):
        raise SourceError(
            f"{shown}: commands are not run. Give the URL that the command reads, such as s3://lab/val.tar."
        )
    if _SEVERAL_SPECS.search(spec) and not _kind(spec):
        raise SourceError(f"{shown}: several specs joined by :: are not taken. Use braces, or index each by itself.")
    if not _names_shards(spec):
        names = [name for name in open_root(spec, storage_options).list() if name.endswith(".tar")]
        if not names:
            raise SourceError(f"{shown}: no tar file. Name the shards: .../name-{{000000..000049}}.tar.")
        return ShardNames(spec, names)
    parts = [split_url(text) for text in _expanded(spec)]
    places, names = {place for place, _ in parts}, [name for _, name in parts]
    if len(places) > 1:
        raise SourceError(f"{shown}: names shards in several folders. Index each folder by itself.")
    (place,) = places
    if not _kind(spec):
        names = _matching(names, place, shown, storage_options)
    if len(set(names)) < len(names):
        raise SourceError(f"{shown}: names a shard twice. Index each folder by itself, each shard once.")
    return ShardNames(place, names)


def place_of(spec: str) -> str:
    """Return the folder or URL that holds the shards."""
    spec = _as_path(spec)
    return split_url(spec)[0] if _names_shards(spec) else spec


def _as_path(spec: str) -> str:
    """Return the path of a ``file:`` URL; other texts as they are."""
    if not spec.lower().startswith("file:"):
        return spec
    rest = spec[len("file:") :]
    if not rest.startswith("//"):
        return unquote(rest)
    parts = urlsplit(spec)
    if parts.netloc not in ("", "localhost"):
        raise SourceError(f"{spec}: {parts.netloc} is another machine. Write file:///{parts.netloc}/... or a path.")
    return unquote(parts.path)


def _kind(path: str) -> str:
    """Return ``folder``, ``file``, or nothing for what does not exist or cannot be a path."""
    try:
        mode = 0 if is_url(path) else Path(path).stat().st_mode
    except (OSError, ValueError):  # also a text that is too long
        return ""
    return "" if not mode else "folder" if stat.S_ISDIR(mode) else "file"


def _names_shards(spec: str) -> bool:
    if is_url(spec):
        path = spec.partition("?")[0]
        return "{" in path or _has_pattern(split_url(path)[1], url=True) or _TAR_NAME.search(path) is not None
    if _kind(spec) == "folder":
        return False
    name = Path(spec).name
    return _kind(spec) == "file" or "{" in spec or _has_pattern(name, url=False) or _TAR_NAME.search(name) is not None


def _has_pattern(name: str, *, url: bool) -> bool:
    return any(character in name for character in ("*[" if url else "*?["))


def _expanded(spec: str) -> list[str]:
    """Return the texts that braces stand for."""
    if _kind(spec):
        return [spec]
    place, name = split_url(spec)
    if _kind(place) == "folder":
        return [str(Path(place) / expanded) for expanded in _expand_braces(name, spec)]
    return _expand_braces(spec, spec)


def _expand_braces(text: str, spec: str) -> list[str]:
    if not {"{", "}"} & set(text):
        return [text]
    if _most_expansions(text) > _MAX_SHARDS:
        raise SourceError(f"{redact_url(spec)}: the braces name more than {_MAX_SHARDS:,} shards. Check the numbers.")
    try:
        return list(braceexpand.braceexpand(text))
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{redact_url(spec)}: the braces do not match. Write .../name-{{000000..000049}}.tar."
        ) from error


def _most_expansions(text: str) -> int:
    """Return an upper bound of the number of texts that braces stand for, without making them.

    >>> _most_expansions("{a,b}-{00..99}.tar")
    200
    """
    total = 1
    for start, stop, step in _NUMBERS.findall(text):
        if max(len(start), len(stop), len(step)) > _MAX_DIGITS:
            return _MAX_SHARDS + 1
        total *= abs(int(stop) - int(start)) // max(1, abs(int(step or 1))) + 1
    open_groups: list[int] = []
    for character in _NUMBERS.sub("", text):
        if character == "{":
            open_groups.append(1)
        elif character == "," and open_groups:
            open_groups[-1] += 1
        elif character == "}" and open_groups:
            total *= open_groups.pop()
        if total > _MAX_SHARDS:
            break
    return total


def _matching(names: list[str], place: str, shown: str, storage_options: Mapping[str, str] | None) -> list[str]:
    """Return the names with each pattern replaced by the files that match it."""
    url = is_url(place)
    if not any(_has_pattern(name, url=url) for name in names):
        return names
    listed = open_root(place, storage_options).list()
    found: list[str] = []
    for name in names:
        matching = fnmatch.filter(listed, name) if _has_pattern(name, url=url) else [name]
        if not matching:
            raise SourceError(f"{shown}: no file in {redact_url(place)} matches {name}. Check the pattern.")
        found += matching
    return found
